"""What the first to write a program with the scheduler stumbled over."""

import asyncio

import pytest

from procession import Command, ConfigError, DeadlineMissed, ProcessRegistry, StateError, TaskPreempted, TaskResumed
from procession.scheduler import Preemption, PriorityAging, Scheduler, SchedulerConfig, TimeSlice
from procession.testing import Script, SimulatedLauncher, run_virtual


@pytest.mark.row("SC6")
def test_a_wide_urgent_task_is_not_passed_for_ever_while_one_victim_and_one_other_make_room():
    async def work(seconds):
        await asyncio.sleep(seconds)

    async def main():
        config = SchedulerConfig(
            max_concurrent_tasks=3, resources={"cpu_cores": 3}, policy=PriorityAging(0.0), preemption=Preemption.REQUEUE
        )
        one = {"cpu_cores": 1}
        async with Scheduler(config) as scheduler:
            scheduler.submit(work, 10.0, priority=3, resources=one, estimated_duration=10.0)
            await asyncio.sleep(0.01)
            for index in range(100):
                scheduler.submit(
                    work,
                    0.1 + 0.01 * (index % 3),
                    priority=4,
                    resources=one,
                    estimated_duration=0.2,
                    preemptible=False,
                )
            await asyncio.sleep(0.55)
            wide = scheduler.submit(work, 0.1, priority=0, resources={"cpu_cores": 3}, estimated_duration=0.1)
            await wide
            return wide.waited

    assert run_virtual(main) < 0.15


@pytest.mark.row("SC4")
def test_who_may_not_be_made_to_give_way_keeps_its_place_at_the_end_of_a_quantum():
    async def main():
        launcher = SimulatedLauncher(Script(duration=1.0))
        config = SchedulerConfig(max_concurrent_tasks=1, policy=TimeSlice(0.1))
        async with ProcessRegistry() as registry, Scheduler(config, registry=registry, launcher=launcher) as scheduler:
            kept = scheduler.submit(Command("a"), preemptible=False)
            other = scheduler.submit(Command("b"))
            await kept
            assert other.state == "running" or not other.attempts
            await other
            assert registry.history(TaskPreempted) == []
            assert kept.waited == pytest.approx(0.0, abs=0.01)

    run_virtual(main)


@pytest.mark.row("SC4")
def test_a_task_that_goes_on_is_an_event_and_its_wait_counts_no_running():
    async def main():
        launcher = SimulatedLauncher(Script(duration=0.45))
        config = SchedulerConfig(max_concurrent_tasks=1, policy=TimeSlice(0.1))
        async with ProcessRegistry() as registry, Scheduler(config, registry=registry, launcher=launcher) as scheduler:
            tasks = [scheduler.submit(Command("a"), id="first"), scheduler.submit(Command("b"), id="second")]
            await scheduler.drain()
            for task in tasks:
                stops = registry.history(TaskPreempted, id=task.id)
                assert stops
                assert len(stops) == len(registry.history(TaskResumed, id=task.id))
                assert task.run_time == pytest.approx(0.45, abs=0.01)
                assert task.finished_at is not None
                assert task.waited + task.run_time == pytest.approx(task.finished_at - task.queued_at, abs=0.01)
            assert {record.name for record in registry.ended()} == {"first", "second"}

    run_virtual(main)


@pytest.mark.row("SC9")
def test_waiting_for_room_uses_up_no_numbers():
    async def main():
        async with Scheduler(SchedulerConfig(max_concurrent_tasks=1, max_queued=2)) as scheduler:
            ids = [(await scheduler.submit_when_room(asyncio.sleep, 0.1)).id for _ in range(5)]
            assert ids == [f"task-{number}" for number in range(1, 6)]

    run_virtual(main)


@pytest.mark.row("SC1")
def test_a_pipeline_is_refused_with_the_way_out():
    async def main():
        async with Scheduler() as scheduler:
            with pytest.raises(ConfigError, match=r"pipeline\.run"):
                scheduler.submit(Command("ls") | Command("wc"))  # type: ignore[call-overload]

    run_virtual(main)


def test_a_deadline_that_has_just_passed_is_not_said_to_be_zero_seconds_ago():
    assert str(DeadlineMissed("x", 1.0, 0.00001)) == "x: not started, its deadline passed"
    assert str(DeadlineMissed("x", 1.0, 2.0)) == "x: not started, its deadline passed 2.000 s ago"


@pytest.mark.row("SC9")
def test_a_task_that_would_wait_for_itself_is_told_so():
    async def main():
        async with Scheduler(SchedulerConfig(max_concurrent_tasks=1)) as scheduler:
            with pytest.raises(StateError, match="itself"):
                await scheduler.submit(scheduler.drain)
            await scheduler.drain()

    run_virtual(main)
