"""What the last so many measurements looked like: a ring of samples with percentiles, and windows of outcomes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import floor


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

    def __len__(self) -> int:
        return len(self._recent)

    def __iter__(self) -> Iterator[float]:
        return iter(self._recent)

    def summary(self) -> Percentiles:
        """What they look like now."""
        if not self.count:
            return Percentiles()
        ordered = sorted(self._recent)

        def rank(percent: int) -> float:
            return ordered[-(-percent * len(ordered) // 100) - 1]  # the division rounds up

        return Percentiles(self.count, sum(ordered) / len(ordered), rank(50), rank(90), rank(99), ordered[-1])


FAILED, SLOW = 1, 2
"""What an outcome is marked with; 0 is a quick success."""


class CountWindow:
    """The outcomes of the last ``size`` calls. Adding one is O(1): a ring, and totals that follow it.

    The count-based sliding window as resilience4j documents it. ``now`` is taken so that both kinds of windows can be
    used alike, and not looked at.

    Attributes:
        calls: how many outcomes it holds.
        failed: how many of them failed.
        slow: how many of them were slow.
    """

    __slots__ = ("_at", "_marks", "_size", "calls", "failed", "slow")

    def __init__(self, size: int) -> None:
        self._size = size
        self.calls: int = 0
        self.failed: int = 0
        self.slow: int = 0
        self.clear()

    def clear(self) -> None:
        """Forgets all of them."""
        self._marks = bytearray(self._size)
        self._at = self.calls = self.failed = self.slow = 0

    def add(self, mark: int, now: float = 0.0) -> None:  # noqa: ARG002 - as for a window of time
        """Takes one outcome in, and the oldest out when there are too many."""
        at, marks = self._at, self._marks
        if self.calls < self._size:
            self.calls += 1
        old = marks[at]
        if mark != old:
            marks[at] = mark
            self.failed += (mark & FAILED) - (old & FAILED)
            self.slow += (mark >> 1) - (old >> 1)
        at += 1
        self._at = at if at < self._size else 0

    def settle(self, now: float) -> None:
        """Nothing grows old here."""


class TimeWindow:
    """The outcomes of the last ``seconds``, in ``parts`` of equal length. Adding one is O(1), whatever was added before.

    The time-based sliding window as resilience4j documents it: a ring with the totals of each part, and the sum over
    all. The present part is counted from its beginning, so the window reaches back between ``seconds`` less one part and
    ``seconds``. A clock that goes back is taken to stand still.

    Attributes:
        calls: how many outcomes it holds, as of the last ``add`` or ``settle``.
        failed: how many of them failed.
        slow: how many of them were slow.
    """

    __slots__ = ("_epoch", "_parts", "_ring", "_width", "calls", "failed", "slow")

    def __init__(self, seconds: float, parts: int) -> None:
        self._width = seconds / parts
        self._parts = parts
        self._epoch: int | None = None
        self.calls: int = 0
        self.failed: int = 0
        self.slow: int = 0
        self.clear()

    def clear(self) -> None:
        """Forgets all of them."""
        self._ring = [[0, 0, 0] for _ in range(self._parts)]
        self.calls = self.failed = self.slow = 0

    def add(self, mark: int, now: float) -> None:
        """Takes one outcome in, and those out that have grown too old."""
        self.settle(now)
        assert self._epoch is not None
        part = self._ring[self._epoch % self._parts]
        part[0] += 1
        self.calls += 1
        if mark:
            failed, slow = mark & FAILED, mark >> 1
            part[1] += failed
            part[2] += slow
            self.failed += failed
            self.slow += slow

    def settle(self, now: float) -> None:
        """Takes those out that have grown too old."""
        epoch = floor(now / self._width)
        last, self._epoch = self._epoch, epoch
        if last is None or epoch == last:
            return
        if epoch < last:
            self._epoch = last
            return
        for past in range(last + 1, min(epoch, last + self._parts) + 1):
            part = self._ring[past % self._parts]
            if part[0]:
                self.calls -= part[0]
                self.failed -= part[1]
                self.slow -= part[2]
                part[:] = (0, 0, 0)
