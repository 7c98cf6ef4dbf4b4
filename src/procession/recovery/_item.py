"""One registered id: what is known of it, and who waits for what."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from procession._core.aio import Latch
from procession._types import FailureKind
from procession.recovery._breaker_api import CircuitBreaker
from procession.recovery._decide import Case, Plan
from procession.recovery._history import Ledger, Recovery
from procession.recovery._permit import Permit
from procession.recovery._states import CircuitState, RecoveryState
from procession.recovery._strategy import Function


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryStatus:
    """Where one id stands at this moment.

    Attributes:
        id: whom it is about.
        state: where it stands.
        kind: the kind of failure that is being recovered from, or that it was given up for; else ``None``.
        strategy: the strategy at work or, between attempts, the next; else empty.
        attempt: attempts made in the recovery under way.
        attempts_left: attempts in a row that may still be made.
        next_at: loop time of the next attempt, or at which it counts as recovered; ``None`` when nothing is awaited.
        breaker: where its breaker stands; ``None`` when it has none.
        error: what the last failure was, in words.
        reason: which bound was reached, when it was given up.
    """

    id: str
    state: RecoveryState
    kind: FailureKind | None = None
    strategy: str = ""
    attempt: int = 0
    attempts_left: int = 0
    next_at: float | None = None
    breaker: CircuitState | None = None
    error: str = ""
    reason: str = ""


@dataclass(slots=True, eq=False)
class Item:
    """One registered id.

    Attributes:
        id: whom it is about.
        target: on what strategies act.
        plan: what is done about kinds that are not in ``by_kind``.
        by_kind: what is done about these kinds.
        check: asks whether it works, or ``None``.
        case: the core.
        ledger: its figures.
        breaker: its breaker, or ``None``.
        permit: the breaker's permit of the attempt that is under way or has to show that it holds.
        task: carries out the recovery under way.
        news: opened when there is something new for that task.
        waiting: those who wait for the end of the recovery under way.
        watching: those who wait for a state, with the states.
        acting_since: when the last attempt began.
        busy: how many strategies and checks are being waited for.
        stand_in: the task of a command that the manager runs in its place.
    """

    id: str
    target: object
    plan: Plan
    by_kind: Mapping[FailureKind, Plan]
    check: Function | None
    case: Case
    ledger: Ledger
    breaker: CircuitBreaker | None = None
    permit: Permit | None = None
    task: asyncio.Task[None] | None = None
    news: Latch | None = None
    waiting: list[asyncio.Future[tuple[Recovery, BaseException | str | None]]] = field(default_factory=list)
    watching: dict[asyncio.Future[RecoveryState], frozenset[RecoveryState]] = field(default_factory=dict)
    acting_since: float = -math.inf
    busy: int = 0
    stand_in: asyncio.Task[None] | None = None

    def plan_for(self, kind: FailureKind) -> Plan:
        """What is done about failures of this kind."""
        return self.by_kind.get(kind, self.plan)

    def wake(self) -> None:
        """There is news for the task of the recovery."""
        if self.news is not None:
            self.news.open()

    def tell_watchers(self) -> None:
        """Lets those go on who wait for the present state."""
        state = self.case.state
        for future, states in self.watching.items():
            if state in states and not future.done():
                future.set_result(state)

    def disappoint(self, error: Exception) -> None:
        """Lets all who wait go, with an error."""
        waiting: list[asyncio.Future[Any]] = [*self.waiting, *self.watching]
        for future in waiting:
            if not future.done():
                future.set_exception(error)

    def settle_permit(self, ok: bool | None) -> None:
        """Gives the permit back, with the outcome of the attempt; ``None``: it is not to be counted."""
        permit, self.permit = self.permit, None
        if permit is None:
            return
        if ok is None:
            permit.release()
        elif ok:
            permit.success()
        else:
            permit.failure()

    def status(self) -> RecoveryStatus:
        """Where it stands."""
        case, episode = self.case, self.case.episode
        common: dict[str, Any] = {
            "id": self.id,
            "state": case.state,
            "attempts_left": max(0, case.bounds.max_attempts - case.in_a_row),
            "breaker": None if self.breaker is None else self.breaker.state,
        }
        if episode is None or case.state is RecoveryState.HEALTHY:
            return RecoveryStatus(**common)
        upcoming = episode.plan[episode.step].name if episode.step < len(episode.plan) else ""
        waits = case.state in (RecoveryState.BACKOFF, RecoveryState.PROVING)
        return RecoveryStatus(
            **common,
            kind=episode.kind,
            strategy=upcoming if case.state is RecoveryState.BACKOFF else episode.used,
            attempt=episode.attempts,
            next_at=episode.until if waits else None,
            error=text_of(episode.error),
            reason=episode.verdict,
        )


def text_of(error: BaseException | str | None) -> str:
    """An error in one line of bounded length, for events and records."""
    if error is None:
        return ""
    text = (
        error if isinstance(error, str) else f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    )
    line = " ".join(text.split())
    return line if len(line) <= 300 else line[:297] + "..."
