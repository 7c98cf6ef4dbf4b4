"""``RecoveryManager``: brings back up what fails, within bounds, and keeps account of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from procession._core.aio import finish
from procession._types import NAME_PATTERN, FailureKind
from procession.errors import Closed, ConfigError, NotFound, StateError
from procession.recovery._acts import callers
from procession.recovery._breaker_api import CircuitBreaker
from procession.recovery._config import RecoveryConfig
from procession.recovery._decide import Case, Noted
from procession.recovery._engine import Engine, exhausted
from procession.recovery._history import Ledger, Recovery, RecoveryStatistics, statistics_of
from procession.recovery._item import Item, RecoveryStatus
from procession.recovery._states import RecoveryState
from procession.recovery._strategies import AnyStrategy, Restart, leaves, plan_of
from procession.recovery._strategy import Function

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.registry import ProcessRegistry


class RecoveryManager(Engine):
    """Recovers what is registered with it, when it fails. Use it as an async context manager.

    ::

        async with RecoveryManager(RecoveryConfig(max_attempts=5), registry=registry) as recovery:
            recovery.register("api", target=units, strategy=Chain(Restart(), Replace(), Notify(callback)))
            ...
            await recovery.report_failure("api", FailureKind.TIMEOUT, error)

    Failures come from events of the registry and from ``report_failure``. A process that ends by itself, with an error or a
    signal, is a crash, if it belongs to nobody who restarts or retries it; who does that says ``FailureReported`` when it has
    given up. Whatever comes while a recovery is under way is part of it.

    Leaving the block calls off what is under way. All calls belong on the thread of the loop it was opened on.

    Args:
        config: the bounds, unless a registration has its own. Default: ``RecoveryConfig()``.
        registry: where failures are noticed, and who is told what becomes of them. Default: none; then failures are
            only reported.
        seed: makes the jitter of every id repeatable.
        name: the ``owner`` in events, and of processes it starts itself.
        launcher: starts those. Default: the best the system has.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        config: RecoveryConfig | None = None,
        *,
        registry: ProcessRegistry | None = None,
        seed: int | None = None,
        name: str = "recovery",
        launcher: Launcher | None = None,
    ) -> None:
        _check_name("name", name)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ConfigError("seed", seed, "a whole number is needed")
        super().__init__(_config(config) or RecoveryConfig(), registry=registry, name=name, launcher=launcher)
        self._seed = seed

    # ---------------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Begins to listen.

        Raises:
            StateError: it was opened before.

        Cancellation: never waits.
        """
        if self._open or self._closed:
            raise StateError("a RecoveryManager is opened once")
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stops listening, calls off what is under way, and stops commands that stand in. May be called twice.

        Who waits for a recovery gets ``Closed``. A strategy that ignores its cancellation is waited for ``close_timeout``
        seconds and then left behind, which is logged.

        Cancellation: absorbed until everything is over, then raised.
        """
        was_open, self._closed = self._open and not self._closed, True
        if was_open:
            await finish(self._close(callers.get()))

    # ------------------------------------------------------------------------------------- registration

    def register(
        self,
        id: str,
        *,
        target: object = None,
        strategy: AnyStrategy | None = None,
        by_kind: Mapping[FailureKind | str, AnyStrategy] | None = None,
        check: Function | None = None,
        config: RecoveryConfig | None = None,
    ) -> None:
        """Takes care of ``id`` from now on.

        Args:
            id: a unit, a process by its id or name, or any name under which failures are reported.
            target: on what strategies act: something ``Restartable``, ``Replaceable``, ``Scalable`` or ``Stoppable``, or an
                async function of one :class:`Failure`, which brings it up again.
            strategy: what is done: a strategy, a :class:`Chain`, or an async function. Default: ``Restart()``.
            by_kind: what is done about some kinds of failures instead.
            check: an async function that says whether it works; asked after each attempt, and again when it has been up
                for ``stable_after`` seconds.
            config: bounds of its own.

        Raises:
            ConfigError: it is registered already, a value was refused, or a strategy cannot act on the target.
            Closed: the manager is closed.
            StateError: it was not opened yet.
        """
        self._check_open()
        _check_name("id", id)
        if id in self._items:
            raise ConfigError("id", id, "it is registered already; unregister it first")
        bounds = _config(config) or self.config
        chosen: AnyStrategy = Restart() if strategy is None else strategy
        if by_kind is not None and not isinstance(by_kind, Mapping):
            raise ConfigError("by_kind", by_kind, "strategies by kind are needed: {FailureKind.TIMEOUT: Restart()}")
        kinds = {_kind("by_kind", kind): plan_of(other) for kind, other in (by_kind or {}).items()}
        plan = plan_of(chosen)
        for other in (chosen, *(by_kind or {}).values()):
            for leaf in leaves(other):
                leaf.check(target)
        if check is not None and not callable(check):
            raise ConfigError("check", check, "an async function is needed that says whether it works")
        rng = random.Random(None if self._seed is None else f"{self._seed}/{id}")  # noqa: S311 - jitter is no secret
        now = self._loop.time()
        item = Item(id, target, plan, kinds, check, Case(id, bounds, rng), Ledger(now))
        if bounds.breaker is not None:
            item.breaker = CircuitBreaker(
                bounds.breaker,
                name=id,
                registry=self._registry,
                owner=self.name,
                on_change=lambda _change: item.wake(),
            )
        self._items[id] = item

    async def unregister(self, id: str) -> None:
        """Does not take care of ``id`` any more: calls off what is under way, and forgets its figures.

        Who waits for its recovery gets ``NotFound``. Called by a strategy of that very recovery, it does not wait: the
        strategy is the last thing that is done for it.

        Raises:
            NotFound: it is not registered.

        Cancellation: absorbed until nothing is under way any more, then raised.
        """
        item = self._item(id)
        del self._items[id]
        if self._is_inside(item):
            item.disappoint(NotFound(id, "registration"))
        else:
            await finish(self._let_go(item))

    # ------------------------------------------------------------------------------------------ reports

    async def report_failure(
        self,
        id: str,
        kind: FailureKind | str = FailureKind.CRASH,
        error: BaseException | str | None = None,
        *,
        began: float | None = None,
    ) -> Recovery | None:
        """Says that ``id`` failed, and waits until it has been recovered.

        If a recovery is under way, this is part of it, and the same end is waited for. Called by a strategy of that very
        recovery, it does not wait.

        Args:
            id: who failed.
            kind: how.
            error: what it was.
            began: loop time at which what failed had begun, for example a request. If that was before the last
                recovery, the report is about what is not there any more, and is not heeded.

        Returns:
            What became of it; ``None`` when that was not waited for.

        Raises:
            NotFound: the id is not registered.
            ConfigError: the kind is none.
            RecoveryExhausted: it was given up, now or before.
            Closed: the manager is closed, or was meanwhile.

        Cancellation: safe; only the waiting ends, the recovery goes on.
        """
        item, noted, telling = self._report(id, kind, error, began)
        if noted is None:
            return None
        if telling is not None:
            await asyncio.wait((telling,))
            if telling.cancelled():
                raise Closed("recovery")
            return telling.result()
        episode = item.case.episode
        assert episode is not None
        if noted is Noted.LOST:
            raise exhausted(id, episode.kind, episode.attempts, episode.verdict, episode.error)
        if self._is_inside(item):
            return None
        waiter: asyncio.Future[tuple[Recovery, BaseException | str | None]] = self._loop.create_future()
        item.waiting.append(waiter)
        try:
            recovery, last = await waiter
        finally:
            if waiter in item.waiting:
                item.waiting.remove(waiter)
        if not recovery.recovered:
            raise exhausted(id, recovery.kind, recovery.attempts, recovery.reason, last)
        return recovery

    def report_failure_nowait(
        self,
        id: str,
        kind: FailureKind | str = FailureKind.CRASH,
        error: BaseException | str | None = None,
        *,
        began: float | None = None,
    ) -> None:
        """Says that ``id`` failed, and does not wait. What becomes of it is told by events.

        Args:
            id: who failed.
            kind: how.
            error: what it was.
            began: as for :meth:`report_failure`.

        Raises:
            NotFound: the id is not registered.
            ConfigError: the kind is none.
            Closed: the manager is closed.
        """
        self._report(id, kind, error, began)

    def _report(
        self, id: str, kind: FailureKind | str, error: BaseException | str | None, began: float | None
    ) -> tuple[Item, Noted | None, asyncio.Task[Recovery] | None]:
        self._check_open()
        item, kind = self._item(id), _kind("kind", kind)
        if error is not None and not isinstance(error, (str, BaseException)):
            raise ConfigError("error", error, "an exception or a text is needed")
        episode = item.case.episode
        if began is not None and episode is not None and episode.up_at is not None and began < episode.up_at:
            return item, None, None
        return item, *self._failed(item, kind, error, fresh=False)

    async def report_success(self, id: str) -> None:
        """Says that ``id`` works. That ends the waiting for the next attempt, and the state of having been given up.

        An attempt under way, or one that has yet to show that it holds, is not cut short by it.

        Raises:
            NotFound: the id is not registered.
            Closed: the manager is closed.

        Cancellation: never waits.
        """
        self._check_open()
        item = self._item(id)
        if item.breaker is not None and item.breaker.retry_after == 0.0:
            item.breaker.acquire().success()
        self._works(id)

    def reset(self, id: str) -> None:
        """Forgets what was tried for ``id``: after having been given up, the next failure begins a recovery again.

        Raises:
            NotFound: the id is not registered.
        """
        item = self._item(id)
        if item.breaker is not None:
            item.breaker.reset()
        self._works(id)

    # -------------------------------------------------------------------------------------------- asking

    def state(self, id: str) -> RecoveryState:
        """Where ``id`` stands.

        Raises:
            NotFound: it is not registered.
        """
        return self._item(id).case.state

    def status(self, id: str) -> RecoveryStatus:
        """Where ``id`` stands, with what is being tried, how often, and when next.

        Raises:
            NotFound: it is not registered.
        """
        return self._item(id).status()

    def breaker(self, id: str) -> CircuitBreaker:
        """The breaker of ``id``; of use around requests to it, too.

        Raises:
            NotFound: it is not registered, or has no breaker.
        """
        breaker = self._item(id).breaker
        if breaker is None:
            raise NotFound(id, "breaker")
        return breaker

    async def wait_for(self, id: str, *states: RecoveryState | str) -> RecoveryState:
        """Waits until ``id`` is in one of ``states``, or passes through one; returns which. Bound it with ``asyncio.timeout()``.

        Raises:
            NotFound: it is not registered, or is unregistered meanwhile.
            ConfigError: no state was given, or one that does not exist.
            Closed: the manager is closed, or was meanwhile.

        Cancellation: safe; only the waiting ends.
        """
        if not states:
            raise ConfigError("states", states, "at least one state is needed")
        try:
            wanted = frozenset(map(RecoveryState, states))
        except ValueError:
            raise ConfigError("states", states, "one of " + ", ".join(RecoveryState) + " is needed") from None
        self._check_open()
        item = self._item(id)
        if item.case.state in wanted:
            return item.case.state
        future: asyncio.Future[RecoveryState] = self._loop.create_future()
        item.watching[future] = wanted
        try:
            return await future
        finally:
            del item.watching[future]

    def history(
        self, id: str | None = None, *, kind: FailureKind | str | None = None, limit: int | None = None
    ) -> list[Recovery]:
        """Recoveries that are over, oldest first.

        Args:
            id: only those of this id.
            kind: only those of this kind of failure.
            limit: only the newest so many.

        Raises:
            ConfigError: the kind or the limit is none.
        """
        wanted = None if kind is None else _kind("kind", kind)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
            raise ConfigError("limit", limit, "a whole number, 0 or more, is needed")
        found = [
            past for past in self._past if (id is None or past.id == id) and (wanted is None or past.kind is wanted)
        ]
        return found if limit is None else found[max(0, len(found) - limit) :]

    def statistics(self, id: str | None = None, *, window: float | None = None) -> RecoveryStatistics:
        """Figures of failures and recoveries.

        Args:
            id: of this id only. Default: of all.
            window: seconds over which availability is computed. Default: since each was registered.

        Raises:
            NotFound: the id is not registered.
            ConfigError: the window is no duration above 0.
        """
        if window is not None and (isinstance(window, bool) or not isinstance(window, (int, float)) or not window > 0):
            raise ConfigError("window", window, "seconds, more than 0, are needed")
        items = list(self._items.values()) if id is None else [self._item(id)]
        under = sum(item.case.state not in (RecoveryState.HEALTHY, RecoveryState.FAILED) for item in items)
        now = self._loop.time() if self._open else 0.0
        return statistics_of([item.ledger for item in items], under, now, window)

    def availability(self, id: str, *, window: float | None = None) -> float:
        """The share of the time in which ``id`` was up: from a failure until it was up again, it was not.

        Args:
            id: whom it is about.
            window: over how many of the last seconds. Default: since it was registered.

        Raises:
            NotFound: it is not registered.
            ConfigError: the window is no duration above 0.
        """
        return self.statistics(self._item(id).id, window=window).availability

    def __contains__(self, id: object) -> bool:
        return id in self._items

    def __len__(self) -> int:
        """How many ids are registered."""
        return len(self._items)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        how = "closed" if self._closed else "open" if self._open else "not open"
        return f"<RecoveryManager {how}: {len(self)} registered>"


def _config(config: object) -> RecoveryConfig | None:
    if config is not None and not isinstance(config, RecoveryConfig):
        raise ConfigError("config", config, "a RecoveryConfig is needed")
    return config


def _check_name(field: str, value: object) -> None:
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        hint = "1 to 64 letters, digits, '.', '_' or '-' are needed, the first a letter or digit"
        raise ConfigError(field, value, hint)


def _kind(field: str, kind: object) -> FailureKind:
    try:
        return FailureKind(kind)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError(field, kind, "one of " + ", ".join(FailureKind) + " is needed") from None
