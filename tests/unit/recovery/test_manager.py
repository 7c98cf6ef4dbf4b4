"""The manager in virtual time: reports, strategies, bounds, figures."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar
from typing import Any

import pytest

from procession import Backoff, Command, FailureKind, ProcessRegistry
from procession.errors import Closed, ConfigError, NotFound, RecoveryExhausted, StateError
from procession.events import (
    AlertRaised,
    CircuitChanged,
    Event,
    FailureReported,
    RecoveryAttempted,
    RecoveryFinished,
    RecoveryStarted,
    StateChanged,
)
from procession.recovery import (
    BreakerConfig,
    Chain,
    Custom,
    Failure,
    Fallback,
    Nothing,
    Notify,
    RecoveryConfig,
    RecoveryManager,
    Replace,
    Restart,
    ScaleDown,
    ScaleUp,
    Stop,
)
from procession.testing import Script, SimulatedLauncher
from tests.recovery.support import Broken, Flaky, Target, now, virtual

pytestmark = pytest.mark.row("RE1")
CRASH, TIMEOUT = FailureKind.CRASH, FailureKind.TIMEOUT
EVEN = Backoff.exponential(1.0, cap=8.0, jitter=False)


def config(**options: Any) -> RecoveryConfig:
    return RecoveryConfig(**{"backoff": EVEN, "stable_after": 5, "recovery_timeout": 100, **options})


def told(registry: ProcessRegistry, *kinds: type[Event]) -> list[Any]:
    return list(registry.history(*kinds))


@virtual
async def test_a_reported_failure_is_recovered_and_waited_for():
    target = Target(takes=2)
    async with ProcessRegistry() as registry, RecoveryManager(config(), registry=registry) as recovery:
        recovery.register("api", target=target)
        assert recovery.state("api") == "healthy"
        error = TimeoutError("no answer")
        done = await recovery.report_failure("api", FailureKind.TIMEOUT, error)
        assert done is not None
        assert (done.recovered, done.strategy, done.attempts, done.failures) == (True, "restart", 1, 1)
        assert (done.began, done.up_at, done.ended, done.duration) == (0, 2, 7, 2)
        assert done.error == "TimeoutError: no answer"
        assert target.calls == [("restart", "api", 0)]
        assert target.reasons == ["recovery from timeout, attempt 1"]
        assert [type(event).__name__ for event in registry.history()] == [
            "FailureReported",
            "RecoveryStarted",
            "RecoveryAttempted",
            "RecoveryFinished",
        ]
        reported, started, attempted, finished = registry.history()
        assert isinstance(reported, FailureReported)
        assert (reported.id, reported.owner, reported.kind) == ("api", "recovery", "timeout")
        assert isinstance(started, RecoveryStarted)
        assert (started.strategy, started.attempt) == ("restart", 1)
        assert isinstance(attempted, RecoveryAttempted)
        assert (attempted.ok, attempted.duration) == (True, 2)
        assert isinstance(finished, RecoveryFinished)
        assert (finished.recovered, finished.attempt, finished.duration) == (True, 1, 2)
        assert recovery.history("api") == [done]


@virtual
async def test_two_failures_at_once_are_one_recovery_for_all_who_report():
    target = Target(takes=1)
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=target)
        ends = await asyncio.gather(*(recovery.report_failure("api", kind) for kind in FailureKind))
        assert len(target.calls) == 1
        assert all(end is ends[0] for end in ends)
        assert ends[0] is not None
        assert ends[0].failures == len(FailureKind)
        assert recovery.statistics().by_kind == dict.fromkeys(FailureKind, 1)


@pytest.mark.row("RE5")
@virtual
async def test_when_all_was_tried_it_is_given_up_and_stays_so_until_somebody_says_that_it_works():
    target = Target(*[Broken("still")] * 3)
    async with ProcessRegistry() as registry, RecoveryManager(config(max_attempts=3), registry=registry) as recovery:
        recovery.register("api", target=target)
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("api", CRASH, "SIGSEGV")
        error = caught.value
        assert (error.id, error.kind, error.attempts, error.reason) == ("api", CRASH, 3, "attempts")
        assert isinstance(error.__cause__, Broken)
        assert [at for *_, at in target.calls] == [0, 1, 3]
        assert recovery.state("api") == "failed"
        changed = told(registry, StateChanged)
        assert [(event.id, event.owner, event.new, event.reason) for event in changed] == [
            ("api", "recovery", "failed", "attempts")
        ]
        assert not told(registry, RecoveryFinished)[0].recovered
        with pytest.raises(RecoveryExhausted):
            await recovery.report_failure("api", CRASH)
        assert len(target.calls) == 3
        await asyncio.sleep(10)
        assert recovery.availability("api", window=5) == 0.0
        await recovery.report_success("api")
        assert recovery.state("api") == "healthy"
        await asyncio.sleep(10)
        assert recovery.availability("api", window=20) == 0.5
        assert (await recovery.report_failure("api", CRASH)).recovered  # type: ignore[union-attr]
        assert told(registry, StateChanged)[-1].new == "healthy"


@pytest.mark.row("RE5")
@virtual
async def test_a_strategy_that_hangs_is_cut_off_when_the_time_is_over():
    target = Target(takes=1000)
    async with RecoveryManager(config(recovery_timeout=30)) as recovery:
        recovery.register("api", target=target)
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("api", CRASH)
        assert (caught.value.reason, now()) == ("time", 30)
        assert "not done in time" in str(caught.value)
        recovery.register("quick", target=Target(takes=1000), strategy=Chain(Restart(timeout=2), Replace(timeout=3)))
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("quick", CRASH)
        assert (caught.value.reason, caught.value.attempts, now()) == ("strategies", 2, 30 + 2 + 1 + 3)


@pytest.mark.row("RE2")
@virtual
async def test_a_chain_degrades_and_the_last_is_told():
    notified: list[Failure] = []
    target = Target(Broken(), False)
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=target, strategy=Chain(Restart(), Replace(), Notify(notified.append)))
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("api", CRASH)
        assert [call[0] for call in target.calls] == ["restart", "replace"]
        assert caught.value.reason == "strategies"
        assert [(one.id, one.kind, one.attempt, one.strategy, one.exhausted) for one in notified] == [
            ("api", CRASH, 2, "notify", "strategies")
        ]


@pytest.mark.row("RE2")
@virtual
async def test_strategies_are_chosen_by_kind():
    target = Target()
    seen: list[Any] = []

    async def mine(failure: Failure) -> None:
        seen.append((failure.kind, failure.error, failure.failures, failure.reason))

    async with RecoveryManager(config(stable_after=0)) as recovery:
        recovery.register(
            "api",
            target=target,
            strategy=Replace(Command("api", "--new")),
            by_kind={
                FailureKind.RESOURCE_EXHAUSTION: ScaleDown(),
                "timeout": ScaleUp(2),
                FailureKind.NETWORK_ERROR: Nothing(),
                FailureKind.DEPENDENCY_FAILURE: mine,
            },
        )
        for kind in FailureKind:
            done = await recovery.report_failure("api", kind, "why")
            assert done is not None
            assert done.recovered is (kind is not FailureKind.NETWORK_ERROR)
        assert [call[:-1] for call in target.calls] == [
            ("replace", "api", Command("api", "--new")),
            ("scale_up", 2),
            ("scale_down", 1),
            ("replace", "api", Command("api", "--new")),
        ]
        assert seen == [(FailureKind.DEPENDENCY_FAILURE, "why", 1, "recovery from dependency_failure, attempt 1")]
        figures = recovery.statistics("api")
        assert (figures.failures, figures.recovered, figures.exhausted) == (6, 5, 0)


@pytest.mark.row("RE2")
@virtual
async def test_scaling_at_the_bound_does_not_help():
    target = Target()
    target.size = 1
    async with RecoveryManager(config()) as recovery:
        recovery.register("pool", target=target, strategy=Chain(ScaleDown(), ScaleUp(), ScaleUp(9)))
        done = await recovery.report_failure("pool", CRASH)
        assert done is not None
        assert (done.strategy, done.attempts, target.size) == ("scale_up", 2, 2)


@pytest.mark.row("RE2")
@virtual
async def test_a_target_may_scale_by_id_and_a_strategy_may_have_a_target_of_its_own():
    pool = Target()

    class Units:
        async def restart(self, id: str) -> None: ...

        def scalable(self, id: str) -> Target:
            assert id == "api"
            return pool

    async with RecoveryManager(config(stable_after=0)) as recovery:
        recovery.register("api", target=Units(), by_kind={CRASH: ScaleDown(), TIMEOUT: Restart()})
        recovery.register("other", strategy=ScaleUp(target=pool))
        await recovery.report_failure("api", CRASH)
        await recovery.report_failure("api", TIMEOUT)
        await recovery.report_failure("other", TIMEOUT)
        assert [call[0] for call in pool.calls] == ["scale_down", "scale_up"]


@pytest.mark.row("RE2")
@virtual
async def test_functions_take_the_failure_or_nothing():
    calls: list[Any] = []

    async def with_failure(failure: Failure) -> bool:
        calls.append(failure.strategy)
        return len(calls) > 1

    async def without() -> None:
        calls.append("without")

    async with RecoveryManager(config(stable_after=0)) as recovery:
        recovery.register("target", target=with_failure)
        recovery.register("strategy", strategy=without)
        recovery.register("both", target=without, strategy=Chain(Custom(Flaky(Broken()), title="mine"), Replace()))
        for id in ("target", "strategy", "both"):
            assert (await recovery.report_failure(id)).recovered  # type: ignore[union-attr]
        assert calls == ["restart", "restart", "without", "without"]
        assert [(done.id, done.strategy) for done in recovery.history()] == [
            ("target", "restart"),
            ("strategy", "without"),
            ("both", "replace"),
        ]


@virtual
async def test_what_heals_nothing_is_told_each_time_and_never_given_up(caplog: pytest.LogCaptureFixture):
    notified: list[str] = []

    async def tell(failure: Failure) -> None:
        await asyncio.sleep(1)
        notified.append(failure.id)

    async with RecoveryManager(config()) as recovery:
        recovery.register("api", strategy=Notify(tell))
        recovery.register("log", strategy=Chain(Nothing(), Notify()))
        for _ in range(3):
            done = await recovery.report_failure("api", CRASH)
            assert done is not None
            assert (done.recovered, done.strategy, done.attempts) == (False, "notify", 0)
        await recovery.report_failure("log", CRASH, "boom")
        assert notified == ["api"] * 3
        assert recovery.availability("api") == 1.0
        assert recovery.statistics().failures == 4
    assert "log failed (crash): boom" in caplog.text


@virtual
async def test_a_check_has_the_last_word():
    answers = [False, True, True, False, True, True]

    async def healthy() -> bool:
        return answers.pop(0)

    target = Target()
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=target, check=healthy)
        done = await recovery.report_failure("api", CRASH)
        assert done is not None
        assert (done.attempts, len(target.calls), done.error) == (2, 2, "the check says that it does not work")
        answers[:] = [True, False, True, True]  # works at first, and not when it should have become stable
        done = await recovery.report_failure("api", CRASH)
        assert done is not None
        assert done.attempts == 2

        async def hangs() -> bool:
            await asyncio.sleep(1000)
            return True

        recovery.register("hung", target=target, check=hangs, config=config(max_attempts=1, check_timeout=3))
        began = now()
        with pytest.raises(RecoveryExhausted):
            await recovery.report_failure("hung", CRASH)
        assert now() == began + 3


@virtual
async def test_a_report_about_the_past_is_not_heeded():
    target = Target(takes=1)
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=target)
        await asyncio.sleep(10)
        recovery.report_failure_nowait("api", CRASH)
        await recovery.wait_for("api", "proving")
        assert await recovery.report_failure("api", TIMEOUT, began=9) is None
        assert recovery.state("api") == "proving"
        recovery.report_failure_nowait("api", TIMEOUT, began=now())
        assert recovery.state("api") == "backoff"
        await recovery.wait_for("api", "healthy")
        assert len(target.calls) == 2


@virtual
async def test_a_strategy_that_reports_its_own_failure_does_not_wait_for_itself():
    async with RecoveryManager(config(stable_after=1)) as recovery:

        async def naive(failure: Failure) -> None:
            assert await recovery.report_failure(failure.id, CRASH, "mine") is None

        recovery.register("api", strategy=naive, check=naive)
        with pytest.raises(RecoveryExhausted):
            await recovery.report_failure("api", CRASH)  # its check never says yes
        assert recovery.history()[0].failures > 5


@virtual
async def test_strategies_run_in_the_context_of_whoever_opened_the_manager():
    who: ContextVar[str] = ContextVar("who", default="nobody")
    seen: list[str] = []

    async def look() -> None:
        seen.append(who.get())

    who.set("opener")
    async with RecoveryManager(config(stable_after=0)) as recovery:
        recovery.register("api", target=look)
        who.set("reporter")
        await recovery.report_failure("api", CRASH)
    assert seen == ["opener"]


@virtual
async def test_telling_somebody_meanwhile_does_not_make_a_strategy_wait_for_itself():
    async with RecoveryManager(config()) as recovery:

        async def slow(failure: Failure) -> None:
            await recovery.report_failure("api", TIMEOUT)  # somebody is told, and that is over
            assert await recovery.report_failure("api", CRASH) is None

        recovery.register("api", target=slow, by_kind={TIMEOUT: Notify(lambda: None)})
        done = await recovery.report_failure("api", CRASH)
        assert done is not None
        assert (done.recovered, now()) == (True, 5)


@virtual
async def test_success_ends_the_backoff():
    target = Target(Broken())
    async with ProcessRegistry() as registry, RecoveryManager(config(), registry=registry) as recovery:
        recovery.register("api", target=target)
        waiting = asyncio.get_running_loop().create_task(recovery.report_failure("api", CRASH))
        await recovery.wait_for("api", "backoff")
        while recovery.status("api").attempt == 0:
            await asyncio.sleep(0)
        assert recovery.state("api") == "backoff"
        await recovery.report_success("api")
        assert recovery.state("api") == "healthy"
        recovery.report_failure_nowait("api", CRASH)  # before anybody has seen that
        done = await waiting
        assert done is not None
        assert (done.recovered, done.strategy, done.reason) == (True, "", "success was reported")
        await recovery.wait_for("api", "healthy")
        assert [past.strategy for past in recovery.history()] == ["", "restart"]
        assert [event.recovered for event in told(registry, RecoveryFinished)] == [True, True]
        assert recovery.statistics().under_way == 0


@virtual
async def test_its_status_tells_where_it_stands():
    target = Target(Broken("no"), takes=1)
    async with RecoveryManager(config(breaker=BreakerConfig())) as recovery:
        recovery.register("api", target=target, strategy=Chain(Restart(), Replace()))
        assert recovery.status("api").kind is None
        recovery.report_failure_nowait("api", TIMEOUT, "slow")
        seen = {}
        for state in ("recovering", "backoff", "recovering", "proving", "healthy"):
            await recovery.wait_for("api", state)
            seen[state] = recovery.status("api")
        assert (seen["backoff"].strategy, seen["backoff"].next_at, seen["backoff"].error) == (
            "replace",
            2,
            "Broken: no",
        )
        assert (seen["backoff"].attempts_left, seen["backoff"].breaker) == (4, "closed")
        assert (seen["recovering"].strategy, seen["recovering"].attempt) == ("replace", 2)
        assert (seen["proving"].next_at, seen["proving"].kind) == (8, TIMEOUT)
        assert seen["healthy"].attempts_left == 5
        assert "api" in recovery
        assert (len(recovery), bool(recovery)) == (1, True)
        assert repr(recovery) == "<RecoveryManager open: 1 registered>"
    assert repr(recovery) == "<RecoveryManager closed: 1 registered>"


@pytest.mark.row("RE4")
@virtual
async def test_a_breaker_holds_attempts_back():
    breaker = BreakerConfig(window=10, minimum_calls=3, failure_rate=1, open_for=20, half_open_permits=1)
    target = Target(*[Broken()] * 3)
    async with (
        ProcessRegistry() as registry,
        RecoveryManager(config(breaker=breaker, max_attempts=9), registry=registry) as recovery,
    ):
        recovery.register("api", target=target)
        done = await recovery.report_failure("api", CRASH)
        assert done is not None
        # The failure and two attempts open it at 1 s; it lets one through at 21 s, which fails, and at 41 s.
        assert [at for *_, at in target.calls] == [0, 1, 21, 41]
        assert recovery.breaker("api").state == "closed"
        assert [(event.id, event.owner, event.new) for event in told(registry, CircuitChanged)] == [
            ("api", "recovery", new) for new in ("open", "half_open", "open", "half_open", "closed")
        ]
        await recovery.report_success("api")
        assert recovery.breaker("api").statistics().succeeded == 2
        recovery.breaker("api").force_open()
        await recovery.report_success("api")
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("api", CRASH)
        assert caught.value.reason == "breaker"
        recovery.reset("api")
        assert (recovery.state("api"), recovery.breaker("api").state) == ("healthy", "closed")
        recovery.register("none", target=target, config=config())
        with pytest.raises(NotFound):
            recovery.breaker("none")


@pytest.mark.row("RE4")
@virtual
async def test_an_attempt_waits_no_longer_than_its_breaker_wants():
    breaker = BreakerConfig(window=1, minimum_calls=1, open_for=50, half_open_permits=1)
    target = Target()
    async with RecoveryManager(config(breaker=breaker)) as recovery:
        recovery.register("api", target=target)
        recovery.report_failure_nowait("api", CRASH)
        await recovery.wait_for("api", "backoff")
        await asyncio.sleep(5)
        recovery.breaker("api").close("mended")
        await recovery.wait_for("api", "recovering")
        assert now() == 5


@pytest.mark.row("RE3")
@virtual
async def test_delays_are_the_same_under_the_same_seed_whoever_else_fails():
    async def times(seed: int | None, *others: str) -> list[float]:
        target = Target(*[Broken()] * 4)
        began = now()
        async with RecoveryManager(RecoveryConfig(), seed=seed) as recovery:
            for other in others:
                recovery.register(other, target=Target(*[Broken()] * 4))
                recovery.report_failure_nowait(other, CRASH)
            recovery.register("api", target=target)
            await recovery.report_failure("api", CRASH)
        return [round(at - began, 9) for *_, at in target.calls]

    assert await times(1) == await times(1, "b", "c") != await times(2)


@virtual
async def test_leaving_the_block_calls_off_what_is_under_way():
    target = Target(takes=1000)
    recovery = RecoveryManager(config(recovery_timeout=5000))
    ends: list[Any] = []

    async def report(kind: FailureKind) -> None:
        try:
            ends.append(await recovery.report_failure("api", kind))
        except Closed as error:
            ends.append(error)

    async def watch() -> None:
        with pytest.raises(Closed):
            await recovery.wait_for("api", "failed")

    async with asyncio.TaskGroup() as group:
        async with recovery:
            recovery.register("api", target=target, by_kind={TIMEOUT: Notify(Flaky(takes=1000))})
            group.create_task(report(CRASH))
            group.create_task(report(TIMEOUT))
            group.create_task(watch())
            await asyncio.sleep(10)
        assert now() == 10
    assert [type(end) for end in ends] == [Closed, Closed]
    await recovery.aclose()
    for call in (
        lambda: recovery.register("x", target=target),
        lambda: recovery.report_failure_nowait("api", CRASH),
    ):
        with pytest.raises(Closed):
            call()
    with pytest.raises(Closed):
        await recovery.report_failure("api", CRASH)
    with pytest.raises(StateError):
        async with recovery:
            pass


@virtual
async def test_it_may_be_closed_from_within():
    for kind in (CRASH, TIMEOUT):
        closed: list[str] = []
        recovery = RecoveryManager(config())

        async def close() -> None:
            try:
                await recovery.aclose()  # noqa: B023 - called before the next one is made
            finally:
                closed.append("closed")  # noqa: B023

        async with recovery:
            recovery.register("api", strategy=close, by_kind={TIMEOUT: Notify(close)})
            with pytest.raises(Closed):
                await recovery.report_failure("api", kind)
        assert closed == ["closed"]


@virtual
async def test_a_strategy_that_ignores_its_cancellation_is_left_behind(caplog: pytest.LogCaptureFixture):
    free = asyncio.Event()

    async def stubborn() -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                pass

    async with RecoveryManager(config(close_timeout=3)) as recovery:
        recovery.register("api", strategy=stubborn)
        recovery.report_failure_nowait("api", CRASH)
        await asyncio.sleep(1)
    assert now() == 4.0
    assert "ignores that it was cancelled" in caplog.text
    free.set()
    await asyncio.sleep(0.1)


@virtual
async def test_every_state_can_be_waited_for_however_short_it_is():
    async with RecoveryManager(config(stable_after=0, backoff=Backoff.fixed(0), max_attempts=2)) as recovery:
        recovery.register("api", target=Target(Broken()))
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(recovery.wait_for("api", state)) for state in ("backoff", "recovering", "proving")]
        await asyncio.sleep(0)
        await recovery.report_failure("api", CRASH)
        assert [await wait for wait in waits] == ["backoff", "recovering", "proving"]


@virtual
async def test_unregistering_calls_off_its_recovery_alone():
    slow, other = Target(takes=1000), Target(takes=1)
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=slow)
        recovery.register("other", target=other)
        waiting = asyncio.get_running_loop().create_task(recovery.report_failure("api", CRASH))
        recovery.report_failure_nowait("other", CRASH)
        await asyncio.sleep(0.5)
        await recovery.unregister("api")
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), NotFound)
        assert "api" not in recovery
        await recovery.wait_for("other", "healthy")
        recovery.register("api", target=other)

        async def leave(failure: Failure) -> None:
            await recovery.unregister(failure.id)

        recovery.register("suicidal", strategy=leave)
        with pytest.raises(NotFound):
            await recovery.report_failure("suicidal", CRASH)


@virtual
async def test_a_cancelled_reporter_only_stops_waiting():
    target = Target(takes=5)
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=target)
        waiting = asyncio.get_running_loop().create_task(recovery.report_failure("api", CRASH))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        await recovery.wait_for("api", "healthy")
        assert recovery.history()[0].recovered


@virtual
async def test_a_strategy_whose_own_work_is_cancelled_did_not_help():
    calls = 0

    async def odd() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            inner = asyncio.get_running_loop().create_task(asyncio.sleep(10))
            inner.cancel()
            await inner
        if calls == 2:
            raise TimeoutError("its own")

    async with RecoveryManager(config()) as recovery:
        recovery.register("api", strategy=odd)
        done = await recovery.report_failure("api", CRASH)
        assert done is not None
        assert done.attempts == 3


@pytest.mark.row("RE6")
@virtual
async def test_figures_of_failures_and_recoveries():
    async with RecoveryManager(config(max_attempts=1, stable_after=0)) as recovery:
        recovery.register("a", target=Target(takes=2))
        recovery.register("b", target=Target(Broken(), takes=4))
        assert recovery.statistics().recovery_rate == 1.0
        await asyncio.sleep(10)
        await recovery.report_failure("a", CRASH)
        await recovery.report_failure("a", TIMEOUT)
        with pytest.raises(RecoveryExhausted):
            await recovery.report_failure("b", CRASH)
        await asyncio.sleep(2)
        assert now() == 20
        one, other, both = recovery.statistics("a"), recovery.statistics("b"), recovery.statistics()
        assert (one.recovered, one.exhausted, one.recovery_rate, one.mean_time_to_recovery) == (2, 0, 1.0, 2.0)
        assert (other.recovered, other.exhausted, other.recovery_rate) == (0, 1, 0.0)
        assert (both.failures, both.by_kind, both.attempts) == (3, {CRASH: 2, TIMEOUT: 1}, 3)
        assert (both.recovery_rate, both.mean_time_to_recovery) == (2 / 3, 2.0)
        assert (one.time_to_recovery.count, both.time_to_recovery.max) == (2, 2.0)
        assert (one.availability, other.availability, both.availability) == (0.8, 0.7, 0.75)
        assert recovery.statistics("a", window=8).availability == 0.75
        assert recovery.availability("b", window=5) == 0.0
        assert [past.kind for past in recovery.history(kind="crash")] == [CRASH, CRASH]
        assert [past.id for past in recovery.history(limit=1)] == ["b"]
        assert recovery.history(limit=0) == []


@pytest.mark.row("RE6")
@virtual
async def test_availability_is_what_the_journal_says():
    target = Target(Broken(), None, Broken(), Broken(), takes=0.75)
    async with ProcessRegistry() as registry, RecoveryManager(config(), registry=registry, seed=3) as recovery:
        recovery.register("api", target=target)
        for pause in (3.0, 11.0, 0.5):
            await asyncio.sleep(pause)
            await recovery.report_failure("api", CRASH)
        await asyncio.sleep(7)
        steps = 0.25
        down = [False] * int(now() / steps)
        for event in registry.history(RecoveryFinished):
            assert isinstance(event, RecoveryFinished)
            (start,) = [
                begun.at for begun in registry.history(RecoveryStarted, until=event.at) if begun.cause <= event.seq
            ][-1:]
            for step in range(int(start / steps), int((start + event.duration) / steps)):
                down[step] = True
        for window in (2.0, 10.0, now()):
            looked_at = down[-int(window / steps) :]
            assert recovery.availability("api", window=window) == pytest.approx(1 - sum(looked_at) / len(looked_at))
        assert sum(down) > 10


@virtual
async def test_events_tell_of_failures_and_of_those_who_work_again():
    target = Target(Broken())
    alerts = {"process_hung": TIMEOUT}
    async with (
        ProcessRegistry() as registry,
        RecoveryManager(config(alerts=alerts, max_attempts=1), registry=registry) as recovery,
    ):
        recovery.register("api", target=target)
        registry.publish(FailureReported(id="api", owner="lifecycle", kind="startup_failure", error="it did not start"))
        registry.publish(FailureReported(id="other", owner="lifecycle", kind="crash"))
        assert len(told(registry, FailureReported)) == 2  # not said again
        await recovery.wait_for("api", "failed")
        assert recovery.history()[0].kind == FailureKind.STARTUP_FAILURE
        registry.publish(StateChanged(id="api", owner="recovery", old="x", new="running"))
        assert recovery.state("api") == "failed"
        registry.publish(StateChanged(id="api", owner="lifecycle", old="starting", new="running"))
        assert recovery.state("api") == "healthy"
        registry.publish(AlertRaised(id="api", owner="monitor", alert="process_hung", severity="critical"))
        registry.publish(AlertRaised(id="api", owner="monitor", alert="cpu_high", severity="critical"))
        await recovery.wait_for("api", "proving")
        registry.publish(FailureReported(id="api", owner="lifecycle", kind="nobody knows"))
        await recovery.wait_for("api", "failed")
        assert recovery.statistics().by_kind == {TIMEOUT: 1, FailureKind.STARTUP_FAILURE: 1, CRASH: 1}


@pytest.mark.row("RE2")
@virtual
async def test_a_fallback_stands_in_until_something_else_works():
    launcher = SimulatedLauncher({"safe": Script(hangs=True, stdout=b"safe mode\n"), "fix": [Script(exit=3), Script()]})
    target = Flaky(Broken(), Broken(), takes=1)
    async with (
        ProcessRegistry() as registry,
        RecoveryManager(config(), registry=registry, launcher=launcher) as recovery,
    ):
        recovery.register("api", target=target, strategy=Chain(Restart(), Fallback(Command("safe"))))
        done = await recovery.report_failure("api", CRASH)
        assert done is not None
        assert (done.strategy, done.recovered) == ("fallback", True)
        (safe,) = registry.find(name="api")
        assert (safe.owner, safe.state) == ("recovery", "running")
        done = await recovery.report_failure("api", CRASH)  # restart fails again; a new one takes the place of the old
        assert done is not None
        assert done.strategy == "fallback"
        assert not safe.is_live
        done = await recovery.report_failure("api", TIMEOUT)
        assert done is not None
        assert done.strategy == "restart"
        assert registry.find(name="api") == []
        recovery.register("fixed", strategy=Fallback(Command("fix"), wait=True))
        done = await recovery.report_failure("fixed", CRASH)
        assert done is not None
        assert done.attempts == 2


@pytest.mark.row("RE2")
@virtual
async def test_a_fallback_that_cannot_start_or_ends_does_not_help():
    launcher = SimulatedLauncher({"safe": [Script(exit=1, duration=2)] * 2})
    for registry in (None, ProcessRegistry()):
        async with RecoveryManager(config(max_attempts=2), registry=registry, launcher=launcher) as recovery:
            recovery.register("api", strategy=Fallback(Command("safe", stdout="null", stderr="null")))
            with pytest.raises(RecoveryExhausted) as caught:
                await recovery.report_failure("api", CRASH)
            assert caught.value.attempts == 2
            assert str(caught.value.error).endswith("exit 1")


@pytest.mark.row("RE2")
@virtual
async def test_a_fallback_asks_the_target_to_replace_or_else_to_stop():
    launcher = SimulatedLauncher({"safe": Script(hangs=True)})
    target = Target()

    class Stoppable:
        def __init__(self) -> None:
            self.stopped: list[str] = []

        async def stop(self, id: str) -> None:
            self.stopped.append(id)

    stoppable = Stoppable()
    async with RecoveryManager(config(), launcher=launcher) as recovery:
        recovery.register("a", target=target, strategy=Fallback(Command("safe")))
        recovery.register("b", target=stoppable, strategy=Fallback(Command("safe")))
        recovery.register("c", target=stoppable, strategy=Chain(Flaky(Broken()), Stop(), Notify()))
        await recovery.report_failure("a", CRASH)
        await recovery.report_failure("b", CRASH)
        with pytest.raises(RecoveryExhausted):
            await recovery.report_failure("c", CRASH)
        assert target.calls == [("replace", "a", Command("safe"), 0)]
        assert stoppable.stopped == ["b", "c"]


@virtual
async def test_a_thousand_at_once():
    target = Target(takes=1)
    async with ProcessRegistry(journal_size=0) as registry, RecoveryManager(config(), registry=registry) as recovery:
        for number in range(1000):
            recovery.register(f"unit-{number}", target=target)
        for number in range(1000):
            registry.publish(FailureReported(id=f"unit-{number}", owner="lifecycle", kind="crash"))
        for number in range(1000):
            await recovery.wait_for(f"unit-{number}", "healthy")
        figures = recovery.statistics()
        assert (figures.recovered, figures.mean_time_to_recovery, now()) == (1000, 1.0, 6.0)
        assert figures.time_to_recovery.count == 1000


@virtual
async def test_an_on_going_listener_is_not_harmed_by_a_strategy_that_raises(caplog: pytest.LogCaptureFixture):
    async with ProcessRegistry() as registry, RecoveryManager(config(max_attempts=1), registry=registry) as recovery:
        recovery.register("api", target=Target(Broken("x\ny" * 400)))
        registry.publish(FailureReported(id="api", owner="lifecycle", kind="crash"))
        await recovery.wait_for("api", "failed")
        assert registry.statistics().failures == 0
        (attempted,) = told(registry, RecoveryAttempted)
        assert len(attempted.detail) == 300
        assert "\n" not in attempted.detail
    assert "was given up after 1 attempts" in caplog.text


@virtual
async def test_nonsense_is_refused_before_anything_happens():
    target = Target()
    with pytest.raises(StateError):
        RecoveryManager().register("api", target=target)
    for field, make in {
        "config": lambda: RecoveryManager(3),  # type: ignore[arg-type]
        "name": lambda: RecoveryManager(name="a b"),
        "seed": lambda: RecoveryManager(seed=True),
        "function": lambda: Custom(3),  # type: ignore[arg-type]
    }.items():
        with pytest.raises(ConfigError) as caught:
            make()
        assert caught.value.field == field
    async with RecoveryManager(config()) as recovery:
        recovery.register("api", target=target)

        async def nothing() -> None: ...

        for field, options in (
            ("id", {"id": "api", "target": target}),
            ("id", {"id": "a/b", "target": target}),
            ("id", {"id": 3, "target": target}),
            ("target", {"id": "x"}),
            ("target", {"id": "x", "target": 3}),
            ("target", {"id": "x", "target": dict}),
            ("target", {"id": "x", "target": nothing, "strategy": ScaleUp()}),
            ("target", {"id": "x", "target": nothing, "strategy": Chain(Restart(), Stop())}),
            ("target", {"id": "x", "target": object(), "strategy": Replace()}),
            ("target", {"id": "x", "target": target, "by_kind": {CRASH: Restart(target=object())}}),
            ("strategy", {"id": "x", "target": target, "strategy": "restart"}),
            ("strategy", {"id": "x", "target": target, "by_kind": {CRASH: 3}}),
            ("by_kind", {"id": "x", "target": target, "by_kind": {"sleepy": Restart()}}),
            ("by_kind", {"id": "x", "target": target, "by_kind": [Restart()]}),
            ("check", {"id": "x", "target": target, "check": 3}),
            ("config", {"id": "x", "target": target, "config": 3}),
            ("strategy", {"id": "x", "strategy": Custom}),
        ):
            with pytest.raises(ConfigError) as caught:
                recovery.register(**options)
            assert caught.value.field == field, options
        assert list(recovery._items) == ["api"]
        for call in (
            recovery.report_failure("x", CRASH),
            recovery.report_success("x"),
            recovery.unregister("x"),
            recovery.wait_for("x", "healthy"),
        ):
            with pytest.raises(NotFound):
                await call
        for ask in (recovery.state, recovery.status, recovery.breaker, recovery.reset, recovery.availability):
            with pytest.raises(NotFound):
                ask("x")
        for field, wrong in {
            "kind": recovery.report_failure("api", "sleepy"),
            "error": recovery.report_failure("api", CRASH, 3),  # type: ignore[arg-type]
            "states": recovery.wait_for("api"),
            "state": recovery.wait_for("api", "sleepy"),
        }.items():
            with pytest.raises(ConfigError) as caught:
                await wrong
            assert caught.value.field.startswith(field)
        with pytest.raises(ConfigError):
            recovery.history(limit=-1)
        with pytest.raises(ConfigError):
            recovery.history(kind="sleepy")
        for window in (0, -1, True, float("nan")):
            with pytest.raises(ConfigError):
                recovery.statistics(window=window)
        assert recovery.statistics().failures == 0


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "procession.recovery")
