"""The helpers on which every clean-up stands."""

import asyncio
from collections.abc import Callable

import pytest

from procession._core.aio import Latch, finish, first_call, settle, wait_until


async def test_finish_gives_the_result():
    async def work():
        await asyncio.sleep(0)
        return 5

    assert await finish(work()) == 5


async def test_finish_raises_what_the_work_raises():
    async def work():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish(work())


@pytest.mark.parametrize("times", [1, 2, 5])
async def test_finish_absorbs_cancels_until_the_work_is_done_and_raises_one(times):
    gate, done = asyncio.Event(), []

    async def work():
        await gate.wait()
        done.append(1)

    task = asyncio.create_task(finish(work()))
    for _ in range(times):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


async def test_a_cancel_wins_over_an_error_which_becomes_its_context():
    gate = asyncio.Event()

    async def work():
        await gate.wait()
        raise ZeroDivisionError

    task = asyncio.create_task(finish(work()))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert isinstance(caught.value.__context__, ZeroDivisionError)


async def test_settle_hands_the_cancel_back():
    future = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(settle(future))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    future.set_result(7)
    result, cancelled = await task
    assert result == 7
    assert isinstance(cancelled, asyncio.CancelledError)
    assert await settle(future) == (7, None)


async def test_a_latch_opens_any_number_of_times():
    latch = Latch()
    latch.open()
    latch.open()
    await latch


async def test_first_call():
    callbacks: list[Callable[[], None]] = []
    task = asyncio.create_task(first_call(callbacks.append))
    await asyncio.sleep(0)
    callbacks[0]()
    callbacks[0]()
    await task


async def test_wait_until_neither_cancels_nor_consumes():
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    assert not await wait_until(future, loop.time())
    assert not future.done()
    future.set_exception(ZeroDivisionError())
    assert await wait_until(future, loop.time())
    assert isinstance(future.exception(), ZeroDivisionError)
