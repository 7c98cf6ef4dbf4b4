from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
from collections import deque
from collections.abc import Callable

import pytest

from procession._launch._fds import FdInlet
from procession._types import Stream
from procession.errors import ConfigError, StateError
from procession.process._merge import Chunk, merged
from procession.process._source import Overflow, Source

pytestmark = pytest.mark.both_loops


class FakeInlet:
    """Whatever the test puts in; calls back only when told to."""

    def __init__(self) -> None:
        self.data: deque[bytes | OSError] = deque()
        self.callback: Callable[[], None] | None = None
        self.registered = 0
        self.closed = 0

    def read_nowait(self, limit: int) -> bytes | None:
        if not self.data:
            return None
        item = self.data[0]
        if isinstance(item, OSError):
            raise item
        if item:
            self.data[0] = item[limit:]
            if not self.data[0]:
                self.data.popleft()
        return item[:limit]

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        if callback is not None:
            assert self.callback is None, "registered twice"
            self.registered += 1
        self.callback = callback

    def fire(self, *data: bytes | OSError) -> None:
        self.data.extend(data)
        if self.callback is not None:
            self.callback()

    def close(self) -> None:
        self.closed += 1


def fake(stream: Stream = Stream.STDOUT) -> tuple[FakeInlet, Source]:
    inlet = FakeInlet()
    return inlet, Source(inlet, stream, asyncio.get_running_loop())


@contextlib.contextmanager
def pipe(stream: Stream = Stream.STDOUT):
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    source = Source(FdInlet(reader, asyncio.get_running_loop()), stream, asyncio.get_running_loop())
    with open(writer, "wb", buffering=0) as file:
        yield source, file
    source.close()


async def turns(n: int = 3) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def started(coroutine, name: str | None = None) -> asyncio.Task:
    task = asyncio.create_task(coroutine, name=name)
    await turns()
    return task


# ------------------------------------------------------------------------------------------ reading


async def test_what_is_there_is_read_without_registering():
    inlet, source = fake()
    inlet.data.extend([b"abc", b"def"])
    assert await source.read(2) == b"ab"
    assert source.read_nowait() == b"c"
    assert await source.read() == b"def"
    assert source.read_nowait() is None
    assert inlet.registered == 0


async def test_a_wait_registers_once_and_the_callback_reads():
    inlet, source = fake()
    for word in (b"one", b"two", b"three"):
        task = await started(source.read())
        inlet.fire(word)
        assert not inlet.data  # taken in the callback
        assert await task == word
    assert inlet.registered == 1
    inlet.fire(b"nobody waits")
    assert inlet.callback is None  # paused
    assert await source.read() == b"nobody waits"


async def test_a_spurious_callback_keeps_waiting():
    inlet, source = fake()
    task = await started(source.read())
    inlet.fire()
    await turns()
    assert not task.done()
    inlet.fire(b"now")
    assert await task == b"now"


async def test_cancelled_when_data_were_just_handed_over_keeps_them():
    inlet, source = fake()
    task = await started(source.read())
    inlet.fire(b"precious")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inlet.callback is None
    assert await source.read() == b"precious"


async def test_cancelled_before_anything_came_loses_nothing():
    inlet, source = fake()
    task = await started(source.read())
    task.cancel()
    inlet.fire(b"late")  # the future is cancelled, the task has not run yet
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.read_nowait() == b"late"


async def test_a_second_reader_is_told_who_reads():
    inlet, source = fake()
    task = await started(source.read(), name="first-reader")
    with pytest.raises(StateError, match="stdout is already being read by first-reader"):
        await source.read()
    with pytest.raises(StateError, match="first-reader"):
        source.read_nowait()
    with pytest.raises(StateError, match="first-reader"):
        await anext(merged((source,)))
    inlet.fire(b"x")
    assert await task == b"x"


async def test_the_end_is_the_end_again_and_again():
    inlet, source = fake()
    inlet.data.extend([b"last", b""])
    assert [chunk async for chunk in source] == [b"last"]
    assert await source.read() == b""
    assert source.at_end
    assert not source.truncated


async def test_pushed_back_data_come_first_and_wake_a_reader():
    inlet, source = fake()
    inlet.data.append(b"later")
    source.push_back(b"b")
    source.push_back(b"a")
    source.push_back(b"")
    assert [source.read_nowait(), source.read_nowait(), source.read_nowait()] == [b"a", b"b", b"later"]
    task = await started(source.read())
    source.push_back(b"again")
    assert await task == b"again"


async def test_the_loop_has_its_turn_though_data_never_cease():
    inlet, source = fake()
    inlet.data.append(b"x" * 100_000)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        ticker = group.create_task(tick())
        for _ in range(320):
            await source.read(1)
        assert 8 <= ticks <= 12
        ticks = 0
        while source.read_nowait():
            pass
        inlet.data.extend([b"x"] * 320)
        chunks = merged((source,))
        for _ in range(320):
            await anext(chunks)
        assert 8 <= ticks <= 12
        ticker.cancel()


