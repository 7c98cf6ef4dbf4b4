"""The part of a monitor that is about alerts: rules, and who is told."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from procession.errors import ConfigError
from procession.monitor._alerts import Alert
from procession.monitor._engine import Engine
from procession.monitor._responders import AlertSink, Responder
from procession.monitor._roster import Which
from procession.monitor._rules import Rule, check_responder, severity_of
from procession.monitor._stream import AlertStream
from procession.monitor._watch import Watch
from procession.monitor._words import AlertType, Severity


class Alarms(Engine):
    """Rules, callbacks, actions, sinks, and the book of alerts; see :class:`ResourceMonitor`."""

    def add_rule(self, rule: Rule) -> Rule:
        """Asks a rule about every sample from now on, in place of one of the same name.

        Raises:
            ConfigError: it is no rule.
        """
        if not isinstance(rule, Rule):
            raise ConfigError("rule", rule, "a Rule is needed: Rule(name, predicate, for_seconds=60)")
        self._judge.add_rule(rule, self._everybody())
        return rule

    def remove_rule(self, name: str) -> None:
        """Asks a rule no more; its alerts are over.

        Raises:
            ConfigError: there is no such rule.
        """
        if not self._judge.remove_rule(name, self._everybody()):
            raise ConfigError("name", name, "there is no such rule")

    def _everybody(self) -> list[Watch]:
        return [*self._roster, *self._owners.values()] if self._opened else []

    def on_alert(
        self,
        severity: Severity | str,
        *responders: Any,
        type: AlertType | str | Collection[AlertType | str] | None = None,  # noqa: A002 - as in an alert
        rule: str | Collection[str] | None = None,
        process: str | Collection[str] | None = None,
        resolved: bool = False,
    ) -> Responder:
        """Has functions and actions called with each alert from now on.

        A function may be plain or async. Those that are given together are called one after the other, in this order, and
        for one alert at a time; those of another call of ``on_alert`` do not wait for them. One that raises, or takes longer
        than ``callback_timeout``, is counted and logged, and the next one goes on. A plain one runs on the loop, so it has to
        be quick.

        Args:
            severity: only alerts that are at least so bad.
            responders: functions of one alert, and actions of :mod:`procession.monitor.actions`.
            type: only alerts of this type, or these.
            rule: only alerts of this rule, or these.
            process: only alerts about the process with this id or target, or these.
            resolved: whether functions are called again when an alert is over; actions are not.

        Returns:
            What is registered now; closing it ends that.

        Raises:
            ConfigError: a value was refused.
        """
        least = severity_of(severity)
        if not responders:
            raise ConfigError("responders", responders, "at least one function or action is needed")
        for responder in responders:
            check_responder("responders", responder)
        options = {
            "severity": least,
            "kinds": None if type is None else frozenset(map(_type_of, _several(type))),
            "rules": None if rule is None else frozenset(_several(rule)),
            "ids": None if process is None else frozenset(_several(process)),
        }
        return self._desk.add(*responders, resolved=resolved, **options)

    def add_sink(self, sink: AlertSink, *, severity: Severity | str = Severity.INFO) -> Responder:
        """Sends each alert somewhere, when it is raised and when it is over.

        Args:
            sink: for example a ``WebhookSink``; anything with ``async def send(alert)``.
            severity: only alerts that are at least so bad. Default: all.

        Returns:
            The sink as it is registered; closing it ends that.

        Raises:
            ConfigError: a value was refused.
        """
        if isinstance(sink, type_) or not isinstance(sink, AlertSink):
            raise ConfigError("sink", sink, "something with async def send(alert) is needed")
        return self._desk.add(sink, severity=severity_of(severity), resolved=True)

    def alerts(
        self, severity: Severity | str = Severity.INFO, *, resolved: bool = False, max_queued: int = 1000
    ) -> AlertStream:
        """Alerts from now on, as an async iterator over a bounded queue.

        Args:
            severity: only those that are at least so bad. Default: all.
            resolved: whether each comes again when it is over. Default no.
            max_queued: how many wait at most; the oldest are dropped and counted.

        Raises:
            ConfigError: a value was refused.
            StateError: the monitor is not open.
        """
        self._inside()
        if isinstance(max_queued, bool) or not isinstance(max_queued, int) or max_queued < 1:
            raise ConfigError("max_queued", max_queued, "a whole number, 1 or more, is needed")
        stream = AlertStream(severity_of(severity), bool(resolved), max_queued, self._streams.remove)
        self._streams.append(stream)
        return stream

    @property
    def active_alerts(self) -> tuple[Alert, ...]:
        """All alerts that are not over, in the order they were raised."""
        return tuple(self._judge.book.active.values())

    def alert(self, id: str) -> Alert:
        """An alert as it stands now.

        Raises:
            AlertNotFound: none is known by that id.
        """
        return self._judge.book.get(id)

    def history(
        self,
        process: Which | None = None,
        *,
        type: AlertType | str | None = None,  # noqa: A002 - as in an alert
        severity: Severity | str = Severity.INFO,
        since: float | None = None,
        limit: int | None = None,
    ) -> list[Alert]:
        """Alerts, active and over, in the order they were raised; for samples see :meth:`samples`.

        Args:
            process: only those about this process. Default: all.
            type: only those of this type.
            severity: only those at least so bad.
            since: only those raised at this loop time or later.
            limit: only the last so many.

        Raises:
            ConfigError: a value was refused.
        """
        least, kind = severity_of(severity), None if type is None else _type_of(type)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ConfigError("limit", limit, "a whole number, 0 or more, is needed")
        names: set[str] | None = None
        if process is not None:
            names = {process} if isinstance(process, str) else set(self._find(process)._names)
        found = [
            alert
            for alert in self._judge.book.all()
            if alert.severity >= least
            and (kind is None or alert.type is kind)
            and (names is None or names & {alert.process, alert.target})
            and (since is None or alert.raised_at >= since)
        ]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def resolve(self, alert_id: str, note: str = "") -> Alert:
        """Resolves an alert by hand. Should its condition still hold, it is raised again only after that has cleared once.

        Args:
            alert_id: its id.
            note: why, kept with it.

        Raises:
            AlertNotFound: no such alert is active.
        """
        watches = {**self._owners, **self._roster.active} if self._opened else {}
        return self._judge.resolve(str(alert_id), note, watches)


type_ = type


def _several(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Collection):
        raise ConfigError("filter", value, "a name, or several, are needed")
    return list(value)


def _type_of(value: object) -> AlertType:
    try:
        return AlertType(value)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError("type", value, "one of " + ", ".join(AlertType) + " is needed") from None
