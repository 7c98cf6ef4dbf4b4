from __future__ import annotations

import asyncio
import contextlib
import io
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from procession._launch._fds import FdInlet, FdOutlet
from procession._types import Exit, Stream
from procession.command import Command
from procession.errors import ConfigError, StateError, StreamClosed
from procession.process._communicator import Communicator
from procession.process._sink import Bytes, Transfer, Turns, Writer, check_input
from procession.process._source import Source

pytestmark = pytest.mark.both_loops
COMMAND = Command("cat")


class FakeOutlet:
    """Takes as many bytes as the test makes room for."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.taken = bytearray()
        self.callback: Callable[[], None] | None = None
        self.error: OSError | None = None
        self.closed = 0

    def write_nowait(self, data: memoryview) -> int | None:
        if self.error is not None:
            raise self.error
        if not self.room:
            return None
        n = min(self.room, len(data))
        self.room -= n
        self.taken += data[:n]
        return n

    def on_writable(self, callback: Callable[[], None] | None) -> None:
        assert callback is None or self.callback is None, "registered twice"
        self.callback = callback

    def make_room(self, n: int) -> None:
        self.room += n
        if self.callback is not None:
            self.callback()

    def close(self) -> None:
        self.closed += 1


def fake(room: int = 0) -> tuple[FakeOutlet, Writer]:
    outlet = FakeOutlet(room)
    return outlet, Writer(outlet, asyncio.get_running_loop(), COMMAND)


async def turns(n: int = 3) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def started(coroutine) -> asyncio.Task:
    task = asyncio.create_task(coroutine)
    await turns()
    return task


# ------------------------------------------------------------------------------------------- write


async def test_what_fits_is_written_at_once():
    outlet, writer = fake(100)
    await writer.write(b"abc")
    await writer.write(bytearray(b"def"))
    await writer.write(memoryview(b"ghi"))
    await writer.write(b"")
    assert outlet.taken == b"abcdefghi"
    assert outlet.callback is None
    assert "open" in repr(writer)


async def test_writes_wait_for_room_and_never_interleave():
    outlet, writer = fake()
    first, second = await started(writer.write(b"11111")), await started(writer.write(b"22222"))
    for _ in range(4):
        outlet.make_room(1)
        await turns()
    assert not first.done()
    outlet.make_room(3)
    await turns(5)
    assert first.done()
    outlet.make_room(3)
    await asyncio.gather(first, second)
    assert outlet.taken == b"1111122222"
    outlet.make_room(1)
    assert outlet.callback is None  # nobody waits: paused


async def test_a_cancelled_write_passes_the_turn_on():
    outlet, writer = fake()
    tasks = [await started(writer.write(digit * 4)) for digit in (b"1", b"2", b"3", b"4")]
    outlet.make_room(2)
    tasks[0].cancel()
    tasks[2].cancel()
    await turns()
    outlet.make_room(100)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert outlet.taken == b"1122224444"
    assert [task.cancelled() for task in tasks] == [True, False, True, False]


async def test_a_turn_given_to_a_cancelled_one_goes_on():
    queue = Turns(asyncio.get_running_loop())
    await queue.take()
    second, third = await started(queue.take()), await started(queue.take())
    queue.give()
    second.cancel()
    await asyncio.wait((second, third), timeout=1)
    assert second.cancelled()
    assert third.done()


async def test_a_whole_transfer_is_finished_after_its_cancellation():
    outlet, writer = fake()
    begun = Transfer(b"11111", whole=True)
    first, second = await started(writer.perform(begun)), await started(writer.write(b"2"))
    never = Transfer(b"3", whole=True)
    third = await started(writer.perform(never))
    outlet.make_room(2)
    first.cancel()
    third.cancel()
    await turns()
    assert first.cancelled()
    assert (begun.taken, never.taken) == (2, 0)
    outlet.make_room(100)
    await second
    assert outlet.taken == b"111112"


async def test_closing_fails_every_write_that_waits():
    outlet, writer = fake()
    tasks = [await started(writer.write(b"x")) for _ in range(3)]
    writer.close()
    writer.close()
    for task in tasks:
        with pytest.raises(StreamClosed) as caught:
            await task
        assert (caught.value.stream, caught.value.command) == ("stdin", COMMAND)
    with pytest.raises(StreamClosed):
        await writer.write(b"")
    assert outlet.closed == 1
    assert outlet.callback is None
    assert writer.is_closed


async def test_closing_drops_what_a_cancelled_one_left():
    outlet, writer = fake(1)
    first = await started(writer.perform(Transfer(b"11", whole=True)))
    second = await started(writer.write(b"2"))
    first.cancel()
    await turns()
    writer.close()
    with pytest.raises(StreamClosed):
        await second
    assert outlet.taken == b"1"


@pytest.mark.parametrize("waiting", [False, True])
async def test_nobody_reads(waiting: bool):
    outlet, writer = fake()
    task = asyncio.create_task(writer.write(b"x"))
    if waiting:
        await turns()
    outlet.error = BrokenPipeError()
    if waiting:
        outlet.make_room(0)
    for attempt in (task, writer.write(b"y")):
        with pytest.raises(StreamClosed):
            await attempt
    assert writer.is_closed
    assert outlet.closed == 1


@pytest.mark.parametrize("waiting", [False, True])
async def test_another_error_is_not_hidden(waiting: bool):
    outlet, writer = fake()
    task = asyncio.create_task(writer.write(b"x"))
    if waiting:
        await turns()
    outlet.error = OSError(28, "full")
    if waiting:
        outlet.make_room(0)
    with pytest.raises(OSError, match="full"):
        await task
    outlet.error = None
    outlet.room = 10
    await writer.write(b"again")
    assert outlet.taken == b"again"


async def test_the_loop_has_its_turn_though_everything_fits():
    _, writer = fake(1 << 20)
    ticked = asyncio.Event()
    asyncio.get_running_loop().call_soon(ticked.set)
    for _ in range(64):
        await writer.write(b"x")
    assert ticked.is_set()


# -------------------------------------------------------------------------------------------- feed


async def numbers() -> AsyncIterator[Bytes]:
    for number in (b"1", bytearray(b"2"), memoryview(b"3")):
        await asyncio.sleep(0)
        yield number


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: b"bytes", b"bytes"),
        (lambda path: memoryview(b"view"), b"view"),
        (lambda path: "grüße", "grüße".encode()),
        (lambda path: path, b"f" * 600_000),
        (lambda path: io.BytesIO(b"file"), b"file"),
        (lambda path: [b"a", b"b"], b"ab"),
        (lambda path: iter((b"a", b"b")), b"ab"),
        (lambda path: numbers(), b"123"),
    ],
)
async def test_feed_takes_everything_and_closes(make, expected: bytes, tmp_path: Path):
    path = tmp_path / "input"
    path.write_bytes(b"f" * 600_000)
    outlet, writer = fake(1 << 20)
    await writer.feed(make(path))
    assert outlet.taken == expected
    assert writer.is_closed


@pytest.mark.parametrize("bad", [int, lambda: ["text"], lambda: io.StringIO("text"), lambda: Path("/dev/null")])
async def test_feed_refuses_what_is_no_input(bad):
    _, writer = fake(100)
    with pytest.raises(ConfigError) as caught:
        await writer.feed(bad())
    assert caught.value.field == "input"
    assert not writer.is_closed


async def test_input_is_checked_beforehand(tmp_path: Path):
    path = tmp_path / "input"
    path.touch()
    for good in (b"", "", path, io.BytesIO(), [b"a"], numbers()):
        check_input(good)
    for bad in (5, None, tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError) as caught:
            check_input(bad)
        assert caught.value.field == "input"


async def test_feed_that_fails_leaves_stdin_open_and_ends_the_generator():
    ended = []

    async def broken() -> AsyncIterator[bytes]:
        try:
            yield b"part"
            yield b"more"
            raise ValueError("mine")
        finally:
            ended.append(True)

    outlet, writer = fake(100)
    with pytest.raises(ValueError, match="mine"):
        await writer.feed(broken())
    assert outlet.taken == b"partmore"
    assert not writer.is_closed
    outlet.error = BrokenPipeError()
    with pytest.raises(StreamClosed):
        await writer.feed(broken())
    assert ended == [True, True]


# ----------------------------------------------------------------------------------- real pipes


def real() -> tuple[Writer, Source]:
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    return Writer(FdOutlet(writer, loop), loop, COMMAND), Source(FdInlet(reader, loop), Stream.STDOUT, loop)


async def test_ten_megabytes_through_a_pipe():
    writer, source = real()
    data = os.urandom(1 << 20) * 10
    task = asyncio.create_task(writer.feed(data))
    got = b"".join([chunk async for chunk in source])
    await task
    assert got == data
    source.close()


async def test_the_reader_leaves_while_a_write_waits():
    writer, source = real()
    task = await started(writer.write(b"x" * 1_000_000))
    assert len(await source.read()) == 65536
    source.close()
    with pytest.raises(StreamClosed):
        await task
    assert writer.is_closed


# ------------------------------------------------------------------------------------ communicator


class Echo:
    """Answers every line by hand: what was sent is in ``heard``, what it says goes to stdout."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.stdin, self._heard = real()
        out, self._out = os.pipe()
        err, self._err = os.pipe()
        for fd in (out, err):
            os.set_blocking(fd, False)
        self.stdout = Source(FdInlet(out, loop), Stream.STDOUT, loop)
        self.stderr = Source(FdInlet(err, loop), Stream.STDERR, loop)
        self.command = COMMAND
        self.exit: Exit | None = None

    async def hear(self) -> bytes:
        return await self._heard.read()

    def say(self, data: bytes) -> None:
        os.write(self._out, data)

    def complain(self, data: bytes) -> None:
        os.write(self._err, data)

    def leave(self) -> None:
        for fd in (self._out, self._err):
            if fd >= 0:
                os.close(fd)
        self._out = self._err = -1
        self._heard.close()
        self.exit = Exit(0)


