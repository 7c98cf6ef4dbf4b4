"""The engine of a recovery manager: takes failures, drives each recovery to its end, and tells what became of it."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Collection, Coroutine
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from procession._core.aio import Latch, wait_until
from procession._types import FailureKind
from procession.errors import CircuitOpen, Closed, NotFound, RecoveryExhausted, StateError
from procession.events import (
    Event,
    FailureReported,
    RecoveryAttempted,
    RecoveryFinished,
    RecoveryStarted,
    StateChanged,
)
from procession.recovery._acts import Actor, log, under_way
from procession.recovery._config import RecoveryConfig
from procession.recovery._decide import Act, Done, Episode, GiveUp, Noted, Wait
from procession.recovery._history import Recovery
from procession.recovery._item import Item, text_of
from procession.recovery._signs import SIGNS, Signs
from procession.recovery._states import CircuitState, RecoveryState
from procession.registry import Tier

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.registry import Listener, ProcessRecord, ProcessRegistry

T = TypeVar("T")


class Engine:
    """What :class:`RecoveryManager` does inside.

    Args:
        config: the bounds.
        registry: where failures are noticed, and who is told.
        name: the owner in events.
        launcher: starts processes.
    """

    def __init__(
        self, config: RecoveryConfig, *, registry: ProcessRegistry | None, name: str, launcher: Launcher | None
    ) -> None:
        self.config: RecoveryConfig = config
        self.name: str = name
        self._registry = registry
        self._items: dict[str, Item] = {}
        self._actor = Actor(name, registry, launcher, self._stand_in_ended)
        self._signs: Signs | None = None
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._past: deque[Recovery] = deque(maxlen=config.history_size)
        self._open = self._closed = False

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()  # that of our opener, not of whoever happens to tell of a failure
        registry = self._registry
        if registry is not None:
            self._signs = Signs(self.name, self.config, registry, self._items, self._noticed, self._works)
            self._listener = registry.listen(self._signs.read, types=SIGNS, tier=Tier.MODULE)
        self._open = True

    async def _close(self, spared: Collection[asyncio.Task[Any]]) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        # Whoever closes from within a strategy cannot be waited for.
        if others := self._tasks.difference(spared):
            await asyncio.wait(others, timeout=self.config.close_timeout)
        for task in self._tasks.difference(spared):
            log.error("%s: %r ignores that it was cancelled, and is left behind", self.name, task)
        for item in list(self._items.values()):
            await self._actor.dismiss(item)
            item.disappoint(Closed("recovery"))

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("recovery")
        if not self._open:
            raise StateError("use the RecoveryManager in an `async with` block")

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self._loop.create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s: %r", self.name, error, exc_info=error)

    async def _let_go(self, item: Item) -> None:
        task = item.task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait((task,))
        await self._actor.dismiss(item)
        item.disappoint(NotFound(item.id, "registration"))

    def _item(self, id: str) -> Item:
        item = self._items.get(id) if isinstance(id, str) else None
        if item is None:
            raise NotFound(id, "registration")
        return item

    @staticmethod
    def _is_inside(item: Item) -> bool:
        """Whether we are called by a strategy or a check that this very recovery waits for."""
        episode = item.case.episode
        return item.busy > 0 and any(episode is other for other in under_way.get())

    # ---------------------------------------------------------------------------- what is noted of failures

    def _noticed(self, id: str, kind: FailureKind, text: str, record: ProcessRecord | None, reported: bool) -> None:
        """An event told of a failure."""
        item = self._items[id]
        spawned = None if record is None else (record.created_at if record.spawned_at is None else record.spawned_at)
        after = spawned is not None and spawned >= item.acting_since
        if item.case.state is RecoveryState.PROVING and spawned is not None and not after:
            return  # the one that was brought up again is another
        self._failed(item, kind, text, fresh=after, reported=reported)

    def _stand_in_ended(self, item: Item, kind: FailureKind, text: str) -> None:
        if self._items.get(item.id) is item and not self._closed:
            self._failed(item, kind, text, fresh=True)

    def _failed(
        self,
        item: Item,
        kind: FailureKind,
        error: BaseException | str | None,
        *,
        fresh: bool,
        reported: bool = False,
    ) -> tuple[Noted, asyncio.Task[Recovery] | None]:
        now, case, plan = self._loop.time(), item.case, item.plan_for(kind)
        item.ledger.failed(kind)
        noted = case.failed(kind, now, plan, error, fresh=fresh)
        if noted is Noted.BEGINS:
            item.ledger.down(now)
        if not reported:
            self._publish(FailureReported(id=item.id, owner=self.name, kind=kind, error=text_of(error)))
        breaker = item.breaker
        if case.state is RecoveryState.BACKOFF and item.permit is not None:
            item.settle_permit(ok=False)
        elif noted is Noted.BEGINS and breaker is not None and breaker.state is CircuitState.CLOSED:
            breaker.acquire().failure()
        if noted is Noted.BEGINS:
            first = next((step.name for step in plan if step.heals), "")
            self._publish(RecoveryStarted(id=item.id, owner=self.name, strategy=first, attempt=1))
            item.task = self._own(self._recover(item))
        telling = self._own(self._tell(item, Episode(kind, plan, now, error))) if noted is Noted.TOLD else None
        item.wake()
        item.tell_watchers()
        return noted, telling

    def _works(self, id: str) -> None:
        """Somebody says that it works."""
        item = self._items[id]
        lost = item.case.state is RecoveryState.FAILED
        if not item.case.succeeded():
            return
        item.ledger.up(self._loop.time())
        if lost:
            self._publish(
                StateChanged(id=id, owner=self.name, old="failed", new="healthy", reason="success was reported")
            )
        item.wake()
        item.tell_watchers()

    # ----------------------------------------------------------------------------------------- recovering

    async def _recover(self, item: Item) -> None:
        case, episode = item.case, item.case.episode
        assert episode is not None
        try:
            while True:
                now = self._loop.time()
                if self._items.get(item.id) is not item:  # its own strategy has unregistered it
                    case.abandon()
                    item.settle_permit(ok=None)
                    await self._actor.dismiss(item)
                    return
                if episode.by_itself:  # also when the next failure has come already
                    self._over(item, episode, recovered=True)
                    return
                if case.state is RecoveryState.PROVING and now >= episode.until and case.bounds.stable_after:
                    await self._prove(item, episode)
                    now = self._loop.time()
                decision = case.next(now, self._held_until(item, now))
                item.tell_watchers()
                match decision:
                    case Wait(until):
                        item.news = Latch(loop=self._loop)
                        await wait_until(item.news, until)
                    case Act():
                        await self._act(item, decision, episode)
                    case Done():
                        self._over(item, episode, recovered=True)
                        return
                    case GiveUp(reason):
                        self._over(item, episode, recovered=False, reason=reason)
                        return
        except asyncio.CancelledError:
            item.settle_permit(ok=None)
            case.abandon()
            raise

    def _held_until(self, item: Item, now: float) -> float:
        """When the breaker allows the next attempt."""
        if item.breaker is None or item.case.state is not RecoveryState.BACKOFF:
            return -math.inf
        after = item.breaker.retry_after
        return now + after if after else -math.inf

    async def _act(self, item: Item, act: Act, episode: Episode) -> None:
        case, began = item.case, self._loop.time()
        if act.step.heals:
            item.acting_since = began
            if item.breaker is not None:
                try:
                    item.permit = item.breaker.acquire()
                except CircuitOpen:
                    pass  # it has opened since it was asked: one attempt more does no harm
        ok, error = await self._actor.act(item, act, episode)
        now = self._loop.time()
        if ok and act.step.heals and self._signs is not None and self._signs.is_up(item.id, began):
            case.mended()
        case.acted(ok, now, error)
        item.tell_watchers()
        if act.step.heals:
            if case.state is RecoveryState.BACKOFF:
                ok = False
                item.settle_permit(ok=False)
            self._publish(
                RecoveryAttempted(
                    id=item.id,
                    owner=self.name,
                    strategy=act.step.name,
                    attempt=act.attempt,
                    ok=ok,
                    duration=now - began,
                    detail=text_of(error),
                )
            )

    async def _prove(self, item: Item, episode: Episode) -> None:
        """It has been up for as long as it had to; asks once more whether it works."""
        problem = await self._actor.check(item)
        if problem is not None and item.case.state is RecoveryState.PROVING:
            self._failed(item, episode.kind, problem, fresh=True)

    def _over(self, item: Item, episode: Episode, *, recovered: bool, reason: str = "") -> None:
        now = self._loop.time()
        by_itself = episode.by_itself
        if not by_itself:
            item.settle_permit(ok=recovered)
        up_at = (now if by_itself else episode.up_at) if recovered else None
        recovery = Recovery(
            id=item.id,
            kind=episode.kind,
            recovered=recovered,
            strategy="" if by_itself else episode.used,
            attempts=episode.attempts,
            failures=episode.failures,
            began=episode.began,
            up_at=up_at,
            ended=now,
            error=text_of(episode.error),
            reason="success was reported" if by_itself else reason,
        )
        if up_at is not None and not by_itself:
            item.ledger.up(up_at)
        item.ledger.over(recovery)
        self._past.append(recovery)
        self._publish(
            RecoveryFinished(
                id=item.id,
                owner=self.name,
                strategy=recovery.strategy,
                attempt=recovery.attempts,
                recovered=recovered,
                duration=recovery.duration,
            )
        )
        if not recovered:
            log.error("%s", exhausted(item.id, recovery.kind, recovery.attempts, reason, episode.error))
            self._publish(StateChanged(id=item.id, owner=self.name, old="backoff", new="failed", reason=reason))
        item.tell_watchers()
        waiting, item.waiting = item.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result((recovery, episode.error))

    async def _tell(self, item: Item, episode: Episode) -> Recovery:
        """Carries out a strategy that heals nothing."""
        for step in episode.plan:
            episode.used = step.name
            until = self._loop.time() + item.case.bounds.recovery_timeout
            await self._actor.act(item, Act(step, 0, until), episode)
        return Recovery(
            id=item.id,
            kind=episode.kind,
            recovered=False,
            strategy=episode.used,
            attempts=0,
            failures=1,
            began=episode.began,
            up_at=None,
            ended=self._loop.time(),
            error=text_of(episode.error),
        )

    def _publish(self, event: Event) -> None:
        registry = self._registry
        if registry is not None and registry.wants(type(event)):
            registry.publish(event)


def exhausted(
    id: str, kind: FailureKind, attempts: int, reason: str, last: BaseException | str | None
) -> RecoveryExhausted:
    """The error for a recovery that was given up."""
    error = RecoveryExhausted(id, kind, attempts, reason, last)
    error.__cause__ = last if isinstance(last, BaseException) else None
    return error
