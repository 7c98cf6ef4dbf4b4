"""What is detached outlives its block, and is still accounted for: no zombie, one exit, one event."""

import asyncio
import os
import signal
import threading
from functools import partial

import pytest

from procession import (
    Command,
    ConfigError,
    PidfdLauncher,
    ProcessExited,
    ProcessRegistry,
    SpawnError,
    SpawnFailure,
    run,
    spawn,
)
from procession._launch._live import in_flight
from procession.testing import slow_spawn
from tests.programs import alive, eventually, state

pytestmark = pytest.mark.row("PR11")


async def test_its_end_after_the_block_is_told_to_the_registry():
    async with ProcessRegistry() as registry:
        async with registry.subscribe(ProcessExited) as events:
            async with spawn(Command("sleep", "1000", detach=True), registry=registry) as process:
                pass
            assert registry.get(process.id).state == "running"
            os.kill(process.pid, signal.SIGKILL)
            event = await anext(events)
            assert isinstance(event, ProcessExited)
            assert (event.id, event.exit.signal) == (process.id, signal.SIGKILL)
            assert await process.wait() == -signal.SIGKILL
            assert len(registry) == 0
        assert state(process.pid) == ""


async def test_it_may_end_after_the_loop():
    """Nobody is left to be told; it must be reaped all the same."""
    pids: list[int] = []

    async def main():
        async with spawn(Command("sleep", "1000", detach=True)) as process:
            pids.append(process.pid)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
    assert alive(pids[0])
    os.kill(pids[0], signal.SIGKILL)
    await eventually(lambda: state(pids[0]) == "")


def test_it_cannot_be_contained_by_what_needs_the_cookie():
    with pytest.raises(ConfigError):
        Command("x", detach=True, contain="tree")


def _is_reaped(pid):
    return state(pid) == ""


async def test_its_end_is_seen_though_a_spawn_hangs():
    """Somebody else takes over when the thread that makes children hangs, also the watch over those let go of."""
    with slow_spawn(5, times=1):
        hanging = asyncio.create_task(run(Command("true"), launcher=PidfdLauncher(spawn_timeout=0.05)))
        with pytest.raises(SpawnError) as caught:
            await hanging
        assert caught.value.reason is SpawnFailure.TIMEOUT
        for _ in range(10):
            async with spawn(Command("sleep", "1000", detach=True)) as process:
                pass
            os.kill(process.pid, signal.SIGKILL)
            await eventually(partial(_is_reaped, process.pid))
    await eventually(lambda: in_flight() == 0)
