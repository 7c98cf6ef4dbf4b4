"""Recovery cancelled at every suspension point: no process, task, permit or file is left behind."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from procession import Backoff, Command, FailureKind, ProcessRegistry, spawn
from procession.errors import RecoveryExhausted
from procession.recovery import (
    BreakerConfig,
    Chain,
    CheckpointStore,
    CircuitBreaker,
    Fallback,
    RecoveryConfig,
    RecoveryManager,
    Restart,
    RetryPolicy,
    retry,
)
from procession.testing import cancel_everywhere

pytestmark = pytest.mark.timeout(180)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
Scenario = Callable[[], Coroutine[Any, Any, Any]]
SCENARIOS: dict[str, tuple[Scenario, int]] = {}
FAST = RecoveryConfig(backoff=Backoff.fixed(0.001), stable_after=0.002, max_attempts=2)
SLEEP = Command("sleep", "100", grace=0.2)


def scenario(least: int) -> Callable[[Scenario], Scenario]:
    def keep(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (function, least)
        return function

    return keep


@scenario(1)
async def a_breaker_gives_every_permit_back() -> None:
    breaker = CircuitBreaker(BreakerConfig(window=1, minimum_calls=1, half_open_permits=1))
    breaker.half_open()
    try:
        async with breaker:
            await asyncio.sleep(0.001)
        breaker.half_open()
        await breaker.call(asyncio.sleep, 0.001)
        breaker.half_open()
        await breaker(lambda_sleep)()
    finally:
        assert not breaker._core._probes
        assert breaker.state in ("closed", "half_open")
        if breaker.state == "half_open":
            breaker.acquire().release()  # there is one to be had


async def lambda_sleep() -> None:
    await asyncio.sleep(0.001)


@scenario(2)
async def retrying_ends_at_once() -> None:
    calls = 0

    async def twice() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls < 3:
            raise OSError

    try:
        await retry(twice, RetryPolicy(3, 0.001))
    except asyncio.CancelledError:
        seen = calls
        await asyncio.sleep(0.003)
        assert calls == seen
        raise


@scenario(3)
async def a_recovery_is_called_off() -> None:
    async def restart() -> None:
        async with spawn(SLEEP):
            pass
        if len(tries) < 2:
            tries.append(1)
            raise OSError

    tries: list[int] = []
    async with RecoveryManager(FAST) as recovery:
        recovery.register("api", target=restart)
        with pytest.raises(RecoveryExhausted):
            await recovery.report_failure("api", FailureKind.CRASH)
        await recovery.report_success("api")
        await recovery.report_failure("api", FailureKind.CRASH)
        await recovery.unregister("api")


@scenario(3)
async def a_command_stands_in() -> None:
    async def broken() -> None:
        raise OSError

    async with ProcessRegistry() as registry, RecoveryManager(FAST, registry=registry) as recovery:
        recovery.register("api", target=broken, strategy=Chain(Restart(), Fallback(SLEEP)))
        recovery.register("tool", strategy=Fallback(Command("true"), wait=True))
        await recovery.report_failure("api", FailureKind.CRASH)
        recovery.report_failure_nowait("tool", FailureKind.CRASH)
        await recovery.wait_for("tool", "proving")
        await recovery.wait_for("tool", "healthy")


@scenario(2)
async def a_state_is_saved_and_restored() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(Path(folder, "store"), keep=1)
        done = 0
        try:
            for number in range(2):
                await store.save("job", {"number": number})
                done = number + 1
            assert await store.restore("job") == {"number": 1}
        finally:
            left = sorted(path.name for path in Path(folder).rglob("*") if path.is_file())
            assert left in ([], ["000000000001.ckpt"], ["000000000002.ckpt"]), left
            assert len(left) >= min(1, done)
            assert store._line == {}


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_everywhere(name: str, loop: str) -> None:
    function, least = SCENARIOS[name]
    report = cancel_everywhere(function, loop_factory=LOOPS[loop], limit=20.0)
    print(report)
    assert report.points >= least
