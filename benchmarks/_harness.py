"""Interleaved rounds, medians, ratios pair by pair, and bars.

Every measurement is a program of its own that prints one line of JSON. A round runs every cell once; the next round
runs them all again. A ratio is taken within a round and the median is taken over the rounds, so a machine that slows
down for a while hurts both sides.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Figures = Mapping[str, float]
TIME_LIMIT = 300.0


@dataclass(frozen=True, slots=True)
class Cell:
    """One peer in one case: the program to run and what to call its figures."""

    peer: str
    case: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio's median over the rounds, and its range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} – {self.high:.2f})"


@dataclass(slots=True)
class Results:
    """Figures by (case, peer), one per round; None where a driver failed."""

    rounds: dict[tuple[str, str], list[Figures | None]] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def values(self, case: str, peer: str, metric: str) -> list[float]:
        return [one[metric] for one in self.rounds.get((case, peer), []) if one is not None and metric in one]

    def median(self, case: str, peer: str, metric: str) -> float | None:
        values = self.values(case, peer, metric)
        return statistics.median(values) if values else None

    def ratio(self, metric: str, ours: tuple[str, str], theirs: tuple[str, str]) -> Ratio | None:
        """Ours over theirs within each round; both are (case, peer)."""
        pairs = zip(self.rounds.get(ours, []), self.rounds.get(theirs, []), strict=False)
        values = [a[metric] / b[metric] for a, b in pairs if a and b and metric in a and b.get(metric)]
        return Ratio(statistics.median(values), min(values), max(values)) if values else None


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure of ours must reach: `metric` of (case, ours), over that of `against` when given."""

    title: str
    metric: str
    case: str
    bound: float
    at_least: bool
    against: str = ""  # a peer; "" with no `other_case` makes it an absolute bar
    other_case: str = ""  # the case on the other side, when not the same
    unit: str = ""

    def row(self, results: Results, ours: str) -> list[str]:
        sign, wanted = "≥" if self.at_least else "≤", f"{self.bound:g}"
        if self.against or self.other_case:
            other = (self.other_case or self.case, self.against or ours)
            ratio = results.ratio(self.metric, (self.case, ours), other)
            value, shown = (ratio.median, str(ratio)) if ratio else (None, "–")
            wanted += " ×"
        else:
            value = results.median(self.case, ours, self.metric)
            shown = "–" if value is None else f"{value:.2f}{self.unit}"
            wanted += self.unit
        if value is None:
            met = "not measured"
        else:
            met = "yes" if (value >= self.bound if self.at_least else value <= self.bound) else "**no**"
        return [self.title, ours, shown, f"{sign} {wanted}", met]


def run_driver(command: Sequence[str], *, limit: float = TIME_LIMIT) -> Figures:
    """Run one driver and read its figures; nothing of it outlives the limit."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer within {limit:g} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        tail = (errors.strip() or "no message").splitlines()[-1]
        raise RuntimeError(f"exit {process.returncode}: {tail}")
    figures: Figures = json.loads(out.strip().splitlines()[-1])
    return figures


def interleave(cells: Sequence[Cell], rounds: int) -> Results:
    """A B C A B C …; a driver that fails once is left out of the later rounds and named."""
    results = Results()
    for number in range(rounds):
        for index, cell in enumerate(cells):
            if sys.stderr.isatty():
                done = f"round {number + 1}/{rounds}, {index + 1}/{len(cells)}: {cell.case}, {cell.peer}"
                print(f"\r\x1b[K{done}", end="", file=sys.stderr, flush=True)
            key = (cell.case, cell.peer)
            figures: Figures | None = None
            if key not in results.failures:
                try:
                    figures = run_driver(cell.command)
                except (RuntimeError, ValueError, LookupError, OSError) as error:
                    results.failures[key] = str(error)
            results.rounds.setdefault(key, []).append(figures)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return results


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--quick", action="store_true", help="two small rounds, to see that it runs; writes nothing")
    parser.add_argument("--no-write", action="store_true", help="print only; leave RESULTS.md and plots alone")
    parser.add_argument("--write", action="store_true", help="write also after --quick or a partial run")
    return parser
