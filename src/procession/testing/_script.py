"""What a simulated process does: :class:`Script`, a pure description."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from signal import SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGURG, SIGWINCH, Signals

from procession.errors import ConfigError, SpawnFailure

Output = bytes | Sequence[tuple[float, bytes]]

POLITE = frozenset({SIGTERM, SIGINT, SIGHUP, SIGQUIT})
"""Signals that ask; a script with ``term_delay`` cleans up when one of them arrives."""

HARMLESS = frozenset({0, SIGCHLD, SIGCONT, SIGURG, SIGWINCH})
"""Signals whose default is to do nothing (SIGCONT has done its work by then)."""

ERRNO = {
    SpawnFailure.NOT_FOUND: errno.ENOENT,
    SpawnFailure.NOT_EXECUTABLE: errno.EACCES,
    SpawnFailure.IS_DIRECTORY: errno.EACCES,
    SpawnFailure.INTERPRETER_MISSING: errno.ENOENT,
    SpawnFailure.BAD_FORMAT: errno.ENOEXEC,
    SpawnFailure.CWD_MISSING: errno.ENOENT,
    SpawnFailure.CWD_NOT_DIRECTORY: errno.ENOTDIR,
    SpawnFailure.PERMISSION: errno.EPERM,
    SpawnFailure.PROCESS_LIMIT: errno.EAGAIN,
    SpawnFailure.FD_LIMIT: errno.EMFILE,
    SpawnFailure.OUT_OF_MEMORY: errno.ENOMEM,
    SpawnFailure.TOO_LONG: errno.E2BIG,
    SpawnFailure.BUSY: errno.ETXTBSY,
    SpawnFailure.BAD_DESCRIPTOR: errno.EBADF,
}
"""The number the system gives for each way to fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The life of a simulated process, told in advance. All times are seconds.

    The process writes its output, runs for ``duration``, and exits. Its clock stands still while it is stopped
    (SIGSTOP) and while it is blocked writing to a full pipe; so do its output and its end.

    Attributes:
        duration: how long it runs; output later than that prolongs it.
        exit: its exit code; or a ``signal.Signals`` member it ends itself with; or ``None``: the status is lost.
        stdout: what it writes, all at once at its start, or as ``[(at, bytes), …]`` counted from its start.
        stderr: the same for stderr.
        hangs: it never ends by itself.
        dies_at: when somebody else ends it, stopped or not, counted from its start.
        dies_of: the signal they use.
        start_delay: how long starting takes. For one of ``children``: when it is started, after its parent.
        refuses: it cannot be started, for this reason, after ``start_delay``.
        ignores: signals it ignores; SIGKILL and SIGSTOP cannot be ignored.
        ignores_term: short for SIGTERM among ``ignores``.
        term_delay: on SIGTERM, SIGINT, SIGHUP or SIGQUIT it stops its work, cleans up that long, and exits with
            ``term_exit``; ``None``: these signals end it at once.
        term_exit: the exit code after such a clean-up.
        unkillable: it sleeps uninterruptibly: no signal has any effect until ``SimulatedProcess.release()``, or until
            ``duration`` is over.
        reads_stdin: it reads stdin, and does not exit before the end of it.
        echo: it also writes to stdout what it reads, like ``cat``.
        children: processes it starts; they live on when it ends, as any orphan would.
        leaks: it leaves a daemon behind: short for one more child that hangs, escaped, with the pipes closed.
        escaped: as a child: it leaves its parent's process group (``setsid``), and its own children with it.
        holds_pipes: as a child: it inherits stdout and stderr, so their end does not come before it ends too.
        name: as a child: its command name.

    Raises:
        ConfigError: a value makes no sense.
    """

    duration: float = 0.0
    exit: int | Signals | None = 0
    stdout: Output = b""
    stderr: Output = b""
    hangs: bool = False
    dies_at: float | None = None
    dies_of: int = SIGKILL
    start_delay: float = 0.0
    refuses: SpawnFailure | None = None
    ignores: Sequence[int] | frozenset[int] = field(default=())
    ignores_term: bool = False
    term_delay: float | None = None
    term_exit: int = 0
    unkillable: bool = False
    reads_stdin: bool = False
    echo: bool = False
    children: Sequence[Script] = ()
    leaks: bool = False
    escaped: bool = False
    holds_pipes: bool = True
    name: str = "child"

    def __post_init__(self) -> None:
        for name in ("duration", "start_delay", "dies_at", "term_delay"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ConfigError(name, value, "seconds, not negative")
        if not (self.exit is None or isinstance(self.exit, Signals) or 0 <= self.exit <= 255):
            raise ConfigError("exit", self.exit, "0 to 255, a signal.Signals member, or None for a lost status")
        if not 0 <= self.term_exit <= 255:
            raise ConfigError("term_exit", self.term_exit, "0 to 255")
        for child in self.children:
            if child.refuses is not None:
                raise ConfigError("children", child, "a child that cannot start is none")
        for name in ("stdout", "stderr"):
            output = getattr(self, name)
            if not isinstance(output, bytes) and any(not at >= 0 for at, _ in output):
                raise ConfigError(name, output, "bytes, or (seconds, bytes) pairs")

    @property
    def returncode(self) -> int | None:
        """How it ends by itself, as a return code."""
        return -int(self.exit) if isinstance(self.exit, Signals) else self.exit

    @property
    def reads(self) -> bool:
        """Whether it reads stdin to its end."""
        return self.reads_stdin or self.echo

    @property
    def family(self) -> tuple[Script, ...]:
        """The processes it starts."""
        return (*self.children, DAEMON) if self.leaks else tuple(self.children)

    def ignoring(self, signum: int) -> bool:
        """Whether ``signum`` does nothing to it."""
        return signum in HARMLESS or signum in self.ignores or (self.ignores_term and signum == SIGTERM)

    def writes(self) -> list[tuple[float, str, bytes]]:
        """All it writes, in order of time: when, to which stream, what."""
        found: list[tuple[float, str, bytes]] = []
        for stream, output in (("stdout", self.stdout), ("stderr", self.stderr)):
            pairs = [(0.0, output)] if isinstance(output, bytes) else output
            found += [(at, stream, data) for at, data in pairs if data]
        return sorted(found, key=lambda write: write[0])


DAEMON = Script(hangs=True, escaped=True, holds_pipes=False, name="daemon")
"""What a script with ``leaks=True`` leaves behind."""
