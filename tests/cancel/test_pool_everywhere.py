"""Pools cancelled at every suspension point: no worker, descriptor, task or place is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from procession import Command
from procession.pool import CommandPool, FunctionPool, PoolConfig, ProcessPool, WorkerStartError
from procession.testing import cancel_everywhere
from tests.programs import pool_functions as work

pytestmark = [pytest.mark.row("PO7"), pytest.mark.row("PO11"), pytest.mark.timeout(180)]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
Scenario = Callable[[], Coroutine[Any, Any, Any]]
SCENARIOS: dict[str, Scenario] = {}
ONE = PoolConfig(min_size=1, max_size=1)
CAT = Command("cat", grace=0.2)


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


@scenario
async def a_function_is_run() -> None:
    async with FunctionPool(ONE) as pool:
        assert await pool.run(len, [1]) == 1


@scenario
async def a_function_is_run_without_a_template() -> None:
    async with FunctionPool(ONE.replace(start_method="spawn")) as pool:
        assert await pool.run(len, [1]) == 1


@scenario
async def calls_are_under_way_when_the_block_is_left() -> None:
    async with FunctionPool(ONE) as pool:
        pool.submit(work.sleep, 0.01)
        pool.submit(len, [1])
        async for _ in pool.map(abs, range(3), max_in_flight=2):
            pass


@scenario
async def a_pool_that_cannot_begin() -> None:
    with pytest.raises(WorkerStartError):
        async with FunctionPool(ONE.replace(preload=["no_such_module"])):
            pass


@scenario
async def a_process_is_leased() -> None:
    async with ProcessPool(CAT, ONE) as pool:
        async with pool.acquire() as worker:
            assert await worker.request("x") == "x"
        async with pool.acquire(timeout=5) as worker:
            assert await worker.request("y") == "y"
        assert pool.statistics().idle == 1


@scenario
async def two_want_the_same_process() -> None:
    async with ProcessPool(CAT, ONE) as pool:

        async def use() -> None:
            async with pool.acquire() as worker:
                await worker.request("x")

        async with asyncio.TaskGroup() as group:
            group.create_task(use())
            await use()
        assert pool.statistics().running == 0


@scenario
async def commands_are_run() -> None:
    async with CommandPool(1) as pool:
        pool.submit(Command("true"))
        assert (await pool.execute(Command("echo", "x"), retries=1)).text == "x\n"
        await pool.wait_all()
        assert pool.statistics().busy == 0


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_everywhere(name: str, loop: str) -> None:
    report = cancel_everywhere(SCENARIOS[name], loop_factory=LOOPS[loop], limit=20.0)
    print(report)
    assert report.points >= 2  # how many there are beyond that depends on how fast the processes answer
    assert report.outcomes["cancelled"]
