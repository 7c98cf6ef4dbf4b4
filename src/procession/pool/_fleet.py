"""What all pools of workers have in common: starting, replacing, scaling, checking and stopping them.

The decisions are the roster's and the rule's, which are pure; here they are carried out. One look follows each event and
each timer, none is periodic: the next look is always at the time at which something will be due.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from procession._core.aio import Latch, finish
from procession._core.backoff import Backoff
from procession._launch._owner import owner as this_program
from procession.errors import PoolClosed, WorkerStartError
from procession.events import PoolScaled
from procession.pool._autoscale import Load, Rule, Scaling, decide
from procession.pool._slots import Roster, Slot, SlotState

if TYPE_CHECKING:
    from procession.pool._config import PoolConfig
    from procession.registry import ProcessRegistry

_log = logging.getLogger("procession.pool")
_BACKOFF = Backoff.exponential(0.05, cap=5.0, jitter=False)
_FREE_FAILURES = 2  # workers that may end in a row without having done anything before the next start has to wait
_MEMORY_EVERY = 0.1  # seconds between two looks at the memory of one worker


class Worker(Protocol):
    """What the fleet needs of a worker."""

    slot: Slot
    gone: Latch

    def memory(self) -> int:
        """Bytes of memory of its own."""

    async def retire(self, grace: float) -> None:
        """Lets it end in order within ``grace`` seconds, then kills it.

        Cancellation: absorbed until nothing of it is left, then raised.
        """

    async def clear(self) -> None:
        """Ends what is left of it.

        Cancellation: absorbed until nothing of it is left, then raised.
        """


W = TypeVar("W", bound=Worker)


class Crew(Protocol[W]):
    """What a pool does for its fleet."""

    async def start(self, slot: Slot) -> W:
        """Makes a worker and returns it when it is ready.

        Cancellation: nothing is left of it before the cancellation goes on.
        """

    def ready(self, worker: W) -> None:
        """A new worker is there and idle."""

    def load(self) -> Load:
        """What there is to do."""

    def hopeless(self, error: Exception) -> None:
        """No worker can be started: whoever waits is to be told."""

    async def check(self, worker: W) -> bool:
        """Whether an idle worker is well.

        Cancellation: safe.
        """

    def withdraw(self, worker: W) -> bool:
        """Takes an idle worker out of the line; ``False`` when it is not idle after all."""

    def sickly(self, worker: W) -> None:
        """A worker failed its check and is taken away."""


class Fleet(Generic[W]):
    """The workers of one pool.

    Args:
        name: the pool's name.
        config: how many, and how long.
        registry: who is told of changes of size.
        crew: the pool itself.
        rng: for jitter.
        eager: whether a worker is started for whoever waits at once, not only after some patience.
    """

    def __init__(
        self,
        name: str,
        config: PoolConfig,
        registry: ProcessRegistry | None,
        crew: Crew[W],
        rng: random.Random,
        *,
        eager: bool,
    ) -> None:
        self.name = name
        self.config = config
        self.roster = Roster(config.min_size, config.most, config.wear)
        self.workers: dict[str, W] = {}
        self.created = 0
        self.destroyed = 0
        self.failed = 0
        self._registry = registry
        self._crew = crew
        self._rng = rng
        self._rule = Rule(
            least=config.min_size,
            most=config.most,
            cool_down=config.cool_down,
            patience=0.0 if eager else config.patience,
        )
        self._scaling = Scaling()
        self._soon = min(config.cool_down, config.cool_down if config.idle_timeout is None else config.idle_timeout)
        self._tasks: set[asyncio.Task[None]] = set()
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._looking = False
        self._failures = 0
        self._not_before = 0.0
        self._last_error: Exception | None = None
        self._opening: asyncio.Future[None] | None = None
        self._checked: dict[str, float] = {}
        self._measured: dict[str, float] = {}
        self.closing = False

    def __iter__(self) -> Iterator[W]:
        return iter(self.workers.values())

    def _now(self) -> float:
        return self._loop.time()

    # ------------------------------------------------------------------------------------- its life

    async def open(self) -> None:
        """Starts the first workers and waits until they are ready.

        Raises:
            WorkerStartError: one could not be started; nothing is left of any.
            SpawnError: likewise.

        Cancellation: nothing is left of any before the cancellation goes on.
        """
        self._loop = asyncio.get_running_loop()
        self.roster.aim(self.config.first)
        if not self.config.first:
            return
        self._opening = self._loop.create_future()
        try:
            self._look()
            await self._opening
        except BaseException:
            await self.close(0.0)
            raise
        finally:
            self._opening = None

    async def close(self, grace: float) -> None:
        """Stops all workers and waits until nothing of them is left.

        Cancellation: absorbed until nothing of them is left, then raised.
        """
        await finish(self._close(grace))

    async def _close(self, grace: float) -> None:
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._starts.values()):
            task.cancel()
        for worker in list(self.workers.values()):
            if worker.slot.state in (SlotState.IDLE, SlotState.BUSY):
                self._stop(worker, "close", grace)
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s: %r", self.name, error, exc_info=error)

    # ---------------------------------------------------------------------------------- the decisions

    def poke(self) -> None:
        """Something has changed: looks once at the end of this turn of the loop."""
        if not self._looking and not self.closing:
            self._looking = True
            self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        if self.closing:
            return
        now = self._now()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due: list[float] = []
        for worker in self.workers.values():
            self.roster.look(worker.slot, now)
        if self.config.autoscale and self._opening is None:
            verdict = decide(self._crew.load(), self._rule, self._scaling, now)
            self._scaling = verdict.scaling
            if verdict.reason:
                self.aim(verdict.target, verdict.reason)
            if verdict.look_again is not None:
                due.append(verdict.look_again)
        elif not self.roster.target and self._crew.load().waiting:
            self.aim(1, "somebody waits")
        was = self.roster.target
        staffing = self.roster.staffing(now)
        self._tell(was, "idle")
        for slot in staffing.stop:
            worker = self.workers[slot.id]
            if self._crew.withdraw(worker):
                self._stop(worker, slot.retiring or "surplus", self.config.stop_grace)
        if staffing.start and now < self._not_before:
            due.append(self._not_before)
        else:
            for _ in range(staffing.start):
                self._start()
        due += self._checks(now)
        later = self.roster.next_look()
        if later is not None:
            due.append(later)
        if due:
            self._timer = self._loop.call_at(max(min(due), now + 0.001), self._look)

    def aim(self, target: int, reason: str) -> int:
        """Changes the size that is aimed at, within its limits, and returns that."""
        was = self.roster.target
        self.roster.aim(target)
        self._tell(was, reason)
        return self.roster.target

    def _tell(self, was: int, reason: str) -> None:
        new, registry = self.roster.target, self._registry
        if new != was and registry is not None and registry.wants(PoolScaled):
            registry.publish(PoolScaled(id=self.name, owner=self.name, old=was, new=new, reason=reason))

    # ---------------------------------------------------------------------------------------- starting

    def _start(self) -> None:
        slot = self.roster.add(this_program().new_id(), self._now())
        task = self._own(self._started(slot))
        self._starts[slot.id] = task

    async def _started(self, slot: Slot) -> None:
        try:
            worker = await self._crew.start(slot)
        except asyncio.CancelledError:
            slot.machine.to(SlotState.STOPPING, "cancelled")
            self.roster.remove(slot)
            if not self.closing:
                raise
            return
        except Exception as error:  # noqa: BLE001 - whatever a start can fail with, the pool goes on
            slot.machine.to(SlotState.FAILED, str(error))
            self.roster.remove(slot)
            self.failed += 1
            self._start_failed(error)
            return
        finally:
            self._starts.pop(slot.id, None)
        self.created += 1
        self.workers[slot.id] = worker
        now, life = self._now(), self.config.max_lifetime
        if life is not None:
            life *= 1 + self.config.lifetime_jitter * (2 * self._rng.random() - 1)
        memory = worker.memory() if self.config.max_memory_mb is not None else 0
        self.roster.became_ready(slot, now, memory, life)
        self._checked[slot.id] = now
        if worker.gone.done():
            self.lost(worker, "ended as soon as it was ready")
            return
        if self.closing:
            self._stop(worker, "close", 0.0)
            return
        self._crew.ready(worker)
        if self._opening is not None and not self._opening.done() and self.roster.ready >= self.roster.target:
            self._opening.set_result(None)
        self.poke()

    def _start_failed(self, error: Exception) -> None:
        self._last_error = error
        self._back_off()
        if self._opening is not None:
            if not self._opening.done():
                self._opening.set_exception(error)
            return
        _log.warning("%s: a worker could not be started: %s", self.name, error)
        if self._failures >= self.config.start_failures and not self.roster.ready:
            self._crew.hopeless(error)
        self.poke()

    def _back_off(self) -> None:
        self._failures += 1
        if self._failures > _FREE_FAILURES:
            self._not_before = self._now() + _BACKOFF.delay(self._failures - _FREE_FAILURES, self._rng)

    def proved(self) -> None:
        """A worker has done something: what went wrong before is forgotten."""
        self._failures = 0

    @property
    def failures(self) -> int:
        """Workers that ended in a row without having done anything."""
        return self._failures

    # ----------------------------------------------------------------------------------------- ending

    def lost(self, worker: W, reason: str, hopeless: Exception | None = None) -> None:
        """It has ended unasked: cleans up after it and looks whether it is to be replaced.

        Args:
            worker: who.
            reason: how it ended.
            hopeless: what those who wait are told if this goes on, because it was of no use to anybody.
        """
        slot = worker.slot
        if self.workers.pop(slot.id, None) is None:
            return  # it was being stopped, or never became ready
        self.failed += 1
        if slot.survived:
            self._failures = 0
        else:
            self._back_off()
        slot.machine.to(SlotState.FAILED, reason)
        self._own(self._cleared(worker))
        if hopeless is not None and self._failures >= self.config.start_failures and not self.roster.ready:
            self._crew.hopeless(hopeless)
        self.poke()

    async def _cleared(self, worker: W) -> None:
        try:
            await worker.clear()
        finally:
            self._remove(worker)

    def stop(self, worker: W, reason: str, grace: float) -> None:
        """Stops one worker; another takes its place when it is needed."""
        self._stop(worker, reason, grace)
        self.poke()

    def _stop(self, worker: W, reason: str, grace: float) -> None:
        worker.slot.machine.to(SlotState.STOPPING, reason)
        self.workers.pop(worker.slot.id, None)
        self._own(self._retired(worker, grace))

    async def _retired(self, worker: W, grace: float) -> None:
        try:
            await worker.retire(grace)
        finally:
            self._remove(worker)

    def _remove(self, worker: W) -> None:
        self.destroyed += 1
        self._checked.pop(worker.slot.id, None)
        self._measured.pop(worker.slot.id, None)
        self.roster.remove(worker.slot)

    # ------------------------------------------------------------------------------- what it comes to

    def took(self, worker: W) -> None:
        """One use of a worker begins."""
        slot = worker.slot
        slot.uses += 1
        if self.roster.wear.max_uses is not None:
            self.roster.look(slot, self._now())
            if slot.retiring:
                self.poke()

    def measure(self, worker: W, now: float) -> None:
        """Looks at the memory of a worker, when it matters and not too often."""
        if self.config.max_memory_mb is None or now - self._measured.get(worker.slot.id, 0.0) < _MEMORY_EVERY:
            return
        self._measured[worker.slot.id] = now
        worker.slot.memory = worker.memory()

    def weigh(self, worker: W) -> None:
        """The same for one that goes on working: it may never have nothing to do."""
        self.measure(worker, self._now())
        slot = worker.slot
        if not slot.retiring and slot.worn(self.roster.wear, self._now()):
            self.poke()

    def given_back(self, worker: W) -> None:
        """A worker has nothing to do any more."""
        now = self._now()
        self.measure(worker, now)
        self.roster.give_back(worker.slot, now)
        if worker.slot.retiring:
            self.poke()
        elif self.roster.target > self.roster.least:
            self._look_within(now + self._soon)

    def pressed(self) -> None:
        """Somebody has to wait: looks whether another worker should be started, now or when patience has run out."""
        if self.roster.target < self.config.most:
            self._look_within(self._now() + self._rule.patience)

    def _look_within(self, when: float) -> None:
        if not self._looking and (self._timer is None or self._timer.when() > when):
            self.poke()

    def _checks(self, now: float) -> list[float]:
        """Begins the checks that are due and says when the next one is."""
        if self.config.health_check is None:
            return []
        due = []
        for worker in self.workers.values():
            at = self._checked.get(worker.slot.id, now) + self.config.health_interval
            if at <= now:
                self._checked[worker.slot.id] = now
                at = now + self.config.health_interval
                self._own(self._check(worker))
            due.append(at)
        return due

    async def _check(self, worker: W) -> None:
        well = False
        try:
            async with asyncio.timeout(self.config.health_timeout):
                well = await self._crew.check(worker)
        except TimeoutError:
            well = False
        except Exception as error:  # noqa: BLE001 - a check is anybody's code, and one that raises says no
            _log.warning("%s: the check of %s raised %r", self.name, worker.slot.id, error)
        if not well and worker.slot.id in self.workers and not self.closing:
            self._crew.sickly(worker)

    # ------------------------------------------------------------------------------------- by hand

    async def resize(self, n: int, reason: str) -> int:
        """Aims at ``n`` workers, within the limits, and waits until those that are added are ready or have failed.

        Cancellation: safe; the change goes on.
        """
        if self.closing:
            raise PoolClosed(self.name)
        target = self.aim(n, reason)
        self._look()
        while self._starts and self.roster.ready < self.roster.target:
            await asyncio.wait(list(self._starts.values()), return_when=asyncio.FIRST_COMPLETED)
            if self._last_error is not None and self._failures:
                break
        return target

    def why_not(self) -> Exception:
        """Why no worker could be started, last."""
        return self._last_error or WorkerStartError(self.name, "nobody knows why")