async def test_close_wakes_the_reader_with_the_end():
    inlet, source = fake()
    task = await started(source.read())
    source.close()
    source.close()
    assert await task == b""
    assert await source.read() == b""
    assert inlet.closed == 1
    assert inlet.callback is None
    assert source.truncated
    assert source.is_closed
    assert "closed" in repr(source)


async def test_an_error_of_the_system_reaches_the_reader():
    inlet, source = fake()
    task = await started(source.read())
    inlet.fire(OSError(errno.ENXIO, "gone"))
    with pytest.raises(OSError, match="gone"):
        await task
    assert inlet.callback is None


# ------------------------------------------------------------------------------------------- merged


async def test_merged_in_order_of_arrival_with_their_streams():
    out_inlet, out = fake()
    err_inlet, err = fake(Stream.STDERR)
    both = merged((out, err))
    seen = []
    for inlet, data in [(out_inlet, b"1"), (err_inlet, b"2"), (err_inlet, b"3"), (out_inlet, b"4")]:
        task = await started(anext(both))
        inlet.fire(data)
        seen.append(await task)
    assert seen == [b"1", b"2", b"3", b"4"]
    assert [chunk.stream for chunk in seen] == ["stdout", "stderr", "stderr", "stdout"]
    assert all(isinstance(chunk, Chunk) for chunk in seen)
    task = await started(anext(both))
    err_inlet.fire(b"first")  # both within one turn of the loop
    out_inlet.fire(b"second")
    assert [await task, await anext(both)] == [b"first", b"second"]
    out_inlet.data.append(b"")
    err_inlet.data.extend([b"tail", b""])
    assert [chunk async for chunk in both] == [b"tail"]
    assert out.at_end
    assert err.at_end


async def test_merged_may_be_left_early():
    out_inlet, out = fake()
    err_inlet, err = fake(Stream.STDERR)
    both = merged((out, err))
    task = await started(anext(both))
    out_inlet.fire(b"o")
    err_inlet.fire(b"e")
    assert await task == b"o"
    await both.aclose()
    assert out_inlet.callback is err_inlet.callback is None
    assert await err.read() == b"e"
    assert [chunk async for chunk in both] == []


async def test_merged_cancelled_leaves_nothing_registered_and_loses_nothing():
    out_inlet, out = fake()
    err_inlet, err = fake(Stream.STDERR)
    task = await started(anext(merged((out, err))))
    err_inlet.fire(b"e")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert out_inlet.callback is err_inlet.callback is None
    assert [chunk async for chunk in _until(merged((out, err)), 1)] == [b"e"]


async def _until(chunks, n: int):
    for _ in range(n):
        yield await anext(chunks)


async def test_merged_fails_on_a_busy_source_without_taking_the_others():
    _, out = fake()
    err_inlet, err = fake(Stream.STDERR)
    task = await started(err.read(), name="holder")
    with pytest.raises(StateError, match="holder"):
        await anext(merged((out, err)))
    assert out.read_nowait() is None
    err_inlet.fire(b"x")
    assert await task == b"x"


# ------------------------------------------------------------------------------ nobody reads


async def test_divert_keeps_the_end_and_counts_the_rest():
    inlet, source = fake()
    source.divert(keep=10)
    inlet.fire(b"0123456789", b"abcdef")
    assert source.dropped == 6
    assert not inlet.data
    assert await source.read(4) == b"6789"
    inlet.fire(b"more")  # back to back-pressure
    assert inlet.callback is None
    assert inlet.data
    assert await source.read() == b"abcdef"
    assert await source.read() == b"more"


async def test_divert_to_the_end():
    inlet, source = fake()
    source.divert(keep=4)
    inlet.fire(b"abcdef", b"")
    assert inlet.callback is None
    assert not source.at_end
    assert [chunk async for chunk in source] == [b"cdef"]
    assert source.at_end


async def test_drop_oldest_goes_on_between_reads():
    inlet, source = fake()
    source.set_overflow(Overflow.DROP_OLDEST, 4)
    source.divert(keep=1)  # no effect: nothing blocks as it is
    inlet.fire(b"abcdef")
    assert await source.read() == b"cdef"
    task = await started(source.read())
    inlet.fire(b"direct, more than is kept")
    assert await task == b"direct, more than is kept"
    inlet.fire(b"uvwxyz")
    source.set_overflow("block")
    inlet.fire(b"waits")
    assert await source.read() == b"wxyz"
    assert inlet.data
    assert await source.read() == b"waits"
    assert source.dropped == 4


