"""Pools tell how each call was answered, to whoever listens."""

from __future__ import annotations

import asyncio
import math
import os
import time
from typing import Any

import pytest

from procession import CallTimeout, Command, CommandPool, FunctionPool, PoolConfig, ProcessRegistry, WorkerLost
from procession.events import CallFinished

pytestmark = pytest.mark.row("MO3")


async def test_a_function_pool_tells_of_values_errors_timeouts_and_lost_workers() -> None:
    told: list[Any] = []
    async with ProcessRegistry() as registry, FunctionPool(PoolConfig(max_size=1), registry=registry) as pool:
        with registry.listen(told.append, types=CallFinished):
            await pool.run(math.sqrt, 4.0)
            with pytest.raises(ValueError, match="domain"):
                await pool.run(math.sqrt, -1.0)
            with pytest.raises(CallTimeout):
                await pool.run(time.sleep, 60, timeout=0.1)
            with pytest.raises(WorkerLost) as lost:
                await pool.run(os.abort)
        assert [event.ok for event in told] == [True, False, False, False]
        assert {event.pool for event in told} == {event.owner for event in told} == {"functions"}
        assert told[0].id == told[1].id  # the worker that answered
        assert registry.get(told[0].id).owner == "functions"
        assert told[3].id == lost.value.worker
        assert told[2].duration >= 0.1


async def test_cancelled_calls_and_the_closing_of_a_pool_are_no_answers() -> None:
    told: list[Any] = []
    async with ProcessRegistry() as registry, FunctionPool(PoolConfig(max_size=1), registry=registry) as pool:
        registry.listen(told.append, types=CallFinished)
        future = pool.submit(time.sleep, 60)
        await asyncio.sleep(0)
        future.cancel()
        last = pool.submit(time.sleep, 60)
        await pool.aclose(cancel=True)
        await asyncio.wait([last])
    assert told == []


async def test_nobody_listening_costs_no_event_and_keeps_the_journal_for_others() -> None:
    async with ProcessRegistry() as registry, FunctionPool(PoolConfig(max_size=1), registry=registry) as pool:
        await pool.run(math.sqrt, 4.0)
        assert registry.history(CallFinished) == []


async def test_a_command_pool_tells_how_commands_ended() -> None:
    told: list[Any] = []
    async with ProcessRegistry() as registry, CommandPool(registry=registry) as pool:
        registry.listen(told.append, types=CallFinished)
        completed = await pool.execute(Command("true"))
        await pool.execute(Command("false"))
        with pytest.raises(FileNotFoundError):
            await pool.execute(Command("no-such-program"))
    assert [(event.ok, event.pool) for event in told] == [(True, "commands"), (False, "commands"), (False, "commands")]
    assert told[0].id == completed.id
    assert told[2].id == "commands"
