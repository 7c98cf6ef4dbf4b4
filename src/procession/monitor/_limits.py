"""Limits and rules as one thing: conditions that are asked about every sample. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from operator import attrgetter
from typing import Any

from procession.monitor._config import ResourceLimits
from procession.monitor._rules import Patience, Rule, Standing, Verdict, decide
from procession.monitor._sample import Sample
from procession.monitor._words import AlertType, Severity

Value = Callable[[Sample], "float | None"]


class Condition(ABC):
    """Something that may hold for a process.

    Attributes:
        name: what alerts call it.
        type: what they are about.
        severity: how bad it is.
        patience: how long it has to hold, or be over.
        limit: what the figure should not exceed, if it is about one.
        callbacks: called with each alert.
    """

    __slots__ = ("callbacks", "limit", "name", "patience", "severity", "type")

    def __init__(self, name: str, kind: AlertType, severity: Severity, patience: Patience) -> None:
        self.name = name
        self.type = kind
        self.severity = severity
        self.patience = patience
        self.limit: float | None = None
        self.callbacks: tuple[Any, ...] = ()

    @abstractmethod
    def holds(self, sample: Sample, raised: bool) -> bool | None:
        """Whether it holds; ``None`` when that cannot be known. It may need less to go on holding than to begin."""

    @abstractmethod
    def told(self, sample: Sample) -> tuple[str, float | None]:
        """A message, and the figure it is about."""


class Threshold(Condition):
    """A figure above its limit."""

    __slots__ = ("_bound", "_limit", "_unit", "_value", "_what")

    def __init__(
        self, name: str, kind: AlertType, limits: ResourceLimits, limit: float, value: Value, what: str, unit: str
    ) -> None:
        patience = Patience(limits.for_samples, limits.for_seconds, limits.clear_samples)
        super().__init__(name, kind, limits.severity_of(kind), patience)
        self.limit = self._limit = limit
        self._bound = limit * (1.0 - limits.hysteresis)
        self._value = value
        self._what = what
        self._unit = unit

    def holds(self, sample: Sample, raised: bool) -> bool | None:
        value = self._value(sample)
        return None if value is None else value > (self._bound if raised else self._limit)

    def told(self, sample: Sample) -> tuple[str, float | None]:
        value = self._value(sample)
        return f"{self._what} {_plain(value)}{self._unit}, limit {_plain(self.limit)}{self._unit}", value


class RuleCondition(Condition):
    """A rule of the user's."""

    __slots__ = ("_clear_when", "_message", "_when", "rule")

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule.name, rule.type, rule.severity, rule.patience)
        self.rule = rule
        self.callbacks = rule.callbacks
        self._when = rule.when
        self._clear_when = rule.clear_when
        self._message = rule.message

    def holds(self, sample: Sample, raised: bool) -> bool | None:
        if raised and self._clear_when is not None:
            over = self._clear_when(sample)
            return None if over is None else not over
        answer = self._when(sample)
        return None if answer is None else bool(answer)

    def told(self, sample: Sample) -> tuple[str, float | None]:
        message = self._message
        if callable(message):
            return str(message(sample)), None
        return message or f"the rule {self.name} holds", None


class Cell:
    """One condition for one process, and where it stands."""

    __slots__ = ("condition", "standing")

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.standing = CLEAR

    def see(self, sample: Sample) -> Verdict | None:
        """Takes in one sample; raises whatever a rule raises."""
        standing = self.standing
        holds = self.condition.holds(sample, standing.is_raised if standing is not CLEAR else False)
        if not holds and standing is CLEAR:
            return None
        self.standing, verdict = decide(standing, holds, sample.at, self.condition.patience)
        if verdict is None and self.standing == CLEAR:
            self.standing = CLEAR
        return verdict


CLEAR = Standing()


def _plain(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.2f}".rstrip("0").rstrip(".")


def _of(*names: str) -> Value:
    """The sum of figures; ``None`` when one is unknown."""
    if len(names) == 1:
        return attrgetter(names[0])

    def total(sample: Sample) -> float | None:
        values = [getattr(sample, name) for name in names]
        return None if None in values else float(sum(values))

    return total


def _memory(sample: Sample) -> float | None:
    return sample.rss_mb if sample.pss_mb is None else sample.pss_mb


def conditions(limits: ResourceLimits, memory_total_mb: float | None) -> list[Condition]:
    """One condition for each limit that is set.

    Args:
        limits: the limits.
        memory_total_mb: how much memory there is, for limits in percent.
    """
    found: list[Condition] = []

    def add(field: str, kind: AlertType, value: Value, what: str, unit: str = "", name: str = "") -> None:
        limit = getattr(limits, field)
        if limit is not None:
            found.append(Threshold(name or kind.value, kind, limits, limit, value, what, unit))

    def percent(sample: Sample) -> float | None:
        memory = _memory(sample)
        return memory / memory_total_mb * 100.0 if memory is not None and memory_total_mb else None

    def growth(sample: Sample) -> float | None:
        return sample.trend.leak_mb_per_hour

    def errors(sample: Sample) -> float | None:
        return sample.error_rate if sample.answers >= limits.min_answers else None

    add("max_cpu_percent", AlertType.CPU_HIGH, _of("cpu_percent"), "processor at", " %")
    add("max_memory_mb", AlertType.MEMORY_HIGH, _memory, "memory at", " MB")
    add("max_memory_percent", AlertType.MEMORY_HIGH, percent, "memory at", " %", "memory_percent_high")
    add("max_memory_growth_mb_per_hour", AlertType.MEMORY_LEAK, growth, "memory grows by", " MB an hour")
    add("max_disk_mb", AlertType.DISK_HIGH, _of("disk_read_mb", "disk_write_mb"), "disk traffic of", " MB")
    add("max_disk_mb_per_second", AlertType.DISK_HIGH, _of("disk_mb_per_second"), "disk at", " MB/s", "disk_rate_high")
    network = _of("network_received_mb", "network_sent_mb")
    add("max_network_mb", AlertType.NETWORK_HIGH, network, "network traffic of", " MB", "network_total_high")
    add("max_network_mbps", AlertType.NETWORK_HIGH, _of("network_mbps"), "network at", " Mbit/s")
    add("max_file_descriptors", AlertType.FILE_DESCRIPTORS_HIGH, _of("file_descriptors"), "open descriptors:")
    add("max_threads", AlertType.THREADS_HIGH, _of("threads"), "threads:")
    add("max_response_time", AlertType.RESPONSE_TIME_HIGH, _of("response_time"), "answers take", " s")
    add("max_error_rate", AlertType.ERROR_RATE_HIGH, errors, "share of errors:")
    add("max_idle_seconds", AlertType.IDLE, _of("idle_seconds"), "idle for", " s")
    return found
