"""Output gathered while nobody waits for it.

:class:`Collector` reads a stream to its end without a task; it is on the hot path of ``run()``. :class:`Tail` and
:class:`Spill` are where a ``Source`` puts what nobody reads.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from procession.abc import Inlet

READ = 65536
"""Bytes asked for at once: what a pipe holds by default."""

_BURST = 16  # reads in one callback: at most 1 MiB, so that many collectors share the loop
_DRAIN = 64  # reads in drain_now(): more than any pipe holds by default


class Collector:
    """Reads one stream to its end and keeps the first ``limit`` bytes.

    Nothing is read before :meth:`start` or :meth:`drain_now`.

    Args:
        inlet: our end of the pipe; the collector reads it from now on and closes it in :meth:`close`.
        limit: how much is kept; ``None``: everything. What is beyond is read, counted and thrown away.
        loop: the loop it is read on.
    """

    __slots__ = ("_armed", "_done", "_first", "_future", "_inlet", "_limit", "_loop", "_more", "dropped", "failure")

    def __init__(self, inlet: Inlet, limit: int | None, loop: asyncio.AbstractEventLoop) -> None:
        self.dropped = 0
        """Bytes beyond ``limit``."""
        self.failure: OSError | None = None
        """What ended the reading before the end of the stream, if anything did."""
        self._inlet = inlet
        self._limit = limit
        self._loop = loop
        self._first = b""  # most outputs come in one piece
        self._more: bytearray | None = None
        self._armed = False
        self._done = False
        self._future: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Reads from now on whenever something comes; may be called twice."""
        if not self._armed and not self._done:
            self._inlet.on_readable(self._ready)
            self._armed = True

    def drain_now(self) -> bool:
        """Reads what is there now and returns whether that was all there will ever be.

        When it is not, a descendant of the process still holds the stream, or wrote more than 4 MiB meanwhile.
        """
        return self._done or self._read(_DRAIN)

    @property
    def done(self) -> bool:
        """Whether the end was met, or :meth:`close` called."""
        return self._done

    @property
    def future(self) -> asyncio.Future[None]:
        """Done when :attr:`done` becomes true. It carries no value and no error."""
        if self._future is None:
            self._future = self._loop.create_future()
            if self._done:
                self._future.set_result(None)
        return self._future

    @property
    def size(self) -> int:
        """How many bytes are kept."""
        return len(self._first) if self._more is None else len(self._more)

    def value(self) -> bytes:
        """What is kept so far."""
        return self._first if self._more is None else bytes(self._more)

    def tail(self, n: int) -> bytes:
        """The last ``n`` bytes of what is kept."""
        if n <= 0:
            return b""
        return self._first[-n:] if self._more is None else bytes(self._more[-n:])

    def close(self) -> None:
        """Reads no more and closes our end; what is kept stays. May be called twice."""
        self._finish()
        self._inlet.close()

    # -------------------------------------------------------------------------------- the inside

    def _ready(self) -> None:
        self._read(_BURST)

    def _read(self, times: int) -> bool:
        read = self._inlet.read_nowait
        try:
            for _ in range(times):
                data = read(READ)
                if data is None:
                    return False
                if not data:
                    self._finish()
                    return True
                self._keep(data)
        except OSError as error:
            self.failure = error
            self._finish()
            return True
        return False

    def _keep(self, data: bytes) -> None:
        if self._limit is not None:
            room = self._limit - self.size
            if len(data) > room:
                self.dropped += len(data) - room
                data = data[:room]
                if not data:
                    return
        if self._more is not None:
            self._more += data
        elif self._first:
            self._more = bytearray(self._first)
            self._more += data
            self._first = b""
        else:
            self._first = data

    def _finish(self) -> None:
        if self._done:
            return
        self._done = True
        if self._armed:
            self._armed = False
            self._inlet.on_readable(None)
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    def __repr__(self) -> str:
        return f"<Collector {self.size} B{', done' if self._done else ''}>"


# -------------------------------------------------------------------------------- where unread output goes


class Tail:
    """The newest bytes, in memory."""

    __slots__ = ("_data", "_keep")
    room = READ
    """How much may be put at once."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._data = bytearray()

    @property
    def size(self) -> int:
        """How many bytes are in it."""
        return len(self._data)

    def put(self, data: bytes) -> int:
        """Appends and returns how many of the oldest bytes were dropped."""
        self._data += data
        excess = len(self._data) - self._keep
        if excess > 0:
            del self._data[:excess]
            return excess
        return 0

    def take(self, limit: int) -> bytes:
        """Removes and returns up to ``limit`` of the oldest bytes."""
        data = bytes(self._data[:limit])
        del self._data[:limit]
        return data

    def close(self) -> None:
        """Forgets everything."""
        self._data.clear()


class Spill:
    """A ring in an unlinked temporary file. Its reads and writes meet the page cache, on the loop's thread."""

    __slots__ = ("_capacity", "_carry", "_file", "_start", "_stored")

    def __init__(self, capacity: int) -> None:
        self._file: Any = tempfile.TemporaryFile(prefix="procession-", buffering=0)  # noqa: SIM115 - closed in close()
        self._capacity = capacity
        self._start = 0
        self._stored = 0
        self._carry = b""  # what the disk refused, one chunk at most

    @property
    def size(self) -> int:
        """How many bytes are in it."""
        return self._stored + len(self._carry)

    @property
    def room(self) -> int:
        """How much may be put now."""
        return 0 if self._carry else self._capacity - self._stored

    def put(self, data: bytes) -> int:
        """Appends what must fit into ``room``; nothing is ever dropped."""
        view = memoryview(data)
        while view:
            end = (self._start + self._stored) % self._capacity
            try:
                written = os.pwrite(self._file.fileno(), view[: self._capacity - end], end)
            except OSError:  # disk full, quota, file size limit: the process waits until this was read
                self._carry = bytes(view)
                break
            self._stored += written
            view = view[written:]
        return 0

    def take(self, limit: int) -> bytes:
        """Removes and returns up to ``limit`` of the oldest bytes."""
        if not self._stored:
            data, self._carry = self._carry[:limit], self._carry[limit:]
            return data
        fd = self._file.fileno()
        data = os.pread(fd, min(limit, self._stored, self._capacity - self._start), self._start)
        self._start = (self._start + len(data)) % self._capacity
        self._stored -= len(data)
        if not self._stored:
            self._start = 0
            os.ftruncate(fd, 0)
        return data

    def close(self) -> None:
        """Forgets everything."""
        self._file.close()
        self._stored = 0
        self._carry = b""
