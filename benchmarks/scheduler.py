"""The scheduler: its queue, its decisions, and work end to end, against what people write by hand in its place.

    python benchmarks/scheduler.py                         # five rounds; writes its section of RESULTS.md and plots/
    python benchmarks/scheduler.py --quick                 # one small round, prints only
    python benchmarks/scheduler.py --groups queue,noop     # part of it, prints only

Work that never waits is timed by the processor, everything else by the clock on the wall.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file: `benchmarks` is beside it, not installed

from benchmarks._harness import Bar, Cell, Figures, Results, arguments, interleave
from benchmarks._report import lines, machine, number, say, table, write_section
from benchmarks.peers import catalog

DRIVER = (sys.executable, "-m", "benchmarks.peers.scheduler_driver")
OURS, HANDLES, UVLOOP = "procession", "procession, handles kept", ", uvloop"
HEAPQ, PRIORITY_QUEUE = "heapq of tuples", "asyncio.PriorityQueue"
WORKERS, FUTURES = "PriorityQueue, 100 workers", "PriorityQueue, 100 workers, futures"
AIOJOBS, RUN, C = "aiojobs", "run(), 100 workers", "C posix_spawn"
NEEDED = {AIOJOBS: "aiojobs"} | dict.fromkeys(
    (f"{who}{UVLOOP}" for who in (OURS, HANDLES, WORKERS, FUTURES, RUN)), "uvloop"
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    lengths: tuple[int, ...]
    slow_lengths: tuple[int, ...]
    submitted: int
    done: int
    done_slowly: int
    programs: int
    waiting: tuple[int, int]
    running: int
    counted: int


FULL = Sizes(
    (1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000, 100_000), 100_000, 100_000, 50_000, 1_000, (1_000, 100_000), 10_000, 10_000
)  # fmt: skip
QUICK = Sizes((1_000, 10_000), (1_000, 10_000), 10_000, 10_000, 5_000, 100, (1_000, 5_000), 10_000, 2_000)

QUEUES = {
    OURS: "procession",
    HEAPQ: "heapq",
    PRIORITY_QUEUE: "asyncio-queue",
    "queue.PriorityQueue": "thread-queue",
    "a deque per priority, no ageing": "deques",
}
NOOP = {
    OURS: "procession",
    WORKERS: "workers",
    HANDLES: "procession-kept",
    FUTURES: "workers-futures",
    f"{OURS}{UVLOOP}": "procession",
    f"{WORKERS}{UVLOOP}": "workers",
    f"{HANDLES}{UVLOOP}": "procession-kept",
    f"{FUTURES}{UVLOOP}": "workers-futures",
    AIOJOBS: "aiojobs",
    "TaskGroup + Semaphore": "group-semaphore",
    "a task each, no limit": "task-each",
}
PROGRAMS = {OURS: "procession", RUN: "run", f"{OURS}{UVLOOP}": "procession", f"{RUN}{UVLOOP}": "run"}
MEMORY = {OURS: "procession", PRIORITY_QUEUE: "workers-futures"}
GROUPS = ("queue", "submit", "noop", "programs", "blocked", "preempt", "memory", "start", "counts")
ONCE = ("memory", "counts")  # the same in every round


def cells_of(group: str, sizes: Sizes) -> list[Cell]:
    """What is measured for one group, in the order of a round."""

    def cell(peer: str, case: str, way: str, *counts: int) -> Cell:
        loop = ("--uvloop",) if peer.endswith(UVLOOP) else ()
        return Cell(peer, case, (*DRIVER, case, way, *map(str, counts), *loop))

    match group:
        case "queue":
            slow = set(QUEUES) - {OURS, HEAPQ, PRIORITY_QUEUE}
            return [
                cell(peer, group, way, *(sizes.slow_lengths if peer in slow else sizes.lengths))
                for peer, way in QUEUES.items()
            ]
        case "submit":
            ways = {OURS: "procession", PRIORITY_QUEUE: "asyncio-queue"}
            return [cell(peer, group, way, sizes.submitted) for peer, way in ways.items()]
        case "noop":
            slowly = ("aiojobs", "group-semaphore", "task-each")
            return [
                cell(peer, group, way, sizes.done_slowly if way in slowly else sizes.done) for peer, way in NOOP.items()
            ]
        case "programs":
            return [cell(peer, group, way, sizes.programs) for peer, way in PROGRAMS.items()]
        case "blocked":
            return [cell(OURS, group, "all", *sizes.waiting)]
        case "preempt":
            return [cell(OURS, group, "procession", sizes.running)]
        case "memory":
            return [cell(peer, group, way, sizes.waiting[1]) for peer, way in MEMORY.items()]
        case "start":
            return [cell(peer, group, "procession", sizes.waiting[1]) for peer in (OURS, f"{OURS}{UVLOOP}")]
    return [cell(OURS, group, "all", sizes.counted)]


def spread(results: Results) -> Results:
    """Gives each case a place of its own where one process has measured several: `case/metric`."""
    apart = Results(failures=dict(results.failures))
    for (case, peer), rounds in results.rounds.items():
        cases = {_split(key, case)[0] for one in rounds if one for key in one} or {case}
        for name in cases:
            mine: list[Figures | None] = []
            for one in rounds:
                named = [(*_split(key, case), value) for key, value in one.items()] if one else []
                mine.append({metric: value for of, metric, value in named if of == name} or None)
            apart.rounds[name, peer] = mine
    return apart


def _split(key: str, case: str) -> tuple[str, str]:
    of, _, metric = key.rpartition("/")
    return of or case, metric


# ---------------------------------------------------------------------------------------------- bars


def bars_of(sizes: Sizes) -> list[tuple[str, str, Bar]]:
    """(group, ours, bar) for each promise."""
    shortest, longest = f"queue {sizes.lengths[0]}", f"queue {sizes.lengths[-1]}"
    few, many = sizes.waiting
    queue = f"queue, {sizes.lengths[-1]:,} pushed and popped"
    least: list[tuple[str, str, str, str, str, str, float]] = [
        ("queue", f"{queue}, of heapq", OURS, "rate", longest, HEAPQ, 4.0),
        ("queue", f"{queue}, of asyncio.PriorityQueue", OURS, "rate", longest, PRIORITY_QUEUE, 5.0),
        ("submit", "submit() + decision, everything on, of put + get", OURS, "rate", "submit", PRIORITY_QUEUE, 1.0),
    ]
    for loop in ("", UVLOOP):
        least += [
            ("noop", "end to end, no-op, of 100 workers", OURS + loop, "rate", "noop", WORKERS + loop, 1.0),
            ("noop", "the same with a handle each, of futures", HANDLES + loop, "rate", "noop", FUTURES + loop, 1.0),
            ("programs", "end to end, `/bin/true`, of run()", OURS + loop, "rate", "programs", RUN + loop, 0.9),
        ]
    bars = [
        (group, ours, Bar(title, metric, case, bound, at_least=True, against=peer))
        for group, title, ours, metric, case, peer, bound in least
    ]
    bars += [
        ("queue", OURS, Bar(f"queue, cost per task, of that at {sizes.lengths[0]:,}", "us", longest, 1.3, at_least=False, other_case=shortest)),
        *(
            ("blocked", OURS, Bar(f"decision, head blocked, {many:,} wait, {case}", "us", f"{case}, {many}", bound, at_least=False, unit=" µs"))
            for case, bound in (
                ("20 shapes, some fit", 15.0),
                ("20 shapes, none fits", 15.0),
                ("distinct shapes, some fit", 100.0),
                ("distinct shapes, none fits", 100.0),
            )
        ),
        *(
            ("blocked", OURS, Bar(f"the same, {case}, of that with {few:,}", "us", f"{case}, {many}", 1.5, at_least=False, other_case=f"{case}, {few}"))
            for case in ("20 shapes, some fit", "distinct shapes, none fits")
        ),
        ("preempt", OURS, Bar(f"preemption, decision and replacement, {sizes.running:,} run", "whole_us", "preempt", 5.0, at_least=False, unit=" µs")),
        ("memory", OURS, Bar("memory per queued task beyond its payload", "bytes", "memory", 400.0, at_least=False, unit=" B")),
    ]  # fmt: skip
    for loop in ("", UVLOOP):
        bars += [
            ("start", OURS + loop, Bar(f"submit to start while {many:,} wait, {case}, p99", "p99_ms", f"start, {case}", 1.0, at_least=False, unit=" ms"))
            for case in ("urgent", "passes")
        ]  # fmt: skip
    return bars


def allowed(results: Results, ours: str) -> list[str]:
    """More than 1,000 programs a second, where the machine can start as many."""
    reached, limit = results.median("programs", ours, "rate"), results.median("programs", C, "rate")
    met = "not measured" if reached is None else "yes" if reached > 1_000 else "**no**"
    if met == "**no**" and limit is not None and limit < 1_100:
        met = f"C makes {number(limit)}"
    return ["end to end, `/bin/true`, per second", ours, number(reached), "> 1,000", met]


# -------------------------------------------------------------------------------------------- tables


def queue_table(results: Results, sizes: Sizes) -> str:
    """Time by length of the queue."""
    rows = [[who, *(number(results.median(f"queue {one}", who, "us")) for one in sizes.lengths)] for who in QUEUES]
    head = ["who", *(f"{one:,}" for one in sizes.lengths)]
    return "### The queue alone: µs per task, by how many wait\n\n" + table(head, rows)


def submit_table(results: Results) -> str:
    """Where the time goes."""
    metrics = (
        ("both", "us"),
        ("submit()", "submit_us"),
        ("decision", "decide_us"),
        ("put_nowait + get_nowait", "nowait_us"),
    )
    rows = [
        [who, *(number(results.median("submit", who, metric)) for _, metric in metrics)]
        for who in (OURS, PRIORITY_QUEUE)
    ]
    return "### submit() and decision: µs per task\n\n" + table(["who", *(head for head, _ in metrics)], rows)


def rate_table(results: Results, case: str, title: str, who: Sequence[str]) -> str:
    """Rates, and ours as multiples of theirs on the same loop."""
    rows = []
    for peer in who:
        if not results.values(case, peer, "rate"):
            continue
        loop = UVLOOP if peer.endswith(UVLOOP) else ""
        of_them = (
            []
            if peer.startswith(OURS)
            else [results.ratio("rate", (case, ours + loop), (case, peer)) for ours in (OURS, HANDLES)]
        )
        shown = [str(ratio) if ratio else "–" for ratio in of_them] or ["–", "–"]
        rows.append(
            [peer, number(results.median(case, peer, "rate")), number(results.median(case, peer, "us")), *shown]
        )
    head = ["who", "per second", "µs per task", "procession is × it", "with handles kept"]
    if case == "programs":
        head, rows = head[:-1], [row[:-1] for row in rows]
    return f"### {title}\n\n" + table(head, rows)


def decision_table(results: Results, sizes: Sizes) -> str:
    """Single decisions."""
    rows = []
    for case in (
        "20 shapes, none fits",
        "20 shapes, some fit",
        "20 shapes, some fit, by reservation",
        "distinct shapes, none fits",
        "distinct shapes, some fit",
    ):
        for waiting in sizes.waiting:
            key = f"{case}, {waiting}"
            figures = [number(results.median(key, OURS, metric)) for metric in ("us", "p99_us", "passed")]
            rows.append([f"{case}, {waiting:,} wait", *figures, number(results.median(key, OURS, "scan_us"))])
    head = ["head blocked, four resources", "µs", "p99", "share in which one passed", "a scan, µs"]
    shown = (
        ("`next()`: who makes room", "decide_us"),
        ("victim found, taken out, head put in", "exchange_us"),
        ("decision, suspension, start of the head", "whole_us"),
    )
    making = [[title, number(results.median("preempt", OURS, metric))] for title, metric in shown]
    return "### Decisions\n\n" + "\n\n".join(
        (table(head, rows), table([f"making room, {sizes.running:,} run", "µs"], making))
    )


def rest_table(results: Results) -> str:
    """Memory and the way to a free slot."""
    memory = [
        [who, *(number(results.median("memory", who, metric)) for metric in ("bytes", "rss_bytes"))] for who in MEMORY
    ]
    ways = [(who, case) for who in (OURS, f"{OURS}{UVLOOP}") for case in ("urgent", "passes")]
    start = [
        [f"{who}, {case}", *(number((results.median(f"start, {case}", who, metric) or 0) * 1e3) for metric in ("p50_ms", "p99_ms", "max_ms"))]
        for who, case in ways
        if results.values(f"start, {case}", who, "p50_ms")
    ]  # fmt: skip
    return "### Memory per queued task, and the way to a free slot\n\n" + "\n\n".join(
        (
            table(["memory", "bytes allocated", "RSS, bytes"], memory),
            table(["submit to start, µs", "p50", "p99", "max"], start),
        )
    )


def count_table(results: Results) -> str:
    """What does not depend on the machine."""
    queues = [
        [
            who,
            *(
                number(results.median(f"count {QUEUES[who]}", OURS, metric))
                for metric in ("comparisons", "heap_operations")
            ),
        ]
        for who in (OURS, HEAPQ)
    ]
    calls = [
        [who, *(number(results.median(f"calls {way}", OURS, metric)) for metric in ("python_calls", "c_calls"))]
        for who, way in NOOP.items()
        if not (who.endswith(UVLOOP) or lacking(who))
    ]
    return "### Counts per task\n\n" + "\n\n".join(
        (
            table(["queue alone", "comparisons of keys", "heap operations"], queues),
            table(["end to end, no-op", "calls of Python functions", "of C functions"], calls),
        )
    )


def draw(results: Results, sizes: Sizes) -> str:
    """The picture of growth."""
    series = {}
    for who in QUEUES:
        points = [(float(one), results.median(f"queue {one}", who, "us")) for one in sizes.lengths]
        series[who] = [(x, y) for x, y in points if y is not None]
    if not any(series.values()):
        return "No picture of growth: no queue could be measured."
    path = lines("scheduler_growth", "Queue alone: cost per task", series, x="tasks that wait", y="µs per task")
    return f"![cost per task over the length of the queue]({path.parent.name}/{path.name})"


# ---------------------------------------------------------------------------------------------- main


def lacking(peer: str) -> str:
    """The package a peer needs and this Python does not have; empty when it can run."""
    needed = NEEDED.get(peer, "")
    try:
        return "" if not needed or version(needed) else needed
    except PackageNotFoundError:
        return needed


def versions() -> list[str]:
    """One line per package that takes part, or why it does not."""
    found = []
    for name in ("procession", "uvloop", "aiojobs"):
        try:
            found.append(f"- {name}: {version(name)}")
        except PackageNotFoundError:
            found.append(f"- {name}: skipped, not installed")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", default=",".join(GROUPS), help="default: %(default)s")
    options = parser.parse_args(argv)
    chosen = [group for group in GROUPS if group in options.groups.split(",")]
    sizes, rounds = (QUICK, 1) if options.quick else (FULL, options.rounds)
    began = time.monotonic()
    limit = catalog.find(C) if "programs" in chosen else catalog.Entry(C, missing="not asked for")
    found = [*versions(), f"- {C}: {limit.version or f'skipped, {limit.missing}'}"]
    small = ", quick (far smaller sizes, for which the bars are not meant)" if options.quick else ""
    parts = ["## Scheduler (`benchmarks/scheduler.py`)", f"{machine()}; {rounds} rounds{small}."]
    parts.append("\n".join(found))
    say("\n\n".join(parts) + "\n")

    measured = Results()
    for group in chosen:
        cells = [cell for cell in cells_of(group, sizes) if not lacking(cell.peer)]
        if group == "programs" and not limit.missing:
            cells.append(Cell(C, group, (*limit.command, "burst", str(sizes.programs // 100), "100")))
        of_group = spread(interleave(cells, 1 if group in ONCE else rounds))
        measured.rounds |= of_group.rounds
        measured.failures |= of_group.failures
    rows = [bar.row(measured, ours) for group, ours, bar in bars_of(sizes) if group in chosen and not lacking(ours)]
    if "programs" in chosen:
        rows += [allowed(measured, ours) for ours in (OURS, f"{OURS}{UVLOOP}") if not lacking(ours)]
    parts.append("### Bars\n\n" + table(["bar", "on", "reached", "wanted", "met"], rows))
    parts += tables(measured, sizes, chosen)
    parts += [f"- failed: {peer}, {case}: {reason}" for (case, peer), reason in measured.failures.items()]
    say("\n\n".join(parts[3:]))
    if options.write or not (options.quick or options.no_write or len(chosen) < len(GROUPS)):
        parts.append(draw(measured, sizes))
        say(f"written: {write_section('scheduler', chr(10).join(f'{part}{chr(10)}' for part in parts)).name}")
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if measured.failures else 0


def tables(results: Results, sizes: Sizes, chosen: Sequence[str]) -> list[str]:
    """The tables of the groups that were measured."""
    parts = []
    if "queue" in chosen:
        parts.append(queue_table(results, sizes))
    if "submit" in chosen:
        parts.append(submit_table(results))
    if "noop" in chosen:
        parts.append(rate_table(results, "noop", "No-op coroutines, 100 at once", tuple(NOOP)))
    if "programs" in chosen:
        parts.append(rate_table(results, "programs", "`/bin/true`, 100 at once", (*PROGRAMS, C)))
    if "blocked" in chosen or "preempt" in chosen:
        parts.append(decision_table(results, sizes))
    if "memory" in chosen or "start" in chosen:
        parts.append(rest_table(results))
    if "counts" in chosen:
        parts.append(count_table(results))
    return parts


if __name__ == "__main__":
    sys.exit(main())
