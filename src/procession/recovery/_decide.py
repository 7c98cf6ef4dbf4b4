"""What to do about a failure: a pure function of what was tried, of the kind of failure, the strategy, and the time."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from procession._core.machine import Machine
from procession._types import FailureKind
from procession.recovery._config import RecoveryConfig
from procession.recovery._states import RECOVERY_MOVES, RecoveryState

_HEALTHY, _BACKOFF = RecoveryState.HEALTHY, RecoveryState.BACKOFF
_RECOVERING, _PROVING, _FAILED = RecoveryState.RECOVERING, RecoveryState.PROVING, RecoveryState.FAILED


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a strategy.

    Attributes:
        name: what it is called in events and records.
        heals: whether something may be up again after it; a step that does not only tells somebody, or does nothing.
        attempts: how often it is tried before the next step has its turn; ``None``: as often as the bounds allow.
        strategy: what is carried out; not looked at here.
    """

    name: str
    heals: bool = True
    attempts: int | None = None
    strategy: Any = None


Plan = Sequence[Step]


# ----------------------------------------------------------------------------------------- what is decided


@dataclass(frozen=True, slots=True)
class Act:
    """Carry out ``step``, as attempt number ``attempt``, and be done by ``until``."""

    step: Step
    attempt: int
    until: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing before ``until``, unless there is news."""

    until: float


@dataclass(frozen=True, slots=True)
class Done:
    """It has stayed up long enough, or needs no recovery any more."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A bound was reached: ``reason`` is as in ``RecoveryExhausted``."""

    reason: str


Decision = Act | Wait | Done | GiveUp


class Noted(StrEnum):
    """What a failure meant.

    ``BEGINS`` a recovery begins; ``JOINED`` it is part of the one under way; ``LOST`` it was given up before;
    ``TOLD`` its strategy heals nothing, so there is nobody but somebody to be told.
    """

    BEGINS = "begins"
    JOINED = "joined"
    LOST = "lost"
    TOLD = "told"


@dataclass(slots=True)
class Episode:
    """One recovery, from the failure to its end.

    Attributes:
        kind: the kind of the first failure, which chose the plan.
        plan: the steps.
        began: when the first failure was noted.
        error: what the last failure was.
        attempts: attempts made, those of steps that heal nothing not counted.
        failures: failures noted.
        step: the step that is next or under way, as an index.
        tries: how often that step was tried.
        used: the name of the last step that was carried out.
        up_at: when the last attempt had done its work; ``None`` before one has.
        by_itself: whether it ended because somebody said that it works.
        until: when the present waiting is over.
        verdict: which bound was reached, once one was.
    """

    kind: FailureKind
    plan: Plan
    began: float
    error: BaseException | str | None = None
    attempts: int = 0
    failures: int = 1
    step: int = 0
    tries: int = 0
    used: str = ""
    up_at: float | None = None
    by_itself: bool = False
    until: float = 0.0
    verdict: str = ""


