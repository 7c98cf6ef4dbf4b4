"""The two engines for real children. They differ in how the end of a child is noticed."""

from __future__ import annotations

import asyncio
import errno
import functools
import weakref
from typing import TYPE_CHECKING

from procession._core.aio import finish, settle
from procession._launch import _live, _spawner
from procession._launch._diagnose import spawn_error
from procession._launch._ending import end_tree
from procession._launch._handle import PidfdHandle, RealHandle, ThreadHandle
from procession._launch._plan import Child, Plan
from procession._launch._watchdog import Watchdog
from procession._linux import _pidfd
from procession.errors import ConfigError, SpawnError, SpawnFailure

if TYPE_CHECKING:
    from procession.command import Command


class _ThreadedLauncher:
    """Makes children in the spawner thread, each within a deadline."""

    name = "threaded"
    _handle: type[RealHandle] = RealHandle

    def __init__(self, *, spawn_timeout: float = 30.0) -> None:
        if isinstance(spawn_timeout, bool) or not isinstance(spawn_timeout, (int, float)) or not spawn_timeout > 0:
            raise ConfigError("spawn_timeout", spawn_timeout, "a number of seconds above 0 is needed")
        self.spawn_timeout = spawn_timeout
        self._watchdogs: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watchdog] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} spawn_timeout={self.spawn_timeout:g}>"

    async def launch(self, command: Command, id: str) -> RealHandle:
        """Starts ``command`` under the cookie ``id``.

        Raises:
            SpawnError: it could not be started; nothing is left of the attempt.
            ConfigError: the command asks for something that cannot be.

        Cancellation: a child already made is killed with its tree, reaped and its pipes closed
            before the cancellation goes on.
        """
        loop = asyncio.get_running_loop()
        plan = Plan(command, id, pidfd=_pidfd.has_pidfd())
        job: _spawner.Job[Child] = _spawner.Job(command, plan.start, plan.dispose, loop)
        self._watchdog(loop).watch(job)
        _live.starting.add(id)
        try:
            spawner = _spawner.spawner()
            spawner.submit(job)
        except (OSError, RuntimeError) as error:  # no descriptor for its pipe, or no thread
            job.future.cancel()
            _live.starting.discard(id)
            plan.abort()
            lack = error if isinstance(error, OSError) else OSError(errno.EAGAIN, str(error))
            raise spawn_error(lack, command, plan.program) from None
        try:
            child = await job.future
        except asyncio.CancelledError:
            await self._give_up(job, plan, loop)
            raise
        except BaseException:  # it failed, or this coroutine is thrown away, perhaps with its loop
            job.unwanted = True
            if job.future.done() and not job.future.cancelled() and job.future.exception() is None:
                plan.dispose(job.future.result())
            elif spawner.withdraw(job) or job.state == "done":
                plan.abort()  # a late one is disposed of when it arrives
            raise
        finally:
            _live.starting.discard(id)
        return self._hold(plan, child, loop)

    def _hold(self, plan: Plan, child: Child, loop: asyncio.AbstractEventLoop) -> RealHandle:
        """Takes hold of the child; when the loop refuses to watch it, it is ended here and now."""
        try:
            return self._handle(plan, child, loop)
        except BaseException as error:
            plan.dispose(child)
            if isinstance(error, OSError) and not isinstance(error, SpawnError):  # epoll has a limit too
                raise spawn_error(error, plan.command, plan.program) from None
            if isinstance(error, RuntimeError):  # threading's word for the limit of threads
                raise SpawnError.of(SpawnFailure.PROCESS_LIMIT, plan.command) from error
            raise

    def _watchdog(self, loop: asyncio.AbstractEventLoop) -> Watchdog:
        watchdog = self._watchdogs.get(loop)
        if watchdog is None:
            watchdog = self._watchdogs[loop] = Watchdog(loop, self.spawn_timeout)
        return watchdog

    async def _give_up(self, job: _spawner.Job[Child], plan: Plan, loop: asyncio.AbstractEventLoop) -> None:
        """Cancelled: takes the job back, or waits for the child that is being made and ends it."""
        if _spawner.spawner().withdraw(job):
            plan.abort()
            return
        if job.future.done() and not job.future.cancelled():
            future = job.future
        else:
            future = job.late = job.late or loop.create_future()
            bound = loop.call_later(self.spawn_timeout, self._abandon, job)
            future.add_done_callback(lambda _: bound.cancel())
        try:
            child, _ = await settle(future)
        except Exception:  # noqa: BLE001 - whatever kept it from being made, what goes on is the cancellation
            if job.state == "done":
                plan.abort()
            return
        handle = self._hold(plan, child, loop)
        await finish(_discard(handle))

    def _abandon(self, job: _spawner.Job[Child]) -> None:
        if job.late is not None and not job.late.done():
            if job.state == "running":
                _spawner.spawner().relieve()
            job.late.set_exception(TimeoutError())


async def _discard(handle: RealHandle) -> None:
    try:
        await end_tree(handle, stop_signal=None, grace=0.0)
    finally:
        handle.close()


class PidfdLauncher(_ThreadedLauncher):
    """The engine on Linux: no thread per child, no SIGCHLD handler, the same on asyncio and uvloop.

    Args:
        spawn_timeout: seconds the kernel may take to start a program (from fork to the end of ``execve``)
            before the spawn fails with ``SpawnFailure.TIMEOUT``; whatever starts later is ended.

    Raises:
        SpawnError: pidfds are missing (before Linux 5.4, or forbidden); use ``AsyncioLauncher``,
            which is what :func:`default_launcher` falls back to.
    """

    name = "pidfd"
    _handle = PidfdHandle

    def __init__(self, *, spawn_timeout: float = 30.0) -> None:
        super().__init__(spawn_timeout=spawn_timeout)
        if not _pidfd.has_pidfd():
            raise ConfigError("launcher", "pidfd", "this system has no pidfds; use AsyncioLauncher")


class AsyncioLauncher(_ThreadedLauncher):
    """The portable engine (macOS, old kernels, containers that forbid pidfds): one waiting thread per child.

    Args:
        spawn_timeout: as for :class:`PidfdLauncher`.
    """

    name = "asyncio"
    _handle = ThreadHandle


@functools.cache
def default_launcher() -> PidfdLauncher | AsyncioLauncher:
    """The best engine this system allows; a fall-back is logged once."""
    if _pidfd.has_pidfd():
        return PidfdLauncher()
    import logging

    logging.getLogger("procession").warning("no pidfds here: falling back to one waiting thread per child")
    return AsyncioLauncher()
