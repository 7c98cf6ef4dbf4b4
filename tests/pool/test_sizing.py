"""Function pools change their size, and replace workers that are worn out, while calls go on."""

from __future__ import annotations

import asyncio
import time

import pytest

from procession import ProcessRegistry
from procession.events import PoolScaled
from procession.pool import FunctionPool, PoolConfig, suggest_size
from tests.programs import pool_functions as work

pytestmark = [pytest.mark.both_loops, pytest.mark.row("PO5")]


@pytest.mark.row("PO4")
async def test_a_pool_grows_with_its_backlog_and_shrinks_again():
    config = PoolConfig(min_size=1, max_size=4, cool_down=0.2, idle_timeout=None)
    async with ProcessRegistry() as registry, FunctionPool(config, registry=registry) as pool:
        assert pool.statistics().size == 1
        await asyncio.gather(*(pool.run(work.sleep, 0.1) for _ in range(20)))
        assert pool.statistics().size == 4
        async with asyncio.timeout(5):
            while pool.statistics().active > 1:
                await asyncio.sleep(0.02)
        reasons = [event.reason for event in registry.history(PoolScaled) if isinstance(event, PoolScaled)]
        assert reasons == ["backlog 20", "little to do", "little to do", "little to do"]


@pytest.mark.row("PO4")
async def test_idle_workers_above_the_minimum_go():
    async with FunctionPool(PoolConfig(min_size=1, max_size=3, idle_timeout=0.1)) as pool:
        assert await pool.scale_up(2) == 3
        assert pool.statistics().active == 3
        async with asyncio.timeout(5):
            while pool.statistics().active > 1:
                await asyncio.sleep(0.02)
        assert await pool.run(work.echo, 1) == 1


@pytest.mark.row("PO4")
async def test_a_pool_can_run_empty_and_starts_when_it_is_needed():
    for autoscale in (True, False):
        async with FunctionPool(PoolConfig(min_size=0, max_size=2, autoscale=autoscale)) as pool:
            assert pool.statistics().size == 0
            assert await pool.run(work.echo, 1) == 1


@pytest.mark.row("PO4")
async def test_without_the_rule_the_size_is_what_was_said():
    async with FunctionPool(PoolConfig(min_size=1, max_size=4, autoscale=False)) as pool:
        await asyncio.gather(*(pool.run(work.sleep, 0.02) for _ in range(20)))
        assert pool.statistics().size == 1
        assert await pool.resize(3) == 3
        assert pool.statistics().active == 3
        assert await pool.scale_down() == 2


async def test_workers_are_replaced_after_so_many_calls_and_no_call_is_lost():
    async with FunctionPool(PoolConfig(min_size=2, max_size=2, max_uses=50)) as pool:
        pids = await asyncio.gather(*(pool.run(work.pid) for _ in range(500)))
        counts = [pids.count(pid) for pid in set(pids)]
        assert max(counts) <= 50
        assert len(counts) >= 10
        assert pool.statistics().lost == 0


async def test_the_old_are_replaced_and_somebody_is_always_ready():
    config = PoolConfig(min_size=2, max_size=2, max_lifetime=0.3, lifetime_jitter=0.2)
    seen: set[int] = set()
    async with FunctionPool(config) as pool:
        async with asyncio.timeout(20):
            while len(seen) < 6:
                seen.add(await pool.run(work.pid))
                assert pool.statistics().active >= 2
                await asyncio.sleep(0.01)
        assert pool.statistics().lost == 0


async def test_those_that_grow_fat_are_replaced():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1, max_memory_mb=50)) as pool:
        first = await pool.run(work.grow, 10)
        assert await pool.run(work.grow, 80) == first
        async with asyncio.timeout(10):
            while await pool.run(work.pid) == first:
                await asyncio.sleep(0.02)
        assert pool.statistics().lost == 0


async def test_those_that_grow_fat_are_replaced_though_they_never_rest():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1, max_memory_mb=50, prefetch=0)) as pool:
        seen: set[int] = set()

        async def feed():
            async with asyncio.timeout(20):
                while len(seen) < 3:
                    seen.add(await pool.run(work.grow, 2))
                    assert pool.statistics().active <= 2

        await asyncio.gather(*(feed() for _ in range(4)))
        assert pool.statistics().lost == 0


