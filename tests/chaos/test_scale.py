"""Many at once: nothing left, nothing grown, and limits are typed errors."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from procession import Command, SpawnError, SpawnFailure, run, spawn
from procession.testing import fd_limit

pytestmark = pytest.mark.slow


def zombies() -> int:
    found = 0
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            try:
                found += Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
    return found


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_three_hundred_children_killed_at_once() -> None:
    loop = asyncio.get_running_loop()
    await run(Command("true"))
    before = descriptors()
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(spawn(Command("sleep", "1000"))) for _ in range(300)]
        assert descriptors() - before <= 3 * len(processes) + 1
        began = loop.time()
        for process in processes:
            os.kill(process.pid, signal.SIGKILL)
        assert await asyncio.gather(*(process.wait() for process in processes)) == [-signal.SIGKILL] * 300
        assert loop.time() - began < 3.0
        assert zombies() == 0
    assert descriptors() <= before


async def test_five_hundred_spawns_sixty_four_at_a_time() -> None:
    await run(Command("true"))
    gate = asyncio.Semaphore(64)
    before, tasks = descriptors(), len(asyncio.all_tasks())

    async def one(number: int) -> bool:
        async with gate:
            return (await run(Command("sh", "-c", f"exit {number % 7}"))).returncode == number % 7

    async with asyncio.TaskGroup() as group:
        results = [group.create_task(one(number)) for number in range(500)]
    assert all(result.result() for result in results)
    assert (zombies(), len(asyncio.all_tasks())) == (0, tasks)
    assert descriptors() <= before


async def test_a_thousand_at_once_within_the_limit_of_descriptors() -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 8192:
        pytest.skip("too few descriptors are allowed")
    results = await asyncio.gather(*(run(Command("true")) for _ in range(1000)))
    assert all(result.ok for result in results)
    assert zombies() == 0


async def test_a_thousand_at_once_beyond_the_limit_fail_one_by_one_and_leak_nothing() -> None:
    await run(Command("true"))
    gc.collect()
    before = descriptors()
    with fd_limit(100):
        results = await asyncio.gather(*(run(Command("true")) for _ in range(1000)), return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    assert errors  # maybe all: the pipes of the first may take what was left before the first is made
    assert {type(error) for error in errors} == {SpawnError}
    assert {error.reason for error in errors if isinstance(error, SpawnError)} == {SpawnFailure.FD_LIMIT}
    assert descriptors() <= before
    assert zombies() == 0
    assert (await run(Command("true"))).ok
