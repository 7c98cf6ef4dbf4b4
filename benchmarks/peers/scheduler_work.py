"""Work from its submission to its result: the scheduler, and what people write by hand in its place.

Every way gets the same coroutine function and argument, 100 at once, five priorities where it knows of them. Work that
never waits is timed by the processor, which other programs on the machine disturb less than the clock on the wall.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any

from benchmarks.peers._base import TRUE, Figures, expect
from procession import Command, run
from procession.scheduler import Scheduler, SchedulerConfig

AT_ONCE, LEVELS, WARM = 100, 5, 1_000


async def noop(value: int) -> int:
    """Work that does nothing, and waits for nothing."""
    return value


async def ours(count: int) -> float:
    """`submit()`, the handles let go of: against ways that have none."""
    async with Scheduler(SchedulerConfig(max_concurrent_tasks=AT_ONCE)) as scheduler:
        began = time.process_time()
        for index in range(count):
            scheduler.submit(noop, index, priority=index % LEVELS)
        await scheduler.drain()
        took = time.process_time() - began
        expect(scheduler.statistics().succeeded, count)
    return took


async def ours_kept(count: int) -> float:
    """`submit()`, the handles kept, each with its result."""
    async with Scheduler(SchedulerConfig(max_concurrent_tasks=AT_ONCE)) as scheduler:
        began = time.process_time()
        handles = [scheduler.submit(noop, index, priority=index % LEVELS) for index in range(count)]
        await scheduler.drain()
        took = time.process_time() - began
        expect(sum(handle.result() for handle in handles), count * (count - 1) // 2)
    return took


async def workers(count: int) -> float:
    """`asyncio.PriorityQueue` and 100 workers; nobody learns what became of an item."""
    queue: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue()

    async def worker() -> None:
        while True:
            _, _, work, value = await queue.get()
            await work(value)
            queue.task_done()

    began = time.process_time()
    tasks = [asyncio.create_task(worker()) for _ in range(AT_ONCE)]
    for index in range(count):
        await queue.put((index % LEVELS, index, noop, index))
    await queue.join()
    took = time.process_time() - began
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return took


async def workers_futures(count: int) -> float:
    """The same with a future per item that gets the result or the error, because that is what a handle is."""
    queue: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue()
    loop = asyncio.get_running_loop()

    async def worker() -> None:
        while True:
            _, _, future, work, value = await queue.get()
            try:
                future.set_result(await work(value))
            except Exception as error:  # noqa: BLE001 - told to whoever waits for the item
                future.set_exception(error)
            queue.task_done()

    began = time.process_time()
    tasks = [asyncio.create_task(worker()) for _ in range(AT_ONCE)]
    futures = []
    for index in range(count):
        futures.append(future := loop.create_future())
        await queue.put((index % LEVELS, index, future, noop, index))
    await queue.join()
    took = time.process_time() - began
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    expect(sum(future.result() for future in futures), count * (count - 1) // 2)
    return took


async def aiojobs(count: int) -> float:
    """aiojobs, as many pending as there are; no priorities."""
    api: Any = import_module("aiojobs")
    async with api.Scheduler(limit=AT_ONCE, pending_limit=0) as scheduler:
        began = time.process_time()
        jobs = [await scheduler.spawn(noop(index)) for index in range(count)]
        total = 0
        for job in jobs:
            total += await job.wait()
        took = time.process_time() - began
    expect(total, count * (count - 1) // 2)
    return took


async def group_semaphore(count: int) -> float:
    """An asyncio task per item in a `TaskGroup`, 100 let through a `Semaphore`; no priorities."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def guarded(value: int) -> int:
        async with turn:
            return await noop(value)

    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(guarded(index)) for index in range(count)]
    took = time.process_time() - began
    expect(sum(task.result() for task in tasks), count * (count - 1) // 2)
    return took


async def task_each(count: int) -> float:
    """An asyncio task per item: neither priorities nor a limit."""
    began = time.process_time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(noop(index)) for index in range(count)]
    took = time.process_time() - began
    expect(sum(task.result() for task in tasks), count * (count - 1) // 2)
    return took


WAYS: dict[str, Callable[[int], Awaitable[float]]] = {
    "procession": ours,
    "procession-kept": ours_kept,
    "workers": workers,
    "workers-futures": workers_futures,
    "aiojobs": aiojobs,
    "group-semaphore": group_semaphore,
    "task-each": task_each,
}


async def measure(name: str, count: int) -> Figures:
    """Rate and time per task."""
    await WAYS[name](WARM)
    gc.collect()
    took = await WAYS[name](count)
    return {"rate": count / took, "us": took / count * 1e6}


# ------------------------------------------------------------------------------------------- programs


def _true() -> Command:
    return Command(*TRUE, stdin="null", stdout="null", stderr="null")


async def submit_programs(count: int) -> float:
    """`/bin/true` through `submit()`."""
    command = _true()
    async with Scheduler(SchedulerConfig(max_concurrent_tasks=AT_ONCE)) as scheduler:
        began = time.perf_counter()
        handles = [scheduler.submit(command) for _ in range(count)]
        await scheduler.drain()
        took = time.perf_counter() - began
        expect({handle.result().returncode for handle in handles}, {0})
    return took


async def run_programs(count: int) -> float:
    """`/bin/true` through `run()`, by 100 workers that share a list."""
    command, rest = _true(), iter(range(count))
    codes: set[int | None] = set()

    async def worker() -> None:
        for _ in rest:
            codes.add((await run(command)).returncode)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    took = time.perf_counter() - began
    expect(codes, {0})
    return took


PROGRAMS: dict[str, Callable[[int], Awaitable[float]]] = {"procession": submit_programs, "run": run_programs}


async def programs(name: str, count: int) -> Figures:
    """Rate of `/bin/true`."""
    await PROGRAMS[name](AT_ONCE)
    took = await PROGRAMS[name](count)
    return {"rate": count / took, "us": took / count * 1e6}
