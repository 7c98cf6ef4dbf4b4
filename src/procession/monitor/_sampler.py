"""Where readings come from: rounds over all watched processes, in a thread of their own."""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from procession._clock import monotonic
from procession._core.aio import Latch, finish, wait_until
from procession.monitor import _net
from procession.monitor._reader import NO_TRAFFIC, Gone, Reader, Setting, breathe, open_reader
from procession.monitor._sample import Reading
from procession.monitor._tree import Family, TreeReader

log = logging.getLogger("procession.monitor")
T = TypeVar("T")
_serial = itertools.count(1)
_BREATH = 32
"""After so many processes, half a millisecond of work, the loop gets its turn if it wants it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to read.

    Attributes:
        key: a number that is never used twice.
        pid: the process id.
        started: start time in ticks; 0 when unknown.
        tree: with its descendants.
        shares: with shares of memory.
        network: with its traffic.
    """

    key: int
    pid: int
    started: int = 0
    tree: bool = False
    shares: bool = False
    network: bool = False


@dataclass(slots=True)
class Round:
    """What one round found.

    Attributes:
        readings: by key of the target.
        gone: keys of those that are not there any more, and what is known about that.
        taken: the source's monotonic clock at the end.
        cost: processor time it took, in seconds.
        failures: how many could not be read though they are there.
        open_files: descriptors kept open.
        network: why there are no figures of the network; empty when there are.
    """

    readings: list[tuple[int, Reading]] = field(default_factory=list)
    gone: list[tuple[int, str]] = field(default_factory=list)
    taken: float = 0.0
    cost: float = 0.0
    failures: int = 0
    open_files: int = 0
    network: str = ""


class Source(Protocol):
    """Reads processes for a monitor; replaced in tests by one that tells what it is told."""

    def clock(self) -> float:
        """The monotonic clock that readings are timed by, in seconds."""

    async def open(self) -> None:
        """Gets ready.

        Cancellation: nothing is left of it.
        """

    async def round(self, added: Sequence[Target], removed: Sequence[int]) -> Round:
        """Takes in and gives up targets, and reads all there are.

        Cancellation: safe; the round is finished and its result dropped.
        """

    async def aclose(self) -> None:
        """Lets go of everything.

        Cancellation: absorbed until nothing is left, then raised.
        """


class Readers:
    """All readers. Belongs to one thread; nothing here knows a loop.

    Args:
        max_open_files: descriptors that may be kept open.
    """

    def __init__(self, max_open_files: int) -> None:
        self._most = max_open_files
        self._setting = Setting(files_left=max_open_files)
        self._family = Family()
        self._targets: dict[int, Target] = {}
        self._readers: dict[int, tuple[Reader, bool, _net.Account | None]] = {}
        self._accounts: dict[int, _net.Account] = {}
        self._ledger: _net.Ledger | None = None
        self._no_network = ""

    def round(self, added: Sequence[Target], removed: Sequence[int]) -> Round:
        """See :meth:`Source.round`."""
        began = time.thread_time()
        setting, done = self._setting, Round()
        setting.failures = 0
        self._setting.boot_offset = _boot_offset()
        self._family.new_round()
        for key in removed:
            self._drop(key)
        for target in added:
            self._targets[target.key] = target
            if target.network:
                self._accounts[target.key] = _net.Account([target.pid])
        for key, target in self._targets.items() if len(self._readers) < len(self._targets) else ():
            if key not in self._readers:
                self._open(target, done)
        self._refresh_network()
        has_traffic = self._ledger is not None
        for number, (key, (reader, shares, account)) in enumerate(self._readers.items(), 1):
            if not number % _BREATH:
                breathe()
            traffic = account.totals() if account is not None and has_traffic else NO_TRAFFIC
            try:
                done.readings.append((key, reader.read(shares, traffic)))
            except Gone as error:
                done.gone.append((key, str(error)))
            except OSError as error:
                setting.failures += 1
                log.debug("process %d could not be read: %s", reader.pid, error)
        for key, _ in done.gone:
            self._drop(key)
        for key, account in self._accounts.items():
            self._follow(key, account)
        done.taken = monotonic()
        done.failures = setting.failures
        done.open_files = self._most - setting.files_left
        done.network = self._no_network
        done.cost = time.thread_time() - began
        return done

    def _open(self, target: Target, done: Round) -> None:
        try:
            reader = open_reader(target.pid, target.started, self._setting)
        except Gone as error:
            done.gone.append((target.key, str(error)))
            return
        except OSError as error:  # no descriptor left: the next round tries again
            self._setting.failures += 1
            log.debug("process %d could not be opened: %s", target.pid, error)
            return
        whole: Reader = TreeReader(reader, self._setting, self._family) if target.tree else reader
        self._readers[target.key] = whole, target.shares, self._accounts.get(target.key)

    def _drop(self, key: int) -> None:
        self._targets.pop(key, None)
        self._accounts.pop(key, None)
        entry = self._readers.pop(key, None)
        if entry is not None:
            entry[0].close()

    def _follow(self, key: int, account: _net.Account) -> None:
        """A tree that has grown has to be searched for sockets again."""
        entry = self._readers.get(key)
        pids = account.pids if entry is None else entry[0].pids
        if not set(pids) <= set(account.pids):
            account.fresh = True
        account.pids = pids

    def _refresh_network(self) -> None:
        if not self._accounts or self._no_network:
            return
        try:
            if self._ledger is None:
                self._ledger = _net.Ledger()
            self._ledger.refresh(self._accounts.values())
        except (_net.Unavailable, OSError) as error:
            self._no_network = str(error)
            log.info("no figures of the network: %s", error)
            if self._ledger is not None:
                self._ledger.close()
                self._ledger = None

    def close(self) -> None:
        """Closes all files."""
        for key in list(self._targets):
            self._drop(key)
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None


