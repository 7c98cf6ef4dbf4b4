"""Values that travel between modules: states, exits, reports. Frozen, slotted, picklable."""

from __future__ import annotations

import re
import signal as _signal
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procession.command import Command

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What may stand as a name or id: it can be neither an option, a path nor a line break."""


class ProcessState(StrEnum):
    """Where a process stands in its life. The moves between states are in ``abc.PROCESS_MOVES``."""

    STARTING = "starting"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    UNKILLABLE = "unkillable"
    EXITED = "exited"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in (ProcessState.EXITED, ProcessState.FAILED)


class Containment(StrEnum):
    """The rungs of the containment ladder, weakest first.

    ``NONE`` the child alone; ``GROUP`` its process group; ``TREE`` the group and whatever left it,
    found by environment cookie; ``CGROUP`` a cgroup of its own (v2), ended by ``cgroup.kill``.
    """

    NONE = "none"
    GROUP = "group"
    TREE = "tree"
    CGROUP = "cgroup"


class Stream(StrEnum):
    """The standard streams of a process."""

    STDIN = "stdin"
    STDOUT = "stdout"
    STDERR = "stderr"


class Priority(IntEnum):
    """How urgent work is; the smaller number goes first. Any other integer may stand between or beyond them."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3
    BACKGROUND = 4


class FailureKind(StrEnum):
    """What kind of failure it was.

    ``CRASH`` it ended by itself, with an error or a signal; ``TIMEOUT`` it did not answer in time;
    ``RESOURCE_EXHAUSTION`` it ran out of memory, processor time, descriptors or space; ``NETWORK_ERROR`` it could not
    reach somebody; ``DEPENDENCY_FAILURE`` something it needs failed; ``STARTUP_FAILURE`` it did not come up.
    """

    CRASH = "crash"
    TIMEOUT = "timeout"
    RESOURCE_EXHAUSTION = "resource_exhaustion"
    NETWORK_ERROR = "network_error"
    DEPENDENCY_FAILURE = "dependency_failure"
    STARTUP_FAILURE = "startup_failure"


def signal_name(number: int) -> str:
    """``9`` becomes ``"SIGKILL"``; real-time signals keep their number."""
    try:
        return _signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended.

    Attributes:
        returncode: exit code 0 to 255, the negative number of the signal that ended it, or ``None``
            when the status was lost (somebody else reaped the child and the kernel keeps no record).
        core_dumped: whether the kernel wrote a core file.
    """

    returncode: int | None
    core_dumped: bool = False

    @property
    def signal(self) -> int | None:
        """The signal that ended it, or ``None``."""
        code = self.returncode
        return -code if code is not None and code < 0 else None

    @property
    def is_lost(self) -> bool:
        """Whether the true status could not be learnt."""
        return self.returncode is None

    @property
    def is_success(self) -> bool:
        """Whether it exited with code 0."""
        return self.returncode == 0

    def __str__(self) -> str:
        if self.returncode is None:
            return "status lost"
        if self.returncode < 0:
            return signal_name(-self.returncode) + (" (core dumped)" if self.core_dumped else "")
        return f"exit {self.returncode}"


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process of the machine, named so that a recycled pid cannot be mistaken for it.

    Attributes:
        pid: its process id.
        started: start time in clock ticks since boot, field 22 of ``/proc/PID/stat`` (proc(5)).
        name: its command name, as the kernel has it.
    """

    pid: int
    started: int = 0
    name: str = ""

    def __str__(self) -> str:
        return f"{self.name or 'process'}[{self.pid}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReport:
    """The proof of a stop: what was done to whom, and what is left.

    Attributes:
        id: the process it is about.
        rung: the containment that was really in force.
        signalled: names of the signals sent, in order, each once.
        members: how many processes of the tree were seen besides the leader.
        escaped: those of them that had left the process group.
        survived: what still lives; empty is the proof that nothing does, if it is ``verified``.
        verified: whether the tree could be looked through (``/proc`` may be out of reach).
        forced: whether SIGKILL was needed.
        duration: seconds from the wish to the proof.
        exit: how the leader ended; ``None`` when it could not be killed in time.
    """

    id: str
    rung: Containment
    signalled: tuple[str, ...] = ()
    members: int = 0
    escaped: tuple[ProcessRef, ...] = ()
    survived: tuple[ProcessRef, ...] = ()
    verified: bool = True
    forced: bool = False
    duration: float = 0.0
    exit: Exit | None = None

    @property
    def is_clean(self) -> bool:
        """Whether nothing survived, and that is certain."""
        return self.verified and not self.survived

    def __str__(self) -> str:
        parts = [f"{self.id}: {self.exit or 'still alive'} in {self.duration * 1000:.0f} ms"]
        if self.signalled:
            parts.append("after " + "+".join(self.signalled))
        parts.append(f"contained by {self.rung}")
        if self.escaped:
            parts.append("escaped and ended: " + ", ".join(map(str, self.escaped)))
        if self.survived:
            parts.append("SURVIVED: " + ", ".join(map(str, self.survived)))
        if not self.verified:
            parts.append("NOT VERIFIED: the tree could not be looked through")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The result of a finished run.

    Attributes:
        command: what was run.
        id: its id in the registry.
        pid: the process id it had (it may belong to somebody else by now).
        returncode: exit code, negative signal number, or ``None`` when the status was lost.
        stdout: what it wrote there, up to ``max_output`` bytes; empty when it was not a pipe.
        stderr: the same for stderr.
        duration: seconds from before the spawn to after the last byte.
        exit: the same as ``returncode`` with all the kernel said.
        stdout_dropped: bytes of stdout beyond ``max_output``, read and thrown away.
        stderr_dropped: the same for stderr.
        truncated_by_descendant: a descendant held the pipes open after the process had ended, and
            what it might have written was not waited for.
        report: what stopping took, when something was left to stop.
    """

    command: Command
    id: str
    pid: int
    returncode: int | None
    stdout: bytes = b""
    stderr: bytes = b""
    duration: float = 0.0
    exit: Exit = field(default_factory=lambda: Exit(None))
    stdout_dropped: int = 0
    stderr_dropped: int = 0
    truncated_by_descendant: bool = False
    report: StopReport | None = None

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.returncode == 0

    @property
    def truncated(self) -> bool:
        """Whether output is missing, for whatever reason."""
        return bool(self.stdout_dropped or self.stderr_dropped or self.truncated_by_descendant)

    @property
    def text(self) -> str:
        r"""Stdout decoded as UTF-8; bytes that are not become ``\xNN``."""
        return self.stdout.decode("utf-8", "backslashreplace")

    @property
    def error_text(self) -> str:
        r"""Stderr decoded as UTF-8; bytes that are not become ``\xNN``."""
        return self.stderr.decode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        size = f"stdout={len(self.stdout)} B, stderr={len(self.stderr)} B"
        return f"<Completed {self.command.display()}: {self.exit}, {size}, {self.duration:.3f} s>"
