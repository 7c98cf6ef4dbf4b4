"""The asyncio tasks that do the work, one piece after the other."""

import asyncio
import contextvars
import gc
from typing import Any

import pytest

from procession.errors import TaskCancelled
from procession.scheduler import Preemption, Scheduler
from tests.scheduler.support import Gate, check_over, config, failing, nap, turns, value, virtual

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody's")


@pytest.mark.row("SC1")
@virtual
async def test_runners_are_used_again_and_there_are_no_more_than_places():
    seen: set[asyncio.Task[Any] | None] = set()

    async def who():
        seen.add(asyncio.current_task())
        await asyncio.sleep(0.1)

    async with Scheduler(config(3)) as scheduler:
        for _ in range(30):
            scheduler.submit(who)
        await scheduler.drain()
        await asyncio.sleep(1)
        for _ in range(3):
            scheduler.submit(who)
        await scheduler.drain()
        assert len(seen) == 3


@pytest.mark.row("SC1")
@virtual
async def test_what_work_leaves_in_an_empty_context_is_seen_by_nobody_after_it():
    async def leave(waits):
        if waits:
            await asyncio.sleep(0.1)
        VARIABLE.set("left")
        return VARIABLE.get()

    async def look():
        return VARIABLE.get()

    async with Scheduler(config()) as scheduler:
        submit = contextvars.Context().run
        left = [submit(scheduler.submit, leave, waits) for waits in (False, True, False)]
        looks = [submit(scheduler.submit, look) for _ in range(5)]
        left.append(submit(scheduler.submit, leave, True, kwargs={}, timeout=5))
        looks.append(submit(scheduler.submit, look))
        await scheduler.drain()
        assert [task.result() for task in left] == ["left"] * 4
        assert [task.result() for task in looks] == ["nobody's"] * 6


@pytest.mark.row("SC1")
async def test_a_long_row_of_work_that_never_waits_does_not_hold_up_the_loop():
    loop = asyncio.get_running_loop()
    turns_of_the_loop = 0
    handle = asyncio.Handle(print, (), loop)

    def tick():
        nonlocal turns_of_the_loop, handle
        turns_of_the_loop += 1
        handle = loop.call_soon(tick)

    async def busy():
        sum(range(2_000))

    async with Scheduler(config()) as scheduler:
        scheduler.submit_many([busy] * 3000)
        tick()
        await scheduler.drain()
        handle.cancel()
    assert turns_of_the_loop > 20, "it had its turn again and again"


@pytest.mark.row("SC1")
@virtual
async def test_a_runner_that_is_cancelled_from_outside_while_it_idles_is_replaced():
    async with Scheduler(config()) as scheduler:
        runners: list[asyncio.Task[Any] | None] = []

        async def note():
            runners.append(asyncio.current_task())

        await scheduler.submit(note)
        await turns()
        assert runners[0] is not None
        runners[0].cancel()
        await turns()
        await scheduler.submit(note)
        assert runners[1] is not runners[0]
        runners[1].cancel() if runners[1] else None
        late = scheduler.submit(note)  # given to it before its cancellation has come through
        assert await late.wait() in ("succeeded", "cancelled")
        await scheduler.submit(note)
        check_over(scheduler)


@pytest.mark.row("SC11")
@virtual
async def test_a_cancellation_never_reaches_the_next_work():
    async with Scheduler(config(2)) as scheduler:
        for turn in range(12):
            doomed = [scheduler.submit(nap, 1.0) for _ in range(2)]
            innocent = [scheduler.submit(nap, 0.5, number) for number in range(4)]
            for _ in range(turn % 4):
                await asyncio.sleep(0)
            if turn >= 8:
                await asyncio.sleep(1.0)  # at the very time they end
            for task in doomed:
                task.cancel()
            assert [await task for task in innocent] == [0, 1, 2, 3]
            for task in doomed:
                assert await task.wait() in ("cancelled", "succeeded")
        check_over(scheduler)


@pytest.mark.row("SC1")
@virtual
async def test_each_attempt_and_each_callback_of_the_loop_has_the_context_of_the_submitter():
    seen: list[str] = []

    async def note():
        loop.call_soon(lambda: seen.append(VARIABLE.get()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    async with Scheduler(config(preemption=Preemption.REQUEUE)) as scheduler:
        VARIABLE.set("a")
        first = scheduler.submit(note)
        VARIABLE.set("b")
        second = scheduler.submit(note)
        VARIABLE.set("c")
        await first
        await second
    assert seen == ["a", "b"]


@pytest.mark.row("SC1")
@virtual
async def test_work_that_yields_what_is_no_future_fails_alone():
    class Odd:
        def __await__(self):
            yield 7

    async def odd():
        await Odd()

    async with Scheduler(config()) as scheduler:
        wrong, right = scheduler.submit(odd), scheduler.submit(nap, 1, "well")
        with pytest.raises(RuntimeError, match="yield"):
            await wrong
        assert await right == "well"


@pytest.mark.row("SC1")
@virtual
async def test_an_awaitable_that_is_no_coroutine_is_awaited_too():
    class Slow:
        def __await__(self):
            yield from asyncio.sleep(1).__await__()
            return "slow"

    async with Scheduler(config()) as scheduler:
        assert await scheduler.submit(lambda: Slow()) == "slow"  # noqa: PLW0108 - a class is refused


@pytest.mark.row("SC11")
def test_a_loop_that_is_thrown_away_with_everything_in_it_makes_no_noise(recwarn):
    tasks: list[Any] = []

    async def start():
        scheduler = Scheduler(config())
        await scheduler.__aenter__()
        gate = Gate()
        tasks.extend(scheduler.submit(gate, number) for number in range(3))
        await turns()

    asyncio.run(start())  # cancels what is left, as asyncio does, and nobody closes the scheduler
    assert tasks[0].state == "cancelled"
    with pytest.raises(TaskCancelled):
        tasks[0].result()
    tasks.clear()
    gc.collect()
    assert not recwarn.list


@pytest.mark.row("SC1")
@virtual
async def test_an_error_of_work_is_kept_by_its_handle_only():
    import weakref

    class Odd(Exception):
        pass

    error = Odd()
    ref = weakref.ref(error)
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(failing, error)
        await task.wait()
        del error
        await scheduler.submit(value)
        assert ref() is task.exception()
        del task
        await scheduler.submit(value)
        gc.collect()
        assert ref() is None
