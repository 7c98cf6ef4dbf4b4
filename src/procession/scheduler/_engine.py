"""The running half of the scheduler: carries out what the core decides, and tells it what happened."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from typing import TYPE_CHECKING, Any

from procession._clock import monotonic
from procession.errors import Closed, ConfigError, SchedulerError, StateError
from procession.scheduler._config import Preemption, SchedulerConfig
from procession.scheduler._decide import Dispatcher
from procession.scheduler._guard import Guarded
from procession.scheduler._lives import Lives
from procession.scheduler._outlet import Outlet
from procession.scheduler._policies import Policy
from procession.scheduler._resources import Resources
from procession.scheduler._room import Room
from procession.scheduler._runner import Runners
from procession.scheduler._short_way import ShortWay
from procession.scheduler._spec import Spec
from procession.scheduler._states import FINAL, RUNNING

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.registry import ProcessRegistry
    from procession.scheduler._recurring import Timetable
    from procession.scheduler._task import Task

log = logging.getLogger("procession.scheduler")


class Engine:
    """Owns the core, its runners and its timer; :class:`Scheduler` is what users see of it."""

    _timetable: Timetable

    def __init__(
        self,
        config: SchedulerConfig,
        *,
        registry: ProcessRegistry | None,
        launcher: Launcher | None,
        name: str,
        seed: int | None,
    ) -> None:
        if not isinstance(config, SchedulerConfig):
            raise ConfigError("config", config, "a SchedulerConfig is needed")
        self.config = config
        self._resources = Resources(config.max_concurrent_tasks, config.resources, config.kept_when_suspended)
        self._plain = self._resources.plain
        policy = config.queue_policy
        fresh = getattr(policy, "fresh", None)  # a user's own may do without
        self._policy = Guarded(policy if fresh is None else fresh(config.max_concurrent_tasks))
        dispatcher = Dispatcher(
            self._resources,
            self._policy,
            backfill=config.backfill,
            max_overtakes=config.max_overtakes,
            max_preemptions=config.max_preemptions,
        )
        self._lives = Lives(dispatcher, random.Random(seed))  # noqa: S311 - jitter
        mode = config.preemption
        self._command_spec = Spec(preemption=mode)
        self._call_spec = Spec(preemption=Preemption.NEVER if mode is Preemption.SUSPEND else mode)
        self._checks_admission = self._policy.kind.admit is not Policy.admit
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

    # --------------------------------------------------------------------------------- opening, closing

    def _begin(self) -> None:
        """Binds it to the running loop."""
        self._loop = loop = asyncio.get_running_loop()
        # What the loop's own method calls, without the detour; others keep a clock of their own.
        self._now = monotonic if type(loop).time is asyncio.BaseEventLoop.time else loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._armed_for = math.inf
        self._outlet = Outlet(self._lives, loop, self._registry, self._launcher, self._name, self._kick)
        is_plain = self._lives.is_plain and not self._checks_admission
        if self._call_spec.preemption is Preemption.NEVER and self._registry is None and is_plain:
            self._short = ShortWay(self._lives, self._call_spec, loop)
        self._runners = Runners(loop, self._now, self._outlet.begin, self._ended, self._short)
        self._room = Room()
        self._drained: list[asyncio.Future[None]] = []
        self._watch = loop.create_task(self._until_the_loop_stops())
        self._open = True

    async def _until_the_loop_stops(self) -> None:
        """Nobody knows of this task, so who cancels it cancels all there are: the loop is about to be closed.

        Nothing may begin from then on. What runs was cancelled, too, and is not cancelled a second time, which would
        interrupt its clean-up.
        """
        try:
            await self._loop.create_future()
        except asyncio.CancelledError:
            if not self._closed:
                self._outlet.all_were_cancelled = True
                self._end("the loop is stopping")
                self._runners.dismiss()
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("scheduler")
        if not self._open:
            raise StateError("the scheduler is not open: use `async with Scheduler(...) as scheduler`")

    async def _close(self, caller: asyncio.Task[Any] | None) -> None:
        if not self._closed:
            self._end("the scheduler was closed")
        self._watch.cancel()
        self._runners.dismiss()
        left = await self._runners.wait(self.config.close_timeout, caller)
        if left:
            log.error("%d task(s) ignored their cancellation and were left behind", left)
            self._lives.abandon(self._now())
            self._carry_out()
            self._make_known()
        if self._timer is not None:
            self._timer.cancel()
        await self._outlet.settle()
        await asyncio.wait((self._watch,))

    def _end(self, reason: str) -> None:
        """Accepts nothing any more, and cancels all there is."""
        self._closed = True
        self._leave_short_way()
        self._room.close()
        self._cancel_all(reason)

    def _leave_short_way(self) -> None:
        """Something is not plain any more; the next decision looks whether it is again."""
        if self._short is not None:
            self._short.is_open = False

    def _cancel_all(self, reason: str) -> None:
        self._timetable.close()
        now = self._now()
        for task in list(self._lives):
            self._lives.cancel(task, reason, now, insist=False)
        self._carry_out()
        self._make_known()

    # ------------------------------------------------------------------------------ carrying out

    def _kick(self) -> None:
        """Decides again in the next turn of the loop."""
        if not self._kicked:
            self._kicked = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        """Starts what can start."""
        self._kicked = False
        try:
            while (task := self._next(self._now())) is not None:
                self._runners.give(task)
        except Exception as error:  # noqa: BLE001 - whatever it was, every handle is told
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
            if self._policy.error is not None:
                self._check_policy()
            if self._short is not None and not self._room.has_line:
                self._short.look()
            if task is None:
                return None
            if task._runner is not None:
                if task.state is RUNNING:
                    outlet.thaw(task)
                continue
            if self._registry is not None and task.state is RUNNING:
                outlet.started(task)
            if task.state is RUNNING:
                return task  # type: ignore[no-any-return]
            outlet.ended(task, None, asyncio.CancelledError(), now)  # a listener has cancelled it
            self._carry_out()

    def _ended(self, task: Task[Any], value: Any, error: BaseException | None, goes_on: bool) -> Task[Any] | None:
        """A runner is done with ``task``; returns the next one for it."""
        following: Task[Any] | None = None
        now = self._now()
        if task.state in FINAL:  # it was left behind when the scheduler closed, and has ended after all
            return None
        try:
            self._outlet.ended(task, value, error, now)
            self._carry_out()
            if goes_on:
                following = self._next(now)
            else:
                self._kick()
        except Exception as raised:  # noqa: BLE001 - whatever it was, every handle is told
            self._fail(raised)
        self._make_known()
        return following

    def _carry_out(self) -> None:
        """Does what the core has asked for."""
        effects = self._lives.effects
        fault: Exception | None = None
        while effects:
            todo, self._lives.effects = effects, []
            for effect in todo:
                try:
                    task = self._outlet.carry_out(effect)
                except Exception as error:  # noqa: BLE001 - raised below: others may not lose their fate by it
                    fault = fault or error
                    continue
                if task is not None and task.spec.id:
                    self._named.pop(task.spec.id, None)
            effects = self._lives.effects
        if fault is not None:
            raise fault

    def _make_known(self) -> None:
        """After anything has changed: who waits for room or for the end is told, and the timer is set."""
        lives = self._lives
        if self._policy.error is not None:
            self._check_policy()
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
        self._timer_at = self._lives.next_due
        self._armed_for = at = min(self._timer_at, self._timetable.next_due)
        if at < math.inf and not (self._closed and not self._lives.unfinished):
            self._timer = self._loop.call_at(at, self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._timetable.next_due < math.inf:  # a timer may fire a little early
            self._timetable.run(max(self._now(), self._armed_for))
        self._dispatch()

    def _check_policy(self) -> None:
        """Ends everything when the policy has raised."""
        if self._policy.error is not None and self._failure is None:
            self._fail(self._policy.error)

    def _fail(self, error: BaseException) -> None:
        """The policy has raised, so nobody can say who is next any more: everything ends, and everybody is told."""
        if self._failure is None:
            self._failure = SchedulerError(f"{self._policy!r} raised {error!r}")
            self._failure.__cause__ = error
            log.error("the scheduler stops: its policy raised", exc_info=error)
        self._lives.dispatcher.forsake()
        self._end(f"the policy raised {error!r}")

    def _cancel(self, task: Task[Any], reason: str) -> bool:
        self._leave_short_way()
        cancelled = self._lives.cancel(task, reason, self._now())
        if cancelled:
            self._carry_out()
            self._make_known()
        return cancelled
