"""Recovery: calls through breakers, from a kill to running again, and saving states, against what else there is.

    python benchmarks/recovery.py                          # five rounds; writes its section of RESULTS.md and plots/
    python benchmarks/recovery.py --quick                  # two short rounds, prints only
    python benchmarks/recovery.py --groups breaker,save    # part of it, prints only (breaker, recover, save)

Every measurement is a process of its own. What a breaker costs is the time of a loop of calls through it, less that of the
same loop without; the best of five, within each round.
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
from benchmarks._report import chart, machine, number, say, table, write_section

DRIVER = (sys.executable, "-m", "benchmarks.peers.recovery_driver")
OURS, SLOW, TIMED, UVLOOP = "procession", "procession, slow calls", "procession, window of time", "procession, uvloop"
BREAKERS = {  # driver, package
    OURS: ("procession", "procession"),
    SLOW: ("procession-slow", "procession"),
    TIMED: ("procession-time", "procession"),
    "purgatory": ("purgatory", "purgatory"),
    "aiobreaker": ("aiobreaker", "aiobreaker"),
    "pybreaker, plain functions": ("pybreaker", "pybreaker"),
}
SAVERS = {
    OURS: "procession",
    "procession, not durable": "procession-fast",
    "json.dump + os.replace": "replace",
    "SQLite": "sqlite",
    "SQLite, write-ahead log": "sqlite-wal",
}
SIZES = ("1 kB", "1 MB")
GROUPS = ("breaker", "recover", "save")


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything."""

    calls: int
    kills: int
    saves: int


FULL, QUICK = Scale(50_000, 300, 100), Scale(10_000, 40, 20)


def cells_of(group: str, scale: Scale, there: Sequence[str]) -> list[Cell]:
    """What is measured for one group, in the order of a round."""
    if group == "breaker":
        return [
            Cell(peer, group, (*DRIVER, group, BREAKERS[peer][0], str(scale.calls)))
            for peer in there
            if peer in BREAKERS
        ]
    if group == "recover":
        cells = [Cell(OURS, group, (*DRIVER, group, "procession", str(scale.kills)))]
        if UVLOOP in there:
            cells.append(Cell(UVLOOP, group, (*cells[0].command, "--uvloop")))
        return cells
    return [Cell(peer, group, (*DRIVER, group, way, str(scale.saves))) for peer, way in SAVERS.items()]


def bars_of(group: str) -> list[tuple[str, Bar]]:
    """(ours, bar) for each promise."""

    def upto(title: str, metric: str, case: str, bound: float, unit: str) -> Bar:
        return Bar(title, metric, case, bound, at_least=False, unit=unit)

    if group == "breaker":
        return [
            *(
                (peer, upto(title, metric, group, 3.0, " µs"))
                for peer in (OURS, SLOW, TIMED)
                for title, metric in (("call, closed", "call_us"), ("block, closed", "block_us"))
            ),
            *((peer, upto("refused, open", "refused_us", group, 1.0, " µs")) for peer in (OURS, SLOW)),
        ]
    if group == "save":
        return [(OURS, upto(f"longest stall in a save of {size}", "stall_p50_ms", size, 1.0, " ms")) for size in SIZES]
    return []


def spread(results: Results) -> Results:
    """Gives each case a place of its own where one process has measured several: `case/metric`."""
    apart = Results(failures=dict(results.failures))
    for (case, peer), rounds in results.rounds.items():
        for one in rounds:
            cases: dict[str, Figures] = {}
            for name, value in (one or {}).items():
                of, _, metric = name.rpartition("/")
                cases[of or case] = {**cases.get(of or case, {}), metric: value}
            for of, figures in cases.items():
                apart.rounds.setdefault((of, peer), []).append(figures)
    return apart


