"""Runs real programs over a real tree, among processes that misbehave, and proves that nothing is left behind.

    python examples/quickstart.py [FOLDER] [--quick] [--out DIR]        (needs procession[demo])

Per package of FOLDER (default: the standard library of this Python) a pipeline ``tar | gzip | sha256sum`` runs. Beside
them one process ignores SIGTERM, one floods its stdout, one starts a grandchild in a session of its own, and one is
killed by a program that knows nothing but its pid. Exit code 0 means: every process is accounted for and gone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import sysconfig
import tempfile
from contextlib import nullcontext
from pathlib import Path

import psutil
from rich.live import Live
from rich.table import Table

from procession import Command, Process, ProcessExited, ProcessRegistry, ProcessSpawned, StopReport, run, spawn
from procession.process import Spawning
from procession.registry import write_timeline, write_trace
from procession.testing import LeakAudit

IGNORE = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
PARENT = (
    "import subprocess, time; child = subprocess.Popen(['sleep', '600'], start_new_session=True); "
    "print(child.pid, flush=True); time.sleep(600)"
)
ASSASSIN = "import os, sys; os.kill(int(sys.argv[1]), 9)"
MIB = 1 << 20


def memory() -> float:
    return psutil.Process().memory_info().rss / MIB


class Demo:
    def __init__(self, registry: ProcessRegistry, show: Screen) -> None:
        self.registry, self.show = registry, show
        self.reports: dict[str, StopReport] = {}
        self.failed: list[str] = []
        self.work_is_done = asyncio.Event()

    async def archive(self, package: Path, slots: asyncio.Semaphore) -> None:
        """One package through three programs; the data go from pipe to pipe, never through Python."""
        label = {"role": package.name}
        tar = Command("tar", "-C", package.parent, "-cf", "-", package.name, labels=label)
        pipeline = tar | Command("gzip", "-n", labels=label) | Command("sha256sum", labels=label)
        async with slots, pipeline.stream(registry=self.registry, owner="packages") as stream:
            self.show.row(package.name, "tar | gzip | sha256sum", stream.processes[0])
            async for line in stream.lines():
                self.show.finished(package.name, f"sha256 {line[:16]}…")
            if any(codes := await stream.wait()):
                self.failed.append(f"{package.name}: exit codes {codes}")

    async def ignores_term(self) -> None:
        async with self.spawn("ignores-term", Command(sys.executable, "-c", IGNORE)) as process:
            said = await anext(aiter(process.lines("stdout")))
            self.show.row(process.name, f"{said} to SIGTERM", process)
            await self.work_is_done.wait()
            self.reports[process.name] = await process.stop(grace=0.3)

    async def floods(self) -> None:
        """`yes` could write gigabytes a second; a reader of some MB/s makes it wait, and our memory stays flat."""
        async with self.spawn("floods", Command("yes", "a line that nobody needs")) as process:
            total, before = 0, memory()
            async for chunk in process.chunks():
                total += len(chunk)
                if total == 32 * len(chunk):
                    process.suspend()
                    await asyncio.sleep(0.15)
                    process.resume()
                state = psutil.Process(process.pid).status()
                self.show.row(process.name, f"{total / MIB:.1f} MiB read slowly, yes is {state}", process)
                if self.work_is_done.is_set():
                    break
                await asyncio.sleep(0.01)
            self.show.finished(process.name, f"{total / MIB:.1f} MiB read, our memory {memory() - before:+.1f} MiB")
            self.reports[process.name] = await process.stop()

    async def escapes(self) -> None:
        async with self.spawn("escapes", Command(sys.executable, "-c", PARENT)) as process:
            grandchild = await anext(aiter(process.lines("stdout")))
            self.show.row(process.name, f"grandchild {grandchild} left for a session of its own", process)
            await self.work_is_done.wait()
            self.reports[process.name] = await process.stop()

    async def is_killed(self) -> None:
        async with self.spawn("is-killed", Command("sleep", "600")) as process:
            await asyncio.sleep(0.4)
            kill = Command(sys.executable, "-c", ASSASSIN, str(process.pid), labels=process.command.labels)
            await run(kill, registry=self.registry, name="assassin", owner="trouble")
            code = await process.wait()
            self.show.finished(process.name, f"return code {code}: killed from outside, seen at once")
            self.failed += [] if code == -signal.SIGKILL else [f"is-killed: return code {code}"]

    def spawn(self, name: str, command: Command) -> Spawning:
        self.show.row(name, command.display(44), None)
        command = command.replace(labels={"role": name})
        return spawn(command, registry=self.registry, name=name, owner="trouble")

    async def work(self, packages: list[Path]) -> None:
        slots = asyncio.Semaphore(max(4, os.cpu_count() or 1))
        async with asyncio.TaskGroup() as trouble:
            for misbehave in (self.ignores_term, self.floods, self.escapes, self.is_killed):
                trouble.create_task(misbehave())
            async with asyncio.TaskGroup() as packing:
                for package in packages:
                    packing.create_task(self.archive(package, slots))
                packing.create_task(asyncio.sleep(1.0))  # trouble needs a moment too
            self.work_is_done.set()


class Screen:
    """A live table on a terminal; plain lines of progress elsewhere."""

    def __init__(self, registry: ProcessRegistry, total: int) -> None:
        self.registry, self.total, self.done = registry, total, 0
        self.rows: dict[str, tuple[str, Process | None]] = {}
        on_terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.live = Live(auto_refresh=False) if on_terminal else None

    def row(self, name: str, note: str, process: Process | None) -> None:
        self.rows[name] = (note, process)

    def finished(self, name: str, note: str) -> None:
        _, process = self.rows.pop(name, ("", None))
        self.done += process is not None and process.owner == "packages"
        if self.live is None:
            print(f"{self.done:4}/{self.total}  {name:<16} {note}", flush=True)

    async def paint(self) -> None:
        while self.live is not None:
            self.live.update(self.table(), refresh=True)
            await asyncio.sleep(0.08)

    def table(self) -> Table:
        alive = f"{len(self.registry)} processes alive, our memory {memory():.0f} MiB"
        table = Table("process", "pid", "state", "note", title=f"{self.done} of {self.total} packages; {alive}")
        for name, (note, process) in self.rows.items():
            state = "starting" if process is None else str(process.exit or process.state)
            table.add_row(name, "" if process is None else str(process.pid), state, note)
        return table


def print_reports(reports: dict[str, StopReport]) -> None:
    print(f"\n{'stopped':<14}{'how it ended':<14}{'signals':<26}{'escaped':<18}{'survived':<10}{'ms':>6}")
    for name, report in reports.items():
        signals, escaped = "+".join(report.signalled), ", ".join(map(str, report.escaped)) or "–"
        survived = ", ".join(map(str, report.survived)) or "nothing"
        print(f"{name:<14}{report.exit!s:<14}{signals:<26}{escaped:<18}{survived:<10}{report.duration * 1000:6.0f}")


async def main() -> int:
    parser = argparse.ArgumentParser(description="Run real programs, own them, prove it.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--quick", action="store_true", default=os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1")
    parser.add_argument("--out", type=Path, help="where the timeline goes; default: a new temporary folder")
    options = parser.parse_args()
    skipped = ("__pycache__", "site-packages", "dist-packages")
    packages = sorted(entry for entry in options.folder.glob("*/") if entry.is_dir() and entry.name not in skipped)
    packages = packages[:6] if options.quick else packages
    if not packages:
        parser.error(f"{options.folder} has no folders to archive")
    out = options.out or Path(tempfile.mkdtemp(prefix="procession-quickstart-"))
    out.mkdir(parents=True, exist_ok=True)

    await run(Command("true"))  # the library's own thread and guardian live from the first process on
    audit = LeakAudit.start()
    async with ProcessRegistry(journal_size=100_000) as registry:
        show = Screen(registry, len(packages))
        demo = Demo(registry, show)
        with show.live or nullcontext():
            async with asyncio.TaskGroup() as tasks:
                painting = tasks.create_task(show.paint())
                await demo.work(packages)
                painting.cancel()
        spawned, exited = len(registry.history(ProcessSpawned)), len(registry.history(ProcessExited))
        print_reports(demo.reports)
        timeline = write_timeline(registry, out / "timeline.html", title=f"Packing {options.folder}", label="role")
        trace = write_trace(registry, out / "trace.json", label="role")
    survivors = [str(ref) for report in demo.reports.values() for ref in report.survived]
    problems = demo.failed + survivors + [str(leak) for leak in audit.finish()]
    if spawned != exited or len(registry):
        problems.append(f"{spawned} spawned, {exited} exited, {len(registry)} alive")
    print(f"\n{len(packages)} packages, {spawned} processes spawned = {exited} exited; timeline and trace:")
    print(f"  {timeline}\n  {trace}")
    print("nothing was left behind" if not problems else "LEFT BEHIND OR FAILED:\n  " + "\n  ".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
