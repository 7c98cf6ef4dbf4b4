"""A pipe in memory, with the kernel's capacity and manners, so that back-pressure is simulated too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CAPACITY = 65_536
"""Bytes a pipe holds, as on Linux."""

PIPE_BUF = 4096
"""Writes up to this size are whole or not at all, and a pipe is writable when that much fits."""

Callback = Callable[[], None]


class MemoryPipe:
    """A one-way pipe. One end is ours (an ``Inlet`` or ``Outlet``), the other the simulated process's.

    Args:
        loop: where callbacks run.
        capacity: bytes it holds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, capacity: int = CAPACITY) -> None:
        self.loop = loop
        self.capacity = capacity
        self.buffer: bytearray = bytearray()
        self.writers: int = 0
        self.readers: int = 0
        self._watchers: list[Callback] = []

    @property
    def free(self) -> int:
        """Bytes that fit."""
        return self.capacity - len(self.buffer)

    @property
    def readable(self) -> bool:
        """Whether a read would tell something: data or the end."""
        return bool(self.buffer) or not self.writers

    @property
    def writable(self) -> bool:
        """Whether a write would: space, or that nobody reads."""
        return self.free >= min(PIPE_BUF, self.capacity) or not self.readers

    def watch(self, watcher: Callback) -> None:
        """Calls ``watcher`` after every change."""
        self._watchers.append(watcher)

    def unwatch(self, watcher: Callback) -> None:
        """Ends that."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)

    def changed(self) -> None:
        """Tells all watchers."""
        for watcher in tuple(self._watchers):
            watcher()

    def read(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes; ``b""`` at the end, ``None`` when nothing is there."""
        if not self.buffer:
            return None if self.writers else b""
        data = bytes(memoryview(self.buffer)[:limit])
        del self.buffer[: len(data)]
        self.changed()
        return data

    def write(self, data: memoryview) -> int | None:
        """Writes what fits; ``None`` when nothing does.

        Raises:
            BrokenPipeError: nobody reads.
        """
        if not self.readers:
            raise BrokenPipeError(32, "Broken pipe")
        size = len(data)
        if size > self.free:
            if size <= min(PIPE_BUF, self.capacity) or not self.free:
                return None
            size = self.free
        self.buffer += data[:size]
        if size:
            self.changed()
        return size

    def open_writer(self) -> None:
        """One more that may write."""
        self.writers += 1

    def close_writer(self) -> None:
        """One less; after the last the end is there."""
        self.writers -= 1
        self.changed()

    def open_reader(self) -> None:
        """One more that may read."""
        self.readers += 1

    def close_reader(self) -> None:
        """One less; after the last, writing fails and what was written is gone."""
        self.readers -= 1
        if not self.readers:
            self.buffer.clear()
        self.changed()


class _End:
    """Our end: level-triggered callbacks, as from ``add_reader``: one per turn for as long as the level holds."""

    def __init__(self, pipe: MemoryPipe) -> None:
        self.pipe = pipe
        self.closed = False
        self._callback: Callback | None = None
        self._turn: asyncio.Handle | None = None

    def _level(self) -> bool:
        raise NotImplementedError

    def _watch(self, callback: Callback | None) -> None:
        if self._callback is None and callback is not None:
            self.pipe.watch(self._changed)
        elif self._callback is not None and callback is None:
            self.pipe.unwatch(self._changed)
        self._callback = callback
        self._changed()

    def _changed(self) -> None:
        if self._callback is None:
            if self._turn is not None:
                self._turn.cancel()
                self._turn = None
        elif self._turn is None and self._level():
            self._turn = self.pipe.loop.call_soon(self._call)

    def _call(self) -> None:
        self._turn = None
        if self._callback is not None and self._level():
            self._callback()
            self._changed()


class MemoryInlet(_End):
    """Our end of a pipe that a simulated process writes to; an ``abc.Inlet``."""

    def __init__(self, pipe: MemoryPipe) -> None:
        super().__init__(pipe)
        pipe.open_reader()

    def _level(self) -> bool:
        return self.pipe.readable

    def read_nowait(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes; ``b""`` at the end of the file, ``None`` when nothing is there yet."""
        return b"" if self.closed else self.pipe.read(limit)

    def on_readable(self, callback: Callback | None) -> None:
        """Calls ``callback`` whenever there is something to read, until ``None`` is given."""
        self._watch(None if self.closed else callback)

    def close(self) -> None:
        """Closes our end; may be called twice."""
        if not self.closed:
            self._watch(None)
            self.closed = True
            self.pipe.close_reader()


class MemoryOutlet(_End):
    """Our end of a pipe that a simulated process reads from; an ``abc.Outlet``."""

    def __init__(self, pipe: MemoryPipe) -> None:
        super().__init__(pipe)
        pipe.open_writer()

    def _level(self) -> bool:
        return self.pipe.writable

    def write_nowait(self, data: memoryview) -> int | None:
        """Writes what fits and returns how much; ``None`` when nothing fits now.

        Raises:
            BrokenPipeError: nobody reads any more, or this end was closed.
        """
        if self.closed:
            raise BrokenPipeError(32, "Broken pipe")
        return self.pipe.write(data)

    def on_writable(self, callback: Callback | None) -> None:
        """Calls ``callback`` whenever something fits, until ``None`` is given."""
        self._watch(None if self.closed else callback)

    def close(self) -> None:
        """Closes our end, which is the end of the file for the reader; may be called twice."""
        if not self.closed:
            self._watch(None)
            self.closed = True
            self.pipe.close_writer()
