"""Everybody in turn: time slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procession.scheduler._policies._base import NANO, Policy
from procession.scheduler._policies._check import seconds

if TYPE_CHECKING:
    from procession.abc import QueuedTask


class Arrivals:
    """Places in the order in which tasks come to the end of a line; nanoseconds, so that lines can be compared.

    A task that comes at the very instant another one did still comes after it.
    """

    def __init__(self) -> None:
        self._last = 0

    def newcomer(self, now: int) -> int:
        """The place of a new task, whose number already says that it comes after those of the same instant."""
        self._last = max(self._last, now)
        return self._last

    def tail(self, now: float) -> int:
        """A place behind all others, for a task that had one before and may have any number."""
        self._last = max(self._last + 1, int(now * NANO))
        return self._last


class TimeSlice(Policy):
    """Round robin: order of arrival, and a task that has run for a quantum goes to the tail.

    The whole process tree of the task is suspended until its turn comes again. While nobody waits it just goes on.
    Only commands can be suspended; what cannot be runs to its end. A task that makes room before its quantum is over
    keeps its place. After Kleinrock, *Analysis of a time-shared processor* (Naval Research Logistics Quarterly, 1964).

    Args:
        quantum: seconds a task may run while others wait. Default 0.1.

    Raises:
        ConfigError: the quantum is no number of seconds from 0.001 to 1e9.
    """

    def __init__(self, quantum: float = 0.1) -> None:
        self.length: float = seconds("quantum", quantum)
        self._arrivals = Arrivals()

    def fresh(self, slots: int) -> TimeSlice:
        """One that has seen nobody yet."""
        return TimeSlice(self.length)

    def rank(self, task: QueuedTask, now: int) -> int:
        """The end of the line."""
        return self._arrivals.newcomer(now)

    def again(self, task: QueuedTask, now: int) -> int:
        """Where it was when its last quantum began: that is the tail of then for all but its first."""
        return task.rank if task.mark is None else int(task.mark)

    def quantum(self, task: QueuedTask) -> float | None:
        """The same for all."""
        return self.length

    def used_up(self, task: QueuedTask, now: float) -> None:
        """It goes to the tail. When nobody waits that is the head, too: its turn begins anew."""
        task.mark = self._arrivals.tail(now)

    def __repr__(self) -> str:
        return f"TimeSlice(quantum={self.length:g})"
