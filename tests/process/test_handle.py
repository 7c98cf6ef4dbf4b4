"""The live process: waiting, signals, stopping, suspending; every answer the same for everybody who asks."""

import asyncio
import os
import signal
import subprocess
from typing import Any

import pytest

from procession import Command, ConfigError, Containment, InvalidTransition, ProcessRegistry, ProcessState, spawn
from tests.programs import alive, ended, eventually, first_line, program, sh, state

pytestmark = pytest.mark.row("PR4")


async def test_what_it_says_of_itself():
    async with spawn(Command("sleep", "1000"), name="sleeper", owner="me") as process:
        assert process.pid > 0
        assert process.ref.pid == process.pid
        assert process.ref.started > 0
        assert process.pidfd is not None
        os.fstat(process.pidfd)
        assert (process.name, process.owner, process.state) == ("sleeper", "me", ProcessState.RUNNING)
        assert process.containment is Containment.TREE
        assert process.uptime >= 0
        assert process.exit is None
        assert "sleeper" in repr(process)
    assert process.pidfd is None
    assert process.state is ProcessState.EXITED
    assert process.exit is not None
    assert process.exit.signal == signal.SIGTERM


async def test_many_wait_and_one_is_cancelled():
    async with spawn(sh("read x; exit 3", stdin="pipe")) as process:
        waiters = [asyncio.create_task(process.wait()) for _ in range(5)]
        await asyncio.sleep(0)
        waiters[0].cancel()
        waiters[3].cancel()
        await process.communicator().send_line("go")
        results = await asyncio.gather(*waiters, return_exceptions=True)
        assert results[1] == results[2] == results[4] == 3
        assert isinstance(results[0], asyncio.CancelledError)
        assert isinstance(results[3], asyncio.CancelledError)
        assert await process.wait() == 3
    assert await process.wait() == 3


async def test_a_signal_after_the_end_is_a_lookup_error():
    async with spawn(Command("true")) as process:
        await process.wait()
        for call in (process.terminate, process.kill, process.suspend, process.resume):
            with pytest.raises(ProcessLookupError):
                call()
        with pytest.raises(ProcessLookupError):
            process.send_signal("INT")
        with pytest.raises(ProcessLookupError):
            process.signal_tree("INT")
    with pytest.raises(ProcessLookupError):
        process.kill()
    with pytest.raises(ProcessLookupError):
        process.signal_tree("INT")


async def test_a_zombie_nobody_has_noticed_yet_is_signalled_without_harm():
    """Between the end and the notice of it the pid is still the child's."""
    async with spawn(sh("exit 3")) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        try:
            process.kill()
        except ProcessLookupError:
            pass
        assert await process.wait() == 3


async def test_signals_by_name_and_number():
    for given in ("USR1", "SIGUSR1", signal.SIGUSR1, int(signal.SIGUSR1)):
        async with spawn(sh("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done")) as process:
            await first_line(process)
            process.send_signal(given)
            assert await process.wait() == 9
    async with spawn(Command("sleep", "1000")) as process:
        wrong: Any
        for wrong in ("NOPE", 0, 999, True, None):
            with pytest.raises(ConfigError) as caught:
                process.send_signal(wrong)
            assert caught.value.field == "signal"


async def test_terminate_and_kill():
    async with spawn(program("polite", "5")) as process:
        await first_line(process)
        process.terminate()
        assert await process.wait() == 5
    async with spawn(program("ignore_term")) as process:
        await first_line(process)
        process.terminate()
        process.kill()
        assert await process.wait() == -signal.SIGKILL


async def test_its_end_by_a_foreign_hand_is_seen():
    async with spawn(Command("sleep", "1000")) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert await process.wait() == -signal.SIGKILL


async def test_a_foreign_reaper_does_not_falsify_the_status():
    async with spawn(sh("read x; exit 3", stdin="pipe")) as process:
        pid = process.pid
        process.communicator().close_stdin()
        os.waitpid(pid, 0)  # somebody else reaps it before the loop looks
        code = await process.wait()
        assert code in (3, None)
        assert process.exit is not None
        assert process.exit.is_lost == (code is None)


async def test_sigchld_ignored_does_not_falsify_the_status():
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        async with spawn(sh("exit 3")) as process:
            assert await process.wait() in (3, None)
    finally:
        signal.signal(signal.SIGCHLD, old)


# ---------------------------------------------------------------------------------------------------------------- stop


async def test_the_report_of_a_polite_stop():
    async with spawn(program("polite", "7")) as process:
        await first_line(process)
        report = await process.stop()
        assert process.report is report
    assert (report.id, report.rung, report.signalled, report.forced) == (
        process.id, Containment.TREE, ("SIGTERM",), False,
    )  # fmt: skip
    assert (report.members, report.escaped, report.survived) == (0, (), ())
    assert report.is_clean
    assert report.exit is not None
    assert report.exit.returncode == 7
    assert 0 < report.duration < 5
    assert "exit 7" in str(report)


async def test_the_report_of_a_forced_stop():
    async with spawn(program("ignore_term")) as process:
        await first_line(process)
        report = await process.stop(0.1)
    assert (report.signalled, report.forced) == (("SIGTERM", "SIGKILL"), True)
    assert 0.1 <= report.duration < 2
    assert process.returncode == -signal.SIGKILL


async def test_grace_zero_kills_at_once():
    async with spawn(program("polite")) as process:
        await first_line(process)
        report = await process.stop(0)
    assert report.signalled == ("SIGKILL",)
    assert process.returncode == -signal.SIGKILL