@dataclass(slots=True)
class Case:
    """What is known about one registered id, and what is to be done about it.

    Attributes:
        id: whom it is about.
        bounds: how often, how long, how far apart.
        rng: draws the jitter.
        episode: the recovery under way, or the one that was given up.
        in_a_row: attempts since it was last stable.
        recent: when attempts were made, within the window.
    """

    id: str
    bounds: RecoveryConfig
    rng: random.Random
    episode: Episode | None = None
    in_a_row: int = 0
    recent: deque[float] = field(default_factory=deque)
    machine: Machine[RecoveryState] = field(init=False)
    _broken: bool = False

    def __post_init__(self) -> None:
        self.machine = Machine(self.id, RECOVERY_MOVES)

    @property
    def state(self) -> RecoveryState:
        """Where it stands."""
        return self.machine.state

    # ------------------------------------------------------------------------------------- what happened

    def failed(
        self,
        kind: FailureKind,
        now: float,
        plan: Plan,
        error: BaseException | str | None = None,
        *,
        fresh: bool = False,
    ) -> Noted:
        """A failure was noted.

        Args:
            kind: its kind.
            now: when.
            plan: what is to be done about this kind.
            error: what it was.
            fresh: it is a failure of what the attempt under way has brought up.
        """
        if not any(step.heals for step in plan):
            return Noted.TOLD
        if self.state is _FAILED:
            return Noted.LOST
        if self.state is _HEALTHY:
            self.machine.to(_BACKOFF, str(kind))
            self.episode = Episode(kind, plan, now, error, until=now)
            return Noted.BEGINS
        episode = self._episode()
        episode.failures += 1
        episode.error = error
        if self.state is _RECOVERING and fresh:
            self._broken = True
        elif self.state is _PROVING:
            self._again(now, f"{kind} within {self.bounds.stable_after:g} s")
        return Noted.JOINED

    def acted(self, ok: bool, now: float, error: BaseException | str | None = None) -> None:
        """The step under way is over: ``ok`` tells whether it has done its work."""
        episode = self._episode()
        step = episode.plan[episode.step]
        broken, self._broken = self._broken, False
        if error is not None:
            episode.error = error
        if not step.heals:
            episode.step += 1
            episode.tries = 0
            episode.until = now
            self.machine.to(_BACKOFF, f"{step.name} is over")
        elif ok and not broken:
            episode.up_at = now
            episode.until = now + self.bounds.stable_after
            self.machine.to(_PROVING, f"{step.name} has done its work")
        else:
            self._again(now, f"{step.name} did not help")

    def mended(self) -> None:
        """What failed freshly was brought up again within the same attempt."""
        self._broken = False

    def succeeded(self) -> bool:
        """Somebody says that it works. Returns whether that ends a recovery, or the state of having been given up."""
        if self.state in (_RECOVERING, _PROVING):
            return False  # the attempt has to show it
        self.recent.clear()
        self.in_a_row = 0
        if self.state is _HEALTHY:
            return False
        self._episode().by_itself = True
        self.machine.to(_HEALTHY, "success was reported")
        return True

    def abandon(self) -> None:
        """The recovery under way is called off."""
        if self.state is _RECOVERING or self.state is _PROVING or self.state is _BACKOFF:
            self.machine.to(_HEALTHY, "called off")
        self._broken = False

    def _again(self, now: float, reason: str) -> None:
        """The step did not help, or not for long: the next is due after a delay."""
        episode = self._episode()
        episode.tries += 1
        attempts = episode.plan[episode.step].attempts
        if attempts is not None and episode.tries >= attempts:
            episode.step += 1
            episode.tries = 0
        episode.until = now + self.bounds.backoff.delay(max(1, self.in_a_row), self.rng)
        self.machine.to(_BACKOFF, reason)

    def _episode(self) -> Episode:
        assert self.episode is not None
        return self.episode

    # --------------------------------------------------------------------------------------- what is next

    def next(self, now: float, not_before: float = -math.inf) -> Decision:
        """What is to be done now.

        Args:
            now: the time.
            not_before: when something else allows the next attempt at the earliest, for example a breaker.
        """
        episode = self._episode()
        if self.state is _PROVING:
            if now < episode.until:
                return Wait(episode.until)
            self.in_a_row = 0
            self.machine.to(_HEALTHY, f"up for {self.bounds.stable_after:g} s")
            return Done()
        if self.state is _HEALTHY:
            return Done()
        if self.state is _FAILED:
            return GiveUp(episode.verdict)
        episode.verdict = episode.verdict or self._bound(now, not_before)
        if episode.verdict:
            episode.step = _next_telling(episode.plan, episode.step)
        if episode.step >= len(episode.plan):
            self.machine.to(_FAILED, episode.verdict)
            return GiveUp(episode.verdict)
        step = episode.plan[episode.step]
        deadline = episode.began + self.bounds.recovery_timeout
        if step.heals:
            until = max(episode.until, not_before)
            if now < until:
                return Wait(until)
            episode.attempts += 1
            self.in_a_row += 1
            self.recent.append(now)
        else:
            deadline = now + self.bounds.recovery_timeout
        episode.used = step.name
        self._broken = False
        self.machine.to(_RECOVERING, step.name)
        return Act(step, episode.attempts, deadline)

    def _bound(self, now: float, not_before: float) -> str:
        """Which bound keeps a further attempt from being made; empty when none."""
        bounds, episode = self.bounds, self._episode()
        while self.recent and self.recent[0] <= now - bounds.window:
            self.recent.popleft()
        if _next_healing(episode.plan, episode.step) >= len(episode.plan):
            return "strategies"
        if self.in_a_row >= bounds.max_attempts:
            return "attempts"
        if len(self.recent) >= bounds.max_in_window:
            return "window"
        deadline = episode.began + bounds.recovery_timeout
        if max(now, episode.until) >= deadline:
            return "time"
        return "breaker" if not_before >= deadline else ""


def _next_healing(plan: Plan, start: int) -> int:
    return next((index for index in range(start, len(plan)) if plan[index].heals), len(plan))


def _next_telling(plan: Plan, start: int) -> int:
    return next((index for index in range(start, len(plan)) if not plan[index].heals), len(plan))
