"""Making room, with real process trees that burn processor time."""

import asyncio
import itertools
from typing import Any

import pytest

from procession import Command, ProcessRegistry
from procession.errors import ExecutionTimeout, TaskCancelled
from procession.events import TaskPreempted
from procession.scheduler import (
    MultiLevelFeedback,
    Preemption,
    PriorityAging,
    Scheduler,
    SchedulerConfig,
    TimeSlice,
)
from tests.programs import eventually
from tests.scheduler.support import Gate, Told, burning, check_over, check_sums, nap

NEEDS = {"cpu_cores": 1, "memory_mb": 10}


def config(**options: Any) -> SchedulerConfig:
    given: dict[str, Any] = {
        "max_concurrent_tasks": 4,
        "resources": {"cpu_cores": 1, "memory_mb": 100},
        "policy": PriorityAging(aging_factor=0),
        "preemption": Preemption.SUSPEND,
    }
    return SchedulerConfig(**(given | options))


def pause(seconds: float = 0.05) -> Command:
    return Command("sleep", str(seconds))


@pytest.mark.row("SC7")
async def test_a_suspended_tree_makes_no_progress_and_a_resumed_one_goes_on(tmp_path):
    with burning(tmp_path) as [burner]:
        async with Scheduler(config()) as scheduler:
            low = scheduler.submit(burner.command, priority=4, resources=NEEDS)
            await burner.progress()
            gate = Gate()
            first, second = (scheduler.submit(gate, name, priority=0, resources=NEEDS) for name in "ab")
            await eventually(lambda: burner.states == "TTT")
            assert (low.state, low.preemptions) == ("suspended", 1)
            assert check_sums(scheduler).allocated == {"cpu_cores": 1.0, "memory_mb": 20.0}
            before = burner.counters
            gate.open("a")
            await first
            assert (await scheduler.submit(pause(), priority=0)).ok  # a while that does not depend on it
            assert burner.counters == before
            gate.open("b")
            await second
            assert low.state == "running"
            assert check_sums(scheduler).allocated == {"cpu_cores": 1.0, "memory_mb": 10.0}
            await burner.progress()
            await burner.progress()  # the first letters may have been due when they were stopped
            assert all(now > then for now, then in zip(burner.counters, before, strict=True))
            assert (low.attempts, low.preemptions) == (1, 1)


@pytest.mark.row("SC7")
async def test_the_clock_of_a_timeout_stands_still_meanwhile(tmp_path):
    loop = asyncio.get_running_loop()
    with burning(tmp_path) as [burner]:
        async with Scheduler(config()) as scheduler:
            began = loop.time()
            low = scheduler.submit(burner.command, priority=4, resources=NEEDS, timeout=0.6)
            await burner.progress()
            high = scheduler.submit(pause(0.8), priority=0, resources=NEEDS)
            await high
            assert low.state == "running"
            with pytest.raises(ExecutionTimeout) as caught:
                await low
            assert loop.time() - began >= 1.4
            assert 0.59 <= low.run_time < 6
            assert caught.value.completed is not None
            assert caught.value.completed.stdout == b"bye\n"
            check_over(scheduler)


@pytest.mark.row("SC7")
async def test_closing_continues_a_suspended_tree_so_that_it_can_say_goodbye(tmp_path):
    with burning(tmp_path) as [burner]:
        async with Scheduler(config()) as scheduler:
            low = scheduler.submit(burner.command, priority=4, resources=NEEDS)
            await burner.progress()
            scheduler.submit(nap, 1000, priority=0, resources=NEEDS)
            await eventually(lambda: burner.states == "TTT")
        with pytest.raises(TaskCancelled) as caught:
            low.result()
        assert caught.value.completed is not None
        assert (caught.value.completed.stdout, caught.value.completed.returncode) == (b"bye\n", 7)
        assert set(burner.states) <= {"Z", "X"}
        check_over(scheduler)


@pytest.mark.row("SC7")
@pytest.mark.parametrize("wait", [True, False])
async def test_cancelling_a_suspended_one_lets_it_say_goodbye_even_while_it_is_being_suspended(tmp_path, wait):
    with burning(tmp_path) as [burner]:
        async with Scheduler(config()) as scheduler:
            low = scheduler.submit(burner.command, priority=4, resources=NEEDS)
            await burner.progress()
            high = scheduler.submit(pause(), priority=0, resources=NEEDS)
            scheduler.submit(pause(), priority=0, resources=NEEDS)
            if wait:
                await high
            else:
                await asyncio.sleep(0)
            assert low.state == "suspended"
            low.cancel()
            with pytest.raises(TaskCancelled) as caught:
                await low
            assert caught.value.completed is not None
            assert caught.value.completed.stdout == b"bye\n"
            await scheduler.drain()
            check_over(scheduler)


@pytest.mark.row("SC7")
async def test_a_requeued_command_is_stopped_gracefully_and_begins_again():
    async with ProcessRegistry() as registry:
        told, spawned = Told(registry), []
        settings = config(preemption=Preemption.REQUEUE)
        up: asyncio.Queue[None] = asyncio.Queue()

        def on_spawn(process):
            spawned.append(process.pid)
            up.put_nowait(None)

        async with Scheduler(settings, registry=registry) as scheduler:
            low = scheduler.submit(Command("sleep", "1000"), priority=4, resources=NEEDS, on_spawn=on_spawn)
            await up.get()
            high = scheduler.submit(pause(), priority=0, resources=NEEDS)
            assert (await high).ok
            await up.get()
            assert (low.state, low.attempts, low.preemptions) == ("running", 1, 1)
            assert len(set(spawned)) == 2
            assert check_sums(scheduler).running == 1
        assert [(event.by, event.mode) for event in told.of(TaskPreempted)] == [(high.id, "requeue")]
        told.check()
        check_over(scheduler)


