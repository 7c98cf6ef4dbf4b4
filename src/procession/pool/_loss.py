"""What probably ended a worker. The guess is pure; the one figure it needs is read here too."""

from __future__ import annotations

import os
import signal

from procession._types import Exit
from procession.errors import WorkerLoss

_CRASHES = {
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT", "SIGSYS", "SIGTRAP")
    if hasattr(signal, name)
}


def guess(exit: Exit | None, *, oom_kills: int = 0) -> WorkerLoss:
    """Judges by how it ended; ``oom_kills`` is how many processes the kernel has killed for memory meanwhile."""
    if exit is None or exit.is_lost:
        return WorkerLoss.UNKNOWN
    if exit.signal is None:
        return WorkerLoss.EXITED
    if exit.signal in _CRASHES:
        return WorkerLoss.CRASHED
    if exit.signal == signal.SIGKILL and oom_kills > 0:
        return WorkerLoss.OUT_OF_MEMORY
    return WorkerLoss.KILLED


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory, on this machine, since it was started."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass  # no /proc: every guess is "killed" then
    return 0


_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def resident(pid: int) -> int:
    """Bytes of memory of its own that a process holds: resident, not shared; 0 when it cannot be had."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            fields = file.read(128).split()
        return max(0, int(fields[1]) - int(fields[2])) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped, as by SIGSTOP."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            data = file.read(512)
    except OSError:
        return False
    return data[data.rindex(b")") + 2 :][:1] in b"Tt"
