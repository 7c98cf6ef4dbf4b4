"""Stands between the core and a policy, which may be a user's own: what it raises must not tear the core apart.

A hook that raises, or answers with something that is no answer, is called no more, nor is any other: the first error is
kept, the core gets harmless answers, and whoever owns it ends everything in good order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from procession.abc import QueuedTask, QueuePolicy

T = TypeVar("T")


class Guarded:
    """A policy that never raises.

    Args:
        policy: the policy itself.

    Attributes:
        kind: its class, which tells what hooks it has.
        error: what it raised first, if it has.
    """

    def __init__(self, policy: QueuePolicy) -> None:
        self._policy = policy
        self.kind: type[QueuePolicy] = type(policy)
        self.error: Exception | None = None

    def group(self, task: QueuedTask) -> Hashable:
        """Something that can be a key."""
        nobody: Hashable = 0
        return self._ask(nobody, _hashable, self._policy.group, task)

    def rank(self, task: QueuedTask, now: int) -> int:
        """A whole number."""
        return self._ask(now, _whole, self._policy.rank, task, now)

    def again(self, task: QueuedTask, now: int) -> int:
        """A whole number."""
        return self._ask(now, _whole, self._policy.again, task, now)

    def offset(self, group: Hashable) -> int:
        """A whole number."""
        return self._ask(0, _whole, self._policy.offset, group)

    def admit(self, task: QueuedTask, now: float) -> None:
        """What this raises is a refusal, not a fault."""
        self._policy.admit(task, now)

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """Groups, maybe none."""
        return self._ask((), tuple, self._policy.queued, task, now)

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """Groups, maybe none."""
        return self._ask((), tuple, self._policy.started, task, now)

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        """Groups, maybe none."""
        return self._ask((), tuple, self._policy.stopped, task, now, ran)

    def left(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """Groups, maybe none."""
        return self._ask((), tuple, self._policy.left, task, now)

    def settled(self, task: QueuedTask, now: float) -> None:
        """Nothing."""
        self._ask(None, _anything, self._policy.settled, task, now)

    def quantum(self, task: QueuedTask) -> float | None:
        """Seconds above 0, or nothing."""
        return self._ask(None, _seconds, self._policy.quantum, task)

    def used_up(self, task: QueuedTask, now: float) -> None:
        """Nothing."""
        self._ask(None, _anything, self._policy.used_up, task, now)

    def next_tick(self) -> float | None:
        """A time, or nothing."""
        return self._ask(None, _time, self._policy.next_tick)

    def tick(self, now: float) -> Iterable[Hashable]:
        """Groups, maybe none. The next tick has to be a later one, or time would stand still for ever."""
        groups = self._ask((), tuple, self._policy.tick, now)
        at = self.next_tick()
        if at is not None and at <= now and self.error is None:
            self.error = ValueError(f"next_tick() is {at!r} after tick({now!r}): it has to move on")
        return groups

    def _ask(self, harmless: T, check: Callable[[Any], T], hook: Callable[..., Any], *args: Any) -> T:
        if self.error is not None:
            return harmless
        try:
            return check(hook(*args))
        except Exception as error:  # noqa: BLE001 - a policy of the user's own
            self.error = error
            return harmless

    def __repr__(self) -> str:
        return repr(self._policy)


def _anything(value: object) -> object:
    return value


def _hashable(value: Any) -> Hashable:
    hash(value)
    key: Hashable = value
    return key


def _whole(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a whole number is needed, not {value!r}")
    return value


def _seconds(value: float | None) -> float | None:
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"a number of seconds above 0, or None, is needed, not {value!r}")
    return value


def _time(value: float | None) -> float | None:
    if value is not None and not -math.inf < value < math.inf:
        raise ValueError(f"a time, or None, is needed, not {value!r}")
    return value
