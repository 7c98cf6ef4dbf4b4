from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import Callable

import pytest

from procession._launch._fds import FdInlet
from procession.process._collect import Collector

pytestmark = pytest.mark.both_loops


class FakeInlet:
    def __init__(self, *data: bytes | OSError | None) -> None:
        self.data = deque(data)
        self.callback: Callable[[], None] | None = None
        self.reads = 0
        self.closed = 0

    def read_nowait(self, limit: int) -> bytes | None:
        self.reads += 1
        item = self.data.popleft() if self.data else None
        if isinstance(item, OSError):
            raise item
        return item

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        self.callback = callback

    def fire(self) -> None:
        assert self.callback is not None
        self.callback()

    def close(self) -> None:
        self.closed += 1


def collector(*data: bytes | OSError | None, limit: int | None = None) -> tuple[FakeInlet, Collector]:
    inlet = FakeInlet(*data)
    return inlet, Collector(inlet, limit, asyncio.get_running_loop())


async def test_drain_now_without_ever_registering():
    inlet, found = collector(b"all of it", b"")
    assert inlet.reads == 0
    assert found.drain_now()
    assert found.drain_now()
    assert (found.value(), found.done, found.dropped, inlet.callback) == (b"all of it", True, 0, None)
    assert found.future.done()
    found.start()
    assert inlet.callback is None


async def test_drain_now_then_start():
    inlet, found = collector(b"a", None, b"b", b"c", b"")
    assert not found.drain_now()
    found.start()
    found.start()
    future = found.future
    inlet.fire()
    assert future.done()
    assert found.future is future
    assert (found.value(), found.tail(2), found.tail(0), found.size) == (b"abc", b"bc", b"", 3)
    assert inlet.callback is None


@pytest.mark.parametrize(
    ("limit", "kept"), [(0, b""), (1, b"a"), (3, b"abc"), (4, b"abcd"), (6, b"abcdef"), (None, b"abcdef")]
)
async def test_the_first_bytes_are_kept_and_the_others_counted(limit: int | None, kept: bytes):
    _, found = collector(b"abc", b"def", b"", limit=limit)
    assert found.drain_now()
    assert found.value() == kept
    assert found.tail(2) == kept[-2:]
    assert found.dropped == 6 - len(kept)


async def test_a_callback_reads_a_bounded_amount():
    inlet, found = collector(*[b"x"] * 1000)
    found.start()
    inlet.fire()
    assert inlet.reads == 16
    assert not found.drain_now()
    assert inlet.reads == 80
    found.close()


async def test_close_ends_it_and_keeps_what_there_is():
    inlet, found = collector(b"part")
    found.start()
    inlet.fire()
    future = found.future
    found.close()
    found.close()
    assert future.done()
    assert found.value() == b"part"
    assert inlet.callback is None
    assert "4 B, done" in repr(found)


async def test_an_error_of_the_system_ends_it():
    inlet, found = collector(b"part", OSError(errno.ENXIO, "gone"))
    found.start()
    inlet.fire()
    assert found.done
    assert found.failure is not None
    assert found.failure.errno == errno.ENXIO
    assert found.value() == b"part"


async def test_a_cancelled_future_does_not_matter():
    inlet, found = collector(b"")
    found.start()
    found.future.cancel()
    inlet.fire()
    assert found.done


async def test_a_real_pipe():
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    loop = asyncio.get_running_loop()
    found = Collector(FdInlet(reader, loop), 1_000_000, loop)
    found.start()
    for i in range(100):
        os.write(writer, bytes([i]) * 30_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    os.close(writer)
    await found.future
    assert found.value() == b"".join(bytes([i]) * 30_000 for i in range(100))[:1_000_000]
    assert found.dropped == 2_000_000
    found.close()
