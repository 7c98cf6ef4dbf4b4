"""Reading the figures of one process: from ``/proc`` by open descriptors, or through psutil where there is no ``/proc``."""

from __future__ import annotations

import errno
import os
import select
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import psutil

from procession._clock import monotonic, wall
from procession._linux import _proc
from procession.monitor._sample import MB, Reading
from procession.monitor._words import LETTERS, STATES

PAGES_PER_MB = MB / os.sysconf("SC_PAGE_SIZE")
FILES = ("stat", "statm", "io", "schedstat", "fd")
_GONE = (errno.ESRCH, errno.ENOENT)
_STAT, _STATM, _IO, _SCHEDSTAT, _FD = range(5)
_LETTERS = {letter.encode(): letter for letter in STATES}
_TICKS = _proc.TICKS
_SIZES = (1024, 128, 512, 128)  # more than each can be long; short ones are quicker to allocate
_new = tuple.__new__
_pread = os.pread


def breathe() -> None:
    """Lets other threads have the interpreter.

    System calls give it up, but so briefly that a thread which waits for it has not woken up by the time it is taken again;
    that thread then waits until the interpreter forces a switch, 5 ms each time. This is long enough.
    """
    select.select((), (), (), 5e-5)


class Gone(Exception):
    """The process is not there any more; the text says what is known."""


@dataclass(slots=True)
class Setting:
    """What all readers of one source share.

    Attributes:
        files_left: how many more descriptors may be kept open.
        counts_fds: whether the size of ``/proc/PID/fd`` is the number of descriptors in it (Linux 6.2).
        boot_offset: seconds between the monotonic clock and the one that start times count from.
        failures: how often something could not be read for want of descriptors.
    """

    files_left: int = 0
    counts_fds: bool = field(default_factory=lambda: _size("/proc/self/fd") > 0)
    boot_offset: float = 0.0
    failures: int = 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


Traffic = tuple["float | None", "float | None"]
NO_TRAFFIC: Traffic = (None, None)


