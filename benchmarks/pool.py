"""The pools: calls of Python functions, leases, and what dying workers take along, against other pools of processes.

    python benchmarks/pool.py                         # five rounds; writes its section of RESULTS.md and plots/
    python benchmarks/pool.py --quick                 # one short round, prints only
    python benchmarks/pool.py --groups calls,kills    # part of it, prints only (calls, cold, lease, kills, scale, counts)

Every measurement is a process of its own. Calls are echoes that are compared with what was sent; two workers, 100 B and
100 under way unless a table says otherwise. The best peer is the best of each round, whoever that is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file: `benchmarks` is beside it, not installed

from benchmarks._harness import ROOT, Bar, Cell, Figures, Results, arguments, run_driver
from benchmarks._report import chart, machine, number, say, table, write_section
from benchmarks._syscalls import per_spawn

DRIVER = (sys.executable, "-m", "benchmarks.peers.pool_driver")
LIMIT = 60.0  # seconds for one driver; whoever takes longer hangs
OURS, OURS_UVLOOP = "procession", "procession, uvloop"
EXECUTOR, EXECUTOR_UVLOOP, ANYIO, BEST = "ProcessPoolExecutor", "ProcessPoolExecutor, uvloop", "anyio", "best peer"
PEERS = {  # driver, and the packages it needs
    OURS: ("procession", ("procession",)),
    OURS_UVLOOP: ("procession-uvloop", ("procession", "uvloop")),
    EXECUTOR: ("executor", ()),
    EXECUTOR_UVLOOP: ("executor-uvloop", ("uvloop",)),
    "ProcessPoolExecutor, not forked": ("executor-default", ()),
    "multiprocessing.Pool": ("multiprocessing", ()),
    "loky": ("loky", ("loky",)),
    "pebble": ("pebble", ("pebble",)),
    "aiomultiprocess": ("aiomultiprocess", ("aiomultiprocess",)),
    ANYIO: ("anyio", ("anyio",)),
    "distributed": ("distributed", ("distributed",)),
}
MINE = (OURS, OURS_UVLOOP)
COUNTED = {OURS: (1000, 21000), EXECUTOR: (200, 1200), "pebble": (200, 1200), ANYIO: (200, 1200)}  # few and many calls
MANY_IN_FLIGHT = ("--in-flight", "100")
LOWER_IS_BETTER = ("p50_us", "p99_us", "cpu_us", "ms", "pss_mb")


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that one driver measures in one go, and in how many of the rounds the peers take part."""

    name: str
    full: tuple[str, ...]
    quick: tuple[str, ...]
    peer_rounds: int
    who: tuple[str, ...] = tuple(PEERS)
    who_quick: tuple[str, ...] = tuple(PEERS)


FEW = (*MINE, EXECUTOR, "pebble")
GROUPS = (
    Group("calls", ("calls 0.5",), ("calls 0.12",), 99),
    Group("cold", ("cold 1", "cold 8"), ("cold 1", "cold 4"), 2, who_quick=FEW),
    Group("lease", ("lease 20000",), ("lease 2000",), 0, who=MINE, who_quick=MINE),
    Group("kills", ("kills 3",), ("kills 0.5",), 2, who_quick=FEW),
    Group("scale", ("scale 0.3 1 2 4 8",), ("scale 0.1 1 2",), 1, who_quick=FEW),
)
COUNTS = "counts"
NAMES = (*(group.name for group in GROUPS), COUNTS)
ROUNDS_OF_OURS = {"scale": 1}  # it has no bar


# --------------------------------------------------------------------------------------------- bars


