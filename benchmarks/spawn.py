"""Spawn, reap, capture, stream and kill: procession against its peers, interleaved in one run.

    python benchmarks/spawn.py                 # five rounds; writes its section of RESULTS.md and plots/
    python benchmarks/spawn.py --quick         # two small rounds, prints only
    python benchmarks/spawn.py --peers-only    # without procession
    python benchmarks/spawn.py --groups rates,stall --rounds 7

Every measurement runs in a fresh process, so one peer's memory, loop or threads never touch another's. All children
get a null stdin; capturing means stdout and stderr each through a pipe, for every peer.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file: `benchmarks` is beside it, not installed

from benchmarks._harness import Bar, Cell, Results, arguments, interleave
from benchmarks._report import chart, machine, number, say, table, write_section
from benchmarks._syscalls import per_spawn
from benchmarks.peers import catalog

OURS = ("procession", "procession, uvloop")
LIMIT, STOCK, UVLOOP = "C posix_spawn", "asyncio 3.11", "uvloop"
PYTHON = tuple(name for name in catalog.PYTHON if name != "os.read")
ASYNC = tuple(name for name in PYTHON if name != "subprocess.run in threads")


@dataclass(frozen=True, slots=True)
class Case:
    """Arguments of the drivers for one case: full and quick."""

    name: str
    full: str
    quick: str


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that share a table; within a round each peer runs all of them before the next peer does."""

    name: str
    title: str
    peers: tuple[str, ...]
    cases: tuple[Case, ...]
    columns: tuple[tuple[str, str, str], ...]  # heading, case, metric


GROUPS = (
    Group(
        "rates",
        "Spawn and reap `/bin/true`, capture `/bin/echo x`: per second",
        (*catalog.COMPILED, *PYTHON),
        (
            Case("sequential", "sequential 400", "sequential 60"),
            Case("burst", "burst 6 100", "burst 1 100"),
            Case("capture", "capture 400", "capture 60"),
            Case("capture-burst", "capture-burst 6 100", "capture-burst 1 100"),
        ),
        (
            ("sequential /s", "sequential", "rate"),
            ("100 at once /s", "burst", "rate"),
            ("capture /s", "capture", "rate"),
            ("capture, 100 at once /s", "capture-burst", "rate"),
            ("parent CPU µs per spawn", "sequential", "cpu_us"),
            ("µs per capture", "capture", "cpu_us"),
        ),
    ),
    Group(
        "stall",
        "Stall of the loop while 100 spawn, and SIGKILL to the exit event (ms)",
        ASYNC,
        (Case("stall", "stall 10 100", "stall 2 100"), Case("kill", "kill 200", "kill 30")),
        (
            ("stall p99", "stall", "stall_p99_ms"),
            ("stall max", "stall", "stall_max_ms"),
            ("kill p50", "kill", "kill_p50_ms"),
            ("kill p99", "kill", "kill_p99_ms"),
        ),
    ),
    Group(
        "stream",
        "Reading 1 GiB of a child's output",
        ("os.read", *ASYNC),
        (Case("stream", "stream 1024", "stream 128"),),
        (
            ("MiB/s", "stream", "rate"),
            ("parent CPU µs per MiB", "stream", "cpu_us"),
            ("rise of RSS, MiB", "stream", "rss_rise_mb"),
            ("mean chunk, KiB", "stream", "chunk_kib"),
        ),
    ),
    Group(
        "parent",
        "Sequential spawns per second from a small parent, from one with 2 GiB resident, beside 1,000 live children",
        (*OURS, STOCK, "asyncio 3.11, pidfd", UVLOOP),
        (
            Case("small", "sequential 400", "sequential 60"),
            Case("ballast", "sequential 400 --ballast-mb 2048", "sequential 60 --ballast-mb 512"),
            Case("live", "sequential 400 --live 1000", "sequential 60 --live 200"),
        ),
        (
            ("small /s", "small", "rate"),
            ("2 GiB resident /s", "ballast", "rate"),
            ("1,000 live /s", "live", "rate"),
            ("memory per live child, KiB", "live", "live_kib"),
        ),
    ),
)
FEWER = {(UVLOOP, "ballast"): "sequential 30 --ballast-mb 2048"}  # it forks: 90 ms each

BARS = (
    Bar("sequential, of C", "rate", "sequential", 0.75, at_least=True, against=LIMIT),
    Bar("sequential, of asyncio 3.11", "rate", "sequential", 1.1, at_least=True, against=STOCK),
    Bar("sequential, of uvloop's own", "rate", "sequential", 2.8, at_least=True, against=UVLOOP),
    Bar("100 at once, of C", "rate", "burst", 0.8, at_least=True, against=LIMIT),
    Bar("100 at once, of asyncio 3.11", "rate", "burst", 1.1, at_least=True, against=STOCK),
    Bar("100 at once, of uvloop's own", "rate", "burst", 3.0, at_least=True, against=UVLOOP),
    Bar("capture, of C", "rate", "capture", 0.8, at_least=True, against=LIMIT),
    Bar("capture, 100 at once, of C", "rate", "capture-burst", 0.8, at_least=True, against=LIMIT),
    Bar("parent CPU per spawn, of asyncio 3.11", "cpu_us", "sequential", 0.65, at_least=False, against=STOCK),
    Bar("loop stall p99 while 100 spawn", "stall_p99_ms", "stall", 2.0, at_least=False, unit=" ms"),
    Bar("2 GiB resident, of small", "rate", "ballast", 0.95, at_least=True, other_case="small"),
    Bar("1,000 live children, of none", "rate", "live", 0.9, at_least=True, other_case="small"),
    Bar("streaming 1 GiB, of an os.read loop", "rate", "stream", 0.8, at_least=True, against="os.read"),
    Bar("rise of RSS while streaming 1 GiB", "rss_rise_mb", "stream", 16.0, at_least=False, unit=" MiB"),
    Bar("SIGKILL to exit event, p50", "kill_p50_ms", "kill", 0.5, at_least=False, unit=" ms"),
    Bar("SIGKILL to exit event, p99", "kill_p99_ms", "kill", 2.0, at_least=False, unit=" ms"),
)


