"""The handle of one task: what its submitter can ask of it and do to it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator, Hashable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from procession.errors import ConfigError, StateError
from procession.scheduler._entry import Entry
from procession.scheduler._states import CANCELLED, FINAL, NEW, SUSPENDED, TaskState

if TYPE_CHECKING:
    from procession.process import Process
    from procession.scheduler._explain import Explanation
    from procession.scheduler._queue import Lane
    from procession.scheduler._resources import Shape
    from procession.scheduler._runner import Runner
    from procession.scheduler._scheduler import Scheduler
    from procession.scheduler._spec import Spec

T = TypeVar("T")


class Task(Entry, Generic[T]):
    """Work that a scheduler has accepted; made by ``Scheduler.submit``, never directly.

    ``await task`` gives what the work returned, a ``Completed`` for a command, or raises why there is nothing: the
    work's own exception, ``ExecutionTimeout``, ``SpawnError``, ``TaskCancelled``, ``DeadlineMissed`` or
    ``DependencyFailed``. Any number of callers may await it; one that is cancelled meanwhile does not cancel the task.

    Attributes:
        number: 1, 2, 3 … in the order of submission.
        priority: how urgent it is; the smaller number goes first.
        state: where it stands, a ``TaskState``.
        attempts: how often it was started from the beginning; making room for others does not count.
        preemptions: how often it had to make room.
        estimate: how long it was said to take, in seconds.
        submitted_at: loop time of its submission.
        queued_at: loop time when it began to wait for its turn; below 0 before.
        started_at: loop time when it was started or continued last; 0 before.
        finished_at: loop time of its end, or ``None``.
    """

    __slots__ = (
        "_args",
        "_context",
        "_error",
        "_home",
        "_process",
        "_runner",
        "_trace",
        "_value",
        "_waiters",
        "_work",
        "finished_at",
        "submitted_at",
    )

    def __init__(
        self,
        home: Scheduler,
        number: int,
        priority: int,
        shape: Shape,
        spec: Spec,
        estimate: float | None,
        work: Any,
        args: tuple[Any, ...],
        context: Context | None,
        now: float,
    ) -> None:
        # The same as Entry.__init__, written out: this is the hot path of submitting.
        self.number = number
        self.priority = priority
        self.whole = shape
        self.shape = shape
        self.holds = 0
        self.spec = spec
        self.estimate = estimate
        self.rank = 0
        self.slot: Hashable = priority
        self.lane: Lane | None = None
        self.mark: Any = None
        self.state = NEW
        self.queued_at: float = -1.0
        self.started_at: float = 0.0
        self.ran: float = 0.0
        self.attempts = 0
        self.preemptions = 0
        self._home = home
        self._work = work
        self._args = args
        self._context = context
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: list[asyncio.Future[None] | Callable[[Any], object]] | None = None
        self._runner: Runner | None = None
        self._process: Process | None = None
        self.submitted_at: float = now
        self.finished_at: float | None = None

    # ----------------------------------------------------------------------------------- its fate

    def done(self) -> bool:
        """Whether its fate is known."""
        return self.state in FINAL

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.state is CANCELLED

    def result(self) -> T:
        """What its work returned.

        Raises:
            StateError: it is not done.
            Exception: why there is no result, as by ``await``.
        """
        error = self.exception()
        if error is not None:
            raise error.with_traceback(self._trace)  # the same for everybody: it does not grow with each who asks
        value: T = self._value
        return value

    def exception(self) -> BaseException | None:
        """What ``await`` raises, or ``None``.

        Raises:
            StateError: it is not done.
        """
        if self.state not in FINAL:
            raise StateError(f"{self.id} is not done: it is {self.state}")
        if self._value is not None and not self.spec.check:
            return None  # a command that failed: its result says so, as for run()
        return self._error

    def __await__(self) -> Generator[Any, None, T]:
        if self.state not in FINAL:
            yield from self._until_done()
        return self.result()

    def _until_done(self) -> Generator[Any, None, None]:
        loop, runner = asyncio.get_running_loop(), self._runner
        if loop is not self._home._loop:
            raise StateError(f"{self.id} belongs to another loop, and only there it can be waited for")
        if runner is not None and runner.task is asyncio.current_task():
            raise StateError(f"{self.id} would wait for itself")
        waiter: asyncio.Future[None] = loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        try:
            yield from waiter
        finally:
            if not waiter.done() or waiter.cancelled():
                self._forget(waiter)

    def _forget(self, waiter: Any) -> None:
        if self._waiters is not None and waiter in self._waiters:
            self._waiters.remove(waiter)

    async def wait(self) -> TaskState:
        """Waits for its fate without raising it, and returns the final state.

        Cancellation: safe; only the waiting ends.
        """
        while self.state not in FINAL:
            await _Waiting(self)
        return self.state

    def add_done_callback(self, callback: Callable[[Task[T]], object]) -> None:
        """Calls ``callback`` with the task soon after its end, or soon if it has ended; in the loop, never at once.

        What it raises goes to the loop's exception handler.

        Raises:
            ConfigError: it is no plain function.
        """
        if not callable(callback) or inspect.iscoroutinefunction(callback):
            hint = "a plain function of the task is needed; in a coroutine function, `await task` instead"
            raise ConfigError("callback", callback, hint)
        if self.state in FINAL:
            asyncio.get_running_loop().call_soon(callback, self)
        elif self._waiters is None:
            self._waiters = [callback]
        else:
            self._waiters.append(callback)

    def remove_done_callback(self, callback: Callable[[Task[T]], object]) -> int:
        """Takes a callback back; returns how often it had been added."""
        waiters = self._waiters or []
        self._waiters = [one for one in waiters if one != callback] or None
        return len(waiters) - len(self._waiters or ())

    def _settle(self, value: Any, error: BaseException | None, now: float, loop: asyncio.AbstractEventLoop) -> None:
        """Its fate, told once."""
        self._value = value
        self._error = error
        self._trace = None if error is None else error.__traceback__
        self.finished_at = now
        self._work = self._context = self._runner = self._process = None
        self._args = ()
        self._lighten()
        if self._waiters is not None:
            self._tell(loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wakes who waits for it."""
        waiters, self._waiters = self._waiters, None
        if waiters:
            for waiter in waiters:
                if not isinstance(waiter, asyncio.Future):
                    loop.call_soon(waiter, self)
                elif not waiter.done():
                    waiter.set_result(None)

    # ------------------------------------------------------------------------------- acting on it

    def cancel(self, reason: str = "") -> bool:
        """Asks for its end. One that waits is over at once; a running command is stopped with its whole tree.

        A coroutine gets a ``CancelledError``, and a suspended process is continued so that it can end gracefully.

        Returns:
            ``False`` when it was done already.
        """
        return self._home._cancel(self, reason)

    def explain(self) -> Explanation:
        """Why it waits, in data and as a sentence. Costs what the queue holds."""
        return self._home._explain(self)

    # ---------------------------------------------------------------------------------- about it

    @property
    def process(self) -> Process | None:
        """The live process of a running or suspended command."""
        return self._process

    @property
    def waited(self) -> float:
        """Seconds it waited for its turn until its last start, or until now, those it stood still included."""
        if self.queued_at < 0:
            return 0.0
        end = self._home._now() if self.finished_at is None else self.finished_at
        if self.attempts and self.state is not SUSPENDED:
            earlier = self.run_time - (end - self.started_at)  # what it ran before it was suspended
            return max(0.0, self.started_at - self.queued_at - max(0.0, earlier))
        return max(0.0, end - self.queued_at - self.ran)

    @property
    def run_time(self) -> float:
        """Seconds the present or last attempt has run, suspensions left out."""
        if self._runner is not None and self.state is not SUSPENDED:
            return self.ran + self._home._now() - self.started_at
        return self.ran


class _Waiting:
    """Waits for the end of a task, whatever that is."""

    __slots__ = ("_task",)

    def __init__(self, task: Task[Any]) -> None:
        self._task = task

    def __await__(self) -> Generator[Any, None, None]:
        yield from self._task._until_done()
