"""What pools raise: all picklable, all with data."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from procession.errors._base import Closed, ProcessionError, StateError
from procession.errors._process import ExecutionTimeout, tail_of

if TYPE_CHECKING:
    from procession._types import Completed, Exit, StopReport


class PoolError(ProcessionError):
    """A pool could not do what it was asked for."""


class PoolClosed(PoolError, Closed):
    """The pool was closed before the call, or while it waited.

    Attributes:
        what: the pool.
    """

    def __str__(self) -> str:
        return f"the pool {self.what} is closed"


class PoolExhausted(PoolError):
    """As many wait already as may wait.

    Attributes:
        pool: the pool.
        limit: how many may wait.
    """

    _fields = ("pool", "limit")

    def __init__(self, pool: str, limit: int) -> None:
        super().__init__(pool, limit)
        self.pool = pool
        self.limit = limit

    def __str__(self) -> str:
        return f"{self.pool}: {self.limit} wait already, which is as many as may"


class AcquireTimeout(PoolError, TimeoutError):
    """No worker could be had in time.

    Attributes:
        pool: the pool.
        timeout: the allowance, in seconds.
        phase: what was under way: ``"waiting"`` for a worker to come back, ``"starting"`` one, or ``"checking"`` one.
    """

    _fields = ("pool", "timeout", "phase")

    def __init__(self, pool: str, timeout: float, phase: str) -> None:
        super().__init__(pool, timeout, phase)
        self.pool = pool
        self.timeout = timeout
        self.phase = phase

    def __str__(self) -> str:
        return f"{self.pool}: no worker within {self.timeout:g} s (phase: {self.phase})"


class CallTimeout(PoolError, ExecutionTimeout):
    """A call took longer than it was allowed to; if it was running, its worker was killed.

    Attributes:
        function: what was called.
        timeout: the allowance, in seconds.
        phase: ``"waiting"`` when it had not begun, ``"running"`` when it had.
        command: always ``None``.
    """

    _fields: ClassVar[tuple[str, ...]] = ("function", "timeout", "phase", "command", "completed", "report")

    def __init__(self, function: str, timeout: float, phase: str) -> None:
        super(ExecutionTimeout, self).__init__(timeout, phase)
        self.function = function
        self.timeout = timeout
        self.phase = phase
        self.command: Any = None  # there is none, unlike in every other ExecutionTimeout
        self.completed: Completed | None = None
        self.report: StopReport | None = None

    def __str__(self) -> str:
        return f"{self.function} did not return within {self.timeout:g} s (phase: {self.phase})"


class WorkerLoss(StrEnum):
    """What probably ended a worker, judged by how it ended."""

    KILLED = "killed"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    EXITED = "exited"
    CUT_OFF = "closed its channel"
    GARBLED = "sent what is no message"
    HUNG = "did not respond"
    UNKNOWN = "ended, nobody knows how"


class WorkerLost(PoolError):
    """The worker that ran the call is gone, and the call with it.

    Attributes:
        worker: the worker's id.
        exit: how it ended; ``None`` when it was still there and had to be killed.
        cause: what probably ended it.
        phase: what it was doing: ``"reading"`` the call, ``"running"`` it or ``"replying"``; for a process: ``"leased"``.
        stderr_tail: the last lines it wrote to stderr.
    """

    _fields: ClassVar[tuple[str, ...]] = ("worker", "exit", "cause", "phase", "stderr_tail")

    def __init__(
        self, worker: str, exit: Exit | None, cause: WorkerLoss, phase: str = "running", stderr_tail: str = ""
    ) -> None:
        super().__init__(worker, exit, cause)
        self.worker = worker
        self.exit = exit
        self.cause = cause
        self.phase = phase
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        end = "" if self.exit is None else f" ({self.exit})"
        return f"worker {self.worker} {self.cause.value}{end} while {self.phase}{tail_of(self.stderr_tail)}"


class WorkerStartError(PoolError):
    """A worker could not be made ready.

    Attributes:
        pool: the pool.
        reason: why, in words.
        exit: how it ended, if it did.
        stderr_tail: the last lines it wrote to stderr.
    """

    _fields = ("pool", "reason", "exit", "stderr_tail")

    def __init__(self, pool: str, reason: str, exit: Exit | None = None, stderr_tail: str = "") -> None:
        super().__init__(pool, reason)
        self.pool = pool
        self.reason = reason
        self.exit = exit
        self.stderr_tail = stderr_tail

    def __str__(self) -> str:
        end = "" if self.exit is None else f" ({self.exit})"
        return f"{self.pool}: a worker could not be started: {self.reason}{end}{tail_of(self.stderr_tail)}"


class PoisonedTask(PoolError):
    """A call is not tried again because it has ended every worker it was given to.

    Attributes:
        task: what was called.
        deaths: how each of those workers ended, the first one first.
    """

    _fields = ("task", "deaths")

    def __init__(self, task: str, deaths: Sequence[WorkerLost]) -> None:
        super().__init__(task, len(deaths))
        self.task = task
        self.deaths: tuple[WorkerLost, ...] = tuple(deaths)

    def __str__(self) -> str:
        last = f"; the last: {self.deaths[-1]}" if self.deaths else ""
        return f"{self.task} has ended {len(self.deaths)} workers and is not tried again{last}"


class LeaseError(PoolError, StateError):
    """A lease was used in a way that makes no sense any more.

    Attributes:
        worker: the worker's id.
        problem: what was wrong, in words.
    """

    _fields = ("worker", "problem")

    def __init__(self, worker: str, problem: str) -> None:
        super().__init__(worker, problem)
        self.worker = worker
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.worker}: {self.problem}"


class NotPicklable(PoolError, pickle.PicklingError):
    """Something cannot travel between this program and its workers. No worker was lost by it.

    Attributes:
        what: ``"function"``, ``"arguments"``, ``"result"`` or ``"exception"``.
        kind: the type of it.
        reason: what pickle said.
    """

    _fields = ("what", "kind", "reason")

    def __init__(self, what: str, kind: str, reason: str) -> None:
        super().__init__(what, kind, reason)
        self.what = what
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        hint = "; a function of a module can, others with cloudpickle installed" if self.what == "function" else ""
        return f"the {self.what} ({self.kind}) cannot be pickled: {self.reason}{hint}"


class MessageTooLarge(PoolError):
    """Arguments or a result exceed what may be sent at once. No worker was lost by it.

    Attributes:
        what: ``"arguments"`` or ``"result"``.
        size: how large it is, in bytes.
        limit: how large it may be.
    """

    _fields = ("what", "size", "limit")

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(what, size, limit)
        self.what = what
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"the {self.what}: {self.size:,} bytes, at most {self.limit:,} are allowed"


class RemoteError(PoolError):
    """A function raised something that cannot be raised here as it was.

    Attributes:
        kind: the qualified name of its type.
        text: its text.
        traceback: where it was raised, as text.
    """

    _fields = ("kind", "text", "traceback")

    def __init__(self, kind: str, text: str, traceback: str = "") -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        told = f"\n{self.traceback}" if self.traceback else ""
        return f"{self.kind}: {self.text}{told}"


class RemoteTraceback(PoolError):
    """The cause of an exception that was raised in a worker: where, as text.

    Attributes:
        traceback: the traceback, as the worker would have printed it.
    """

    _fields = ("traceback",)

    def __init__(self, traceback: str) -> None:
        super().__init__(traceback)
        self.traceback = traceback

    def __str__(self) -> str:
        return f"\n{self.traceback}"
