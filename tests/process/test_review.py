"""What breaks when several ask at once, when everything is cancelled, and when what is asked for is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from procession import Command, ConfigError, Exit, ProcessState, run, spawn
from procession._launch import _owner, _scanner, _spawner
from procession.process import Process


async def _first_line(process: Process) -> str:
    async for line in process.lines("stdout"):
        return line
    raise AssertionError("no line")


async def test_those_who_look_for_the_same_tree_at_once_hold_pidfds_of_their_own() -> None:
    """One pass serves them all; a descriptor closed twice may be somebody else's by then."""
    script = "setsid sleep 60 & setsid sleep 61 & echo ready; wait"
    async with spawn(Command.shell(script, grace=0.5)) as process:
        await _first_line(process)
        await asyncio.sleep(0.05)  # until setsid was called

        async def reach() -> int:
            return len(await process.signal_tree(signal.SIGWINCH))

        assert await asyncio.gather(*[reach() for _ in range(30)]) == [2] * 30


@pytest.mark.parametrize("after", [0.0, 0.02, 0.2])
async def test_a_stop_outlives_the_cancellation_of_all_tasks(after: float) -> None:
    """As programs do that end by cancelling whatever ``asyncio.all_tasks`` names."""
    processes: list[Process] = []

    async def work() -> None:
        async with spawn(Command.shell("trap '' TERM; echo ready; while :; do sleep 0.05; done", grace=0.3)) as process:
            processes.append(process)
            await _first_line(process)
            await process.stop()

    before = asyncio.all_tasks()
    task = asyncio.create_task(work())
    while not processes or processes[0].state is not ProcessState.STOPPING:
        await asyncio.sleep(0.005)
    await asyncio.sleep(after)
    for _ in range(2):
        for other in asyncio.all_tasks() - before:
            other.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((task,))
    assert task.cancelled()
    assert processes[0].exit == Exit(-signal.SIGKILL)
    assert processes[0].report is not None
    assert processes[0].report.is_clean


class _Refusing:
    """A registry whose entries raise when they hear of the child."""

    state = ProcessState.STARTING

    def __init__(self) -> None:
        self.pid = 0

    def register(self, command: Command, **_: Any) -> Any:
        return self

    def spawned(self, handle: Any, duration: float) -> None:
        self.pid = handle.pid
        raise LookupError("no")

    def failed(self, reason: str) -> None:
        raise AssertionError(reason)


async def test_a_child_the_registry_refuses_is_ended_before_the_error_goes_on() -> None:
    registry = _Refusing()
    with pytest.raises(LookupError):
        async with spawn(Command("sleep", "60"), registry=registry):
            raise AssertionError
    assert not Path(f"/proc/{registry.pid}").exists()
    with pytest.raises(LookupError):
        await run(Command("sleep", "60"), registry=registry)
    assert not Path(f"/proc/{registry.pid}").exists()


@pytest.mark.parametrize("limit", [0, -1])
async def test_no_bytes_at_a_time_is_refused_instead_of_looking_like_the_end(limit: int) -> None:
    async with spawn(Command("echo", "hello")) as process:
        assert process.stdout is not None
        with pytest.raises(ConfigError):
            await process.stdout.read(limit)
        assert await process.stdout.read() == b"hello\n"


async def test_a_tree_is_found_though_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with spawn(Command.shell("setsid sleep 60 & echo ready; wait", grace=0.5)) as process:
        await _first_line(process)
        await asyncio.sleep(0.05)
        monkeypatch.setattr(_scanner, "_queue", None)
        monkeypatch.setattr(threading.Thread, "start", refused)
        report = await process.stop()
    assert report.is_clean
    assert [ref.name for ref in report.escaped] == ["sleep"]


async def test_a_block_left_in_a_forked_child_leaves_the_process_alone() -> None:
    spawning = spawn(Command("sleep", "60"))
    async with spawning as process:
        home, spawning._home = spawning._home, -1  # as it looks from a child made by os.fork
        await spawning.__aexit__(None, None, None)
        spawning._home = home
        await asyncio.sleep(0.05)
        assert process.is_running


def test_loops_of_several_threads_that_come_at_once_share_one_owner_and_one_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owners: list[_owner.Owner] = []
    slow = threading.Event()

    class Slow(_owner.Owner):
        def __init__(self) -> None:
            super().__init__()
            slow.wait(0.05)

    class Counting(_spawner.Spawner):
        started = 0

        def _run(self, primary: bool) -> None:
            Counting.started += 1

    monkeypatch.setattr(_owner, "Owner", Slow)
    monkeypatch.setattr(_owner, "_owner", None)
    one = Counting()
    barrier = threading.Barrier(8)

    def come() -> None:
        barrier.wait()
        owners.append(_owner.owner())
        one._start()

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(one._wake_r)
    os.close(one._wake_w)
    assert len({id(owner) for owner in owners}) == 1
    assert Counting.started == 1


async def test_a_guardian_that_cannot_run_is_not_started_without_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _owner.owner().dismiss()
    popen, started = _spawner.popen, 0

    def broken(argv: list[str], **options: Any) -> Any:
        nonlocal started
        if _owner._MARK in argv:
            started += 1
            argv = ["/bin/false"]
        return popen(argv, **options)

    monkeypatch.setattr(_spawner, "popen", broken)
    async with spawn(Command("sleep", "60")):
        await asyncio.sleep(0.5)
        assert 1 < started <= 5
        monkeypatch.undo()
        assert (await run(Command("true"))).ok
        assert _owner.owner().guardian_pid is not None
    assert "keeps ending" in caplog.text


async def test_a_guardian_outlives_a_signal_that_comes_before_it_can_ignore_it() -> None:
    for _ in range(3):
        _owner.owner().dismiss()
        assert (await run(Command("true"))).ok
        pid = _owner.owner().guardian_pid
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        await asyncio.sleep(0.1)
        assert _owner.owner().guardian_pid == pid


async def test_a_cancellation_while_a_silent_process_may_still_end_by_itself_stops_it() -> None:
    processes: list[Process] = []

    async def work() -> None:
        script = "exec 1>&- 2>&-; trap '' TERM; while :; do sleep 0.05; done"
        async with spawn(Command.shell(script, grace=0.4)) as process:
            processes.append(process)
            async for _ in process.lines():
                pass
            reading.set()

    reading = asyncio.Event()
    task = asyncio.create_task(work())
    await reading.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert processes[0].exit == Exit(-signal.SIGKILL)
