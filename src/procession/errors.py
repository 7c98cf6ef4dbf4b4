"""Every error procession raises: one tree, all picklable, all carrying data.

Errors are told apart by their type and their fields, never by their text; the text is built from
the fields in ``__str__``. An exception raised by a user's own code is never wrapped.
"""

from __future__ import annotations

import errno as _errno
import pickle as _pickle
import signal as _signal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from procession._types import Completed, Exit, StopReport
    from procession.command import Command


class ProcessionError(Exception):
    """The root of the tree. ``_fields`` names the data that makes up one error."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields, so that data survives a process boundary whatever ``args`` holds."""
        data = {name: getattr(self, name) for name in self._fields}
        return _rebuild, (type(self), data, self.args, getattr(self, "__notes__", None))


def _rebuild(
    cls: type[ProcessionError], data: dict[str, Any], args: tuple[Any, ...], notes: list[str] | None
) -> ProcessionError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in data.items():
        setattr(error, name, value)
    for note in notes or ():
        error.add_note(note)
    return error


# ------------------------------------------------------------------------------ bad input, bad use


class ConfigError(ProcessionError, ValueError):
    """A value was refused before anything happened.

    Attributes:
        field: dotted name of the field, for example ``"rlimits.nofile"``.
        value: what was given (masked when the field may hold a secret).
        hint: what would be accepted.
    """

    _fields = ("field", "value", "hint")

    def __init__(self, field: str, value: object, hint: str) -> None:
        super().__init__(field, value, hint)
        self.field = field
        self.value = value
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """A refused value may be anything; one that cannot be pickled travels as its text."""
        try:
            _pickle.dumps(self.value)
        except Exception:  # noqa: BLE001 - whatever its own __reduce__ raises
            self = ConfigError(self.field, repr(self.value), self.hint)  # noqa: PLW0642 - a copy that can
        return super().__reduce__()

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        return f"{self.field}: {shown} was refused: {self.hint}"


class StateError(ProcessionError, RuntimeError):
    """The call does not fit the state the object is in."""


class InvalidTransition(StateError):
    """A move that the transition table does not allow.

    Attributes:
        id: whose state it is.
        old: the present state.
        new: the refused state.
        story: how the present state was reached, oldest first, one line per move.
    """

    _fields = ("id", "old", "new", "story")

    def __init__(self, id: str, old: str, new: str, story: Sequence[str] = ()) -> None:
        super().__init__(id, old, new)
        self.id = id
        self.old = old
        self.new = new
        self.story: tuple[str, ...] = tuple(story)

    def __str__(self) -> str:
        told = "".join(f"\n  {line}" for line in self.story)
        return f"{self.id}: no way from {self.old} to {self.new}{told}"


class Closed(StateError):
    """The object was closed before the call.

    Attributes:
        what: the closed object, for example ``"registry"``.
    """

    _fields = ("what",)

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is closed"


class SubscriptionLost(StateError):
    """A subscriber fell behind and had asked to be disconnected rather than to miss events unawares.

    Attributes:
        max_queued: how many events its queue held.
    """

    _fields = ("max_queued",)

    def __init__(self, max_queued: int) -> None:
        super().__init__(max_queued)
        self.max_queued = max_queued

    def __str__(self) -> str:
        return f"the subscription fell more than {self.max_queued} events behind and was disconnected"


class NotFound(StateError, LookupError):
    """Nothing is known under that id.

    Attributes:
        id: what was asked for.
        what: the kind of thing, for example ``"process"``.
    """

    _fields = ("id", "what")

    def __init__(self, id: str, what: str = "process") -> None:
        super().__init__(id, what)
        self.id = id
        self.what = what

    def __str__(self) -> str:
        return f"no {self.what} is known as {self.id!r}"


# ---------------------------------------------------------------------------------------- spawning


