"""Orphans of our children, adopted and reaped – only when asked for, and only what nobody else reaps.

Without it an orphan goes to process 1, which reaps it; in a container process 1 is often us. The moment
at which descendants can become our children is the end of one of ours, so every end has the scanner look
once for children of ours that we did not start: they carry our cookie, but are not its leader.
"""

from __future__ import annotations

import os

from procession._launch import _live, _scanner, _spawner
from procession._launch._owner import owner
from procession._linux import _pidfd, _proc
from procession._linux._subreaper import become_subreaper
from procession.errors import StateError

_adopted: set[int] = set()


def reap_orphans() -> None:
    """Adopts and reaps descendants of our children whose parents have ended, for the life of this program.

    For programs that run as process 1 of a container, or want no stray descendant to leave them. Only
    processes that carry our cookie are touched; children started by other libraries are left to those.
    May be called more than once.

    Raises:
        StateError: the system has no pidfds or no ``/proc``.
        OSError: the kernel refuses to make us the reaper.
    """
    if not (_pidfd.has_pidfd() and _proc.has_proc()):
        raise StateError("reaping orphans needs pidfds and /proc (Linux 5.4)")
    become_subreaper()
    _live.on_end = _look_soon
    _look_soon()


def _look_soon() -> None:
    _scanner.soon(_look)


def _look() -> None:
    """In the scanner's thread."""
    me, token = os.getpid(), owner().token.encode()
    for pid in _proc.pids():
        seen = _proc.stat(pid)
        if seen is None or seen.ppid != me or pid in _adopted or seen.state in "ZX":
            continue
        ids = _proc.cookies(pid)
        if not ids or token not in _proc.owners(pid):
            continue
        id = ids[-1].decode()
        if id in _live.starting or _live.leaders.get(id) == pid:
            continue  # a child of ours, which has its own watcher
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            continue
        again = _proc.stat(pid)
        if again is None or again.started != seen.started:
            os.close(pidfd)
            continue
        _adopted.add(pid)
        _spawner.spawner().watch(pidfd, lambda fd, pid=pid: _reap(fd, pid))  # type: ignore[misc]


def _reap(pidfd: int, pid: int) -> None:
    """In the spawner's thread: it has ended, and its own children may have become ours."""
    _pidfd.reap(pidfd)
    os.close(pidfd)
    _adopted.discard(pid)
    _look_soon()
