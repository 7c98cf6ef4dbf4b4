"""Ends that somebody might wait for too long, and last words that must not be lost."""

from __future__ import annotations

import asyncio

import pytest

from procession import Command, StreamClosed, spawn

HOLD = "setsid sleep 60 & read line; kill -9 $$"


async def test_a_request_ends_with_the_process_though_a_descendant_holds_its_stdout() -> None:
    async with spawn(Command.shell(HOLD, stdin="pipe", stderr="null", grace=1)) as process:
        talk = process.communicator()
        async with asyncio.timeout(2):
            with pytest.raises(StreamClosed) as caught:
                await talk.request("die")
        assert caught.value.exit is not None
        assert caught.value.exit.returncode == -9
        assert process.stdout is not None
        assert process.stdout.truncated
        await process.stop()


async def test_a_communicator_made_after_the_end_does_not_wait_either() -> None:
    async with spawn(Command.shell("setsid sleep 60 & echo last", grace=1)) as process:
        await process.wait()
        talk = process.communicator()
        async with asyncio.timeout(2):
            assert await talk.receive_line() == "last"
            with pytest.raises(StreamClosed):
                await talk.receive_line()
        await process.stop()


async def test_a_pipeline_read_to_its_end_closes_at_once() -> None:
    loop = asyncio.get_running_loop()
    async with (Command("echo", "x") | Command("cat")).stream() as stream:
        assert [line async for line in stream.lines()] == ["x"]
        await stream.wait()
        ended = loop.time()
    assert loop.time() - ended < 0.3


async def test_the_stderr_of_every_stage_is_collected() -> None:
    noisy = Command("sh", "-c", "sleep 0.1; echo first >&2; cat; exit 7")
    result = await (noisy | Command("sh", "-c", "cat; echo second >&2")).run(input=b"x")
    assert [stage.stderr for stage in result.stages] == [b"first\n", b"second\n"]
    assert (result.returncodes, result.stdout) == ((7, 0), b"x")
