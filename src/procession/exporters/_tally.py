"""Counting events: the one place where a fact becomes a number, for all exporters alike. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from procession._types import Exit
from procession.events import (
    ActionTaken,
    AlertRaised,
    AlertResolved,
    CallFinished,
    CircuitChanged,
    Event,
    FailureReported,
    LeaderChanged,
    PoolScaled,
    ProbeChecked,
    ProcessExited,
    ProcessSpawned,
    RecoveryFinished,
    RestartScheduled,
    StateChanged,
    TaskFinished,
    TaskPreempted,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
    WorkerLeased,
    WorkerReleased,
)
from procession.exporters import _metrics as m
from procession.exporters._metrics import Metric

Labels = tuple[str, ...]
OTHER = "other"
"""What labels become when a metric has as many series as it may."""

_CIRCUIT_STATES = ("closed", "open", "half_open")


class Histogram:
    """Counts per bucket, not added up, the last beyond all bounds; and the sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Tally:
    """Counters, gauges and histograms by metric and labels.

    Args:
        name_of: the name of a process by its id, for labels.
        max_series: how many combinations of labels a metric may have; what comes later is counted as ``other``.
        observed: is told of every value of a histogram too.
    """

    def __init__(
        self,
        name_of: Callable[[str], str],
        max_series: int,
        observed: Callable[[Metric, Labels, float], None] | None = None,
    ) -> None:
        self.numbers: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, Histogram]] = {}
        self._name_of = name_of
        self._most = max_series
        self._observed = observed
        self._hands: Mapping[type[Event], Callable[[Any], None]] = {
            ProcessSpawned: self._spawned,
            ProcessExited: self._exited,
            StateChanged: self._state,
            RestartScheduled: lambda event: self.count(m.RESTARTS, event.id),
            PoolScaled: lambda event: self.put(m.POOL_SIZE, event.new, event.id),
            WorkerLeased: lambda event: self.observe(m.POOL_WAIT, event.waited, event.pool),
            WorkerReleased: lambda event: self.observe(m.POOL_HELD, event.held, event.pool),
            CallFinished: self._answered,
            TaskSubmitted: lambda event: self.count(m.SUBMITTED, event.owner),
            TaskStarted: lambda event: self.observe(m.TASK_WAIT, event.waited, event.owner),
            TaskFinished: self._finished,
            TaskRetried: lambda event: self.count(m.RETRIES, event.owner),
            TaskPreempted: lambda event: self.count(m.PREEMPTIONS, event.owner, event.mode),
            ProbeChecked: self._probed,
            AlertRaised: self._raised,
            AlertResolved: lambda event: self.put(m.ALERTS_ACTIVE, None, event.kind, event.severity, more=-1),
            ActionTaken: lambda event: self.count(m.ACTIONS, event.action, "ok" if event.ok else "error"),
            FailureReported: lambda event: self.count(m.FAILURES, event.kind),
            RecoveryFinished: self._recovered,
            CircuitChanged: self._circuit,
            LeaderChanged: lambda event: self.count(m.LEADER_CHANGES, event.id),
        }

    @property
    def types(self) -> tuple[type[Event], ...]:
        """The events it counts."""
        return tuple(self._hands)

    def hear(self, event: Event) -> None:
        """Counts one event."""
        self._hands[type(event)](event)

    # ------------------------------------------------------------------------------------- counting

    def count(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Adds to a counter."""
        series = self.numbers.setdefault(metric.name, {})
        key = self._fitting(series, labels)
        series[key] = series.get(key, 0) + by

    def put(self, metric: Metric, value: float | None, *labels: str, more: float = 0) -> None:
        """Sets a gauge, or with ``None`` moves it by ``more``, not below 0."""
        series = self.numbers.setdefault(metric.name, {})
        key = self._fitting(series, labels)
        series[key] = max(0, series.get(key, 0) + more) if value is None else value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Adds to a histogram."""
        value = max(0.0, value)
        series = self.histograms.setdefault(metric.name, {})
        key = self._fitting(series, labels)
        histogram = series.get(key)
        if histogram is None:
            series[key] = histogram = Histogram(metric.buckets)
        histogram.add(value)
        if self._observed is not None:
            self._observed(metric, key, value)

    def _fitting(self, series: Mapping[Labels, object], labels: Labels) -> Labels:
        if labels in series or len(series) < self._most:
            return labels
        return (OTHER,) * len(labels)

    def series(self, metric: Metric) -> Iterator[tuple[Labels, float]]:
        """The series of a counter or gauge, as of now; may be called on another thread."""
        yield from list(self.numbers.get(metric.name, {}).items())

    # --------------------------------------------------------------------------------------- events

    def _spawned(self, event: ProcessSpawned) -> None:
        self.count(m.SPAWNS, event.owner, event.name)
        if not event.adopted:
            self.observe(m.SPAWN_DURATION, event.duration, event.owner)

    def _exited(self, event: ProcessExited) -> None:
        name = self._name_of(event.id)
        self.count(m.EXITS, event.owner, name, outcome_of(event.exit))
        self.observe(m.RUN_DURATION, event.uptime, event.owner, name)

    def _state(self, event: StateChanged) -> None:
        if event.new == "failed" and event.old == "starting":
            self.count(m.SPAWN_FAILURES, event.owner)

    def _answered(self, event: CallFinished) -> None:
        self.observe(m.POOL_CALL, event.duration, event.pool, "ok" if event.ok else "error")

    def _finished(self, event: TaskFinished) -> None:
        self.count(m.FINISHED, event.owner, event.outcome)
        self.observe(m.TASK_DURATION, event.duration, event.owner)

    def _probed(self, event: ProbeChecked) -> None:
        self.observe(m.PROBES, event.duration, event.probe, "healthy" if event.healthy else "unhealthy")

    def _raised(self, event: AlertRaised) -> None:
        self.count(m.ALERTS, event.kind, event.severity)
        self.put(m.ALERTS_ACTIVE, None, event.kind, event.severity, more=1)

    def _recovered(self, event: RecoveryFinished) -> None:
        self.observe(m.RECOVERIES, event.duration, event.strategy, "recovered" if event.recovered else "failed")

    def _circuit(self, event: CircuitChanged) -> None:
        self.count(m.CIRCUIT_CHANGES, event.id, event.new)
        for state in dict.fromkeys((*_CIRCUIT_STATES, event.old, event.new)):
            self.put(m.CIRCUIT, float(state == event.new), event.id, state)


def outcome_of(exit: Exit) -> str:
    """How a process ended, in one word."""
    if exit.is_lost:
        return "lost"
    if exit.signal is not None:
        return "signal"
    return "success" if exit.is_success else "failure"
