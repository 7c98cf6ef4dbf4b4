"""Where decisions become deeds: work is begun, processes are suspended, stopped and told of, handles are settled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from procession._types import Completed
from procession.command import Command
from procession.errors import ProcessError
from procession.events import TaskFinished, TaskPreempted, TaskResumed, TaskRetried, TaskStarted, TaskSubmitted
from procession.process import run
from procession.process._run import raise_for
from procession.scheduler._config import Preemption
from procession.scheduler._freezer import Freezer
from procession.scheduler._lives import Effect, Freeze, Requeue, Retry, Settled

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.process import Process
    from procession.registry import ProcessRegistry
    from procession.scheduler._lives import Lives
    from procession.scheduler._task import Task

_NEVER = Preemption.NEVER


class Outlet:
    """The deeds of one scheduler.

    Args:
        lives: the core, told of processes that are under way and of work that has ended.
        loop: where it all happens.
        registry: told of tasks and processes.
        launcher: starts processes.
        owner: the name events and records are under.
        kick: asks for a decision; called when work can be made to give way for which others may wait.

    Attributes:
        all_were_cancelled: whether somebody else has cancelled all runners there were.
    """

    def __init__(
        self,
        lives: Lives,
        loop: asyncio.AbstractEventLoop,
        registry: ProcessRegistry | None,
        launcher: Launcher | None,
        owner: str,
        kick: Callable[[], None],
    ) -> None:
        self._lives = lives
        self._kick = kick
        self._loop = loop
        self._registry = registry
        self._launcher = launcher
        self._owner = owner
        self._freezers: dict[Task[Any], Freezer] = {}
        self._following: set[asyncio.Task[None]] = set()
        self.all_were_cancelled = False

    # ----------------------------------------------------------------------------- beginning, ending

    def begin(self, task: Task[Any]) -> Any:
        """Begins its work; returns what is to be awaited."""
        work, spec = task._work, task.spec
        if type(work) is Command:
            return self._command(task, work)
        begun = work(*task._args, **spec.kwargs) if spec.kwargs else work(*task._args)
        if spec.preemption is not _NEVER:
            self._lives.up(task, suspendable=False)
            self._kick()
        return begun

    async def _command(self, task: Task[Any], command: Command) -> Completed:
        spec = task.spec
        if command.timeout is not None:
            command = command.replace(timeout=None)  # the task's own clock stands still while it is suspended

        def on_spawn(process: Process) -> None:
            task._process = process
            self._lives.up(task, suspendable=True)
            if spec.preemption is not _NEVER:
                self._kick()
            if spec.on_spawn is not None:
                spec.on_spawn(process)

        return await run(
            command,
            input=spec.input,
            max_output=spec.max_output,
            registry=self._registry,
            launcher=self._launcher,
            name=spec.id or None,
            owner=self._owner,
            on_spawn=on_spawn,
        )

    def ended(self, task: Task[Any], value: Any, error: BaseException | None, now: float) -> None:
        """Tells the core how its work ended."""
        task._process = None
        if task in self._freezers:
            self._freezers.pop(task).leave()
        if type(value) is Completed and type(task._work) is Command and value.returncode != 0:
            try:
                raise_for(value)
            except ProcessError as failure:
                error = failure
        self._lives.ended(task, value, error, now, cancelled=isinstance(error, asyncio.CancelledError))

    # -------------------------------------------------------------------------------------- effects

    def carry_out(self, effect: Effect) -> Task[Any] | None:
        """Carries out one effect; returns a task that has reached its fate."""
        task: Task[Any] = effect.entry
        if type(effect) is Settled:
            now = self._loop.time()
            task._settle(effect.value, effect.error, now, self._loop)
            self.finished(task, now)
            return task
        if type(effect) is Freeze:
            self._freezer(task).set(frozen=True)
            self._preempted(task, "" if effect.by is None else effect.by.id, "suspend")
        elif type(effect) is Requeue:
            self._preempted(task, effect.by.id, "requeue")
        elif type(effect) is Retry:
            self._retried(task, effect)
        else:
            if task in self._freezers:
                self._freezers[task].set(frozen=False)
            runner = task._runner
            if runner is not None and not (self.all_were_cancelled and runner.is_cancelled):
                runner.cancel()
        return None

    def thaw(self, task: Task[Any]) -> None:
        """It goes on."""
        self._freezer(task).set(frozen=False)
        registry = self._registry
        if registry is not None and registry.wants(TaskResumed):
            registry.publish(TaskResumed(id=task.id, owner=self._owner))

    def _freezer(self, task: Task[Any]) -> Freezer:
        freezer = self._freezers.get(task)
        if freezer is None:
            assert task._process is not None
            self._freezers[task] = freezer = Freezer(task._process, self._following)
        return freezer

    async def settle(self) -> None:
        """Waits for what is still being signalled.

        Cancellation: safe; only the waiting ends.
        """
        if self._following:
            await asyncio.wait(set(self._following))

    # --------------------------------------------------------------------------------------- events

    def submitted(self, task: Task[Any]) -> None:
        """Publishes that it was accepted."""
        registry = self._registry
        if registry is not None and registry.wants(TaskSubmitted):
            registry.publish(TaskSubmitted(id=task.id, owner=self._owner, priority=task.priority))

    def started(self, task: Task[Any]) -> None:
        """Publishes that it begins."""
        registry = self._registry
        if registry is not None and registry.wants(TaskStarted):
            waited = task.started_at - task.queued_at
            registry.publish(TaskStarted(id=task.id, owner=self._owner, attempt=task.attempts, waited=waited))

    def finished(self, task: Task[Any], now: float) -> None:
        """Publishes its fate."""
        registry = self._registry
        if registry is not None and registry.wants(TaskFinished):
            duration = now - task.submitted_at
            registry.publish(TaskFinished(id=task.id, owner=self._owner, outcome=task.state.value, duration=duration))

    def _preempted(self, task: Task[Any], by: str, mode: str) -> None:
        registry = self._registry
        if registry is not None and registry.wants(TaskPreempted):
            registry.publish(TaskPreempted(id=task.id, owner=self._owner, by=by, mode=mode))

    def _retried(self, task: Task[Any], effect: Retry) -> None:
        registry = self._registry
        if registry is not None and registry.wants(TaskRetried):
            text = _told(effect.error)
            registry.publish(
                TaskRetried(id=task.id, owner=self._owner, attempt=task.attempts, delay=effect.delay, error=text)
            )


def _told(error: BaseException) -> str:
    """What an error says, if it can be asked: it is somebody else's, and a fault in it is no fault of the scheduler."""
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - whatever its __str__ stumbles over
        return name
