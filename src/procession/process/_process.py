"""The live process: what its owner can ask of it and do to it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal

from procession._core.aio import wait_until
from procession._fields import signal_number
from procession._types import Containment, Exit, ProcessRef, ProcessState, StopReport, Stream
from procession.errors import ConfigError, ExecutionTimeout
from procession.process._communicator import Communicator
from procession.process._lines import Line, lines
from procession.process._merge import merged
from procession.process._reach import Reach
from procession.process._sink import Writer
from procession.process._source import LINGER, Source
from procession.process._stop import Stopper

if TYPE_CHECKING:
    from procession.abc import Entry, Inlet, ProcessHandle
    from procession.command import Command

Which = Literal["stdout", "stderr", "both"]


class Process:
    """A child process that lives in a block; made by :func:`spawn`, never directly.

    Attributes:
        id: its id, unique on the machine; the same in the registry and in its environment cookie.
        name: what it is called in records and logs.
        owner: the module or program part it belongs to.
        command: what it runs.
        timed_out: whether its command's ``timeout`` has ended it.
    """

    def __init__(
        self, handle: ProcessHandle, entry: Entry, command: Command, *, id: str, name: str, owner: str
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.id = id
        self.name = name
        self.owner = owner
        self.command = command
        self.timed_out: bool = False
        self._handle = handle
        self._entry = entry
        self._waiters: list[asyncio.Future[None]] = []
        self._stdin: Writer | None = None
        self._stdout: Source | None = None
        self._stderr: Source | None = None
        self._stopper: Stopper | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.started_at: float = self._loop.time()
        self.ended_at: float | None = None

    def _begin(self, timeout: float | None) -> None:
        """The registry knows of it: from now on its end is announced, and its time runs."""
        self._handle.on_exit(self._ended)
        if timeout is not None and self._handle.exit is None:
            self._timer = self._loop.call_later(timeout, self._out_of_time)

    def _ended(self, exit: Exit) -> None:
        self.ended_at = self._loop.time()
        if self._timer is not None:
            self._timer.cancel()
        for source in (self._stdout, self._stderr):
            if source is not None:
                source.bound(LINGER)
        try:
            self._entry.exited(exit)
        finally:  # whatever a registry thinks of it
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _let_go(self) -> None:
        """The block is left: whoever still reads or writes is told so, and every descriptor is closed."""
        if self._timer is not None:
            self._timer.cancel()
        for end in (self._stdin, self._stdout, self._stderr):
            if end is not None:
                end.close()
        self._handle.close()

    def _is_all_gone(self) -> bool:
        """Whether it has ended by itself and its group is empty too, without looking further."""
        handle = self._handle
        if handle.exit is None:
            return False
        return handle.containment is Containment.NONE or not handle.signal_group(0)

    def _has_said_all(self) -> bool:
        """Whether its output was read to the end, so that its own end is near."""
        sources = [source for source in (self._stdout, self._stderr) if source is not None]
        return bool(sources) and all(source.at_end for source in sources)

    async def _ends_by_itself(self, within: float) -> None:
        """Lets a process that has closed its output end with its own exit code."""
        if self._handle.exit is not None:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waiters.append(waiter)
        await wait_until(waiter, self._loop.time() + within)

    def _out_of_time(self) -> None:
        self.timed_out = True
        self._stop().begin(self.command.grace)

    # ------------------------------------------------------------------------------------ reading it

    @property
    def pid(self) -> int:
        """Its process id; after its end the number may belong to somebody else."""
        return self._handle.pid

    @property
    def pidfd(self) -> int | None:
        """Its pidfd, owned by this object; ``None`` where there are none or after the block."""
        return self._handle.pidfd

    @property
    def ref(self) -> ProcessRef:
        """Pid and start time together, which name it for good."""
        return self._handle.ref

    @property
    def exit(self) -> Exit | None:
        """How it ended, or ``None`` while it lives."""
        return self._handle.exit

    @property
    def returncode(self) -> int | None:
        """Exit code or negative signal number; ``None`` while it lives or when the status was lost."""
        exit = self._handle.exit
        return None if exit is None else exit.returncode

    @property
    def state(self) -> ProcessState:
        """Where it stands in its life."""
        return self._entry.state

    @property
    def is_running(self) -> bool:
        """Whether it has not been seen to end."""
        return self._handle.exit is None

    @property
    def containment(self) -> Containment:
        """The rung of containment that is really in force."""
        return self._handle.containment

    @property
    def uptime(self) -> float:
        """Seconds since it was started, until its end."""
        return (self.ended_at or self._loop.time()) - self.started_at

    @property
    def report(self) -> StopReport | None:
        """What the last stop did, once it is over."""
        return None if self._stopper is None else self._stopper.report

    def __repr__(self) -> str:
        return f"<Process {self.name} {self.id} pid={self.pid} {self._handle.exit or self.state}>"

    # ---------------------------------------------------------------------------------- its streams

    @property
    def stdin(self) -> Writer | None:
        """Writes to its stdin, when that is a pipe or a terminal."""
        if self._stdin is None and self._handle.stdin is not None:
            self._stdin = Writer(self._handle.stdin, self._loop, self.command)
        return self._stdin

    @property
    def stdout(self) -> Source | None:
        """Reads its stdout, when that is a pipe or a terminal."""
        if self._stdout is None and self._handle.stdout is not None:
            self._stdout = self._source(self._handle.stdout, Stream.STDOUT)
        return self._stdout

    @property
    def stderr(self) -> Source | None:
        """Reads its stderr, when that is a pipe."""
        if self._stderr is None and self._handle.stderr is not None:
            self._stderr = self._source(self._handle.stderr, Stream.STDERR)
        return self._stderr

    def _source(self, inlet: Inlet, stream: Stream) -> Source:
        source = Source(inlet, stream, self._loop)
        if self._handle.exit is not None:
            source.bound(LINGER)
        return source

    def _sources(self, which: Which) -> list[Source]:
        if which not in ("stdout", "stderr", "both"):
            raise ConfigError("stream", which, '"stdout", "stderr" or "both" is needed')
        wanted = {"stdout": self.stdout, "stderr": self.stderr} if which == "both" else {which: getattr(self, which)}
        sources = [source for source in wanted.values() if source is not None]
        if not sources:
            raise ConfigError("stream", which, "it is not a pipe: see the command's stdout and stderr")
        return sources

    def _divert_other(self, which: Which) -> None:
        other = {"stdout": self.stderr, "stderr": self.stdout}.get(which)
        if other is not None:
            other.divert()

    def lines(
        self,
        stream: Which | None = None,
        *,
        encoding: str = "utf-8",
        errors: str = "backslashreplace",
        max_line: int = 65536,
    ) -> AsyncIterator[Line]:
        """Iterates over the lines of what it writes, as they arrive.

        The iteration ends with the output; once the process has ended, also after 0.25 s of silence, though a
        descendant may hold its pipe open. A slow reader makes the process wait, never our memory grow. The iteration may be left early
        and taken up again; nothing is lost in between.

        Args:
            stream: ``"stdout"``, ``"stderr"``, ``"both"``; default: all that are pipes, merged in order of arrival.
                When one of two pipes is read alone, the other is kept as a tail of 1 MiB so that
                it cannot block the process.
            encoding: of the text.
            errors: what becomes of bytes that are not text, as for ``bytes.decode``.
            max_line: bytes after which a line is delivered in pieces, marked ``partial``.

        Yields:
            ``Line``: text without its line end, with ``stream``, ``partial`` and ``at`` (loop time).

        Raises:
            ConfigError: the stream is not a pipe.

        Cancellation: safe; nothing is lost.
        """
        if stream is None:
            stream = "both" if self._handle.stderr is not None and self._handle.stdout is not None else (
                "stdout" if self._handle.stdout is not None else "stderr"
            )  # fmt: skip
        sources = self._sources(stream)
        self._divert_other(stream)
        return lines(sources, encoding=encoding, errors=errors, max_line=max_line)

    def chunks(self, stream: Which = "stdout", *, limit: int = 65536) -> AsyncIterator[bytes]:
        """Iterates over what it writes as bytes, in pieces as the system delivers them.

        Args:
            stream: ``"stdout"`` (default), ``"stderr"``, or ``"both"``, which yields ``Chunk``: bytes with
                a ``stream`` attribute, in order of arrival. The stream that is not read is kept as a
                tail of 1 MiB so that it cannot block the process.
            limit: the most bytes in one piece.

        Raises:
            ConfigError: the stream is not a pipe.

        Cancellation: safe; nothing is lost.
        """
        sources = self._sources(stream)
        self._divert_other(stream)
        if stream == "both":
            return merged(sources)
        return _pieces(sources[0], limit)

    def communicator(
        self, *, encoding: str = "utf-8", errors: str = "backslashreplace", max_line: int = 1 << 20
    ) -> Communicator:
        """A conversation with it over stdin and stdout: ``send_line``, ``receive_line``, ``request``.

        After its end nobody waits for an answer longer than 0.25 s, even if a descendant holds its stdout open.

        Raises:
            StreamClosed: at first use, when a stream it needs is not a pipe.
        """
        return Communicator(self, encoding=encoding, errors=errors, max_line=max_line)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal; the programs at it get SIGWINCH.

        Raises:
            ConfigError: it was not started with ``pty=True``, or the size is not acceptable.
        """
        if not (0 < rows < 65536 and 0 < columns < 65536):
            raise ConfigError("pty_size", (rows, columns), "rows and columns are 1 to 65535")
        self._handle.resize(rows, columns)

    # ------------------------------------------------------------------------------------- its end

    async def wait(self) -> int | None:
        """Waits for its end and returns the return code, whoever still holds its pipes.

        Any number of callers may wait; all get the same answer, also after the end.

        Raises:
            ExecutionTimeout: its command's ``timeout`` has ended it.

        Cancellation: safe; only the waiting ends.
        """
        while self._handle.exit is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                raise
        if self.timed_out:
            raise ExecutionTimeout(self.command.timeout or 0.0, self.command, "run", None, self.report)
        return self._handle.exit.returncode

    async def stop(self, grace: float | None = None) -> StopReport:
        """Stops it and everything it started, and proves it.

        The stop signal (and SIGCONT, in case it is suspended) goes to the whole tree; what is left
        after the grace period is killed, again and again until nothing is found. Callers share one
        stop; a later call with a shorter grace hurries it.

        Args:
            grace: seconds until SIGKILL; default: the command's; 0 kills at once.

        Returns:
            What was signalled, what had escaped, what survived, and how long it took.

        Raises:
            ConfigError: the grace is negative or not a number.

        Cancellation: absorbed until the stop is over (at most grace + 2 s), then raised.
        """
        if grace is None:
            grace = self.command.grace
        elif isinstance(grace, bool) or not isinstance(grace, (int, float)) or not grace >= 0:
            raise ConfigError("grace", grace, "a number of seconds, 0 or more, is needed")
        return await self._stop().stop(grace)

    def _stop(self) -> Stopper:
        if self._stopper is None:
            self._stopper = Stopper(self._handle, self._entry, self.command, self.id)
        return self._stopper

    # ------------------------------------------------------------------------------------- signals

    def send_signal(self, signum: int | str) -> None:
        """Signals the process itself, through its pidfd.

        Raises:
            ProcessLookupError: it has ended.
            ConfigError: there is no such signal.
        """
        self._handle.send_signal(_signal(signum))

    def terminate(self) -> None:
        """Sends SIGTERM to the process itself.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._handle.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL to the process itself; for the whole tree use ``stop(0)``.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._handle.send_signal(signal.SIGKILL)

    def signal_tree(self, signum: int | str) -> Reach:
        """Signals its process group at once; awaited, also every descendant that left the group.

        Raises:
            ProcessLookupError: nothing of it lives.
            ConfigError: there is no such signal.
        """
        return Reach(self._handle, _signal(signum))

    def suspend(self) -> Reach:
        """Stops it and its group with SIGSTOP at once; awaited, also descendants that left the group.

        Raises:
            ProcessLookupError: it has ended.
            InvalidTransition: it is being stopped for good.
        """
        state = self._entry.state
        if state is ProcessState.STOPPING:  # nothing may freeze what is being stopped: refused, with the story
            self._entry.to(ProcessState.SUSPENDED, "suspend")
        reach = self._alive(signal.SIGSTOP)
        if state is not ProcessState.SUSPENDED:
            self._entry.to(ProcessState.SUSPENDED, "suspend")
        return reach

    def resume(self) -> Reach:
        """Continues what :meth:`suspend` stopped.

        Raises:
            ProcessLookupError: it has ended.
        """
        reach = self._alive(signal.SIGCONT)
        if self._entry.state is ProcessState.SUSPENDED:
            self._entry.to(ProcessState.RUNNING, "resume")
        return reach

    def _alive(self, signum: int) -> Reach:
        if self._handle.exit is not None:
            raise ProcessLookupError(f"{self.name} has ended")
        return Reach(self._handle, signum)


def _signal(signum: int | str) -> int:
    try:
        return signal_number(signum)
    except ValueError as error:
        raise ConfigError("signal", signum, str(error)) from None


async def _pieces(source: Source, limit: int) -> AsyncIterator[bytes]:
    while data := await source.read(limit):
        yield data
