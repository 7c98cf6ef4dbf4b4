"""Who runs which call, and what becomes of the calls of a worker that is gone: the inside of a function pool."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from procession._core.aio import Latch, finish
from procession._core.backoff import RetryPolicy
from procession._core.window import Samples
from procession._types import Priority
from procession.errors import CallTimeout, ConfigError, PoisonedTask, PoolClosed, PoolExhausted, WorkerLoss, WorkerLost
from procession.events import CallFinished
from procession.pool._autoscale import Load
from procession.pool._call import Call, Future
from procession.pool._channel import Parcel
from procession.pool._config import PoolConfig
from procession.pool._fleet import Fleet
from procession.pool._function_worker import FunctionWorker
from procession.pool._functions import Function, Functions, name_of
from procession.pool._loss import is_stopped
from procession.pool._options import priority_of, retries_of, seconds_or_none
from procession.pool._slots import Slot, SlotState
from procession.pool._start import Starter
from procession.pool._statistics import PoolStatistics
from procession.pool._waiters import WaitQueue

if TYPE_CHECKING:
    from procession.registry import ProcessRegistry

_STUCK = 0.005
"""Seconds after which a call is no short one, whatever its like took before, and nothing waits behind it any longer."""


class Dispatcher:
    """Calls on one side, workers on the other. Everything here runs on the loop's thread and never waits.

    Args:
        name: the pool's name.
        config: how many workers, and what they bring along.
        registry: is told of every worker.
        rng: for jitter.
    """

    def __init__(self, name: str, config: PoolConfig, registry: ProcessRegistry | None, rng: random.Random) -> None:
        self.name = name
        self.config = config
        self.loop = asyncio.get_running_loop()
        self.closing = False
        self.starter = Starter(name, config, registry)
        self.fleet: Fleet[FunctionWorker] = Fleet(name, config, registry, self, rng, eager=False)
        self._functions = Functions(self.starter.settings["limit"], self._forget)
        self._rng = rng
        self._depth = config.prefetch
        self._queue: WaitQueue[Call] = WaitQueue()
        self._idle: dict[FunctionWorker, None] = {}
        self._delayed: dict[Call, asyncio.TimerHandle] = {}
        self._response = Samples()
        self._registry = registry
        self._heard = None if registry is None else registry.heard
        self._ok = self._errors = self._lost = self._retried = self._cancelled = 0
        self._unstick: asyncio.TimerHandle | None = None
        self._suspects: set[str] = set()
        self._quiet: Latch | None = None
        self._closed: Latch | None = None

    # ------------------------------------------------------------------------------------- its life

    async def open(self) -> None:
        """Starts the first workers.

        Cancellation: nothing is left of any before the cancellation goes on.
        """
        try:
            await self.starter.open()
            await self.fleet.open()
        except BaseException:
            self.closing = True
            await self.shut()
            raise

    async def drained(self) -> None:
        """Waits until nothing waits or runs.

        Cancellation: safe.
        """
        while self._is_busy():
            if self._quiet is None or self._quiet.done():
                self._quiet = Latch(loop=self.loop)
            await asyncio.wait((self._quiet,))

    def _is_busy(self) -> bool:
        if self._queue or self._delayed:
            return True
        return any(sent.call is not None for worker in self.fleet for sent in worker.pending)

    def _calm(self) -> None:
        if self._quiet is not None and not self._is_busy():
            self._quiet.open()

    async def shut(self) -> None:
        """Fails what is left, ends all workers.

        Cancellation: absorbed until no worker is left, then raised.
        """
        await finish(self._shut())

    async def _shut(self) -> None:
        if self._closed is not None:
            await asyncio.wait((self._closed,))
            return
        self._closed = Latch(loop=self.loop)
        error = PoolClosed(self.name)
        grace = self.config.stop_grace
        waiting = [*self._queue, *self._delayed]
        for timer in self._delayed.values():
            timer.cancel()
        self._queue = WaitQueue()
        self._delayed.clear()
        for call in waiting:
            self._settle(call, error)
        for worker in self.fleet:
            if worker.pending:
                grace = 0.0
                for sent in worker.pending:
                    if sent.call is not None and sent.call.fate is None:
                        sent.call.fate = error
        try:
            await self.fleet.close(grace)
            if self._unstick is not None:
                self._unstick.cancel()
            await self.starter.close()
        finally:
            self._closed.open()

    # ------------------------------------------------------------------------------------- the calls

    def enter(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        timeout: float | None,
        retries: int | RetryPolicy,
        priority: int,
        future: Future,
    ) -> Call:
        """Takes a call; everything that can be wrong with it is found here, before a worker is touched."""
        if self.closing:
            raise PoolClosed(self.name)
        if not callable(function):
            raise ConfigError("function", function, "something that can be called is needed")
        if kwargs is not None and not isinstance(kwargs, Mapping):
            raise ConfigError("kwargs", kwargs, "a mapping of names to arguments is needed")
        if type(priority) is not Priority:
            priority_of(priority)
        if type(retries) is not int or retries:
            retries_of(retries)
        timeout = seconds_or_none("timeout", timeout)
        most = self.config.max_waiting
        known = self._functions.of(function)
        parcel = self._functions.pack(known, function, args, kwargs)
        now = self.loop.time()
        call = Call(known, name_of(function), parcel, priority, future, retries, timeout, now)
        worker = None if self._queue else self._worker_for(known, parcel)
        if worker is not None:
            if call.begin():
                self._assign(worker, call, now)
        elif most is not None and len(self._queue) >= most:
            raise PoolExhausted(self.name, most)
        else:
            self._queue.push(call, priority)
            self.fleet.pressed()
        if timeout is not None:
            call.timer = self.loop.call_at(now + timeout, self._timed_out, call)
        return call

    def _worker_for(self, function: Function | None, parcel: Parcel) -> FunctionWorker | None:
        """Who can run a call now, or very soon: the one that was idle last, or the one with the least to do."""
        if self._idle:
            return next(reversed(self._idle))
        if not self._depth or function is None or function.pace is None:
            return None
        best = None
        for worker in self.fleet:
            if (best is None or worker.load < best.load) and worker.pending:
                best = worker if worker.has_room(function, parcel, self._depth) else best
        return best

    def _assign(self, worker: FunctionWorker, call: Call, now: float) -> None:
        if not worker.pending:
            if self._idle.pop(worker, worker) is None:
                self.fleet.roster.take(worker.slot)
        elif self._unstick is None:
            self._unstick = self.loop.call_at(now + _STUCK, self._look_for_stuck)
        worker.assign(call, now)
        self.fleet.took(worker)

    def _fill(self, worker: FunctionWorker) -> None:
        queue = self._queue
        now = 0.0
        while queue:
            call = queue.peek()
            if not worker.has_room(call.function, call.parcel, self._depth):
                return
            queue.pop()
            if not call.begin():
                self._calm()
                continue
            now = now or self.loop.time()
            self._assign(worker, call, now)

    def _look_for_stuck(self) -> None:
        """Takes calls away from behind one that takes longer than was expected."""
        self._unstick = None
        now = self.loop.time()
        again = None
        for worker in self.fleet:
            if len(worker.pending) < 2:
                continue
            if now - worker.since < _STUCK:
                again = worker.since if again is None else min(again, worker.since)
            else:
                worker.fetch_held()
                worker.stuck = True
                self.moved(worker.take_back_all())
        if again is not None:
            self._unstick = self.loop.call_at(again + _STUCK, self._look_for_stuck)

    def _timed_out(self, call: Call) -> None:
        call.timer = None
        if call.future.done() or call.timeout is None:
            return
        self._cancelled += 1
        error = CallTimeout(call.name, call.timeout, "waiting")
        if self._take_out(call) or call.worker is None or self._took_back(call, call.worker):
            self._settle(call, error)
        else:
            error.phase = "running"
            self._condemn(call, error)

    def _take_out(self, call: Call) -> bool:
        """Takes back a call that waits here; ``False`` when it does not."""
        if call in self._delayed:
            self._delayed.pop(call).cancel()
        elif not self._queue.discard(call, call.priority):
            return False
        self._calm()
        return True

    def _condemn(self, call: Call, error: BaseException) -> Latch | None:
        """The worker that runs ``call`` is killed; the call gets ``error`` once it is gone."""
        worker = call.worker
        if worker is None:
            return None
        call.fate = error
        self._idle.pop(worker, None)
        worker.kill(WorkerLoss.KILLED)
        self.moved(worker.take_back_all())
        return worker.gone

    def abandon(self, call: Call) -> Latch | None:
        """Nobody waits for ``call`` any more; returns what opens when the worker that runs it is gone."""
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if self._take_out(call):
            self._cancelled += 1
            return None
        if call.worker is None:
            return None  # it was answered
        self._cancelled += 1
        if self._took_back(call, call.worker):
            return None
        return self._condemn(call, asyncio.CancelledError())

    def _took_back(self, call: Call, worker: FunctionWorker) -> bool:
        """Takes back a call that was sent; ``False`` when it may have been begun. Who was stopped before is killed."""
        was_next = worker.pending and worker.pending[0] is call.sent
        if not worker.take_back(call):
            return False
        if was_next and is_stopped(worker.process.pid):
            self._idle.pop(worker, None)
            worker.kill(WorkerLoss.HUNG)
            self.moved(worker.take_back_all())
        self._calm()
        return True

    def _settle(self, call: Call, error: BaseException | None, value: object = None) -> None:
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if error is None:
            call.succeed(value)
        elif not isinstance(error, asyncio.CancelledError):
            if self._heard is not None and self._heard(CallFinished) and not isinstance(error, PoolClosed):
                self._tell(error.worker if isinstance(error, WorkerLost) else self.name, call, ok=False)
            call.fail(error)
            if (
                isinstance(error, PoolClosed)
                and isinstance(call.future, asyncio.Future)
                and not call.future.cancelled()
            ):
                call.future.exception()  # whoever closes a pool at once knows; nobody has to be told by the log

    # --------------------------------------------------------------------------- what workers tell

    def replied(self, worker: FunctionWorker, call: Call, value: object, error: BaseException | None) -> None:
        """A call was answered."""
        if worker.slot.survived == 1:
            self.fleet.proved()
        if error is None:
            self._ok += 1
            self._response.add(self.loop.time() - call.queued_at)
        elif isinstance(call.retries, RetryPolicy) and self._again(call, error):
            return
        else:
            self._errors += 1
        if self._heard is not None and self._heard(CallFinished):
            self._tell(worker.id, call, ok=error is None)
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        future = call.future
        if not future.done():
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _tell(self, id: str, call: Call, *, ok: bool) -> None:
        """Publishes that a call was answered; asked for only if somebody listens: the journal has no use for so many."""
        assert self._registry is not None
        duration = self.loop.time() - call.queued_at
        self._registry.publish(CallFinished(id=id, owner=self.name, pool=self.name, ok=ok, duration=duration))

    def freed(self, worker: FunctionWorker) -> None:
        """A worker can take more."""
        if self._queue:
            if self.config.max_memory_mb is not None:
                self.fleet.weigh(worker)
            self._fill(worker)
        if not worker.pending and worker.condemned is None and worker.slot.state is SlotState.BUSY:
            self._idle[worker] = None
            self.fleet.given_back(worker)
            if worker.slot.strict:
                self._idle.pop(worker, None)
            if self._quiet is not None:
                self._calm()

    def moved(self, calls: Sequence[Call]) -> None:
        """These calls were not begun where they were sent: they are the first of their kind again."""
        for call in reversed(calls):
            if call.fate is not None:
                self._settle(call, call.fate)
            elif self._closed is not None:
                self._settle(call, PoolClosed(self.name))
            elif not call.future.done():
                self._queue.push_front(call, call.priority)
        if calls:
            for worker in list(reversed(self._idle)):
                self._fill(worker)
            self.fleet.poke()

    def lost(self, worker: FunctionWorker, call: Call | None, loss: WorkerLost) -> None:
        """A worker is gone, with ``call``."""
        self._idle.pop(worker, None)
        self._suspects.discard(worker.id)
        if call is not None:
            if call.fate is not None:
                self._settle(call, call.fate)
            else:
                self._bereaved(call, loss)
        self.fleet.lost(worker, str(loss.cause))
        self._calm()

    def _bereaved(self, call: Call, loss: WorkerLost) -> None:
        self._lost += 1
        call.deaths = [*(call.deaths or ()), loss]
        if call.future.done():
            return
        if len(call.deaths) >= self.config.poison_after:
            self._errors += 1
            self._settle(call, PoisonedTask(call.name, call.deaths) if len(call.deaths) > 1 else loss)
        elif not self._again(call, loss):
            self._errors += 1
            self._settle(call, loss)

    def _again(self, call: Call, error: BaseException) -> bool:
        """Tries ``call`` again if it asked for that."""
        call.failures += 1
        if isinstance(call.retries, RetryPolicy):
            delay = call.retries.next_delay(call.failures, error, self._rng)
        else:
            delay = 0.0 if call.failures <= call.retries else None
        if delay is None or (self.closing and self._closed is not None):
            return False
        self._retried += 1
        if delay > 0:
            self._delayed[call] = self.loop.call_later(delay, self._back_in_line, call)
        else:
            self._back_in_line(call)
        return True

    def _back_in_line(self, call: Call) -> None:
        self._delayed.pop(call, None)
        self._queue.push_front(call, call.priority)
        for worker in list(reversed(self._idle)):
            self._fill(worker)
        self.fleet.pressed()

    def _forget(self, function: Function) -> None:
        for worker in self.fleet:
            worker.forget(function)

    # -------------------------------------------------------------------------- what the fleet asks

    async def start(self, slot: Slot) -> FunctionWorker:
        """Makes a worker; for the fleet.

        Cancellation: nothing is left of it before the cancellation goes on.
        """
        return await self.starter.start(slot, self)

    def ready(self, worker: FunctionWorker) -> None:
        """A new worker is there; for the fleet."""
        self._idle[worker] = None
        self._fill(worker)

    def load(self) -> Load:
        """What there is to do; for the fleet."""
        roster = self.fleet.roster
        waited = self.loop.time() - self._queue.peek().queued_at if self._queue else 0.0
        return Load(
            waiting=len(self._queue),
            busy=roster.count(SlotState.BUSY),
            running=sum(len(worker.pending) for worker in self.fleet),
            workers=roster.size,
            starting=roster.count(SlotState.STARTING),
            waited=waited,
        )

    def hopeless(self, error: Exception) -> None:
        """No worker can be started; for the fleet."""
        waiting = list(self._queue)
        self._queue = WaitQueue()
        for call in waiting:
            self._errors += 1
            self._settle(call, error)
        self._calm()

    def withdraw(self, worker: FunctionWorker) -> bool:
        """Takes an idle worker out of the line; for the fleet."""
        if worker.pending or worker.condemned is not None:
            return False
        self._idle.pop(worker, None)
        return True

    async def check(self, worker: FunctionWorker) -> bool:
        """Whether a worker is well; for the fleet. One that is busy is well unless it is stopped, twice in a row.

        Cancellation: safe.
        """
        if worker.pending or self.config.health_check == "alive":
            if not is_stopped(worker.process.pid):
                self._suspects.discard(worker.id)
                return True
            first = worker.id not in self._suspects
            self._suspects.add(worker.id)
            return first
        if callable(self.config.health_check):
            return bool(await self.config.health_check(worker))
        try:
            await worker.ping()
        except WorkerLost:
            return True  # it has ended, which was told elsewhere
        return True

    def sickly(self, worker: FunctionWorker) -> None:
        """A worker failed its check; for the fleet."""
        if self.config.health_check == "ping" and worker.pending and worker.id not in self._suspects:
            return  # it has been given work since it was asked, and answers when it has done that
        worker.kill(WorkerLoss.HUNG)
        self._idle.pop(worker, None)
        self.moved(worker.take_back_all())

    def statistics(self) -> PoolStatistics:
        """Figures of this moment."""
        fleet, roster = self.fleet, self.fleet.roster
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
            waiting=len(self._queue) + len(self._delayed),
            running=sum(len(worker.pending) for worker in fleet),
            ok=self._ok,
            errors=self._errors,
            lost=self._lost,
            retried=self._retried,
            cancelled=self._cancelled,
            response=self._response.summary(),
        )
