"""``ProcessPool``: long-lived processes of any program, leased to one user at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from procession._core.aio import Latch, finish
from procession._core.window import Samples
from procession._types import Priority
from procession.command import Command
from procession.errors import (
    AcquireTimeout,
    ConfigError,
    LeaseError,
    PoolClosed,
    PoolExhausted,
    StateError,
    WorkerLoss,
    WorkerStartError,
)
from procession.events import WorkerLeased, WorkerReleased
from procession.pool._acquiring import Acquiring
from procession.pool._autoscale import Load
from procession.pool._common import DONE, Pool
from procession.pool._config import PoolConfig
from procession.pool._fleet import Fleet
from procession.pool._lease import Lease, LeaseWorker
from procession.pool._loss import is_stopped
from procession.pool._options import count, pool_name, priority_of, seconds_or_none
from procession.pool._slots import Slot, SlotState, WorkerInfo
from procession.pool._statistics import PoolStatistics
from procession.pool._waiters import Counter
from procession.process import Spawning

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.registry import ProcessRegistry

Talk = Callable[[Lease], Awaitable[object]]


class _Waiter:
    __slots__ = ("future", "since")

    def __init__(self, future: asyncio.Future[None], since: float) -> None:
        self.future = future
        self.since = since


class ProcessPool(Pool):
    """Leases long-lived processes, started before they are needed.

    ::

        async with ProcessPool(Command("bc", "-l"), PoolConfig(max_size=4)) as pool:
            async with pool.acquire(timeout=2.0) as worker:
                reply = await worker.request("2^64")

    Whoever waits is served by priority, then in order of arrival. A worker whose lease ends by an exception may be in the
    middle of a sentence: it is given to ``reset``, and without one replaced.

    Args:
        command: the program; stdin becomes a pipe.
        config: how many, and how long they live.
        name: for records, logs and errors.
        registry: is told of every worker, of leases, and of changes of size.
        launcher: the engine that starts them.
        ready: called with each new worker; it is ready when this returns, for example when its greeting was read.
        reset: called with a worker whose lease ended by an exception; if it raises, the worker is replaced.
        rng: for jitter.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        command: Command,
        config: PoolConfig | None = None,
        *,
        name: str = "processes",
        registry: ProcessRegistry | None = None,
        launcher: Launcher | None = None,
        ready: Talk | None = None,
        reset: Talk | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not isinstance(command, Command):
            raise ConfigError("command", command, 'a Command is needed: Command("bc", "-l")')
        config = PoolConfig() if config is None else config
        if not isinstance(config, PoolConfig):
            raise ConfigError("config", config, "a PoolConfig is needed")
        for field, hook in (("ready", ready), ("reset", reset)):
            if hook is not None and not callable(hook):
                raise ConfigError(field, hook, "an async function is needed")
        self.command: Command = command if command.pty else command.replace(stdin="pipe", timeout=None)
        self.config: PoolConfig = config
        self.name: str = pool_name(name)
        self._registry = registry
        self._launcher = launcher
        self._ready = ready
        self._reset = reset
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._line: Counter[_Waiter, LeaseWorker] = Counter()
        self._idle: dict[LeaseWorker, None] = {}
        self._checking = 0
        self._leases = self._ok = self._errors = self._cancelled = 0
        self._response = Samples()
        self._quiet: Latch | None = None
        self._open = self._closed = False

    # ------------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Starts the first workers.

        Raises:
            SpawnError: one could not be started; nothing is left of any.
            WorkerStartError: one did not become ready; nothing is left of any.
            StateError: the pool was entered before.
            PoolClosed: it was closed before.

        Cancellation: nothing is left of any worker before the cancellation goes on.
        """
        if self._closed:
            raise PoolClosed(self.name)
        if self._open:
            raise StateError(f"the pool {self.name} was entered before")
        self._open = True
        self._loop = asyncio.get_running_loop()
        crew = _Crew(self)
        self._fleet: Fleet[LeaseWorker] = Fleet(self.name, self.config, self._registry, crew, self._rng, eager=True)
        try:
            await self._fleet.open()
        except BaseException:
            self._closed = True
            self._turn_away(PoolClosed(self.name))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the pool: after an exception at once, else when all leases are back.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await self.aclose(cancel=error is not None)

    async def aclose(self, *, cancel: bool = False) -> None:
        """Closes the pool; may be called twice.

        Nobody gets a worker any more. Leases that are out are waited for, unless ``cancel`` is set or the caller is
        cancelled; then their workers are stopped. Those who wait get ``PoolClosed``.

        Args:
            cancel: do not wait for leases.

        Cancellation: leases are not waited for any longer; the cancellation goes on when no worker is left.
        """
        if not self._open:
            self._closed = True
            return
        self._closed = True
        self._turn_away(PoolClosed(self.name))
        try:
            while not cancel and self._leases:
                self._quiet = self._quiet or Latch(loop=self._loop)
                await asyncio.wait((self._quiet,))
        finally:
            await finish(self._fleet.close(0.0 if self._leases else self.config.stop_grace))

    def _turn_away(self, error: Exception) -> None:
        """Whoever waits need not wait any longer."""
        for waiter in list(self._line.line):
            self._line.leave(waiter)
            if not waiter.future.done():
                waiter.future.set_exception(error)

    # --------------------------------------------------------------------------------------- leases

    def acquire(self, *, timeout: float | None = None, priority: int = Priority.NORMAL) -> Acquiring:
        """Asks for a worker: ``async with pool.acquire() as worker:`` or ``worker = await pool.acquire()``.

        Args:
            timeout: seconds to wait; default: as long as it takes.
            priority: the smaller number is served first.

        Raises:
            ConfigError: an option was refused.
        """
        return Acquiring(self, seconds_or_none("timeout", timeout), priority_of(priority))

    async def _acquire(self, timeout: float | None, priority: int) -> Lease:
        if self._closed or not self._open:
            raise PoolClosed(self.name)
        now = self._loop.time()
        if not len(self._line):
            while self._idle:
                worker, _ = self._idle.popitem()
                if not worker.has_ended():
                    self._fleet.roster.take(worker.slot)
                    return self._lend(worker, 0.0, now)
        most = self.config.max_waiting
        if most is not None and len(self._line) >= most:
            raise PoolExhausted(self.name, most)
        waiter = _Waiter(self._loop.create_future(), now)
        self._line.join(waiter, priority)
        self._fleet.pressed()
        try:
            if timeout is None:
                await waiter.future
            else:
                async with asyncio.timeout(timeout):
                    await waiter.future
        except BaseException as error:
            phase = self._phase()
            granted = self._line.leave(waiter)
            if granted is not None:
                self._came_back(granted)
            if isinstance(error, TimeoutError) and timeout is not None:
                self._cancelled += 1
                raise AcquireTimeout(self.name, timeout, phase) from None
            self._cancelled += isinstance(error, asyncio.CancelledError)
            raise
        worker = self._line.take(waiter)
        later = self._loop.time()
        if not worker.has_ended():
            return self._lend(worker, later - now, later)
        left = None if timeout is None else max(0.0, timeout - (later - now))
        return await self._acquire(left, priority)  # it ended between being granted and being taken

    def _phase(self) -> str:
        if self._fleet.roster.count(SlotState.STARTING):
            return "starting"
        return "checking" if self._checking else "waiting"

    def _lend(self, worker: LeaseWorker, waited: float, now: float) -> Lease:
        self._leases += 1
        self._fleet.took(worker)
        lease = Lease(self, worker, waited, now)
        registry = self._registry
        if registry is not None and registry.wants(WorkerLeased):
            registry.publish(WorkerLeased(id=worker.slot.id, owner=self.name, pool=self.name, waited=waited))
        return lease

    def release(self, lease: Lease, *, discard: bool = False) -> Awaitable[None]:
        """Takes a worker back, at once. What it returns may be awaited and need not be.

        Args:
            lease: what ``acquire()`` gave.
            discard: stop the worker instead of giving it to the next.

        Raises:
            LeaseError: it was given back before, or is another pool's.
        """
        worker = self._take_back(lease)
        if discard:
            self._discard(worker)
        else:
            self._came_back(worker)
        return DONE

    def _take_back(self, lease: Lease) -> LeaseWorker:
        if not isinstance(lease, Lease):
            raise ConfigError("lease", lease, "what acquire() gave is needed")
        if lease._pool is not self:
            raise LeaseError("lease", f"it belongs to the pool {lease._pool.name}, not to {self.name}")
        worker = lease._worker
        if worker is None:
            raise LeaseError("lease", "it was given back before")
        lease._worker = worker.lease = None
        self._leases -= 1
        held = self._loop.time() - lease._since
        self._response.add(held)
        if worker.process.exit is None:
            self._ok += 1
            worker.slot.survived += 1
            self._fleet.proved()
        else:
            self._errors += 1
        registry = self._registry
        if registry is not None and registry.wants(WorkerReleased):
            registry.publish(WorkerReleased(id=worker.slot.id, owner=self.name, pool=self.name, held=held))
        if not self._leases and self._quiet is not None:
            self._quiet.open()
        return worker

    def _came_back(self, worker: LeaseWorker) -> None:
        """A worker is free: it goes to who is first, or waits itself."""
        if worker.slot.state is not SlotState.BUSY or worker.has_ended():
            return  # it has ended, or is being stopped
        if worker.cause is not None:
            self._discard(worker)
            return
        now = self._loop.time()
        self._fleet.measure(worker, now)
        self._fleet.roster.look(worker.slot, now)
        if not worker.slot.strict and not self._closed:
            while (waiter := self._line.offer(worker)) is not None:
                if not waiter.future.done():
                    waiter.future.set_result(None)
                    return
                self._line.leave(waiter)  # cancelled, and has not woken up to say so
        if worker.slot.strict:
            self._fleet.stop(worker, worker.slot.retiring, self.config.stop_grace)
            return
        self._idle[worker] = None
        self._fleet.given_back(worker)

    def _discard(self, worker: LeaseWorker) -> None:
        if worker.slot.state is SlotState.BUSY:
            self._fleet.stop(worker, "discarded", 0.0)

    def _worker_ended(self, worker: LeaseWorker) -> None:
        self._idle.pop(worker, None)
        slot = worker.slot
        if slot.id in self._fleet.workers and not slot.uses and not self._fleet.closing:
            loss = worker.loss("idle")
            reason = "it ended before anybody had used it"
            error = WorkerStartError(self.name, reason, worker.process.exit, loss.stderr_tail)
            self._fleet.lost(worker, reason, error)
        else:
            self._fleet.lost(worker, str(worker.process.exit))

    async def _left_by_exception(self, lease: Lease) -> None:
        worker = self._take_back(lease)
        if self._reset is None or worker.process.exit is not None or self._closed:
            self._discard(worker)
            return
        try:
            async with asyncio.timeout(self.config.health_timeout):
                await self._talk(worker, self._reset)
        except Exception:  # noqa: BLE001 - it is anybody's code, and what it raises is its answer
            self._discard(worker)
        else:
            self._came_back(worker)

    async def _talk(self, worker: LeaseWorker, hook: Talk) -> object:
        """Lets a hook talk with a worker that nobody has leased."""
        lease = Lease(self, worker, 0.0, self._loop.time())
        try:
            return await hook(lease)
        finally:
            lease._worker = worker.lease = None

    # --------------------------------------------------------------------------------- size, figures

    def _inside(self) -> Fleet[LeaseWorker]:
        if self._closed or not self._open:
            raise PoolClosed(self.name)
        return self._fleet

    async def scale_up(self, n: int = 1) -> int:
        """Grows by up to ``n`` workers and returns the new size once they are ready.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.
            PoolClosed: the pool is closed.

        Cancellation: safe; the change goes on.
        """
        fleet = self._inside()
        return await fleet.resize(fleet.roster.target + count("n", n), "scale_up")

    async def scale_down(self, n: int = 1) -> int:
        """Shrinks by up to ``n`` workers and returns the new size. Leased ones go when they come back.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.
            PoolClosed: the pool is closed.

        Cancellation: safe; the change goes on.
        """
        fleet = self._inside()
        return await fleet.resize(fleet.roster.target - count("n", n), "scale_down")

    async def resize(self, n: int) -> int:
        """Aims at ``n`` workers, within ``min_size`` and ``max_size``, and returns the size that is aimed at.

        Raises:
            ConfigError: ``n`` is no whole number of 0 or more.
            PoolClosed: the pool is closed.

        Cancellation: safe; the change goes on.
        """
        return await self._inside().resize(count("n", n, 0), "resize")

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """The workers of this moment, and where each stands."""
        return self._fleet.roster.look_around() if hasattr(self, "_fleet") else ()

    def statistics(self) -> PoolStatistics:
        """Figures of this moment; ``response`` is how long leases were held."""
        if not hasattr(self, "_fleet"):
            return PoolStatistics()
        fleet, roster = self._fleet, self._fleet.roster
        idle, busy = roster.count(SlotState.IDLE), roster.count(SlotState.BUSY)
        return PoolStatistics(
            size=roster.size,
            target=roster.target,
            active=idle + busy,
            idle=idle,
            busy=busy,
            starting=roster.count(SlotState.STARTING),
            created=fleet.created,
            destroyed=fleet.destroyed,
            failed=fleet.failed,
            waiting=len(self._line),
            running=self._leases,
            ok=self._ok,
            errors=self._errors,
            cancelled=self._cancelled,
            response=self._response.summary(),
        )

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open" if self._open else "not entered"
        return f"<ProcessPool {self.name} of {self.command.display()}: {state}>"


class _Crew:
    """What the pool does for its fleet."""

    def __init__(self, pool: ProcessPool) -> None:
        self._pool = pool
        self._suspects: set[str] = set()

    async def start(self, slot: Slot) -> LeaseWorker:
        pool = self._pool
        spawning = Spawning(pool.command, pool._registry, pool._launcher, pool.command.name, pool.name, slot.id)
        process = await spawning.open(None)
        worker = LeaseWorker(slot, spawning, process)
        if pool._ready is not None:
            timeout = pool.config.start_timeout
            try:
                async with asyncio.timeout(timeout):
                    await pool._talk(worker, pool._ready)
            except BaseException as error:
                loss = worker.loss("starting")
                await worker.clear()
                if not isinstance(error, Exception):
                    raise
                late = isinstance(error, TimeoutError)
                reason = f"it was not ready after {timeout:g} s" if late else f"{type(error).__name__}: {error}"
                raise WorkerStartError(pool.name, reason, loss.exit, loss.stderr_tail) from error
        worker.watch(pool)
        return worker

    def ready(self, worker: LeaseWorker) -> None:
        pool = self._pool
        if worker.process.exit is None:
            pool._fleet.roster.take(worker.slot)
            pool._came_back(worker)

    def load(self) -> Load:
        pool = self._pool
        roster = pool._fleet.roster
        waited = pool._loop.time() - pool._line.line.peek().since if len(pool._line) else 0.0
        return Load(
            waiting=len(pool._line),
            busy=roster.count(SlotState.BUSY),
            running=pool._leases,
            workers=roster.size,
            starting=roster.count(SlotState.STARTING),
            waited=waited,
        )

    def hopeless(self, error: Exception) -> None:
        self._pool._turn_away(error)

    def withdraw(self, worker: LeaseWorker) -> bool:
        return self._pool._idle.pop(worker, worker) is None and worker.process.exit is None

    async def check(self, worker: LeaseWorker) -> bool:
        """Asks an idle worker; one that is leased is well unless it is stopped, twice in a row."""
        pool = self._pool
        ask = pool.config.health_check
        if not callable(ask) or worker not in pool._idle:
            if not is_stopped(worker.process.pid):
                self._suspects.discard(worker.slot.id)
                return True
            first = worker.slot.id not in self._suspects
            self._suspects.add(worker.slot.id)
            return first and worker not in pool._idle
        del pool._idle[worker]
        pool._fleet.roster.take(worker.slot)
        pool._checking += 1
        well = False
        try:
            well = bool(await pool._talk(worker, ask))
        finally:
            pool._checking -= 1
            if well:
                pool._came_back(worker)
        return well

    def sickly(self, worker: LeaseWorker) -> None:
        pool = self._pool
        worker.cause = WorkerLoss.HUNG
        pool._idle.pop(worker, None)
        if worker.process.exit is None and worker.slot.state in (SlotState.IDLE, SlotState.BUSY):
            pool._fleet.stop(worker, "not well", 0.0)
