"""What failed, what became of it, and how much of the time things were up. Pure: times are arguments."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from procession._core.window import Percentiles, Samples
from procession._types import FailureKind

_OUTAGES = 1000
"""Past outages that are kept per id; what lies before the oldest of them is not looked at any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """One recovery that is over. Times are loop times, in seconds.

    Attributes:
        id: whom it was about.
        kind: the kind of failure that began it.
        recovered: whether it is up again; ``False`` when it was given up, or called off because the manager closed.
        strategy: the name of the last strategy that was at work; empty when none was.
        attempts: attempts made.
        failures: failures that were part of it, the first one included.
        began: when the first failure was noted.
        up_at: when it was up again; ``None`` unless it recovered.
        ended: when it was certain how it ended.
        error: what the last failure was, in words.
        reason: which bound was reached when it was given up, or why it needed no attempt; else empty.
    """

    id: str
    kind: FailureKind
    recovered: bool
    strategy: str
    attempts: int
    failures: int
    began: float
    up_at: float | None
    ended: float
    error: str = ""
    reason: str = ""

    @property
    def duration(self) -> float:
        """Seconds from the first failure until it was up again, or until it was given up."""
        return (self.ended if self.up_at is None else self.up_at) - self.began


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryStatistics:
    """Figures of failures and recoveries, of one id or of all.

    Attributes:
        failures: failures noted.
        by_kind: the same by kind; kinds that never occurred are left out.
        recovered: recoveries that succeeded.
        exhausted: recoveries that were given up.
        under_way: recoveries that are not over.
        attempts: attempts made by those that are over.
        recovery_rate: share of the recoveries that are over that succeeded; 1 when none is.
        mean_time_to_recovery: seconds from a failure until it was up again, the mean of those that succeeded; 0 when none did.
        time_to_recovery: the same as percentiles over the last thousand.
        availability: share of the time, since it was registered or over the window asked for, in which it was up. Of several
            ids: the mean.
    """

    failures: int = 0
    by_kind: Mapping[FailureKind, int] = field(default_factory=dict)
    recovered: int = 0
    exhausted: int = 0
    under_way: int = 0
    attempts: int = 0
    recovery_rate: float = 1.0
    mean_time_to_recovery: float = 0.0
    time_to_recovery: Percentiles = field(default_factory=Percentiles)
    availability: float = 1.0


def availability(outages: Iterable[tuple[float, float | None]], since: float, until: float) -> float:
    """The share of the time from ``since`` to ``until`` that lies in none of ``outages``; 1 when there is no such time.

    Args:
        outages: when each began and ended; ``None``: it has not ended. They do not overlap.
        since: the beginning.
        until: the end.
    """
    if until <= since:
        return 1.0
    down = sum(
        max(0.0, min(until, until if end is None else end) - max(since, begin))
        for begin, end in outages
        if begin < until and (end is None or end > since)
    )
    return max(0.0, 1.0 - down / (until - since))


class Ledger:
    """Failures and outages of one id.

    Args:
        now: when it was registered.
    """

    def __init__(self, now: float) -> None:
        self.since = now
        self.by_kind: Counter[FailureKind] = Counter()
        self.recovered = self.exhausted = self.attempts = 0
        self.total_time = 0.0
        self.times = Samples()
        self.outages: deque[tuple[float, float]] = deque()
        self.down_at: float | None = None
        self._horizon = now

    def failed(self, kind: FailureKind) -> None:
        """A failure was noted."""
        self.by_kind[kind] += 1

    def down(self, now: float) -> None:
        """It is not up any more, as far as is known."""
        if self.down_at is None:
            self.down_at = now

    def up(self, at: float) -> None:
        """It has been up since ``at``."""
        if self.down_at is not None:
            self.outages.append((self.down_at, max(self.down_at, at)))
            self.down_at = None
            if len(self.outages) > _OUTAGES:
                self._horizon = self.outages.popleft()[1]

    def over(self, recovery: Recovery) -> None:
        """A recovery is over."""
        self.attempts += recovery.attempts
        if recovery.recovered:
            self.recovered += 1
            self.total_time += recovery.duration
            self.times.add(recovery.duration)
        else:
            self.exhausted += 1

    def availability(self, now: float, window: float | None) -> float:
        """The share of the time it was up."""
        since = max(self.since, self._horizon)
        if window is not None:
            since = max(since, now - window)
        spans: list[tuple[float, float | None]] = list(self.outages)
        if self.down_at is not None:
            spans.append((self.down_at, None))
        return availability(spans, since, now)


def statistics_of(ledgers: Iterable[Ledger], under_way: int, now: float, window: float | None) -> RecoveryStatistics:
    """The figures of several ids together."""
    ledgers = list(ledgers)
    by_kind: Counter[FailureKind] = Counter()
    for ledger in ledgers:
        by_kind += ledger.by_kind
    recovered = sum(ledger.recovered for ledger in ledgers)
    exhausted = sum(ledger.exhausted for ledger in ledgers)
    return RecoveryStatistics(
        failures=by_kind.total(),
        by_kind=dict(by_kind),
        recovered=recovered,
        exhausted=exhausted,
        under_way=under_way,
        attempts=sum(ledger.attempts for ledger in ledgers),
        recovery_rate=recovered / (recovered + exhausted) if recovered + exhausted else 1.0,
        mean_time_to_recovery=sum(ledger.total_time for ledger in ledgers) / recovered if recovered else 0.0,
        time_to_recovery=_merged(ledgers).summary(),
        availability=sum(ledger.availability(now, window) for ledger in ledgers) / len(ledgers) if ledgers else 1.0,
    )


def _merged(ledgers: list[Ledger]) -> Samples:
    if len(ledgers) == 1:
        return ledgers[0].times
    merged = Samples(max(1024, sum(len(ledger.times) for ledger in ledgers)))
    for ledger in ledgers:
        for value in ledger.times:
            merged.add(value)
    merged.count = sum(ledger.times.count for ledger in ledgers)
    return merged
