"""A program around a scheduler, cancelled at every suspension point: every handle has its fate, and nothing is left."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from procession import Command, ProcessRegistry
from procession.errors import SchedulerError, TaskCancelled
from procession.scheduler import (
    Job,
    Preemption,
    PriorityAging,
    RetryPolicy,
    Scheduler,
    SchedulerConfig,
    Task,
    TimeSlice,
)
from procession.testing import Script, SimulatedLauncher, VirtualLoop, cancel_everywhere
from tests.scheduler.support import Told, check_over, failing, nap, value

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
PYTHON = (sys.executable, "-I", "-S", "-c")
SPIN = Command(*PYTHON, "while True: pass", grace=0.2)

SEEN: list[tuple[Scheduler, list[Task[Any]], Told | None]] = []
SCENARIOS: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}


def scenario(function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    SCENARIOS[function.__name__] = function
    return function


def config(**options: Any) -> SchedulerConfig:
    given: dict[str, Any] = {
        "max_concurrent_tasks": 1,
        "resources": {"cpu_cores": 1, "memory_mb": 100},
        "policy": PriorityAging(aging_factor=0),
        "preemption": Preemption.SUSPEND,
        **options,
    }
    return SchedulerConfig(**given)


def check() -> None:
    """After each run: every handle that was given out has its fate, and everything was given back."""
    while SEEN:
        scheduler, tasks, told = SEEN.pop()
        if "not open" in repr(scheduler):
            continue
        for task in tasks:
            assert task.done(), task
        check_over(scheduler)
        if told is not None:
            told.check()


def seen(scheduler: Scheduler, told: Told | None = None) -> list[Task[Any]]:
    tasks: list[Task[Any]] = []
    SEEN.append((scheduler, tasks, told))
    return tasks


@scenario
async def a_coroutine_awaited() -> None:
    async with Scheduler(config()) as scheduler:
        tasks = seen(scheduler)
        tasks.append(scheduler.submit(nap, 0.001))
        tasks.append(scheduler.submit(value, 1))
        await tasks[0]
        assert await tasks[1] == 1


@scenario
async def a_command_awaited() -> None:
    async with Scheduler(config()) as scheduler:
        tasks = seen(scheduler)
        tasks.append(scheduler.submit(Command("echo", "hello")))
        assert (await tasks[0]).text == "hello\n"
        await scheduler.drain()


@scenario
async def a_suspension() -> None:
    async with ProcessRegistry() as registry:
        async with Scheduler(config(), registry=registry) as scheduler:
            tasks = seen(scheduler, Told(registry))
            up = asyncio.Event()
            tasks.append(scheduler.submit(SPIN, priority=4, on_spawn=lambda _process: up.set()))
            await up.wait()
            tasks.append(scheduler.submit(Command("true"), priority=0, resources={"cpu_cores": 1}))
            assert (await tasks[1]).ok
            tasks[0].cancel()
            with pytest.raises(TaskCancelled):
                await tasks[0]


@scenario
async def a_requeue_a_retry_and_a_dependency() -> None:
    async with Scheduler(config(preemption=Preemption.REQUEUE), seed=1) as scheduler:
        tasks = seen(scheduler)
        tasks.append(scheduler.submit(nap, 0.002, priority=4))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        tasks.append(scheduler.submit(failing, KeyError(), retry=RetryPolicy(1, 0.001), priority=0))
        tasks.append(scheduler.submit(value, after=[tasks[1]]))
        for task in tasks:
            await task.wait()


@scenario
async def a_line_for_room() -> None:
    async with Scheduler(config(max_queued=1)) as scheduler:
        tasks = seen(scheduler)

        async def come() -> None:
            tasks.append(await scheduler.submit_when_room(nap, 0.001))

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(come())
        tasks.append(await scheduler.submit_when_room(value))
        await scheduler.drain()


@scenario
async def a_batch_that_is_closed_upon() -> None:
    async with Scheduler(config(policy=TimeSlice(0.002))) as scheduler:
        tasks = seen(scheduler)
        jobs = [Job(SPIN, id="a"), Job(SPIN, id="b"), Job(value, after=["a"]), Job(nap, 5, delay=3)]
        tasks += scheduler.submit_many(jobs)
        await asyncio.sleep(0.02)
        await scheduler.aclose()


@pytest.mark.row("SC11")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scheduler_cancelled_at_every_point(name: str, loop: str) -> None:
    report = cancel_everywhere(SCENARIOS[name], loop_factory=LOOPS[loop], check=check, limit=5.0)
    assert report.points >= 2
    assert report.outcomes["cancelled"]


@pytest.mark.row("SC11")
def test_a_long_story_in_virtual_time_cancelled_at_every_point() -> None:
    async def story() -> None:
        launcher = SimulatedLauncher({"long": Script(duration=20.0, term_delay=0.5), "bad": Script(exit=3)})
        async with ProcessRegistry() as registry:
            async with Scheduler(config(max_queued=4), registry=registry, launcher=launcher, seed=3) as scheduler:
                tasks = seen(scheduler, Told(registry))
                tasks.append(scheduler.submit(Command("long"), priority=4, timeout=30))
                await asyncio.sleep(1)
                tasks.append(scheduler.submit(nap, 2, priority=0))
                tasks.append(scheduler.submit(Command("bad"), retry=RetryPolicy(2, 1.0)))
                tasks.append(scheduler.submit(value, after=[tasks[2]]))
                tasks.append(await scheduler.submit_when_room(nap, 1, priority=1, timeout=0.5))
                for task in tasks[1:]:
                    await task.wait()
                with pytest.raises(SchedulerError):
                    await tasks[3]
                await tasks[0]
                await scheduler.drain()
            assert launcher.alive == []

    report = cancel_everywhere(story, loop_factory=VirtualLoop, check=check)
    assert report.points >= 5
