"""What the last so many measurements looked like: a ring of samples with percentiles."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Percentiles:
    """A summary of measurements. All figures are 0 when there were none.

    Attributes:
        count: how many were made in all.
        mean: of the recent ones.
        p50: half of the recent ones were not above this.
        p90: nine in ten of them.
        p99: ninety-nine in a hundred.
        max: the largest of the recent ones.
    """

    count: int = 0
    mean: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Samples:
    """The last ``size`` measurements. Adding one is O(1); a summary sorts them (nearest-rank percentiles)."""

    __slots__ = ("_recent", "add_recent", "count")

    def __init__(self, size: int = 1024) -> None:
        self._recent: deque[float] = deque(maxlen=size)
        self.add_recent = self._recent.append
        self.count = 0

    def add(self, value: float) -> None:
        """Takes one measurement."""
        self.count += 1
        self.add_recent(value)

    def summary(self) -> Percentiles:
        """What they look like now."""
        if not self.count:
            return Percentiles()
        ordered = sorted(self._recent)

        def rank(percent: int) -> float:
            return ordered[-(-percent * len(ordered) // 100) - 1]  # the division rounds up

        return Percentiles(self.count, sum(ordered) / len(ordered), rank(50), rank(90), rank(99), ordered[-1])
