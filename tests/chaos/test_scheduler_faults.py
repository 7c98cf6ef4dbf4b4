"""The scheduler in a hostile world: signals from outside, no descriptors, no processes, far too much work."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import tracemalloc
from typing import Any

import pytest

from procession import Command, ProcessRegistry
from procession._linux import _reserve
from procession.errors import QueueFull, SpawnError, SpawnFailure, TaskCancelled
from procession.events import ProcessSpawned, TaskStarted
from procession.scheduler import Preemption, PriorityAging, RetryPolicy, Scheduler
from procession.testing import failing_spawn, fd_limit
from tests.programs import ended, state
from tests.scheduler.support import Gate, Told, burning, check_over, check_sums, config, turns, value

SLEEP = Command("sleep", "1000", grace=0.5)


def preempting(**options: Any) -> Any:
    return config(**{"policy": PriorityAging(aging_factor=0), "preemption": Preemption.SUSPEND, **options})


@pytest.mark.row("SC11")
@pytest.mark.parametrize("when", ["running", "suspended"])
async def test_a_child_killed_from_outside_is_told_and_gives_everything_back(tmp_path, when):
    with burning(tmp_path) as [burner]:
        async with Scheduler(preempting(slots=4, resources={"cpu_cores": 1, "gpu": 2})) as scheduler:
            needs = {"cpu_cores": 1, "gpu": 1}
            low = scheduler.submit(burner.command, priority=4, resources=needs)
            await burner.progress()
            assert low.process is not None
            pid = low.process.pid
            if when == "suspended":
                scheduler.submit(SLEEP, priority=0, resources=needs)
                await asyncio.sleep(0)
                assert low.state == "suspended"
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(10):
                assert (await low).returncode == -9
            assert low.state == "failed"
            taken = 1.0 if when == "suspended" else 0.0
            assert check_sums(scheduler).allocated == {"cpu_cores": taken, "gpu": taken}
            await burner.progress("c")  # what had left its group is an orphan now, but not one that is stopped for ever
            escaped = burner.pids[2]
            os.kill(escaped, signal.SIGKILL)
            await ended(escaped)


@pytest.mark.row("SC7")
async def test_a_child_stopped_from_outside_still_makes_room_goes_on_and_ends(tmp_path):
    with burning(tmp_path) as [burner]:
        async with Scheduler(preempting()) as scheduler:
            low = scheduler.submit(burner.command, priority=4)
            await burner.progress()
            assert low.process is not None
            os.kill(low.process.pid, signal.SIGSTOP)
            assert (await scheduler.submit(Command("true"), priority=0)).ok
            await burner.progress()  # whoever suspends it also resumes it
            os.kill(low.process.pid, signal.SIGSTOP)
            low.cancel()
            with pytest.raises(TaskCancelled) as caught:
                await low
            assert caught.value.completed is not None
            assert caught.value.completed.stdout == b"bye\n", "it was continued so that it could end gracefully"


@pytest.mark.row("SC5")
@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE])
async def test_spawns_that_fail_for_a_while_are_retried_and_nothing_is_lost(number):
    async with ProcessRegistry() as registry:
        told = Told(registry)
        with failing_spawn(number, times=5) as fault:
            async with Scheduler(config(3, resources={"gpu": 3}), registry=registry, seed=1) as scheduler:
                retry = RetryPolicy(8, 0.001, on=(SpawnError,))
                tasks = [scheduler.submit(Command("true"), resources={"gpu": 1}, retry=retry) for _ in range(6)]
                plain = [scheduler.submit(Command("true"), resources={"gpu": 1}) for _ in range(2)]
                for task in tasks:
                    assert (await task).ok
                for task in plain:
                    assert await task.wait() in ("succeeded", "failed")
                    assert isinstance(task.exception(), SpawnError | None)
                assert fault.hits == 5
                check_over(scheduler)
        told.check()


@pytest.mark.row("SC5")
async def test_without_descriptors_work_fails_by_name_and_goes_on_afterwards():
    try:
        async with Scheduler(config(4, resources={"gpu": 4})) as scheduler:
            with fd_limit(0):
                tasks = [scheduler.submit(Command("true"), resources={"gpu": 1}) for _ in range(8)]
                other = scheduler.submit(value, "no need of any")
                for task in tasks:
                    await task.wait()
                assert await other == "no need of any"
            reasons = {error.reason for task in tasks if isinstance(error := task.exception(), SpawnError)}
            assert reasons == {SpawnFailure.FD_LIMIT}
            check_sums(scheduler)
            assert (await scheduler.submit(Command("true"), resources={"gpu": 4})).ok
            check_over(scheduler)
    finally:
        _reserve.fill()


@pytest.mark.row("SC9")
async def test_a_thousand_commands_at_once_end_and_never_too_many_run():
    async with ProcessRegistry() as registry:
        told = Told(registry)
        most = 0

        def count(event: Any) -> None:
            nonlocal most
            most = max(most, check_sums(scheduler).running)

        async with Scheduler(config(16), registry=registry) as scheduler:
            registry.listen(count, types=TaskStarted)
            tasks = scheduler.submit_many([Command("true")] * 1000)
            await scheduler.drain()
            assert {task.state.value for task in tasks} == {"succeeded"}
            assert most == 16
            check_over(scheduler)
        told.check()


@pytest.mark.row("SC11")
async def test_closing_while_hundreds_run_ends_them_all_in_time():
    loop = asyncio.get_running_loop()
    spawned, enough = 0, loop.create_future()

    def count(event: Any) -> None:
        nonlocal spawned
        spawned += 1
        if spawned == 200:
            enough.set_result(None)

    async with ProcessRegistry() as registry:
        registry.listen(count, types=ProcessSpawned)
        async with Scheduler(config(200), registry=registry) as scheduler:
            tasks = scheduler.submit_many([SLEEP] * 250)
            async with asyncio.timeout(30):
                await enough
            began = loop.time()
        assert loop.time() - began < 10
        assert {task.state.value for task in tasks} == {"cancelled"}
        assert not list(registry)
        check_over(scheduler)


@pytest.mark.row("SC11")
@pytest.mark.one_loop
async def test_closing_while_five_hundred_coroutines_run_tells_them_all():
    gate = Gate()
    async with Scheduler(config(500)) as scheduler:
        tasks = [scheduler.submit(gate, number) for number in range(600)]
        await turns()
        assert len(gate.inside) == 500
    assert gate.inside == []
    assert {task.state.value for task in tasks} == {"cancelled"}
    check_over(scheduler)


@pytest.mark.row("SC9")
@pytest.mark.one_loop
@pytest.mark.slow
async def test_a_million_submits_to_a_bounded_queue_are_refused_quickly_and_cost_no_memory():
    refused = 0
    async with Scheduler(config(max_queued=10_000)) as scheduler:
        gate = Gate()
        scheduler.submit(gate)
        await turns()
        for _ in range(10_000):
            scheduler.submit(value)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(1000):  # the rest without tracing, which is slow
            try:
                scheduler.submit(value)
            except QueueFull:
                refused += 1
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        for _ in range(999_000):
            try:
                scheduler.submit(value)
            except QueueFull:
                refused += 1
        assert refused == 1_000_000
        assert grown < 20_000
        assert check_sums(scheduler).queued == 10_000
        gate.open()
        await scheduler.drain()
        assert check_over(scheduler).succeeded == 10_001


@pytest.mark.row("SC11")
async def test_a_grandchild_that_has_left_is_gone_when_its_task_is_cancelled(tmp_path):
    with burning(tmp_path) as [burner]:
        async with Scheduler(preempting()) as scheduler:
            low = scheduler.submit(burner.command, priority=4)
            await burner.progress()
            pids = burner.pids
            low.cancel()
            await low.wait()
            for pid in pids:
                await ended(pid)
            assert all(state(pid) in ("", "Z", "X") for pid in pids)
