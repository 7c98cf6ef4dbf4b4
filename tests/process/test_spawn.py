"""spawn(): a child's life is a block. However the block is left, nothing of the child is left."""

import asyncio
import os
import pickle
import signal
from typing import Any

import pytest

from procession import Command, ConfigError, ExecutionTimeout, Process, ProcessRegistry, StateError, run, spawn
from tests.programs import alive, ended, eventually, first_line, program, sh, state

pytestmark = pytest.mark.row("PR3")


async def test_a_block_left_at_its_end_stops_the_child():
    async with spawn(Command("sleep", "1000")) as process:
        assert process.is_running
        assert process.returncode is None
    assert process.returncode == -signal.SIGTERM
    assert state(process.pid) == ""  # not even a zombie
    assert process.report is not None
    assert process.report.is_clean


async def test_a_block_left_by_an_exception_stops_the_child_first():
    async def body():
        async with spawn(program("ignore_term", grace=0.1)) as process:
            processes.append(process)
            await first_line(process)
            raise ZeroDivisionError

    processes: list[Process] = []
    with pytest.raises(ZeroDivisionError):
        await body()
    assert state(processes[0].pid) == ""
    assert processes[0].returncode == -signal.SIGKILL


async def test_a_block_left_by_return_stops_the_child():
    async def body():
        async with spawn(Command("sleep", "1000")) as process:
            return process.pid

    assert state(await body()) == ""


async def test_a_block_left_by_cancellation_stops_the_child_first():
    started = asyncio.Event()
    pids = []

    async def body():
        async with spawn(program("escape", "ignore", grace=0.1)) as process:
            pids.extend([process.pid, int(await first_line(process))])
            started.set()
            await process.wait()

    task = asyncio.create_task(body())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [alive(pid) for pid in pids] == [False, False]


async def test_a_cancel_while_leaving_waits_for_the_end_and_is_raised_once():
    entered = asyncio.Event()
    processes = []

    async def body():
        async with spawn(program("ignore_term", grace=0.2)) as process:
            processes.append(process)
            await first_line(process)
            entered.set()

    task = asyncio.create_task(body())
    await entered.wait()
    for _ in range(5):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes[0].returncode == -signal.SIGKILL


async def test_a_spawn_cancelled_in_flight_leaves_nothing():
    for turns in range(8):

        async def body():
            async with spawn(Command("sleep", "1000")):
                await asyncio.sleep(1000)

        task = asyncio.create_task(body())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_child_that_ended_keeps_its_own_exit():
    async with spawn(sh("exit 3")) as process:
        assert await process.wait() == 3
    assert process.returncode == 3
    assert process.report is None


async def test_a_child_whose_output_was_read_to_the_end_keeps_its_own_exit():
    async with spawn(sh("echo a; exit 3")) as process:
        assert [line async for line in process.lines()] == ["a"]
    assert process.returncode == 3


async def test_a_block_is_entered_once():
    block = spawn(Command("true"))
    async with block:
        pass
    with pytest.raises(StateError):
        async with block:
            pass


async def test_blocks_nest_and_end_from_the_inside():
    async with ProcessRegistry() as registry:
        async with spawn(Command("sleep", "1000"), registry=registry, name="outer"):
            async with spawn(Command("sleep", "1000"), registry=registry, name="inner"):
                assert len(registry) == 2
            assert [record.name for record in registry] == ["outer"]
        assert [record.name for record in registry.ended()] == ["inner", "outer"]


async def test_the_rest_of_the_group_ends_with_a_natural_exit():
    """PR10: at a natural exit the rest of the group is ended."""
    async with spawn(sh("sleep 1000 & echo $!")) as process:
        pid = int(await first_line(process))
        assert await process.wait() == 0
        assert alive(pid)
    assert not alive(pid)
    assert process.report is not None
    assert process.report.members == 1
    assert process.report.exit is not None
    assert process.report.exit.returncode == 0


async def test_a_rest_of_the_group_that_ignores_sigterm_ends_too():
    async with spawn(sh("(trap '' TERM; echo $(exec sh -c 'echo $PPID'); exec sleep 1000) &", grace=0.1)) as process:
        pid = int(await first_line(process))
        await process.wait()
    assert not alive(pid)
    assert process.report is not None
    assert process.report.forced


