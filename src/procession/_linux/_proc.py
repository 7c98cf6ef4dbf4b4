"""Reading ``/proc``: who a process is, and whose tree it belongs to (proc(5))."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

from procession._linux import _reserve
from procession._types import ProcessRef

OWNER = "PROCESSION_OWNER"
ID = "PROCESSION_ID"
"""The two environment cookies. Each holds the tokens of all owners a process has, outermost first, joined by ``:``."""

_OWNER = b"\0" + OWNER.encode() + b"="
_ID = b"\0" + ID.encode() + b"="
_EXEC_YIELDS = 1000

TICKS: int = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True, slots=True)
class Stat:
    """The part of ``/proc/PID/stat`` we need."""

    pid: int
    name: str
    state: str
    ppid: int
    pgid: int
    sid: int
    started: int


def _read(path: str, limit: int) -> bytes | None:
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if not _reserve.is_short(error):
            return None
        try:
            fd = _reserve.spend(lambda: os.open(path, flags))
        except OSError as worse:
            if _reserve.is_short(worse):
                raise  # nobody can say that there is nobody
            return None
    try:
        data = os.read(fd, limit)
        while len(data) >= limit:
            more = os.read(fd, limit)
            if not more:
                break
            data += more
        return data
    except OSError:
        return None
    finally:
        os.close(fd)


def stat(pid: int) -> Stat | None:
    """Who has this pid now; ``None`` when nobody does."""
    data = _read(f"/proc/{pid}/stat", 4096)
    if not data:
        return None
    left, right = data.index(b"("), data.rindex(b")")
    rest = data[right + 2 :].split(None, 20)
    return Stat(
        pid=pid,
        name=data[left + 1 : right].decode("utf-8", "backslashreplace"),
        state=chr(rest[0][0]),
        ppid=int(rest[1]),
        pgid=int(rest[2]),
        sid=int(rest[3]),
        started=int(rest[19]),
    )


@cache
def has_proc() -> bool:
    """Whether ``/proc`` is mounted."""
    return os.path.isdir("/proc/self")


def boot_ticks() -> int:
    """Now, in the unit of start times."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


def cookies(pid: int) -> tuple[bytes, ...]:
    """The ids of the processes whose tree ``pid`` belongs to, outermost first; empty when unreadable."""
    return _tokens(pid, _ID)


def owners(pid: int) -> tuple[bytes, ...]:
    """The tokens of the programs that own ``pid``, outermost first; empty when unreadable."""
    return _tokens(pid, _OWNER)


def _tokens(pid: int, name: bytes) -> tuple[bytes, ...]:
    data = _environ(pid)
    if not data:
        return ()
    data = b"\0" + data
    at = data.find(name)
    if at < 0:
        return ()
    at += len(name)
    end = data.find(b"\0", at)
    return tuple(data[at : end if end >= 0 else None].split(b":"))


def _environ(pid: int) -> bytes | None:
    """The variables a process was started with; waits out an ``execve`` during which it seems to have none."""
    for _ in range(_EXEC_YIELDS):
        data = _read(f"/proc/{pid}/environ", 1 << 17)
        if data or data is None or not _has_variables(pid):
            return data
        os.sched_yield()
    return None


def _has_variables(pid: int) -> bool:
    """Whether a process that seemed to have no variables has some, or is about to.

    Between two programs it has memory (field 23), but no variables in it yet (fields 50 and 51). If it has them
    now, they were asked for in the memory of the program before, which was just being given up.
    """
    data = _read(f"/proc/{pid}/stat", 4096)
    if not data:
        return False
    fields = data[data.rindex(b")") + 2 :].split()
    return len(fields) > 48 and fields[20] != b"0" and (fields[48] == b"0" or fields[47] != fields[48])


def pids() -> Iterator[int]:
    """Every pid of the machine we can see."""
    for name in _reserve.spend(lambda: os.listdir("/proc")):
        if name.isdecimal():
            yield int(name)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose tree is looked for.

    Attributes:
        id: the cookie.
        leader: the child at the top of it.
        until: members of the leader's group or session count without the cookie if they started no
            later than this (ticks since boot); ``None`` when the number proves nothing any more.
    """

    id: str
    leader: ProcessRef
    until: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """One living process proven to belong to a tree."""

    ref: ProcessRef
    escaped: bool
    pidfd: int | None


def scan(wanted: Iterable[Wanted]) -> dict[str, list[Found]]:
    """One pass over ``/proc`` for any number of trees.

    A process belongs to a tree when it carries the tree's cookie, or when it is in the group or session
    of the leader and began while the number was certainly the leader's. Only processes younger than
    the oldest leader are looked at twice. Every hit is pinned by a pidfd and then verified, so that a
    recycled pid cannot slip in.
    """
    by_id = {want.id.encode(): want for want in wanted}
    result: dict[str, list[Found]] = {want.id: [] for want in by_id.values()}
    by_leader = {want.leader.pid: want for want in by_id.values()}
    oldest = min((want.leader.started for want in by_id.values()), default=0)
    me = os.getpid()
    for pid in pids():
        if pid in by_leader or pid == me:
            continue
        seen = stat(pid)
        if seen is None or seen.started < oldest or seen.state in "ZX":
            continue
        owner = _owner(seen, by_id, by_leader)
        if owner is None:
            continue
        found = _pin(seen, owner)
        if found is not None:
            result[owner.id].append(found)
    return result


def _owner(seen: Stat, by_id: dict[bytes, Wanted], by_leader: dict[int, Wanted]) -> Wanted | None:
    for cookie in reversed(cookies(seen.pid)):
        if cookie in by_id:
            return by_id[cookie]
    for number in (seen.pgid, seen.sid):
        want = by_leader.get(number)
        if want is not None and want.until is not None and want.leader.started <= seen.started <= want.until:
            return want
    return None


def _pin(seen: Stat, owner: Wanted) -> Found | None:
    from procession._linux._pidfd import has_pidfd

    pidfd = None
    if has_pidfd():
        try:
            pidfd = _reserve.spend(lambda: os.pidfd_open(seen.pid), leave=1)
        except ProcessLookupError:
            return None
        except OSError:
            pidfd = None  # no descriptor left: the start time has to do
        try:
            again = stat(seen.pid)
        except OSError:  # the pidfd was the last descriptor
            if pidfd is None:
                raise
            os.close(pidfd)
            pidfd = None
            again = stat(seen.pid)
        if again is None or again.started != seen.started:
            if pidfd is not None:
                os.close(pidfd)
            return None
    ref = ProcessRef(seen.pid, seen.started, seen.name)
    return Found(ref, seen.pgid != owner.leader.pid, pidfd)
