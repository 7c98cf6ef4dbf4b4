"""Turns samples and events into alerts, and tells everybody."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from procession._clock import wall
from procession._types import Exit
from procession.events import AlertRaised, AlertResolved, Event
from procession.monitor._alerts import Alert, AlertBook, Key
from procession.monitor._config import MonitorConfig
from procession.monitor._limits import CLEAR, Cell, Condition, RuleCondition, conditions
from procession.monitor._responders import Desk, Responder
from procession.monitor._rules import Patience, Rule, Verdict, settled_by_hand
from procession.monitor._sample import Sample
from procession.monitor._watch import Watch
from procession.monitor._words import AlertType, Severity

if TYPE_CHECKING:
    from procession.registry import ProcessRegistry

log = logging.getLogger("procession.monitor")

UNHEALTHY = "unhealthy"
_MOST_SUPERVISORS = 10_000


class _Hung(Condition):
    """It lives and makes no progress."""

    __slots__ = ("_watch",)

    def __init__(self, watch: Watch) -> None:
        super().__init__("process_hung", AlertType.PROCESS_HUNG, Severity.CRITICAL, Patience(clear_samples=1))
        self._watch = watch

    def holds(self, sample: Sample, raised: bool) -> bool | None:  # noqa: ARG002 - the same for both
        return self._watch._why_hung(sample.at) is not None

    def told(self, sample: Sample) -> tuple[str, float | None]:
        return f"makes no progress: {self._watch._why_hung(sample.at)}", None


class Judge:
    """Knows the rules and keeps the book of alerts.

    Args:
        config: the monitor's.
        registry: where events are published, or ``None``.
        memory_mb: how much memory there is, for limits in percent.
        desk: tells those who asked.
        tell: is given each alert when it is raised and when it is over.
        now: loop time.
    """

    def __init__(
        self,
        config: MonitorConfig,
        registry: ProcessRegistry | None,
        memory_mb: float,
        desk: Desk,
        tell: Callable[[Alert], None],
        now: Callable[[], float],
    ) -> None:
        self.book = AlertBook(config.alert_history)
        self.rules: dict[str, RuleCondition] = {}
        self.rule_errors = 0
        self._config = config
        self._registry = registry
        self._memory_mb = memory_mb
        self._desk = desk
        self._tell = tell
        self._now = now
        self._callbacks: dict[str, tuple[Responder, ...]] = {}
        self._complained: dict[tuple[str, str], int] = {}
        self._supervisors: OrderedDict[str, None] = OrderedDict()

    # ---------------------------------------------------------------------------------------- rules

    def add_rule(self, rule: Rule, watches: Iterable[Watch]) -> None:
        """Asks it about every sample from now on, in place of one with the same name."""
        self.remove_rule(rule.name, watches)
        self.rules[rule.name] = condition = RuleCondition(rule)
        self._callbacks[rule.name] = (self._desk.made_for(rule.callbacks),) if rule.callbacks else ()
        for watch in watches:
            if _applies(rule, watch):
                watch._cells.append(Cell(condition))

    def remove_rule(self, name: str, watches: Iterable[Watch]) -> bool:
        """Asks it no more; its alerts are over."""
        condition = self.rules.pop(name, None)
        self._callbacks.pop(name, None)
        if condition is None:
            return False
        for watch in watches:
            for cell in [cell for cell in watch._cells if cell.condition is condition]:
                watch._cells.remove(cell)
                self._over((watch.id, name), "cleared")
        return True

    def outfit(self, watch: Watch) -> None:
        """Gives a watch its conditions; those it had before and still has stand where they stood."""
        found: list[Condition] = []
        if watch._hung is None:
            watch._hung = Cell(_Hung(watch))
        if watch.limits is not None:
            hung = watch._hung.condition
            hung.severity = watch.limits.severities.get(AlertType.PROCESS_HUNG, Severity.CRITICAL)
        if watch.limits is not None:
            found += conditions(watch.limits, self._memory_mb)
        found += [condition for condition in self.rules.values() if _applies(condition.rule, watch)]
        before = {cell.condition.name: cell for cell in watch._cells}
        watch._cells = []
        for condition in found:
            cell = Cell(condition)
            if condition.name in before:
                cell.standing = before.pop(condition.name).standing
            watch._cells.append(cell)
        for name in before:
            self._over((watch.id, name), "cleared")

    # -------------------------------------------------------------------------------------- judging

    def see(self, watch: Watch) -> None:
        """Asks all conditions of a watch about its new sample, which is not made if there is nothing to ask."""
        hung = watch._hung
        if hung is not None and (watch._may_be_hung or hung.standing is not CLEAR):
            self._ask(watch, (hung,))
        if watch._cells:
            self._ask(watch, watch._cells)

    def _ask(self, watch: Watch, cells: Iterable[Cell]) -> None:
        sample = watch.latest
        assert sample is not None
        for cell in cells:
            try:
                verdict = cell.see(sample)
                if verdict is None:
                    continue
                if verdict is Verdict.RESOLVE:
                    self._over((watch.id, cell.condition.name), "cleared")
                else:
                    self._raise(watch, cell.condition, sample)
            except Exception as error:  # noqa: BLE001 - a rule of the user's: isolated, counted, logged
                self._complain(watch, cell, error)

    def _complain(self, watch: Watch, cell: Cell, error: Exception) -> None:
        self.rule_errors += 1
        key = (watch.id, cell.condition.name)
        times = self._complained[key] = self._complained.get(key, 0) + 1
        if times & (times - 1) == 0:  # the 1st, 2nd, 4th, 8th … time
            log.error("the rule %s failed on %s (%d times so far)", key[1], key[0], times, exc_info=error)

    def _raise(self, watch: Watch, condition: Condition, sample: Sample) -> None:
        try:
            message, value = condition.told(sample)
        except Exception as error:  # noqa: BLE001 - a message of the user's
            self.rule_errors += 1
            message, value = f"the rule {condition.name} holds (its message failed: {error!r})", None
        self.announce(
            (watch.id, condition.name),
            watch=watch,
            process=watch.id,
            target=watch.target,
            pid=watch.pid,
            owner=watch.owner,
            type=condition.type,
            severity=condition.severity,
            message=message,
            value=value,
            limit=condition.limit,
        )

    def announce(self, key: Key, *, watch: Watch | None = None, **fields: Any) -> Alert:
        """Raises an alert, or counts one more in the one there is, which is not announced again."""
        now = self._now()
        active = self.book.find(key) is not None
        alert = self.book.add(key, **fields, raised_at=now, wall=wall())
        if active:
            return alert
        log.log(_LEVELS[alert.severity], "%s", alert)
        self._publish(alert)
        self._tell(alert)
        self._desk.tell(alert, self._callbacks.get(key[1], ()) if watch is not None else ())
        while (overdue := self.book.overdue()) is not None and overdue.id != alert.id:
            self._finish(overdue.id, "cleared", "given up: too many alerts are active")
        return alert

    def _over(self, key: Key, resolution: str) -> None:
        alert = self.book.find(key)
        if alert is not None:
            self._finish(alert.id, resolution)

    def _finish(self, id: str, resolution: str, note: str = "") -> Alert:
        alert = self.book.resolve(id, self._now(), resolution, note)
        log.log(logging.INFO, "%s", alert)
        self._publish(alert)
        self._tell(alert)
        self._desk.tell(alert, self._callbacks.get(alert.rule, ()))
        return alert

    def _publish(self, alert: Alert) -> None:
        registry = self._registry
        if registry is None or not registry.wants(AlertRaised if alert.is_active else AlertResolved):
            return
        id, owner, name = alert.process, alert.owner, alert.id
        kind, severity = alert.type.value, alert.severity.value
        if alert.is_active:
            event: Event = AlertRaised(
                id=id, owner=owner, alert=name, severity=severity, kind=kind, message=alert.message, count=alert.count
            )
        else:
            event = AlertResolved(
                id=id,
                owner=owner,
                alert=name,
                severity=severity,
                kind=kind,
                duration=alert.duration or 0.0,
                how=alert.resolution,
            )
        registry.publish(event)

    def resolve(self, id: str, note: str, watches: dict[str, Watch]) -> Alert:
        """Resolves an alert by hand. Should its condition still hold, it has to clear before it counts again.

        Raises:
            AlertNotFound: no such alert is active.
        """
        alert = self._finish(id, "by hand", note)
        watch = watches.get(alert.process)
        for cell in watch._conditions if watch is not None else ():
            if cell.condition.name == alert.rule:
                cell.standing = settled_by_hand(cell.standing, self._now())
        return alert

    # ------------------------------------------------------------------------------------- their ends

    def came(self, watch: Watch) -> None:
        """A process is watched from now on; if one of its kind had gone down, it is up again."""
        self.outfit(watch)
        self.recovered(watch.target)

    def recovered(self, target: str) -> None:
        """A unit runs again."""
        self._over((target, AlertType.PROCESS_DOWN.value), "recovered")

    def supervises(self, owner: str) -> None:
        """Takes note that somebody looks after processes of its own."""
        if owner not in self._supervisors:
            self._supervisors[owner] = None
            if len(self._supervisors) > _MOST_SUPERVISORS:
                self._supervisors.popitem(last=False)

    def went(self, watch: Watch, exit: Exit | None, reason: str) -> None:
        """A process has ended: its alerts are over, and if nobody had asked for that, there is another."""
        for cell in watch._conditions:
            self._over((watch.id, cell.condition.name), "ended")
            self._complained.pop((watch.id, cell.condition.name), None)
        for name in watch._names:
            self._over((name, UNHEALTHY), "ended")
        severity = self._down(watch, exit)
        if severity is None:
            return
        self.announce(
            (watch.target, AlertType.PROCESS_DOWN.value),
            process=watch.id,
            target=watch.target,
            pid=watch.pid,
            owner=watch.owner,
            type=AlertType.PROCESS_DOWN,
            severity=severity,
            message=f"{watch.name} is down: {exit if exit is not None else reason}",
        )

    def _down(self, watch: Watch, exit: Exit | None) -> Severity | None:
        """How bad the end of a process is; ``None`` when it is in order."""
        if not self._config.down_alerts or watch.stopping or (exit is not None and exit.is_success):
            return None
        labels = {} if watch.record is None else watch.record.labels
        supervised = "unit" in labels or "pool" in labels or watch.owner in self._supervisors
        crashed = exit is None or exit.is_lost or exit.signal is not None
        severity = Severity.WARNING if supervised and not watch.asked else Severity.CRITICAL
        if not watch.asked and not crashed and (supervised or watch.latest is None):
            return None  # a command that failed: whoever ran it has been told
        if watch.limits is not None:
            severity = watch.limits.severities.get(AlertType.PROCESS_DOWN, severity)
        return severity

    def health(self, id: str, watch: Watch | None, healthy: bool, detail: str) -> None:
        """A liveness probe has changed its mind. It is a warning, since whoever asks acts on the answer."""
        if healthy:
            self._over((id, UNHEALTHY), "cleared")
            return
        self.announce(
            (id, UNHEALTHY),
            process=id if watch is None else watch.id,
            target=id if watch is None else watch.target,
            pid=None if watch is None else watch.pid,
            owner="" if watch is None else watch.owner,
            type=AlertType.PROCESS_HUNG,
            severity=Severity.WARNING,
            message="its liveness probe fails" + (f": {detail}" if detail else ""),
        )

    def failed(self, id: str, owner: str, kind: str, error: str) -> None:
        """Whoever owns it has given it up."""
        if not self._config.down_alerts:
            return
        key = (id, AlertType.PROCESS_DOWN.value)
        before = self.book.find(key)
        if before is not None and before.severity < Severity.CRITICAL:
            self._finish(before.id, "cleared", "its owner has given it up")
        self.announce(
            key,
            process=id,
            target=id,
            pid=None,
            owner=owner,
            type=AlertType.PROCESS_DOWN,
            severity=Severity.CRITICAL,
            message=f"{id} is down ({kind})" + (f": {error}" if error else ""),
        )


_LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.ERROR,
    Severity.EMERGENCY: logging.CRITICAL,
}


def _applies(rule: Rule, watch: Watch) -> bool:
    if rule.ids is not None and not any(name in rule.ids for name in watch._names):
        return False
    if rule.owner is not None and rule.owner != watch.owner:
        return False
    if rule.label is None:
        return True
    labels = {} if watch.record is None else watch.record.labels
    if isinstance(rule.label, str):
        return rule.label in labels
    return labels.get(rule.label[0]) == rule.label[1]
