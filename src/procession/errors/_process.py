"""What is raised when a process cannot be started, or ends in a way its caller asked to be told of."""

from __future__ import annotations

import errno as _errno
import signal as _signal
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from procession.errors._base import ProcessionError

if TYPE_CHECKING:
    from procession._types import Completed, Exit, StopReport
    from procession.command import Command


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


class ProcessError(ProcessionError):
    """A process ended in a way its caller asked to be told of."""


def tail_of(text: str) -> str:
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
        return f"{self.command.display()} exited with {code}{tail_of(self.stderr_tail)}"


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
        return f"{self.command.display()} was ended by {self.signal_name}{tail_of(self.stderr_tail)}"


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
