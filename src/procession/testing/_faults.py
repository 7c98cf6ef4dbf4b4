"""Faults on purpose: too few descriptors, no more processes, spawns that fail or take their time.

All are context managers and undo what they did. The limits belong to this program as a whole and are inherited by what
is started meanwhile.
"""

from __future__ import annotations

import importlib
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEAM = "procession._launch._spawner:popen"
"""Where launchers make children: a module-level callable with the signature of ``subprocess.Popen``."""

_EXEMPT = (1 << 21) | (1 << 24)  # CAP_SYS_ADMIN, CAP_SYS_RESOURCE


@contextmanager
def fd_limit(n_free: int) -> Iterator[int]:
    """Leaves room for exactly ``n_free`` more file descriptors; the next one fails with EMFILE.

    What is open already stays open and usable, and room that is made by closing something can be used again, as
    in a program that has really used up its descriptors.

    Args:
        n_free: how many more may be opened.

    Yields:
        The soft limit in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = _open_fds()
    number = max(used) + 1
    free = number - len(used)
    number += max(0, n_free - free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    taken: list[int] = []
    try:
        while len(taken) < free - n_free:
            taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        yield number
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


@contextmanager
def process_limit() -> Iterator[bool]:
    """Lets nothing be forked, and no thread be started, any more: both fail with EAGAIN.

    The kernel does not bind root (nor CAP_SYS_ADMIN or CAP_SYS_RESOURCE) by this limit: where it says ``False``,
    use :func:`failing_spawn` with ``errno.EAGAIN``, or skip.

    Yields:
        Whether the limit binds this program.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    try:
        yield _is_bound()
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


@dataclass(slots=True)
class SpawnFault:
    """What a spawn fault has done so far.

    Attributes:
        calls: spawns that came by.
        hits: those it made fail or wait.
    """

    calls: int = 0
    hits: int = 0


@contextmanager
def failing_spawn(
    error: int, *, times: int | None = None, after: int = 0, delay: float = 0.0, seam: str = SEAM
) -> Iterator[SpawnFault]:
    """Makes spawns fail with ``OSError(error)`` before anything is forked.

    Args:
        error: the number, for example ``errno.EAGAIN``.
        times: how many spawns fail; default: all.
        after: how many succeed first.
        delay: real seconds a failing one takes; it is cut short when the block ends.
        seam: what is replaced, as ``module:name``; only spawns of launchers that use it are hit.

    Yields:
        The count of what was hit.
    """

    def fail(end: threading.Event) -> None:
        end.wait(delay)
        raise OSError(error, os.strerror(error))

    with _patched(seam, fail, times, after) as fault:
        yield fault


@contextmanager
def slow_spawn(seconds: float, *, times: int | None = None, after: int = 0, seam: str = SEAM) -> Iterator[SpawnFault]:
    """Makes spawns take ``seconds`` of real time longer, as a busy system does.

    Args:
        seconds: how much longer; a wait is cut short when the block ends.
        times: how many spawns are slow; default: all.
        after: how many are quick first.
        seam: what is replaced, as ``module:name``.

    Yields:
        The count of what was hit.
    """

    def wait(end: threading.Event) -> None:
        end.wait(seconds)

    with _patched(seam, wait, times, after) as fault:
        yield fault


@contextmanager
def _patched(
    seam: str, strike: Callable[[threading.Event], None], times: int | None, after: int
) -> Iterator[SpawnFault]:
    home, _, name = seam.partition(":")
    module = importlib.import_module(home)
    real = getattr(module, name)
    fault, lock, end = SpawnFault(), threading.Lock(), threading.Event()

    def popen(*args: Any, **kwargs: Any) -> Any:
        with lock:
            fault.calls += 1
            hit = fault.calls > after and (times is None or fault.hits < times)
            fault.hits += hit
        if hit:
            strike(end)
        return real(*args, **kwargs)

    setattr(module, name, popen)
    try:
        yield fault
    finally:
        setattr(module, name, real)
        end.set()


def _open_fds() -> set[int]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        folder = Path("/dev/fd")
    found = set()
    for name in os.listdir(folder):  # noqa: PTH208 - plain names; a list first, as the listing has a descriptor too
        fd = int(name)
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.add(fd)
    return found


def _is_bound() -> bool:
    if os.getuid() == 0:
        return False
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return True
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return not int(lines.get("CapEff", "0").strip(), 16) & _EXEMPT
