"""Runners: asyncio tasks that take one piece of work after the other.

An asyncio task per piece of work costs more than most of the rest together, so a runner is used again. Each piece of
work runs in the context (``contextvars``) of its submitter all the same: in a runner's own as long as both are empty, which
costs nothing. A runner that was cancelled, or in whose context something was left, is not used again, so that a cancellation
or a variable meant for one piece of work can never reach the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context
from types import CoroutineType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procession.scheduler._short_way import ShortWay
    from procession.scheduler._task import Task

_SLICE = 0.001
"""Seconds a runner goes on with work that never waits, before it lets the loop have its turn."""

Begin = Callable[["Task[Any]"], Any]
Ended = Callable[["Task[Any]", Any, BaseException | None, bool], "Task[Any] | None"]


class Runner:
    """One of them.

    Attributes:
        task: the asyncio task it lives in.
        current: the work it does.
    """

    __slots__ = ("current", "task", "wake")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.current: Task[Any] | None = None
        self.wake: asyncio.Future[Task[Any] | None] | None = None

    @property
    def is_cancelled(self) -> bool:
        """Whether the work it does was asked to end, by whomever."""
        return self.task is not None and self.task.cancelling() > 0

    def cancel(self) -> None:
        """Cancels the work it does."""
        if self.task is not None:
            self.task.cancel()


class Runners:
    """All runners of one scheduler.

    Args:
        loop: where they live.
        now: tells the loop's time.
        begin: begins a task's work: makes the coroutine, or whatever else is to be awaited.
        ended: told how the work ended and whether its runner goes on; returns the next task for it.
        short: does the same where it is quick.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float],
        begin: Begin,
        ended: Ended,
        short: ShortWay | None,
    ) -> None:
        self._loop = loop
        self._now = now
        self._short = short
        self._begin = begin
        self._ended = ended
        self._all: set[asyncio.Task[None]] = set()
        self._idle: list[Runner] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._all)

    def owns(self, task: asyncio.Task[Any] | None) -> bool:
        """Whether ``task`` is one of the runners."""
        return task in self._all

    def give(self, task: Task[Any]) -> None:
        """Lets a runner that has nothing to do, or a new one, take ``task``."""
        while self._idle:
            runner = self._idle.pop()
            if runner.wake is not None and not runner.wake.done():
                task._runner = runner
                runner.current = task
                runner.wake.set_result(task)
                return
        runner = Runner()
        task._runner = runner
        runner.current = task
        context = Context()
        runner.task = self._loop.create_task(self._serve(runner, task, context), context=context)
        self._all.add(runner.task)
        runner.task.add_done_callback(lambda ended: self._gone(runner, ended))

    def _gone(self, runner: Runner, ended: asyncio.Task[None]) -> None:
        """A runner has ended. When it was cancelled before it could begin what it was given, that is told here."""
        self._all.discard(ended)
        task, runner.current = runner.current, None
        if task is not None:
            task._runner = None
            self._ended(task, None, asyncio.CancelledError(), False)

    def dismiss(self) -> None:
        """Lets those go that have nothing to do, and the others as soon as they have not."""
        self._closed = True
        while self._idle:
            runner = self._idle.pop()
            if runner.wake is not None and not runner.wake.done():
                runner.wake.set_result(None)

    async def wait(self, timeout: float, but: asyncio.Task[Any] | None) -> int:
        """Waits until all have gone but the one that asks, or ``timeout`` seconds; returns how many have not.

        Cancellation: safe; only the waiting ends.
        """
        rest = self._all - {but}
        if rest:
            _, rest = await asyncio.wait(rest, timeout=timeout)
        return len(rest)

    async def _serve(self, runner: Runner, task: Task[Any] | None, own: Context) -> None:
        loop, begin, ended, short, clock = self._loop, self._begin, self._ended, self._short, self._now
        plain = None if short is None else short.plain
        me = runner.task = asyncio.current_task()  # with eager tasks before create_task() has returned
        assert me is not None
        cancelling = me.cancelling
        since = clock()
        while task is not None:
            value: Any = None
            error: BaseException | None = None
            try:
                context = task._context
                if context is None and task.spec is plain:
                    value = await task._work(*task._args)
                elif context is None:
                    value = await begin(task)
                else:
                    value = await _Driven(begin, task, context)
            except BaseException as raised:
                if isinstance(raised, GeneratorExit) and asyncio._get_running_loop() is not loop:
                    raise  # thrown away together with its loop: there is nobody to tell
                error = raised
            now = clock()
            if error is None and short is not None and short.is_open and not own and not cancelling():
                following = short.turn(task, value, now)
                if following is not None:
                    task = runner.current = following
                    following._runner = runner
                    if now - since > _SLICE:
                        await asyncio.sleep(0)
                        since = clock()
                    continue
            runner.current = task._runner = None
            fatal = isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))
            goes_on = not (own or cancelling() or fatal or self._closed)
            task = ended(task, value, error, goes_on)
            if error is not None and fatal:
                raise error
            error = value = None  # nothing keeps what the work had made
            if not goes_on:
                return
            if task is None:
                runner.wake = loop.create_future()
                self._idle.append(runner)
                task = await runner.wake
                since = clock()
            else:
                task._runner = runner
                runner.current = task
                if now - since > _SLICE:
                    await asyncio.sleep(0)
                    since = clock()


class _Driven:
    """Does a piece of work in its own context, each step of it."""

    __slots__ = ("_begin", "_context", "_task")

    def __init__(self, begin: Begin, task: Task[Any], context: Context) -> None:
        self._begin = begin
        self._task = task
        self._context = context

    def __await__(self) -> Generator[Any, Any, Any]:
        run = self._context.run
        work = run(self._begin, self._task)
        if type(work) is not CoroutineType:
            work = _awaited(work)
        try:
            waited_for = run(work.send, None)
            while True:
                try:
                    sent = yield waited_for
                except GeneratorExit:
                    run(work.close)
                    raise
                except BaseException as error:  # noqa: BLE001 - passed on to the work
                    waited_for = run(work.throw, error)
                else:
                    waited_for = run(work.send, sent)
        except StopIteration as stop:
            return stop.value


async def _awaited(begun: Any) -> Any:
    return await begun
