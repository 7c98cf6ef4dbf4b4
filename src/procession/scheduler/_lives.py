"""The life of every task, as a pure core: what is told goes in, effects for the shell come out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING, Any

from procession._core.heap import Agenda, Timer
from procession._core.window import Samples
from procession.errors import DeadlineMissed, DependencyFailed, ExecutionTimeout, TaskCancelled, TaskTimeout
from procession.scheduler._config import Preemption
from procession.scheduler._decide import Preempt
from procession.scheduler._entry import Entry
from procession.scheduler._policies import Policy
from procession.scheduler._states import (
    BLOCKED,
    CANCELLED,
    DELAYED,
    FAILED,
    FINAL,
    MISSED,
    QUEUED,
    RETRYING,
    RUNNING,
    STOPPING,
    SUCCEEDED,
    SUSPENDED,
    TaskState,
    move,
)
from procession.scheduler._tally import Tally

if TYPE_CHECKING:
    import random

    from procession.scheduler._decide import Dispatcher

_WAITING = (BLOCKED, DELAYED, QUEUED, RETRYING)
_RUNS = (RUNNING, SUSPENDED)


@dataclass(frozen=True, slots=True)
class Settled:
    """Effect: its fate is known; ``error`` is ``None`` when it succeeded."""

    entry: Any
    value: Any
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Effect: end its work, gracefully, and say so with ``ended``."""

    entry: Any


@dataclass(frozen=True, slots=True)
class Freeze:
    """Effect: suspend its process; ``by`` is the task it makes room for, ``None`` at the end of its quantum."""

    entry: Any
    by: Any


@dataclass(frozen=True, slots=True)
class Requeue:
    """Effect: it is being stopped to make room for ``by``; a stop of its own follows."""

    entry: Any
    by: Any


@dataclass(frozen=True, slots=True)
class Retry:
    """Effect: it failed and will be tried again in ``delay`` seconds."""

    entry: Any
    delay: float
    error: BaseException


Effect = Settled | Stop | Freeze | Requeue | Retry


class _Why(StrEnum):
    CANCEL = "cancel"
    TIMEOUT = "timeout"
    REQUEUE = "requeue"


class _Due(Enum):
    READY = auto()
    EXPIRED = auto()
    TIMEOUT = auto()
    QUANTUM = auto()
    TICK = auto()


_Timer = Timer[tuple[_Due, Entry | None]]


