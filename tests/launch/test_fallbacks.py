"""Older kernels, forced: no signal to a group through a pidfd (before 6.9), and no pidfds at all."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from procession import (
    AsyncioLauncher,
    Command,
    ConfigError,
    PidfdLauncher,
    Process,
    default_launcher,
    run,
    spawn,
)
from procession._linux import _pidfd
from procession.testing import slow_spawn
from tests.chaos.support import alive, child, watching


async def facts(process: Process) -> dict[str, int]:
    found: dict[str, int] = json.loads(await anext(aiter(process.lines("stdout"))))
    return found


def no() -> bool:
    return False


@pytest.fixture
def no_group_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pidfd, "has_group_signal", no)


@pytest.fixture
def no_pidfd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(_pidfd, "has_pidfd", no)
    monkeypatch.setattr(_pidfd, "has_group_signal", no)
    default_launcher.cache_clear()
    yield
    default_launcher.cache_clear()


KINDS = ["plain", "stubborn", "setsid", "quiet_setsid", "daemon", "stopped", "group"]


@pytest.mark.usefixtures("no_group_signal")
class TestWithoutGroupSignal:
    @pytest.mark.parametrize("kind", KINDS)
    async def test_stop_ends_the_tree(self, kind: str) -> None:
        async with spawn(child(kind)) as process:
            pids = await facts(process)
            with watching({name: pid for name, pid in pids.items() if alive(pid)}) as watch:
                report = await process.stop(0.05)
                assert report.is_clean, report
                assert watch.left(within=1.0) == set()
                assert report.duration < 2.0

    async def test_a_natural_end_asks_the_rest_of_the_group_first(self) -> None:
        async with spawn(child("polite_group")) as process:
            pids = await facts(process)
            assert await process.wait() == 0
            with watching({"group": pids["group"]}) as watch:
                report = await process.stop(5.0)
                assert (report.forced, report.is_clean) == (False, True)
                assert report.signalled == ("SIGTERM",)
                assert report.duration < 1.0
                assert watch.left(within=1.0) == set()

    async def test_a_block_left_after_a_natural_end_ends_the_rest_of_the_group_at_once(self) -> None:
        loop = asyncio.get_running_loop()
        async with spawn(child("polite_group", grace=5.0)) as process:
            pids = await facts(process)
            assert await process.wait() == 0
            began = loop.time()
        assert not alive(pids["group"])
        assert loop.time() - began < 4.0  # its grace period would be 5

    @pytest.mark.xfail(strict=True, reason="the group of a reaped leader is only signalled by a stop on such a kernel")
    async def test_a_signal_to_the_tree_reaches_the_group_of_a_reaped_leader(self) -> None:
        async with spawn(child("polite_group")) as process:
            pids = await facts(process)
            await process.wait()
            with watching({"group": pids["group"]}) as watch:
                await process.signal_tree("TERM")
                assert watch.left(within=1.0) == set()


@pytest.mark.usefixtures("no_pidfd")
class TestWithoutPidfd:
    async def test_the_fallback_is_chosen_and_said(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, "procession"):
            assert isinstance(default_launcher(), AsyncioLauncher)
            assert isinstance(default_launcher(), AsyncioLauncher)
        assert [record.message for record in caplog.records] == [
            "no pidfds here: falling back to one waiting thread per child"
        ]
        with pytest.raises(ConfigError, match="AsyncioLauncher"):
            PidfdLauncher()

    @pytest.mark.parametrize("kind", KINDS)
    async def test_stop_ends_the_tree(self, kind: str) -> None:
        async with spawn(child(kind)) as process:
            assert process.pidfd is None
            pids = await facts(process)
            with watching({name: pid for name, pid in pids.items() if alive(pid)}) as watch:
                report = await process.stop(0.05)
                assert report.is_clean, report
                assert watch.left(within=1.0) == set()

    async def test_run_and_wait_and_signals(self) -> None:
        assert (await run(Command("cat"), input=b"data")).stdout == b"data"
        async with spawn(Command("sleep", "1000")) as process:
            process.kill()
            assert await process.wait() == -signal.SIGKILL
            with pytest.raises(ProcessLookupError):
                process.kill()

    async def test_a_status_taken_by_somebody_else_is_lost_not_invented(self) -> None:
        async with spawn(child("plain")) as process:
            await facts(process)
            before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            try:
                process.kill()
                assert await process.wait() is None
                assert process.exit is not None
                assert process.exit.is_lost
            finally:
                signal.signal(signal.SIGCHLD, before)

    async def test_cancelled_while_the_kernel_takes_its_time(self) -> None:
        with slow_spawn(0.1):
            task = asyncio.get_running_loop().create_task(run(Command("sleep", "1000")))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_a_detached_child_of_the_portable_engine_leaves_no_descriptor() -> None:
    async with spawn(child("detached", detach=True), launcher=AsyncioLauncher()) as process:
        pids = await facts(process)
    waiters = [thread for thread in threading.enumerate() if thread.name == f"procession-wait-{process.pid}"]
    assert alive(pids["detached"])
    os.kill(pids["detached"], signal.SIGKILL)
    for thread in waiters:
        await asyncio.to_thread(thread.join, 5)
