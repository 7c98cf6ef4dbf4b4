"""The figures of a scheduler: they add up at every moment."""

import asyncio
import dataclasses
from typing import Any

import pytest

from procession import Command
from procession.scheduler import Preemption, PriorityAging, RetryPolicy, Scheduler
from procession.testing import Script, SimulatedLauncher
from tests.scheduler.support import Gate, check_over, check_sums, config, failing, nap, turns, value, virtual


@pytest.mark.row("SC10")
@virtual
async def test_every_figure_says_what_it_is_called():
    gate, launcher = Gate(), SimulatedLauncher(Script(duration=50.0))
    settings: dict[str, Any] = {
        "resources": {"cpu_cores": 2, "memory_mb": 100, "none": 0},
        "preemption": Preemption.SUSPEND,
        "policy": PriorityAging(aging_factor=0),
    }
    async with Scheduler(config(4, **settings), launcher=launcher) as scheduler:
        empty = scheduler.statistics()
        assert (empty.submitted, empty.next_start, empty.by_priority, empty.waited.count) == (0, None, {}, 0)
        needs = {"cpu_cores": 2, "memory_mb": 40}
        held = scheduler.submit(Command("tool"), priority=4, resources=needs, estimated_duration=50)
        await asyncio.sleep(1)
        running = scheduler.submit(gate, priority=0, resources={"cpu_cores": 2}, estimated_duration=20)
        await asyncio.sleep(1)
        scheduler.submit(failing, KeyError(), retry=RetryPolicy(3, 60.0, jitter=False), priority=1)
        await turns()
        queued = [scheduler.submit(value, priority=3, resources={"cpu_cores": 2}) for _ in range(3)]
        scheduler.submit(value, delay=30)
        scheduler.submit(value, after=[queued[0]], priority=3)
        await asyncio.sleep(1)
        found = check_sums(scheduler)
        shown = {name: getattr(found, name) for name in ("queued", "blocked", "delayed", "retrying", "running")}
        assert shown == {"queued": 3, "blocked": 1, "delayed": 1, "retrying": 1, "running": 1}
        assert (found.suspended, found.preempted, found.retried, found.submitted) == (1, 1, 1, 8)
        assert found.by_priority == {3: 3, 4: 1}
        assert list(found.by_priority) == [3, 4]
        assert found.total == {"cpu_cores": 2.0, "memory_mb": 100.0, "none": 0.0}
        assert found.allocated == {"cpu_cores": 2.0, "memory_mb": 40.0, "none": 0.0}
        assert found.utilisation == {"slots": 0.25, "cpu_cores": 1.0, "memory_mb": 0.4}
        assert found.next_start == 21.0
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.queued = 7  # type: ignore[misc]
        for task in (held, *queued):
            task.cancel()
        gate.open()
        await running
        await scheduler.drain()
        last = check_over(scheduler)
        assert (last.succeeded, last.failed, last.cancelled, last.missed) == (2, 2, 4, 0)


@pytest.mark.row("SC10")
@virtual
async def test_waiting_and_running_times_are_those_of_the_work():
    async with Scheduler(config()) as scheduler:
        for seconds in (1, 2, 3, 4):
            scheduler.submit(nap, seconds)
        await scheduler.drain()
        found = check_over(scheduler)
        assert (found.waited.count, found.waited.mean, found.waited.max) == (4, 2.5, 6.0)
        assert (found.ran.count, found.ran.mean, found.ran.p50, found.ran.max) == (4, 2.5, 2.0, 4.0)


@pytest.mark.row("SC10")
@virtual
async def test_looking_changes_nothing():
    async def starts(look):
        async with Scheduler(config(8, resources={"cpu_cores": 4})) as scheduler:
            tasks = []
            for number in range(40):
                needs = {"cpu_cores": number * 7 % 5}
                estimate = number % 3 + 0.5 if number % 4 else None
                tasks.append(scheduler.submit(nap, number % 3 + 0.5, resources=needs, estimated_duration=estimate))
                if look:
                    scheduler.statistics()
                    for task in tasks:
                        task.explain()
            origin = asyncio.get_running_loop().time()
            while len(scheduler):
                if look:
                    scheduler.statistics()
                    for task in tasks:
                        task.explain()
                await asyncio.sleep(0.25)
            return [task.started_at - origin for task in tasks]

    assert await starts(False) == await starts(True)


@pytest.mark.row("SC10")
def test_one_that_is_not_open_has_figures_too():
    scheduler = Scheduler(config())
    assert scheduler.statistics().submitted == 0
    assert (len(scheduler), bool(scheduler)) == (0, True)
    assert repr(scheduler) == "<Scheduler not open: 0 wait, 0 run>"
