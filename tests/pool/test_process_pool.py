"""`ProcessPool` with real processes, on both loops: leases, waiters, bad use, recycling, size."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest

from procession import Command, ConfigError, Priority, ProcessRegistry, SpawnError
from procession.errors import StateError
from procession.events import PoolScaled, WorkerLeased, WorkerReleased
from procession.pool import (
    AcquireTimeout,
    LeaseError,
    PoolClosed,
    PoolConfig,
    PoolExhausted,
    ProcessPool,
    SlotState,
    WorkerLoss,
    WorkerLost,
    WorkerStartError,
)

pytestmark = [pytest.mark.both_loops, pytest.mark.row("PO1")]

ECHO = Command(sys.executable, "-I", "-S", "-c", "import os\nwhile 1: print(os.getpid(), input(), flush=True)", grace=1)
CAT = Command("cat", grace=1)
ONE = PoolConfig(min_size=1, max_size=1)
TWO = PoolConfig(min_size=2, max_size=2)


async def test_a_worker_is_leased_and_comes_back():
    async with ProcessPool(CAT, ONE) as pool:
        async with pool.acquire(timeout=2.0, priority=Priority.HIGH) as worker:
            assert await worker.request("2^64") == "2^64"
            pid = worker.pid
            figures = pool.statistics()
            assert (figures.busy, figures.idle, figures.running) == (1, 0, 1)
        worker = await pool.acquire()
        assert worker.pid == pid
        await worker.send_line("a")
        assert await worker.receive_line() == "a"
        await worker.send(b"b\n")
        assert await worker.receive() == b"b\n"
        pool.release(worker)
        assert worker.is_released
        assert pool.statistics().ok == 2
        await pool.release(await pool.acquire())  # as other pools ask for
        await (await pool.acquire()).release()
        await (await pool.acquire()).discard()
        assert pool.stats().ok == 5
        await pool.close()
        with pytest.raises(PoolClosed):
            await pool.acquire()


async def test_everybody_gets_one_and_nobody_the_same_at_once():
    held: set[int] = set()
    async with ProcessPool(CAT, PoolConfig(min_size=1, max_size=3)) as pool:

        async def use(n):
            async with pool.acquire() as worker:
                assert worker.pid not in held
                held.add(worker.pid)
                assert await worker.request(str(n)) == str(n)
                held.discard(worker.pid)

        await asyncio.gather(*(use(n) for n in range(60)))
        assert pool.statistics().ok == 60
        assert pool.statistics().size <= 3


@pytest.mark.row("PO7")
async def test_waiters_are_served_by_priority_then_in_order():
    async with ProcessPool(CAT, ONE) as pool:
        order = []

        async def use(name, priority):
            async with pool.acquire(priority=priority):
                order.append(name)

        async with pool.acquire():
            tasks = []
            for name, priority in (("l", 3), ("n", 2), ("h1", 1), ("h2", 1), ("c", 0)):
                tasks.append(asyncio.create_task(use(name, priority)))
                await asyncio.sleep(0)
            assert pool.statistics().waiting == 5
        await asyncio.gather(*tasks)
        assert order == ["c", "h1", "h2", "n", "l"]


@pytest.mark.row("PO7")
async def test_a_waiter_cancelled_while_it_is_handed_a_worker_passes_it_on():
    async with ProcessPool(CAT, ONE) as pool:
        first = await pool.acquire()
        doomed = asyncio.create_task(pool._acquire(None, 2))
        heir = asyncio.create_task(pool._acquire(None, 2))
        await asyncio.sleep(0)
        pool.release(first)  # granted to the first in line ...
        doomed.cancel()  # ... who is cancelled before it wakes up
        with pytest.raises(asyncio.CancelledError):
            await doomed
        async with asyncio.timeout(2):
            lease = await heir
        lease.release()


@pytest.mark.row("PO7")
async def test_wrong_use_of_leases_is_told():
    async with ProcessPool(CAT, ONE) as pool, ProcessPool(CAT, ONE, name="other") as other:
        lease = await pool.acquire()
        with pytest.raises(LeaseError, match="belongs to the pool processes"):
            other.release(lease)
        pool.release(lease)
        for wrong in (lambda: pool.release(lease), lease.release, lease.discard, lambda: lease.pid):
            with pytest.raises(LeaseError):
                wrong()
        for call in (lease.request("x"), lease.send_line("x"), lease.receive_line(), lease.receive(), lease.send(b"x")):
            with pytest.raises(LeaseError):
                await call
        with pytest.raises(ConfigError):
            pool.release(3)  # type: ignore[arg-type]
        assert issubclass(LeaseError, StateError)
        asked = pool.acquire()
        async with asked as again:
            with pytest.raises(LeaseError, match="entered already"):
                await asked.__aenter__()
            assert await again.request("still whole") == "still whole"
        async with asked as again:
            assert await again.request("once more") == "once more"
        assert pool.statistics().running == 0


async def test_waiting_too_long_says_for_what():
    async with ProcessPool(CAT, ONE) as pool, pool.acquire():
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(timeout=0.05)
        assert (caught.value.phase, caught.value.timeout) == ("waiting", 0.05)
        assert isinstance(caught.value, TimeoutError)

    async def never(worker):
        await worker.receive_line()

    async with ProcessPool(CAT, PoolConfig(min_size=0, max_size=1), ready=never) as pool:
        with pytest.raises(AcquireTimeout) as caught:
            async with pool.acquire(timeout=0.3):
                pass
        assert caught.value.phase == "starting"

    checking = asyncio.Event()

    async def long_check(worker):
        checking.set()
        await worker.receive_line()

    config = ONE.replace(health_check=long_check, health_interval=0.05, health_timeout=1)
    async with ProcessPool(CAT, config) as pool:
        await checking.wait()
        with pytest.raises(AcquireTimeout) as caught:
            await pool.acquire(timeout=0.05)
        assert caught.value.phase == "checking"


async def test_no_more_wait_than_may():
    async with ProcessPool(CAT, ONE.replace(max_waiting=0)) as pool:
        async with pool.acquire():
            with pytest.raises(PoolExhausted):
                await pool.acquire()
        async with pool.acquire():
            pass


@pytest.mark.row("PO6")
async def test_the_death_of_a_worker_is_told_to_who_has_it_and_it_is_replaced():
    script = "read x; echo oops >&2; exit 3"
    async with ProcessPool(Command("sh", "-c", script), ONE) as pool:
        for _ in range(3):
            with pytest.raises(WorkerLost) as caught:
                async with pool.acquire(timeout=5) as worker:
                    await worker.request("x")
            assert caught.value.exit is not None
            assert (caught.value.exit.returncode, caught.value.cause) == (3, WorkerLoss.EXITED)
            assert "oops" in caught.value.stderr_tail
        assert pool.statistics().errors == 3


@pytest.mark.row("PO6")
async def test_a_process_that_closes_its_pipes_is_replaced():
    async with ProcessPool(Command("sh", "-c", "read x; exec >&- <&-; exec sleep 1000", grace=0.1), ONE) as pool:
        with pytest.raises(WorkerLost) as caught:  # noqa: PT012
            async with pool.acquire() as worker:
                pid = worker.pid
                await worker.request("x")
        assert caught.value.cause is WorkerLoss.CUT_OFF
        async with pool.acquire(timeout=5) as worker:
            assert worker.pid != pid


@pytest.mark.row("PO6")
async def test_an_idle_process_that_dies_is_replaced_before_anybody_has_it():
    async with ProcessPool(CAT, TWO) as pool:
        for worker in list(pool._fleet):
            os.kill(worker.process.pid, signal.SIGKILL)
            await worker.gone
        for n in range(5):
            async with pool.acquire(timeout=5) as worker:  # type: ignore[assignment]
                assert await worker.request(str(n)) == str(n)  # type: ignore[attr-defined]


@pytest.mark.row("PO6")
async def test_a_process_that_died_a_moment_ago_is_given_to_nobody():
    async with ProcessPool(CAT, TWO) as pool:
        async with pool.acquire() as worker:
            victim = worker.pid
        os.kill(victim, signal.SIGKILL)
        os.waitid(os.P_PID, victim, os.WEXITED | os.WNOWAIT)  # it has ended, and the loop had no turn to hear of it
        async with pool.acquire() as worker:
            assert worker.pid != victim
            assert await worker.request("x") == "x"

        lease = await pool.acquire()
        others = [await pool.acquire()]
        waiting = asyncio.create_task(use(pool))
        await asyncio.sleep(0)
        os.kill(lease.pid, signal.SIGKILL)
        os.waitid(os.P_PID, lease.pid, os.WEXITED | os.WNOWAIT)
        lease.release()
        async with asyncio.timeout(10):
            await waiting
        others[0].release()


@pytest.mark.row("PO11")
async def test_who_waits_for_a_pool_that_fails_to_begin_is_told():
    async def never(worker):
        await asyncio.sleep(0.05)
        raise KeyError("no greeting")

    pool = ProcessPool(CAT, ONE, ready=never)
    entering = asyncio.create_task(pool.__aenter__())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(use(pool))
    with pytest.raises(WorkerStartError):
        await entering
    with pytest.raises(PoolClosed):
        async with asyncio.timeout(10):
            await waiting


async def test_a_lease_that_ended_badly_is_not_given_to_the_next():
    async with ProcessPool(CAT, ONE) as pool:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with pool.acquire() as worker:
                pid = worker.pid
                await worker.send_line("half a conversation")
                raise ZeroDivisionError
        async with pool.acquire(timeout=5) as worker:
            assert worker.pid != pid
            assert await worker.request("whole") == "whole"

    async def reset(worker):
        await worker.send_line("reset")
        while await worker.receive_line() != "reset":
            pass

    async with ProcessPool(CAT, ONE, reset=reset) as pool:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with pool.acquire() as worker:
                pid = worker.pid
                await worker.send_line("half a conversation")
                raise ZeroDivisionError
        async with pool.acquire(timeout=5) as worker:
            assert worker.pid == pid
            assert await worker.request("whole") == "whole"


async def test_programs_that_do_not_work_are_told():
    with pytest.raises(SpawnError):
        async with ProcessPool(Command("/nowhere/at/all"), ONE):
            pass

    async def greeting(worker):
        assert await worker.receive_line() == "hello"

    with pytest.raises(WorkerStartError) as caught:
        async with ProcessPool(Command("sh", "-c", "echo bad >&2; exit 4"), ONE, ready=greeting):
            pass
    assert caught.value.exit is not None
    assert caught.value.exit.returncode == 4
    with pytest.raises(WorkerStartError, match="not ready after"):
        async with ProcessPool(CAT, ONE.replace(start_timeout=0.2), ready=greeting):
            pass
    async with ProcessPool(Command("sh", "-c", "exit 5"), PoolConfig(min_size=0, max_size=1)) as pool:
        with pytest.raises((WorkerStartError, WorkerLost)) as seen:  # noqa: PT012
            async with asyncio.timeout(20):
                while True:
                    async with pool.acquire() as worker:
                        await worker.receive_line()
        assert seen.value.exit is not None  # type: ignore[attr-defined]
        assert seen.value.exit.returncode == 5  # type: ignore[attr-defined]


def test_bad_input_is_refused():
    for wrong in (
        lambda: ProcessPool("cat"),  # type: ignore[arg-type]
        lambda: ProcessPool(CAT, 3),  # type: ignore[arg-type]
        lambda: ProcessPool(CAT, name=""),
        lambda: ProcessPool(CAT, ready=3),  # type: ignore[arg-type]
        lambda: PoolConfig(min_size=-1),
        lambda: PoolConfig(min_size=3, max_size=2),
        lambda: PoolConfig(max_size=0),
        lambda: PoolConfig(idle_timeout=float("nan")),
        lambda: PoolConfig(env={"A=B": "1"}),
        lambda: PoolConfig(env={"A": "x\0y"}),
        lambda: PoolConfig(bogus=1),  # type: ignore[call-arg]
        lambda: ProcessPool(CAT).acquire(timeout=-1),
        lambda: ProcessPool(CAT).acquire(priority="high"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError):
            wrong()


@pytest.mark.row("PO4")
async def test_the_size_can_be_changed_within_its_limits():
    async with ProcessRegistry() as registry:
        async with ProcessPool(CAT, PoolConfig(min_size=1, max_size=3), registry=registry) as pool:
            assert len(registry) == 1
            assert await pool.scale_up(5) == 3
            assert len(registry) == 3
            assert await pool.scale_down() == 2
            assert await pool.resize(0) == 1
            for _ in range(200):
                if len(registry) == 1:
                    break
                await asyncio.sleep(0.01)
            assert len(registry) == 1
            for n in (0, -1, 1.5):
                with pytest.raises(ConfigError):
                    await pool.scale_up(n)  # type: ignore[arg-type]
        scaled = [(event.old, event.new) for event in registry.history(PoolScaled)]  # type: ignore[attr-defined]
        assert scaled == [(1, 3), (3, 2), (2, 1)]


@pytest.mark.row("PO4")
@pytest.mark.parametrize("somebody_waits", [False, True])
async def test_leased_workers_that_are_too_many_go_when_they_come_back(somebody_waits):
    config = PoolConfig(min_size=1, initial_size=4, max_size=4, autoscale=False, idle_timeout=None, health_check=None)
    async with ProcessPool(CAT, config) as pool:
        leases = [await pool.acquire() for _ in range(4)]
        waiting = [asyncio.create_task(use(pool)) for _ in range(20 * somebody_waits)]
        await asyncio.sleep(0)
        assert await pool.scale_down(3) == 1
        for lease in leases:
            assert await lease.request("still here") == "still here"
            lease.release()
        await asyncio.gather(*waiting)
        async with asyncio.timeout(10):
            while pool.statistics().destroyed < 3:
                await asyncio.sleep(0.01)
        assert pool.statistics().size == 1


async def use(pool):
    async with pool.acquire() as worker:
        await worker.request("x")


async def test_the_workers_and_where_they_stand_can_be_seen():
    never = asyncio.Event()

    async def ready(worker):
        if begun:
            await never.wait()

    begun = False
    pool = ProcessPool(CAT, PoolConfig(min_size=2, max_size=3), ready=ready)
    assert not pool.workers
    async with pool:
        begun = True
        async with pool.acquire() as worker:
            states = {each.pid: each.state for each in pool.workers}
            assert states.pop(worker.pid) == "busy"
            assert list(states.values()) == ["idle"]
            assert {each.uses for each in pool.workers} == {0, 1}
            scaling = asyncio.create_task(pool.scale_up())
            await asyncio.sleep(0)
            assert [each.state for each in pool.workers].count(SlotState.STARTING) == 1
            scaling.cancel()
            worker.discard()
            assert SlotState.STOPPING in {each.state for each in pool.workers}
    assert not pool.workers


async def test_leases_are_events():
    async with ProcessRegistry() as registry, ProcessPool(CAT, ONE, registry=registry, name="cats") as pool:
        async with pool.acquire() as worker:
            who = worker.id
        (leased,) = registry.history(WorkerLeased)
        (released,) = registry.history(WorkerReleased)
        assert (leased.id, leased.pool, released.id) == (who, "cats", who)  # type: ignore[attr-defined]


@pytest.mark.row("PO5")
async def test_workers_are_replaced_when_they_are_worn_out():
    async with ProcessPool(CAT, ONE.replace(max_uses=2)) as pool:
        pids = []
        for _ in range(6):
            async with pool.acquire(timeout=5) as worker:
                pids.append(worker.pid)
        assert len(set(pids)) == 3
        assert pids[0] == pids[1] != pids[2]
    async with ProcessPool(CAT, ONE.replace(max_lifetime=0.2)) as pool:
        seen: set[int] = set()
        async with asyncio.timeout(10):
            while len(seen) < 3:
                async with pool.acquire(timeout=5) as worker:
                    seen.add(worker.pid)
                await asyncio.sleep(0.02)


@pytest.mark.row("PO5")
@pytest.mark.row("PO5")
async def test_the_old_go_though_somebody_always_waits():
    config = PoolConfig(min_size=1, max_size=1, max_lifetime=0.1, lifetime_jitter=0, health_check=None)
    async with ProcessPool(CAT, config) as pool:
        most = 0

        async def insatiable():
            nonlocal most
            while pool.statistics().created < 6:
                await use(pool)
                figures = pool.statistics()
                most = max(most, figures.active + figures.starting)

        async with asyncio.timeout(20):
            await asyncio.gather(*(insatiable() for _ in range(4)))
        assert most <= 2  # one, and the one that takes its place
        assert pool.statistics().failed == 0


async def test_idle_workers_go_and_the_unwell_too():
    config = PoolConfig(min_size=1, max_size=3, idle_timeout=0.1)
    async with ProcessPool(CAT, config) as pool:
        assert await pool.scale_up(2) == 3
        async with asyncio.timeout(5):
            while pool.statistics().active > 1:
                await asyncio.sleep(0.02)

    async def unwell(worker):
        return await worker.request("well?") == "yes"

    async with ProcessPool(CAT, ONE.replace(health_check=unwell, health_interval=0.1)) as pool:
        first = next(iter(pool._fleet)).process.pid
        async with asyncio.timeout(5):
            while {worker.process.pid for worker in pool._fleet} in ({first}, set()):
                await asyncio.sleep(0.02)


@pytest.mark.row("PO11")
async def test_closing_waits_for_leases_or_does_not():
    loop = asyncio.get_running_loop()
    pool = await ProcessPool(CAT, ONE).__aenter__()
    lease = await pool.acquire()
    waiting = asyncio.create_task(pool._acquire(None, 2))
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.aclose())
    with pytest.raises(PoolClosed):
        await waiting
    assert not closing.done()
    assert await lease.request("still mine") == "still mine"
    lease.release()
    await closing
    with pytest.raises(PoolClosed):
        await pool.acquire()
    pool = await ProcessPool(Command("sh", "-c", "trap '' TERM; cat", grace=30), ONE).__aenter__()
    lease = await pool.acquire()
    began = loop.time()
    await pool.aclose(cancel=True)
    assert loop.time() - began < 3
    lease.release()
