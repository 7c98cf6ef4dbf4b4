"""How figures develop: means, percentiles, robust slopes, and whether memory leaks. Pure functions of columns."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from math import ceil, inf, nan
from statistics import median

HOUR = 3600.0
_POINTS = 40
"""Slopes are taken through at most so many points, each the median of its neighbours: 780 pairs, whatever the window."""

_CERTAIN_SHARE = 0.25
_LEAST_TO_LEAK = 20
_WINDOW_SHARE = 0.9
_LEAK_MB = 1.0
_LEAK_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Figure:
    """What one figure was like over a window. All but ``count`` are NaN when it was never known.

    Attributes:
        count: how many values are known.
        mean: of them.
        min: the smallest.
        max: the largest.
        p50: half of them are not above this (nearest rank).
        p90: nine in ten.
        p95: ninety-five in a hundred.
        p99: ninety-nine in a hundred.
        slope_per_hour: by how much it grows in an hour: the median of the slopes between all pairs of points (Theil,
            *A rank-invariant method of linear and polynomial regression analysis*, 1950; Sen, 1968), which a third of wild
            values does not impress.
    """

    count: int = 0
    mean: float = nan
    min: float = nan
    max: float = nan
    p50: float = nan
    p90: float = nan
    p95: float = nan
    p99: float = nan
    slope_per_hour: float = nan


def figure(times: Sequence[float], values: Sequence[float]) -> Figure:
    """Sums up the values that are known (not NaN)."""
    times, values = known(times, values)
    if not values:
        return Figure()
    ordered = sorted(values)

    def rank(percent: int) -> float:
        return ordered[ceil(percent * len(ordered) / 100) - 1]

    return Figure(
        count=len(ordered),
        mean=sum(ordered) / len(ordered),
        min=ordered[0],
        max=ordered[-1],
        p50=rank(50),
        p90=rank(90),
        p95=rank(95),
        p99=rank(99),
        slope_per_hour=theil_sen(*thinned(times, values)) * HOUR,
    )


def known(times: Sequence[float], values: Sequence[float]) -> tuple[Sequence[float], Sequence[float]]:
    """Both without the places where a value is NaN."""
    total = sum(values)
    if total == total:  # noqa: PLR0124 - NaN is unlike itself, and so is any sum with it
        return times, values
    pairs = [(at, value) for at, value in zip(times, values, strict=True) if value == value]  # noqa: PLR0124
    return [at for at, _ in pairs], [value for _, value in pairs]


def thinned(times: Sequence[float], values: Sequence[float], most: int = _POINTS) -> tuple[list[float], list[float]]:
    """At most ``most`` points for many: medians of neighbours, both of times and of values."""
    count = len(values)
    if count <= most:
        return list(times), list(values)
    bounds = [count * index // most for index in range(most + 1)]
    cuts = list(pairwise(bounds))
    return [median(times[a:b]) for a, b in cuts], [median(values[a:b]) for a, b in cuts]


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of points, per second; 0.0 with fewer than two points in time."""
    points = list(zip(times, values, strict=True))
    slopes = [(v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2) if t2 != t1]
    return median(slopes) if slopes else 0.0


def certain_change(times: Sequence[float], values: Sequence[float]) -> float:
    """The change per second that cannot be taken for something that comes and goes; 0.0 when there is none.

    A rise counts as far as the lowest value of the last quarter lies above the highest of the first. For a straight line
    that is its slope; for a sawtooth, which falls back, it is nothing. A fall counts likewise.
    """
    count = len(values)
    if count < 4:
        return 0.0
    quarter = count // 4
    early, late = values[:quarter], values[-quarter:]
    elapsed = times[-quarter] - times[quarter - 1]
    if elapsed <= 0:
        return 0.0
    rise = min(late) - max(early)
    if rise > 0:
        return rise / elapsed
    fall = max(late) - min(early)
    return fall / elapsed if fall < 0 else 0.0


Column = Callable[[str, "int | None"], "array[float] | array[int]"]


def _nothing(name: str, last: int | None) -> array[float]:  # noqa: ARG001 - a column without values
    return array("d")


