"""Finds the one among three programs that leaks, keeps a snapshot of it, restarts it, and draws what happened.

    python examples/leak_hunt.py [FOLDER] [--quick] [--out DIR]

Three programs read the Python files of FOLDER (default: the standard library of this Python), over and over:

- ``tidy`` widens the text of each file, four bytes a character, and forgets it,
- ``cache`` keeps the last texts and drops them all when it has many: its memory is a sawtooth,
- ``leaky`` has a cache too, and somebody forgot to drop anything.

A ``ResourceMonitor`` watches them. It is told how fast memory may grow, not which program to suspect and not how much memory is
much. What grows for good gives an alert, which is answered by a snapshot and a restart, in this order; the sawtooth does not.

Exit code 0 means: exactly the leak was found, its snapshot is there and holds no secret, the restarted program runs with
little memory again, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from html import escape
from pathlib import Path

from procession import Command, MonitorConfig, Process, ProcessRegistry, ResourceLimits, ResourceMonitor, run, spawn
from procession.events import ActionTaken, AlertRaised, Event, MetricsSampled, ProcessSpawned
from procession.monitor import Alert, AlertType, Severity, actions
from procession.testing import LeakAudit

NAMES = ("tidy", "cache", "leaky")
SECRET = "hush-hush-0815"

PROGRAM = """
import itertools, pathlib, sys, threading

name, full, *files = sys.argv[1:]
kept, pause = [], threading.Event()
for file in itertools.cycle(files):
    wide = pathlib.Path(file).read_text(encoding="utf-8", errors="replace").encode("utf-32")
    if name != "tidy":
        kept.append(wide)
    if name == "cache" and len(kept) == int(full):
        kept.clear()
    pause.wait(0.02)
