"""What all policies have in common: they change nothing unless they say so."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from procession.abc import QueuedTask

NANO = 1_000_000_000
BEYOND = 1 << 64
"""More than any rank: offsets in steps of this put groups strictly one after the other."""


class Policy:
    """A queue policy that keeps the order of arrival; the base of the others and of a user's own.

    The order is that of ``rank(task) + offset(group(task))``, ties in order of submission. Both are integers, so that
    they are exact; a rank is fixed while a task waits, an offset belongs to all tasks of a group and may change when
    a hook says so. A policy is pure: it is told the time and neither reads a clock nor waits. It belongs to one
    scheduler.

    Attributes:
        by_priority: whether the group of a task is a function of its priority alone, and so need not be asked for.
        urgent_first: whether a more urgent task may make less urgent ones give way though others are before it in the
            queue; otherwise only the one that is next may.
    """

    by_priority: ClassVar[bool] = False
    urgent_first: ClassVar[bool] = False

    def fresh(self, slots: int) -> Policy:
        """The policy a scheduler of that many slots is to use: this one, or, if it has a memory, one of its kind.

        So a configuration can be given to several schedulers.
        """
        return self

    def group(self, task: QueuedTask) -> Hashable:
        """Names the tasks that are ordered among themselves by rank alone. Few groups make a fast queue."""
        return 0

    def rank(self, task: QueuedTask, now: int) -> int:
        """Its place within its group; ``now`` is loop time in nanoseconds. Default: the time of its arrival."""
        return now

    def again(self, task: QueuedTask, now: int) -> int:
        """Its place when it comes back after a suspension, a preemption or a failure. Default: the one it had."""
        return task.rank

    def offset(self, group: Hashable) -> int:
        """What is added to the ranks of a group to compare them with those of other groups."""
        return 0

    def admit(self, task: QueuedTask, now: float) -> None:
        """Called last before a task is accepted; may refuse it. What it accepts is heard of again in :meth:`settled`.

        Raises:
            SchedulerError: it is refused; nothing has happened.
        """

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A task begins to wait for its turn. Returns the groups whose offsets have changed."""
        return ()

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A task begins or goes on to run. Returns the groups whose offsets have changed."""
        return ()

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        """A task stops running, for whatever reason, after ``ran`` seconds. Returns the groups that changed."""
        return ()

    def left(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A task that waited is gone without having run. Returns the groups whose offsets have changed."""
        return ()

    def settled(self, task: QueuedTask, now: float) -> None:
        """An accepted task has its fate. Called once for each, also for one that never began to wait."""

    def quantum(self, task: QueuedTask) -> float | None:
        """Seconds it may run before it makes room for others that wait; ``None``: until it ends."""
        return None

    def used_up(self, task: QueuedTask, now: float) -> None:
        """Its quantum is over, whether or not somebody waits for its place."""

    def next_tick(self) -> float | None:
        """Loop time at which :meth:`tick` wants to be called, or ``None``."""
        return None

    def tick(self, now: float) -> Iterable[Hashable]:
        """Called at :meth:`next_tick`. Returns the groups whose offsets have changed."""
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
