"""Recurring tasks that run real commands, by the real clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from procession import Command
from procession.scheduler import Scheduler, SchedulerConfig, TaskState

pytestmark = [pytest.mark.both_loops, pytest.mark.row("SC8")]


def config(slots: int = 4) -> SchedulerConfig:
    return SchedulerConfig(max_concurrent_tasks=slots, resources={})


async def until(condition, timeout: float = 20.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_command_runs_again_and_again(tmp_path):
    notes = tmp_path / "notes"
    async with Scheduler(config()) as scheduler:
        begun = asyncio.get_running_loop().time()
        one = scheduler.every(0.1, Command("sh", "-c", f"echo run >> {notes}"), id="note")
        await until(lambda: one.runs == 5)
        assert asyncio.get_running_loop().time() - begun >= 0.5 - 0.005  # timers of uvloop count milliseconds
        assert one.cancel()
        await scheduler.drain()
        assert one.last is not None
        assert one.last.id == "note-5"
        assert (await one.last).returncode == 0
    assert notes.read_text() == "run\n" * 5
    assert one.failures == 0


async def test_each_run_gets_its_input_and_failures_are_counted():
    async with Scheduler(config()) as scheduler:
        reading = scheduler.every(0.05, Command("cat"), input=b"again")
        failing = scheduler.every(0.05, Command("false"))
        await until(lambda: reading.runs >= 3 and failing.failures >= 2)
        reading.cancel()
        failing.cancel()
        await scheduler.drain()
        assert reading.last is not None
        assert (await reading.last).stdout == b"again"
        assert reading.failures == 0
        assert failing.last is not None
        assert failing.last.state is TaskState.FAILED


async def test_a_long_run_is_not_overtaken_and_ends_with_the_scheduler():
    async with Scheduler(config()) as scheduler:
        one = scheduler.every(0.05, Command("sleep", "1000"))
        await until(lambda: one.skipped >= 3)
        assert one.runs == 1
        assert one.last is not None
        await until(lambda: one.last is not None and one.last.process is not None)
    assert one.last.cancelled()
    assert not one.active


async def test_replacing_stops_the_process_before():
    async with Scheduler(config()) as scheduler:
        one = scheduler.every(0.3, Command("sleep", "1000"), overlap="replace", first_delay=0)
        await until(lambda: one.runs == 1 and one.last is not None and one.last.process is not None)
        first = one.last
        assert first is not None
        await until(lambda: one.runs == 2)
        assert await first.wait() is TaskState.CANCELLED
        second = one.last
        assert second is not None
        assert second is not first
        one.cancel(running=True)
        await scheduler.drain()
        assert second.cancelled()


async def test_a_cron_runs_when_its_minute_comes():
    ahead = 60 - time.time() % 60 - 0.2  # the next minute begins in 0.2 s
    async with Scheduler(config(), wall=lambda: time.time() + ahead) as scheduler:
        one = scheduler.cron("* * * * *", Command("true"))
        await until(lambda: one.last is not None)
        assert (time.time() + ahead) % 60 < 30
        one.cancel()
        assert one.last is not None
        assert (await one.last).returncode == 0
    assert (one.runs, one.missed) == (1, 0)
