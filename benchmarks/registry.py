"""The registry: what an event, a record and a look-up cost, interleaved with plain calls.

python benchmarks/registry.py              # five rounds; writes its section of RESULTS.md
python benchmarks/registry.py --quick      # two rounds with 10,000 records, prints only
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
OURS, LIMIT = "procession", "plain"
DRIVER = (sys.executable, "-m", "benchmarks.peers.registry_driver")

BARS = (
    Bar("publish, no listener", "publish_us", "publish 0", 0.3, at_least=False, unit=" µs"),
    Bar("publish, 1 listener", "publish_us", "publish 1", 2.5, at_least=False, unit=" µs"),
    Bar("publish, 10 listeners", "publish_us", "publish 10", 4.0, at_least=False, unit=" µs"),
    Bar(
        "publish beside 1,000 subscribers of other types, of none",
        "publish_us",
        "subscribers",
        1.5,
        at_least=False,
        other_case="publish 1",
    ),
    Bar("find() among all records, of 1,000", "find_us", "find all", 1.5, at_least=False, other_case="find 1000"),
)


def available() -> dict[str, str]:
    """Version of each side that can run; what cannot is named."""
    there: dict[str, str] = {}
    for peer in (OURS, LIMIT):
        done = subprocess.run([*DRIVER, peer, "probe"], cwd=ROOT, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        if "missing" in found:
            say(f"- {peer}: skipped, {found['missing']}")
        else:
            there[peer] = ", ".join(f"{key} {value}" for key, value in found["versions"].items())
    return there


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write unless asked not to."""
    options = arguments(__doc__).parse_args(argv)
    rounds = min(options.rounds, 2) if options.quick else options.rounds
    many = 10_000 if options.quick else 100_000
    began = time.monotonic()
    there = available()
    cases = {f"publish {count}": f"publish {count}" for count in (0, 1, 10)}
    alone = {
        "subscribers": "publish 1 --subscribers 1000",
        "records": f"records {many}",
        "find 1000": "find 1000",
        "find all": f"find {many}",
    }
    cells = [Cell(peer, case, (*DRIVER, peer, *words.split())) for case, words in cases.items() for peer in there]
    if OURS in there:
        cells += [Cell(OURS, case, (*DRIVER, OURS, *words.split())) for case, words in alone.items()]
    results = interleave(cells, rounds)

    text = ["## Registry (`benchmarks/registry.py`)", f"{machine()}; {rounds} rounds; {many:,} records."]
    text.append("\n".join(f"- {name}: {version}" for name, version in there.items()))
    if OURS in there:
        text.append(table(["bar", "on", "reached", "wanted", "met"], [bar.row(results, OURS) for bar in BARS]))
    text.append(figures(results, there, many))
    text += [f"- failed: {peer}, {case}: {reason}" for (case, peer), reason in results.failures.items()]
    say("\n\n".join(text))
    if options.write or not (options.quick or options.no_write or OURS not in there):
        say(f"written: {write_section('registry', chr(10).join(f'{part}{chr(10)}' for part in text)).name}")
    say(f"{time.monotonic() - began:.0f} s")
    return 1 if results.failures else 0


def figures(results: Results, there: dict[str, str], many: int) -> str:
    """Every figure, one row each."""
    shown = [
        *((f"publish, {count} listeners, µs", f"publish {count}", "publish_us") for count in (0, 1, 10)),
        ("`wants()` without a listener, µs", "publish 0", "wants_us"),
        ("publish, 1 listener, 1,000 subscribers of other types, µs", "subscribers", "publish_us"),
        (f"memory per record at {many:,}, bytes", "records", "record_bytes"),
        (f"register and announce a record at {many:,}, µs", "records", "register_us"),
        *((f"find() by name, 10 hits, {case}, µs", case, "find_us") for case in ("find 1000", "find all")),
        *((f"get(), {case}, µs", case, "get_us") for case in ("find 1000", "find all")),
        *((f"by_pid(), {case}, µs", case, "by_pid_us") for case in ("find 1000", "find all")),
    ]
    rows = [[title, *(number(results.median(case, peer, metric)) for peer in there)] for title, case, metric in shown]
    return table(["figure", *there], rows)


if __name__ == "__main__":
    sys.exit(main())
