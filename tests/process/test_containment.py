"""The containment ladder: which rung is in force, who is found, who is ended, who is left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from procession import Command, Containment, run, spawn
from procession._launch._owner import owner
from procession._linux import _cgroup
from tests.programs import alive, ended, first_line, program, sh

pytestmark = pytest.mark.row("PR10")


@pytest.fixture
def cgroup():
    if _cgroup.available(owner().token) is None:
        pytest.skip("no cgroup v2 is delegated to us here")


@pytest.fixture
def bystander():
    """A process that is none of ours, started plainly; it must outlive everything."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    try:
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("rung", ["none", "group", "tree"])
async def test_the_rung_asked_for_is_in_force_and_reported(rung, bystander):
    async with spawn(Command("sleep", "1000", contain=rung)) as process:
        assert process.containment == rung
        report = await process.stop()
    assert report.rung == rung
    assert report.is_clean


async def test_auto_is_the_tree_and_detached_the_group():
    async with spawn(Command("sleep", "1000")) as process:
        assert process.containment is Containment.TREE
    async with spawn(Command("sleep", "1000", detach=True)) as process:
        assert process.containment is Containment.GROUP
        await process.stop()


async def test_none_ends_the_child_alone(bystander):
    async with spawn(sh("sleep 1000 >/dev/null 2>&1 & echo $!; wait", contain="none")) as process:
        pid = int(await first_line(process))
        report = await process.stop()
        assert report.members == 0
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        await ended(pid)


async def test_group_ends_the_group_but_not_who_left_it():
    async with spawn(program("escape", "close", contain="group")) as process:
        pid = int(await first_line(process))
        report = await process.stop()
        assert report.escaped == ()
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)
        await ended(pid)


@pytest.mark.parametrize("words", [(), ("ignore",), ("close",), ("ignore", "close")], ids=" ".join)
async def test_tree_finds_and_ends_who_escaped_into_a_session_of_its_own(words, bystander):
    async with spawn(program("escape", *words)) as process:
        pid = int(await first_line(process))
        report = await process.stop(0.3)
    assert not alive(pid)
    assert [ref.pid for ref in report.escaped] == [pid]
    assert report.escaped[0].name == "sleep"
    assert report.members == 1
    assert report.is_clean
    assert report.forced == ("ignore" in words)
    assert f"sleep[{pid}]" in str(report)


async def test_tree_finds_a_double_forked_daemon_whose_parents_are_gone(bystander):
    async with spawn(program("daemon", "stay")) as process:
        pid = int(await first_line(process))
        report = await process.stop(0.1)
    assert not alive(pid)
    assert [ref.pid for ref in report.escaped] == [pid]


async def test_tree_finds_the_daemon_of_a_child_that_has_ended():
    async with spawn(program("daemon")) as process:
        pid = int(await first_line(process))
        await process.wait()
        report = await process.stop(0.1)
        assert report.exit is not None
        assert report.exit.returncode == 0
    assert not alive(pid)


async def test_an_exception_ends_the_daemon_of_a_child_that_has_ended():
    pids: list[int] = []

    async def body():
        async with spawn(program("daemon", grace=0.1)) as process:
            pids.append(int(await first_line(process)))
            await process.wait()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await body()
    assert not alive(pids[0])


async def test_a_member_with_an_empty_environment_is_found_by_its_group():
    async with spawn(program("escape", "empty", "ignore")) as process:
        pid = int(await first_line(process))
        report = await process.stop(0.2)
    assert not alive(pid)
    assert report.members == 1
    assert report.escaped == ()


async def test_a_member_with_an_empty_environment_ends_with_a_natural_exit():
    async with spawn(program("escape", "empty", "leave", grace=0.1)) as process:
        pid = int(await first_line(process))
        await process.wait()
    assert not alive(pid)


@pytest.mark.parametrize("rung", ["tree", "cgroup"])
async def test_a_fork_bomb_of_fifty(rung, bystander, request):
    if rung == "cgroup":
        request.getfixturevalue("cgroup")
    async with spawn(program("bomb", "50", contain=rung)) as process:
        pids = [int(word) for word in (await first_line(process)).split()]
        assert len(pids) == 50
        report = await process.stop(0.2)
    assert not any(map(alive, pids))
    assert report.is_clean
    assert report.forced
    assert report.members == 50
    assert {ref.pid for ref in report.escaped} == set(pids[::3])


async def test_two_trees_do_not_touch_one_another(bystander):
    async with spawn(program("escape")) as one, spawn(program("escape")) as other:
        first, second = int(await first_line(one)), int(await first_line(other))
        await one.stop(0.2)
        assert not alive(first)
        assert alive(second)
        assert other.is_running


async def test_a_nested_owner_is_part_of_the_tree():
    """What a program that uses procession itself starts belongs to us as well."""
    script = """
import asyncio
from procession import Command, spawn
async def main():
    async with spawn(Command("setsid", "sleep", "1000")) as process:
        print(process.pid, flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""
    async with spawn(Command(sys.executable, "-c", script)) as process:
        inner = int(await first_line(process))
        report = await process.stop(0)
    assert not alive(inner)
    assert report.is_clean


async def test_cgroup_is_in_force_and_holds_what_escaped(cgroup, bystander):
    async with spawn(program("escape", "ignore", "close", contain="cgroup")) as process:
        assert process.containment is Containment.CGROUP
        pid = int(await first_line(process))
        base = _cgroup.available(owner().token)
        assert base is not None
        folder = Path(base, process.id)
        assert {int(line) for line in (folder / "cgroup.procs").read_text().split()} == {process.pid, pid}
        report = await process.stop(0.2)
        assert not alive(pid)
        assert report.rung is Containment.CGROUP
        assert report.is_clean
        assert report.forced
    assert not folder.exists()


async def test_cgroup_holds_even_a_daemon_with_an_empty_environment(cgroup):
    """Neither cookie nor group nor session can prove it ours; the cgroup can."""
    script = "env -i setsid sh -c 'echo $$; exec sleep 1000' & wait"
    async with spawn(sh(script, contain="cgroup")) as process:
        pid = int(await first_line(process))
        report = await process.stop(0.2)
    assert not alive(pid)
    assert report.is_clean


async def test_a_run_in_a_cgroup_leaves_no_directory(cgroup):
    base = _cgroup.available(owner().token)
    assert base is not None
    before = set(Path(base).iterdir())
    assert (await run(Command("true", contain="cgroup"))).ok
    assert set(Path(base).iterdir()) == before


async def test_a_stop_finds_members_that_are_started_while_it_stops():
    """Each of them is asked in its turn, so the stop need not wait for its grace to run out."""
    async with spawn(program("late")) as process:
        await first_line(process)
        report = await process.stop(30)
    assert report.is_clean
    assert not report.forced
    assert report.duration < 10


async def test_what_a_child_cleans_up_with_is_left_to_its_work():
    """A helper started by the handler of the stop signal is not asked to stop while the child lives."""
    async with spawn(
        sh("trap 'sh -c \"sleep 0.1; echo clean\"; exit 0' TERM; echo ready; while :; do sleep 0.01; done")
    ) as process:
        assert await first_line(process) == "ready"
        report = await process.stop(20)
        assert await first_line(process) == "clean"
    assert process.returncode == 0
    assert not report.forced