def _boot_offset() -> float:
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - monotonic()


class ThreadSource:
    """Readers in a thread that ends with the monitor.

    Args:
        max_open_files: descriptors that may be kept open.
        close_timeout: seconds the thread gets to end; a read that the kernel does not finish cannot be interrupted.
        network: whether the network will be asked about.
    """

    def __init__(self, max_open_files: int, close_timeout: float, network: bool = False) -> None:
        self._network = network
        self._most = max_open_files
        self._close_timeout = close_timeout
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._readers: Readers | None = None

    def clock(self) -> float:
        """The system's monotonic clock."""
        return monotonic()

    async def open(self) -> None:
        """Starts the thread, and has it fetch what takes long to import.

        Cancellation: never waits.
        """
        self._loop = asyncio.get_running_loop()
        self._ended = Latch(loop=self._loop)
        self._readers = Readers(self._most)
        name = f"procession-monitor-{next(_serial)}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()
        if self._network:
            self._jobs.put((_net.prepare, self._loop.create_future()))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, future = job
            try:
                value, error = function(), None
            except BaseException as caught:  # noqa: BLE001 - whoever waits for it gets it
                value, error = None, caught
            self._tell(_hand_over, future, value, error)
        if self._readers is not None:
            self._readers.close()
        self._tell(self._ended.open)

    def _tell(self, function: Callable[..., None], *args: Any) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(function, *args)

    async def round(self, added: Sequence[Target], removed: Sequence[int]) -> Round:
        """Makes one round in the thread.

        Cancellation: safe; the round is finished and its result dropped.
        """
        readers = self._readers
        assert readers is not None
        future: asyncio.Future[Round] = self._loop.create_future()
        self._jobs.put((lambda: readers.round(added, removed), future))
        return await future

    async def aclose(self) -> None:
        """Ends the thread, once it has done what it was asked for.

        Cancellation: absorbed until the thread has ended, then raised.
        """
        if self._thread is not None:
            await finish(self._shut(self._thread))

    async def _shut(self, thread: threading.Thread) -> None:
        self._jobs.put(None)
        if await wait_until(self._ended, self._loop.time() + self._close_timeout):
            thread.join(self._close_timeout)  # it has said its last word: this takes no time
        else:
            log.error("%s does not end: it is stuck in a read that cannot be interrupted", thread.name)
        self._thread = None


def _hand_over(future: asyncio.Future[T], value: T, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