class Reader(Protocol):
    """Reads one process, always the same one."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def started(self) -> int:
        """Its start time in ticks since boot; 0 when that is not needed."""

    @property
    def pids(self) -> list[int]:
        """Whom it reads."""

    def read(self, shares: bool = False, traffic: Traffic = NO_TRAFFIC) -> Reading:
        """Reads it.

        Args:
            shares: whether its shares of memory are read too.
            traffic: MB received and sent over the network, found out elsewhere.

        Raises:
            Gone: it has ended.
        """

    def close(self) -> None:
        """Lets go of what is kept open; may be called twice."""


class ProcReader:
    """Reads ``/proc/PID`` (proc(5)).

    Kept open, a file of ``/proc/PID`` belongs to the process, not to the number: reading it after the process has ended
    is an error, whoever has the number by then. Where the budget does not allow that, files are opened each time, and the
    start time in ``stat`` tells whether it is still the same one.

    Args:
        pid: the process id.
        started: its start time in ticks, if known.
        setting: what readers share.

    Raises:
        Gone: there is no such process, or it is another one.
    """

    __slots__ = ("_base", "_born", "_denied", "_fds", "_setting", "_started", "pid")

    def __init__(self, pid: int, started: int, setting: Setting) -> None:
        self.pid = pid
        self._setting = setting
        self._base = f"/proc/{pid}/"
        self._denied = False
        self._fds: list[int] | None = None
        if setting.files_left >= len(FILES):
            self._keep_open()
        try:
            fields = _fields(self._get(_STAT))
        except OSError as error:
            self.close()
            raise _translated(error) from None
        self._started = fields[19]
        self._born = int(fields[19]) / _TICKS
        if started and int(fields[19]) != started:
            self.close()
            raise Gone("its pid belongs to another process")

    @property
    def started(self) -> int:
        """Its start time in ticks since boot."""
        return int(self._started)

    @property
    def pids(self) -> list[int]:
        """Itself."""
        return [self.pid]

    def _keep_open(self) -> None:
        fds: list[int] = []
        try:
            for name in FILES:
                flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_DIRECTORY if name == "fd" else 0)
                try:
                    fds.append(os.open(self._base + name, flags))
                except (PermissionError, FileNotFoundError):
                    if name == "stat":
                        raise
                    fds.append(-1)
        except OSError:  # no descriptor left, or it has ended, which reading will tell
            _close(fds)
            return
        self._fds = fds
        self._setting.files_left -= len(FILES)

    def _get(self, which: int) -> bytes:
        if self._fds is not None:
            return _pread(self._fds[which], _SIZES[which], 0)
        fd = os.open(self._base + FILES[which], os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(fd, _SIZES[which])
        finally:
            os.close(fd)

    def read(self, shares: bool = False, traffic: Traffic = NO_TRAFFIC) -> Reading:
        get = self._get
        try:
            stat = _fields(get(_STAT))
            taken = monotonic()
            memory = get(_STATM).split(None, 2)
        except OSError as error:
            raise _translated(error) from None
        state = stat[0]
        if stat[19] != self._started:
            raise Gone("its pid belongs to another process")
        if state in b"ZXx":
            raise Gone("it has ended")
        read = written = None
        if not self._denied:
            try:
                io = get(_IO).split()
                read, written = int(io[9]) / MB, int(io[11]) / MB
            except (OSError, IndexError):
                self._denied = True  # not ours to see; or a kernel without these accounts
        try:
            switches: int | None = int(get(_SCHEDSTAT).split()[2])
        except (OSError, IndexError):
            switches = self._switches()
        pss, uss = self._shares() if shares else NO_TRAFFIC
        received, sent = traffic
        # As the class itself would, without the detour of a function with sixteen parameters.
        return _new(
            Reading,
            (
                taken,
                _LETTERS.get(state, "?"),
                (int(stat[11]) + int(stat[12])) / _TICKS,
                int(memory[1]) / PAGES_PER_MB,
                int(memory[0]) / PAGES_PER_MB,
                read,
                written,
                self._descriptors(),
                int(stat[17]),
                switches,
                taken + self._setting.boot_offset - self._born,
                pss,
                uss,
                received,
                sent,
                1,
            ),
        )

    def _descriptors(self) -> int | None:
        fds = self._fds
        try:
            if not self._setting.counts_fds:
                return len(os.listdir(self._base + "fd"))
            if fds is not None and fds[_FD] >= 0:
                return os.fstat(fds[_FD]).st_size
            return os.stat(self._base + "fd").st_size
        except OSError:
            return None

    def _switches(self) -> int | None:
        """The same where the kernel does not count how often a thread was given a processor (``schedstat``).

        A thread that was given a processor has to give it up again, so both counts agree.
        """
        try:
            with open(self._base + "status", "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            return None
        counts = [int(line.split()[1]) for line in lines if b"voluntary_ctxt_switches:" in line]
        return sum(counts) if counts else None

    def _shares(self) -> tuple[float | None, float | None]:
        """Proportional and unique share of memory, in MB."""
        try:
            with open(self._base + "smaps_rollup", "rb") as file:
                lines = file.read().splitlines()[1:]
        except OSError:
            return None, None
        kb = {words[0]: int(words[1]) for words in (line.split() for line in lines) if len(words) > 1}
        if b"Pss:" not in kb:
            return None, None
        unique = sum(amount for name, amount in kb.items() if name.startswith(b"Private_"))
        return kb[b"Pss:"] / 1024, unique / 1024

    def close(self) -> None:
        if self._fds is not None:
            _close(self._fds)
            self._fds = None
            self._setting.files_left += len(FILES)


def _close(fds: list[int]) -> None:
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def _fields(stat: bytes) -> list[bytes]:
    """What stands behind the name, which may hold anything; the first is the state."""
    if not stat:
        raise ProcessLookupError(errno.ESRCH, "it has ended")
    return stat[stat.rindex(b")") + 2 :].split(None, 20)


def _translated(error: OSError) -> Exception:
    return Gone("it has ended") if error.errno in _GONE else error


class PsutilReader:
    """Reads a process through psutil: where there is no ``/proc``, and as the measure of the other one in tests.

    Raises:
        Gone: there is no such process.
    """

    __slots__ = ("_process", "pid")

    def __init__(self, pid: int, started: int, setting: Setting) -> None:  # noqa: ARG002 - as the other one
        self.pid = pid
        try:
            self._process = psutil.Process(pid)
        except psutil.NoSuchProcess:
            raise Gone("it has ended") from None

    @property
    def started(self) -> int:
        """0: psutil looks itself whether a pid was used again."""
        return 0

    @property
    def pids(self) -> list[int]:
        """Itself."""
        return [self.pid]

    def read(self, shares: bool = False, traffic: Traffic = NO_TRAFFIC) -> Reading:
        process = self._process
        try:
            if not process.is_running():
                raise Gone("its pid belongs to another process")
            with process.oneshot():
                status = process.status()
                if status in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                    raise Gone("it has ended")
                return self._read(process, status, shares, traffic)
        except psutil.NoSuchProcess:
            raise Gone("it has ended") from None

    def _read(self, process: psutil.Process, status: str, shares: bool, traffic: Traffic) -> Reading:
        taken = monotonic()
        cpu = rss = vms = read = written = pss = uss = None
        descriptors = threads = switches = None
        with suppress(psutil.AccessDenied):
            times = process.cpu_times()
            cpu = times.user + times.system
            memory = process.memory_info()
            rss, vms = memory.rss / MB, memory.vms / MB
            threads = process.num_threads()
            spent = process.num_ctx_switches()
            switches = spent.voluntary + spent.involuntary
        with suppress(psutil.AccessDenied, AttributeError, OSError):  # there is none on macOS
            io = process.io_counters()
            read, written = io.read_bytes / MB, io.write_bytes / MB
        with suppress(psutil.AccessDenied, OSError):
            descriptors = process.num_fds()
        if shares:
            with suppress(psutil.AccessDenied, OSError):
                full = process.memory_full_info()
                uss, pss = full.uss / MB, getattr(full, "pss", None)
                pss = None if pss is None else pss / MB
        uptime = max(0.0, wall() - process.create_time())
        shown = (cpu, rss, vms, read, written, descriptors, threads, switches)
        return Reading(taken, LETTERS.get(status, "?"), *shown, uptime, pss, uss, *traffic)

    def close(self) -> None:
        """Nothing is kept open."""


def open_reader(pid: int, started: int, setting: Setting) -> ProcReader | PsutilReader:
    """The reader for this system.

    Raises:
        Gone: there is no such process, or it is another one.
    """
    return ProcReader(pid, started, setting) if _proc.has_proc() else PsutilReader(pid, started, setting)
