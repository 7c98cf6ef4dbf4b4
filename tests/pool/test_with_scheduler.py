"""A scheduler over a function pool, with real workers, on both loops: the one decides what is next, the other does it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psutil
import pytest

from procession import Command, Priority, ProcessRegistry, RetryPolicy, Scheduler, SchedulerConfig, TaskTimeout
from procession.abc import Runnable
from procession.pool import CommandPool, FunctionPool, PoolConfig, WorkerLost
from procession.scheduler import Fifo
from tests.programs import pool_functions as work

pytestmark = [pytest.mark.both_loops, pytest.mark.row("SC1"), pytest.mark.row("PO2")]

ONE = PoolConfig(min_size=1, max_size=1)
TWO = PoolConfig(min_size=2, max_size=2)


def slots(number: int) -> SchedulerConfig:
    return SchedulerConfig(max_concurrent_tasks=number, resources={})


async def is_written(path: Path) -> str:
    async with asyncio.timeout(10):
        while not path.exists() or not path.read_text():
            await asyncio.sleep(0.01)
    return path.read_text()


async def is_gone(pid: int) -> bool:
    """Whether it ends in a moment: what has left its worker's session is ended right after the worker."""
    for _ in range(200):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_a_call_is_work_for_a_scheduler():
    async with FunctionPool(TWO) as pool, Scheduler(slots(2)) as scheduler:
        call = pool.call(work.add, 1, kwargs={"b": 2})
        made: Runnable = call
        assert callable(made)
        assert await scheduler.submit(call) == 3
        assert await scheduler.submit(call) == 3  # it is a description, and can be made again
        assert await scheduler.submit(pool.run, work.add, 4) == 5
        assert await scheduler.submit(pool.call(work.pid)) != os.getpid()
        assert pool.statistics().ok == 4


async def test_calls_are_made_in_the_order_of_their_priorities():
    order: list[str] = []
    async with FunctionPool(ONE) as pool, Scheduler(slots(1)) as scheduler:
        blocker = scheduler.submit(pool.call(work.sleep, 0.2))
        wanted = [("l", Priority.LOW), ("n", Priority.NORMAL), ("c", Priority.CRITICAL), ("h", Priority.HIGH)]
        for name, priority in wanted:
            task = scheduler.submit(pool.call(work.echo, name), priority=priority)
            task.add_done_callback(lambda task: order.append(task.result()))
        await blocker
        await scheduler.drain()
    assert order == ["c", "h", "n", "l"]


async def test_many_calls_through_both_all_come_back():
    config = SchedulerConfig(max_concurrent_tasks=4, resources={}, policy=Fifo())
    async with FunctionPool(TWO) as pool, Scheduler(config) as scheduler:
        tasks = scheduler.submit_many(pool.call(work.add, number) for number in range(300))
        await scheduler.drain()
        assert [task.result() for task in tasks] == list(range(1, 301))
        assert pool.statistics().ok == 300


async def test_a_call_comes_after_another_and_a_command():
    async with FunctionPool(ONE) as pool, Scheduler(slots(4)) as scheduler:
        fetch = scheduler.submit(Command("true"))
        count = scheduler.submit(pool.call(work.add, 1), after=[fetch])
        store = scheduler.submit(Command("true"), after=[count])
        assert (await store).ok
        assert (fetch.state, count.state, count.result()) == ("succeeded", "succeeded", 2)


@pytest.mark.row("PO6")
async def test_a_worker_that_is_killed_fails_one_task():
    async with ProcessRegistry() as registry:
        async with FunctionPool(TWO, registry=registry, name="calls") as pool, Scheduler(slots(2)) as scheduler:
            both = [scheduler.submit(pool.call(work.sleep_pid, 0.5)) for _ in range(2)]
            others = [scheduler.submit(pool.call(work.echo, number)) for number in range(50)]
            async with asyncio.timeout(5):
                while pool.statistics().busy < 2:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # both are in the middle of it
            victim = registry.find(owner="calls", name="worker")[0].pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            await scheduler.drain()
            errors = [task.exception() for task in both]
            assert [type(error) for error in errors if error is not None] == [WorkerLost]
            (alive,) = [task for task in both if task.exception() is None]
            assert alive.result() != victim
            assert [task.result() for task in others] == list(range(50))
            assert scheduler.statistics().failed == 1
        assert len(registry) == 0


@pytest.mark.row("PO6")
@pytest.mark.parametrize("who", ["scheduler", "pool"])
async def test_a_worker_that_is_killed_costs_an_attempt(who, tmp_path):
    async with FunctionPool(ONE) as pool, Scheduler(slots(1)) as scheduler:
        if who == "scheduler":
            call = pool.call(work.die_once, str(tmp_path / "mark"), "kill")
            task = scheduler.submit(call, retry=RetryPolicy(2, initial_delay=0.01))
        else:
            task = scheduler.submit(pool.call(work.die_once, str(tmp_path / "mark"), "kill", retries=1))
        assert await task == "survived"
        assert task.attempts == (2 if who == "scheduler" else 1)
        assert pool.statistics().lost == 1


@pytest.mark.row("PO6")
@pytest.mark.parametrize("how", ["cancel", "timeout", "close"])
async def test_the_end_of_a_task_reaches_the_worker_and_all_it_started(how, tmp_path):
    path = tmp_path / "pid"
    async with FunctionPool(ONE) as pool:
        async with Scheduler(slots(1)) as scheduler:
            timeout = 1.5 if how == "timeout" else None
            task = scheduler.submit(pool.call(work.spawn_child, str(path)), timeout=timeout)
            child = int(await is_written(path))
            assert psutil.pid_exists(child)
            if how == "cancel":
                task.cancel()
            if how != "close":
                await task.wait()
                assert task.state == ("cancelled" if how == "cancel" else "failed")
        assert await is_gone(child)
        assert task.done()
        if how == "timeout":
            assert isinstance(task.exception(), TaskTimeout)
        assert await pool.run(work.echo, "the pool goes on") == "the pool goes on"


async def test_a_task_that_waits_is_cancelled_without_any_worker_noticing():
    async with FunctionPool(ONE) as pool, Scheduler(slots(1)) as scheduler:
        who = await scheduler.submit(pool.call(work.pid))
        running = scheduler.submit(pool.call(work.sleep, 0.2))
        waiting = scheduler.submit(pool.call(work.sleep, 60))
        waiting.cancel()
        assert await waiting.wait() == "cancelled"
        assert await running == 0.2
        assert await scheduler.submit(pool.call(work.pid)) == who


@pytest.mark.row("PO3")
async def test_a_command_of_a_pool_is_work_too():
    async with CommandPool(1) as pool, Scheduler(slots(4)) as scheduler:
        tasks = [scheduler.submit(pool.execute, Command("echo", str(number))) for number in range(4)]
        assert [(await task).text for task in tasks] == ["0\n", "1\n", "2\n", "3\n"]
