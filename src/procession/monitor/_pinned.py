"""Doing something to a process, and to no other that may have its pid by now."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from procession._linux import _pidfd, _proc
from procession._types import ProcessRef


@contextmanager
def pinned(ref: ProcessRef) -> Iterator[int | None]:
    """Holds on to a process by a pidfd, once it is certain that it is the right one; ``None`` where there are no pidfds.

    Raises:
        ProcessLookupError: it has ended.
    """
    fd = os.pidfd_open(ref.pid) if _pidfd.has_pidfd() else None
    try:
        check(ref)
        yield fd
    finally:
        if fd is not None:
            os.close(fd)


def check(ref: ProcessRef) -> None:
    """Makes sure that a process is still there.

    Raises:
        ProcessLookupError: it has ended.
    """
    seen = _proc.stat(ref.pid) if _proc.has_proc() else None
    if _proc.has_proc() and (seen is None or seen.state in "ZX" or (ref.started and seen.started != ref.started)):
        raise ProcessLookupError(f"process {ref.pid} has ended")


def send(ref: ProcessRef, signum: int) -> None:
    """Signals exactly this process.

    Raises:
        ProcessLookupError: it has ended.
        PermissionError: it belongs to somebody else.
    """
    with pinned(ref) as fd:
        if fd is None:
            psutil.Process(ref.pid).send_signal(signum)
        else:
            signal.pidfd_send_signal(fd, signum)


def members(ref: ProcessRef) -> list[int]:
    """The pids of a process and its descendants.

    Raises:
        ProcessLookupError: it has ended.
    """
    check(ref)
    try:
        return [ref.pid, *(child.pid for child in psutil.Process(ref.pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        raise ProcessLookupError(f"process {ref.pid} has ended") from None


def renice(ref: ProcessRef, nice: int, tree: bool) -> int:
    """Sets how nice a process is, with all its threads, and those of its descendants; returns for how many processes.

    Raises:
        ProcessLookupError: it has ended.
        PermissionError: it belongs to somebody else, or would become less nice.
    """
    pids = members(ref) if tree else [ref.pid]
    with pinned(ref):
        for pid in pids:
            for thread in _threads(pid):
                try:
                    os.setpriority(os.PRIO_PROCESS, thread, nice)
                except ProcessLookupError:
                    if thread == ref.pid:
                        raise
    return len(pids)


def ionice(ref: ProcessRef, ioclass: int, level: int | None, tree: bool) -> int:
    """Sets the class and level of its disk traffic; returns for how many processes.

    Raises:
        ProcessLookupError: it has ended.
        PermissionError: it belongs to somebody else.
    """
    pids = members(ref) if tree else [ref.pid]
    with pinned(ref):
        for pid in pids:
            for thread in _threads(pid):
                try:
                    psutil.Process(thread).ionice(ioclass, level)
                except psutil.NoSuchProcess:
                    if thread == ref.pid:
                        raise ProcessLookupError(f"process {pid} has ended") from None
                except psutil.AccessDenied:
                    raise PermissionError(f"process {pid} is not ours to change") from None
    return len(pids)


def _threads(pid: int) -> list[int]:
    """The ids of its threads; a process without /proc stands for all of them."""
    with suppress(OSError):
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    return [pid]
