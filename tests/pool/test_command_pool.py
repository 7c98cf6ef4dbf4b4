"""`CommandPool` with real commands, on both loops."""

from __future__ import annotations

import asyncio

import pytest

from procession import Command, ConfigError, ExecutionTimeout, ExitError, ProcessRegistry, SpawnError
from procession._core.backoff import RetryPolicy
from procession.pool import CommandPool, PoolClosed, PoolExhausted

pytestmark = [pytest.mark.both_loops, pytest.mark.row("PO3")]


async def test_a_command_is_run_with_input():
    async with CommandPool(2) as pool:
        completed = await pool.execute(Command("sort"), input="b\na\n")
        assert completed.text == "a\nb\n"
        assert pool.statistics().ok == 1


async def test_no_more_run_at_once_than_may():
    async with ProcessRegistry() as registry, CommandPool(3, registry=registry, name="three") as pool:
        most = 0

        def count(_):
            nonlocal most
            most = max(most, len(registry.find(owner="three")))

        registry.listen(count)
        results = await asyncio.gather(*(pool.execute(Command("sh", "-c", f"exit {n}")) for n in range(12)))
        assert [completed.returncode for completed in results] == list(range(12))
        assert most == 3


@pytest.mark.row("PO7")
async def test_urgent_commands_go_first():
    async with CommandPool(1) as pool:
        order = []

        async def one(name, priority):
            await pool.execute(Command("true"), priority=priority)
            order.append(name)

        blocker = pool.submit(Command("sleep", "0.2"))
        await asyncio.sleep(0)
        await asyncio.gather(one("low", 255), one("usual", 128), one("high", 0), one("high too", 0))
        await blocker
        assert order == ["high", "high too", "usual", "low"]


async def test_wait_all_waits_for_all():
    async with CommandPool(4) as pool:
        tasks = [pool.submit(Command("sleep", "0.05")) for _ in range(10)]
        await pool.wait_all()
        assert all(task.done() for task in tasks)
        await pool.wait_all()


async def test_what_fails_is_tried_again(tmp_path):
    mark = tmp_path / "mark"
    flaky = Command("sh", "-c", f"echo x >> {mark}; test $(wc -l < {mark}) -ge 3")
    loop = asyncio.get_running_loop()
    async with CommandPool(2) as pool:
        began = loop.time()
        assert (await pool.execute(flaky, retries=5, retry_delay=0.05)).ok
        assert loop.time() - began >= 0.1
        assert mark.read_text() == "x\nx\nx\n"
        assert pool.statistics().retried == 2
        assert (await pool.execute(Command("false"), retries=1)).returncode == 1
        with pytest.raises(ExitError):
            await pool.execute(Command("false"), retries=1, check=True)
        policy = RetryPolicy(max_retries=2, initial_delay=0, on=(ExecutionTimeout,))
        before = pool.statistics().retried
        with pytest.raises(ExecutionTimeout):
            await pool.execute(Command("sleep", "60", grace=0.1), timeout=0.05, retries=policy)
        assert pool.statistics().retried - before == 2
        assert (await pool.execute(Command("false"), retries=policy)).returncode == 1


async def test_a_timeout_is_of_one_command_and_does_not_count_the_waiting():
    async with CommandPool(1) as pool:
        blocker = pool.submit(Command("sleep", "0.3"))
        await asyncio.sleep(0)
        assert (await pool.execute(Command("true"), timeout=0.25)).ok
        await blocker


async def test_cancelled_commands_give_their_place_away():
    async with CommandPool(1) as pool:
        running = asyncio.create_task(pool.execute(Command("sleep", "60", grace=0.1)))
        waiting = asyncio.create_task(pool.execute(Command("true")))
        last = asyncio.create_task(pool.execute(Command("true")))
        await asyncio.sleep(0.05)
        waiting.cancel()
        running.cancel()
        for task in (waiting, running):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert (await last).ok
        assert pool.statistics().cancelled == 2
        assert pool.statistics().busy == 0


