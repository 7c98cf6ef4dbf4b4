"""A real child: its pipes, signals, group and exit, by pidfd or – where there are none – by a waiting thread."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from procession._launch import _live, _spawner
from procession._launch._fds import quietly
from procession._launch._member import PidMember
from procession._launch._scanner import find
from procession._launch._stdio import set_size
from procession._linux import _pidfd, _proc
from procession._types import Containment, Exit, ProcessRef
from procession.errors import ConfigError

if TYPE_CHECKING:
    from procession._launch._plan import Child, Plan
    from procession._linux._cgroup import Cgroup


_FUTURE = 1 << 62


class RealHandle:
    """What all real children have in common; how the end is noticed is left to the subclasses.

    Everything here runs on the loop's thread, so between asking whether the child was reaped and
    signalling it nothing can happen.
    """

    __slots__ = ("_callbacks", "_cgroup", "_grouped", "_id", "_loop", "_mortal", "_reaped", "_terminal", "containment", "exit",
                 "pidfd", "ref", "stderr", "stdin", "stdout")  # fmt: skip

    def __init__(self, plan: Plan, child: Child, loop: asyncio.AbstractEventLoop) -> None:
        self.ref: ProcessRef = child.ref
        self.pidfd: int | None = child.pidfd
        self.exit: Exit | None = None
        self.containment: Containment = plan.containment
        self._loop = loop
        self._watch()  # first: while this can fail, the pipes are still the plan's to close
        self.stdin, self.stdout, self.stderr = plan.stdio.ends(loop)
        self._terminal = plan.stdio.terminal is not None
        self._cgroup = plan.cgroup
        self._grouped = plan.containment is not Containment.NONE
        self._id = plan.id
        self._mortal = not plan.command.detach
        self._callbacks: list[Callable[[Exit], None]] = []
        self._reaped = _FUTURE  # the last tick at which the pid was certainly the child's
        _live.count_live(1)
        _live.leaders[self._id] = child.ref.pid

    def _watch(self) -> None:
        raise NotImplementedError  # by pidfd or by thread: each subclass has its own way, there is no third

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.ref.pid

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Calls ``callback`` once it was reaped; at once if it has been."""
        if self.exit is not None:
            callback(self.exit)
        else:
            self._callbacks.append(callback)

    def _ended(self, exit: Exit) -> None:
        self.exit = exit
        self._reaped = _proc.boot_ticks()
        self._forget()
        if _live.on_end is not None:
            _live.on_end()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(exit)

    def _forget(self) -> None:
        if _live.leaders.pop(self._id, None) is not None:
            _live.count_live(-1)

    # --------------------------------------------------------------------------------------- signals

    def send_signal(self, signum: int) -> None:
        """Signals the child itself.

        Raises:
            ProcessLookupError: it has ended.
        """
        if self.exit is not None:
            raise ProcessLookupError(f"process {self.pid} has ended")
        if self.pidfd is not None:
            _pidfd.send(self.pidfd, signum)
        else:
            os.kill(self.pid, signum)  # not reaped by us, so the pid is still its own

    def signal_group(self, signum: int) -> bool:
        """Signals all of its process group (0 only asks); ``False`` when nobody is left in it.

        After the child was reaped and where pidfds cannot signal groups (before Linux 6.9), this only
        asks: the number might be somebody else's, so members are then signalled one by one.
        """
        if not self._grouped:
            try:
                self.send_signal(signum)
            except ProcessLookupError:
                return False
            return True
        if self.pidfd is not None and _pidfd.has_group_signal():
            return _pidfd.send_group(self.pidfd, signum)
        try:
            os.killpg(self.pid, signum if self.exit is None else 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    # ------------------------------------------------------------------------------------------ tree

    async def members(self) -> Sequence[PidMember]:
        """Finds what else lives of its tree, as far as the rung in force can prove it; off the loop.

        Cancellation: safe; what was found is let go of.
        """
        if self.containment is Containment.NONE:
            return ()
        until = self._reaped if self._grouped and self.signal_group(0) else None
        wanted = _proc.Wanted(self._id, self.ref, until)
        found = [*await find(wanted)]
        if self._cgroup is not None:
            found += self._others_in_cgroup(self._cgroup, wanted, {item.ref.pid for item in found})
        members = [PidMember(item, self._loop) for item in found]
        if self.containment is not Containment.GROUP:
            return members
        for member in members:
            if member.escaped:
                member.close()
        return [member for member in members if not member.escaped]

    def _others_in_cgroup(self, cgroup: Cgroup, wanted: _proc.Wanted, known: set[int]) -> list[_proc.Found]:
        """Who carries no cookie and left group and session is still in the cgroup, which proves it ours."""
        others = []
        for pid in cgroup.pids():
            seen = _proc.stat(pid) if pid not in known and pid != self.pid else None
            item = _proc._pin(seen, wanted) if seen is not None and seen.state not in "ZX" else None
            if item is not None and pid in cgroup.pids():
                others.append(item)
            elif item is not None and item.pidfd is not None:
                os.close(item.pidfd)  # the number was somebody else's by then
        return others

    def kill_container(self) -> bool:
        """Ends all of its cgroup at once; ``False`` when it has none."""
        return self._cgroup is not None and self._cgroup.kill()

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal.

        Raises:
            ConfigError: it has no terminal.
        """
        if not self._terminal or self.stdout is None or self.stdout.fileno() < 0:
            raise ConfigError("pty", False, "only a process started with pty=True has a size")
        set_size(self.stdout.fileno(), rows, columns)

    def close(self) -> None:
        """Lets go of the pidfd, pipes and cgroup. A child that still lives is not touched."""
        for end in (self.stdin, self.stdout, self.stderr):
            if end is not None:
                end.close()
        if self.exit is None:
            self._abandon()
        if self.exit is not None and self.pidfd is not None:
            pidfd, self.pidfd = self.pidfd, None
            os.close(pidfd)
        if self._cgroup is not None and self._cgroup.remove():
            self._cgroup = None

    def _abandon(self) -> None:
        """It lives on without us; somebody still has to reap it one day."""

    def __del__(self) -> None:
        """The last resort when a loop was closed over a live child: it is killed, its group too, and reaped."""
        if not getattr(self, "_mortal", False) or self._id not in _live.leaders:
            return  # it may live on; or this is a child made by os.fork, whose own it never was
        if self.exit is None and self.pidfd is not None and self._loop.is_closed():
            warnings.warn(f"the loop was closed while process {self.pid} lived: killed", ResourceWarning, stacklevel=1)
            pidfd, self.pidfd = self.pidfd, None
            self._forget()
            try:
                if self._grouped and _pidfd.has_group_signal():
                    _pidfd.send_group(pidfd, 9)
                _pidfd.send(pidfd, 9)
            except ProcessLookupError:
                pass
            _spawner.spawner().watch(pidfd, _reap_abandoned)
            self.close()


class PidfdHandle(RealHandle):
    """The end is seen through the pidfd: no thread, no signal handler, no waiting for pipes."""

    __slots__ = ()

    def _watch(self) -> None:
        if self.pidfd is None:
            self._loop.call_soon(self._ended, Exit(None))  # gone before it could be watched
        else:
            self._loop.add_reader(self.pidfd, self._readable)

    def send_signal(self, signum: int) -> None:
        """As for any child; one that was let go of may have been reaped since, and its pid be anybody's.

        Raises:
            ProcessLookupError: it has ended, or was let go of.
        """
        if self.pidfd is None:
            raise ProcessLookupError(f"process {self.pid} has ended or was let go of")
        super().send_signal(signum)

    def signal_group(self, signum: int) -> bool:
        """As for any child; ``False`` for one that was let go of alive."""
        return (self.pidfd is not None or self.exit is not None) and super().signal_group(signum)

    def _readable(self) -> None:
        if self.pidfd is None or self.exit is not None:
            return  # a stale wake-up
        exit = _pidfd.reap(self.pidfd)
        if exit is not None:
            self._loop.remove_reader(self.pidfd)
            self._ended(exit)

    def _abandon(self) -> None:
        if self.pidfd is None:
            return
        pidfd, self.pidfd = self.pidfd, None
        quietly(self._loop.remove_reader, pidfd)
        self._forget()
        _spawner.spawner().watch(pidfd, self._ended_later)

    def _ended_later(self, pidfd: int) -> None:
        """In the spawner's thread: reaps it and, if the loop still runs, lets everybody know."""
        exit = _pidfd.reap(pidfd)
        os.close(pidfd)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to hear of it
            self._loop.call_soon_threadsafe(self._ended, exit or Exit(None))


def _reap_abandoned(pidfd: int) -> None:
    _pidfd.reap(pidfd)
    os.close(pidfd)


class ThreadHandle(RealHandle):
    """The end is seen by a thread that waits for this child alone: portable, and one thread per child."""

    __slots__ = ()

    def _watch(self) -> None:
        threading.Thread(
            target=_wait, args=(self.pid, self._loop, self._waitable), name=f"procession-wait-{self.pid}", daemon=True
        ).start()

    def _waitable(self) -> None:
        """On the loop's thread, so that reaping and signalling cannot overlap."""
        if self.exit is not None:
            return
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            self._ended(Exit(None) if self.pidfd is None else _pidfd.recorded_exit(self.pidfd))
            return
        if pid:
            self._ended(_pidfd.from_status(status))

    def _abandon(self) -> None:
        """The thread goes on and has it reaped; only the pidfd goes."""
        pidfd, self.pidfd = self.pidfd, None
        if pidfd is not None:
            os.close(pidfd)


def _wait(pid: int, loop: asyncio.AbstractEventLoop, tell: Callable[[], None]) -> None:
    """Waits without reaping: the zombie keeps the pid taken until the loop has noticed."""
    try:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        pass  # somebody else has reaped it
    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:  # the loop is closed
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            return
