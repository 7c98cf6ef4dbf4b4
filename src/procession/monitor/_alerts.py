"""Alerts, and the book that is kept of them. Pure: times are given."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from procession.errors import AlertNotFound
from procession.monitor._words import AlertType, Severity

_COUNTED = 10_000
"""For so many conditions it is remembered how often they came up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A condition that holds, or held, for one process. Immutable; the monitor has the present one under its id.

    Attributes:
        id: its own id, for example ``"api.memory_high.7"``.
        process: under which the process is watched.
        target: what to name to whoever can restart or stop it: the label ``unit`` of the process, else its name or id.
        pid: its process id, or ``None``.
        owner: who owns it; empty when nobody does.
        rule: the name of the rule, or of the limit, for example ``"memory_high"``.
        type: what it is about.
        severity: how bad it is.
        message: the same for people.
        value: the figure when it was raised, if it is about one.
        limit: what that should not exceed.
        count: how often this condition has come up for this process, 1 at first.
        raised_at: loop time at which it was raised.
        wall: the same as seconds since the epoch, for display.
        resolved_at: loop time at which it was over, or ``None``.
        resolution: how: ``"cleared"``, ``"by hand"``, ``"ended"`` (with its process), ``"recovered"`` (it runs again);
            empty while it is active.
        note: what whoever resolved it by hand had to say.
    """

    id: str
    process: str
    target: str
    pid: int | None
    owner: str
    rule: str
    type: AlertType
    severity: Severity
    message: str
    value: float | None = None
    limit: float | None = None
    count: int = 1
    raised_at: float = 0.0
    wall: float = 0.0
    resolved_at: float | None = None
    resolution: str = ""
    note: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it is not over."""
        return self.resolved_at is None

    @property
    def duration(self) -> float | None:
        """Seconds it lasted; ``None`` while it is active."""
        return None if self.resolved_at is None else max(0.0, self.resolved_at - self.raised_at)

    def to_dict(self) -> dict[str, Any]:
        """Its fields as plain values, for JSON."""
        return {
            **{name: getattr(self, name) for name in self.__dataclass_fields__},
            "type": str(self.type),
            "severity": str(self.severity),
            "is_active": self.is_active,
            "duration": self.duration,
        }

    def __str__(self) -> str:
        over = "" if self.is_active else f" ({self.resolution} after {self.duration:.1f} s)"
        return f"{self.severity.upper()} {self.process}: {self.message}{over}"


Key = tuple[str, str]
"""Process and rule: one condition."""


class AlertBook:
    """All active alerts, and the last so many that are over. At most one alert per condition is active.

    Args:
        size: how many alerts that are over are kept, and how many may be active before the oldest are given up.
    """

    def __init__(self, size: int) -> None:
        self.active: OrderedDict[str, Alert] = OrderedDict()
        self.past: deque[Alert] = deque(maxlen=size)
        self.raised = 0
        self.by_severity: dict[Severity, int] = dict.fromkeys(Severity, 0)
        self._size = max(1, size)
        self._by_key: dict[Key, str] = {}
        self._key_of: dict[str, Key] = {}
        self._counts: OrderedDict[Key, int] = OrderedDict()

    def find(self, key: Key) -> Alert | None:
        """The active alert of a condition."""
        id = self._by_key.get(key)
        return None if id is None else self.active[id]

    def add(self, key: Key, **fields: Any) -> Alert:
        """Raises an alert for a condition that has none, or counts one more in the one it has.

        Args:
            key: the condition.
            fields: of the alert, other than its id, rule and count.
        """
        present = self.find(key)
        count = self._counts.pop(key, 0) + 1
        self._counts[key] = count
        if len(self._counts) > _COUNTED:
            self._counts.popitem(last=False)
        self.raised += 1
        if present is not None:
            alert = replace(present, count=count, message=fields["message"], pid=fields["pid"])
            self.active[alert.id] = alert
            return alert
        alert = Alert(id=f"{key[0]}.{key[1]}.{self.raised}", rule=key[1], count=count, **fields)
        self.by_severity[alert.severity] += 1
        self.active[alert.id] = alert
        self._by_key[key] = alert.id
        self._key_of[alert.id] = key
        return alert

    def overdue(self) -> Alert | None:
        """The oldest active alert, when there are more than may be."""
        return next(iter(self.active.values())) if len(self.active) > self._size else None

    def resolve(self, id: str, now: float, resolution: str, note: str = "") -> Alert:
        """Moves an active alert to the past ones.

        Raises:
            AlertNotFound: no such alert is active.
        """
        alert = self.active.pop(id, None)
        if alert is None:
            raise AlertNotFound(id)
        alert = replace(alert, resolved_at=now, resolution=resolution, note=note)
        del self._by_key[self._key_of.pop(id)]
        self.past.append(alert)
        return alert

    def get(self, id: str) -> Alert:
        """An alert, active or past.

        Raises:
            AlertNotFound: none is known by that id.
        """
        found = self.active.get(id) or next((alert for alert in reversed(self.past) if alert.id == id), None)
        if found is None:
            raise AlertNotFound(id)
        return found

    def all(self) -> Iterable[Alert]:
        """Past and active alerts, in the order they were raised."""
        return sorted((*self.past, *self.active.values()), key=lambda alert: alert.raised_at)