@contextlib.contextmanager
def talk(**options):
    process = Echo()
    yield process, Communicator(process, **options)
    process.leave()
    process.stdin.close()
    process.stdout.close()
    process.stderr.close()


async def test_send_and_receive():
    with talk() as (process, other):
        await other.send(b"raw")
        await other.send_line("größe")
        assert await process.hear() == "rawgröße\n".encode()
        process.say(b"one\ntwo\nrest")
        process.complain(b"oh")
        assert await other.receive_line() == "one"
        assert await other.receive(4) == b"two\n"
        assert await other.receive() == b"rest"
        assert await other.receive_error() == b"oh"
        assert "cat" in repr(other)
        other.close_stdin()
        assert await process.hear() == b""
        with pytest.raises(StreamClosed) as caught:
            await other.send(b"x")
        assert caught.value.stream == "stdin"


async def test_requests_queue_in_order():
    with talk() as (process, other):
        tasks = [await started(other.request(f"q{i}")) for i in range(3)]
        for i in range(3):
            assert await process.hear() == b"q%d\n" % i
            process.say(b"a%d\n" % i)
            assert await tasks[i] == f"a{i}"


async def test_a_late_answer_is_nobodys():
    with talk() as (process, other):
        cancelled = await started(other.request("slow"))
        unsent = await started(other.request("never sent"))
        cancelled.cancel()
        unsent.cancel()
        await asyncio.wait((cancelled, unsent))
        task = await started(other.request("next"))
        assert await process.hear() == b"slow\nnext\n"
        process.say(b"late\nright\n")
        assert await task == "right"
        again = await started(other.request("once more"))
        again.cancel()
        await asyncio.wait((again,))
        process.say(b"late\nunasked\n")
        assert await other.receive_line() == "unasked"


