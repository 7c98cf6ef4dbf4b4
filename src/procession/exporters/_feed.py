"""What exporters export: what was counted, and what is asked at the moment of a scrape."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from procession.errors import ConfigError
from procession.events import Event, ProcessExited, ProcessVanished
from procession.exporters import _metrics as m
from procession.exporters._metrics import METRICS, Metric
from procession.exporters._tally import OTHER, Histogram, Labels, Tally
from procession.monitor import ResourceMonitor, Sample
from procession.registry import ProcessRegistry

if TYPE_CHECKING:
    from procession.registry import Listener

_MB = 1 << 20
_COUNTERS: dict[Metric, tuple[str, float]] = {
    m.CPU: ("cpu_seconds", 1.0),
    m.SWITCHES: ("context_switches", 1.0),
    m.DISK_READ: ("disk_read_mb", _MB),
    m.DISK_WRITTEN: ("disk_write_mb", _MB),
    m.RECEIVED: ("network_received_mb", _MB),
    m.SENT: ("network_sent_mb", _MB),
}
_GAUGES: dict[Metric, tuple[str, float]] = {
    m.RSS: ("rss_mb", _MB),
    m.VMS: ("vms_mb", _MB),
    m.FDS: ("file_descriptors", 1.0),
    m.THREADS: ("threads", 1.0),
}
Series = list[tuple[Labels, "float | Histogram"]]


class Fleet:
    """The figures of all watched processes, added up by owner and name; counters keep what ended processes had used.

    Args:
        monitor: who is asked.
        max_series: how many combinations of owner and name there may be.
    """

    def __init__(self, monitor: ResourceMonitor, max_series: int) -> None:
        self.monitor = monitor
        self._most = max_series
        self._lock = threading.Lock()
        self._past: dict[str, dict[Labels, float]] = {metric.name: {} for metric in _COUNTERS}
        self._seen: dict[tuple[str, int], tuple[Labels, Sample]] = {}
        self._known: set[Labels] = set()

    def ended(self, event: Event) -> None:
        """A process has ended: what it had used stays."""
        assert isinstance(event, (ProcessExited, ProcessVanished))
        key = event.id, event.pid
        try:
            watch = self.monitor.find(event.id)
        except LookupError:
            return
        sample = watch.latest
        with self._lock:
            if sample is not None and sample.pid == event.pid:
                self._seen[key] = self._who(watch.owner, watch.name), sample
            self._keep(key)

    def _who(self, owner: str, name: str) -> Labels:
        labels = owner, name
        if labels not in self._known and len(self._known) >= self._most:
            return OTHER, OTHER
        self._known.add(labels)
        return labels

    def _keep(self, key: tuple[str, int]) -> None:
        labels, sample = self._seen.pop(key, (None, None))
        if labels is None or sample is None:
            return
        for metric, (figure, scale) in _COUNTERS.items():
            value = getattr(sample, figure)
            if value is not None:
                past = self._past[metric.name]
                past[labels] = past.get(labels, 0.0) + value * scale

    def totals(self) -> dict[Metric, dict[Labels, float]]:
        """All of them now; may be called on another thread."""
        found: dict[Metric, dict[Labels, float]] = {}
        with self._lock:
            live: set[tuple[str, int]] = set()
            for watch in self.monitor.watched:
                sample = watch.latest
                if sample is not None:
                    key = watch.id, watch.pid
                    live.add(key)
                    self._seen[key] = self._who(watch.owner, watch.name), sample
            for key in self._seen.keys() - live:
                self._keep(key)
            for metric, (figure, scale) in _COUNTERS.items():
                found[metric] = dict(self._past[metric.name])
                self._add(found[metric], figure, scale)
            for metric, (figure, scale) in _GAUGES.items():
                found[metric] = {}
                self._add(found[metric], figure, scale)
        return found

    def _add(self, found: dict[Labels, float], figure: str, scale: float) -> None:
        for labels, sample in self._seen.values():
            value = getattr(sample, figure)
            if value is not None:
                found[labels] = found.get(labels, 0.0) + value * scale


class Feed:
    """Hears a registry, asks a monitor, and gives all metrics.

    Args:
        registry: whose events are counted.
        monitor: who is asked for figures of processes, or ``None``.
        max_series: how many combinations of labels one metric may have.
        observed: is told of every value of a histogram too.

    Raises:
        ConfigError: a value was refused.
        Closed: the registry is closed.
    """

    def __init__(
        self,
        registry: ProcessRegistry,
        monitor: ResourceMonitor | None,
        max_series: int,
        observed: Callable[[Metric, Labels, float], None] | None = None,
    ) -> None:
        if not isinstance(registry, ProcessRegistry):
            raise ConfigError("registry", registry, "a ProcessRegistry is needed")
        if monitor is not None and not isinstance(monitor, ResourceMonitor):
            raise ConfigError("monitor", monitor, "a ResourceMonitor is needed")
        if isinstance(max_series, bool) or not isinstance(max_series, int) or max_series < 1:
            raise ConfigError("max_series", max_series, "a whole number, 1 or more, is needed")
        self._registry = registry
        self._tally = Tally(self._name_of, max_series, observed)
        self._fleet = None if monitor is None else Fleet(monitor, max_series)
        self._listeners: list[Listener] = [registry.listen(self._tally.hear, types=self._tally.types)]
        if self._fleet is not None:
            self._listeners.append(registry.listen(self._fleet.ended, types=(ProcessExited, ProcessVanished)))

    def _name_of(self, id: str) -> str:
        return self._registry.get(id).name if id in self._registry else OTHER

    def close(self) -> None:
        """Hears nothing any more; may be called twice."""
        for listener in self._listeners:
            listener.close()

    def families(self) -> Iterator[tuple[Metric, Series]]:
        """All metrics with their series; may be called on another thread."""
        asked = ({} if self._fleet is None else self._fleet.totals()) | self._alone()
        for metric in METRICS:
            yield metric, self._series(metric, asked)

    def series(self, metric: Metric) -> Series:
        """The series of one metric; may be called on another thread."""
        of_fleet = self._fleet is not None and (metric in _COUNTERS or metric in _GAUGES)
        asked = self._fleet.totals() if self._fleet is not None and of_fleet else {}
        return self._series(metric, asked if of_fleet else self._alone())

    def _series(self, metric: Metric, asked: dict[Metric, dict[Labels, float]]) -> Series:
        if metric in asked:
            return list(asked[metric].items())
        if metric.kind == "histogram":
            return list(self._tally.histograms.get(metric.name, {}).items())
        return list(self._tally.series(metric))

    def _alone(self) -> dict[Metric, dict[Labels, float]]:
        """What is not counted but asked for."""
        told = self._registry.statistics()
        found: dict[Metric, dict[Labels, float]] = {
            m.PROCESSES: {(str(state),): float(count) for state, count in told.by_state.items()},
            m.EVENTS: {(): told.published},
            m.EVENTS_DROPPED: {(): told.dropped},
            m.LISTENER_FAILURES: {(): told.failures},
        }
        if self._fleet is not None:
            monitor = self._fleet.monitor.statistics()
            found |= {
                m.WATCHED: {(): monitor.watched},
                m.INTERVAL: {(): monitor.interval},
                m.ROUND_COST: {(): monitor.round_cost},
                m.RULE_ERRORS: {(): monitor.rule_errors},
                m.CALLBACK_FAILURES: {(): monitor.callback_failures},
            }
        return found
