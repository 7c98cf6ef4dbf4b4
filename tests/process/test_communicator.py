"""A conversation with a process: requests, answers, and a typed error when the other side is gone."""

import asyncio
import os

import pytest

from procession import Command, ConfigError, StreamClosed, spawn
from tests.programs import first_line, program, sh

pytestmark = pytest.mark.row("PR7")
ECHO = sh('while read -r x; do echo "got $x"; done', stdin="pipe")


async def test_a_request_gets_its_answer():
    async with spawn(ECHO) as process:
        talk = process.communicator()
        for number in range(100):
            assert await talk.request(str(number)) == f"got {number}"


async def test_requests_of_many_tasks_do_not_mix():
    async with spawn(ECHO) as process:
        talk = process.communicator()
        answers = await asyncio.gather(*(talk.request(str(number)) for number in range(200)))
        assert answers == [f"got {number}" for number in range(200)]


async def test_the_late_answer_to_a_cancelled_request_goes_to_nobody():
    script = 'while read -r x; do [ $x = slow ] && read -r y <"$1"; echo "got $x"; done'
    reader, writer = os.pipe()
    try:
        async with spawn(sh(script, f"/dev/fd/{reader}", stdin="pipe", pass_fds=(reader,))) as process:
            talk = process.communicator()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await talk.request("slow")
            os.write(writer, b"go\n")
            assert await talk.request("quick") == "got quick"
    finally:
        os.close(reader)
        os.close(writer)


async def test_bytes_both_ways():
    async with spawn(Command("cat", stdin="pipe")) as process:
        talk = process.communicator()
        await talk.send(b"\0\xff")
        got = await talk.receive()
        while len(got) < 2:
            got += await talk.receive()
        assert got == b"\0\xff"
        talk.close_stdin()
        assert await talk.receive() == b""
        assert await talk.receive() == b""
        assert await process.wait() == 0


async def test_lines_both_ways_and_stderr_apart():
    async with spawn(sh('while read -r x; do echo "$x"; echo "e $x" >&2; done', stdin="pipe")) as process:
        talk = process.communicator()
        await talk.send_line("grüße")
        assert await talk.receive_line() == "grüße"
        assert (await talk.receive_error()).decode() == "e grüße\n"


async def test_more_than_a_pipe_holds_is_sent_while_the_answer_is_read():
    async with spawn(Command("cat", stdin="pipe")) as process:
        talk = process.communicator()
        data = os.urandom(5_000_000)
        got = bytearray()

        async def receive():
            while len(got) < len(data):
                got.extend(await talk.receive())

        async with asyncio.TaskGroup() as group:
            group.create_task(talk.send(data))
            group.create_task(receive())
        assert got == data


async def test_a_child_that_closed_its_stdin_is_a_typed_error_and_lives_on():
    async with spawn(program("close_stdin", stdin="pipe")) as process:
        assert await first_line(process) == "closed"
        talk = process.communicator()
        with pytest.raises(StreamClosed) as caught:
            await talk.send_line("hello")
        assert caught.value.stream == "stdin"
        assert caught.value.command is process.command
        assert caught.value.exit is None
        assert process.is_running
        with pytest.raises(StreamClosed):
            await talk.send(b"again")


async def test_a_child_that_ended_is_a_typed_error_that_says_how():
    async with spawn(sh("exit 3", stdin="pipe")) as process:
        await process.wait()
        talk = process.communicator()
        with pytest.raises(StreamClosed) as caught:
            await talk.send_line("hello")
        assert str(caught.value.exit) == "exit 3"
        with pytest.raises(StreamClosed) as caught:
            await talk.receive_line()
        assert caught.value.stream == "stdout"
        with pytest.raises(StreamClosed):
            await talk.request("hello")
        assert await talk.receive() == b""


async def test_a_child_that_ends_without_an_answer_is_a_typed_error():
    async with spawn(sh("read x; exit 3", stdin="pipe")) as process:
        with pytest.raises(StreamClosed) as caught:
            await process.communicator().request("hello")
        assert caught.value.stream == "stdout"


async def test_a_writer_that_waits_is_told_when_the_child_is_killed():
    async with spawn(Command("sleep", "1000", stdin="pipe")) as process:
        writer = asyncio.create_task(process.communicator().send(b"x" * 10**6))
        await asyncio.sleep(0)
        process.kill()
        with pytest.raises(StreamClosed):
            await writer


async def test_a_writer_that_waits_is_told_when_the_block_is_left():
    async with spawn(Command("sleep", "1000", stdin="pipe")) as process:
        writer = asyncio.create_task(process.communicator().send(b"x" * 10**6))
        await asyncio.sleep(0)
    with pytest.raises(StreamClosed):
        await writer
    with pytest.raises(StreamClosed):
        await process.communicator().send(b"x")


async def test_streams_that_are_no_pipes_are_closed_ones():
    async with spawn(Command("sleep", "1000", stdout="null", stderr="null")) as process:
        talk = process.communicator()
        for call in (talk.send(b""), talk.receive(), talk.receive_error(), talk.receive_line(), talk.request("x")):
            with pytest.raises(StreamClosed):
                await call
        talk.close_stdin()


async def test_a_line_is_one_line():
    async with spawn(ECHO) as process:
        for call in (process.communicator().send_line, process.communicator().request):
            with pytest.raises(ConfigError):
                await call("two\nlines")


async def test_feeding_stdin_from_a_file_closes_it(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    async with spawn(Command("wc", "-c", stdin="pipe")) as process:
        assert process.stdin is not None
        await process.stdin.feed(tmp_path / "x")
        assert await first_line(process) == "300000"
        assert process.stdin.is_closed


@pytest.mark.row("PR3")
async def test_no_sibling_holds_the_stdin_of_another():
    """The end of the file arrives though other children were started while the pipe was open."""
    async with spawn(Command("cat", stdin="pipe")) as first:
        async with spawn(Command("sleep", "1000")), spawn(Command("sleep", "1000", stdin="pipe")):
            first.communicator().close_stdin()
            async with asyncio.timeout(10):
                assert await first.wait() == 0
