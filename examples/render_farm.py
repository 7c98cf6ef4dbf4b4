"""A farm of real work on real files: who goes first, who waits, who makes room – and a chart of all of it.

    python examples/render_farm.py [FOLDER] [--quick] [--out DIR]

Every file of FOLDER (default: the standard library of this Python) is copied, packed by ``gzip``, then hashed by
``sha256sum``: thousands of tasks for a few places to run. Beside them

- a *reel* takes long on one core and is not urgent; it is suspended when orders come in, and goes on later,
- a *film* needs all cores at once; while it waits for the reel, short work passes it without delaying it,
- *orders* come late and go first: a front page at once, others by a deadline,
- a *preview* of the film is of no use after a moment: it is not started any more, and says so,
- a *manifest* comes after all hashes.

Exit code 0 means: every file was handled once, the archive holds what the files held, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import itertools
import os
import re
import shutil
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from procession import Command, Completed, DeadlineMissed, ProcessExited, ProcessRegistry, ProcessSpawned, run
from procession.events import StateChanged, TaskFinished, TaskPreempted, TaskStarted, TaskSubmitted
from procession.scheduler import Job, Preemption, Priority, PriorityAging, Scheduler, SchedulerConfig, Task
from procession.testing import LeakAudit

CORES = max(2, min(4, os.cpu_count() or 1))
CONFIG = SchedulerConfig(
    max_concurrent_tasks=CORES,
    resources={"cpu_cores": CORES, "memory_mb": 2048},
    policy=PriorityAging(aging_factor=0.02),  # waiting for 50 seconds is worth one level
)
SQUEEZE, SUFFIX = (("xz", "-6kf", "-T1"), ".xz") if shutil.which("xz") else (("gzip", "-9kf"), ".gz")
THREADS = (f"-T{CORES}", "--block-size=512KiB") if SQUEEZE[0] == "xz" else ()
LARGE = {"reel": 1.0, "film": 1.0, "front": 0.5}  # how long, as parts of `seconds`, each takes on one core
MIB = 1 << 20


def copy(source: Path, folder: Path, most: int) -> list[Path]:
    """Takes small files of all kinds; numbers make their names different."""
    skipped = {"__pycache__", "site-packages", "dist-packages"}
    wanted = (path for path in sorted(source.rglob("*")) if path.is_file() and not skipped.intersection(path.parts))
    files: list[Path] = []
    for path in itertools.islice((path for path in wanted if 0 < path.stat().st_size < MIB // 4), most):
        files.append(folder / f"{len(files):04}-{re.sub('[^A-Za-z0-9_.]', '_', path.name)}")
        shutil.copyfile(path, files[-1])
    return files


def join(files: list[Path], target: Path, size: float) -> None:
    """Makes a large file of small ones."""
    with target.open("wb") as out:
        for file in itertools.cycle(files):
            if out.write(file.read_bytes()) and out.tell() >= size:
                return


def large(name: str, folder: Path, *options: str) -> Command:
    return Command(*SQUEEZE, *options, name, cwd=folder, labels={"task": name})


def jobs(files: list[Path]) -> list[Job]:
    """Two tasks per file: one packs it, the other comes after that and hashes what was made."""
    made = []
    for file in files:
        number = file.name.partition("-")[0]
        pack = Command("gzip", "-9nkf", file.name, cwd=file.parent, labels={"task": f"pack-{number}"})
        digest = Command("sha256sum", f"{file.name}.gz", cwd=file.parent, labels={"task": f"hash-{number}"})
        made += [Job(pack, id=f"pack-{number}"), Job(digest, id=f"hash-{number}", after=[f"pack-{number}"])]
    return made


async def write_manifest(folder: Path, hashes: list[Task[Completed]]) -> None:
    """A coroutine is work, too. This one comes after all hashes, so their results are there."""
    folder.joinpath("MANIFEST").write_text("".join(task.result().text for task in hashes))


async def work(scheduler: Scheduler, folder: Path, files: list[Path], seconds: float) -> list[Task[Any]]:
    """Submits everything in the order in which a day brings it, and waits until all of it has its fate."""
    now, running, arrived = asyncio.get_running_loop().time, asyncio.Event(), asyncio.Event()
    one, every = {"cpu_cores": 1, "memory_mb": 200}, {"cpu_cores": CORES, "memory_mb": 200}
    little: dict[str, Any] = {"resources": {"cpu_cores": 1, "memory_mb": 8}, "estimated_duration": 0.05, "timeout": 60}
    urgent, normal, whenever = files[::10], files[3::10], files[5::10]
    bulk = sorted({*files}.difference(urgent, normal, whenever))

    # By night: large work that nobody waits for, and most of the files.
    reel = scheduler.submit(
        large("reel", folder),
        id="reel",
        priority=Priority.LOW,
        resources=one,
        estimated_duration=seconds * 1.5,
        preemption=Preemption.SUSPEND,
        on_spawn=lambda _: running.set(),
    )
    await running.wait()
    film = scheduler.submit(
        large("film", folder, *THREADS), id="film", priority=Priority.LOW, resources=every, estimated_duration=seconds
    )
    look = Command("head", "-c", "100", f"film{SUFFIX}", cwd=folder)
    preview = scheduler.submit(look, id="preview", priority=Priority.LOW, after=[film], deadline=now() + seconds / 4)
    tasks = scheduler.submit_many(jobs(bulk), priority=Priority.LOW, **little)
    tasks += scheduler.submit_many(jobs(whenever), priority=Priority.BACKGROUND, **little)

    # In the morning, with a tenth of that done, orders come in.
    await tasks[len(bulk) // 10 * 2]
    print(f"  {film.explain()}")
    front = scheduler.submit(
        large("front", folder), id="front", priority=Priority.CRITICAL, resources=one, on_spawn=lambda _: arrived.set()
    )
    tasks += scheduler.submit_many(jobs(urgent), priority=Priority.HIGH, deadline=now() + 60, **little)
    tasks += scheduler.submit_many(jobs(normal), priority=Priority.NORMAL, **little)
    hashes = [task for task in tasks if task.id.startswith("hash-")]
    last = scheduler.submit(write_manifest, folder, hashes, id="manifest", after=hashes, priority=Priority.BACKGROUND)
    await arrived.wait()
    print(f"  {reel.explain()}")
    await scheduler.drain()
    return [reel, film, preview, front, last, *tasks]


# ------------------------------------------------------------------------------------------ the chart


@dataclass
class Bar:
    id: str
    priority: int
    start: float
    end: float = 0.0
    outcome: str = ""
    pauses: list[list[float]] = field(default_factory=list)


def bars_of(registry: ProcessRegistry) -> list[Bar]:
    """Who ran when. Start, preemption and end are events of a task; that it goes on is one of its process."""
    bars: dict[str, Bar] = {}
    priority: dict[str, int] = {}
    for event in registry.history():
        match event:
            case TaskSubmitted():
                priority[event.id] = event.priority
            case TaskStarted():
                bars[event.id] = Bar(event.id, priority[event.id], event.at)
            case TaskPreempted():
                bars[event.id].pauses.append([event.at, event.at])
            case StateChanged(new="running"):
                bars[registry.get(event.id).labels["task"]].pauses[-1][1] = event.at
            case TaskFinished():
                bar = bars.setdefault(event.id, Bar(event.id, priority[event.id], event.at))  # it may never have begun
                bar.end, bar.outcome = event.at, event.outcome
    return list(bars.values())


STYLE = """svg { font: 12px system-ui, sans-serif; background: #fff; color: #222 } text { fill: currentColor }
.p0 { fill: #d62839 } .p1 { fill: #ef8a17 } .p2 { fill: #2a7de1 } .p3 { fill: #2f9e6e } .p4 { fill: #8d99ae }
.grid { stroke: currentColor; opacity: .2 } .name { fill: #fff } .pause { fill: url(#hatch) }
.missed { stroke: #d62839; stroke-width: 2 }
@media (prefers-color-scheme: dark) { svg { background: #16181d; color: #ddd } }
"""
HATCH = (
    '<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" fill="#fff"/><rect width="3" height="6" fill="#555"/></pattern>'
)
LEGEND = "one bar per task, coloured by priority · hatched: suspended · ×: not started, its deadline had passed"


def draw(bars: list[Bar], title: str) -> str:
    """The chart, which loads nothing: for each priority as many rows as were used at a time."""
    zero, last = min(bar.start for bar in bars), max(bar.end for bar in bars)
    scale, top, parts = 1050 / (last - zero), 70, []

    def rect(kind: str, y: int, start: float, end: float) -> str:
        x, width = 130 + (start - zero) * scale, max((end - start) * scale - 0.5, 0.5)
        return f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="13"/>'

    for level in Priority:
        rows: list[float] = []
        parts.append(f'<text x="10" y="{top + 11}">{level.name.lower()}</text>')
        for bar in sorted((bar for bar in bars if bar.priority == level), key=lambda bar: bar.start):
            row = next((row for row, end in enumerate(rows) if end <= bar.start), len(rows))
            rows[row : row + 1] = [bar.end]
            y = top + 16 * row
            body = rect(f"p{level}", y, bar.start, bar.end)
            body += "".join(rect("pause", y, start, end) for start, end in bar.pauses)
            if (bar.end - bar.start) * scale > 60:
                body += f'<text class="name" x="{134 + (bar.start - zero) * scale:.1f}" y="{y + 11}">{bar.id}</text>'
            if bar.outcome == "missed":
                body = f'<path class="missed" d="M{125 + (bar.start - zero) * scale:.1f} {y + 1}l10 10m0 -10l-10 10"/>'
            text = f"{bar.id}: {bar.outcome}, {bar.start - zero:.3f} s to {bar.end - zero:.3f} s"
            parts.append(f"<g><title>{escape(text)}</title>{body}</g>")
        top += 16 * max(len(rows), 1) + 8
    step = next((step for step in (0.1, 0.2, 0.5, 1, 2, 5) if (last - zero) / step < 15), 10)
    for tick in range(int((last - zero) / step) + 1):
        x = 130 + tick * step * scale
        parts.append(f'<path class="grid" d="M{x:.1f} 52V{top}"/><text x="{x + 3:.1f}" y="62">{tick * step:g} s</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1200 {top + 10}"><style>{STYLE}</style>{HATCH}'
    words = f'<text x="10" y="22" font-size="17">{escape(title)}</text><text x="10" y="42">{LEGEND}</text>'
    return f"{head}{words}{''.join(parts)}</svg>\n"


# ----------------------------------------------------------------------------------- what came of it


def summary(tasks: list[Task[Any]], bars: list[Bar]) -> None:
    """The day in figures. The handles know when each task waited and ran; the journal, when it stood still."""
    reel, film, preview = tasks[:3]
    seconds = max(bar.end for bar in bars) - min(bar.start for bar in bars)
    ran = [task for task in tasks if task.attempts]
    used = sum(task.run_time * (CORES if task is film else 1) for task in ran) / seconds / CORES
    behind = [task for task in ran if task.priority >= film.priority and task.queued_at >= film.queued_at]
    passed = sum(task.started_at < film.started_at for task in behind)
    paused = sum(end - start for bar in bars for start, end in bar.pauses)
    print(f"\n{len(ran)} tasks in {seconds:.1f} s, {len(ran) / seconds:.0f} a second, {used:.0%} of {CORES} cores used")
    for what, values in (("waited", [task.waited for task in ran]), ("ran", [task.run_time for task in ran])):
        p50, p99, most = (sorted(values)[int(len(values) * part)] * 1000 for part in (0.5, 0.99, 0.9999))
        print(f"  {what:<10}p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {most:.0f} ms")
    print(f"  passed    {passed} short tasks ran while the film waited for all cores")
    print(f"  preempted {reel.id}, {reel.preemptions} time: ran {reel.run_time:.2f} s, stood still {paused:.2f} s")
    print(f"  missed    {preview.exception()}")


def problems(folder: Path, files: list[Path], tasks: list[Task[Any]], registry: ProcessRegistry) -> list[str]:
    """Asks the files and the journal, not the one who did it."""
    reel, _, preview, front, *_ = tasks
    lines = [line.split() for line in (folder / "MANIFEST").read_text().splitlines()]
    manifest = {name: digest for digest, name in lines}
    found = [] if len(lines) == len(manifest) == len(files) else [f"{len(lines)} lines for {len(files)} files"]
    for file in files:
        packed = Path(f"{file}.gz").read_bytes()
        if manifest.get(f"{file.name}.gz") != hashlib.sha256(packed).hexdigest():
            found.append(f"{file.name}.gz: another hash than in the manifest")
        if gzip.decompress(packed) != file.read_bytes():
            found.append(f"{file.name}.gz: does not hold what the file holds")
    ends = [event for event in registry.history(TaskFinished) if isinstance(event, TaskFinished)]
    starts = sorted(event.id for event in registry.history(TaskStarted))
    if sorted(end.id for end in ends) != sorted([*starts, preview.id]) or len(ends) != len(set(tasks)):
        found.append("not every task has exactly one start and one end")
    found += [f"{end.id}: {end.outcome}" for end in ends if end.outcome != "succeeded" and end.id != preview.id]
    if not isinstance(preview.exception(), DeadlineMissed):
        found.append("the preview should have missed its deadline")
    if reel.preemptions != 1 or reel.started_at < front.started_at:
        found.append("the reel should have made room for the front page, and have gone on")
    spawned, exited = len(registry.history(ProcessSpawned)), len(registry.history(ProcessExited))
    if spawned != exited or len(registry):
        found.append(f"{spawned} processes spawned, {exited} exited, {len(registry)} alive")
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description="Pack and hash files at every urgency, and draw what became of it.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--quick", action="store_true", default=os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1")
    parser.add_argument("--out", type=Path, help="where the chart goes; default: a new temporary folder")
    options = parser.parse_args()
    most, seconds = (200, 1.0) if options.quick else (3000, 4.0)

    with tempfile.TemporaryDirectory(prefix="render-farm-") as name:
        folder = Path(name)
        files = copy(options.folder, folder, most)
        if len(files) < 100:
            parser.error(f"{options.folder} has {len(files)} small files; a hundred are needed")
        join(files, folder / "sample", MIB)
        sample = await run(large("sample", folder), check=True)  # how fast is this machine?
        for one, part in LARGE.items():
            join(files, folder / one, part * seconds / sample.duration * MIB)
        print(f"{len(files)} files, {CORES} cores")

        audit = LeakAudit.start()
        registry = ProcessRegistry(journal_size=100_000, ended_size=10_000)
        async with registry, Scheduler(CONFIG, registry=registry, name="farm") as scheduler:
            tasks = await work(scheduler, folder, files, seconds)
        found = problems(folder, files, tasks, registry) + [str(leak) for leak in audit.finish()]
        await run(Command(SQUEEZE[0], "-t", *(f"{one}{SUFFIX}" for one in LARGE), cwd=folder), check=True)
    bars = bars_of(registry)
    summary(tasks, bars)
    chart = (options.out or Path(tempfile.mkdtemp(prefix="procession-render-farm-"))) / "render_farm.svg"
    chart.parent.mkdir(parents=True, exist_ok=True)
    chart.write_text(draw(bars, f"{len(tasks)} tasks on {CORES} cores"), encoding="utf-8")
    print(f"\nwho ran when: {chart}")
    print("every file was handled once, nothing was left behind" if not found else "FAILED:\n  " + "\n  ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
