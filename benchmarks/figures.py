"""The figures of the guarantees: how long a stop takes, and what thousands of spawns and floods of output leave behind.

python benchmarks/figures.py               # writes its section of RESULTS.md
python benchmarks/figures.py --quick       # a fifth of everything, prints only
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file: `benchmarks` is beside it, not installed

from benchmarks._harness import arguments
from benchmarks._report import machine, say, table, write_section
from procession import Command, ProcessRegistry, run, spawn

Row = tuple[str, str, str, str]
PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mb() -> float:
    """Resident memory of this program."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * PAGE / 2**20


def p99(seconds: list[float]) -> float:
    """In milliseconds."""
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.99))] * 1e3


def row(name: str, bar: str, reached: str, met: bool) -> Row:
    """One line of the table."""
    return name, bar, reached, "yes" if met else "**no**"


async def stop_times(script: str, grace: float, times: int, ready: int = 1) -> list[float]:
    """Durations of ``stop()`` once the script has written ``ready`` lines."""
    took = []
    for _ in range(times):
        async with spawn(Command("sh", "-c", script), name="stopped") as process:
            lines = process.lines()
            for _ in range(ready):
                await anext(lines)
            began = time.perf_counter()
            report = await process.stop(grace)
            took.append(time.perf_counter() - began)
            if not report.is_clean:
                raise RuntimeError(str(report))
    return took


async def stops(share: float) -> list[Row]:
    """R3: a child that co-operates, one that ignores SIGTERM, a tree of 100."""
    polite = p99(await stop_times("echo ready; exec sleep 60", 5, int(100 * share)))
    deaf = p99(await stop_times("trap '' TERM; echo ready; while :; do sleep 1; done", 0.2, int(20 * share)))
    many = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; echo ready; wait"
    tree = p99(await stop_times(many, 5, int(20 * share)))
    return [
        row("stop of a co-operative child, p99", "< 20 ms", f"{polite:.1f} ms", polite < 20),
        row("stop of one that ignores SIGTERM, grace 200 ms, p99", "< 250 ms", f"{deaf:.1f} ms", deaf < 250),
        row("stop of a tree of 100, p99", "< 200 ms", f"{tree:.1f} ms", tree < 200),
    ]


async def spawns(count: int) -> list[Row]:
    """L2: thousands of spawns, 64 at a time."""
    turn = asyncio.Semaphore(64)
    command = Command("/bin/true")

    async def one(registry: ProcessRegistry) -> None:
        async with turn:
            await run(command, registry=registry)

    async with ProcessRegistry(journal_size=1000, ended_size=100) as registry:
        await asyncio.gather(*(one(registry) for _ in range(1000)))
        fds, memory = psutil.Process().num_fds(), rss_mb()
        for _ in range(count // 1000):
            await asyncio.gather(*(one(registry) for _ in range(1000)))
        grown, left = rss_mb() - memory, psutil.Process().num_fds() - fds
    zombies = sum(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children(recursive=True))
    return [
        row(f"memory after {count:,} spawns, 64 at a time", "+ 2 MiB", f"{grown:+.1f} MiB", grown <= 2),
        row(f"descriptors after {count:,} spawns", "0", str(left), left == 0),
        row("zombies", "0", str(zombies), zombies == 0),
    ]


async def floods(children: int, megabytes: int) -> list[Row]:
    """L5: several children write a lot at once; everything arrives, memory does not grow."""
    memory, peak, total = rss_mb(), 0.0, 0

    async def drink() -> None:
        nonlocal total, peak
        async with spawn(Command("head", "-c", f"{megabytes}M", "/dev/zero")) as process:
            async for chunk in process.chunks():
                total += len(chunk)
                peak = max(peak, rss_mb() - memory) if total % (1 << 24) < len(chunk) else peak

    await asyncio.gather(*(drink() for _ in range(children)))
    whole = total == children * megabytes << 20
    name = f"memory with {children} children × {megabytes} MiB of output"
    return [
        row(name, "+ 16 MiB", f"{peak:+.1f} MiB", peak <= 16),
        row("output delivered", "all", "all" if whole else f"{total} B", whole),
    ]


async def restarts(times: int) -> list[Row]:
    """R1: from the death of a child to the next one running, without backoff."""
    took = []
    command = Command("sleep", "60", stdout="null", stderr="null")
    for _ in range(times):
        async with spawn(command) as process:
            process.kill()
            killed = time.perf_counter()
            await process.wait()
        async with spawn(command):
            took.append(time.perf_counter() - killed)
    return [row(f"crash → running again, {times} times, p99", "< 20 ms", f"{p99(took):.1f} ms", p99(took) < 20)]


async def measure(share: float) -> list[Row]:
    """All of them, one after the other."""
    rows = await stops(share)
    rows += await restarts(int(1000 * share))
    rows += await spawns(int(10_000 * share))
    return rows + await floods(8, int(100 * share))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    options = arguments(__doc__).parse_args(argv)
    rows = asyncio.run(measure(0.2 if options.quick else 1.0))
    head = "## Figures of the guarantees (`benchmarks/figures.py`)"
    text = "\n\n".join((head, f"{machine()}; asyncio.", table(("what", "bar", "reached", "met"), rows)))
    say(text)
    if options.write or not (options.quick or options.no_write):
        write_section("figures", text + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
