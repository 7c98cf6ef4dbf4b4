"""Trying again, in virtual time."""

from __future__ import annotations

import asyncio
import functools
import itertools
from typing import Any

import pytest

from procession.errors import CircuitOpen, ConfigError
from procession.recovery import Attempt, BreakerConfig, CircuitBreaker, RetryPolicy, retry, retrying
from tests.recovery.support import Broken, Flaky, now, virtual

pytestmark = pytest.mark.row("RE8")
EVEN = RetryPolicy(max_retries=3, initial_delay=1, multiplier=2, jitter=False)


@virtual
async def test_it_tries_as_often_and_waits_as_long_as_the_policy_says():
    flaky = Flaky(OSError(), OSError(), OSError())
    assert await retry(flaky, EVEN) == "done"
    assert flaky.calls == [0, 1, 3, 7]


@virtual
async def test_the_last_error_is_raised_as_it_is():
    errors = [OSError(str(number)) for number in range(4)]
    flaky = Flaky(*errors)
    with pytest.raises(OSError, match="3") as caught:
        await retry(flaky, EVEN, on=(OSError,))
    assert caught.value is errors[3]
    assert len(flaky.calls) == 4


@virtual
async def test_other_errors_are_raised_at_once():
    flaky = Flaky(OSError(), Broken(), OSError())
    with pytest.raises(Broken):
        await retry(flaky, EVEN, on=OSError)
    assert flaky.calls == [0, 1]


@virtual
async def test_arguments_reach_the_function():
    assert await retry(Flaky(OSError()), EVEN, 1, 2, kwargs={"a": 3}) == ((1, 2), {"a": 3})
    assert await retry(functools.partial(Flaky(OSError()), 1), EVEN) == ((1,), {})
    assert await retry(lambda: asyncio.sleep(0, "slept")) == "slept"


@virtual
async def test_every_failure_is_told():
    told: list[Attempt] = []
    with pytest.raises(Broken):
        await retry(Flaky(*[Broken()] * 4, takes=0.5), EVEN, on_error=told.append)
    assert [(one.number, one.delay, one.elapsed) for one in told] == [(1, 1, 0.5), (2, 2, 2), (3, 4, 4.5), (4, None, 9)]

    async def refuse(attempt: Attempt) -> None:
        await asyncio.sleep(1)
        raise LookupError from attempt.error

    with pytest.raises(LookupError):
        await retry(Flaky(Broken()), EVEN, on_error=refuse)


@virtual
async def test_jitter_is_drawn_from_the_seed():
    async def times(seed: int) -> list[float]:
        flaky = Flaky(*[Broken()] * 3)
        began = now()
        await retry(flaky, RetryPolicy(3, 1.0), seed=seed)
        return [at - began for at in flaky.calls]

    first = await times(7)
    assert first == pytest.approx(await times(7))
    assert first != pytest.approx(await times(8))
    gaps = [b - a for a, b in itertools.pairwise(first)]
    assert all(0 <= gap <= most for gap, most in zip(gaps, (1, 2, 4), strict=True))


@virtual
async def test_all_attempts_together_take_no_longer_than_they_may():
    flaky = Flaky(*[Broken()] * 9)
    with pytest.raises(Broken):  # the third retry would be too late: why wait for it
        await retry(flaky, EVEN, timeout=6.5)
    assert now() == 3.0
    with pytest.raises(TimeoutError):
        await retry(Flaky(takes=10), EVEN, timeout=2)
    assert now() == 5.0


@virtual
async def test_an_open_breaker_says_when_to_come_back():
    breaker = CircuitBreaker(BreakerConfig(window=1, minimum_calls=1, open_for=20, half_open_permits=1))
    breaker.open()
    flaky = Flaky()
    assert await retry(breaker(flaky), EVEN) == "done"
    assert flaky.calls == [20.0]
    breaker.force_open()
    with pytest.raises(CircuitOpen):
        await retry(breaker(flaky), EVEN)
    assert now() == 20.0


@virtual
async def test_a_cancellation_is_not_tried_again():
    flaky = Flaky(takes=10)
    task = asyncio.get_running_loop().create_task(retry(flaky, EVEN))
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(flaky.calls) == 1


@virtual
async def test_as_a_decorator():
    flaky = Flaky(OSError(), OSError())

    @retrying(EVEN, on=OSError, timeout="1m")  # type: ignore[arg-type]
    async def fetch(*args: int, **kwargs: int) -> Any:
        """Fetches."""
        return await flaky(*args, **kwargs)

    assert fetch.__doc__ == "Fetches."
    assert await fetch(1, a=2) == ((1,), {"a": 2})
    assert len(flaky.calls) == 3


@virtual
async def test_nonsense_is_refused_before_anything_is_called():
    flaky = Flaky()
    for field, options in (
        ("policy", {"policy": 3}),
        ("on", {"on": "OSError"}),
        ("on_error", {"on_error": 3}),
        ("timeout", {"timeout": -1}),
    ):
        with pytest.raises(ConfigError) as caught:
            await retry(flaky, **options)
        assert caught.value.field == field
    with pytest.raises(ConfigError, match="without calling it"):
        await retry(flaky())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="without calling it"):
        await retry(asyncio.get_running_loop().create_future())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="coroutine function"):
        await retry("flaky")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be awaited"):
        await retry(lambda: 3)  # type: ignore[arg-type,return-value]
    with pytest.raises(ConfigError):
        retrying(timeout=-1)
    with pytest.raises(ConfigError):
        retrying(3)(flaky)  # type: ignore[arg-type]
    assert flaky.calls == []
