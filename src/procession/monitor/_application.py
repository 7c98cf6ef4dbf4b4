"""What processes and pools answer, and how fast: counted from the events of the other modules. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field

from procession._core.window import Percentiles, Samples
from procession.events import (
    CallFinished,
    Event,
    ProbeChecked,
    TaskFinished,
    TaskRetried,
    TaskStarted,
    WorkerLeased,
    WorkerReleased,
)
from procession.monitor._sample import Told

_BUCKETS = 60
_MOST = 10_000
"""Answers are kept apart for so many processes, pools and schedulers; who has been silent longest is forgotten."""

SILENT: Told = (None, None, None, 0)
HEARD = (ProbeChecked, CallFinished, TaskStarted, TaskFinished, TaskRetried, WorkerLeased, WorkerReleased)
"""The events this is made from."""

_FATES = {"succeeded": True, "failed": False, "missed": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationFigures:
    """How somebody answers. Figures without "total" are those of the last ``window`` seconds.

    Attributes:
        window: seconds that count.
        answers: answers in it.
        successes: those that were no errors.
        errors: those that were.
        error_rate: share of errors, 0 to 1; ``None`` without answers.
        throughput: answers per second.
        response_time: mean seconds an answer took; ``None`` without answers.
        response: how long the last answers took, with percentiles.
        waiting: how long the last ones waited before they began.
        total_successes: since the monitor began.
        total_errors: since the monitor began.
        retries: attempts that failed and were made again, since the monitor began.
    """

    window: float
    answers: int = 0
    successes: int = 0
    errors: int = 0
    error_rate: float | None = None
    throughput: float = 0.0
    response_time: float | None = None
    response: Percentiles = field(default_factory=Percentiles)
    waiting: Percentiles = field(default_factory=Percentiles)
    total_successes: int = 0
    total_errors: int = 0
    retries: int = 0


@dataclass(slots=True)
class _Bucket:
    number: int
    successes: int = 0
    errors: int = 0
    seconds: float = 0.0


class Answers:
    """The answers of one process, pool or scheduler, over a sliding window of sixty buckets.

    Args:
        window: seconds that count.
        began: when counting began.
    """

    __slots__ = ("_began", "_buckets", "_response", "_totals", "_waiting", "_width", "retries", "window")

    def __init__(self, window: float, began: float) -> None:
        self.window = window
        self.retries = 0
        self._began = began
        self._width = window / _BUCKETS
        self._buckets: deque[_Bucket] = deque()
        self._totals = [0, 0]
        self._response = Samples(256)
        self._waiting: Samples | None = None

    def add(self, now: float, ok: bool, seconds: float) -> None:
        """Counts one answer."""
        number = int(now / self._width)
        buckets = self._buckets
        if not buckets or buckets[-1].number != number:
            self._forget(number)
            buckets.append(_Bucket(number))
        bucket = buckets[-1]
        if ok:
            bucket.successes += 1
        else:
            bucket.errors += 1
        bucket.seconds += seconds
        self._totals[not ok] += 1
        self._response.add(seconds)

    def waited(self, seconds: float) -> None:
        """Takes note of a wait."""
        if self._waiting is None:
            self._waiting = Samples(256)
        self._waiting.add(seconds)

    def _forget(self, number: int) -> None:
        buckets = self._buckets
        while buckets and buckets[0].number <= number - _BUCKETS:
            buckets.popleft()

    def told(self, now: float) -> Told:
        """Response time, error rate, throughput and number of the recent answers."""
        self._forget(int(now / self._width))
        successes = errors = 0
        seconds = 0.0
        for bucket in self._buckets:
            successes += bucket.successes
            errors += bucket.errors
            seconds += bucket.seconds
        answers = successes + errors
        if not answers:
            return None, None, 0.0, 0
        elapsed = min(self.window, max(now - self._began, self._width))
        return seconds / answers, errors / answers, answers / elapsed, answers

    def figures(self, now: float) -> ApplicationFigures:
        """All that is known."""
        response_time, error_rate, throughput, answers = self.told(now)
        errors = sum(bucket.errors for bucket in self._buckets)
        return ApplicationFigures(
            window=self.window,
            answers=answers,
            successes=answers - errors,
            errors=errors,
            error_rate=error_rate,
            throughput=throughput or 0.0,
            response_time=response_time,
            response=self._response.summary(),
            waiting=Percentiles() if self._waiting is None else self._waiting.summary(),
            total_successes=self._totals[0],
            total_errors=self._totals[1],
            retries=self.retries,
        )


class Applications:
    """The answers of everybody, by the id of a process or unit, and by the name of a pool or scheduler.

    Args:
        window: seconds that count.
        began: when counting began.
    """

    def __init__(self, window: float, began: float) -> None:
        self._window = window
        self._began = began
        self._known: OrderedDict[str, Answers] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def hear(self, event: Event) -> None:
        """Takes in one event of :data:`HEARD`."""
        at = event.at
        if type(event) is CallFinished:
            self._of(event.id).add(at, event.ok, event.duration)
            if event.pool != event.id:
                self._of(event.pool).add(at, event.ok, event.duration)
        elif type(event) is ProbeChecked:
            self._of(event.id).add(at, event.healthy, event.duration)
        elif type(event) is TaskFinished:
            ok = _FATES.get(event.outcome)
            if ok is not None:
                self._of(event.owner).add(at, ok, event.duration)
        elif type(event) is TaskRetried:
            self._of(event.owner).retries += 1
        elif type(event) is TaskStarted:
            self._of(event.owner).waited(event.waited)
        elif type(event) is WorkerLeased:
            self._of(event.pool).waited(event.waited)
        elif type(event) is WorkerReleased:
            self._of(event.id).add(at, True, event.held)
            if event.pool != event.id:
                self._of(event.pool).add(at, True, event.held)

    def _of(self, id: str) -> Answers:
        answers = self._known.get(id)
        if answers is None:
            self._known[id] = answers = Answers(self._window, self._began)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(id)
        return answers

    def told(self, ids: tuple[str, ...], now: float) -> Told:
        """What the first of ``ids`` that ever answered has told; nothing when none has."""
        for id in ids:
            answers = self._known.get(id)
            if answers is not None:
                return answers.told(now)
        return SILENT

    def figures(self, id: str, now: float) -> ApplicationFigures:
        """All that is known of one."""
        answers = self._known.get(id)
        return ApplicationFigures(window=self._window) if answers is None else answers.figures(now)
