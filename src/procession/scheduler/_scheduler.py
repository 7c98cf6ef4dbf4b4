"""The scheduler: the thin shell around the pure core. It carries out what the core decides and tells it what happened."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import copy_context
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack, overload

from procession._clock import wall as wall_time
from procession._core.aio import finish
from procession._types import Completed, Priority
from procession.command import Command
from procession.errors import ConfigError, DeadlineMissed, DependencyFailed, NotFound, QueueFull, StateError
from procession.scheduler._config import SchedulerConfig
from procession.scheduler._engine import Engine
from procession.scheduler._explain import Explanation, explain
from procession.scheduler._job import Job, Work, in_order, lasting
from procession.scheduler._recurring import Timetable
from procession.scheduler._recurs import Recurs
from procession.scheduler._states import FINAL, SUCCEEDED
from procession.scheduler._statistics import SchedulerStatistics, statistics
from procession.scheduler._submission import (
    AUTOMATIC,
    MOST_URGENT,
    TaskOptions,
    check_options,
    check_priority,
    check_work,
)
from procession.scheduler._task import Task

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.registry import ProcessRegistry

T = TypeVar("T")
log = logging.getLogger("procession.scheduler")
_COROUTINE = 0x80  # inspect.CO_COROUTINE
_NORMAL = int(Priority.NORMAL)  # a plain integer is quicker to look at


class Scheduler(Recurs, Engine):
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
        seed: makes jitter repeatable, that of retries and of recurring tasks.
        wall: tells seconds since the epoch to ``cron``, for tests. Default: the system's clock.

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
        wall: Callable[[], float] = wall_time,
    ) -> None:
        self._timetable = Timetable(self, random.Random(seed), wall)  # noqa: S311 - jitter
        super().__init__(
            SchedulerConfig() if config is None else config,
            registry=registry,
            launcher=launcher,
            name=name,
            seed=seed,
        )

    # ---------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Binds it to the running loop.

        Raises:
            StateError: it was opened before.

        Cancellation: never waits.
        """
        if self._open or self._closed:
            raise StateError("a Scheduler is opened once")
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
        if self._failure is not None and error is None:
            raise self._failure

    async def aclose(self) -> None:
        """Cancels all that has not ended, waits until it has, and lets go of everything. May be called twice.

        What was asked to end before, by ``task.cancel()`` or its ``timeout``, is not interrupted once more in its clean-up.
        Work that ignores its cancellation is waited for ``close_timeout`` seconds and then left behind, which is
        logged; its handle says ``TaskCancelled`` then. To let all work end by itself, call :meth:`drain` first.

        Cancellation: absorbed until everything is over, then raised.
        """
        if not self._open:
            self._closed = True
            return
        await finish(self._close(asyncio.current_task()))

    async def close(self) -> None:
        """The same as :meth:`aclose`.

        Cancellation: absorbed until everything is over, then raised.
        """
        await self.aclose()

    @property
    def is_closed(self) -> bool:
        """Whether it accepts nothing any more: it was closed, its loop is stopping, or its policy has raised."""
        return self._closed

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
            try:
                self._accept(task)
            except BaseException:
                self._number -= 1
                raise
            return task
        # The way of nearly all, without detours.
        if type(priority) is not int or not -MOST_URGENT <= priority <= MOST_URGENT:
            priority = check_priority(priority)
        shape = self._plain if resources is None else self._resources.shape(resources)
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
            DeadlineMissed: the policy has an admission test and one of them failed it.
            Closed: the scheduler was closed.
            StateError: it was not opened yet.
        """
        self._check_open()
        if not isinstance(works, Iterable):
            raise ConfigError(
                "works", works, "a list of works is needed, each maybe a tuple with its arguments, or a Job"
            )
        shared = lasting(options)
        jobs = [Job.of(work, priority, resources, shared) for work in works]
        room = self._max_queued - self._lives.waiting
        if len(jobs) > room:
            raise QueueFull(self._max_queued, len(jobs))
        before = self._number
        try:
            return self._accept_many(jobs)
        except BaseException:
            self._number = before  # what was refused leaves no trace
            raise

    def _accept_many(self, jobs: list[Job]) -> list[Task[Any]]:
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
        self._accept(*(made[index] for index in sorted(made)))
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
            DeadlineMissed: its deadline passed while this waited, or as for :meth:`submit`.
            DependencyFailed: while this waited, one that it was to come after did not succeed.
            Closed: the scheduler was closed, maybe while this waited.

        Cancellation: safe; nothing was submitted, and the room goes to the next who waits.
        """
        options = lasting(options)  # type: ignore[assignment]
        trial = self._make(work, args, priority, resources, options, self._find)  # bad input is told at once
        self._number -= 1  # and leaves no trace
        ticket = 0
        while (not ticket and self._room.has_line) or self._lives.waiting >= self._max_queued:
            self._check_open()
            self._leave_short_way()
            ticket = ticket or self._room.ticket()
            await self._room.wait(self._loop, ticket)
        try:
            if ticket and options:
                options = self._after_waiting(trial, options)  # type: ignore[assignment]
            return self.submit(work, *args, priority=priority, resources=resources, **options)
        finally:
            self._make_known()

    def _after_waiting(self, task: Task[Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
        """The options of a task that was made when its call began, as they are by now.

        Raises:
            DeadlineMissed: it has come too late.
            DependencyFailed: one that it was to come after has not succeeded.
        """
        spec, now = task.spec, self._now()
        if spec.deadline is not None and spec.deadline <= now:
            raise DeadlineMissed(task.id, spec.deadline, now - spec.deadline)
        for before in spec.after:
            if before.state in FINAL and before.state is not SUCCEEDED:
                assert isinstance(before, Task)
                raise DependencyFailed(task.id, before.id, before._error) from before._error
        later = {**options, "deadline": spec.deadline, "not_before": spec.not_before}
        later.pop("delay", None)
        later["after"] = [before for before in spec.after if before.state not in FINAL]
        return later

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
        urgency = check_priority(priority)
        shape = self._plain if resources is None else self._resources.shape(resources)
        self._number = number = self._number + 1
        return Task(
            self,
            number,
            urgency,
            shape,
            spec,
            estimate,
            work,
            args,
            copy_context() or None,  # an empty one is made when it is needed
            now,
        )

    def _accept(self, *tasks: Task[Any]) -> None:
        """Lets the core have all of them, or raises why the policy refuses one and has changed nothing."""
        self._leave_short_way()
        taken: list[Task[Any]] = []
        try:
            for task in tasks:
                if self._checks_admission:
                    self._policy.admit(task, task.submitted_at)
                taken.append(task)
                self._lives.accept(task, task.submitted_at)
            if self._policy.error is not None:
                raise self._policy.error
        except BaseException as error:
            for task in reversed(taken):
                self._lives.retract(task, task.submitted_at)
            if error is self._policy.error:
                self._check_policy()
                assert self._failure is not None
                raise self._failure from error
            raise
        for task in tasks:
            if task.spec.id:
                self._named[task.spec.id] = task
        if self._registry is not None:
            for task in tasks:
                self._outlet.submitted(task)
        if self._lives.next_due < self._timer_at:
            self._arm()
        self._kick()

    def _find(self, wanted: object) -> Task[Any]:
        task = self._lookup(wanted) if isinstance(wanted, str) else wanted
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

    # ------------------------------------------------------------------------------ asking and waiting

    def _explain(self, task: Task[Any]) -> Explanation:
        return explain(self._lives, task, self._now())

    async def drain(self) -> None:
        """Waits until no task is left: none waits, is delayed, runs or is suspended. New ones may be submitted.

        Raises:
            StateError: a task of this scheduler waits for itself.
            Closed: the scheduler was closed.

        Cancellation: safe; only the waiting ends.
        """
        self._check_open()
        if self._runners.owns(asyncio.current_task()):
            raise StateError("drain() was called by a task of the scheduler itself, and would wait for that too")
        while self._lives.unfinished:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(waiter)
            await waiter

    def get(self, id: str) -> Task[Any]:
        """The unfinished task with this id.

        Raises:
            NotFound: there is none.
        """
        task = self._lookup(id)
        if task is None:
            raise NotFound(id)
        return task

    def _lookup(self, id: str) -> Task[Any] | None:
        """The unfinished task with this id; one that was made from a number is looked for in all there are."""
        named = self._named.get(id)
        if named is not None or not str(id).startswith(AUTOMATIC):
            return named
        found: Any = next((one for one in self._lives if one.id == id), None)
        return found  # type: ignore[no-any-return]

    def statistics(self) -> SchedulerStatistics:
        """Figures of this moment."""
        return statistics(self._lives, self._now() if self._open else 0.0)

    def stats(self) -> SchedulerStatistics:
        """The same as :meth:`statistics`."""
        return self.statistics()

    def __len__(self) -> int:
        """How many tasks have no fate yet."""
        return self._lives.unfinished

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        how = "closed" if self._closed else "open" if self._open else "not open"
        lives = self._lives
        return f"<Scheduler {how}: {lives.waiting} wait, {len(lives.dispatcher.running)} run>"