async def test_a_check_of_ones_own_removes_who_fails_it():
    asked = []

    async def check(worker):
        asked.append(worker.id)
        return len(asked) > 1

    config = PoolConfig(min_size=1, max_size=1, health_check=check, health_interval=0.05)
    async with FunctionPool(config) as pool:
        first = await pool.run(work.pid)
        async with asyncio.timeout(10):
            while await pool.run(work.pid, retries=1) == first:
                await asyncio.sleep(0.02)
        assert len(set(asked)) >= 1


@pytest.mark.row("PO7")
async def test_short_calls_wait_at_workers_long_ones_do_not():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        for _ in range(20):
            await pool.run(abs, 1)
        (worker,) = pool._dispatcher.fleet  # type: ignore[union-attr]
        short = [pool.submit(abs, n) for n in range(30)]
        assert len(worker.pending) > 1
        await asyncio.gather(*short)
        await pool.run(work.sleep, 0.02)
        long = [pool.submit(work.sleep, 0.02) for _ in range(3)]
        assert len(worker.pending) == 1
        await asyncio.gather(*long)


@pytest.mark.row("PO7")
async def test_what_waits_behind_a_call_that_turns_out_long_goes_elsewhere():
    async with FunctionPool(PoolConfig(min_size=2, max_size=2)) as pool:
        for _ in range(20):
            await pool.run(work.sleep, 0)
        long = pool.submit(work.sleep, 2)  # expected to take no time at all
        short = [pool.submit(work.sleep, 0) for _ in range(40)]
        await asyncio.gather(*short)
        assert not long.done()
        long.cancel()


@pytest.mark.row("PO7")
async def test_answers_that_were_held_back_do_not_wait_for_a_call_that_turns_out_long():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        for _ in range(20):
            await pool.run(work.sleep, 0)
        for _ in range(5):
            short = [pool.submit(work.sleep, 0) for _ in range(10)]
            long = pool.submit(work.sleep, 0.5)
            await asyncio.gather(*short)
            assert not long.done()
            await long
            for _ in range(20):
                await pool.run(work.sleep, 0)


@pytest.mark.row("PO6")
async def test_answers_held_back_are_taken_after_those_sent_before_them_also_by_a_loop_that_lags():
    loop = asyncio.get_running_loop()
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        for _ in range(20):
            await pool.run(work.sleep, 0)
        # The answers to the first two are in the channel, the next three are held back, and nobody has read any of them
        # when the pool looks for calls that are stuck.
        short = [pool.submit(work.sleep, seconds) for seconds in (0.02, 0.002, 0, 0, 0)]
        long = pool.submit(work.sleep, 1)
        loop.call_later(0.004, time.sleep, 0.05)
        loop.call_later(0, time.sleep, 0.01)
        assert await asyncio.gather(*short) == [0.02, 0.002, 0, 0, 0]
        assert not long.done()
        assert await long == 1
        assert pool.statistics().created == 1


@pytest.mark.row("PO10")
async def test_the_figures_add_up():
    async with FunctionPool(PoolConfig(min_size=2, max_size=2)) as pool:
        figures = pool.statistics()
        assert (figures.size, figures.active, figures.idle, figures.busy, figures.created) == (2, 2, 2, 0, 2)
        await asyncio.gather(*(pool.run(work.sleep, 0.01) for _ in range(10)))
        with pytest.raises(ValueError, match="x"):
            await pool.run(work.fail, "x")
        running = [pool.submit(work.sleep, 0.2) for _ in range(3)]
        figures = pool.statistics()
        assert (figures.busy, figures.running, figures.waiting) == (2, 2, 1)
        assert (figures.ok, figures.errors) == (10, 1)
        assert figures.response.count == 10
        assert 0.01 <= figures.p50 <= figures.p99
        assert figures.mean > 0
        assert (figures.queue_length, figures.requests_ok, figures.requests_failed) == (1, 10, 1)
        assert pool.stats().ok == 10
        assert pool.suggest_size("io") == suggest_size("io") > suggest_size("cpu")
        await asyncio.gather(*running)
    figures = pool.statistics()
    assert (figures.size, figures.active, figures.created, figures.destroyed) == (0, 0, 2, 2)
