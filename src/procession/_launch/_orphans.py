"""Orphans of our children, adopted and reaped – only when asked for, and only what nobody else reaps.

Without it an orphan goes to process 1, which reaps it; in a container process 1 is often us. The moment
at which descendants can become our children is the end of one of ours, so every end has us look for
children of ours that we did not start: they carry our cookie, but are not its leader. Only the living can
show their cookie. Hence the look is taken there and then, before anybody is told of the end: whoever is
told may have the orphans ended, and a moment later nothing would tell them from the children of others.
"""

from __future__ import annotations

import os
import threading

from procession._launch import _live, _scanner, _spawner
from procession._launch._owner import owner
from procession._linux import _pidfd, _proc, _reserve
from procession._linux._subreaper import become_subreaper
from procession.errors import StateError

_adopted: set[int] = set()
_looking = threading.Lock()  # the loops' threads, the spawner's and the scanner's


def reap_orphans() -> None:
    """Adopts and reaps descendants of our children whose parents have ended, for the life of this program.

    For programs that run as process 1 of a container, or want no stray descendant to leave them. Only
    processes that carry our cookie are touched; children started by other libraries are left to those.
    From then on the end of each child costs a look through ``/proc`` on the thread of its loop.
    May be called more than once.

    Raises:
        StateError: the system has no pidfds or no ``/proc``.
        OSError: the kernel refuses to make us the reaper.
    """
    if not (_pidfd.has_pidfd() and _proc.has_proc()):
        raise StateError("reaping orphans needs pidfds and /proc (Linux 5.4)")
    become_subreaper()
    _live.on_end = _look_now
    _look_now()


def _look_now() -> None:
    """Where it cannot be done now, the scanner's thread does it. Never raises: an end must be told of."""
    try:
        _look()
    except (OSError, RuntimeError):  # no descriptor is left, or no thread
        _scanner.soon(_look)


def _look() -> None:
    with _looking:
        me, token = os.getpid(), owner().token.encode()
        for pid in _proc.pids():
            seen = _proc.stat(pid)
            if seen is None or seen.ppid != me or pid in _adopted or not _is_orphan(seen, token):
                continue
            try:
                _adopt(seen)
            except ProcessLookupError:
                continue  # somebody else has reaped it


def _is_orphan(seen: _proc.Stat, token: bytes) -> bool:
    if seen.state in "ZX":
        return False  # nothing tells it from the children of others
    ids = _proc.cookies(seen.pid)
    if not ids or token not in _proc.owners(seen.pid):
        return False
    id = ids[-1].decode()
    return id not in _live.starting and _live.leaders.get(id) != seen.pid  # else it has its own watcher


def _adopt(seen: _proc.Stat) -> None:
    pidfd = _reserve.spend(lambda: os.pidfd_open(seen.pid))
    try:
        again = _proc.stat(seen.pid)
        if again is None or again.started != seen.started:
            raise ProcessLookupError
        _adopted.add(seen.pid)
        _spawner.spawner().watch(pidfd, lambda fd: _reap(fd, seen.pid))
    except BaseException:
        _adopted.discard(seen.pid)
        os.close(pidfd)
        raise


def _reap(pidfd: int, pid: int) -> None:
    """In the spawner's thread: it has ended, and its own children have become ours."""
    _adopted.discard(pid)  # before the number can be another's
    _look_now()
    _pidfd.reap(pidfd)
    os.close(pidfd)


def _forget() -> None:
    """In a child made by ``os.fork``: it has not asked for it, and is not the reaper."""
    global _looking
    _looking = threading.Lock()
    _adopted.clear()
    _live.on_end = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
