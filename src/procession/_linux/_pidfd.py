"""pidfds: descriptors that name one process for good, see pidfd_open(2) and pidfd_send_signal(2)."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
from functools import cache

from procession._types import Exit

_SIGNAL_PROCESS_GROUP = 1 << 2  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_GET_INFO = 0xC040FF0B  # PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info of 64 bytes), Linux 6.13
_INFO_EXIT = 1 << 3  # PIDFD_INFO_EXIT, Linux 6.15
_INFO = struct.Struct("=QQ11Ii")


@cache
def has_pidfd() -> bool:
    """Whether pidfds can be opened and waited on (Linux 5.4, and not forbidden by seccomp)."""
    if not hasattr(os, "pidfd_open") or not hasattr(os, "P_PIDFD"):
        return False
    try:
        fd = os.pidfd_open(os.getpid())
    except OSError as error:
        return error.errno in (errno.EMFILE, errno.ENFILE)
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return True  # understood: we are not our own child
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@cache
def has_group_signal() -> bool:
    """Whether a pidfd can signal a whole process group, even after its leader was reaped (Linux 6.9)."""
    if not has_pidfd():
        return False
    fd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0, None, _SIGNAL_PROCESS_GROUP)
    except ProcessLookupError:
        return True  # understood: we lead no group
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


@cache
def has_exit_record() -> bool:
    """Whether the kernel remembers how a child ended that somebody else has reaped (Linux 6.15).

    The call is probed; whether it also knows exits shows only on a process that was reaped, so for that
    the kernel's release is believed.
    """
    if not has_pidfd():
        return False
    fd = os.pidfd_open(os.getpid())
    buffer = bytearray(_INFO.size)
    struct.pack_into("=Q", buffer, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(fd, _GET_INFO, buffer, True)
    except OSError:
        return False
    finally:
        os.close(fd)
    numbers = os.uname().release.split("-")[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdecimal()) >= (6, 15)


def send(pidfd: int, signum: int) -> None:
    """Signals exactly the process that ``pidfd`` names.

    Raises:
        ProcessLookupError: it has ended.
    """
    signal.pidfd_send_signal(pidfd, signum)


def send_group(pidfd: int, signum: int) -> bool:
    """Signals the group that the named process led; ``False`` when nobody is left in it."""
    try:
        signal.pidfd_send_signal(pidfd, signum, None, _SIGNAL_PROCESS_GROUP)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody is there whom we may not signal
    return True


def reap(pidfd: int) -> Exit | None:
    """Reaps the child if it has ended; ``None`` while it lives.

    When somebody else has reaped it, the kernel is asked for what it remembers.
    """
    try:
        result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return recorded_exit(pidfd)
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return Exit(result.si_status)
    return Exit(-result.si_status, core_dumped=result.si_code == os.CLD_DUMPED)


def recorded_exit(pidfd: int) -> Exit:
    """What the kernel remembers of a process that was reaped already, or a lost status."""
    buffer = bytearray(_INFO.size)
    struct.pack_into("=Q", buffer, 0, _INFO_EXIT)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, buffer, True)
    except OSError:
        return Exit(None)
    fields = _INFO.unpack(buffer)
    if not fields[0] & _INFO_EXIT:
        return Exit(None)
    return from_status(fields[-1])


def from_status(status: int) -> Exit:
    """Reads a wait status as in waitpid(2)."""
    code = os.waitstatus_to_exitcode(status)
    return Exit(code, core_dumped=os.WIFSIGNALED(status) and os.WCOREDUMP(status))
