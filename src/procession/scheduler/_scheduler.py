"""The scheduler: the thin shell around the pure core. It carries out what the core decides and tells it what happened."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from procession._clock import monotonic
from procession._core.aio import finish
from procession._types import Completed, Priority
from procession.command import Command
from procession.errors import Closed, ConfigError, NotFound, QueueFull, SchedulerError, StateError
from procession.scheduler._config import Preemption, SchedulerConfig
from procession.scheduler._decide import Dispatcher
from procession.scheduler._explain import Explanation, explain
from procession.scheduler._job import Job, Work, in_order
from procession.scheduler._lives import Lives
from procession.scheduler._outlet import Outlet
from procession.scheduler._policies import Policy
from procession.scheduler._resources import Resources
from procession.scheduler._room import Room
from procession.scheduler._runner import Runners
from procession.scheduler._short_way import ShortWay
from procession.scheduler._spec import Spec
from procession.scheduler._states import FINAL
from procession.scheduler._statistics import SchedulerStatistics, statistics
from procession.scheduler._submission import MOST_URGENT, TaskOptions, check_options, check_priority, check_work
from procession.scheduler._task import Task

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.registry import ProcessRegistry

T = TypeVar("T")
log = logging.getLogger("procession.scheduler")
_COROUTINE = 0x80  # inspect.CO_COROUTINE
_NORMAL = int(Priority.NORMAL)  # a plain integer is quicker to look at


class Scheduler:
    """Runs tasks in the right order within given limits. Use it as an async context manager.

    ::

        async with Scheduler(SchedulerConfig(max_concurrent_tasks=4)) as scheduler:
            task = scheduler.submit(Command("gzip", "big.log"), priority=Priority.HIGH)
            completed = await task

    Leaving the block cancels what has not ended, and every handle gets its fate; to let everything end by itself,
    ``await scheduler.drain()`` first. All calls belong on the thread of the loop it was opened on.

    Args:
        config: limits and rules. Default: ``SchedulerConfig()``.
        registry: is told of tasks (``TaskSubmitted`` … ``TaskFinished``) and of the processes of commands.
        launcher: the engine that starts them. Default: the best the system has.
        name: the ``owner`` in events and records.
        seed: makes the jitter of retries repeatable.

    Raises:
        ConfigError: the configuration is none, or does not fit together.
    """

    def __init__(
        self,
        config: SchedulerConfig | None = None,
        *,
        registry: ProcessRegistry | None = None,
        launcher: Launcher | None = None,
        name: str = "scheduler",
        seed: int | None = None,
    ) -> None:
        if config is None:
            config = SchedulerConfig()
        elif not isinstance(config, SchedulerConfig):
            raise ConfigError("config", config, "a SchedulerConfig is needed")
        self.config = config
        self._resources = Resources(config.max_concurrent_tasks, config.resources, config.kept_when_suspended)
        self._plain = self._resources.plain
        dispatcher = Dispatcher(
            self._resources,
            config.queue_policy,
            backfill=config.backfill,
            max_overtakes=config.max_overtakes,
            max_preemptions=config.max_preemptions,
        )
        self._lives = Lives(dispatcher, random.Random(seed))  # noqa: S311 - jitter
        mode = config.preemption
        self._command_spec = Spec(preemption=mode)
        self._call_spec = Spec(preemption=Preemption.NEVER if mode is Preemption.SUSPEND else mode)
        self._checks_admission = not _is_default(config.queue_policy, "admit")
        self._max_queued = config.max_queued
        self._registry = registry
        self._launcher = launcher
        self._name = name
        self._number = 0
        self._named: dict[str, Task[Any]] = {}
        self._open = False
        self._closed = False
        self._short: ShortWay | None = None
        self._kicked = False
        self._failure: BaseException | None = None

    # ---------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Binds it to the running loop.

        Raises:
            StateError: it was opened before.

        Cancellation: never waits.
        """
        if self._open or self._closed:
            raise StateError("a Scheduler is opened once")
        self._loop = loop = asyncio.get_running_loop()
        # What the loop's own method calls, without the detour; others keep a clock of their own.
        self._now = monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._outlet = Outlet(self._lives, loop, self._registry, self._launcher, self._name)
        if self._call_spec.preemption is Preemption.NEVER and self._registry is None and self._lives.is_plain:
            self._short = ShortWay(self._lives, self._call_spec, loop)
        self._runners = Runners(loop, self._now, self._outlet.begin, self._ended, self._short)
        self._room = Room()
        self._drained: list[asyncio.Future[None]] = []
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
        if self._failure is not None and error is None:
            raise self._failure

    async def aclose(self) -> None:
        """Cancels all that has not ended, waits until it has, and lets go of everything. May be called twice.

        Work that ignores its cancellation is waited for ``close_timeout`` seconds and then left behind, which is
        logged; its handle says ``TaskCancelled`` then. To let all work end by itself, call :meth:`drain` first.

        Cancellation: absorbed until everything is over, then raised.
        """
        if not self._open:
            self._closed = True
            return
        await finish(self._close())

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._leave_short_way()
            self._room.close()
            self._cancel_all("the scheduler was closed")
        self._runners.dismiss()
        left = await self._runners.wait(self.config.close_timeout)
        if left:
            log.error("%d task(s) ignored their cancellation and were left behind", left)
            self._lives.abandon(self._now())
            self._carry_out()
        if self._timer is not None:
            self._timer.cancel()
        await self._outlet.settle()

    def _leave_short_way(self) -> None:
        """Something is not plain any more; the next decision looks whether it is again."""
        if self._short is not None:
            self._short.is_open = False

    def _cancel_all(self, reason: str) -> None:
        now = self._now()
        for task in list(self._lives):
            self._lives.cancel(task, reason, now)
        self._carry_out()

    # --------------------------------------------------------------------------------- submitting

    @overload
    def submit(
        self,
        work: Command,
        *,
        priority: int = ...,
        resources: Mapping[str, float] | None = ...,
        **options: Unpack[TaskOptions],
    ) -> Task[Completed]: ...

    @overload
    def submit(
        self,
        work: Callable[..., Awaitable[T]],
        *args: Any,
        priority: int = ...,
        resources: Mapping[str, float] | None = ...,
        **options: Unpack[TaskOptions],
    ) -> Task[T]: ...

    def submit(
        self,
        work: Any,
        *args: Any,
        priority: int = _NORMAL,
        resources: Mapping[str, float] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task[Any]:
        """Accepts work, or raises and has changed nothing. Does no I/O; the work begins in a later turn of the loop.

        Args:
            work: a ``Command``, a coroutine function, or anything ``Runnable``. It runs in the context
                (``contextvars``) of this call.
            args: positional arguments for ``work``; for keyword arguments there is ``kwargs``.
            priority: how urgent it is, a ``Priority`` or any other integer; the smaller goes first.
            resources: how much it takes of each resource while it runs, by name, beside one slot.
            options: see ``TaskOptions``: ``id``, ``estimated_duration``, ``timeout``, ``deadline``, ``delay``,
                ``not_before``, ``retry``, ``after``, ``preemptible``, ``preemption``, ``tenant``, ``kwargs``, and for
                commands ``input``, ``check``, ``max_output``, ``on_spawn``.

        Returns:
            The handle of the task.

        Raises:
            ConfigError: a value was refused.
            InsufficientResources: it could never start.
            QueueFull: as many tasks wait as may wait.
            DeadlineMissed: the policy has an admission test and it failed.
            Closed: the scheduler was closed.
            StateError: it was not opened yet.
        """
        lives = self._lives
        if lives.dispatcher.queue.count + len(lives.aside) >= self._max_queued and lives.waiting >= self._max_queued:
            self._check_open()
            raise QueueFull(self._max_queued)
        if (
            options
            or self._short is None
            or self._closed
            or type(work) is not FunctionType
            or not work.__code__.co_flags & _COROUTINE
        ):
            task = self._make(work, args, priority, resources, options, self._find)
            self._accept(task)
            return task
        # The way of nearly all, without detours.
        if type(priority) is not int or not -MOST_URGENT <= priority <= MOST_URGENT:
            priority = check_priority(priority)
        shape = self._resources.shape(resources) if resources else self._plain
        now = self._now()
        self._number = number = self._number + 1
        task = Task(self, number, priority, shape, self._call_spec, None, work, args, copy_context() or None, now)
        self._short.accept(task, now)
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._dispatch)
        return task

    def submit_many(
        self,
        works: Iterable[Job | Work | tuple[Any, ...]],
        *,
        priority: int = _NORMAL,
        resources: Mapping[str, float] | None = None,
        **options: Unpack[TaskOptions],
    ) -> list[Task[Any]]:
        """Accepts all of ``works`` or none.

        Args:
            works: each a work, a tuple of a work and its arguments, or a ``Job``, which carries options of its own.
                A ``Job`` may come after others of the same call, by their ids, wherever they stand.
            priority: for those that do not say.
            resources: for those that do not say.
            options: for those that do not say.

        Returns:
            The handles, in the order given.

        Raises:
            ConfigError: a value was refused, or jobs come after one another in a circle.
            InsufficientResources: one of them could never start.
            QueueFull: there is no room for all of them.
            Closed: the scheduler was closed.
            StateError: it was not opened yet.
        """
        self._check_open()
        jobs = [Job.of(work, priority, resources, options) for work in works]
        room = self._max_queued - self._lives.waiting
        if len(jobs) > room:
            raise QueueFull(self._max_queued, len(jobs))
        batch: dict[str, Task[Any]] = {}

        def find(wanted: object) -> Task[Any]:
            return batch[wanted] if isinstance(wanted, str) and wanted in batch else self._find(wanted)

        made: dict[int, Task[Any]] = {}
        for index in in_order(jobs):  # what others come after is made first
            job = jobs[index]
            task = self._make(job.work, job.args, job.priority, job.resources, job.options, find)
            if task.spec.id in batch:
                raise ConfigError("id", task.spec.id, "two jobs of one call have this id")
            if task.spec.id:
                batch[task.spec.id] = task
            made[index] = task
        for number, index in enumerate(sorted(made)):  # numbered as they were given, which decides ties
            made[index].number = self._number - len(made) + 1 + number
        for index in sorted(made):
            self._accept(made[index])
        return [made[index] for index in range(len(jobs))]

    async def submit_when_room(
        self,
        work: Any,
        *args: Any,
        priority: int = _NORMAL,
        resources: Mapping[str, float] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Task[Any]:
        """Waits, first come first served, until there is room in the queue, and submits.

        Args:
            work: as for :meth:`submit`.
            args: as for :meth:`submit`.
            priority: as for :meth:`submit`.
            resources: as for :meth:`submit`.
            options: as for :meth:`submit`.

        Raises:
            ConfigError: a value was refused.
            InsufficientResources: it could never start.
            Closed: the scheduler was closed, maybe while this waited.

        Cancellation: safe; nothing was submitted, and the room goes to the next who waits.
        """
        self._make(work, args, priority, resources, options, self._find)  # bad input is told at once
        while self._room.has_line or self._lives.waiting >= self._max_queued:
            self._check_open()
            self._leave_short_way()
            await self._room.wait(self._loop)
            if self._lives.waiting < self._max_queued:
                break
        try:
            return self.submit(work, *args, priority=priority, resources=resources, **options)
        finally:
            self._make_known()

    def _make(
        self,
        work: Any,
        args: tuple[Any, ...],
        priority: Any,
        resources: Mapping[str, float] | None,
        options: Mapping[str, Any],
        find: Callable[[object], Task[Any]],
    ) -> Task[Any]:
        """A task that is checked but not accepted."""
        if not self._open or self._closed:
            self._check_open()
        code = getattr(work, "__code__", None)
        if code is None or not code.co_flags & _COROUTINE:
            check_work(work, args)
        now = self._now()
        if options:
            spec, estimate = check_options(options, work, now, self.config.preemption, find)
            if spec.id:
                self._check_id(spec.id)
        elif type(work) is Command:
            spec, estimate = self._command_spec, None
            if work.timeout is not None:
                spec, estimate = check_options(options, work, now, self.config.preemption, find)
        else:
            spec, estimate = self._call_spec, None
        self._number = number = self._number + 1
        return Task(
            self,
            number,
            check_priority(priority),
            self._resources.shape(resources) if resources else self._plain,
            spec,
            estimate,
            work,
            args,
            copy_context() or None,  # an empty one is made when it is needed
            now,
        )

    def _accept(self, task: Task[Any]) -> None:
        if self._checks_admission:
            self.config.queue_policy.admit(task, task.submitted_at)
        lives = self._lives
        self._leave_short_way()
        lives.accept(task, task.submitted_at)
        if task.spec.id:
            self._named[task.spec.id] = task
        if self._registry is not None:
            self._outlet.submitted(task)
        if lives.next_due < self._timer_at:
            self._arm()
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._dispatch)

    def _find(self, wanted: object) -> Task[Any]:
        task = self._named.get(wanted) if isinstance(wanted, str) else wanted
        if not isinstance(task, Task):
            raise ConfigError("after", wanted, "an unfinished task of this scheduler, or its id, is needed")
        if task._home is not self:
            raise ConfigError("after", task, "it is a task of another scheduler")
        if task.state in FINAL:
            raise ConfigError("after", task, f"it is {task.state} already; there is nothing to come after")
        return task

    def _check_id(self, id: str) -> None:
        if id in self._named:
            raise ConfigError("id", id, "an unfinished task has this id")

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("scheduler")
        if not self._open:
            raise StateError("the scheduler is not open: use `async with Scheduler(...) as scheduler`")

    # ------------------------------------------------------------------------------ carrying out

    def _dispatch(self) -> None:
        """Starts what can start."""
        self._kicked = False
        try:
            while (task := self._next(self._now())) is not None:
                self._runners.give(task)
        except Exception as error:  # noqa: BLE001 - a policy of the user's own
            self._fail(error)
        self._make_known()

    def _next(self, now: float) -> Task[Any] | None:
        """The next task a runner is to begin."""
        lives, outlet = self._lives, self._outlet
        while True:
            task: Any = lives.next(now)
            if lives.effects:
                self._carry_out()
                now = self._now()
            if self._short is not None and not self._room.has_line:
                self._short.look()
            if task is None:
                return None
            if task._runner is None:
                if self._registry is not None:
                    outlet.started(task)
                return task  # type: ignore[no-any-return]
            outlet.thaw(task)

    def _ended(self, task: Task[Any], value: Any, error: BaseException | None, goes_on: bool) -> Task[Any] | None:
        """A runner is done with ``task``; returns the next one for it."""
        following: Task[Any] | None = None
        now = self._now()
        try:
            self._outlet.ended(task, value, error, now)
            self._carry_out()
            if goes_on:
                following = self._next(now)
            elif not self._kicked:
                self._kicked = True
                self._loop.call_soon(self._dispatch)
        except Exception as raised:  # noqa: BLE001 - a policy of the user's own
            self._fail(raised)
        self._make_known()
        return following

    def _carry_out(self) -> None:
        """Does what the core has asked for."""
        effects = self._lives.effects
        while effects:
            todo, self._lives.effects = effects, []
            for effect in todo:
                task = self._outlet.carry_out(effect)
                if task is not None and task.spec.id:
                    self._named.pop(task.spec.id, None)
            effects = self._lives.effects

    def _make_known(self) -> None:
        """After anything has changed: who waits for room or for the end is told, and the timer is set."""
        lives = self._lives
        if self._room.has_line and lives.waiting < self._max_queued:
            self._room.let_in(self._max_queued - lives.waiting)
        if self._drained and not lives.unfinished:
            waiters, self._drained = self._drained, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        if lives.next_due != self._timer_at:
            self._arm()

    def _arm(self) -> None:
        """One timer for the earliest thing due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = at = self._lives.next_due
        if at < math.inf and not (self._closed and not self._lives.unfinished):
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._dispatch()

    def _fail(self, error: BaseException) -> None:
        """The policy has raised, so nobody can say who is next any more: everything ends, and everybody is told."""
        if self._failure is None:
            self._failure = SchedulerError(f"{self.config.queue_policy!r} raised {error!r}")
            self._failure.__cause__ = error
            log.error("the scheduler stops: its policy raised", exc_info=error)
        self._closed = True
        self._leave_short_way()
        self._lives.dispatcher.forsake()
        self._room.close()
        self._cancel_all(f"the policy raised {error!r}")

    # ------------------------------------------------------------------------------ asking and waiting

    def _cancel(self, task: Task[Any], reason: str) -> bool:
        self._leave_short_way()
        try:
            cancelled = self._lives.cancel(task, reason, self._now())
        except Exception as error:  # noqa: BLE001 - a policy of the user's own
            self._fail(error)
            return True
        if cancelled:
            self._carry_out()
            self._make_known()
        return cancelled

    def _explain(self, task: Task[Any]) -> Explanation:
        return explain(self._lives, task, self._now())

    async def drain(self) -> None:
        """Waits until no task is left: none waits, is delayed, runs or is suspended. New ones may be submitted.

        Cancellation: safe; only the waiting ends.
        """
        self._check_open()
        while self._lives.unfinished:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def get(self, id: str) -> Task[Any]:
        """The unfinished task with this id.

        Raises:
            NotFound: there is none.
        """
        task = self._named.get(id) or next((one for one in self._lives if one.id == id), None)
        if not isinstance(task, Task):
            raise NotFound(id)
        return task

    def statistics(self) -> SchedulerStatistics:
        """Figures of this moment."""
        return statistics(self._lives, self._now() if self._open else 0.0)

    def __len__(self) -> int:
        """How many tasks have no fate yet."""
        return self._lives.unfinished

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        how = "closed" if self._closed else "open" if self._open else "not open"
        lives = self._lives
        return f"<Scheduler {how}: {lives.waiting} wait, {len(lives.dispatcher.running)} run>"


def _is_default(policy: object, method: str) -> bool:
    return getattr(type(policy), method) is getattr(Policy, method)
