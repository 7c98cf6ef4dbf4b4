"""Who owns the children of this program: the owner's token, their cookies, and the guardian."""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable

from procession._clock import monotonic
from procession._launch import _spawner
from procession._linux import _pidfd
from procession._linux._proc import ID, OWNER, has_proc

_log = logging.getLogger("procession.guardian")
_OWNER, _ID = OWNER.encode(), ID.encode()
_PYTHON = re.compile(r"python|pypy")
_MARK = "procession-guardian"
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SHORT, _SHORT_LIVES = 1.0, 5  # a guardian that lives less than this, so often in a row, is not replaced at once


def guardian_interpreter() -> str | None:
    """The Python that can run the guardian; ``None`` where this program is no Python (embedded or frozen)."""
    for path in (
        sys.executable,
        getattr(sys, "_base_executable", None),
        os.path.join(sys.exec_prefix, "bin", "python3"),
    ):
        if (
            path
            and not getattr(sys, "frozen", False)
            and _PYTHON.match(os.path.basename(path))
            and os.path.exists(path)
        ):
            return path
    return None


class Owner:
    """One program as an owner of processes."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(12)
        self._count = itertools.count(1)
        self._lock = threading.Lock()
        self._pipe: int | None = None
        self._pidfd: int | None = None
        self.guardian_pid: int | None = None
        self._cgroups: list[str] = []
        self._refused = False
        self._guarded_at = 0.0
        self._short_lives = 0
        chain = os.environ.get(OWNER)
        self._owners = (f"{chain}:{self.token}" if chain else self.token).encode()
        ids = os.environ.get(ID)
        self._ids = f"{ids}:".encode() if ids else b""

    def new_id(self) -> str:
        """An id for a process: unique on this machine."""
        return f"p{self.token[:8]}-{next(self._count)}"

    def cookies(self, id: str) -> dict[bytes, bytes]:
        """The two variables every child carries, after those of the owners we have ourselves."""
        return {_OWNER: self._owners, _ID: self._ids + id.encode()}

    # ---------------------------------------------------------------------------------- guardian

    def guard(self) -> None:
        """Makes sure that the guardian lives; called in the spawner thread before a child is made."""
        if self.guardian_pid is not None or self._refused:
            return
        with self._lock:
            if self.guardian_pid is None:
                self._short_lives = 0
                self._start_guardian()

    def name_cgroup(self, path: str) -> None:
        """Tells the guardian of a directory of cgroups to end as well."""
        with self._lock:
            if path not in self._cgroups:
                self._cgroups.append(path)
                self._tell((path,))

    def _tell(self, paths: Iterable[str]) -> None:
        text = "".join(f"{path}\n" for path in paths)
        if text and self._pipe is not None:
            try:
                os.write(self._pipe, text.encode())
            except OSError:
                pass  # it is dead, and will be told again when it is replaced

    def _start_guardian(self) -> None:
        python = guardian_interpreter()
        if python is None or not has_proc():
            self._refused = True
            _log.warning("no guardian: this system has no interpreter to run it, or no /proc")
            return
        script = os.path.join(os.path.dirname(__file__), "guardian.py")
        argv = [python, "-I", "-S", script, _MARK, self.token, str(os.getpid())]
        pipe_r, pipe_w = os.pipe()
        # Until it can ignore them itself: who asks us to end may ask all of our tree, and it must outlive us.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
        try:
            child = _spawner.popen(
                argv,
                stdin=pipe_r,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
                close_fds=True,
            )
        except BaseException:
            os.close(pipe_w)
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(pipe_r)
        child.returncode = 0  # reaped through its pidfd, below
        self._pipe = pipe_w
        self.guardian_pid = child.pid
        self._guarded_at = monotonic()
        self._tell(self._cgroups)
        if _pidfd.has_pidfd():
            try:
                self._pidfd = os.pidfd_open(child.pid)
            except OSError:
                return  # it works all the same; its death would go unnoticed
            _spawner.spawner().watch(self._pidfd, self._guardian_ended)

    def _guardian_ended(self, pidfd: int) -> None:
        """In the spawner thread: it was killed, so another takes its place."""
        _pidfd.reap(pidfd)
        os.close(pidfd)
        with self._lock:
            if self._pidfd != pidfd:
                return
            if self._pipe is not None:
                os.close(self._pipe)
            self._pipe = self._pidfd = self.guardian_pid = None
            self._short_lives = self._short_lives + 1 if monotonic() - self._guarded_at < _SHORT else 0
            if self._short_lives >= _SHORT_LIVES:  # it cannot run here: another would end as soon as this one
                _log.error("the guardian keeps ending as soon as it runs; the next spawn tries again")
                return
            _log.warning("the guardian was killed; starting another")
            try:
                self._start_guardian()
            except OSError as error:
                _log.error("the guardian could not be replaced (%s); the next spawn tries again", error)

    def dismiss(self) -> None:
        """Ends the guardian, and with it whatever still carries our cookie. The next spawn starts another."""
        with self._lock:
            pipe, pidfd, pid = self._pipe, self._pidfd, self.guardian_pid
            self._pipe = self._pidfd = self.guardian_pid = None
            if pipe is not None:
                os.close(pipe)
        if pid is None:
            return
        if pidfd is None:
            os.waitpid(pid, 0)
            return
        if _spawner.spawner().unwatch(pidfd):
            try:
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            except ChildProcessError:
                pass  # somebody else has reaped it
            os.close(pidfd)


_owner: Owner | None = None
_making = threading.Lock()  # two at once would be two owners, only one of them with a guardian


def owner() -> Owner:
    """This program as an owner; another one in a child made by ``os.fork``."""
    global _owner
    if _owner is None:
        with _making:
            if _owner is None:
                _owner = Owner()
    return _owner


def _forget() -> None:
    global _making, _owner
    old, _owner = _owner, None
    _making = threading.Lock()
    if old is not None:
        for fd in (old._pipe, old._pidfd):
            if fd is not None:
                os.close(fd)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
