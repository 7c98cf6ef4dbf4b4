"""Alerts about real processes that really misbehave."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from procession import Command, FunctionPool, PoolConfig, ProcessRegistry, Scheduler, spawn
from procession.events import AlertRaised, AlertResolved
from procession.monitor import AlertType, MonitorConfig, ResourceLimits, ResourceMonitor, Rule, Severity
from tests.monitor.support import alert_of, program, until
from tests.programs import pool_functions as work

FAST = MonitorConfig(interval=0.05, network=False)
ONCE: Any = {"for_samples": 1, "clear_samples": 1}


@pytest.mark.row("MO4")
@pytest.mark.parametrize(
    ("what", "limits", "kind"),
    [
        (("burn",), {"max_cpu_percent": 5}, "cpu_high"),
        (("grow", 50, 0), {"max_memory_mb": 40}, "memory_high"),
        (("grow", 50, 0), {"max_memory_percent": 0.01}, "memory_high"),
        (("files", 100), {"max_file_descriptors": 50}, "file_descriptors_high"),
        (("threads", 20), {"max_threads": 10}, "threads_high"),
        (("wait",), {"max_idle_seconds": 0.2}, "idle"),
        (("wait",), {"heartbeat_timeout": 0.2}, "process_hung"),
    ],
)
async def test_a_process_that_takes_more_than_it_may_is_an_alert(what, limits, kind) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with monitor.alerts() as alerts:
            async with spawn(program(*what), registry=registry, name="subject") as process:
                monitor.watch(process, limits=ResourceLimits(**limits, **ONCE))
                alert = await anext(alerts)
                assert (alert.type, alert.process, alert.target) == (kind, process.id, "subject")
                assert alert.is_active
                event: Any
                (event,) = registry.history(AlertRaised)
                assert (event.id, event.alert, event.kind) == (process.id, alert.id, kind)
            over: Any
            (over,) = registry.history(AlertResolved)
            assert (over.alert, over.how) == (alert.id, "ended")


@pytest.mark.row("MO4")
async def test_bytes_written_above_a_limit_are_an_alert(tmp_path) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with monitor.alerts() as alerts:
            async with spawn(program("write", tmp_path / "file", 5), registry=registry) as process:
                monitor.watch(process, limits=ResourceLimits(max_disk_mb=2, **ONCE))
                assert (await anext(alerts)).type is AlertType.DISK_HIGH


@pytest.mark.row("MO4")
async def test_memory_that_is_given_back_resolves_its_alert_and_taking_it_again_counts() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with monitor.alerts(resolved=True) as alerts:
            async with spawn(program("saw", 60), registry=registry) as process:
                lines = process.lines()
                assert await anext(lines) == "ready"
                monitor.watch(process, limits=ResourceLimits(max_memory_mb=50, **ONCE))
                assert process.stdin is not None
                for count in (1, 2):
                    await process.stdin.write(b"\n")
                    raised = await anext(alerts)
                    assert (raised.is_active, raised.count) == (True, count)
                    await process.stdin.write(b"\n")
                    over = await anext(alerts)
                    assert (over.id, over.resolution) == (raised.id, "cleared")


@pytest.mark.row("MO4")
@pytest.mark.row("MO7")
async def test_a_leak_is_told_from_a_sawtooth() -> None:
    config = MonitorConfig(interval=0.03, network=False, trend_window=1.0)
    limits = ResourceLimits(max_memory_growth_mb_per_hour=100, **ONCE)

    async def move(process, lines, until_done) -> None:
        while not until_done.is_set():
            await process.stdin.write(b"\n")
            await anext(lines)
            await asyncio.sleep(0.04)

    done = asyncio.Event()
    async with ProcessRegistry() as registry, ResourceMonitor(config, registry=registry) as monitor:
        async with (
            spawn(program("grow", 0, 2), registry=registry, name="leaks") as leaks,
            spawn(program("saw", 20), registry=registry, name="saws") as saws,
        ):
            lines = [leaks.lines(), saws.lines()]
            for process, said in zip((leaks, saws), lines, strict=True):
                assert await anext(said) == "ready"
                monitor.watch(process, limits=limits)
            monitor.add_rule(
                Rule("rises", lambda s: s.trend.memory_slope_mb_per_hour > 50, for_seconds=0.5, ids=["saws"])
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(move(leaks, lines[0], done))
                group.create_task(move(saws, lines[1], done))
                await until(monitor, lambda: monitor.history("leaks") and monitor.trend("saws").seconds > 0.9)
                await asyncio.sleep(0.5)
                done.set()
            (alert,) = monitor.history("leaks")
            assert alert.type is AlertType.MEMORY_LEAK
            assert monitor.history("saws") == []


@pytest.mark.row("MO4")
async def test_a_stopped_process_is_hung_and_a_killed_one_is_down() -> None:
    config = FAST.replace(hung_after=0.2)
    async with ProcessRegistry() as registry, ResourceMonitor(config, registry=registry) as monitor:
        with monitor.alerts(resolved=True) as alerts:
            async with spawn(program("wait"), registry=registry, name="web") as process:
                os.kill(process.pid, signal.SIGSTOP)
                hung = await anext(alerts)
                assert (hung.type, hung.severity) == (AlertType.PROCESS_HUNG, Severity.CRITICAL)
                os.kill(process.pid, signal.SIGCONT)
                assert (await anext(alerts)).id == hung.id
                os.kill(process.pid, signal.SIGKILL)
                down = await alert_of(monitor, alerts, type=AlertType.PROCESS_DOWN)
                assert down.message == "web is down: SIGKILL"
            async with spawn(program("wait"), registry=registry, name="web"):
                up = await alert_of(monitor, alerts, is_active=False)
                assert (up.id, up.resolution) == (down.id, "recovered")


@pytest.mark.row("MO4")
async def test_stopping_on_purpose_is_no_alert() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("wait"), registry=registry) as process:
            monitor.watch(process)
            await process.stop()
        async with spawn(Command("sleep", "60"), registry=registry) as process:
            monitor.watch(process)
        assert monitor.history() == []


@pytest.mark.row("MO3")
@pytest.mark.row("MO4")
async def test_pools_and_schedulers_answer_and_their_errors_are_alerts() -> None:
    config = FAST.replace(application_window=30.0)
    limits = ResourceLimits(max_error_rate=0.4, max_response_time=60.0, min_answers=4, **ONCE)
    async with ProcessRegistry() as registry, ResourceMonitor(config, registry=registry) as monitor:
        async with (
            FunctionPool(PoolConfig(max_size=1), registry=registry, name="sums") as pool,
            Scheduler(registry=registry) as scheduler,
        ):
            with monitor.alerts() as alerts:
                monitor.watch_owner("sums", limits=limits)
                for _ in range(3):
                    assert await pool.run(work.add, 1, kwargs={"b": 2}) == 3
                for _ in range(3):
                    with pytest.raises(ZeroDivisionError):
                        await pool.run(divmod, 1, 0)
                alert = await alert_of(monitor, alerts, type=AlertType.ERROR_RATE_HIGH)
                assert (alert.process, alert.value) == ("sums", 0.5)
            figures = monitor.application("sums")
            assert (figures.successes, figures.errors, figures.error_rate) == (3, 3, 0.5)
            assert figures.response_time is not None
            assert 0 < figures.response_time < 30
            assert figures.throughput > 0
            (worker,) = registry.find(owner="sums", name="worker")
            assert monitor.application(worker.id).answers == 6
            assert (await monitor.sample(worker)).error_rate == 0.5
            await scheduler.submit(Command("true"))
            await scheduler.drain()
            assert monitor.application("scheduler").successes == 1
            assert monitor.application("scheduler").waiting.count == 1
