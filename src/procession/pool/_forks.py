"""The template as its owner sees it: asks it for workers, and learns from it how they ended."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import logging
import marshal
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from procession._core.aio import Latch, finish
from procession._launch._ending import end_tree
from procession._launch._fds import quietly
from procession._launch._handle import RealHandle
from procession._launch._owner import owner as this_program
from procession._launch._plan import Child, Plan
from procession._launch._stdio import Stdio3
from procession._linux import _pidfd, _proc
from procession._types import Containment, ProcessRef
from procession.command import Command
from procession.errors import SpawnError, SpawnFailure, WorkerStartError
from procession.pool import _template
from procession.pool._shared import RUN_TEMPLATE, interpreter, shared
from procession.process import Spawning

if TYPE_CHECKING:
    from procession.abc import Registrar
    from procession.pool._config import PoolConfig

_log = logging.getLogger("procession.pool")
_HUNG = 10.0  # seconds a fork may take before the template is given up
_AT_ONCE = 16  # forks asked for at once: more would only fill the socket
_ID = b"PROCESSION_ID"
_TOLD = 1.0  # seconds the template may take to tell of an end that the kernel has told of
_LOOKS, _LOOK_AGAIN = 25, 0.01  # how often, and how far apart, the kernel is asked for the exit of an orphan


def is_possible() -> bool:
    """Whether this system can have a template: pidfds that travel, and signal groups."""
    return (
        _pidfd.has_group_signal()
        and _proc.has_proc()
        and hasattr(socket, "SOCK_SEQPACKET")
        and hasattr(os, "memfd_create")
    )


class Template:
    """One template process."""

    def __init__(self, pool: str, config: PoolConfig, registry: Registrar | None, settings: dict[str, Any]) -> None:
        self.pool = pool
        self.alive = False
        self._config = config
        self._registry = registry
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._end: socket.socket | None = None
        self._spawning: Spawning | None = None
        self._tokens = 0
        self._asked: dict[int, asyncio.Future[tuple[int, int]]] = {}
        self._watched: dict[int, Callable[[int | None], None]] = {}
        self._told: dict[int, int] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._up: asyncio.Future[bytes] = self._loop.create_future()
        self._closing: Latch | None = None

    async def open(self) -> bool:
        """Starts it and waits until everything is imported; ``False`` when what was imported forbids to fork.

        Raises:
            WorkerStartError: something could not be imported.
            SpawnError: it could not be started.

        Cancellation: nothing is left of it before the cancellation goes on.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = -1
        data = marshal.dumps(self._settings)
        try:
            given = shared(len(data), data)
            fds = (theirs.fileno(), given)
            program = str(Path(_template.__file__))
            words = interpreter(RUN_TEMPLATE, program, *map(str, fds))
            labels = {"pool": self.pool}
            command = Command(*words, pass_fds=fds, env=self._config.env, grace=0, labels=labels)
            # Long enough for the id of any child to be written over it.
            id = f"{this_program().new_id()}-template"
            spawning = Spawning(command, self._registry, None, "template", self.pool, id)
            process = await spawning.open(None)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            if given >= 0:
                os.close(given)
        self._spawning = spawning
        self._end = ours
        self.alive = True
        ours.setblocking(False)
        self._loop.add_reader(ours.fileno(), self._readable)
        try:
            async with asyncio.timeout(self._config.start_timeout):
                first = await self._up
        except TimeoutError:
            await self.close()
            reason = f"preload took more than {self._config.start_timeout:g} s"
            raise WorkerStartError(self.pool, reason) from None
        except BaseException:
            await self.close()
            raise
        if first[:1] == b"R":
            return True
        error, tail = None, b""
        if process._handle.stderr is not None:
            with contextlib.suppress(OSError):
                tail = process._handle.stderr.read_nowait(4096) or b""
        if first[:1] == b"E":
            _, kind, text, trace, _ = marshal.loads(first[1:])  # noqa: S302 - our own program
            error = WorkerStartError(self.pool, f"preload raised {kind}: {text}", None, trace)
        elif first[:1] != b"T":
            error = WorkerStartError(self.pool, "the template ended", process.exit, tail.decode("utf-8", "replace"))
        await self.close()
        if error is not None:
            raise error
        _log.warning("%s: what is preloaded runs threads, so every worker imports it by itself", self.pool)
        return False

    async def close(self) -> None:
        """Ends it.

        Cancellation: absorbed until nothing of it is left, then raised.
        """
        await finish(self._close())

    async def _close(self) -> None:
        if self._closing is not None:
            await asyncio.wait((self._closing,))
            return
        self._closing = Latch(loop=self._loop)
        self._ended()
        spawning = self._spawning
        if spawning is not None and spawning.process is not None:
            await spawning.process.stop(0)
            await spawning.close(by_exception=False)
        self._closing.open()

    def launcher(self, channel: int, page: int) -> ForkLauncher:
        """What makes one worker from it."""
        return ForkLauncher(self, channel, page)

    # -------------------------------------------------------------------------------------- talking

    async def fork(self, id: str, fds: list[int]) -> tuple[int, int]:
        """Has a child made; returns its pid and a pidfd.

        Raises:
            OSError: the system refused, or the template is gone.

        Cancellation: a child already made is handed back all the same; see :meth:`ForkLauncher.launch`.
        """
        if self._end is None:
            raise OSError(errno.ESRCH, "the template is gone")
        self._tokens += 1
        token = self._tokens
        future: asyncio.Future[tuple[int, int]] = self._loop.create_future()
        self._asked[token] = future
        cookie = this_program().cookies(id)[_ID]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        cancelled: asyncio.CancelledError | None = None
        hung = self._loop.call_later(_HUNG, self.give_up)
        try:
            self._end.sendmsg([_template.TOKEN.pack(token) + cookie], rights)
            while not future.done():
                try:
                    await asyncio.wait((future,))
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            hung.cancel()
            self._asked.pop(token, None)
        if cancelled is None:
            return future.result()
        if future.exception() is not None:
            raise cancelled
        raise _Cancelled(cancelled, *future.result())

    def give_up(self) -> None:
        """It does not answer: it is killed, so that somebody else reaps what it has made and does not look after."""
        if not self.alive:
            return
        _log.warning("%s: the template does not answer, and is killed", self.pool)
        if self._spawning is not None and self._spawning.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._spawning.process.kill()
        self._ended()

    def _readable(self) -> None:
        while self._end is not None:
            try:
                space = socket.CMSG_SPACE(4)
                data, extra, _, _ = self._end.recvmsg(1 << 16, space, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, extra = b"", []
            if not data:
                self._ended()
                return
            self._take(data, extra)

    def _take(self, data: bytes, extra: list[tuple[int, int, bytes]]) -> None:
        what = data[:1]
        if what == b"P":
            _, token, pid = _template.FORKED.unpack(data)
            (pidfd,) = array.array("i", extra[0][2])
            future = self._asked.get(token)
            if future is not None and not future.done():
                future.set_result((pid, pidfd))
            else:
                os.close(pidfd)
        elif what == b"F":
            _, token, number = _template.FAILED.unpack(data)
            future = self._asked.get(token)
            if future is not None and not future.done():
                future.set_exception(OSError(number, os.strerror(number)))
        elif what == b"X":
            _, pid, status = _template.ENDED.unpack(data)
            told = self._watched.pop(pid, None)
            if told is None:
                self._told[pid] = status
            else:
                told(status)
        elif not self._up.done():
            self._up.set_result(data)

    def _ended(self) -> None:
        """It is gone: whoever waits for a child gets none, and whoever has one learns of its end otherwise."""
        end, self._end = self._end, None
        self.alive = False
        if end is not None:
            quietly(self._loop.remove_reader, end.fileno())
            end.close()
        if not self._up.done():
            self._up.set_result(b"")
        for future in self._asked.values():
            if not future.done():
                future.set_exception(OSError(errno.ESRCH, "the template is gone"))
        watched, self._watched = self._watched, {}
        for told in watched.values():
            told(None)

    def watch(self, pid: int, told: Callable[[int | None], None]) -> None:
        """Calls ``told`` with the status of a child's end, or with ``None`` when nobody is left to know it."""
        if pid in self._told:
            self._loop.call_soon(told, self._told.pop(pid))
        elif self._end is None:
            self._loop.call_soon(told, None)
        else:
            self._watched[pid] = told

    def unwatch(self, pid: int) -> None:
        """Nobody wants to know any more."""
        self._watched.pop(pid, None)


class _Cancelled(Exception):
    """A fork came back after its caller had been cancelled."""

    def __init__(self, cancelled: asyncio.CancelledError, pid: int, pidfd: int) -> None:
        super().__init__()
        self.cancelled = cancelled
        self.pid = pid
        self.pidfd = pidfd


class ForkLauncher:
    """A launcher that has one worker forked."""

    name = "template"

    def __init__(self, template: Template, channel: int, page: int) -> None:
        self._template = template
        self._fds = (channel, page)

    async def launch(self, command: Command, id: str) -> ForkHandle:
        """Has the worker made.

        Raises:
            SpawnError: it could not be made.

        Cancellation: a child already made is killed with its tree before the cancellation goes on.
        """
        template = self._template
        plan = _ForkPlan(command, id)
        out, err = plan.stdio.child[1:]
        assert out is not None
        assert err is not None
        cancelled: asyncio.CancelledError | None = None
        try:
            async with template._turns:
                pid, pidfd = await template.fork(id, [*self._fds, out, err])
        except _Cancelled as late:
            cancelled, pid, pidfd = late.cancelled, late.pid, late.pidfd
        except OSError as error:
            plan.stdio.abort()
            raise SpawnError.of(SpawnFailure.OTHER, command, error.errno) from error
        except BaseException:
            plan.stdio.abort()
            raise
        seen = _proc.stat(pid)
        ref = ProcessRef(pid, seen.started if seen is not None else _proc.boot_ticks(), "worker")
        handle = ForkHandle(plan, Child(ref, pidfd), asyncio.get_running_loop(), template)
        if cancelled is not None:
            await finish(_discard(handle))
            raise cancelled
        return handle


async def _discard(handle: ForkHandle) -> None:
    try:
        await end_tree(handle, stop_signal=None, grace=0.0)
    finally:
        handle.close()


class _ForkPlan:
    """What a handle wants to know of how its child was made."""

    def __init__(self, command: Command, id: str) -> None:
        self.command = command
        self.id = id
        self.stdio = Stdio3(command)
        self.containment = Containment.TREE
        self.cgroup = None


class ForkHandle(RealHandle):
    """A child of the template: ours by cookie, session and pidfd, reaped by the template."""

    __slots__ = ("_late", "_looks", "_template")

    def __init__(self, plan: _ForkPlan, child: Child, loop: asyncio.AbstractEventLoop, template: Template) -> None:
        self._template = template
        self._looks = 0
        self._late: asyncio.TimerHandle | None = None
        super().__init__(cast("Plan", plan), child, loop)

    def _watch(self) -> None:
        self._template.watch(self.ref.pid, self._was_told)
        if self.pidfd is not None:
            self._loop.add_reader(self.pidfd, self._is_over)

    def _is_over(self) -> None:
        """The kernel says that it has ended. How, its parent knows, the template: if that lives and answers."""
        self._unwatch()
        if self.exit is None and self._template.alive:
            self._late = self._loop.call_later(_TOLD, self._template.give_up)

    def _unwatch(self) -> None:
        if self.pidfd is not None:
            quietly(self._loop.remove_reader, self.pidfd)
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _was_told(self, status: int | None) -> None:
        if self.exit is not None:
            return
        self._unwatch()
        if status is not None:
            self._ended(_pidfd.from_status(status))
        elif self.pidfd is not None:
            self._loop.add_reader(self.pidfd, self._orphan_ended)

    def _orphan_ended(self) -> None:
        """The template is gone, so somebody else reaps it; the kernel may remember how it ended."""
        if self.pidfd is None or self.exit is not None:
            return
        quietly(self._loop.remove_reader, self.pidfd)
        exit = _pidfd.recorded_exit(self.pidfd)
        self._looks += 1
        if exit.is_lost and self._looks < _LOOKS:
            self._loop.call_later(_LOOK_AGAIN, self._orphan_ended)  # it has not been reaped yet
        else:
            self._ended(exit)

    def send_signal(self, signum: int) -> None:
        """As for any child; one that was let go of is nobody's to signal.

        Raises:
            ProcessLookupError: it has ended, or was let go of.
        """
        if self.pidfd is None:
            raise ProcessLookupError(f"process {self.pid} has ended or was let go of")
        super().send_signal(signum)

    def signal_group(self, signum: int) -> bool:
        """As for any child; ``False`` for one that was let go of alive."""
        return self.pidfd is not None and super().signal_group(signum)

    def _abandon(self) -> None:
        self._template.unwatch(self.ref.pid)
        self._unwatch()
        pidfd, self.pidfd = self.pidfd, None
        self._forget()
        if pidfd is not None:
            os.close(pidfd)
