"""What a monitor leaves behind, what it costs the loop, and what cannot bring it down."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import threading
import time
import weakref

import psutil
import pytest

from procession import Command, ProcessRegistry, run, spawn
from procession.monitor import MonitorConfig, ResourceMonitor, Rule, actions
from procession.testing import fd_limit
from tests.monitor.support import until

pytestmark = pytest.mark.row("MO1")

FAST = MonitorConfig(interval=0.05, network=False)


def threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("procession-monitor")]


async def test_its_thread_and_its_files_end_with_it() -> None:
    assert threads() == []
    before = psutil.Process().num_fds()
    async with ProcessRegistry() as registry, spawn(Command("sleep", "60"), registry=registry) as process:
        held = psutil.Process().num_fds()
        async with ResourceMonitor(MonitorConfig(interval=0.05), registry=registry) as monitor:
            await monitor.sample(process)
            assert len(threads()) == 1
            assert monitor.statistics().open_files == 5
            assert psutil.Process().num_fds() >= held + 5
        assert threads() == []
        assert psutil.Process().num_fds() == held
    assert psutil.Process().num_fds() <= before + 2


async def test_files_of_ended_processes_are_closed() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(Command("sleep", "60"), registry=registry) as process:
            await monitor.sample(process)
            assert monitor.statistics().open_files == 5
        await monitor._fresh()
        assert monitor.statistics().open_files == 0


async def test_a_monitor_whose_loop_is_gone_ends_its_thread() -> None:
    program = (
        "import asyncio\n"
        "from procession.monitor import ResourceMonitor\n"
        "async def main():\n"
        "    monitor = await ResourceMonitor().__aenter__()\n"
        "    await asyncio.sleep(0.1)\n"
        "    raise SystemExit(3)\n"
        "asyncio.run(main())\n"
    )
    completed = await run(Command(sys.executable, "-c", program, timeout=40))
    assert completed.returncode == 3, completed.error_text


async def test_no_more_descriptors_are_kept_open_than_allowed() -> None:
    config = FAST.replace(max_open_files=11)
    async with ProcessRegistry() as registry, ResourceMonitor(config, registry=registry) as monitor:
        async with asyncio.TaskGroup() as group:
            gate = asyncio.Event()

            async def one() -> None:
                async with spawn(Command("sleep", "60"), registry=registry):
                    await gate.wait()

            for _ in range(5):
                group.create_task(one())
            await until(monitor, lambda: sum(watch.latest is not None for watch in monitor.watched) == 5)
            assert monitor.statistics().open_files == 10
            gate.set()


async def test_without_any_descriptor_left_it_goes_on_later() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(Command("sleep", "60"), registry=registry) as process:
            with fd_limit(0):
                await monitor._fresh()
                await monitor._fresh()
                assert monitor.watched[0].is_active
            assert (await monitor.sample(process)).rss_mb is not None


async def test_processes_that_come_and_go_while_they_are_looked_at() -> None:
    config = MonitorConfig(interval=0.01, tree=True, budget=1.0)
    ends = 0

    def ended(event: object) -> None:
        nonlocal ends
        ends += 1

    async with ProcessRegistry() as registry, ResourceMonitor(config, registry=registry) as monitor:
        turn = asyncio.Semaphore(8)

        async def one(number: int) -> None:
            async with turn:
                await run(Command("sh", "-c", f"sleep 0.0{number % 5} & wait"), registry=registry)
                ended(number)

        await asyncio.gather(*(one(number) for number in range(100)))
        assert ends == 100
        assert monitor.watched == ()
        assert monitor.history() == []
        await monitor._fresh()
        assert monitor.statistics().open_files == 0
        assert monitor.statistics().rounds > 3


async def test_killing_everybody_at_once_is_one_event_each() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        gate = asyncio.Event()

        async def one(number: int) -> None:
            async with spawn(Command("sleep", "60"), registry=registry, name=f"s{number}") as process:
                await gate.wait()
                process.kill()
                await process.wait()

        async with asyncio.TaskGroup() as group:
            for number in range(40):
                group.create_task(one(number))
            await until(monitor, lambda: sum(watch.latest is not None for watch in monitor.watched) == 40)
            gate.set()
        assert {alert.target for alert in monitor.active_alerts} == {f"s{number}" for number in range(40)}


async def test_nothing_is_kept_of_a_closed_monitor() -> None:
    async with ProcessRegistry() as registry:
        async with ResourceMonitor(FAST, registry=registry) as monitor:
            monitor.add_rule(Rule("r", lambda s: True))
            monitor.on_alert("info", actions.suspend())
        seen = weakref.ref(monitor)
        del monitor
        await asyncio.sleep(0)
        gc.collect()
        assert seen() is None


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_the_loop_is_not_held_up_by_many_processes() -> None:
    many = 300
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft >= 2048
    stalls: list[float] = []
    async with ProcessRegistry(journal_size=0) as registry:
        gate, ready = asyncio.Event(), asyncio.Semaphore(0)

        async def one() -> None:
            async with spawn(Command("sleep", "600", stdout="null", stderr="null"), registry=registry):
                ready.release()
                await gate.wait()

        async with asyncio.TaskGroup() as group:
            for _ in range(many):
                group.create_task(one())
            for _ in range(many):
                await ready.acquire()
            config = MonitorConfig(interval=0.2, network=False, budget=1.0)
            async with ResourceMonitor(config, registry=registry) as monitor:
                monitor.add_rule(Rule("r", lambda s: (s.rss_mb or 0) > 1e9))
                await until(monitor, lambda: sum(watch.latest is not None for watch in monitor.watched) == many)
                end = time.monotonic() + 2.0
                while time.monotonic() < end:
                    before = time.monotonic()
                    await asyncio.sleep(0.001)
                    stalls.append(time.monotonic() - before - 0.001)
                figures = monitor.statistics()
            gate.set()
    stalls.sort()
    p99 = stalls[int(len(stalls) * 0.99)]
    print(
        f"\n{many} processes: loop lag p99 {p99 * 1e3:.2f} ms, round {figures.round_cost / many * 1e6:.1f} µs per process"
    )
    assert figures.watched == many
    assert p99 < 0.1  # a generous bound; the benchmark has the figure
