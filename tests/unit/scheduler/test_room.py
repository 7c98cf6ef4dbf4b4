"""Waiting for room in the queue: first come, first served, whoever is cancelled and whoever is quicker."""

import asyncio
from typing import Any

import pytest

from procession.errors import Closed, QueueFull
from procession.scheduler import Scheduler
from tests.scheduler.support import Gate, check_over, config, nap, turns, value, virtual


@pytest.mark.row("SC9")
@virtual
async def test_who_waits_comes_in_in_the_order_they_came():
    order: list[int] = []

    async def note(number):
        order.append(number)
        await asyncio.sleep(1)

    async with Scheduler(config(3, max_queued=2)) as scheduler:
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(scheduler.submit_when_room(note, number))
                if number % 4 == 0:
                    await asyncio.sleep(0.3)
        await scheduler.drain()
        check_over(scheduler)
    assert order == list(range(30))


@pytest.mark.row("SC9")
@virtual
async def test_nobody_in_the_line_is_passed_by_one_who_comes_to_it_later():
    gate = Gate()
    order: list[Any] = []

    async def come(name):
        await scheduler.submit_when_room(value)
        order.append(name)

    async with Scheduler(config(2, max_queued=2)) as scheduler:
        for name in ("a", "b"):
            scheduler.submit(gate, name)
        await turns()
        for _ in range(2):
            scheduler.submit(nap, 1)
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(come(number))
                await asyncio.sleep(0)
            gate.open("a")  # both at once: two begin, so two may come in, and are told so more than once
            gate.open("b")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for number in range(4, 8):
                group.create_task(come(number))
                await asyncio.sleep(0)
    assert order == list(range(8))


@pytest.mark.row("SC9")
@virtual
async def test_who_finds_the_room_taken_keeps_the_place():
    gate = Gate()
    order: list[Any] = []

    async def come(name):
        await scheduler.submit_when_room(nap, 1)
        order.append(name)

    async with Scheduler(config(max_queued=1)) as scheduler:
        scheduler.submit(gate)
        await turns()
        queued = scheduler.submit(nap, 1)
        async with asyncio.TaskGroup() as group:
            for name in ("first", "second", "third"):
                group.create_task(come(name))
            await turns()
            queued.cancel()  # the first is let in ...
            quick = scheduler.submit(nap, 1)  # ... and finds that somebody was quicker
            with pytest.raises(QueueFull):
                scheduler.submit(value)
            await turns()
            assert order == []
            gate.open()
        assert quick.done() or quick.state in ("running", "queued")
    assert order == ["first", "second", "third"]


@pytest.mark.row("SC9")
@virtual
async def test_a_cancelled_waiter_hands_its_place_to_the_next():
    gate = Gate()
    async with Scheduler(config(max_queued=1)) as scheduler:
        scheduler.submit(gate)
        await turns()
        queued = scheduler.submit(value)
        async with asyncio.TaskGroup() as group:
            first, second, third = (group.create_task(scheduler.submit_when_room(value, n)) for n in range(3))
            await turns()
            second.cancel()  # while it waits
            await turns()
            queued.cancel()
            first.cancel()  # when it has just been let in
            await turns()
            assert first.cancelled()
            assert second.cancelled()
            assert third.done(), "the room went to the next"
        gate.open()
        assert await third.result() == 2
        await scheduler.drain()
        assert check_over(scheduler).submitted == 3


@pytest.mark.row("SC9")
@virtual
async def test_closing_sends_everybody_away_and_a_full_queue_is_no_reason_to_wait_for_nonsense():
    gate = Gate()
    async with Scheduler(config(max_queued=1)) as scheduler:
        scheduler.submit(gate)
        await turns()
        scheduler.submit(gate)
        waiting = [asyncio.get_running_loop().create_task(scheduler.submit_when_room(value)) for _ in range(3)]
        await turns()
        await scheduler.aclose()
        for task in waiting:
            with pytest.raises(Closed):
                await task


@pytest.mark.row("SC9")
@virtual
async def test_ten_producers_and_a_small_queue_lose_nothing():
    done: list[tuple[int, int]] = []

    async def note(*name):
        await asyncio.sleep(0.01)
        done.append(name)

    async def produce(number):
        for piece in range(50):
            await scheduler.submit_when_room(note, number, piece)

    async with Scheduler(config(4, max_queued=3)) as scheduler:
        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(produce(number))
        await scheduler.drain()
        check_over(scheduler)
    assert sorted(done) == [(number, piece) for number in range(10) for piece in range(50)]


@pytest.mark.row("SC9")
@virtual
async def test_room_that_is_made_by_a_deadline_or_a_delay_that_ends_is_seen():
    gate = Gate()
    async with Scheduler(config(max_queued=1)) as scheduler:
        scheduler.submit(gate)
        await turns()
        scheduler.submit(value, deadline=2.0)
        async with asyncio.timeout(10):
            task = await scheduler.submit_when_room(value, 7)
        assert task.submitted_at == 2.0
        gate.open()
        assert await task == 7
