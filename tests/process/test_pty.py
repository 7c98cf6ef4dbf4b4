"""Pseudo-terminals: an interactive child that believes to sit at a terminal, and does."""

import signal
import sys

import pytest

from procession import Command, ConfigError, run, spawn
from tests.programs import alive, program, sh

pytestmark = pytest.mark.row("PR13")


async def until(lines, wanted):
    async for line in lines:
        if wanted in line:
            return str(line)
    raise AssertionError(f"no line with {wanted!r}")


async def test_the_child_is_at_a_terminal_of_its_own():
    async with spawn(program("terminal", pty=True, pty_size=(33, 101))) as process:
        lines = process.lines()
        assert await anext(lines) == "True True True True True"  # three terminals, /dev/tty opens, leads its session
        assert await anext(lines) == "True"  # in the foreground
        assert await anext(lines) == "33x101"
        assert process.stderr is None


async def test_a_new_size_is_seen_by_the_child():
    async with spawn(program("terminal", pty=True)) as process:
        lines = process.lines()
        assert await until(lines, "x") == "24x80"
        process.resize(50, 132)
        assert await until(lines, "x") == "50x132"
        for wrong in ((0, 1), (1, 70_000)):
            with pytest.raises(ConfigError):
                process.resize(*wrong)


async def test_without_a_terminal_there_is_no_size():
    async with spawn(Command("sleep", "1000")) as process:
        with pytest.raises(ConfigError):
            process.resize(50, 132)


async def test_a_conversation_with_an_interactive_interpreter():
    command = Command(sys.executable, "-I", "-q", "-i", pty=True, env={"TERM": "dumb", "PYTHON_BASIC_REPL": "1"})
    async with spawn(command) as process:
        talk = process.communicator()
        lines = process.lines()
        await talk.send_line("print(6 * 7)")
        assert (await until(lines, "42")).endswith("42")
        await talk.send_line("exit(5)")
        assert await process.wait() == 5


async def test_a_conversation_with_a_shell():
    async with spawn(Command("sh", "-i", pty=True, env={"PS1": "", "ENV": None})) as process:
        talk, lines = process.communicator(), process.lines()
        await talk.send_line("echo $((6 * 7)); tty")
        assert await until(lines, "42") == "42"
        assert (await until(lines, "/dev/pts/")).startswith("/dev/pts/")
        await talk.send_line("exit 3")
        assert await process.wait() == 3


async def test_ctrl_c_typed_at_the_terminal_reaches_the_child():
    async with spawn(
        sh("trap 'echo got int; exit 4' INT; echo ready; while :; do sleep 0.01; done", pty=True)
    ) as process:
        lines = process.lines()
        assert await until(lines, "ready") == "ready"
        await process.communicator().send(b"\x03")
        assert "got int" in await until(lines, "got int")
        assert await process.wait() == 4


async def test_closing_stdin_is_the_end_of_the_file():
    async with spawn(Command("cat", pty=True)) as process:
        talk, lines = process.communicator(), process.lines()
        await talk.send_line("hello")
        assert await anext(lines) == "hello"  # the terminal's echo
        assert await anext(lines) == "hello"
        talk.close_stdin()
        assert [line async for line in lines if line.strip("\x04\b^D")] == []
        assert await process.wait() == 0


async def test_the_end_of_the_child_is_the_end_of_its_output():
    async with spawn(sh("echo a; echo b >&2; exit 3", pty=True)) as process:
        assert [line async for line in process.lines()] == ["a", "b"]
        assert await process.wait() == 3


async def test_run_at_a_terminal_collects_all_of_it():
    completed = await run(sh("echo a; echo b >&2; tty >/dev/null && exit 3", pty=True))
    assert (completed.stdout, completed.stderr, completed.returncode) == (b"a\r\nb\r\n", b"", 3)
    big = await run(Command("seq", "100000", pty=True))
    assert big.text.split() == [str(number) for number in range(1, 100_001)]


async def test_input_for_a_run_at_a_terminal():
    completed = await run(sh("stty -echo; read x; echo got $x", pty=True), input=b"hello\n", timeout=20)
    assert "got hello" in completed.text


async def test_leaving_the_block_ends_what_ignores_the_hangup():
    async with spawn(sh("trap '' HUP TERM; echo $$; while :; do sleep 0.01; done", pty=True, grace=0.1)) as process:
        pid = int(await anext(process.lines()))
        assert pid == process.pid
    assert not alive(pid)
    assert process.returncode == -signal.SIGKILL


async def test_a_child_started_at_the_terminal_in_the_background_ends_too():
    async with spawn(sh("set -m; sleep 1000 & echo $!; wait", pty=True)) as process:
        pid = int(await anext(process.lines()))  # job control: a group of its own in the session
        report = await process.stop(5)
    assert not alive(pid)
    assert pid in [ref.pid for ref in report.escaped]


async def test_options_go_with_a_terminal():
    completed = await run(sh("umask; nice; tty", pty=True, umask=0o77, nice=3), timeout=20)
    assert completed.text.split()[0] == "0077"
    assert "/dev/pts/" in completed.text
