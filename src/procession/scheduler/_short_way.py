"""The hot path, written out: tasks without anything special about them, one after the other.

Most tasks of a busy scheduler are coroutines without options, under a policy that only wants to know their priority.
For them this does what ``Lives`` and ``Dispatcher`` do, in one function instead of twenty: a task has succeeded, the
next one of the same shape takes its place. Whatever is not of this kind takes the long way; a property test holds both
ways to the same result. It is the one place where the core's records are touched from outside of it.
"""

from __future__ import annotations

from heapq import heapreplace
from typing import TYPE_CHECKING, Any

from procession.scheduler._entry import NANO
from procession.scheduler._states import QUEUED, RUNNING, SUCCEEDED

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from procession.scheduler._lives import Lives
    from procession.scheduler._spec import Spec
    from procession.scheduler._task import Task


class ShortWay:
    """For one scheduler.

    Args:
        lives: the core.
        plain: the options of a task without options.
        loop: where callbacks of finished tasks are called.

    Attributes:
        plain: the options of a task without options.
        is_open: whether nothing but plain tasks has to be looked after at this time; whoever changes that closes it,
            and ``look`` finds out when it is so again.
    """

    def __init__(self, lives: Lives, plain: Spec, loop: AbstractEventLoop) -> None:
        self._lives = lives
        self._dispatcher = lives.dispatcher
        self._queue = lives.dispatcher.queue
        self._heap = lives.dispatcher.queue.heap
        self._resources = lives.dispatcher.resources
        self._running: dict[Any, None] = lives.dispatcher.running
        self._tally = lives.tally
        self._waited = lives.waited
        self._ran = lives.ran
        self._add_waited = lives.waited.add_recent
        self._add_ran = lives.ran.add_recent
        self.is_open = False
        self.plain = plain
        self._loop = loop

    def accept(self, task: Task[Any], now: float) -> None:
        """The same as ``Lives.accept``, for a new task without options."""
        task.state = QUEUED
        task.queued_at = now
        task.rank = int(now * NANO)
        self._queue.push(task)
        self._tally.submitted += 1

    def look(self) -> None:
        """Finds out whether the short way is open."""
        lives = self._lives
        self.is_open = not (self._dispatcher.is_busy or self._queue.is_indexed or lives.has_dependents)

    def turn(self, task: Task[Any], value: Any, now: float) -> Task[Any] | None:
        """The same as ``Lives.ended`` and ``Lives.next``, for a task that has succeeded.

        Returns:
            The next task, which has begun; ``None`` when this is no case for the short way, and nothing was done.
        """
        heap = self._heap
        plain = self.plain
        if not self.is_open or not heap or task.spec is not plain or task.state is not RUNNING:
            return None
        key = heap[0]
        lane = key[2]
        following: Any = lane.head
        if (
            lane.key is not key
            or lane.shape is not task.shape  # its place fits without looking
            or lane.early
            or following.spec is not plain
            or following.estimate is not None
            or task.estimate is not None
            or now >= self._lives.next_due
        ):
            return None
        fifo = lane.fifo
        if len(fifo) == 1 or (head := fifo[1]).lane is not lane:
            self._queue.pop(lane)
        else:
            fifo.popleft()
            following.lane = None
            lane.head = head
            lane.key = key = (head.rank + lane.offset, head.number, lane)
            heapreplace(heap, key)
            self._queue.count -= 1
        # One is over ...
        running = self._running
        del running[task]
        task.ran = ran = now - task.started_at
        task.state = SUCCEEDED
        task._value = value
        task.finished_at = now
        task._work = task._context = task._runner = None
        task._args = ()
        if task._waiters is not None:
            task._tell(self._loop)
        self._ran.count += 1
        self._add_ran(ran)
        self._tally.succeeded += 1
        # ... and the other has its place.
        following.holds = task.holds
        task.holds = 0
        following.started_at = now
        following.state = RUNNING
        following.attempts = 1
        running[following] = None
        self._waited.count += 1
        self._add_waited(now - following.queued_at)
        return following  # type: ignore[no-any-return]
