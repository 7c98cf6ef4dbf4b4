"""Breakers through their public face, in virtual time."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from typing import Any

import pytest

from procession import ProcessRegistry
from procession.errors import CircuitOpen, ConfigError, InvalidTransition
from procession.events import CircuitChanged
from procession.recovery import BreakerConfig, CircuitBreaker, CircuitState, Count, Time
from procession.testing import VirtualLoop, run_virtual
from tests.recovery.support import Broken, Flaky, now, virtual

pytestmark = pytest.mark.row("RE4")


def small(**options: Any) -> BreakerConfig:
    return BreakerConfig(**{"window": 4, "minimum_calls": 2, "open_for": 10, "half_open_permits": 2, **options})


async def fail(breaker: CircuitBreaker, times: int = 1, error: BaseException | None = None) -> None:
    for _ in range(times):
        with pytest.raises(type(error or Broken())):
            async with breaker:
                raise error or Broken


async def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        async with breaker:
            pass


@virtual
async def test_it_opens_at_its_rate_refuses_for_a_while_lets_probes_pass_and_closes():
    breaker = CircuitBreaker(small(), name="mail")
    await succeed(breaker)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"
    assert isinstance(breaker.state, CircuitState)
    with pytest.raises(CircuitOpen) as caught:
        async with breaker:
            raise AssertionError("it was let through")
    assert (caught.value.name, caught.value.state, caught.value.retry_after) == ("mail", "open", 10.0)
    await asyncio.sleep(9.9)
    with pytest.raises(CircuitOpen):
        await breaker.call(Flaky())
    await asyncio.sleep(0.1)
    assert breaker.state == "open"  # until somebody calls
    await succeed(breaker)
    assert breaker.state == "half_open"
    await succeed(breaker)
    assert breaker.state == "closed"
    figures = breaker.statistics()
    assert (figures.succeeded, figures.failed, figures.refused, figures.calls) == (3, 1, 2, 0)


@virtual
async def test_a_failing_probe_opens_it_again_for_the_whole_time():
    breaker = CircuitBreaker(small())
    await fail(breaker, 2)
    await asyncio.sleep(10)
    await succeed(breaker)
    await fail(breaker)
    assert breaker.state == "open"
    assert breaker.retry_after == 10.0


@virtual
async def test_half_open_lets_only_its_probes_pass_however_many_want_to():
    breaker = CircuitBreaker(small(half_open_permits=3))
    await fail(breaker, 2)
    await asyncio.sleep(10)
    inside = most = 0

    async def call() -> str:
        nonlocal inside, most
        async with breaker:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(1)
            inside -= 1
        return "through"

    ends = await asyncio.gather(*(call() for _ in range(1000)), return_exceptions=True)
    assert ends.count("through") == most == 3
    refused = [error for error in ends if isinstance(error, CircuitOpen)]
    assert len(refused) == 997
    assert {error.state for error in refused} == {"half_open"}
    assert {error.retry_after for error in refused} == {60.0}  # the probes are given up by then
    assert breaker.state == "closed"


@virtual
async def test_a_cancelled_probe_gives_its_permit_back():
    breaker = CircuitBreaker(small(half_open_permits=1))
    await fail(breaker, 2)
    await asyncio.sleep(10)
    hung = asyncio.get_running_loop().create_task(breaker.call(asyncio.sleep, 1000))
    await asyncio.sleep(1)
    with pytest.raises(CircuitOpen):
        await succeed(breaker)
    hung.cancel()
    await asyncio.wait([hung])
    assert breaker.state == "half_open"
    assert breaker.statistics().given_back == 1
    await succeed(breaker)
    assert breaker.state == "closed"


@virtual
async def test_a_probe_that_hangs_counts_as_failed_in_the_end():
    breaker = CircuitBreaker(small(half_open_permits=1, probe_timeout=20))
    await fail(breaker, 2)
    await asyncio.sleep(10)
    hung = asyncio.get_running_loop().create_task(breaker.call(asyncio.sleep, 1000))
    await asyncio.sleep(19.9)
    assert breaker.state == "half_open"
    await asyncio.sleep(0.1)
    assert breaker.state == "open"
    assert breaker.statistics().since == 0.0
    await hung  # too late to count
    assert breaker.statistics().stale == 1


@virtual
async def test_half_open_may_last_only_so_long():
    moves: list[Any] = []
    breaker = CircuitBreaker(small(half_open_wait=5), on_change=moves.append)
    await fail(breaker, 2)
    await asyncio.sleep(10)
    await succeed(breaker)
    await asyncio.sleep(5)
    assert [(move.at, move.new) for move in moves] == [(0, "open"), (10, "half_open"), (15, "open")]
    await asyncio.sleep(10)
    await succeed(breaker, 2)
    assert moves[-1].new == "closed"


@virtual
async def test_it_becomes_half_open_by_itself_if_asked_to():
    moves: list[Any] = []
    breaker = CircuitBreaker(small(auto_half_open=True), on_change=moves.append)
    await fail(breaker, 2)
    await asyncio.sleep(11)
    assert [(move.at, move.new, move.reason) for move in moves] == [
        (0, "open", "2 of 2 calls failed"),
        (10, "half_open", "open for 10 s"),
    ]
    assert breaker.retry_after == 0.0


@virtual
async def test_a_call_counts_only_in_the_state_it_began_in():
    breaker = CircuitBreaker(small())
    late = asyncio.get_running_loop().create_task(breaker.call(Flaky(Broken(), takes=12)))
    await asyncio.sleep(1)
    await fail(breaker, 2)
    await asyncio.sleep(10)
    async with breaker:
        await asyncio.wait([late])  # began when closed, ends when half-open
    assert late.exception() is not None
    await succeed(breaker)
    assert breaker.state == "closed"
    assert breaker.statistics().stale == 1


@virtual
async def test_slow_calls_open_it_too():
    breaker = CircuitBreaker(small(slow_call=2, slow_rate=0.5, failure_rate=None))
    await breaker.call(asyncio.sleep, 1.9)
    assert breaker.state == "closed"
    await breaker.call(asyncio.sleep, 2)
    assert breaker.state == "open"
    assert breaker.statistics().slow == 1


@virtual
async def test_calls_of_long_ago_do_not_count():
    breaker = CircuitBreaker(small(window=Time(10, parts=10), minimum_calls=3))
    await fail(breaker, 2)
    await asyncio.sleep(11)
    await fail(breaker, 2)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"


@virtual
async def test_either_window_opens_it():
    breaker = CircuitBreaker(small(window=Count(2) | Time(100), minimum_calls=4, failure_rate=0.75))
    await succeed(breaker, 2)
    await fail(breaker, 2)  # both of the last two, half of those in time
    assert breaker.state == "open"
    assert breaker.statistics().calls == 4


@virtual
async def test_a_count_of_failures_opens_it_however_many_succeed():
    breaker = CircuitBreaker(small(window=100, failure_rate=None, failure_count=3, minimum_calls=1))
    for _ in range(2):
        await fail(breaker)
        await succeed(breaker, 20)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"
    await asyncio.sleep(10)
    await succeed(breaker)
    await fail(breaker)
    assert breaker.state == "closed"  # one of two probes: the count was not reached


@virtual
async def test_a_rate_of_nothing_means_the_first_failure():
    breaker = CircuitBreaker(small(failure_rate=0, minimum_calls=1))
    await succeed(breaker, 5)
    assert breaker.state == "closed"
    await fail(breaker)
    assert breaker.state == "open"


@virtual
async def test_which_exceptions_and_results_are_failures():
    class Missing(Broken):
        pass

    breaker = CircuitBreaker(small(record=OSError, ignore=Missing, record_result=lambda value: value == "bad"))
    await fail(breaker, 3, Missing())
    await fail(breaker, 2, ValueError())
    figures = breaker.statistics()
    assert (figures.failed, figures.succeeded, figures.given_back) == (0, 2, 3)
    await fail(breaker, 1, ConnectionError())
    assert breaker.statistics().failed == 1

    async def answer(value: str) -> str:
        return value

    assert await breaker.call(answer, "good") == "good"
    assert await breaker(answer)("bad") == "bad"
    assert breaker.state == "open"

    judged = CircuitBreaker(small(record=lambda error: "yes" in str(error), ignore=lambda error: "no" in str(error)))
    await fail(judged, 1, Broken("no, yes"))
    await fail(judged, 1, Broken("yes"))
    await fail(judged, 1, Broken("else"))
    figures = judged.statistics()
    assert (figures.failed, figures.succeeded, figures.given_back) == (1, 1, 1)


@virtual
async def test_it_decorates_coroutine_functions_and_calls_anything():
    breaker = CircuitBreaker(small())

    @breaker
    async def twice(number: int, *, plus: int = 0) -> int:
        """Doubles."""
        return 2 * number + plus

    assert twice.__name__ == "twice"
    assert await twice(4, plus=1) == 9
    assert await breaker(Flaky())() == "done"
    assert await breaker.call(lambda: 3) == 3
    assert await breaker.call(Flaky(), 1, a=2) == ((1,), {"a": 2})
    with pytest.raises(Broken):
        await breaker(Flaky(Broken()))()
    for wrong in (lambda: 3, "fn", len):
        with pytest.raises(ConfigError) as caught:
            breaker(wrong)  # type: ignore[arg-type]
        assert caught.value.field == "function"
    breaker.force_open()
    for call in (twice(1), breaker.call(Flaky())):
        with pytest.raises(CircuitOpen):
            await call


@virtual
async def test_a_plain_with_works_as_well_and_blocks_may_be_nested_and_crossed():
    outer, inner = CircuitBreaker(small(), name="outer"), CircuitBreaker(small(), name="inner")

    async def nested() -> None:
        with outer:
            async with inner, inner:
                raise Broken

    with pytest.raises(Broken):
        await nested()
    assert (outer.statistics().failed, inner.statistics().failed) == (1, 2)
    outer.reset()
    inner.reset()
    await outer.__aenter__()
    await inner.__aenter__()
    await outer.__aexit__(None, None, None)  # not in the reverse order
    await inner.__aexit__(Broken, Broken(), None)
    assert (outer.statistics().succeeded, inner.statistics().failed) == (1, 3)


@virtual
async def test_a_probe_may_be_entered_in_one_task_and_left_in_another():
    breaker = CircuitBreaker(small(half_open_permits=1))
    breaker.open()
    await asyncio.sleep(10)
    async with AsyncExitStack() as stack:

        async def enter() -> None:
            await stack.enter_async_context(breaker)

        await asyncio.get_running_loop().create_task(enter())
        with pytest.raises(CircuitOpen):
            await succeed(breaker)
    assert breaker.state == "closed"


@virtual
async def test_tasks_begun_inside_of_a_block_have_blocks_of_their_own():
    breaker = CircuitBreaker(small(window=100, minimum_calls=100))

    async def child(delay: float) -> None:
        async with breaker:
            await asyncio.sleep(delay)

    async with breaker, asyncio.TaskGroup() as group:
        for delay in (3, 1, 2):
            group.create_task(child(delay))
    assert breaker.statistics().succeeded == 4


@virtual
async def test_permits_are_given_back_once():
    breaker = CircuitBreaker(small(half_open_permits=2))
    permit = breaker.acquire()
    assert permit.is_open
    permit.failure()
    permit.failure()
    permit.success()
    permit.release()
    assert not permit.is_open
    assert breaker.statistics().failed == 1
    with pytest.raises(Broken), breaker.acquire():
        raise Broken
    assert breaker.state == "open"
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    breaker.half_open()
    breaker.acquire().release()
    with breaker.acquire():
        pass
    first = breaker.acquire()
    with pytest.raises(CircuitOpen):
        breaker.acquire()
    first.failure(asyncio.CancelledError())
    breaker.acquire().success()
    assert breaker.state == "closed"


@virtual
async def test_states_held_by_hand():
    breaker = CircuitBreaker(small())
    breaker.force_closed()
    await fail(breaker, 5)
    assert breaker.state == "forced_closed"
    breaker.metrics_only()
    assert breaker.statistics().exceeded == ""
    await fail(breaker, 2)
    assert breaker.statistics().exceeded == "2 of 2 calls failed"
    assert breaker.statistics().failure_rate == 1.0
    breaker.disable()
    counted = breaker.statistics().failed
    await fail(breaker, 5)
    assert breaker.statistics().failed == counted
    breaker.force_open()
    breaker.force_open()
    await asyncio.sleep(1000)
    with pytest.raises(CircuitOpen) as caught:
        await succeed(breaker)
    assert caught.value.retry_after == breaker.retry_after == math.inf
    assert "until somebody changes that" in str(caught.value)
    with pytest.raises(InvalidTransition):
        breaker.half_open()
    breaker.open("maintenance")
    assert breaker.retry_after == 10.0
    breaker.close()
    await fail(breaker)
    breaker.reset()
    await fail(breaker)  # the one before is forgotten
    assert breaker.state == "closed"
    breaker.force_open()
    breaker.reset()
    assert breaker.state == "closed"
    assert "closed: reset" in breaker._core.story()


@virtual
async def test_its_moves_are_events_and_a_listener_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture):
    def bad(change: object) -> None:
        raise RuntimeError("listener")

    async with ProcessRegistry() as registry:
        breaker = CircuitBreaker(small(), name="mail", registry=registry, owner="post", on_change=bad)
        await fail(breaker, 2)
        events = [event for event in registry.history(CircuitChanged) if isinstance(event, CircuitChanged)]
    assert [(event.id, event.owner, event.old, event.new, event.reason) for event in events] == [
        ("mail", "post", "closed", "open", "2 of 2 calls failed")
    ]
    assert "on_change failed" in caplog.text


def test_it_works_without_a_loop_and_over_several_loops_whose_clocks_begin_anew():
    breaker = CircuitBreaker(small(half_open_permits=1))
    with pytest.raises(Broken), breaker:
        raise Broken
    breaker.close()
    breaker.open()
    assert breaker.state == "open"

    async def first() -> None:
        breaker.reset()
        await fail(breaker, 2)
        await asyncio.sleep(4)
        assert breaker.retry_after == 6.0

    async def second() -> None:
        assert now() == 0.0
        assert breaker.retry_after == 6.0
        await asyncio.sleep(6)
        hung = asyncio.get_running_loop().create_task(breaker.call(asyncio.sleep, 3))
        await asyncio.sleep(1)
        assert breaker.state == "half_open"
        await hung
        assert breaker.state == "closed"

    run_virtual(first, start=1e6)
    run_virtual(second)


def test_a_timer_of_a_loop_that_is_gone_does_nothing():
    breaker = CircuitBreaker(small(auto_half_open=True))
    loop, other = VirtualLoop(), VirtualLoop()
    try:
        loop.run_until_complete(fail(breaker, 2))
        timer = breaker._timer
        assert timer is not None
        other.run_until_complete(asyncio.sleep(0))

        async def ask() -> str:
            return breaker.state

        assert other.run_until_complete(ask()) == "open"
        loop.run_until_complete(asyncio.sleep(20))
        assert breaker._core.state == "open"
    finally:
        loop.close()
        other.close()


@virtual
async def test_a_timer_that_comes_too_early_is_set_again():
    breaker = CircuitBreaker(small(half_open_permits=2, probe_timeout=5))
    breaker.open()
    await asyncio.sleep(10)
    first = breaker.acquire()
    await asyncio.sleep(3)
    second = breaker.acquire()
    first.success()
    await asyncio.sleep(3)  # the timer of the first one has run
    assert breaker.state == "half_open"
    await asyncio.sleep(3)
    assert breaker.state == "open"
    second.success()


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("failure_rate", {"failure_rate": 1.1}),
        ("failure_rate", {"failure_rate": -0.1}),
        ("failure_rate", {"failure_rate": math.nan}),
        ("failure_rate", {"failure_rate": True}),
        ("failure_rate", {"failure_rate": None}),
        ("slow_rate", {"slow_rate": 2}),
        ("slow_rate", {"slow_rate": "most"}),
        ("window", {"window": 0}),
        ("window", {"window": "50"}),
        ("window", {"window": True}),
        ("minimum_calls", {"minimum_calls": 0}),
        ("minimum_calls", {"minimum_calls": True}),
        ("open_for", {"open_for": 0}),
        ("open_for", {"open_for": -1}),
        ("half_open_permits", {"half_open_permits": 0}),
        ("half_open_wait", {"half_open_wait": 0}),
        ("probe_timeout", {"probe_timeout": "soon"}),
        ("failure_count", {"failure_count": 0}),
        ("slow_call", {"slow_call": -1}),
        ("record", {"record": KeyboardInterrupt}),
        ("record", {"record": "OSError"}),
        ("ignore", {"ignore": [OSError, 3]}),
        ("ignore", {"ignore": 3}),
        ("record_result", {"record_result": 3}),
        ("failures", {"failures": 3}),
    ],
)
def test_nonsense_is_refused_and_its_field_is_named(field: str, options: dict[str, Any]):
    with pytest.raises(ConfigError) as caught:
        BreakerConfig(**options)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("window", lambda: Count(0)),
        ("window", lambda: Count(True)),
        ("window", lambda: Count(1.5)),  # type: ignore[arg-type]
        ("window", lambda: Time(0)),
        ("window", lambda: Time(-1)),
        ("window", lambda: Time(math.inf)),
        ("parts", lambda: Time(1, 0)),
        ("parts", lambda: Time(1, True)),
        ("config", lambda: CircuitBreaker({"window": 3})),  # type: ignore[arg-type]
        ("name", lambda: CircuitBreaker(name="a/b")),
        ("name", lambda: CircuitBreaker(name="")),
        ("on_change", lambda: CircuitBreaker(on_change=3)),  # type: ignore[arg-type]
        ("on_change", lambda: CircuitBreaker(on_change=Flaky().__call__)),
    ],
)
def test_bad_windows_and_arguments_are_refused(field: str, make: Any):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


def test_windows_are_what_they_were_given():
    assert Time("1m30s").seconds == 90.0  # type: ignore[arg-type]
    assert Time(0.5).parts == 10
    assert Time(90).parts == 90
    both = Count(50) | Time(30) | Count(3)
    assert both.windows == (Count(50), Time(30), Count(3))
    assert (Time(30) | both).windows == (Time(30), *both.windows)
    assert BreakerConfig(window=both).looks_at is both
    assert BreakerConfig(window=50).window == Count(50)
    with pytest.raises(TypeError):
        Count(3) | 4  # type: ignore[operator]
    assert BreakerConfig(window=Count(3), minimum_calls=100).minimum_calls == 100
    assert repr(CircuitBreaker(name="x")) == "<CircuitBreaker x closed>"