class Trend:
    """How the figures of a process have developed over a window. Each is worked out when it is asked for.

    Attributes:
        id: under which the process is watched.
        samples: how many samples the window holds.
        window: how many seconds it is wide; a process that began later has fewer.
    """

    def __init__(self, id: str, column: Column = _nothing, samples: int = 0, window: float = 0.0) -> None:
        self.id: str = id
        self.samples: int = samples
        self.window: float = window
        self._column = column

    def __repr__(self) -> str:
        return f"<Trend of {self.id}: {self.samples} samples over {self.seconds:g} s>"

    @cached_property
    def _times(self) -> Sequence[float]:
        return self._column("at", self.samples)

    @cached_property
    def _memory(self) -> tuple[Sequence[float], Sequence[float]]:
        return known(self._times, self._column("rss_mb", self.samples))

    def _figure(self, name: str) -> Figure:
        values = self._column(name, self.samples)
        if isinstance(values, array) and values.typecode == "i":
            values = array("d", [nan if value < 0 else value for value in values])
        return figure(self._times, values)

    @property
    def since(self) -> float:
        """Loop time of the first sample; NaN without one."""
        return self._times[0] if self.samples else nan

    @property
    def until(self) -> float:
        """Loop time of the last sample; NaN without one."""
        return self._times[-1] if self.samples else nan

    @property
    def seconds(self) -> float:
        """From the first sample to the last."""
        return self.until - self.since if self.samples else 0.0

    @cached_property
    def cpu(self) -> Figure:
        """Percent of one core; one value less than samples, since each is the work between two of them."""
        times, spent = self._times, self._column("cpu_seconds", self.samples)
        steps = [
            (t2, max(0.0, c2 - c1) / (t2 - t1) * 100.0)
            for t1, t2, c1, c2 in zip(times, times[1:], spent, spent[1:], strict=False)
            if t2 > t1
        ]
        return figure([at for at, _ in steps], [percent for _, percent in steps])

    @cached_property
    def memory(self) -> Figure:
        """Resident memory, in MB."""
        return figure(*self._memory)

    @cached_property
    def virtual_memory(self) -> Figure:
        """Virtual memory, in MB."""
        return self._figure("vms_mb")

    @cached_property
    def pss(self) -> Figure:
        """Proportional share of memory, in MB, where it was asked for."""
        return self._figure("pss_mb")

    @cached_property
    def file_descriptors(self) -> Figure:
        """Open file descriptors."""
        return self._figure("file_descriptors")

    @cached_property
    def threads(self) -> Figure:
        """Threads."""
        return self._figure("threads")

    @cached_property
    def disk_read(self) -> Figure:
        """MB read so far; its slope is the rate."""
        return self._figure("disk_read_mb")

    @cached_property
    def disk_written(self) -> Figure:
        """MB written so far; its slope is the rate."""
        return self._figure("disk_write_mb")

    @cached_property
    def network_received(self) -> Figure:
        """MB received so far; its slope is the rate."""
        return self._figure("network_received_mb")

    @cached_property
    def network_sent(self) -> Figure:
        """MB sent so far; its slope is the rate."""
        return self._figure("network_sent_mb")

    @cached_property
    def memory_slope_mb_per_hour(self) -> float:
        """How fast resident memory grows (or, negative, shrinks) for good; 0.0 while that is not certain.

        The robust slope of ``memory``, counted only where the lowest value of the last quarter of the window lies above the
        highest of the first (or the other way round), and by more than a trifle of that slope: memory that is given back
        again and again does not count.
        """
        times, values = self._memory
        certain = certain_change(times, values)
        if not certain:
            return 0.0
        slope = theil_sen(*thinned(times, values))
        return slope * HOUR if slope * certain > 0 and abs(certain) > abs(slope) * _CERTAIN_SHARE else 0.0

    @cached_property
    def is_leaking(self) -> bool:
        """Whether memory grows and all of it is new ground.

        At least 20 samples, over nine tenths of the window, since every program grows when it starts; a certain slope
        upwards, of at least 1 MB and a hundredth of what it was over the window; and
        the last quarter of the window lies above whatever was ever seen before its second half, also before the window. A
        sawtooth has been as high before, however long its teeth are.
        """
        slope = self.memory_slope_mb_per_hour
        times, values = self._memory
        if len(values) < _LEAST_TO_LEAK or slope <= 0 or self.seconds < _WINDOW_SHARE * self.window:
            return False
        grown = slope / HOUR * (times[-1] - times[0])
        if grown < _LEAK_MB or grown < _LEAK_SHARE * values[0]:
            return False
        quarter = len(values) // 4
        whole = self._column("rss_mb", None)
        earlier = max((value for value in whole[: len(whole) - 2 * quarter] if value == value), default=-inf)  # noqa: PLR0124
        return min(values[-quarter:]) > earlier

    @property
    def leak_mb_per_hour(self) -> float:
        """The slope of memory if it leaks, else 0.0."""
        return self.memory_slope_mb_per_hour if self.is_leaking else 0.0
