"""Which calls a breaker looks at: the last so many, those of the last so many seconds, or either."""

from __future__ import annotations

import math
from dataclasses import dataclass

from procession._core.backoff import duration
from procession._core.window import CountWindow, TimeWindow
from procession.errors import ConfigError

_MOST_CALLS = 1_000_000
_MOST_PARTS = 3600


@dataclass(frozen=True, slots=True)
class Count:
    """The last ``calls`` calls.

    Attributes:
        calls: how many, 1 to 1,000,000.

    Raises:
        ConfigError: it is no such number.
    """

    calls: int

    def __post_init__(self) -> None:
        calls: object = self.calls
        if isinstance(calls, bool) or not isinstance(calls, int) or not 1 <= calls <= _MOST_CALLS:
            raise ConfigError("window", calls, f"a window of 1 to {_MOST_CALLS:,} calls is needed")

    def make(self) -> CountWindow:
        """An empty window."""
        return CountWindow(self.calls)

    def enough(self, minimum: int) -> int:
        """How many calls are needed to judge: never more than it can hold."""
        return min(minimum, self.calls)

    def __or__(self, other: Window) -> Either:
        return either(self, other)


@dataclass(frozen=True, slots=True)
class Time:
    """The calls of the last ``seconds``.

    Attributes:
        seconds: how many, more than 0; also text such as ``"1m30s"``.
        parts: how many parts of equal length it is counted in, 1 to 3,600. Default: one a second, at least 10.

    Raises:
        ConfigError: a value is refused.
    """

    seconds: float
    parts: int | None = None

    def __post_init__(self) -> None:
        length = duration("window", self.seconds)
        if not 1e-3 <= length <= 1e9:
            raise ConfigError("window", self.seconds, "a window of a millisecond or more is needed")
        _set(self, "seconds", length)
        parts: object = self.parts
        if parts is None:
            _set(self, "parts", max(10, min(math.ceil(length), _MOST_PARTS)))
        elif isinstance(parts, bool) or not isinstance(parts, int) or not 1 <= parts <= _MOST_PARTS:
            raise ConfigError("parts", parts, f"1 to {_MOST_PARTS:,} parts are possible")

    def make(self) -> TimeWindow:
        """An empty window."""
        assert self.parts is not None
        return TimeWindow(self.seconds, self.parts)

    def enough(self, minimum: int) -> int:
        """How many calls are needed to judge."""
        return minimum

    def __or__(self, other: Window) -> Either:
        return either(self, other)


@dataclass(frozen=True, slots=True)
class Either:
    """Several windows, any of which can open the breaker: ``Count(50) | Time(30)``.

    Attributes:
        windows: each of them.
    """

    windows: tuple[Count | Time, ...]

    def __or__(self, other: Window) -> Either:
        return either(self, other)


Window = Count | Time | Either
"""What a breaker looks at."""


def windows_of(window: Window) -> tuple[Count | Time, ...]:
    """Each single window of ``window``."""
    return window.windows if isinstance(window, Either) else (window,)


def either(one: Window, other: Window) -> Either:
    """Both windows as one."""
    if not isinstance(other, (Count, Time, Either)):
        return NotImplemented
    return Either((*windows_of(one), *windows_of(other)))


_set = object.__setattr__