async def test_another_stop_signal():
    async with spawn(sh("trap 'exit 4' HUP; echo ready; while :; do sleep 0.01; done", stop_signal="HUP")) as process:
        await first_line(process)
        report = await process.stop()
    assert report.signalled == ("SIGHUP",)
    assert process.returncode == 4


async def test_one_stop_is_shared():
    async with spawn(program("polite")) as process:
        await first_line(process)
        reports = await asyncio.gather(*(process.stop() for _ in range(5)))
    assert all(report is reports[0] for report in reports)


async def test_a_shorter_grace_hurries_the_stop_under_way():
    async with spawn(program("ignore_term")) as process:
        await first_line(process)
        slow = asyncio.create_task(process.stop(1000))
        await asyncio.sleep(0)
        report = await process.stop(0)
        assert (await slow) is report
    assert report.forced
    assert report.duration < 10


async def test_a_longer_grace_does_not_slow_it_down():
    async with spawn(program("ignore_term")) as process:
        await first_line(process)
        quick = asyncio.create_task(process.stop(0.1))
        await asyncio.sleep(0)
        report = await process.stop(1000)
        assert (await quick) is report


async def test_stopping_what_has_ended_finds_nothing_to_do():
    async with spawn(sh("exit 3")) as process:
        await process.wait()
        report = await process.stop()
        assert report.signalled == ()
        assert report.is_clean
        assert report.exit is not None
        assert report.exit.returncode == 3
        assert (await process.stop()).is_clean


async def test_a_refused_grace():
    async with spawn(Command("sleep", "1000")) as process:
        wrong: Any
        for wrong in (-1, float("nan"), True, "soon"):
            with pytest.raises(ConfigError) as caught:
                await process.stop(wrong)
            assert caught.value.field == "grace"
        assert process.is_running


async def test_a_cancelled_stop_goes_on_to_its_end():
    async with spawn(program("ignore_term")) as process:
        await first_line(process)
        task = asyncio.create_task(process.stop(0.2))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert process.returncode == -signal.SIGKILL
        assert process.report is not None


async def test_a_stopped_child_is_continued_so_that_it_can_end_in_order():
    async with spawn(program("polite", "3")) as process:
        await first_line(process)
        os.kill(process.pid, signal.SIGSTOP)
        await eventually(lambda: state(process.pid) == "T")
        report = await process.stop(20)
    assert process.returncode == 3
    assert not report.forced


async def test_a_suspended_child_is_continued_so_that_it_can_end_in_order():
    async with spawn(program("polite", "3")) as process:
        await first_line(process)
        process.suspend()
        await eventually(lambda: state(process.pid) == "T")
        report = await process.stop(20)
    assert process.returncode == 3
    assert not report.forced


async def test_a_stop_races_with_a_natural_end():
    for _ in range(20):
        async with spawn(Command("true")) as process:
            report = await process.stop()
            assert report.is_clean
            assert process.returncode in (0, -signal.SIGTERM)


# -------------------------------------------------------------------------------------------------- suspend and resume


async def test_suspend_and_resume_the_group():
    async with ProcessRegistry() as registry:
        async with spawn(sh("sleep 1000 & echo $!; wait"), registry=registry) as process:
            member = int(await first_line(process))
            process.suspend()
            assert process.state == "suspended"
            assert registry.get(process.id).state is ProcessState.SUSPENDED
            await eventually(lambda: state(process.pid) == state(member) == "T")
            process.suspend()  # twice is once
            process.resume()
            assert process.state == "running"
            await eventually(lambda: state(process.pid) == state(member) == "S")
            process.resume()


async def test_suspend_and_resume_reach_those_who_left_the_group_when_awaited():
    async with spawn(program("escape", "close")) as process:
        grandchild = int(await first_line(process))
        assert [ref.pid for ref in await process.suspend()] == [grandchild]
        await eventually(lambda: state(process.pid) == state(grandchild) == "T")
        assert [ref.pid for ref in await process.resume()] == [grandchild]
        await eventually(lambda: state(process.pid) == state(grandchild) == "S")
    assert not alive(grandchild)


async def test_a_suspended_tree_is_stopped_though_one_has_escaped():
    async with spawn(program("escape", "close")) as process:
        grandchild = int(await first_line(process))
        await process.suspend()
        report = await process.stop(10)
    assert not alive(grandchild)
    assert not report.forced


async def test_suspend_while_stopping_is_refused():
    async with spawn(program("ignore_term")) as process:
        await first_line(process)
        task = asyncio.create_task(process.stop(0.2))
        await asyncio.sleep(0)
        with pytest.raises(InvalidTransition) as caught:
            process.suspend()
        assert caught.value.old == "stopping"
        report = await task
        assert report.forced
    assert report.duration < 2


async def test_signal_tree_reaches_the_group_at_once_and_the_escaped_when_awaited():
    async with spawn(program("escape", "close")) as process:
        grandchild = int(await first_line(process))
        reached = await process.signal_tree("USR1")
        assert [ref.pid for ref in reached] == [grandchild]
        assert await process.wait() == -signal.SIGUSR1
        await ended(grandchild)


async def test_signal_tree_reaches_the_group_after_the_leader_has_ended():
    async with spawn(sh("sleep 1000 & echo $!")) as process:
        member = int(await first_line(process))
        await process.wait()
        process.signal_tree("KILL")
        await ended(member)


async def test_pids_are_never_signalled_bare():
    """A stranger is not touched, whatever the block does."""
    stranger = subprocess.Popen(["sleep", "1000"])
    try:
        async with spawn(program("escape", "ignore", grace=0.1)) as process:
            await first_line(process)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
