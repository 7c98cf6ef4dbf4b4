"""The monitor: what a round over many processes costs, how long it holds the loop up, and what history and rules cost.

python benchmarks/monitor.py               # five rounds; writes its section of RESULTS.md
python benchmarks/monitor.py --quick       # two rounds over few processes, prints only

The peer is a plain loop over psutil with `oneshot()` for the same figures, on the event loop. Processor time is that of one round
made on demand. Stalls are the lag of a 1 ms ticker beside rounds every 0.1 s, ten times as often as by default; where nobody watches,
they are the noise of the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file: `benchmarks` is beside it, not installed

from benchmarks._harness import Bar, Cell, Results, arguments, interleave
from benchmarks._report import machine, number, say, table, write_section

ROOT = Path(__file__).resolve().parents[1]
OURS, UVLOOP, PEER, NOBODY = "procession", "procession, uvloop", "psutil", "nobody"
DRIVER = (sys.executable, "-m", "benchmarks.peers.monitor_driver")
SIZES, FEW = (10, 100, 1000), (10, 50)


def bars(sizes: Sequence[int]) -> list[Bar]:
    """What has to be reached."""
    most = f"{sizes[-1]} processes"
    return [
        *(
            Bar(f"processor time per process, {size} of them", "cpu_us", f"{size} processes", 0.333, False, PEER)
            for size in sizes
        ),
        Bar(f"stall of the loop, {sizes[-1]} processes, p99", "stall_p99_ms", most, 5.0, at_least=False, unit=" ms"),
        Bar("memory per process, 600 samples", "all_kb", "memory", 64.0, at_least=False, unit=" kB"),
        Bar("a limit, per sample", "limit_us", "rules", 2.0, at_least=False, unit=" µs"),
        Bar("a rule, per sample", "rule_us", "rules", 2.0, at_least=False, unit=" µs"),
        Bar("a call of a pool with a registry nobody listens to, of one without", "registry_us", "calls", 1.1, False),
    ]


def available() -> dict[str, str]:
    """Version of each side."""
    there = {}
    for peer in (OURS, PEER):
        done = subprocess.run([*DRIVER, peer, "probe"], cwd=ROOT, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)["versions"]
        there[peer] = ", ".join(f"{key} {value}" for key, value in found.items())
    return there


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    options = arguments(__doc__).parse_args(argv)
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    sizes = FEW if options.quick else SIZES
    began = time.monotonic()
    there = available()
    cells: list[Cell] = []
    for size in sizes:
        case = f"{size} processes"
        cells.append(Cell(OURS, case, (*DRIVER, OURS, "round", str(size))))
        cells.append(Cell(UVLOOP, case, (*DRIVER, OURS, "round", str(size), "--loop", "uvloop")))
        cells.append(Cell(PEER, case, (*DRIVER, PEER, "round", str(size))))
        cells.append(Cell(NOBODY, case, (*DRIVER, NOBODY, "round", str(size))))
    more = {
        "files opened at each round": ("--files", "0"),
        "with traffic": ("--network",),
        "with 10 rules": ("--rules", "10"),
    }
    most = str(sizes[-1])
    cells += [Cell(OURS, case, (*DRIVER, OURS, "round", most, *words)) for case, words in more.items()]
    cells += [Cell(OURS, case, (*DRIVER, OURS, case)) for case in ("memory", "rules", "calls")]
    results = interleave(cells, rounds)
    ratio_of_calls(results)

    text = ["## Monitor (`benchmarks/monitor.py`)", f"{machine()}; {rounds} rounds, 30 rounds of sampling each."]
    text.append("\n".join(f"- {name}: {version}" for name, version in there.items()))
    text.append(table(["bar", "on", "reached", "wanted", "met"], [bar.row(results, OURS) for bar in bars(sizes)]))
    text.append(figures(results, sizes, list(more)))
    text += [f"- failed: {peer}, {case}: {reason}" for (case, peer), reason in results.failures.items()]
    say("\n\n".join(text))
    if options.write or not (options.quick or options.no_write):
        say(f"written: {write_section('monitor', chr(10).join(f'{part}{chr(10)}' for part in text)).name}")
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if results.failures else 0


def ratio_of_calls(results: Results) -> None:
    """Both sides of that bar are measured by one driver: the figure becomes their ratio."""
    for one in results.rounds.get(("calls", OURS), []):
        if one is not None:
            shown = dict(one)
            one.update(registry_us=shown["registry_us"] / shown["alone_us"], heard_us=shown["registry_us"])  # type: ignore[attr-defined]


def figures(results: Results, sizes: Sequence[int], more: Sequence[str]) -> str:
    """Every figure, one row each."""
    peers = (OURS, UVLOOP, PEER, NOBODY)
    shown = [
        *((f"processor time per process, {size} processes, µs", f"{size} processes", "cpu_us") for size in sizes),
        *((f"stall, {size} processes, p99, ms", f"{size} processes", "stall_p99_ms") for size in sizes),
        *(
            (f"worst stall of a round, {size} processes, p50, ms", f"{size} processes", "worst_p50_ms")
            for size in sizes
        ),
        *((f"worst stall of all rounds, {size} processes, ms", f"{size} processes", "worst_max_ms") for size in sizes),
        (f"of it in the thread, {sizes[-1]} processes, µs", f"{sizes[-1]} processes", "thread_us"),
        *((f"processor time per process, {sizes[-1]} processes, {case}, µs", case, "cpu_us") for case in more),
        ("memory per process, 600 samples, usual figures, kB", "memory", "plain_kb"),
        ("memory per process, 600 samples, all figures, kB", "memory", "all_kb"),
        ("a limit that is kept, µs", "rules", "limit_us"),
        ("a rule that does not hold, µs", "rules", "rule_us"),
        ("a rule over the trend of memory, 300 samples, µs", "rules", "trend_rule_us"),
        ("processor time per call of a pool, no registry, µs", "calls", "alone_us"),
        ("processor time per call of a pool, registry nobody listens to, µs", "calls", "heard_us"),
        ("processor time per call of a pool, with a monitor, µs", "calls", "monitor_us"),
    ]
    rows = [[title, *(number(results.median(case, peer, metric)) for peer in peers)] for title, case, metric in shown]
    return table(["figure", *peers], rows)


if __name__ == "__main__":
    sys.exit(main())
