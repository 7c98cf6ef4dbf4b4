"""What a scheduler raises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from procession.errors._base import ProcessionError
from procession.errors._process import ExecutionTimeout

if TYPE_CHECKING:
    from procession._types import Completed, StopReport


class SchedulerError(ProcessionError):
    """A scheduler could not do what it was asked for."""


class QueueFull(SchedulerError):
    """Work was not accepted because as much waits already as may wait.

    Attributes:
        limit: how many tasks may wait.
        wanted: how many were to be added.
    """

    _fields = ("limit", "wanted")

    def __init__(self, limit: int, wanted: int = 1) -> None:
        super().__init__(limit, wanted)
        self.limit = limit
        self.wanted = wanted

    def __str__(self) -> str:
        return f"no room for {self.wanted} more: at most {self.limit} tasks wait; see submit_when_room()"


class InsufficientResources(SchedulerError):
    """Work was not accepted because it asks for more than there is in all, so that it could never start.

    Attributes:
        resource: which one.
        wanted: how much of it was asked for.
        total: how much there is.
    """

    _fields = ("resource", "wanted", "total")

    def __init__(self, resource: str, wanted: float, total: float) -> None:
        super().__init__(resource, wanted, total)
        self.resource = resource
        self.wanted = wanted
        self.total = total

    def __str__(self) -> str:
        return f"{self.resource}: {self.wanted:g} wanted, {self.total:g} in all: it could never start"


class DeadlineMissed(SchedulerError):
    """Work was not started because its deadline has passed, or is certain to pass.

    Attributes:
        id: the task.
        deadline: loop time by which it was wanted.
        late: seconds past the deadline, as far as was known.
        phase: ``"queue"`` when it passed while the task waited; ``"admission"`` when the task was refused because
            what is accepted already leaves no time for it.
    """

    _fields = ("id", "deadline", "late", "phase")

    def __init__(self, id: str, deadline: float, late: float = 0.0, phase: str = "queue") -> None:
        super().__init__(id, deadline)
        self.id = id
        self.deadline = deadline
        self.late = late
        self.phase = phase

    def __str__(self) -> str:
        if self.phase == "admission":
            return f"{self.id}: refused, it would end {self.late:.3f} s after its deadline"
        ago = f" {self.late:.3f} s ago" if self.late >= 0.001 else ""
        return f"{self.id}: not started, its deadline passed{ago}"


class TaskCancelled(SchedulerError):
    """A task was cancelled, by its owner or because the scheduler closed.

    Attributes:
        id: the task.
        reason: why, in words.
        completed: what a command had written until then, and how it ended; ``None`` when nothing was started.
    """

    _fields = ("id", "reason", "completed")

    def __init__(self, id: str, reason: str = "", completed: Completed | None = None) -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason
        self.completed = completed

    def __str__(self) -> str:
        return f"{self.id} was cancelled" + (f": {self.reason}" if self.reason else "")


class TaskTimeout(SchedulerError, ExecutionTimeout):
    """A coroutine or call took longer than its task was allowed to; a command raises ``ExecutionTimeout`` itself.

    Attributes:
        id: the task.
        timeout: the allowance, in seconds.
        phase: what was under way: ``"run"``.
        command: always ``None``.
    """

    _fields: ClassVar[tuple[str, ...]] = ("id", "timeout", "phase", "command", "completed", "report")

    def __init__(self, id: str, timeout: float, phase: str = "run") -> None:
        super(ExecutionTimeout, self).__init__(timeout, phase)
        self.id = id
        self.timeout = timeout
        self.phase = phase
        self.command: Any = None  # there is none, unlike in every other ExecutionTimeout
        self.completed: Completed | None = None
        self.report: StopReport | None = None

    def __str__(self) -> str:
        return f"{self.id} was stopped after {self.timeout:g} s (phase: {self.phase})"


class DependencyFailed(SchedulerError):
    """A task was not started because one it was to come after did not succeed.

    Attributes:
        id: the task.
        dependency: the id of the task it was to come after.
        cause: why that one did not succeed; also the ``__cause__``.
    """

    _fields = ("id", "dependency", "cause", "_origin")

    def __init__(self, id: str, dependency: str, cause: BaseException | None = None) -> None:
        super().__init__(id, dependency)
        self.id = id
        self.dependency = dependency
        self.cause = cause
        # A chain of them may be longer than the stack is deep, so each knows what it began with.
        self._origin: tuple[str, BaseException | None] = (
            cause._origin if isinstance(cause, DependencyFailed) else (dependency, cause)
        )

    def __str__(self) -> str:
        origin, cause = self._origin
        because = "" if origin == self.dependency else f", because {origin} did not"
        why = "" if cause is None else f": {cause}"
        return f"{self.id}: not started, {self.dependency} did not succeed{because}{why}"
