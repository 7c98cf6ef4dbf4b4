"""How long to wait before trying again: a pure schedule of delays, and how often it may be asked."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Literal

from procession._core.config import seconds
from procession.errors import ConfigError

Growth = Literal["fixed", "linear", "exponential"]

_MOST = 1e9
"""Delays beyond this many seconds are cut to it: what grows exponentially would overflow."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """A schedule of delays between attempts: fixed, linear or exponential, capped, with full jitter.

    ``Backoff.exponential(0.5, cap=30)`` waits up to 0.5, 1, 2, 4 … 30 seconds. With ``jitter`` each delay is drawn
    evenly from 0 to that value ("full jitter" of Brooker, *Exponential Backoff And Jitter*, AWS Architecture Blog,
    2015), so that many who failed together do not come back together.

    Attributes:
        growth: ``"fixed"``, ``"linear"`` or ``"exponential"``.
        initial: seconds before the first retry.
        step: seconds added per attempt when linear; factor per attempt when exponential.
        cap: the longest delay, in seconds, before jitter.
        jitter: whether delays are drawn at random below their value.
    """

    growth: Growth = "exponential"
    initial: float = 0.1
    step: float = 2.0
    cap: float = 60.0
    jitter: bool = True

    def __post_init__(self) -> None:
        if self.growth not in ("fixed", "linear", "exponential"):
            raise ConfigError("growth", self.growth, '"fixed", "linear" or "exponential" is needed')
        _set(self, "initial", duration("initial", self.initial))
        _set(self, "cap", duration("cap", self.cap))
        least = 1.0 if self.growth == "exponential" else 0.0
        if isinstance(self.step, bool) or not isinstance(self.step, (int, float)) or not least <= self.step < math.inf:
            raise ConfigError("step", self.step, f"a number, {least:g} or more, is needed")
        if not isinstance(self.jitter, bool):
            raise ConfigError("jitter", self.jitter, "True or False is needed")

    @classmethod
    def fixed(cls, delay: float, *, jitter: bool = False) -> Backoff:
        """The same delay every time.

        Raises:
            ConfigError: the delay is no duration.
        """
        delay = duration("delay", delay)
        return cls("fixed", delay, 0.0, delay, jitter)

    @classmethod
    def linear(cls, initial: float, *, step: float | None = None, cap: float = 60.0, jitter: bool = True) -> Backoff:
        """``initial``, then ``step`` seconds more each time (default: ``initial`` again).

        Raises:
            ConfigError: a value is refused.
        """
        return cls("linear", initial, duration("initial", initial) if step is None else step, cap, jitter)

    @classmethod
    def exponential(cls, initial: float, *, multiplier: float = 2.0, cap: float = 60.0, jitter: bool = True) -> Backoff:
        """``initial``, then ``multiplier`` times as long each time.

        Raises:
            ConfigError: a value is refused.
        """
        return cls("exponential", initial, multiplier, cap, jitter)

    def ceiling(self, attempt: int) -> float:
        """Seconds before retry number ``attempt`` (1, 2, 3 …), before jitter."""
        if self.growth == "fixed":
            value = self.initial
        elif self.growth == "linear":
            value = self.initial + self.step * (attempt - 1)
        else:
            try:
                value = self.initial * self.step ** (attempt - 1)
            except OverflowError:
                value = _MOST if self.initial else 0.0
        return min(value, self.cap, _MOST)

    def delay(self, attempt: int, rng: random.Random) -> float:
        """Seconds before retry number ``attempt``, drawn from ``rng`` when there is jitter."""
        most = self.ceiling(attempt)
        return most * rng.random() if self.jitter else most


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often, and after which delays, failed work is tried again.

    Attributes:
        max_retries: attempts after the first; 0 never retries.
        initial_delay: seconds before the first retry.
        max_delay: the longest delay, in seconds.
        multiplier: how much longer each delay is than the one before.
        jitter: whether a delay is drawn evenly from 0 to its value.
        on: the exceptions that are retried; others are final.
    """

    max_retries: int = 3
    initial_delay: float = 0.1
    max_delay: float = 60.0
    multiplier: float = 2.0
    jitter: bool = True
    on: tuple[type[Exception], ...] = (Exception,)

    def __post_init__(self) -> None:
        if isinstance(self.max_retries, bool) or not isinstance(self.max_retries, int) or self.max_retries < 0:
            raise ConfigError("max_retries", self.max_retries, "a whole number, 0 or more, is needed")
        _set(self, "initial_delay", duration("initial_delay", self.initial_delay))
        _set(self, "max_delay", duration("max_delay", self.max_delay))
        multiplier = self.multiplier
        if isinstance(multiplier, bool) or not isinstance(multiplier, (int, float)) or not 1 <= multiplier < math.inf:
            raise ConfigError("multiplier", multiplier, "a number, 1 or more, is needed")
        if not isinstance(self.jitter, bool):
            raise ConfigError("jitter", self.jitter, "True or False is needed")
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ConfigError("on", self.on, "exception classes are needed")
        _set(self, "on", kinds)

    @property
    def backoff(self) -> Backoff:
        """The delays as a schedule."""
        return Backoff("exponential", self.initial_delay, self.multiplier, self.max_delay, self.jitter)

    def next_delay(self, failures: int, error: BaseException, rng: random.Random) -> float | None:
        """Seconds to wait after failure number ``failures`` (1, 2 …), or ``None`` when it was the last attempt."""
        if failures > self.max_retries or not isinstance(error, self.on):
            return None
        return self.backoff.delay(failures, rng)


def duration(field: str, value: object) -> float:
    """Reads a duration as the configuration does.

    Raises:
        ConfigError: it is none.
    """
    try:
        return seconds(value)
    except ValueError as error:
        raise ConfigError(field, value, str(error)) from None


_set = object.__setattr__