async def test_every_way_of_its_end_is_seen_while_a_grandchild_holds_the_pipes():
    """The exit is reported independently of the end of the pipes."""
    loop = asyncio.get_running_loop()
    async with spawn(program("escape", "ignore", "leave", grace=0.1)) as process:
        pid = int(await first_line(process))
        began = loop.time()
        assert await process.wait() == 0
        assert loop.time() - began < 1
        report = await process.stop()
        assert not alive(pid)
        assert [ref.pid for ref in report.escaped] == [pid]


# -------------------------------------------------------------------------------------------------------------- detach


@pytest.mark.row("PR11")
async def test_a_detached_child_lives_on_and_is_reaped_when_it_ends():
    async with ProcessRegistry() as registry:
        async with spawn(Command("sleep", "1000", detach=True), registry=registry) as process:
            pid = process.pid
        assert alive(pid)
        assert (await run(Command("true"))).ok
        os.kill(pid, signal.SIGKILL)  # ours, and not reaped before it is dead
        await eventually(lambda: state(pid) == "")
        assert registry.get(process.id).pid == pid


async def test_a_detached_child_lives_on_after_an_exception():
    with pytest.raises(ZeroDivisionError):
        async with spawn(Command("sleep", "1000", detach=True)) as process:
            raise ZeroDivisionError
    assert alive(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    await eventually(lambda: state(process.pid) == "")


async def test_a_detached_child_can_be_stopped_explicitly():
    async with spawn(Command("sleep", "1000", detach=True)) as process:
        report = await process.stop()
    assert report.is_clean
    assert process.returncode == -signal.SIGTERM


async def test_what_a_detached_child_left_in_its_group_lives_on():
    async with spawn(sh("sleep 1000 >/dev/null 2>&1 & echo $!", detach=True)) as process:
        pid = int(await first_line(process))
        await process.wait()
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)
    await ended(pid)


async def test_a_detached_child_carries_no_cookie():
    async with spawn(sh("env | grep -c ^PROCESSION_; exit 0", detach=True)) as process:
        assert await first_line(process) == "0"
        await process.wait()


# ------------------------------------------------------------------------------------------------------------- timeout


async def test_the_commands_timeout_ends_it_and_wait_says_so():
    async with spawn(Command("sleep", "1000", timeout=0.1)) as process:
        with pytest.raises(ExecutionTimeout) as caught:
            await process.wait()
        assert process.timed_out
        with pytest.raises(ExecutionTimeout):
            await process.wait()
    assert caught.value.timeout == 0.1
    assert process.returncode == -signal.SIGTERM
    assert pickle.loads(pickle.dumps(caught.value)).command == process.command


async def test_a_timeout_longer_than_the_child_does_nothing():
    async with spawn(Command("true", timeout=1000)) as process:
        assert await process.wait() == 0
    assert not process.timed_out


# --------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("field", ["id", "name", "owner"])
def test_names_are_checked(field):
    wrong: Any
    for wrong in ("", "a b", "-x", "a\nb", "x" * 65, 5):
        if wrong == "" and field == "owner":
            continue  # nobody
        with pytest.raises(ConfigError) as caught:
            spawn(Command("true"), **{field: wrong})
        assert caught.value.field == field


async def test_an_id_in_use_is_refused_and_nothing_started():
    async with ProcessRegistry() as registry:
        async with spawn(Command("sleep", "1000"), registry=registry, id="one"):
            with pytest.raises(ConfigError) as caught:
                async with spawn(Command("sleep", "1000"), registry=registry, id="one"):
                    pass
            assert caught.value.field == "id"
            assert len(registry) == 1
        async with spawn(Command("true"), registry=registry, id="one") as process:
            await process.wait()


async def test_two_hundred_at_once_leave_no_thread_and_no_descriptor():
    """PR12: no thread per child."""
    import threading

    async def one():
        async with spawn(Command("sleep", "1000")) as process:
            started.append(process)
            if len(started) == 200:
                all_started.set()
            await enough.wait()

    before = threading.active_count()
    started: list[object] = []
    all_started, enough = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(200):
            group.create_task(one())
        await all_started.wait()
        assert threading.active_count() <= before + 1  # the scanner may be new
        enough.set()