@pytest.mark.row("SC7")
async def test_who_has_made_room_often_enough_or_says_so_is_left_alone(tmp_path):
    with burning(tmp_path, 2) as [burner, firm]:
        async with Scheduler(config(max_preemptions=2)) as scheduler:
            low = scheduler.submit(burner.command, priority=4, resources=NEEDS)
            for _ in range(2):
                await burner.progress()
                assert (await scheduler.submit(pause(0.01), priority=0, resources=NEEDS)).ok
            await burner.progress()
            high = scheduler.submit(pause(0.01), priority=0, resources=NEEDS)
            await burner.progress()
            assert (low.state, low.preemptions, high.state) == ("running", 2, "queued")
            low.cancel()
            await high

            left = scheduler.submit(firm.command, priority=4, resources=NEEDS, preemptible=False)
            await firm.progress()
            high = scheduler.submit(pause(0.01), priority=0, resources=NEEDS)
            await firm.progress()
            assert (left.state, high.state) == ("running", "queued")


@pytest.mark.row("SC7")
async def test_the_registry_sees_a_suspended_process_as_suspended(tmp_path):
    with burning(tmp_path) as [burner]:
        async with ProcessRegistry() as registry, Scheduler(config(), registry=registry) as scheduler:
            low = scheduler.submit(burner.command, priority=4, resources=NEEDS)
            await burner.progress()
            high = scheduler.submit(pause(), priority=0, resources=NEEDS)
            await asyncio.sleep(0)
            assert low.process is not None
            assert (low.state, registry.get(low.process.id).state) == ("suspended", "suspended")
            await high
            assert registry.get(low.process.id).state == "running"
            assert registry.get(low.process.id).owner == "scheduler"


@pytest.mark.row("SC4")
@pytest.mark.row("SC7")
async def test_time_slices_let_trees_burn_in_turn_and_never_together(tmp_path):
    with burning(tmp_path, 3, goal=400_000) as burners:
        async with ProcessRegistry() as registry:
            told = Told(registry)
            settings = config(max_concurrent_tasks=1, resources={}, policy=TimeSlice(quantum=0.03))
            async with Scheduler(settings, registry=registry) as scheduler:
                most = []
                registry.listen(lambda event: most.append(check_sums(scheduler).running), types=TaskPreempted)
                tasks = [scheduler.submit(burner.command) for burner in burners]
                for completed in await asyncio.gather(*tasks):
                    assert completed.ok
                check_over(scheduler)
            turns = [event.id for event in told.of(TaskPreempted)]
            assert set(turns) == {task.id for task in tasks}, "everybody was in turn"
            assert all(before != after for before, after in itertools.pairwise(turns[:6]))
            assert max(most) <= 1
            assert all(burner.counters[0] == 400_000 for burner in burners)
            assert max(task.started_at for task in tasks) > min(task.finished_at or 0 for task in tasks) - 1
            told.check()


@pytest.mark.row("SC4")
async def test_under_time_slices_everybody_comes_further_and_one_at_a_time(tmp_path):
    with burning(tmp_path, 2) as burners:
        settings = config(max_concurrent_tasks=1, resources={}, policy=TimeSlice(quantum=0.25))
        async with Scheduler(settings) as scheduler:
            tasks = [scheduler.submit(burner.command) for burner in burners]
            for _ in range(2):
                for burner in burners:
                    await burner.progress()
            assert all(task.preemptions == 0 for task in tasks), "the end of a quantum is no preemption"
            assert sum(task.state == "running" for task in tasks) == 1
            assert {task.attempts for task in tasks} == {1}


@pytest.mark.row("SC4")
async def test_feedback_lets_short_work_pass_long_work_that_has_had_its_quantum(tmp_path):
    policy = MultiLevelFeedback(levels=3, quantum=0.05, boost=None)
    with burning(tmp_path) as [burner]:
        async with Scheduler(config(max_concurrent_tasks=1, resources={}, policy=policy)) as scheduler:
            long = scheduler.submit(burner.command)
            await burner.progress()
            short = [scheduler.submit(Command("true")) for _ in range(5)]
            for task in short:
                assert (await task).ok
            assert not long.done()
            await burner.progress()
            assert long.state == "running"


@pytest.mark.row("SC7")
async def test_many_in_and_out_of_the_way_of_each_other_all_end_as_they_should(tmp_path):
    with burning(tmp_path, 3, goal=60_000) as burners:
        settings = config(resources={"cpu_cores": 2, "memory_mb": 100}, max_preemptions=50)
        async with Scheduler(settings) as scheduler:
            low = [scheduler.submit(burner.command, priority=4, resources=NEEDS) for burner in burners]
            await burners[0].progress("a")
            for _ in range(25):
                high = [scheduler.submit(Command("true"), priority=0, resources=NEEDS) for _ in range(2)]
                for task in high:
                    await task
                check_sums(scheduler)
            for task in low:
                assert (await task).returncode == 0
            check_over(scheduler)
