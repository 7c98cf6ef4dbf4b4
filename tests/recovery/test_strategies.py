"""Strategies over real processes: what crashes, hangs or does not come up is running again afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from procession import Backoff, Command, CommandPool, FailureKind, ProcessRegistry, run, spawn
from procession.errors import RecoveryExhausted
from procession.events import (
    FailureReported,
    ProcessExited,
    ProcessSpawned,
    RecoveryFinished,
    RecoveryStarted,
    StateChanged,
)
from procession.pool import FunctionPool, PoolConfig, ProcessPool
from procession.recovery import (
    BreakerConfig,
    Chain,
    CircuitBreaker,
    CircuitOpen,
    Failure,
    Fallback,
    Notify,
    RecoveryConfig,
    RecoveryManager,
    Replace,
    Restart,
    RetryPolicy,
    ScaleDown,
    ScaleUp,
    retry,
)
from procession.scheduler import Scheduler
from tests.programs import alive, eventually, state
from tests.recovery.support import Service, Stoppable, now, over, service

pytestmark = pytest.mark.row("RE2")
CRASH, TIMEOUT = FailureKind.CRASH, FailureKind.TIMEOUT
FAST = RecoveryConfig(
    backoff=Backoff.exponential(0.01, cap=0.05), stable_after=0.1, recovery_timeout=20, max_attempts=5
)


@pytest.mark.row("RE1")
async def test_a_crash_is_noticed_and_the_process_runs_again():
    async with ProcessRegistry() as registry, Service(registry, "api", service("ok")) as units:
        async with RecoveryManager(FAST, registry=registry) as recovery:
            recovery.register("api", target=units)
            first = await units.start()
            first.kill()
            await over(recovery, "api")
            assert units.actions == ["restart"]
            assert [process.pid for process in units.alive] == [units.process.pid] != [first.pid]
            assert alive(units.process.pid)
            (past,) = recovery.history()
            assert (past.kind, past.error, past.attempts, past.recovered) == (CRASH, "SIGKILL", 1, True)
            figures = recovery.statistics("api")
            assert 0 < figures.mean_time_to_recovery < 10
            assert 0 < figures.availability < 1
        exited, reported = registry.history(ProcessExited, FailureReported)
        assert reported.cause == exited.seq
        started = registry.history(RecoveryStarted)[0]
        assert started.cause == exited.seq
        assert [event.owner for event in registry.story("api")] == ["", "recovery", "recovery", "recovery", "recovery"]


@pytest.mark.row("RE1")
async def test_what_is_stopped_or_ends_well_is_no_failure():
    async with ProcessRegistry() as registry, RecoveryManager(FAST, registry=registry) as recovery:
        recovery.register("tool", strategy=Notify())
        await run(Command("true"), registry=registry, name="tool")
        async with spawn(Command("sleep", "100"), registry=registry, name="tool"):
            pass
        async with spawn(Command("sleep", "100"), registry=registry, name="tool") as process:
            await process.stop()
        assert recovery.statistics().failures == 0
        async with spawn(Command("sleep", "100"), registry=registry, name="tool") as process:
            os.kill(process.pid, signal.SIGTERM)  # by somebody else
            await process.wait()
        assert recovery.statistics().by_kind == {CRASH: 1}


@pytest.mark.row("RE1")
async def test_a_process_is_known_by_its_id_its_name_or_its_unit():
    async with ProcessRegistry() as registry, RecoveryManager(FAST, registry=registry) as recovery:
        for id in ("by-id", "by-name", "by-unit"):
            recovery.register(id, strategy=Notify())
        await run(Command("false"), registry=registry, name="by-name")
        await run(Command("false", labels={"unit": "by-unit"}), registry=registry)
        async with spawn(Command("false"), registry=registry, id="by-id") as process:
            await process.wait()
        await run(Command("false"), registry=registry, name="other")
        figures = {id: recovery.statistics(id).failures for id in ("by-id", "by-name", "by-unit")}
        assert figures == dict.fromkeys(figures, 1)
        with pytest.raises(OSError, match="no-such-program"):
            await run(Command("/no-such-program"), registry=registry, name="by-name")
        assert recovery.statistics("by-name").by_kind == {CRASH: 1, FailureKind.STARTUP_FAILURE: 1}
        limit = Command("python3", "-c", "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)")
        await run(limit, registry=registry, name="by-name")
        assert recovery.statistics("by-name").by_kind[FailureKind.RESOURCE_EXHAUSTION] == 1


@pytest.mark.row("RE1")
async def test_an_exit_that_belongs_to_a_supervisor_is_left_to_it():
    seen: list[str] = []

    async def restart(failure: Failure) -> None:
        seen.append(failure.id)

    async with ProcessRegistry() as registry, RecoveryManager(FAST, registry=registry) as recovery:
        for id in ("worker", "task", "unit", "mine"):
            recovery.register(id, target=restart)
        await run(Command("false"), registry=registry, name="unit", owner="lifecycle")
        async with Scheduler(registry=registry, name="batch") as scheduler:
            await scheduler.submit(Command("false"), id="task")
        async with ProcessPool(
            Command("cat"), PoolConfig(min_size=1, max_size=1), registry=registry, name="desk"
        ) as pool:
            recovery.register("cat", target=restart)
            async with pool.acquire() as worker:
                pid = worker.pid
                os.kill(pid, signal.SIGKILL)
                await eventually(lambda: registry.by_pid(pid) is None)
            await eventually(lambda: registry.find(owner="desk"))
        await run(Command("false"), registry=registry, name="mine", owner="frontend")
        await over(recovery, "mine")
        assert seen == ["mine"]
        registry.publish(FailureReported(id="unit", owner="lifecycle", kind="crash", error="given up"))
        await over(recovery, "unit")
        assert seen == ["mine", "unit"]


@pytest.mark.row("RE5")
async def test_a_crash_loop_goes_on_until_it_holds_or_is_given_up(tmp_path: Path):
    left = tmp_path / "left"
    async with ProcessRegistry() as registry, Service(registry, "api", service("countdown", left)) as units:
        async with RecoveryManager(FAST, registry=registry, seed=1) as recovery:
            recovery.register("api", target=units)
            left.write_text("3")
            await units.start()
            await over(recovery, "api")
            (past,) = recovery.history()
            assert (past.recovered, past.attempts, past.failures) == (True, 3, 3)
            assert len(units.alive) == 1
            left.write_text("100")
            units.process.kill()
            await over(recovery, "api", 2)
            assert recovery.history()[-1].reason == "attempts"
            assert len(units.processes) == 1 + 3 + 5  # no restart storm
            assert units.alive == []
            with pytest.raises(RecoveryExhausted):
                await recovery.report_failure("api", CRASH)
            finished = registry.history(RecoveryFinished)
            assert [(event.recovered, event.attempt) for event in finished] == [(True, 3), (False, 5)]  # type: ignore[attr-defined]
            assert [event.new for event in registry.history(StateChanged, id="api")] == ["failed"]  # type: ignore[attr-defined]


async def test_a_hung_process_is_replaced_and_the_new_one_is_ready_before_the_old_one_goes():
    async with ProcessRegistry() as registry, Service(registry, "api", service("ok")) as units:
        async with RecoveryManager(FAST, registry=registry) as recovery:
            recovery.register("api", target=units, strategy=Restart(), by_kind={TIMEOUT: Replace()})
            old = await units.start()
            old.suspend()
            await eventually(lambda: state(old.pid) == "T")
            done = await recovery.report_failure("api", TIMEOUT, TimeoutError("no answer"))
            assert done is not None
            assert (done.strategy, units.actions) == ("replace", ["replace"])
        spawned = {event.id: event.seq for event in registry.history(ProcessSpawned)}
        exited = {event.id: event.seq for event in registry.history(ProcessExited)}
        assert spawned[units.process.id] < exited[old.id]
        assert [process.pid for process in units.alive] == [units.process.pid]


async def test_a_chain_ends_in_safe_mode_and_says_so(tmp_path: Path):
    told: list[Failure] = []
    async with ProcessRegistry() as registry, Service(registry, "api", service("ok")) as units:
        async with RecoveryManager(FAST, registry=registry) as recovery:
            chain = Chain(
                Restart(), Replace(service("deaf"), timeout=0.2), Fallback(service("ok")), Notify(told.append)
            )
            recovery.register("api", target=units, strategy=chain)
            await units.start()
            units.command = service("crash")
            units.process.kill()
            await over(recovery, "api")
            assert units.actions == ["restart", "replace", "replace"]
            assert recovery.history()[-1].strategy == "fallback"
            assert units.process.command == service("ok")
            assert told == []


async def test_a_fallback_of_the_manager_itself_runs_until_something_else_works():
    async with ProcessRegistry() as registry, Stoppable(registry, "api", service("ok")) as units:
        async with RecoveryManager(FAST, registry=registry) as recovery:
            recovery.register("api", target=units, strategy=Chain(Restart(), Fallback(service("ok"))))
            await units.start()
            units.command = service("crash")
            units.process.kill()
            await over(recovery, "api")
            (stand_in,) = registry.find(owner="recovery")
            assert (stand_in.name, units.actions) == ("api", ["restart", "stop"])
            units.command = service("ok")
            os.kill(stand_in.pid or 0, signal.SIGKILL)  # noticed like any other
            await over(recovery, "api", 2)
            assert units.actions == ["restart", "stop", "restart"]
            assert registry.find(owner="recovery") == []
            units.command = service("crash")
            units.process.kill()
            await over(recovery, "api", 3)
            assert len(registry.find(owner="recovery")) == 1
        assert registry.find(owner="recovery") == []


async def test_a_fallback_without_anybody_to_tell_is_noticed_when_it_ends():
    async with RecoveryManager(FAST) as recovery:
        recovery.register("api", strategy=Fallback(service("late"), attempts=3))
        await recovery.report_failure("api", CRASH)
        recovery.register("once", strategy=Fallback(Command("sh", "-c", "exit 3"), attempts=2))
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("once", CRASH)
        assert caught.value.error == "what stood in for it ended: exit 3"
        recovery.register("gone", strategy=Fallback(Command("/no-such-program")), config=FAST.replace(max_attempts=2))
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("gone", CRASH)
        assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_a_fallback_that_ends_well_is_gone_all_the_same():
    async with ProcessRegistry() as registry, RecoveryManager(FAST, registry=registry) as recovery:
        recovery.register("api", strategy=Fallback(Command("true"), attempts=2))
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("api", CRASH)
        assert (caught.value.attempts, caught.value.error) == (2, "what stood in for it ended: exit 0")


async def test_pools_are_scaled_within_their_bounds():
    config = FAST.replace(stable_after=0.0)
    async with (
        FunctionPool(PoolConfig(min_size=1, max_size=2, autoscale=False)) as functions,
        ProcessPool(Command("cat"), PoolConfig(min_size=1, initial_size=2, max_size=2, autoscale=False)) as processes,
        CommandPool(2) as commands,
        RecoveryManager(config) as recovery,
    ):
        for id, pool in {"functions": functions, "processes": processes, "commands": commands}.items():
            recovery.register(
                id,
                target=pool,
                strategy=ScaleUp(),
                by_kind={FailureKind.RESOURCE_EXHAUSTION: Chain(ScaleDown(), ScaleUp())},
            )
        done = await recovery.report_failure("functions", TIMEOUT)
        assert done is not None
        assert (done.strategy, functions.statistics().target) == ("scale_up", 2)
        for size, strategy in ((1, "scale_down"), (2, "scale_up")):
            done = await recovery.report_failure("processes", FailureKind.RESOURCE_EXHAUSTION)
            assert done is not None
            assert (done.strategy, processes.statistics().target) == (strategy, size)
        done = await recovery.report_failure("commands", FailureKind.RESOURCE_EXHAUSTION)
        assert done is not None
        assert (done.strategy, commands.statistics().size) == ("scale_down", 1)


@pytest.mark.row("RE4")
async def test_a_breaker_protects_a_real_service_and_closes_when_it_is_back():
    config = BreakerConfig(window=4, minimum_calls=2, failure_rate=0.5, open_for=0.2, half_open_permits=1)
    breaker = CircuitBreaker(config, name="api")
    async with ProcessRegistry() as registry, Service(registry, "api", service("ok")) as units:

        async def ask() -> str:
            completed = await run(Command("sh", "-c", f"kill -0 {units.process.pid} && echo yes"), check=True)
            return completed.text.strip()

        first = await units.start()
        assert await breaker.call(ask) == "yes"
        first.kill()
        await first.wait()
        await eventually(lambda: not alive(first.pid))
        failures = 0
        while breaker.state == "closed":
            with pytest.raises(Exception):  # noqa: B017,PT011 - whatever the shell makes of it
                await breaker.call(ask)
            failures += 1
        assert failures <= 2
        with pytest.raises(CircuitOpen):
            await breaker.call(ask)
        await units.restart("api")
        assert await retry(breaker(ask), RetryPolicy(20, 0.05, jitter=False), on=CircuitOpen) == "yes"
        assert breaker.state == "closed"


@pytest.mark.row("RE8")
async def test_a_command_is_tried_until_it_works(tmp_path: Path):
    mark = tmp_path / "tries"
    script = f'echo x >> "{mark}"; test $(wc -l < "{mark}") -ge 3'
    completed = await retry(lambda: run(Command("sh", "-c", script), check=True), RetryPolicy(5, 0.01))
    assert completed.ok
    assert mark.read_text() == "x\n" * 3


@pytest.mark.row("RE5")
async def test_what_a_strategy_has_begun_is_gone_when_it_is_cut_off():
    pids: list[int] = []

    async def slow() -> None:
        async with spawn(Command("sleep", "100")) as process:
            pids.append(process.pid)
            await process.wait()

    async with RecoveryManager(FAST.replace(recovery_timeout=0.3)) as recovery:
        recovery.register("api", strategy=slow)
        with pytest.raises(RecoveryExhausted) as caught:
            await recovery.report_failure("api", CRASH)
        assert caught.value.reason == "time"
        assert not alive(pids[0])
        recovery.register("other", strategy=slow, config=FAST)
        recovery.report_failure_nowait("other", CRASH)
        await eventually(lambda: len(pids) == 2)
    assert not alive(pids[1])


async def test_two_hundred_crash_at_once_and_all_are_back():
    lives: dict[str, list[int]] = {f"unit-{number}": [] for number in range(200)}
    async with ProcessRegistry() as registry, asyncio.TaskGroup() as group:

        async def live(name: str, ready: asyncio.Future[None]) -> None:
            async with spawn(Command("sleep", "1000"), registry=registry, name=name) as process:
                lives[name].append(process.pid)
                ready.set_result(None)
                await process.wait()

        async def start(failure: Failure | str) -> None:
            ready = asyncio.get_running_loop().create_future()
            tasks.append(group.create_task(live(failure if isinstance(failure, str) else failure.id, ready)))
            await ready

        tasks: list[asyncio.Task[Any]] = []
        async with RecoveryManager(FAST, registry=registry) as recovery:
            for name in lives:
                recovery.register(name, target=start)
                await start(name)
            for pids in lives.values():
                os.kill(pids[0], signal.SIGKILL)
            began = now()
            for name in lives:
                await over(recovery, name)
            assert now() - began < 30
            assert {len(pids) for pids in lives.values()} == {2}  # each exactly once
            assert all(alive(pids[1]) for pids in lives.values())
            assert recovery.statistics().recovered == 200
        for task in tasks:
            task.cancel()