async def test_spill_is_read_back_in_order_and_bounded():
    inlet, source = fake()
    source.set_overflow(Overflow.SPILL, 10)
    inlet.fire(b"0123456789abcdefghij")
    inlet.fire()
    assert inlet.callback is None  # full: back-pressure
    assert await source.read(4) == b"0123"
    inlet.fire()  # wraps around in the file
    got = b""
    while len(got) < 16:
        got += await source.read(3)
        inlet.fire()
    assert got == b"456789abcdefghij"
    assert source.dropped == 0
    source.close()


async def test_a_full_disk_is_back_pressure(monkeypatch: pytest.MonkeyPatch):
    inlet, source = fake()
    source.set_overflow(Overflow.SPILL)
    inlet.fire(b"fits")
    pwrite = os.pwrite

    def full(fd: int, data: memoryview, offset: int) -> int:
        if offset >= 6:
            raise OSError(errno.ENOSPC, "full")
        return pwrite(fd, data[:2], offset)

    monkeypatch.setattr(os, "pwrite", full)
    inlet.fire(b"half", b"waits")
    assert inlet.callback is None
    assert list(inlet.data) == [b"waits"]
    assert await source.read() == b"fitsha"
    assert await source.read() == b"lf"
    assert await source.read() == b"waits"
    source.close()


async def test_policies_hand_over_what_they_keep():
    inlet, source = fake()
    source.set_overflow("spill", 100)
    inlet.fire(b"0123456789")
    source.set_overflow("drop_oldest", 6)
    assert source.dropped == 4
    source.set_overflow("spill", 3)
    assert source.dropped == 7
    inlet.fire(b"")
    assert await source.read() == b"456"
    source.close()


async def test_closing_counts_what_was_in_the_file():
    inlet, source = fake()
    source.set_overflow("spill", 100)
    inlet.fire(b"0123456789")
    source.close()
    assert source.dropped == 10
    source.set_overflow("spill", 100)  # leaves no file open
    assert await source.read() == b""


async def test_an_error_while_diverting_reaches_the_next_reader():
    inlet, source = fake()
    source.divert()
    inlet.fire(b"kept", OSError(errno.ENXIO, "gone"))
    assert inlet.callback is None
    assert await source.read() == b"kept"
    with pytest.raises(OSError, match="gone"):
        await source.read()


async def test_bad_values_are_refused():
    _, source = fake()
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: source.divert(0), "keep"),
        (lambda: source.set_overflow("forget"), "policy"),
        (lambda: source.set_overflow("spill", 0), "max_bytes"),
    ]
    for call, field in cases:
        with pytest.raises(ConfigError) as caught:
            call()
        assert caught.value.field == field


# ----------------------------------------------------------------------------------- real pipes


async def test_a_real_pipe_to_its_end():
    with pipe() as (source, file):
        got = bytearray()

        async def read() -> None:
            async for chunk in source:
                got.extend(chunk)

        task = await started(read())
        sent = bytearray()
        for i in range(200):
            piece = b"%d," % i * 100
            sent += piece
            file.write(piece)
            await turns(i % 4)
        file.close()
        await task
        assert got == sent


async def test_a_slow_reader_blocks_the_writer():
    with pipe() as (source, file):
        assert await _fill(source, file) <= fcntl.fcntl(file, fcntl.F_GETPIPE_SZ)


async def _fill(source: Source, file, tries: int = 100) -> int:
    total = 0
    for _ in range(tries):
        total += file.write(b"x" * 65536) or 0
        await turns(4)
    return total


@pytest.mark.parametrize("policy", ["drop_oldest", "spill"])
async def test_an_unread_pipe_never_blocks_its_writer(policy: str):
    with pipe(Stream.STDERR) as (source, file):
        source.set_overflow(policy)
        assert await _fill(source, file) == 6_553_600
        file.close()
        await turns(4)
        got = 0
        async for chunk in source:
            got += len(chunk)
        assert got + source.dropped == 6_553_600
        assert got == (1 << 20 if policy == "drop_oldest" else 6_553_600)


async def test_two_real_pipes_merged():
    with pipe() as (out, out_file), pipe(Stream.STDERR) as (err, err_file):
        got = {"stdout": bytearray(), "stderr": bytearray()}

        async def read() -> None:
            async for chunk in merged((out, err)):
                got[chunk.stream] += chunk

        task = await started(read())
        for i in range(100):
            (out_file, err_file)[i % 2].write(b"%d" % i)
            await turns(i % 3)
        out_file.close()
        err_file.write(b"end")
        err_file.close()
        await task
        assert got["stdout"] == b"".join(b"%d" % i for i in range(0, 100, 2))
        assert got["stderr"] == b"".join(b"%d" % i for i in range(1, 100, 2)) + b"end"