def cells_of(group: Group, found: dict[str, catalog.Entry], *, quick: bool) -> list[Cell]:
    """Every case of every peer that is there."""
    cells: list[Cell] = []
    for name in group.peers:
        if name not in found:
            continue
        for case in group.cases:
            words = case.quick if quick else FEWER.get((name, case.name), case.full)
            cells.append(Cell(name, case.name, (*found[name].command, *words.split())))
    return cells


def group_table(group: Group, results: Results, found: dict[str, catalog.Entry]) -> str:
    """Medians, one row per peer."""
    rows = [
        [name, *(number(results.median(case, name, metric)) for _, case, metric in group.columns)]
        for name in group.peers
        if name in found
    ]
    return f"### {group.title}\n\n" + table(["who", *(heading for heading, _, _ in group.columns)], rows)


def syscall_table(found: dict[str, catalog.Entry], *, quick: bool) -> str:
    """System calls of the parent per sequential spawn, by name."""
    rows: list[list[str]] = []
    for name, entry in found.items():
        if name == "os.read":
            continue
        calls = per_spawn(entry.command, *((10, 40) if quick else (40, 140)))
        if calls is None:
            return "System calls: strace is not installed, skipped."
        shown = ", ".join(f"{call} {count:.1f}" for call, count in calls.items() if count >= 0.5)
        rows.append([name, f"{sum(calls.values()):.1f}", shown])
    return "### System calls of the parent per sequential spawn\n\n" + table(["who", "calls", "which"], rows)


def draw(results: Results, found: dict[str, catalog.Entry]) -> list[str]:
    """The charts of RESULTS.md."""
    wanted = (
        ("spawn_sequential", "Spawn and reap, sequential", "sequential", "rate", "per second"),
        ("spawn_burst", "Spawn and reap, 100 at once", "burst", "rate", "per second"),
        ("spawn_capture", "Capture output, sequential", "capture", "rate", "per second"),
        ("spawn_cpu", "Parent CPU per spawn", "sequential", "cpu_us", "µs, less is better"),
        ("spawn_stall", "Loop stall while 100 spawn, p99", "stall", "stall_p99_ms", "ms, less is better"),
        ("spawn_stream", "Reading a child's output", "stream", "rate", "MiB/s"),
    )
    links: list[str] = []
    for name, title, case, metric, unit in wanted:
        values = {peer: results.median(case, peer, metric) for peer in found}
        there = {peer: value for peer, value in values.items() if value is not None}
        if there:
            path = chart(name, title, there, unit=unit)
            links.append(f"![{title}]({path.parent.name}/{path.name})")
    return links


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    parser = arguments(__doc__)
    parser.add_argument("--peers-only", action="store_true", help="leave procession out; writes nothing")
    parser.add_argument("--groups", default=",".join(group.name for group in GROUPS), help="default: %(default)s")
    options = parser.parse_args(argv)
    chosen = [group for group in GROUPS if group.name in options.groups.split(",")]
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    began = time.monotonic()

    names = [*OURS, *(name for name in (*catalog.COMPILED, *PYTHON, "os.read") if name not in OURS)]
    entries = [catalog.find(name) for name in names if not (options.peers_only and name in OURS)]
    found = {entry.name: entry for entry in entries if not entry.missing}
    parts = [
        "## Spawn (`benchmarks/spawn.py`)",
        f"{machine()}; {rounds} rounds{', quick (smaller counts and sizes)' if options.quick else ''}.",
    ]
    parts.append("\n".join(f"- {entry.name}: {entry.version or f'skipped, {entry.missing}'}" for entry in entries))
    say("\n\n".join(parts) + "\n")

    results = Results()
    for group in chosen:
        of_group = interleave(cells_of(group, found, quick=options.quick), rounds)
        results.rounds |= of_group.rounds
        results.failures |= of_group.failures
        parts.append(group_table(group, results, found))
        say(parts[-1] + "\n")
    if "rates" in options.groups.split(","):
        parts.append(syscall_table(found, quick=options.quick))
        say(parts[-1] + "\n")
    if not options.peers_only:
        cases = {case.name for group in chosen for case in group.cases}
        rows = [bar.row(results, ours) for bar in BARS if bar.case in cases for ours in OURS]
        parts.insert(2, "### Bars\n\n" + table(["bar", "on", "reached", "wanted", "met"], rows))
        say(parts[2] + "\n")
    for (case, peer), reason in results.failures.items():
        parts.append(f"- failed: {peer}, {case}: {reason}")
        say(parts[-1])
    partial = options.quick or options.peers_only or len(chosen) < len(GROUPS)
    if options.write or not (partial or options.no_write):
        parts += draw(results, found)
        say(f"written: {write_section('spawn', chr(10).join(f'{part}{chr(10)}' for part in parts)).name}")
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