def tables(results: Results, there: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Every figure."""
    parts = []
    if "breaker" in chosen:
        metrics = ("call_us", "decorated_us", "block_us", "refused_us")
        rows = [
            [peer, *(number(results.median("breaker", peer, metric)) for metric in metrics)]
            for peer in there
            if peer in BREAKERS
        ]
        head = ["µs beyond the bare call", "call", "decorator", "async with", "refused"]
        parts.append("### A call through a breaker\n\n" + table(head, rows))
    if "recover" in chosen:
        times = ("recover_p50_ms", "recover_p99_ms", "spawn_p50_ms")
        rows = [[peer, *(number(results.median("recover", peer, one)) for one in times)] for peer in (OURS, UVLOOP)]
        head = ["ms", "kill → running again, p50", "p99", "a spawn alone, p50"]
        parts.append("### A process is killed, noticed, and another runs\n\n" + table(head, rows))
    if "save" in chosen:
        head = ["ms", *(f"{size}, {what}" for size in SIZES for what in ("save p50", "longest stall of the loop"))]
        rows = [
            [
                peer,
                *(
                    number(results.median(size, peer, metric))
                    for size in SIZES
                    for metric in ("save_p50_ms", "stall_p50_ms")
                ),
            ]
            for peer in SAVERS
        ]
        note = (
            "`json.dump` + `os.replace` waits for no disk and runs on the loop, as it is commonly written; SQLite syncs once per commit and "
            "runs in a thread. The stall is the longest time between two turns of the loop during a save, the median over the saves."
        )
        parts.append(f"### Saving a state\n\n{note}\n\n" + table(head, rows))
    return parts


def available() -> dict[str, str]:
    """What is missing for each peer; empty for those that can take part."""
    missing = {}
    for peer, package in ({peer: package for peer, (_, package) in BREAKERS.items()} | {UVLOOP: "uvloop"}).items():
        try:
            version(package)
            missing[peer] = ""
        except PackageNotFoundError:
            missing[peer] = f"{package} is not installed"
    return missing


def named(missing: dict[str, str]) -> str:
    """One line per peer: its version, or why it does not take part."""
    packages = {peer: package for peer, (_, package) in BREAKERS.items()} | {UVLOOP: "uvloop"}
    return "\n".join(
        f"- {peer}: {f'skipped, {reason}' if reason else f'{packages[peer]} {version(packages[peer])}'}"
        for peer, reason in missing.items()
    )


def draw(results: Results, there: Sequence[str]) -> str:
    """The chart of RESULTS.md."""
    costs: dict[str, float] = {}
    for peer in there:
        found = [results.median("breaker", peer, metric) for metric in ("call_us", "decorated_us", "block_us")]
        if known := [value for value in found if value is not None]:
            costs[peer] = min(known)
    title = "A call through a closed breaker"
    path = chart("recovery_breaker", title, costs, unit="µs, less is better")
    return f"![{title}]({path.parent.name}/{path.name})"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    parser = arguments(__doc__)
    parser.add_argument("--groups", default=",".join(GROUPS), help="default: %(default)s")
    options = parser.parse_args(argv)
    quick: bool = options.quick
    chosen = [name for name in GROUPS if name in options.groups.split(",")]
    rounds = min(options.rounds, 2) if quick else options.rounds
    began = time.monotonic()
    missing = available()
    there = [peer for peer, reason in missing.items() if not reason]
    small = ", quick (far shorter, for which the bars are not meant)" if quick else ""
    parts = ["## Recovery (`benchmarks/recovery.py`)", f"{machine()}; {rounds} rounds{small}.", named(missing)]
    say("\n\n".join(parts) + "\n")

    cells = [cell for group in chosen for cell in cells_of(group, QUICK if quick else FULL, there)]
    results = spread(interleave(cells, rounds))
    rows = [bar.row(results, ours) for group in chosen for ours, bar in bars_of(group)]
    parts.append("### Bars\n\n" + table(["bar", "on", "reached", "wanted", "met"], rows))
    parts += tables(results, there, chosen)
    if results.failures:
        parts.append("\n".join(f"- failed: {peer}, {case}: {why}" for (case, peer), why in results.failures.items()))
    say("\n\n".join(parts[3:]))
    if options.write or not (quick or options.no_write or len(chosen) < len(GROUPS)):
        parts.append(draw(results, there))
        say(f"written: {write_section('recovery', chr(10).join(f'{part}{chr(10)}' for part in parts)).name}")
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if any(peer.startswith(OURS) for _, peer in results.failures) else 0


if __name__ == "__main__":
    sys.exit(main())