async def test_a_request_cancelled_while_it_is_being_sent_is_sent_as_a_whole():
    with talk() as (process, other):
        text = "x" * 200_000
        first = await started(other.request(text))
        first.cancel()
        await asyncio.wait((first,))
        second = await started(other.request("second"))
        heard = b""
        while heard.count(b"\n") < 2:
            heard += await process.hear()
        assert heard == text.encode() + b"\nsecond\n"
        process.say(b"to the first\nto the second\n")
        assert await second == "to the second"


async def test_an_answer_longer_than_the_limit_does_not_shift_the_next():
    with talk(max_line=16) as (process, other):
        task = await started(other.request("long"))
        process.say(b"0123456789abcdef" * 3 + b"\n")
        line = await task
        assert (line, line.partial) == ("0123456789abcdef", True)
        assert await other.receive_line() == "0123456789abcdef"
        task = await started(other.request("next"))
        task.cancel()
        await asyncio.wait((task,))
        process.say(b"x" * 40 + b"\nright\n")
        assert await other.request("another") == "right"


async def test_a_reader_in_the_way_does_not_shift_the_answers():
    with talk() as (process, other):
        reader = await started(process.stdout.read())
        with pytest.raises(StateError):
            await other.request("first")
        process.say(b"to the first\n")
        assert await reader == b"to the first\n"
        process.stdout.push_back(b"to the first\n")
        process.say(b"to the second\n")
        assert await other.request("second") == "to the second"


async def test_the_end_of_the_process():
    with talk() as (process, other):
        task = await started(other.request("q"))
        process.say(b"unfinished")
        process.leave()
        assert (await task).partial
        for attempt, stream in [
            (other.receive_line(), "stdout"),
            (other.request("q"), "stdin"),
            (other.send_line("q"), "stdin"),
        ]:
            with pytest.raises(StreamClosed) as caught:
                await attempt
            assert (caught.value.stream, caught.value.exit, caught.value.command) == (stream, Exit(0), COMMAND)
        assert await other.receive() == b""
        assert await other.receive_error() == b""


async def test_bytes_behind_the_end_are_still_lines():
    with talk() as (process, other):
        process.say(b"a\nb\nc")
        process.leave()
        assert [await other.receive_line() for _ in range(2)] == ["a", "b"]
        assert await other.receive_line() == "c"
        process.stdout.push_back(b"d\n")
        assert await other.receive_line() == "d"


async def test_streams_that_are_no_pipes():
    process = SimpleNamespace(stdin=None, stdout=None, stderr=None, command=COMMAND, exit=None)
    other = Communicator(process)
    other.close_stdin()
    for attempt, stream in [
        (other.send(b"x"), "stdin"),
        (other.send_line("x"), "stdin"),
        (other.request("x"), "stdout"),
        (other.receive(), "stdout"),
        (other.receive_line(), "stdout"),
        (other.receive_error(), "stderr"),
    ]:
        with pytest.raises(StreamClosed) as caught:
            await attempt
        assert caught.value.stream == stream


async def test_a_line_is_one_line():
    with talk() as (_, other):
        for attempt in (other.send_line("two\nlines"), other.request("two\n")):
            with pytest.raises(ConfigError) as caught:
                await attempt
            assert caught.value.field == "line"


def test_turns_skip_those_that_are_done():
    with asyncio.Runner() as runner:
        queue = Turns(runner.get_loop())
        queue._busy = True
        future = runner.get_loop().create_future()
        future.cancel()
        queue._queue = deque([future])
        queue.give()
        assert not queue._busy
