"""Why a task waits, in data and as a sentence."""

import asyncio

import pytest

from procession.scheduler import PriorityAging, RetryPolicy, Scheduler
from tests.scheduler.support import Gate, config, failing, nap, turns, value, virtual


@pytest.mark.row("SC6")
@pytest.mark.row("SC10")
@virtual
async def test_one_that_waits_says_behind_whom_and_for_what():
    async with Scheduler(config(2, resources={"gpu": 2}, policy=PriorityAging(aging_factor=0))) as scheduler:
        scheduler.submit(nap, 10, resources={"gpu": 1.5}, estimated_duration=10)
        await asyncio.sleep(1)
        head = scheduler.submit(nap, 5, resources={"gpu": 1}, estimated_duration=5, id="head")
        behind = [scheduler.submit(nap, 5, resources={"gpu": 1}, id=f"b{n}", estimated_duration=5) for n in range(5)]
        first = scheduler.submit(nap, 5, priority=0, resources={"gpu": 2}, id="first", estimated_duration=1)
        await turns()
        why = first.explain()
        assert (why.id, why.state, why.position, why.ahead, why.reserved_start) == ("first", "queued", 0, (), 10.0)
        assert why.lacking == {"gpu": (2.0, 0.5)}
        assert str(why) == (
            "first waits as number 1 in the queue, lacking gpu (2 needed, 0.5 free), to start within 9.000 s."
        )
        assert (head.explain().position, head.explain().ahead) == (1, ("first",))
        last = behind[-1].explain()
        assert (last.position, last.ahead) == (6, ("first", "head", "b0"))
        assert "behind first, head, b0 and 3 more" in str(last)


@pytest.mark.row("SC10")
@virtual
async def test_who_waits_for_a_place_is_told_so():
    gate = Gate()
    async with Scheduler(config()) as scheduler:
        running = scheduler.submit(gate)
        waits = scheduler.submit(value)
        await turns()
        assert waits.explain().lacking == {"slots": (1.0, 0.0)}
        assert str(waits.explain()) == "task-2 waits as number 1 in the queue, lacking a free slot."
        assert str(running.explain()) == "task-1 is running."
        gate.open()
        await waits
        assert str(waits.explain()) == "task-2 is succeeded."


@pytest.mark.row("SC8")
@virtual
async def test_who_waits_for_a_time_or_for_others_is_told_so():
    async with Scheduler(config()) as scheduler:
        delayed = scheduler.submit(value, delay=5)
        blocked = scheduler.submit(value, after=[delayed])
        retried = scheduler.submit(failing, KeyError(), retry=RetryPolicy(1, 2.0, jitter=False))
        await asyncio.sleep(1)
        assert str(delayed.explain()) == "task-1 is delayed, due in 4.000 s."
        assert str(blocked.explain()) == "task-2 comes after task-1."
        assert str(retried.explain()) == "task-3 failed and is tried again, due in 1.000 s."
        assert (delayed.explain().due, retried.explain().due, blocked.explain().due) == (5.0, 2.0, None)
        await scheduler.drain()


@pytest.mark.row("SC6")
@virtual
async def test_what_was_promised_is_kept():
    async with Scheduler(config(10, resources={"cpu_cores": 4})) as scheduler:
        for seconds in (3, 5, 7):
            scheduler.submit(nap, seconds, resources={"cpu_cores": 1}, estimated_duration=seconds)
        await asyncio.sleep(0.5)
        head = scheduler.submit(nap, 1, resources={"cpu_cores": 3}, estimated_duration=1)
        small = [scheduler.submit(nap, n, resources={"cpu_cores": 1}, estimated_duration=n) for n in (1, 2, 4, 8)]
        await asyncio.sleep(0.5)
        promised = head.explain().reserved_start
        assert promised is not None
        await head
        assert head.started_at <= promised
        assert sum(task.started_at < head.started_at for task in small) >= 2
