"""``asyncio.create_subprocess_exec`` and ``asyncio.create_subprocess_shell`` on our engines: the drop-in."""

from __future__ import annotations

import asyncio
import signal as _signal
from typing import Any

from procession._launch._engines import default_launcher
from procession._launch._owner import owner
from procession._launch._popen import PopenCommand
from procession.process._compat_command import exec_command, shell_command
from procession.process._compat_transport import ChildTransport

_LIMIT = 65_536


class DropInProcess(asyncio.subprocess.Process):
    """What the drop-in functions return: asyncio's ``Process`` – same attributes, same streams – over our engines.

    Attributes:
        pid: its process id.
        stdin: an ``asyncio.StreamWriter``, or ``None`` when it is not a pipe.
        stdout: an ``asyncio.StreamReader``, or ``None`` when it is not a pipe.
        stderr: the same for stderr.
    """

    _transport: ChildTransport

    def __repr__(self) -> str:
        return f"<Process {self.pid}>"

    @property
    def returncode(self) -> int | None:
        """Exit code or negative signal number; ``None`` while it lives, and when the status was lost."""
        return self._transport.get_returncode()

    async def wait(self) -> int:
        """Waits for the end of the process, also while a descendant still holds its pipes, and returns ``returncode``.

        Cancellation: safe; only the waiting ends.
        """
        return await self._transport.wait_exit()  # type: ignore[return-value]

    async def communicate(self, input: bytes | bytearray | memoryview | None = None) -> tuple[bytes, bytes]:
        """Writes ``input`` to stdin and closes it, reads stdout and stderr to their ends, waits for the process.

        A process that stops reading is no error. Streams that are not pipes give ``None``. Without ``input`` a stdin
        that is a pipe is closed, as from Python 3.12 on.

        Cancellation: the process lives on, and what was read is lost.
        """
        if input is None and self.stdin is not None:
            input = b""
        return await super().communicate(input)

    def send_signal(self, signal: int) -> None:
        """Signals exactly this process; its pid cannot have become another's.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._transport.send_signal(signal)

    def terminate(self) -> None:
        """Sends SIGTERM.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._transport.send_signal(_signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._transport.send_signal(_signal.SIGKILL)


async def create_subprocess_exec(
    program: Any,
    *args: Any,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> DropInProcess:
    """``asyncio.create_subprocess_exec``, started by procession: same arguments, same result, on every loop alike.

    All that ``subprocess.Popen`` can be told works on asyncio and on uvloop (``user``, ``group``, ``umask``,
    ``process_group``, …). What differs from asyncio:

    - ``wait()`` returns at the end of the process, also while a descendant holds its pipes; ``communicate()`` waits for
      their ends as asyncio's does;
    - ``send_signal()``, ``terminate()`` and ``kill()`` always raise ``ProcessLookupError`` once the process was reaped;
    - ``returncode`` is ``None`` when somebody else reaped the process and the kernel keeps no record: nothing is
      invented, where asyncio says 255;
    - the child gets two more environment variables, and dies when this program is killed;
    - children that live when the loop is shut down (``asyncio.run`` does that in the end) are killed and reaped there;
    - ``preexec_fn`` is refused; ``user``, ``group`` and ``extra_groups`` need ``setpriv`` (Linux);
    - bad values raise :class:`~procession.ConfigError` (a ``ValueError``), failures to start
      :class:`~procession.SpawnError` in the subclass that fits (a ``FileNotFoundError``, …);
    - neither child watchers nor ``loop.subprocess_exec`` and ``loop.connect_read_pipe`` are used, and the process has
      no ``Popen`` object.

    Args:
        program: the program; without a slash it is looked up on the ``PATH`` of ``env``.
        args: its arguments.
        stdin: ``None`` (inherit), ``subprocess.PIPE``, ``subprocess.DEVNULL``, a descriptor or a file.
        stdout: the same.
        stderr: the same, or ``subprocess.STDOUT``.
        limit: bound of the buffers of ``stdout`` and ``stderr``, see ``asyncio.StreamReader``.
        kwds: keywords of ``subprocess.Popen``.

    Raises:
        ValueError: text mode, a buffer size or a shell was asked for, or another value was refused.
        TypeError: a keyword is unknown.
        SpawnError: it could not be started; nothing is left of the attempt.

    Cancellation: a child already made is killed and reaped before the cancellation goes on.
    """
    return await _create(exec_command((program, *args), (stdin, stdout, stderr), kwds), limit)


async def create_subprocess_shell(
    cmd: str | bytes,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    limit: int = _LIMIT,
    **kwds: Any,
) -> DropInProcess:
    """``asyncio.create_subprocess_shell``, started by procession; see :func:`create_subprocess_exec` for all else.

    Args:
        cmd: the text ``/bin/sh`` runs; quote what comes from elsewhere with ``shlex.quote``.
        stdin: as for :func:`create_subprocess_exec`.
        stdout: the same.
        stderr: the same.
        limit: the same.
        kwds: the same.

    Raises:
        ValueError: as for :func:`create_subprocess_exec`.
        TypeError: a keyword is unknown.
        SpawnError: it could not be started; nothing is left of the attempt.

    Cancellation: a child already made is killed and reaped before the cancellation goes on.
    """
    return await _create(shell_command(cmd, (stdin, stdout, stderr), kwds), limit)


async def _create(command: PopenCommand, limit: int) -> DropInProcess:
    """Starts it; from the fork to the finished object there is no suspension.

    Cancellation: a child already made is killed and reaped before the cancellation goes on.
    """
    if limit <= 0:
        raise ValueError("Limit cannot be <= 0")
    loop = asyncio.get_running_loop()
    handle = await default_launcher().launch(command, owner().new_id())
    protocol = asyncio.subprocess.SubprocessStreamProtocol(limit, loop)
    transport = ChildTransport(handle, protocol, loop)
    try:
        await transport.begin()
        return DropInProcess(transport, protocol, loop)
    except BaseException:
        transport.abandon()
        raise