def bars_of(most: int) -> list[tuple[str, str, Bar]]:
    """(group, ours, bar) for each promise."""

    def of(title: str, metric: str, case: str, bound: float, peer: str, other: str = "") -> Bar:
        return Bar(title, metric, case, bound, at_least=metric == "rate", against=peer, other_case=other)

    def upto(title: str, metric: str, case: str, bound: float, unit: str = "") -> Bar:
        return Bar(title, metric, case, bound, at_least=False, unit=unit)

    bars: list[tuple[str, str, Bar]] = [
        ("calls", OURS, of("round trip p50, of ProcessPoolExecutor", "p50_us", "trip", 0.5, EXECUTOR)),
        ("calls", OURS, of("round trip p50, of anyio", "p50_us", "trip", 1.0, ANYIO)),
        ("calls", OURS_UVLOOP, of("round trip p50, of ProcessPoolExecutor on uvloop", "p50_us", "trip", 0.4, EXECUTOR_UVLOOP)),
    ]  # fmt: skip
    for ours, executor in ((OURS, EXECUTOR), (OURS_UVLOOP, EXECUTOR_UVLOOP)):
        bars += [
            ("calls", ours, of("100 in flight, of ProcessPoolExecutor", "rate", "many", 6.0, executor)),
            ("calls", ours, of("100 in flight, of the best peer", "rate", "many", 3.0, BEST)),
            ("calls", ours, of("one call per worker, of ProcessPoolExecutor", "rate", "single", 2.0, executor, "many")),
            ("calls", ours, of("one call per worker, of the best peer", "rate", "single", 1.2, BEST, "many")),
            ("calls", ours, of("parent CPU per call, of ProcessPoolExecutor", "cpu_us", "many", 0.15, executor)),
            ("calls", ours, of("1 MiB both ways, of the best peer", "rate", "large", 1.5, BEST)),
            ("calls", ours, upto("loop stall p99 meanwhile", "stall_p99_ms", "large", 2.0, " ms")),
            ("cold", ours, of(f"cold start of {most}, heavy preload, of one", "ms", f"cold {most}", 1.5, "", "cold 1")),
            ("lease", ours, upto("lease, acquire + release of an idle worker", "us", "lease", 15.0, " µs")),
            ("kills", ours, upto("killed every 200 ms, one retry: calls lost", "lost", "kills", 0)),
            ("kills", ours, upto("calls wrong", "wrong", "kills", 0)),
            ("kills", ours, upto("longest delay of a call, of the longest replacement", "delay_of_spawn", "kills", 1.0, " ×")),
            ("kills", ours, upto("pool broken", "broken", "kills", 0)),
        ]  # fmt: skip
    return sorted(bars, key=lambda bar: NAMES.index(bar[0]))


def best_of(results: Results) -> None:
    """Adds, per round, the best figure any peer has reached."""
    for case in {case for case, _ in results.rounds}:
        theirs = [rounds for (of, peer), rounds in results.rounds.items() if of == case and not peer.startswith(OURS)]
        best: list[Figures | None] = []
        for number_of_round in range(max(map(len, theirs), default=0)):
            found = [one for rounds in theirs for one in rounds[number_of_round : number_of_round + 1] if one]
            metrics = {metric for one in found for metric in one}
            best.append({metric: _better(metric)(one[metric] for one in found if metric in one) for metric in metrics})
        results.rounds[case, BEST] = best


def _better(metric: str) -> Callable[[Iterable[float]], float]:
    return min if metric in LOWER_IS_BETTER else max


# ------------------------------------------------------------------------------------------- rounds


def measure(groups: Sequence[Group], there: Sequence[str], rounds: int, *, quick: bool) -> Results:
    """A B C A B C …, group by group; a driver that fails once is left out of the later rounds and named."""
    results = Results()
    for group in groups:
        for index in range(min(rounds, ROUNDS_OF_OURS.get(group.name, rounds))):
            for peer in there:
                if peer not in (group.who_quick if quick else group.who):
                    continue
                if peer not in MINE and index >= group.peer_rounds:
                    continue
                for words in group.quick if quick else group.full:
                    cell = Cell(peer, words, (*DRIVER, PEERS[peer][0], *words.split()))
                    _one(cell, f"round {index + 1}/{rounds}", results)
    best_of(results)
    return results


def _one(cell: Cell, where: str, results: Results) -> None:
    """Runs one driver and puts each figure in its case; a figure is called `case/metric`."""
    key = (cell.case, cell.peer)
    if key in results.failures:
        return
    if sys.stderr.isatty():
        print(f"\r\x1b[K{where}: {cell.case}, {cell.peer}", end="", file=sys.stderr, flush=True)
    try:
        figures = run_driver(cell.command, limit=LIMIT)
    except (RuntimeError, ValueError, LookupError, OSError) as error:
        results.failures[key] = str(error)
        return
    finally:
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    cases: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        case, _, metric = name.rpartition("/")
        cases.setdefault(case, {})[metric] = value
    for case, found in cases.items():
        results.rounds.setdefault((case, cell.peer), []).append(found)


