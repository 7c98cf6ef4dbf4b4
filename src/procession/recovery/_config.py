"""What a breaker and a recovery are told when they are made, checked as a whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from procession._core.backoff import Backoff
from procession._core.config import Config, Seconds, no_bool
from procession._types import FailureKind
from procession.errors import ConfigError
from procession.recovery._windows import Count, Either, Time, Window

Matcher = tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Exceptions: their classes, or a function that says whether one is meant."""

_Whole = Annotated[int, BeforeValidator(no_bool), Field(strict=True)]


def _window(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return Count(value)
    if isinstance(value, (Count, Time, Either)):
        return value
    raise ValueError("a window is needed: Count(50), Time(30), or both joined by |")


def _rate(value: object) -> object:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("a rate is a number from 0 to 1")
    return float(value)


def _matcher(value: object) -> object:
    if isinstance(value, type):
        value = (value,)
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        kinds = tuple(value)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            raise ValueError("classes of exceptions are needed, or one function that gets an exception")
        return kinds
    if not callable(value):
        raise ValueError("classes of exceptions are needed, or one function that gets an exception")
    return value


def _function(value: object) -> object:
    if value is not None and not callable(value):
        raise ValueError("a function is needed")
    return value


_Rate = Annotated[float | None, BeforeValidator(_rate)]
_Matcher = Annotated[Any, BeforeValidator(_matcher)]


class BreakerConfig(Config):
    """When a breaker opens, and how it finds out whether it may close. Frozen; every value is checked at once.

    The rules are those of resilience4j's circuit breaker. A breaker opens as soon as one of its limits is reached in its
    window: a rate, which is judged once there are ``minimum_calls``, or a count.

    Attributes:
        window: which calls are looked at: ``Count(50)`` or a number, the last so many; ``Time(30)``, those of the last so
            many seconds; ``Count(50) | Time(30)``, either. Default: the last 100.
        failure_rate: share of failed calls at which it opens, 0 to 1; at 0 the first failure opens it. ``None``: no
            such limit. Default 0.5.
        failure_count: failed calls in the window at which it opens, however many succeeded. Default: no such limit.
        slow_call: seconds from which on a call is slow. Default: no call is.
        slow_rate: share of slow calls at which it opens. Default 1.
        minimum_calls: calls before a rate means something; never more than a window of ``Count`` holds. Default 10.
        open_for: seconds it stays open. Default 30.
        half_open_permits: calls that pass while it is half-open, altogether; when all have come back they are judged by
            the same limits. Default 3.
        half_open_wait: seconds it may stay half-open before it opens again, whatever has come back. Default: no limit.
        probe_timeout: seconds after which a probe that has not come back counts as failed. Default 60.
        auto_half_open: become half-open when ``open_for`` is over, and not only with the next call. Default no.
        record: exceptions that are failures: classes, or a function of the exception. Others count as success.
            Default: all. A cancellation is never one: it gives back its permit and counts as nothing.
        ignore: exceptions that count as nothing: classes, or a function of the exception. Default: none.
        record_result: a function that says whether a result is a failure, for calls through ``call`` and the
            decorator.

    Raises:
        ConfigError: a value was refused; ``field`` says which.
    """

    window: Annotated[Any, BeforeValidator(_window)] = Field(default_factory=lambda: Count(100))
    failure_rate: _Rate = 0.5
    failure_count: Annotated[_Whole, Field(ge=1)] | None = None
    slow_call: Seconds | None = None
    slow_rate: _Rate = 1.0
    minimum_calls: Annotated[_Whole, Field(ge=1)] = 10
    open_for: Annotated[Seconds, Field(gt=0)] = 30.0
    half_open_permits: Annotated[_Whole, Field(ge=1, le=1_000_000)] = 3
    half_open_wait: Annotated[Seconds, Field(gt=0)] | None = None
    probe_timeout: Annotated[Seconds, Field(gt=0)] = 60.0
    auto_half_open: bool = False
    record: _Matcher = (Exception,)
    ignore: _Matcher = ()
    record_result: Annotated[Any, BeforeValidator(_function)] = None

    @model_validator(mode="after")
    def _together(self) -> BreakerConfig:
        if self.failure_rate is None and self.failure_count is None and self.slow_call is None:
            raise ConfigError("failure_rate", None, "a breaker without any limit never opens: use disable() for that")
        return self

    @property
    def looks_at(self) -> Window:
        """The window, with its type."""
        window: Window = self.window
        return window


def _alerts(value: object) -> object:
    if not isinstance(value, Mapping):
        raise ValueError('kinds of failure by the name of an alert are needed: {"process_hung": "timeout"}')
    return dict(value)


def _names(value: object) -> object:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError("names of owners are needed, for example frozenset({'desk'})")
    return frozenset(value)


class RecoveryConfig(Config):
    """The bounds of every recovery. Frozen; every value is checked at once.

    Attributes:
        max_attempts: attempts in a row, none of which held for ``stable_after`` seconds, before it is given up.
            Default 5.
        recovery_timeout: seconds from a failure until the last attempt must have done its work; what is under way then
            is cancelled. Default 30.
        backoff: the delays between attempts; the first attempt is made at once. Default: exponential, 0.2 to 20 s,
            with full jitter.
        stable_after: seconds it must stay up after an attempt; then it counts as recovered and the backoff begins
            anew. Default 1.
        window: seconds over which ``max_in_window`` counts. Default 60.
        max_in_window: attempts within ``window``, also of recoveries that succeeded, before it is given up. Default 30.
        breaker: one breaker per registered id, which is told of failures and recoveries; while it is open no attempt is
            made. Default: none.
        check_timeout: seconds a ``check`` may take. Default 5.
        supervisors: owners whose processes are never recovered because of a bare exit: they do so themselves, and say
            ``FailureReported`` when they have given up. Owners that were seen to lease workers, run tasks or restart
            something are added by themselves. Default: the names that the lifecycle, the scheduler and pools have unless you name them.
        alerts: kinds of failure by the name of the alert of a monitor that means one, for example
            ``{"process_hung": FailureKind.TIMEOUT}``. Default: none.
        history_size: recoveries that are remembered. Default 10,000.
        close_timeout: seconds ``aclose()`` waits for strategies that ignore their cancellation. Default 30.

    Raises:
        ConfigError: a value was refused; ``field`` says which.
    """

    max_attempts: Annotated[_Whole, Field(ge=1)] = 5
    recovery_timeout: Annotated[Seconds, Field(gt=0)] = 30.0
    backoff: Backoff = Field(default_factory=lambda: Backoff.exponential(0.2, cap=20.0))
    stable_after: Seconds = 1.0
    window: Annotated[Seconds, Field(gt=0)] = 60.0
    max_in_window: Annotated[_Whole, Field(ge=1)] = 30
    breaker: BreakerConfig | None = None
    check_timeout: Annotated[Seconds, Field(gt=0)] = 5.0
    supervisors: Annotated[frozenset[str], BeforeValidator(_names)] = frozenset(
        {"lifecycle", "scheduler", "processes", "functions", "commands", "executor"}
    )
    alerts: Annotated[dict[str, FailureKind], BeforeValidator(_alerts)] = Field(default_factory=dict)
    history_size: Annotated[_Whole, Field(ge=1)] = 10_000
    close_timeout: Seconds = 30.0
