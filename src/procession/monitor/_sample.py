"""One look at one process: what was read, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from procession.monitor._words import STATES

if TYPE_CHECKING:
    from procession.monitor._trend import Trend

MB = 1 << 20


class Reading(NamedTuple):
    """What a source read of one process, or of one tree together. ``None`` is what could not be read.

    Attributes:
        taken: when, in seconds of the source's own monotonic clock.
        letter: the kernel's letter for its state.
        cpu_seconds: processor time used so far.
        rss_mb: resident memory.
        vms_mb: virtual memory.
        disk_read_mb: read from storage so far.
        disk_write_mb: written to storage so far.
        file_descriptors: open ones.
        threads: how many.
        context_switches: so far.
        uptime: seconds since it was started.
        pss_mb: its share of memory, when asked for.
        uss_mb: the memory it alone has, when asked for.
        network_received_mb: over TCP, as far as seen.
        network_sent_mb: over TCP, as far as seen.
        processes: how many were read together.
    """

    taken: float
    letter: str
    cpu_seconds: float | None
    rss_mb: float | None
    vms_mb: float | None
    disk_read_mb: float | None
    disk_write_mb: float | None
    file_descriptors: int | None
    threads: int | None
    context_switches: int | None
    uptime: float
    pss_mb: float | None = None
    uss_mb: float | None = None
    network_received_mb: float | None = None
    network_sent_mb: float | None = None
    processes: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The figures of one process at one moment. What cannot be known is ``None``, never 0.

    One MB is 2**20 bytes. Counters (processor time, disk, network, switches) run from the start of the process, network
    from when it was first watched. With ``tree=True`` the figures are those of the process and its descendants together.

    Attributes:
        id: under which it is watched.
        pid: its process id.
        at: when, in loop time.
        uptime: seconds since it was started.
        state: ``"running"``, ``"sleeping"``, ``"disk-sleep"``, ``"stopped"``, ``"zombie"`` … as psutil calls them.
        cpu_percent: of one core, since the sample before; ``None`` in the first one. 200 are two cores busy.
        cpu_seconds: processor time, user and system.
        rss_mb: resident memory.
        vms_mb: virtual memory.
        pss_mb: resident memory, what is shared divided among those who share it; only where asked for.
        uss_mb: the memory that would be free if it ended; only where asked for.
        disk_read_mb: read from storage.
        disk_write_mb: written to storage.
        network_received_mb: received over TCP; needs the extra ``net``.
        network_sent_mb: sent over TCP and acknowledged.
        file_descriptors: open ones.
        threads: how many.
        context_switches: of the main thread, voluntary and not.
        disk_mb_per_second: read and written, since the sample before.
        network_mbps: megabits (10**6) received and sent per second, since the sample before.
        idle_seconds: since it last used the processor noticeably, or moved a byte.
        response_time: mean seconds of its recent answers, as probes, pools and schedulers told.
        error_rate: share of its recent answers that were errors, 0 to 1.
        throughput: its recent answers per second.
        answers: how many recent answers that is about.
        processes: how many processes these figures are of.
    """

    id: str
    pid: int
    at: float
    uptime: float
    state: str
    cpu_percent: float | None = None
    cpu_seconds: float | None = None
    rss_mb: float | None = None
    vms_mb: float | None = None
    pss_mb: float | None = None
    uss_mb: float | None = None
    disk_read_mb: float | None = None
    disk_write_mb: float | None = None
    network_received_mb: float | None = None
    network_sent_mb: float | None = None
    file_descriptors: int | None = None
    threads: int | None = None
    context_switches: int | None = None
    disk_mb_per_second: float | None = None
    network_mbps: float | None = None
    idle_seconds: float = 0.0
    response_time: float | None = None
    error_rate: float | None = None
    throughput: float | None = None
    answers: int = 0
    processes: int = 1
    _look_back: Callable[[float | None], Trend] | None = field(default=None, repr=False, compare=False)

    @property
    def trend(self) -> Trend:
        """How the figures have developed up to now, over the monitor's ``trend_window``; worked out when asked for."""
        from procession.monitor._trend import Trend

        return Trend(self.id) if self._look_back is None else self._look_back(None)

    def figures(self) -> Mapping[str, float | None]:
        """All figures by name, for events and exports."""
        return {name: getattr(self, name) for name in FIGURES}

    def __getstate__(self) -> tuple[Any, ...]:
        return tuple(None if name == "_look_back" else getattr(self, name) for name in _NAMES)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(_NAMES, state, strict=True):
            object.__setattr__(self, name, value)