class SpawnFailure(StrEnum):
    """Why a child could not be started."""

    NOT_FOUND = "program not found"
    NOT_EXECUTABLE = "program is not executable"
    IS_DIRECTORY = "program is a directory"
    INTERPRETER_MISSING = "interpreter of the script is missing"
    BAD_FORMAT = "file is not a program the kernel can run"
    CWD_MISSING = "working directory is missing"
    CWD_NOT_DIRECTORY = "working directory is not a directory"
    PERMISSION = "permission denied"
    PROCESS_LIMIT = "process limit reached"
    FD_LIMIT = "file-descriptor limit reached"
    OUT_OF_MEMORY = "out of memory"
    TOO_LONG = "arguments and environment are too long"
    BUSY = "program file is being written"
    BAD_DESCRIPTOR = "a given file descriptor is not open"
    TIMEOUT = "the kernel did not start it in time"
    CONTAINMENT = "its container could not be prepared"
    STREAM = "a file for its streams cannot be opened"
    UNSUPPORTED = "this system lacks what the command asks for"
    OTHER = "the system refused"


class SpawnError(ProcessionError, OSError):
    """A child could not be started; nothing of it is left.

    An instance is also a :class:`FileNotFoundError` or a :class:`PermissionError` when its
    ``errno`` says so, so code written for the standard library keeps working.

    Attributes:
        reason: which of the ways to fail it was.
        command: what was to be run.
        path: the file or directory at fault, where there is one.
        errno: the system's number, or ``None``.
    """

    _fields = ("reason", "command", "path", "errno", "strerror", "filename")
    reason: SpawnFailure
    command: Command
    path: str | None

    @classmethod
    def of(
        cls, reason: SpawnFailure, command: Command, errno: int | None = None, path: str | None = None
    ) -> SpawnError:
        """Builds the error in the subclass that fits ``errno``."""
        kind: type[SpawnError] = SpawnError
        if errno == _errno.ENOENT:
            kind = ProgramNotFound
        elif errno in (_errno.EACCES, _errno.EPERM):
            kind = SpawnDenied
        elif errno == _errno.ENOTDIR:
            kind = SpawnNotDirectory
        return kind(reason, command, errno, path)

    def __init__(
        self, reason: SpawnFailure, command: Command, errno: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(errno, reason.value)
        self.errno = errno
        self.strerror: str = reason.value
        self.filename = path
        self.reason = reason
        self.command = command
        self.path = path

    def __str__(self) -> str:
        number = "" if self.errno is None else f" [{_errno.errorcode.get(self.errno, self.errno)}]"
        where = "" if self.path is None else f": {self.path}"
        return f"could not start {self.command.display()}: {self.reason.value}{where}{number}"


class ProgramNotFound(SpawnError, FileNotFoundError):
    """A :class:`SpawnError` with ``ENOENT``."""


class SpawnDenied(SpawnError, PermissionError):
    """A :class:`SpawnError` with ``EACCES`` or ``EPERM``."""


class SpawnNotDirectory(SpawnError, NotADirectoryError):
    """A :class:`SpawnError` with ``ENOTDIR``."""


# ---------------------------------------------------------------------------- how a process ended


class ProcessError(ProcessionError):
    """A process ended in a way its caller asked to be told of."""


def _tail(text: str) -> str:
    lines = text.strip().splitlines()[-5:]
    return "".join(f"\n  | {line}" for line in lines)


class ExitError(ProcessError):
    """The process exited with a code other than 0.

    Attributes:
        returncode: the code, 1 to 255; ``None`` when the status was lost to a foreign reaper.
        stderr_tail: the last part of what it wrote to stderr, at most 4 KiB, decoded.
        command: what was run.
        completed: the whole result.
    """

    _fields = ("returncode", "stderr_tail", "command", "completed")

    def __init__(
        self,
        returncode: int | None,
        stderr_tail: str,
        command: Command,
        completed: Completed | None = None,
    ) -> None:
        super().__init__(returncode, stderr_tail)
        self.returncode = returncode
        self.stderr_tail = stderr_tail
        self.command = command
        self.completed = completed

    def __str__(self) -> str:
        code = "an unknown code (status lost)" if self.returncode is None else f"code {self.returncode}"
        return f"{self.command.display()} exited with {code}{_tail(self.stderr_tail)}"


class SignaledError(ProcessError):
    """The process was ended by a signal.

    Attributes:
        signal: the signal's number; ``signal_name`` its name.
        stderr_tail: the last part of what it wrote to stderr, at most 4 KiB, decoded.
        command: what was run.
        completed: the whole result.
    """

    _fields = ("signal", "stderr_tail", "command", "completed")

    def __init__(self, signal: int, stderr_tail: str, command: Command, completed: Completed | None = None) -> None:
        super().__init__(signal, stderr_tail)
        self.signal = signal
        self.stderr_tail = stderr_tail
        self.command = command
        self.completed = completed

    @property
    def signal_name(self) -> str:
        """The signal's name, for example ``"SIGKILL"``."""
        try:
            return _signal.Signals(self.signal).name
        except ValueError:
            return f"signal {self.signal}"

    @property
    def returncode(self) -> int:
        """The signal as the standard library writes it: its negative number."""
        return -self.signal

    def __str__(self) -> str:
        return f"{self.command.display()} was ended by {self.signal_name}{_tail(self.stderr_tail)}"


class ExecutionTimeout(ProcessError, TimeoutError):
    """The process took longer than it was allowed to, and was stopped.

    Attributes:
        timeout: the allowance, in seconds.
        phase: what was under way: ``"run"``, ``"start"`` or ``"drain"``.
        command: what was run.
        completed: what it had written until then, and how it ended.
        report: what stopping it took.
    """

    _fields: ClassVar[tuple[str, ...]] = ("timeout", "phase", "command", "completed", "report")

    def __init__(
        self,
        timeout: float,
        command: Command,
        phase: str = "run",
        completed: Completed | None = None,
        report: StopReport | None = None,
    ) -> None:
        super().__init__(timeout, phase)
        self.timeout = timeout
        self.phase = phase
        self.command = command
        self.completed = completed
        self.report = report

    @property
    def stdout(self) -> bytes:
        """What it had written to stdout until then."""
        return b"" if self.completed is None else self.completed.stdout

    @property
    def stderr(self) -> bytes:
        """What it had written to stderr until then."""
        return b"" if self.completed is None else self.completed.stderr

    def __str__(self) -> str:
        return f"{self.command.display()} was stopped after {self.timeout:g} s (phase: {self.phase})"


class StreamClosed(ProcessionError):
    """The other end of a stream is gone, or the stream was never a pipe.

    Attributes:
        stream: ``"stdin"``, ``"stdout"`` or ``"stderr"``.
        command: whose stream it is.
        exit: how the process ended, if it had when the error was raised.
    """

    _fields = ("stream", "command", "exit")

    def __init__(self, stream: str, command: Command | None = None, exit: Exit | None = None) -> None:
        super().__init__(stream)
        self.stream = stream
        self.command = command
        self.exit = exit

    def __str__(self) -> str:
        whose = "" if self.command is None else f" of {self.command.display()}"
        end = "" if self.exit is None else f" ({self.exit})"
        return f"{self.stream}{whose} is closed{end}"


# --------------------------------------------------------------------------------------- scheduler


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

    _fields = ("id", "dependency", "cause")

    def __init__(self, id: str, dependency: str, cause: BaseException | None = None) -> None:
        super().__init__(id, dependency)
        self.id = id
        self.dependency = dependency
        self.cause = cause

    def __str__(self) -> str:
        why = "" if self.cause is None else f": {self.cause}"
        return f"{self.id}: not started, {self.dependency} did not succeed{why}"


# -------------------------------------------------------------------------------------------- pools


class PoolError(ProcessionError):
    """A pool could not do what it was asked for."""
