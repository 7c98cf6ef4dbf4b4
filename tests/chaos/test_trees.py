"""Trees of processes with every way to get out of reach: all ended, all accounted for, in time."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest

from procession import Command, Containment, Process, run, spawn
from tests.chaos.support import alive, child, python, watching


async def facts(process: Process) -> dict[str, int]:
    found: dict[str, int] = json.loads(await anext(aiter(process.lines("stdout"))))
    return found


async def test_wait_ends_with_the_process_whoever_holds_its_pipes() -> None:
    """Stock asyncio waits for the pipes to close: for as long as the grandchild lives."""
    loop = asyncio.get_running_loop()
    async with spawn(child("setsid")) as process:
        with watching(await facts(process)):
            began = loop.time()
            process.kill()
            assert await process.wait() == -signal.SIGKILL
            assert loop.time() - began < 2.0  # some milliseconds, and what a busy machine adds; the grandchild lives on


async def test_run_says_that_a_descendant_cut_the_output_short() -> None:
    completed = await run(child("group"))
    assert completed.truncated_by_descendant
    assert completed.report is not None
    assert completed.report.is_clean
    assert not alive(json.loads(completed.stdout)["group"])


@pytest.mark.parametrize(
    ("kind", "escaped"),
    [("plain", 0), ("stubborn", 0), ("setsid", 1), ("quiet_setsid", 1), ("daemon", 1), ("stopped", 0), ("group", 0)],
)
async def test_a_stop_ends_all_of_it_and_names_who_had_escaped(kind: str, escaped: int) -> None:
    async with spawn(child(kind)) as process:
        pids = await facts(process)
        with watching({name: pid for name, pid in pids.items() if alive(pid)}) as watch:
            report = await process.stop(0.05)
            assert report.is_clean, report
            assert len(report.escaped) == escaped
            assert watch.left(within=1.0) == set()
            assert report.duration < 2.0


async def test_the_group_is_killed_although_its_leader_was_reaped() -> None:
    async with spawn(child("group", "quiet")) as process:
        pids = await facts(process)
        assert await process.wait() == 0
        with watching({"group": pids["group"]}) as watch:
            assert watch.left() == {"group"}
            report = await process.stop(0.05)
            assert report.forced
            assert watch.left(within=1.0) == set()


async def test_a_natural_end_asks_the_rest_of_the_group_first() -> None:
    async with spawn(child("polite_group")) as process:
        pids = await facts(process)
        assert await process.wait() == 0
        with watching({"group": pids["group"]}) as watch:
            pass_on = asyncio.get_running_loop().time()
            report = await process.stop(5.0)
            assert (report.forced, report.is_clean) == (False, True)
            assert report.signalled == ("SIGTERM",)
            assert asyncio.get_running_loop().time() - pass_on < 1.0
            assert watch.left(within=1.0) == set()


async def test_a_stopped_child_gets_its_chance_to_clean_up() -> None:
    code = """
import os, signal
def bye(*_): os.write(1, b"cleaned"); os._exit(0)  # print() is not reentrant
signal.signal(signal.SIGTERM, bye)
print("up", flush=True)
while True: signal.pause()
"""
    async with spawn(python(code)) as process:
        lines = aiter(process.lines("stdout"))
        assert await anext(lines) == "up"
        process.suspend()
        report = await process.stop(5.0)
        assert report.exit is not None
        assert report.exit.returncode == 0
        assert not report.forced
        assert await anext(lines) == "cleaned"


async def test_term_before_the_handler_exists_ends_the_child_all_the_same() -> None:
    for _ in range(20):
        async with spawn(child("stubborn", grace=0.5)) as process:  # it has not come as far as to ignore it
            report = await process.stop(0.05)
            assert report.is_clean


async def test_two_hundred_children_that_end_just_before_they_are_killed() -> None:
    for number in range(200):
        async with spawn(Command("true")) as process:
            for _ in range(number % 5):
                await asyncio.sleep(0)
            try:
                process.kill()
            except ProcessLookupError:
                assert await process.wait() == 0
            else:
                assert await process.wait() in (0, -signal.SIGKILL)


async def test_many_waiters_get_one_answer_though_some_are_cancelled() -> None:
    async with spawn(Command("cat", stdin="pipe")) as process:
        waiters = [asyncio.get_running_loop().create_task(process.wait()) for _ in range(100)]
        await asyncio.sleep(0)
        for waiter in waiters[::3]:
            waiter.cancel()
        assert process.stdin is not None
        process.stdin.close()
        answers = await asyncio.gather(*waiters, return_exceptions=True)
        for number, answer in enumerate(answers):
            assert isinstance(answer, asyncio.CancelledError) if number % 3 == 0 else answer == 0
        assert await process.wait() == 0


async def test_a_tree_of_a_hundred_is_stopped() -> None:
    async with spawn(child("tree", "100")) as process:
        await facts(process)
        report = await process.stop(1.0)
        assert (report.is_clean, report.forced) == (True, False)
        print(f"\nstop of a tree of 100: {report.duration * 1000:.0f} ms")  # figure R3
        assert report.duration < 1.0


async def test_a_fork_bomb_of_fifty_that_forks_on_when_killed_is_ended() -> None:
    async with spawn(child("bomb", "50")) as process:
        await facts(process)
        report = await process.stop(0.05)
        assert report.is_clean, report
        assert len(report.escaped) >= 50
        assert report.duration < 5.0


async def test_a_siblings_stdin_is_not_held_open() -> None:
    async with AsyncExitStack() as stack:
        cats = [await stack.enter_async_context(spawn(Command("cat", stdin="pipe"))) for _ in range(10)]
        for process in cats:
            assert process.stdin is not None
            process.stdin.close()
            async with asyncio.timeout(5):
                assert await process.wait() == 0


async def test_contain_none_leaves_others_alone_and_reports_the_rung() -> None:
    async with spawn(child("quiet_setsid", contain="none")) as process:
        pids = await facts(process)
        with watching({"setsid": pids["setsid"]}) as watch:
            report = await process.stop(0.05)
            assert report.rung is Containment.NONE
            assert watch.left(within=0.1) == {"setsid"}


def test_ctrl_c_at_our_terminal_reaches_us_first_and_the_children_by_a_graceful_stop() -> None:
    """The program runs in a terminal's foreground group; its child must not be in it."""
    code = """
import asyncio, sys
from procession import Command, spawn
POLITE = '''
import os, signal
def bye(name): os.write(1, name.encode()); os._exit(0)  # print() is not reentrant
signal.signal(signal.SIGINT, lambda *_: bye("by ctrl-c"))
signal.signal(signal.SIGTERM, lambda *_: bye("gracefully"))
print("up", flush=True)
while True: signal.pause()
'''
async def main():
    async with spawn(Command(sys.executable, "-I", "-S", "-c", POLITE)) as process:
        lines = aiter(process.lines("stdout"))
        print("child", await anext(lines), flush=True)
        try:
            await process.wait()
        finally:
            await process.stop()
            print("child ended", await anext(lines), flush=True)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    master, slave = pty.openpty()
    launcher = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", launcher, sys.executable, "-c", code],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    os.close(slave)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"child up\n"
        os.write(master, b"\x03")
        said = process.stdout.read().decode()
        assert said.splitlines() == ["child ended gracefully", "interrupted"], said
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        os.close(master)