_NAMES = tuple(Sample.__dataclass_fields__)
FIGURES = tuple(name for name in _NAMES if name not in {"id", "pid", "at", "state", "_look_back"})
"""The names of the figures of a sample."""

_SETTERS: tuple[Callable[[Sample, Any], None], ...] = tuple(Sample.__dict__[name].__set__ for name in _NAMES)
_MEGABITS = 8 * MB / 1e6

Before = tuple[float, Reading]
"""The reading before, and the loop time it was taken at."""
Told = tuple["float | None", "float | None", "float | None", int]
"""What answers told: response time, error rate, throughput, and how many there were."""


def sample_of(
    id: str,
    pid: int,
    at: float,
    reading: Reading,
    before: Before | None,
    idle_seconds: float = 0.0,
    told: Told = (None, None, None, 0),
    look_back: Callable[[float | None], Trend] | None = None,
) -> Sample:
    """A reading, made into figures that mean something by what was read before and what answers told.

    Args:
        id: under which it is watched.
        pid: its process id.
        at: loop time of the reading.
        reading: what was read.
        before: the reading before; its rates are over the time that has really passed between the two.
        idle_seconds: since it last did something.
        told: response time, error rate, throughput and number of recent answers.
        look_back: works out a trend.
    """
    (_, letter, cpu, rss, vms, read, written, fds, threads, switches, uptime, pss, uss, received, sent, size) = reading
    cpu_percent = disk = network = None
    if before is not None and at > before[0]:
        elapsed = at - before[0]
        (_, _, cpu0, _, _, read0, written0, _, _, _, _, _, _, received0, sent0, _) = before[1]
        if cpu is not None and cpu0 is not None:
            cpu_percent = (cpu - cpu0) / elapsed * 100.0 if cpu > cpu0 else 0.0
        if read is not None and written is not None and read0 is not None and written0 is not None:
            moved = read - read0 + written - written0
            disk = moved / elapsed if moved > 0.0 else 0.0
        if received is not None and sent is not None and received0 is not None and sent0 is not None:
            moved = received - received0 + sent - sent0
            network = moved * _MEGABITS / elapsed if moved > 0.0 else 0.0
    sample = _new(Sample)
    # The constructor of a frozen dataclass takes twice as long, and this runs for every process at every round.
    (
        set_id, set_pid, set_at, set_uptime, set_state, set_cpu_percent, set_cpu, set_rss, set_vms, set_pss, set_uss,
        set_read, set_written, set_received, set_sent, set_fds, set_threads, set_switches, set_disk, set_network,
        set_idle, set_response, set_errors, set_throughput, set_answers, set_size, set_look_back,
    ) = _SETTERS  # fmt: skip
    set_id(sample, id)
    set_pid(sample, pid)
    set_at(sample, at)
    set_uptime(sample, uptime)
    set_state(sample, STATES.get(letter, letter))
    set_cpu_percent(sample, cpu_percent)
    set_cpu(sample, cpu)
    set_rss(sample, rss)
    set_vms(sample, vms)
    set_pss(sample, pss)
    set_uss(sample, uss)
    set_read(sample, read)
    set_written(sample, written)
    set_received(sample, received)
    set_sent(sample, sent)
    set_fds(sample, fds)
    set_threads(sample, threads)
    set_switches(sample, switches)
    set_disk(sample, disk)
    set_network(sample, network)
    set_idle(sample, idle_seconds)
    set_response(sample, told[0])
    set_errors(sample, told[1])
    set_throughput(sample, told[2])
    set_answers(sample, told[3])
    set_size(sample, size)
    set_look_back(sample, look_back)
    return sample


_new = object.__new__
