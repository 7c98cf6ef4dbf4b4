"""``retry``: tries anything that can be awaited again, as a policy says."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from procession._core.backoff import RetryPolicy, duration
from procession.errors import CircuitOpen, ConfigError

P = ParamSpec("P")
T = TypeVar("T")
Kinds = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that failed, as ``on_error`` is told of it.

    Attributes:
        number: which attempt it was: 1, 2, 3 …
        error: what it raised.
        delay: seconds until the next attempt; ``None`` when there is none and ``error`` is raised.
        elapsed: seconds since the first attempt began.
    """

    number: int
    error: Exception
    delay: float | None
    elapsed: float


OnError = Callable[[Attempt], Any]


async def retry(
    function: Callable[..., Awaitable[T]],
    policy: RetryPolicy | None = None,
    *args: Any,
    on: Kinds | None = None,
    on_error: OnError | None = None,
    timeout: float | None = None,
    kwargs: dict[str, Any] | None = None,
    rng: random.Random | None = None,
    seed: int | None = None,
) -> T:
    """Calls ``function`` and awaits what it returns; when that fails, waits and calls it again.

    A :class:`~procession.errors.CircuitOpen` is tried again no sooner than it says.

    Args:
        function: what to call; it must return something new to await each time.
        policy: how often, and after which delays. Default: ``RetryPolicy()``, three retries.
        args: positional arguments for ``function``.
        on: the exceptions that are tried again; others are raised at once. Default: what the policy says.
        on_error: called with an :class:`Attempt` after each failure, the last one included; may be a coroutine function.
            What it raises is raised.
        timeout: seconds for all attempts together. When the next would begin later, there is none.
        kwargs: keyword arguments for ``function``.
        rng: draws the jitter.
        seed: makes the jitter repeatable, instead of ``rng``.

    Returns:
        What the first successful attempt returned.

    Raises:
        ConfigError: a value was refused; nothing was called.
        TimeoutError: the time was over while an attempt was under way.
        Exception: what the last attempt raised, as it is.

    Cancellation: goes to the attempt that is under way, or ends the waiting; nothing is tried again.
    """
    policy = _checked(function, policy, on, on_error)
    if rng is None:
        rng = random.Random(seed)  # noqa: S311 - jitter is no secret
    loop = asyncio.get_running_loop()
    began = loop.time()
    until = math.inf if timeout is None else began + duration("timeout", timeout)
    number = 0
    async with asyncio.timeout_at(None if timeout is None else until):
        while True:
            number += 1
            try:
                made = function(*args, **(kwargs or {}))
                if inspect.isawaitable(made):
                    return await made
            except Exception as error:
                delay = policy.next_delay(number, error, rng)
                if delay is not None and isinstance(error, CircuitOpen):
                    delay = max(delay, error.retry_after)
                if delay is not None and (delay == math.inf or loop.time() + delay >= until):
                    delay = None
                if on_error is not None:
                    told = on_error(Attempt(number=number, error=error, delay=delay, elapsed=loop.time() - began))
                    if inspect.isawaitable(told):
                        await told
                if delay is None:
                    raise
            else:
                raise ConfigError("function", function, f"it returned {type(made).__name__}, which cannot be awaited")
            await asyncio.sleep(delay)


def retrying(
    policy: RetryPolicy | None = None,
    *,
    on: Kinds | None = None,
    on_error: OnError | None = None,
    timeout: float | None = None,
    seed: int | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """The same as a decorator: ``@retrying(RetryPolicy(5), on=OSError)``.

    Args:
        policy: as for :func:`retry`.
        on: as for :func:`retry`.
        on_error: as for :func:`retry`.
        timeout: as for :func:`retry`, of each call.
        seed: as for :func:`retry`; all calls draw from one sequence.

    Raises:
        ConfigError: a value was refused.
    """
    rng = random.Random(seed)  # noqa: S311 - jitter is no secret
    limit = None if timeout is None else duration("timeout", timeout)

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        _checked(function, policy, on, on_error)

        @functools.wraps(function)
        async def patient(*args: P.args, **kwargs: P.kwargs) -> T:
            return await retry(
                functools.partial(function, *args, **kwargs), policy, on=on, on_error=on_error, timeout=limit, rng=rng
            )

        return patient

    return decorate


def _checked(function: object, policy: RetryPolicy | None, on: Kinds | None, on_error: object) -> RetryPolicy:
    if inspect.isawaitable(function):
        if inspect.iscoroutine(function):
            function.close()
        hint = "it can be awaited once only: give the function that makes it, without calling it"
        raise ConfigError("function", function, hint)
    if not callable(function):
        raise ConfigError("function", function, "a coroutine function is needed")
    if policy is None:
        policy = RetryPolicy()
    elif not isinstance(policy, RetryPolicy):
        raise ConfigError("policy", policy, "a RetryPolicy is needed")
    if on_error is not None and not callable(on_error):
        raise ConfigError("on_error", on_error, "a function of one Attempt is needed")
    return policy if on is None else replace(policy, on=on)  # type: ignore[arg-type]