# ------------------------------------------------------------------------------------------- tables


def figures_table(
    results: Results, there: Sequence[str], title: str, columns: Sequence[tuple[str, str, str]], *, best: bool = False
) -> str:
    """One row per peer, one column per figure (heading, case, metric)."""
    rows = []
    for peer in (*there, BEST) if best else there:
        values = [results.median(case, peer, metric) for _, case, metric in columns]
        if any(value is not None for value in values):
            rows.append([peer, *map(number, values)])
    return f"### {title}\n\n" + table(["who", *(heading for heading, _, _ in columns)], rows)


def calls_table(results: Results, there: Sequence[str]) -> str:
    """Everything about calls."""
    columns = (
        ("round trip p50, µs", "trip", "p50_us"),
        ("p99", "trip", "p99_us"),
        ("calls/s, 100 in flight", "many", "rate"),
        ("parent CPU per call, µs", "many", "cpu_us"),
        ("calls/s, one per worker", "single", "rate"),
        ("1 MiB both ways, MiB/s", "large", "rate"),
        ("parent CPU per MiB, µs", "large", "cpu_us"),
        ("loop stall p99, ms", "large", "stall_p99_ms"),
        ("max", "large", "stall_max_ms"),
    )
    return figures_table(results, there, "Echo of 100 B and of 1 MiB, 2 workers", columns)


def kills_table(results: Results, there: Sequence[str]) -> str:
    """What became of the calls, and of the pool."""
    title = "One of four workers killed every 200 ms; calls of 5 ms, 16 in flight"
    rows = []
    for peer in there:
        rounds = [one for one in results.rounds.get(("kills", peer), []) if one]
        if not rounds:
            continue
        total = {metric: sum(one[metric] for one in rounds) for metric in ("kills", "ok", "lost", "hung", "wrong")}
        broken, short = (any(one[metric] for one in rounds) for metric in ("broken", "short"))
        verdict = "broken for good" if broken else "not whole at the end" if short else "whole"
        if total["hung"]:
            verdict += f", {total['hung']:.0f} calls hang"
        times = [results.median("kills", peer, metric) for metric in ("whole_ms", "whole_max_ms", "delay_ms")]
        rows.append([peer, verdict, *(f"{total[one]:,.0f}" for one in ("kills", "ok", "lost", "wrong")), *map(number, times)])  # fmt: skip
    head = ["who", "the pool", "kills", "calls answered", "lost", "wrong"]
    head += ["full size again, ms", "longest", "longest delay of a call, ms"]
    note = "Ours with one retry, which no peer but distributed has; loky is asked for anew when it refuses calls."
    return f"### {title}\n\n{note}\n\n" + table(head, rows)


def scale_table(results: Results, there: Sequence[str], sizes: Sequence[int]) -> str:
    """Throughput by size, and the memory of idle workers."""
    columns = [(f"{size} workers" if size > 1 else "1 worker", f"size {size}", "rate") for size in sizes]
    columns += [
        ("PSS of an idle worker, MiB", "idle", "pss_mb"),
        (f"all else the pool of {sizes[-1]} started", "idle", "helpers_mb"),
    ]
    return figures_table(results, there, "Calls per second by number of workers, and memory", columns)


def cold_table(results: Results, there: Sequence[str], most: int) -> str:
    """Starting."""
    columns = ((f"{one} workers" if one > 1 else "1 worker", f"cold {one}", "ms") for one in (1, most))
    title = "Cold start, until each worker has imported eight heavy modules and has answered: ms"
    return figures_table(results, there, title, tuple(columns), best=True)


def lease_table(results: Results, there: Sequence[str]) -> str:
    """Leases."""
    columns = (("async with, µs", "lease", "us"), ("await and release(), µs", "lease", "by_hand_us"))
    mine = [peer for peer in there if peer in MINE]
    return figures_table(results, mine, "Lease of an idle process: acquire + release", columns)


