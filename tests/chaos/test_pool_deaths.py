"""The death matrix of pools: ways to die × where. One worker's death is one call's problem."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from procession import ProcessRegistry
from procession.pool import (
    CallTimeout,
    FunctionPool,
    PoisonedTask,
    PoolConfig,
    WorkerLoss,
    WorkerLost,
    WorkerStartError,
)
from tests.programs import pool_functions as work

pytestmark = [pytest.mark.both_loops, pytest.mark.row("PO6")]

TWO = PoolConfig(min_size=2, max_size=2)
WAYS = {
    "kill": (WorkerLoss.KILLED, -9),
    "segfault": (WorkerLoss.CRASHED, -11),
    "abort": (WorkerLoss.CRASHED, -6),
    "_exit": (WorkerLoss.EXITED, 7),
    "exit": (WorkerLoss.EXITED, 3),
    "close": (WorkerLoss.CUT_OFF, -9),
    "garbage": (WorkerLoss.GARBLED, -9),
    "header": (WorkerLoss.GARBLED, -9),
    "half": (WorkerLoss.EXITED, 1),
    "noise": (WorkerLoss.KILLED, -9),
}
PLACES = {
    "running": lambda pool, how: pool.run(work.die, how),
    "reading": lambda pool, how: pool.run(work.echo, work.DiesWhenRead(how)),
    "replying": lambda pool, how: pool.run(work.dies_replying, how),
}


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("method", ["template", "spawn"])
async def test_a_death_takes_along_one_call(how, place, method):
    cause, code = WAYS[how]
    async with FunctionPool(TWO.replace(start_method=method, on_output=lambda _: None)) as pool:
        await asyncio.gather(*(pool.run(work.echo, n) for n in range(20)))  # their pace is known: they wait at workers
        before = [pool.submit(work.echo, n) for n in range(30)]
        dying = asyncio.create_task(PLACES[place](pool, how))
        after = [pool.submit(work.echo, n) for n in range(30)]
        with pytest.raises(WorkerLost) as caught:
            async with asyncio.timeout(10):
                await dying
        assert caught.value.cause is cause
        if how not in ("garbage", "header", "half"):  # they write over all they find, also over the mark
            assert caught.value.phase == place
        assert caught.value.exit is not None
        assert caught.value.exit.returncode == code
        if how == "noise":
            assert "last words" in caught.value.stderr_tail
        assert await asyncio.gather(*before) == list(range(30))
        assert await asyncio.gather(*after) == list(range(30))
        assert pool.statistics().lost == 1


@pytest.mark.parametrize("how", ["kill", "_exit", "segfault", "garbage"])
async def test_it_is_tried_again_when_that_was_asked_for(how, tmp_path):
    async with FunctionPool(TWO) as pool:
        assert await pool.run(work.die_once, str(tmp_path / "mark"), how, retries=1) == "survived"
        assert pool.statistics().retried == 1


async def test_a_call_that_ends_every_worker_is_not_tried_for_ever():
    async with FunctionPool(TWO) as pool:
        healthy = [pool.submit(work.echo, n) for n in range(50)]
        with pytest.raises(PoisonedTask) as caught:
            await pool.run(work.die, "kill", retries=100)
        assert len(caught.value.deaths) == 3
        assert {death.cause for death in caught.value.deaths} == {WorkerLoss.KILLED}
        assert await asyncio.gather(*healthy) == list(range(50))
        assert await pool.run(work.echo, 1) == 1


async def test_what_was_running_is_never_silently_run_twice(tmp_path):
    trace = tmp_path / "trace"
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        await pool.run(work.touch, str(trace))
        calls = [pool.submit(work.touch, str(trace)) for _ in range(20)]
        worker = await pool.run(work.pid)
        await asyncio.gather(*calls)
        assert len(trace.read_text()) == 21
        trace.unlink()
        running = pool.submit(work.touch_and_sleep, str(trace), 100)
        waiting = [pool.submit(work.touch, str(trace)) for _ in range(20)]
        while not trace.exists():
            await asyncio.sleep(0.01)
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await running
        await asyncio.gather(*waiting)
        assert len(trace.read_text()) == 21


async def test_an_idle_worker_that_dies_is_replaced_and_nobody_notices():
    async with FunctionPool(TWO) as pool:
        for _ in range(3):
            victims = {worker.process.pid for worker in pool._dispatcher.fleet}  # type: ignore[union-attr]
            assert len(victims) == 2
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            assert await asyncio.gather(*(pool.run(work.echo, n) for n in range(10))) == list(range(10))
        assert pool.statistics().lost == 0


async def test_a_worker_that_dies_while_it_starts_is_tried_again(tmp_path):
    mark = str(tmp_path / "mark")
    config = PoolConfig(min_size=0, max_size=1, initializer=work.die_once, initargs=(mark, "kill"))
    async with FunctionPool(config) as pool:
        assert await pool.run(work.echo, 5) == 5
        assert pool.statistics().failed == 1


async def test_workers_that_cannot_start_are_told_to_those_who_wait():
    config = PoolConfig(min_size=0, max_size=2, initializer=work.begin_and_die)
    async with FunctionPool(config) as pool:
        for _ in range(2):
            with pytest.raises(WorkerStartError) as caught:
                async with asyncio.timeout(20):
                    await pool.run(work.echo, 5)
            assert caught.value.exit is not None
            assert caught.value.exit.returncode == 9


async def test_a_storm_of_crashes_backs_off():
    loop = asyncio.get_running_loop()
    async with FunctionPool(TWO.replace(poison_after=100)) as pool:
        began = loop.time()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await pool.run(work.die, "_exit", retries=99)
        created = pool.statistics().created
        print(f"{created} workers in {loop.time() - began:.1f} s")
        assert created < 15


# ------------------------------------------------------------------------------- time-outs, cancellation


async def test_a_timeout_kills_the_call_with_all_it_started(tmp_path):
    note = tmp_path / "pid"
    loop = asyncio.get_running_loop()
    async with FunctionPool(TWO) as pool:
        others = [pool.submit(work.sleep, 0.5) for _ in range(1)]
        began = loop.time()
        with pytest.raises(CallTimeout) as caught:
            await pool.run(work.spawn_child, str(note), timeout=1.0)
        assert loop.time() - began < 2.5
        assert (caught.value.phase, caught.value.timeout) == ("running", 1.0)
        child = int(note.read_text())
        assert isinstance(caught.value, TimeoutError)
        assert await asyncio.gather(*others) == [0.5]
        assert await pool.run(work.echo, 1) == 1
    assert gone(child)


async def test_a_timeout_while_waiting_kills_nobody():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        who = await pool.run(work.pid)
        running = pool.submit(work.sleep, 0.5)
        with pytest.raises(CallTimeout) as caught:
            await pool.run(work.echo, 1, timeout=0.1)
        assert caught.value.phase == "waiting"
        assert await running == 0.5
        assert await pool.run(work.pid) == who


async def test_a_hung_call_does_not_hold_up_the_next_one():
    loop = asyncio.get_running_loop()
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        with pytest.raises(CallTimeout):
            await pool.run(work.sleep, 1000, timeout=0.2)
        began = loop.time()
        assert await pool.run(work.echo, 1) == 1
        assert loop.time() - began < 5.0  # a new worker is made meanwhile; the hung call would take 1000 seconds


async def test_a_late_reply_reaches_nobody_else():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        for n in range(20):
            with suppress(CallTimeout):
                await pool.run(work.sleep, 0.02, timeout=0.02)
            assert await pool.run(work.echo, n) == n


async def test_when_a_cancelled_call_has_returned_nothing_of_it_runs(tmp_path):
    note = tmp_path / "pid"
    async with FunctionPool(TWO) as pool:
        task = asyncio.create_task(pool.run(work.spawn_child, str(note)))
        while not (note.exists() and note.read_text()):
            await asyncio.sleep(0.01)
        (worker,) = [worker for worker in pool._dispatcher.fleet if worker.pending]  # type: ignore[union-attr]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gone(worker.process.pid)
        assert await pool.run(work.echo, 1) == 1
    assert gone(int(note.read_text()))


async def test_cancelled_calls_that_wait_are_forgotten():
    async with FunctionPool(PoolConfig(min_size=1, max_size=1)) as pool:
        who = await pool.run(work.pid)
        await asyncio.gather(*(pool.run(work.echo, 1) for _ in range(20)))
        running = pool.submit(work.sleep, 0.3)
        waiting = [pool.submit(work.echo, n) for n in range(50)]
        await asyncio.sleep(0)
        for future in waiting[::2]:
            future.cancel()
        assert await running == 0.3
        assert await asyncio.gather(*waiting[1::2]) == list(range(1, 50, 2))
        assert await pool.run(work.pid) == who
        assert pool.statistics().cancelled == 25


async def test_a_stopped_worker_is_found_out():
    config = PoolConfig(min_size=1, max_size=1, health_interval=0.1, health_timeout=0.2)
    async with FunctionPool(config) as pool:
        who = await pool.run(work.pid)
        os.kill(who, signal.SIGSTOP)
        async with asyncio.timeout(10):
            while await pool.run(work.pid, retries=2) == who:
                pass
        who = await pool.run(work.pid)
        running = pool.submit(work.sleep, 100)
        await asyncio.sleep(0.05)
        os.kill(who, signal.SIGSTOP)
        with pytest.raises(WorkerLost) as caught:
            async with asyncio.timeout(10):
                await running
        assert caught.value.cause is WorkerLoss.HUNG


@pytest.mark.parametrize("how", ["timeout", "cancel"])
async def test_a_stopped_worker_holds_up_nobody_who_gives_up_on_it(how):
    config = PoolConfig(min_size=1, max_size=1, health_check=None)
    async with asyncio.timeout(20):
        async with FunctionPool(config) as pool:
            who = await pool.run(work.pid)
            os.kill(who, signal.SIGSTOP)
            if how == "timeout":
                with pytest.raises(CallTimeout):
                    await pool.run(work.pid, timeout=0.1)
            else:
                given_up = pool.submit(work.pid)
                await asyncio.sleep(0.05)
                given_up.cancel()
            assert await pool.run(work.pid) != who
            os.kill(await pool.run(work.pid), signal.SIGSTOP)
            given_up = pool.submit(work.pid)
            await asyncio.sleep(0.05)
            given_up.cancel()
            await asyncio.sleep(0)


async def test_a_template_that_dies_is_replaced():
    async with FunctionPool(TWO) as pool:
        starter = pool._dispatcher.starter  # type: ignore[union-attr]
        template = starter.template
        assert template is not None
        os.kill(template._spawning.process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        for n in range(4):
            with pytest.raises(WorkerLost) as caught:
                await pool.run(work.die, "_exit")
            assert caught.value.cause in (WorkerLoss.EXITED, WorkerLoss.UNKNOWN)
            assert await pool.run(work.echo, n) == n
        assert starter.template is not template


async def test_templates_that_die_leave_nothing_while_the_pool_lives():
    async with ProcessRegistry() as registry, FunctionPool(TWO, registry=registry) as pool:
        counts = []
        for _ in range(3):
            (template,) = registry.find(name="template")
            os.kill(template.pid, signal.SIGKILL)  # type: ignore[arg-type]
            await registry.wait_for(template.id, "exited")
            while not registry.find(name="template", state="running"):  # it is missed when a worker is to be made
                with pytest.raises(WorkerLost):
                    await pool.run(work.die, "_exit")
                assert await pool.run(work.echo, 1) == 1
            while pool.statistics().idle < 2:
                await asyncio.sleep(0.01)
            counts.append(sum(1 for _ in Path("/proc/self/fd").iterdir()))
        assert max(counts) <= min(counts) + 1


async def test_a_template_that_stands_still_is_given_up_and_hides_no_end():
    async with ProcessRegistry() as registry:
        async with FunctionPool(TWO, registry=registry) as pool:
            assert await pool.run(work.echo, 1) == 1
            (template,) = registry.find(name="template")
            victim = registry.find(name="worker")[0]
            os.kill(template.pid, signal.SIGSTOP)  # type: ignore[arg-type]
            os.kill(victim.pid, signal.SIGKILL)  # type: ignore[arg-type]
            await registry.wait_for(victim.id, "exited")
            await registry.wait_for(template.id, "exited")
            assert await pool.run(work.echo, 2) == 2
        assert len(registry) == 0
        async with FunctionPool(TWO, registry=registry) as pool:
            (template,) = registry.find(name="template")
            os.kill(template.pid, signal.SIGSTOP)  # type: ignore[arg-type]
        assert len(registry) == 0


@pytest.mark.timeout(120)
@pytest.mark.slow
@pytest.mark.parametrize("calls", [2000])
async def test_workers_killed_all_the_time_lose_nothing_that_is_retried(calls):
    """L4: calls under fire."""
    loop = asyncio.get_running_loop()
    kills = 0
    async with FunctionPool(PoolConfig(min_size=4, max_size=4, preload=[work.__name__])) as pool:
        stop = False

        async def fire():
            nonlocal kills
            while not stop:
                await asyncio.sleep(0.1)
                workers = list(pool._dispatcher.fleet)  # type: ignore[union-attr]
                if workers:
                    with suppress(ProcessLookupError):
                        os.kill(workers[kills % len(workers)].process.pid, signal.SIGKILL)
                        kills += 1

        firing = asyncio.create_task(fire())
        gate = asyncio.Semaphore(32)

        async def one(n):
            async with gate:
                await asyncio.sleep(0)
                assert await pool.run(work.add, n, retries=5) == n + 1
                assert await pool.run(work.sleep_pid, 0.002, retries=5) > 0

        began = loop.time()
        await asyncio.gather(*(one(n) for n in range(calls // 2)))
        stop = True
        await firing
        took = loop.time() - began
        figures = pool.statistics()
        print(f"{calls} calls, {kills} kills, {figures.lost} lost and retried, {took:.1f} s")
        assert figures.errors == 0
        assert figures.ok == calls