async def test_bad_input_is_refused():
    for wrong in (
        lambda: CommandPool(0),
        lambda: CommandPool(1.5),  # type: ignore[arg-type]
        lambda: CommandPool(2, max_waiting=-1),
        lambda: CommandPool(2, name="a b"),
    ):
        with pytest.raises(ConfigError):
            wrong()
    async with CommandPool(1, max_waiting=0) as pool:
        for options in (
            {"priority": 256},
            {"priority": -1},
            {"retries": -1},
            {"timeout": float("inf")},
            {"retry_delay": float("nan")},
        ):
            with pytest.raises(ConfigError):
                await pool.execute(Command("true"), **options)
        with pytest.raises(ConfigError):
            await pool.execute("true")  # type: ignore[arg-type]
        with pytest.raises(SpawnError):
            await pool.execute(Command("/nowhere/at/all"))
        running = pool.submit(Command("sleep", "0.1"))
        await asyncio.sleep(0)
        with pytest.raises(PoolExhausted):
            await pool.execute(Command("true"))
        await running
    with pytest.raises(PoolClosed):
        await pool.execute(Command("true"))


@pytest.mark.row("PO4")
async def test_the_size_can_be_changed():
    async with CommandPool(1) as pool:
        tasks = [pool.submit(Command("sleep", "0.2")) for _ in range(4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pool.statistics().running == 1
        assert await pool.scale_up(3) == 4
        assert pool.statistics().running == 4
        assert await pool.scale_down(10) == 1
        await asyncio.gather(*tasks)


@pytest.mark.row("PO11")
async def test_closing_waits_or_cancels():
    async with CommandPool(1) as pool:
        tasks = [pool.submit(Command("sleep", "0.05")) for _ in range(3)]
    assert [task.result().returncode for task in tasks] == [0, 0, 0]
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with CommandPool(1) as pool:
            running = pool.submit(Command("sleep", "60", grace=0.1))
            waiting = pool.submit(Command("true"))
            await asyncio.sleep(0.05)
            raise ZeroDivisionError
    assert isinstance(running.exception(), PoolClosed)
    assert isinstance(waiting.exception(), PoolClosed)


@pytest.mark.row("PO11")
async def test_closing_at_once_is_told_to_callers_and_does_not_cancel_them():
    async def caller(pool, program):
        try:
            await pool.execute(program)
        except PoolClosed:
            await asyncio.sleep(0)  # goes on with something else
            task = asyncio.current_task()
            return task and task.cancelling()
        return None

    async with CommandPool(1) as pool:
        sleep = Command("sleep", "60", grace=0.1)
        callers = [asyncio.create_task(caller(pool, sleep)) for _ in range(3)]
        cancelled = asyncio.create_task(caller(pool, sleep))
        again = pool.submit(Command("false"), retries=1, retry_delay=60)
        while pool.statistics().busy < 1:
            await asyncio.sleep(0)
        unbegun = pool.submit(sleep)
        cancelled.cancel()
        await pool.aclose(cancel=True)
        assert await asyncio.gather(*callers) == [0, 0, 0]
        assert (await asyncio.gather(cancelled, return_exceptions=True))[0].__class__ is asyncio.CancelledError
        assert [type(task.exception()) for task in (again, unbegun)] == [PoolClosed, PoolClosed]


async def test_a_command_gets_its_input_by_either_name():
    async with CommandPool() as pool:
        assert (await pool.execute(Command("cat"), input_data=b"abc")).stdout == b"abc"
        with pytest.raises(ConfigError, match="input_data"):
            await pool.execute(Command("cat"), input="a", input_data="b")
        with pytest.raises(ExecutionTimeout):
            await pool.execute(Command("sleep", "60"), timeout="50ms")  # type: ignore[arg-type]


async def test_submit_refuses_before_anything_happens():
    async with CommandPool() as pool:
        for options in ({"priority": 256}, {"retries": -1}, {"timeout": -1}, {"retry_delay": "soon"}):
            with pytest.raises(ConfigError):
                pool.submit(Command("true"), **options)
        with pytest.raises(ConfigError):
            pool.submit("true")  # type: ignore[arg-type]
        assert pool.statistics().created == 0