def counts_table(there: Sequence[str], *, quick: bool) -> str:
    """System calls of the parent; unlike times they do not depend on the machine."""
    rows = []
    for peer, calls_made in COUNTED.items():
        if peer not in there or (quick and peer != OURS):
            continue
        for in_flight, options in (("1", ()), ("100", MANY_IN_FLIGHT)):
            calls = per_spawn((*DRIVER, *options, PEERS[peer][0]), *((100, 2100) if quick else calls_made))
            if calls is None:
                return "System calls: strace is not installed, skipped."
            shown = ", ".join(f"{call} {count:.2f}" for call, count in calls.items() if count >= 0.05)
            rows.append([peer, in_flight, f"{sum(calls.values()):.2f}", shown])
    return "### System calls of the parent per call\n\n" + table(["who", "in flight", "calls", "which"], rows)


def draw(results: Results, there: Sequence[str]) -> str:
    """The charts of RESULTS.md."""
    wanted = (
        ("pool_trip", "Round trip of 100 B, p50", "trip", "p50_us", "µs, less is better"),
        ("pool_rate", "Calls with 100 in flight", "many", "rate", "per second"),
        ("pool_cpu", "Parent CPU per call, 100 in flight", "many", "cpu_us", "µs, less is better"),
        ("pool_large", "1 MiB both ways", "large", "rate", "MiB/s"),
    )
    links = []
    for name, title, case, metric, unit in wanted:
        values = {peer: results.median(case, peer, metric) for peer in there}
        path = chart(name, title, {peer: value for peer, value in values.items() if value is not None}, unit=unit)
        links.append(f"![{title}]({path.parent.name}/{path.name})")
    return "\n\n".join(links)


# --------------------------------------------------------------------------------------------- main


def available() -> dict[str, str]:
    """What is missing for each peer; empty for those that can take part."""
    missing = {}
    for peer, (driver, packages) in PEERS.items():
        try:
            for package in packages:
                version(package)
            done = subprocess.run(
                [*DRIVER, driver, "probe", "0"], cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT
            )
            last = (done.stderr.strip() or "no answer").splitlines()[-1]
            missing[peer] = json.loads(done.stdout).get("missing", "") if done.returncode == 0 else last
        except PackageNotFoundError as error:
            missing[peer] = f"{error.name} is not installed"
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            missing[peer] = type(error).__name__
    return missing


def named(missing: dict[str, str]) -> str:
    """One line per peer: its versions, or why it does not take part."""
    lines = []
    for peer, reason in missing.items():
        packages = PEERS[peer][1]
        found = ", ".join(f"{package} {version(package)}" for package in packages) if not reason else ""
        lines.append(f"- {peer}: {f'skipped, {reason}' if reason else found or 'of this Python'}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", default=",".join(NAMES), help="default: %(default)s")
    options = parser.parse_args(argv)
    quick: bool = options.quick
    chosen = [name for name in NAMES if name in options.groups.split(",")]
    groups = [group for group in GROUPS if group.name in chosen]
    rounds = 1 if quick else options.rounds
    most, sizes = (4, (1, 2)) if quick else (8, (1, 2, 4, 8))
    began = time.monotonic()
    missing = available()
    there = [peer for peer, reason in missing.items() if not reason]
    small = ", quick (far shorter, for which the bars are not meant)" if quick else ""
    parts = ["## Pools (`benchmarks/pool.py`)", f"{machine()}; {rounds} rounds{small}.", named(missing)]
    say("\n\n".join(parts) + "\n")

    results = measure(groups, there, rounds, quick=quick)
    rows = [bar.row(results, ours) for group, ours, bar in bars_of(most) if group in chosen and ours in there]
    parts.append("### Bars\n\n" + table(["bar", "on", "reached", "wanted", "met"], rows))
    shown: dict[str, Callable[[], str]] = {
        "calls": lambda: calls_table(results, there),
        "kills": lambda: kills_table(results, there),
        "cold": lambda: cold_table(results, there, most),
        "lease": lambda: lease_table(results, there),
        "scale": lambda: scale_table(results, there, sizes),
        COUNTS: lambda: counts_table(there, quick=quick),
    }
    parts += [make() for name, make in shown.items() if name in chosen]
    if results.failures:
        parts.append("\n".join(f"- failed: {peer}, {case}: {why}" for (case, peer), why in results.failures.items()))
    say("\n\n".join(parts[3:]))
    if options.write or not (quick or options.no_write or len(chosen) < len(NAMES)):
        parts.append(draw(results, there))
        say(f"written: {write_section('pool', chr(10).join(f'{part}{chr(10)}' for part in parts)).name}")
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if any(peer in MINE for _, peer in results.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