"""
"""What each of the three does until it is stopped."""


def sources(folder: Path) -> list[Path]:
    """Python files of some size."""
    found = (path for path in sorted(folder.rglob("*.py")) if path.is_file() and 20_000 < path.stat().st_size < 60_000)
    return list(itertools.islice(found, 100))


class Shop:
    """Keeps the three running, and restarts one when it is asked to. (A ``LifecycleManager`` does that and much more.)"""

    def __init__(self, folder: Path, full: int, registry: ProcessRegistry) -> None:
        self.registry = registry
        self.files = sources(folder)
        self.full = full
        self.running: dict[str, asyncio.Future[Process]] = {}
        self.closing = False

    async def keep(self, name: str) -> None:
        """Starts it, and again whenever it has ended."""
        words: tuple[str | Path, ...] = (sys.executable, "-I", "-S", "-c", PROGRAM, name, str(self.full), *self.files)
        command = Command(*words, env={"API_TOKEN": SECRET}, labels={"unit": name}, grace=1.0)
        while not self.closing:
            self.running[name] = started = asyncio.get_running_loop().create_future()
            async with spawn(command, registry=self.registry, name=name) as process:
                started.set_result(process)
                await process.wait()

    async def restart(self, id: str, *, reason: str = "") -> None:
        print(f"  restarting {id}: {reason}")
        before = self.running[id]
        async with self.registry.subscribe(ProcessSpawned) as spawned:
            await (await before).stop()
            await anext(spawned)

    async def close(self) -> None:
        self.closing = True
        for started in list(self.running.values()):
            await (await started).stop()


# ----------------------------------------------------------------------------------------- the hunt


class Record:
    """What was heard: the memory of each unit over time, and what was done."""

    def __init__(self, registry: ProcessRegistry) -> None:
        self.registry = registry
        self.memory: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
        self.pids: dict[str, list[int]] = {name: [] for name in NAMES}
        self.alerts: list[tuple[float, str]] = []
        self.done: list[ActionTaken] = []
        self.dealt_with: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        registry.listen(self.hear, types=(MetricsSampled, AlertRaised, ActionTaken))

    def hear(self, event: Event) -> None:
        name = self.registry.get(event.id).labels["unit"]
        if isinstance(event, MetricsSampled):
            memory = event.figures["rss_mb"]
            if memory is not None:
                self.memory[name].append((event.at, memory))
            if event.pid not in self.pids[name]:
                self.pids[name].append(event.pid)
        elif isinstance(event, AlertRaised):
            self.alerts.append((event.at, name))
        elif isinstance(event, ActionTaken):
            self.done.append(event)
            if event.action == "restart" and not self.dealt_with.done():
                self.dealt_with.set_result(None)


async def hunt(shop: Shop, monitor: ResourceMonitor, record: Record, out: Path, calm: float) -> Alert:
    """Waits for the leak to be found and dealt with, and a little longer."""
    monitor.on_alert(
        Severity.WARNING,
        lambda alert: print(f"  found: {alert}"),
        actions.snapshot(out / "snapshots"),
        actions.restart(via=shop),
        type=AlertType.MEMORY_LEAK,
    )
    with monitor.alerts() as alerts:
        async with asyncio.TaskGroup() as group:
            for name in NAMES:
                group.create_task(shop.keep(name))
            async with asyncio.timeout(100):
                alert = await anext(alerts)
                await record.dealt_with
            await asyncio.sleep(calm)
            await shop.close()
    return alert


# -------------------------------------------------------------------------------------- what it shows

STYLE = """svg { font: 12px system-ui, sans-serif; background: #fff; color: #222 } text { fill: currentColor }
.tidy { stroke: #2f9e6e; color: #2f9e6e } .cache { stroke: #2a7de1; color: #2a7de1 } .leaky { stroke: #d62839; color: #d62839 }
polyline { fill: none; stroke-width: 2 } .grid { stroke: currentColor; opacity: .15 }
.alert { stroke: #ef8a17; stroke-width: 2; stroke-dasharray: 5 4 } circle { fill: #ef8a17 } .name { stroke: none }
@media (prefers-color-scheme: dark) { svg { background: #16181d; color: #ddd } }
"""


def pieces(points: Iterable[tuple[float, float]], starts: int) -> list[list[tuple[float, float]]]:
    """A line per process: memory falls to next to nothing where one begins anew."""
    lines: list[list[tuple[float, float]]] = [[]]
    for at, memory in points:
        if lines[-1] and len(lines) < starts and memory < lines[-1][-1][1] / 2:
            lines.append([])
        lines[-1].append((at, memory))
    return lines


def draw(record: Record, title: str) -> str:
    """Memory over time, the alert marked; a file of its own that loads nothing."""
    every = [point for points in record.memory.values() for point in points]
    zero, last = min(at for at, _ in every), max(at for at, _ in every)
    most = max(memory for _, memory in every) * 1.1

    def place(at: float, memory: float) -> tuple[float, float]:
        return 70 + (at - zero) / (last - zero) * 800, 400 - memory / most * 320

    parts = []
    step = next(step for step in (5, 10, 20, 50, 100, 200, 500, 1000, 10_000) if most / step < 10)
    for memory in range(0, int(most) + 1, step):
        _, y = place(zero, memory)
        parts.append(
            f'<path class="grid" d="M70 {y:.1f}H870"/><text x="62" y="{y + 4:.1f}" text-anchor="end">{memory}</text>'
        )
    for second in range(0, int(last - zero) + 1, max(1, int(last - zero) // 10)):
        x, _ = place(zero + second, 0)
        parts.append(f'<text x="{x:.1f}" y="420" text-anchor="middle">{second} s</text>')
    for name, points in record.memory.items():
        for line in pieces(points, len(record.pids[name])):
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
            parts.append(f'<polyline class="{name}" points="{path}"><title>{name}</title></polyline>')
        x, y = place(*points[-1])
        parts.append(f'<text class="name {name}" x="{x + 8:.1f}" y="{y + 4:.1f}">{name}</text>')
    for at, name in record.alerts:
        x, y = place(*min(record.memory[name], key=lambda point: abs(point[0] - at)))
        parts.append(f'<path class="alert" d="M{x:.1f} 60V400"><title>alert: {name} leaks</title></path>')
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"/><text x="{x + 8:.1f}" y="70">leak: snapshot, restart</text>'
        )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 440"><style>{STYLE}</style>'
    return f'{head}<text x="70" y="28" font-size="17">{escape(title)}</text>{"".join(parts)}</svg>\n'


def problems(record: Record, alert: Alert, monitor: ResourceMonitor, out: Path) -> list[str]:
    """Asks files and figures, not the one who did it."""
    found = []
    if (alert.target, alert.type) != ("leaky", AlertType.MEMORY_LEAK) or [name for _, name in record.alerts] != [
        "leaky"
    ]:
        found.append(f"the leak should be the only alert: {monitor.history()}")
    if [(event.action, event.ok) for event in record.done] != [("snapshot", True), ("restart", True)]:
        found.append(f"a snapshot and a restart should have been made: {record.done}")
    if [len(record.pids[name]) for name in NAMES] != [1, 1, 2]:
        found.append(f"the leaking program, and no other, should have been restarted: {record.pids}")
    worst, now = max(memory for _, memory in record.memory["leaky"]), record.memory["leaky"][-1][1]
    if now > worst:
        found.append(f"restarted, it should need less than {worst:.0f} MB, not {now:.0f}")
    written = sorted((out / "snapshots").iterdir())
    texts = [path.read_text(encoding="utf-8") for path in written]
    if len(written) != 2 or any(SECRET in text for text in texts):
        found.append(f"one snapshot, as JSON and as text and without secrets, should be there: {written}")
    elif json.loads(texts[0])["pid"] != record.pids["leaky"][0]:
        found.append("the snapshot should be of the program as it leaked")
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description="Find the program that leaks, and draw what happened.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--quick", action="store_true", default=os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1")
    parser.add_argument(
        "--out", type=Path, help="where the chart and the snapshots go; default: a new temporary folder"
    )
    options = parser.parse_args()
    if len(sources(options.folder)) < 10:
        parser.error(f"{options.folder} has too few Python files of some size; ten are needed")

    out = options.out or Path(tempfile.mkdtemp(prefix="procession-leak-hunt-"))
    out.mkdir(parents=True, exist_ok=True)
    window, full = (3.0, 25) if options.quick else (8.0, 90)
    limits = ResourceLimits(max_memory_growth_mb_per_hour=500, for_seconds=window / 4)
    config = MonitorConfig(interval=0.05, trend_window=window, limits=limits, budget=0.5)
    await run(Command("true"))  # what the library keeps for as long as this program runs is there now
    audit = LeakAudit.start()
    print("three programs run; one of them leaks")
    async with ProcessRegistry() as registry:
        record = Record(registry)
        async with ResourceMonitor(config, registry=registry) as monitor:
            alert = await hunt(Shop(options.folder, full, registry), monitor, record, out, window / 2)
    found = problems(record, alert, monitor, out) + [str(leak) for leak in audit.finish()]
    began = record.memory["leaky"][0][0]
    chart = out / "leak_hunt.svg"
    chart.write_text(draw(record, "Resident memory of three programs, in MB"), encoding="utf-8")
    print(f"\n{alert.message}; found {alert.raised_at - began:.1f} s after it was started")
    for name in NAMES:
        memory = [size for _, size in record.memory[name]]
        print(f"  {name:<8}{len(memory)} samples, {min(memory):.0f} to {max(memory):.0f} MB, now {memory[-1]:.0f} MB")
    print(f"\nthe chart: {chart}\nthe snapshot: {record.done[0].detail}")
    print(
        "the leak was found and dealt with, nothing was left behind"
        if not found
        else "FAILED:\n  " + "\n  ".join(found)
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