class Lives:
    """Every task from its acceptance to its fate. Whatever happens to one, ``Settled`` comes out exactly once.

    Args:
        dispatcher: decides what starts.
        rng: draws the jitter of retries.
    """

    def __init__(self, dispatcher: Dispatcher, rng: random.Random) -> None:
        self.dispatcher = dispatcher
        self.effects: list[Effect] = []
        self.tally = Tally()
        self.waited = Samples()
        self.ran = Samples()
        self.aside: dict[Entry, None] = {}
        self.next_due = math.inf
        self._rng = rng
        self._agenda: Agenda[tuple[_Due, Entry | None]] = Agenda()
        self._timers: dict[Entry, _Timer] = {}
        self._expiries: dict[Entry, _Timer] = {}
        self._quanta: dict[Entry, _Timer] = {}
        self._tick: _Timer | None = None
        self._endings: dict[Entry, tuple[_Why, str]] = {}
        self._last_errors: dict[Entry, BaseException] = {}
        self._dependents: dict[Entry, dict[Entry, None]] = {}
        self._blockers: dict[Entry, set[Entry]] = {}
        self._up: set[Entry] = set()
        kind = dispatcher.kind
        self._sliced = kind.quantum is not Policy.quantum
        self._ticks = kind.tick is not Policy.tick

    # ------------------------------------------------------------------------------------ how many

    @property
    def waiting(self) -> int:
        """How many have been accepted and not begun, or have to begin again."""
        return len(self.dispatcher.queue) - len(self.dispatcher.suspended) + self._sidelined() + len(self.aside)

    @property
    def unfinished(self) -> int:
        """How many have no fate yet."""
        return len(self.dispatcher.queue) + len(self.dispatcher.running) + len(self.aside) + self._sidelined()

    def _sidelined(self) -> int:
        """Suspended ones that are being stopped, and so stand in no queue."""
        suspended = self.dispatcher.suspended
        return sum(1 for entry in suspended if entry.lane is None) if suspended else 0

    def __iter__(self) -> Iterator[Entry]:
        """All that have no fate yet."""
        yield from self.aside
        yield from (entry for entry in self.dispatcher.queue if entry.state is QUEUED)
        yield from self.dispatcher.suspended
        yield from self.dispatcher.running

    @property
    def is_plain(self) -> bool:
        """Whether the policy wants nothing special of any task."""
        return self.dispatcher.is_plain and not self._sliced and not self._ticks

    @property
    def has_dependents(self) -> bool:
        """Whether anybody comes after another."""
        return bool(self._dependents)

    def due_at(self, entry: Entry) -> float | None:
        """Until when it is delayed or waits to be tried again."""
        timer = self._timers.get(entry)
        return timer.at if timer is not None and entry in self.aside else None

    def blockers(self, entry: Entry) -> frozenset[Entry]:
        """The unfinished tasks it comes after."""
        return frozenset(self._blockers.get(entry, ()))

    # --------------------------------------------------------------------------------- coming in

    def accept(self, entry: Entry, now: float) -> None:
        """Takes on a new task."""
        spec = entry.spec
        if spec.deadline is not None:
            self._expiries[entry] = self._add(spec.deadline, _Due.EXPIRED, entry)
        if spec.after:
            self._blockers[entry] = blockers = set(spec.after)
            for one in blockers:
                self._dependents.setdefault(one, {})[entry] = None
            self._inherit(entry)
            move(entry, BLOCKED)
            self.aside[entry] = None
        else:
            self._unblocked(entry, now)
        self.tally.submitted += 1

    def retract(self, entry: Entry, now: float) -> None:
        """Takes back what was accepted a moment ago, as if it had never been; nobody has its handle."""
        self._leave(entry, now)
        self._drop(self._expiries, entry)
        self._unhook(entry)
        self.dispatcher.settled(entry, now)
        self.tally.submitted -= 1

    def _unblocked(self, entry: Entry, now: float) -> None:
        not_before = entry.spec.not_before
        if not_before is not None and not_before > now:
            move(entry, DELAYED)
            self.aside[entry] = None
            self._timers[entry] = self._add(not_before, _Due.READY, entry)
        else:
            self._enqueue(entry, now)

    def _enqueue(self, entry: Entry, now: float) -> None:
        move(entry, QUEUED)
        deadline = entry.spec.deadline
        if deadline is not None and now >= deadline and entry.queued_at >= 0:
            self._missed(entry, deadline, now)  # it comes back too late
            return
        self.dispatcher.enqueue(entry, now)
        if self._ticks:
            self._arm_tick()

    def _inherit(self, entry: Entry) -> None:
        """What it comes after must not be less urgent than it is, or it would wait for what waits behind others."""
        urgent, todo = entry.priority, list(self._blockers.get(entry, ()))
        while todo:
            one = todo.pop()
            if one.priority > urgent:
                self.dispatcher.reprioritise(one, urgent)
                todo += self._blockers.get(one, ())

    # ---------------------------------------------------------------------------------- deciding

    def next(self, now: float) -> Entry | None:
        """The next task to start or to continue. Effects, which come first, are to be carried out before it is."""
        if now >= self.next_due:
            self.due(now)
        while True:
            entry = self.dispatcher.next(now)
            if entry is None:
                return None
            if isinstance(entry, Preempt):
                self._make_room(entry, now)
                continue
            break
        if self._up and entry in self._up:
            self.dispatcher.preemptible(entry)  # it goes on, and may be asked again to make room
        elif entry.attempts == 1 and not entry.preemptions:
            self.waited.add(now - entry.queued_at)
        timeout = entry.spec.timeout
        if timeout is not None:
            self._timers[entry] = self._add(max(now, now + timeout - entry.ran), _Due.TIMEOUT, entry)
        if self._sliced:
            self._begin_quantum(entry, now)
        return entry

    def up(self, entry: Entry, *, suspendable: bool) -> None:
        """Its work is under way; from now on it can be made to give way."""
        if entry.state is not RUNNING:
            return
        if suspendable:
            self._up.add(entry)
        self.dispatcher.preemptible(entry)

    def _make_room(self, decision: Preempt, now: float) -> None:
        head = decision.head
        for entry in decision.victims:
            entry.preemptions += 1
            self.tally.preempted += 1
            if entry.spec.preemption is Preemption.SUSPEND:
                self._suspend(entry, head, now)
            else:
                self._stop(entry, _Why.REQUEUE, head.id)
                self.effects.append(Requeue(entry, head))

    def _suspend(self, entry: Entry, by: Entry | None, now: float) -> None:
        self._clear(entry)
        self.dispatcher.suspend(entry, now)
        self.effects.append(Freeze(entry, by))

    # ------------------------------------------------------------------------------------ ending

    def cancel(self, entry: Entry, reason: str, now: float, *, insist: bool = True) -> bool:
        """Asks for its end; ``False`` when it has its fate already.

        The first reason is the one that is told. One that is being stopped already is asked again only if we ``insist``,
        because that interrupts its clean-up.
        """
        state = entry.state
        if state in FINAL:
            return False
        if state in _RUNS:
            self._stop(entry, _Why.CANCEL, reason)
        elif state is STOPPING:
            if self._endings[entry][0] is not _Why.CANCEL:
                self._endings[entry] = (_Why.CANCEL, reason)
            if insist:
                self.effects.append(Stop(entry))
        else:
            self._leave(entry, now)
            self._settle(entry, CANCELLED, None, TaskCancelled(entry.id, reason), now)
        return True

    def _stop(self, entry: Entry, why: _Why, reason: str) -> None:
        self._endings[entry] = (why, reason)
        self._clear(entry)
        self.dispatcher.stopping(entry)
        move(entry, STOPPING)
        self.effects.append(Stop(entry))

    def ended(
        self, entry: Entry, value: Any, error: BaseException | None, now: float, *, cancelled: bool = False
    ) -> None:
        """Its work is over: with a value, an error, or both for a command whose exit code says that it failed.

        ``cancelled`` says that ``error`` is the cancellation that ended it, asked for or not.
        """
        self._clear(entry)
        self._up.discard(entry)
        why, reason = self._endings.pop(entry, (None, "")) if self._endings else (None, "")
        self.dispatcher.release(entry, now)
        self.ran.add(entry.ran)
        if error is None:
            self._settle(entry, SUCCEEDED, value, None, now)
        elif not cancelled:
            self._failed(entry, value, error, now, again=why is not _Why.CANCEL)
        elif why is _Why.REQUEUE:
            entry.attempts -= 1  # making room is no failure
            self._enqueue(entry, now)
        elif why is _Why.TIMEOUT:
            self._failed(entry, None, _timeout_of(entry, error), now, again=True)
        else:
            completed = getattr(error, "completed", None)
            told = TaskCancelled(entry.id, reason or "its work was cancelled from within", completed)
            self._settle(entry, CANCELLED, None, told, now)

    def _failed(self, entry: Entry, value: Any, error: BaseException, now: float, *, again: bool) -> None:
        policy = entry.spec.retry
        delay = policy.next_delay(entry.attempts, error, self._rng) if policy is not None and again else None
        if delay is None:
            self._settle(entry, FAILED, value, error, now)
            return
        move(entry, RETRYING)
        self.aside[entry] = None
        self._last_errors[entry] = error
        self._timers[entry] = self._add(now + delay, _Due.READY, entry)
        self.tally.retried += 1
        self.effects.append(Retry(entry, delay, error))

    def _missed(self, entry: Entry, deadline: float, now: float) -> None:
        error = DeadlineMissed(entry.id, deadline, max(0.0, now - deadline))
        error.__cause__ = self._last_errors.get(entry)
        self._settle(entry, MISSED, None, error, now)

    def _leave(self, entry: Entry, now: float) -> None:
        """It waits no more, wherever it did."""
        self._clear(entry)
        if entry.lane is not None:
            self.dispatcher.withdraw(entry, now)
        else:
            self.aside.pop(entry, None)

    def _settle(self, entry: Entry, state: TaskState, value: Any, error: BaseException | None, now: float) -> None:
        """Tells its fate, and what that means to those that were to come after it, and to those after them."""
        move(entry, state)
        self.tally.count(state)
        self.dispatcher.settled(entry, now)
        self.effects.append(Settled(entry, value, error))
        if self._expiries:
            self._drop(self._expiries, entry)
        if self._last_errors:
            self._last_errors.pop(entry, None)
        if self._blockers:
            self._unhook(entry)
        if self._dependents and entry in self._dependents:
            self._tell(entry, error, now)

    def _unhook(self, entry: Entry) -> None:
        """It waits for no other any more, and none of them, which may run for long, keeps it."""
        for before in self._blockers.pop(entry, ()):
            dependents = self._dependents.get(before)
            if dependents is not None:
                dependents.pop(entry, None)
                if not dependents:
                    del self._dependents[before]

    def _tell(self, entry: Entry, error: BaseException | None, now: float) -> None:
        todo = [(entry, error)]
        for before, cause in todo:  # grows while it is walked: a chain may be longer than the stack is deep
            for one in self._dependents.pop(before, ()):
                if cause is None:
                    self._blockers[one].discard(before)
                    if not self._blockers[one]:
                        del self._blockers[one], self.aside[one]
                        self._unblocked(one, now)
                    continue
                failure = DependencyFailed(one.id, before.id, cause)
                failure.__cause__ = cause
                todo.append((one, failure))
                del self.aside[one]
                dependents = self._dependents.pop(one, None)
                self._settle(one, FAILED, None, failure, now)
                if dependents is not None:
                    self._dependents[one] = dependents

    def abandon(self, now: float) -> None:
        """Tells the fate of what will not end: that it was cancelled, whether it heeds that or not."""
        for entry in list(self):
            self._clear(entry)
            self.dispatcher.release(entry, now)
            reason = "it ignored its cancellation and was left behind"
            self._settle(entry, CANCELLED, None, TaskCancelled(entry.id, reason), now)

    # -------------------------------------------------------------------------------------- time

    def due(self, now: float) -> None:
        """Does what is due by ``now``."""
        while (item := self._agenda.pop_due(now)) is not None:
            kind, entry = item
            if kind is _Due.TICK:
                self._tick = None
                self.dispatcher.tick(now)
                self._arm_tick()
            elif entry is not None:
                self._due(kind, entry, now)
        self._look()

    def _due(self, kind: _Due, entry: Entry, now: float) -> None:
        if kind is _Due.EXPIRED:
            del self._expiries[entry]
            if entry.state in _WAITING:
                self._leave(entry, now)
                self._missed(entry, entry.spec.deadline or now, now)
        elif kind is _Due.QUANTUM:
            del self._quanta[entry]
            self.dispatcher.policy.used_up(entry, now)
            if entry in self._up and entry.spec.preemptible and len(self.dispatcher.queue):
                self._suspend(entry, None, now)
            else:
                self._begin_quantum(entry, now)
        else:
            del self._timers[entry]
            if kind is _Due.TIMEOUT:
                self._stop(entry, _Why.TIMEOUT, "")
            else:
                del self.aside[entry]
                self._enqueue(entry, now)

    def _begin_quantum(self, entry: Entry, now: float) -> None:
        quantum = self.dispatcher.policy.quantum(entry)
        if quantum is not None:
            self._quanta[entry] = self._add(now + quantum, _Due.QUANTUM, entry)

    def _arm_tick(self) -> None:
        """Ticks go on only while somebody waits or runs, so that an idle scheduler sleeps."""
        if self._tick is not None or not self.unfinished:
            return
        at = self.dispatcher.policy.next_tick()
        if at is not None:
            self._tick = self._add(at, _Due.TICK, None)

    def _add(self, at: float, kind: _Due, entry: Entry | None) -> _Timer:
        self.next_due = min(self.next_due, at)
        return self._agenda.add(at, (kind, entry))

    def _look(self) -> None:
        at = self._agenda.next_at()
        self.next_due = math.inf if at is None else at

    def _clear(self, entry: Entry) -> None:
        """Timers of the present state die with it."""
        if self._timers:
            self._drop(self._timers, entry)
        if self._quanta:
            self._drop(self._quanta, entry)

    def _drop(self, timers: dict[Entry, _Timer], entry: Entry) -> None:
        timer = timers.pop(entry, None)
        if timer is not None:
            self._agenda.discard(timer)


def _timeout_of(entry: Entry, error: BaseException) -> ExecutionTimeout:
    completed = getattr(error, "completed", None)
    timeout = entry.spec.timeout or 0.0
    if completed is None:
        return TaskTimeout(entry.id, timeout)
    return ExecutionTimeout(timeout, completed.command, "run", completed, completed.report)
