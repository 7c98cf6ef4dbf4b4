"""Pipes of a child as asyncio transports, so that asyncio's own stream objects can work on them."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from procession._launch._fds import quietly

if TYPE_CHECKING:
    from procession._launch._fds import FdInlet, FdOutlet

_log = logging.getLogger("procession")
_READ = 65_536  # the capacity of a pipe
_HIGH, _LOW = 65_536, 16_384  # asyncio's bounds of a write buffer
_WARN_AFTER = 5  # writes to a lost pipe before it is logged, as asyncio does

Protocol: TypeAlias = asyncio.subprocess.SubprocessStreamProtocol
Lost: TypeAlias = Callable[["ReadPipe | WritePipe", "Exception | None"], None]


class ReadPipe(asyncio.ReadTransport):
    """Feeds what a child writes to one of the readers of ``protocol``; the reader sets the pace."""

    def __init__(
        self, number: int, inlet: FdInlet, loop: asyncio.AbstractEventLoop, protocol: Protocol, lost: Lost
    ) -> None:
        super().__init__({"pipe": inlet})
        self.number = number
        self._inlet = inlet
        self._loop = loop
        self._protocol = protocol
        self._lost = lost
        self._paused = True
        self._closing = False

    def __repr__(self) -> str:
        state = "closed" if self._closing else "idle" if self._paused else "polling"
        return f"<{type(self).__name__} fd={self._inlet.fileno()} {state}>"

    def __del__(self) -> None:
        if self._inlet.fileno() >= 0:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._inlet.close()

    def is_reading(self) -> bool:
        """Whether data may arrive."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Leaves what comes in the pipe."""
        if self.is_reading():
            self._paused = True
            self._inlet.on_readable(None)

    def resume_reading(self) -> None:
        """Reads on."""
        if self._paused and not self._closing:
            self._paused = False
            self._inlet.on_readable(self._ready)

    def is_closing(self) -> bool:
        """Whether it was closed, or the other end was."""
        return self._closing

    def close(self) -> None:
        """Closes our end; the reader meets the end of the file."""
        self._end(None)

    def _ready(self) -> None:
        try:
            data = self._inlet.read_nowait(_READ)
        except OSError as error:
            self._end(error)
            return
        if data:
            self._protocol.pipe_data_received(self.number, data)
        elif data is not None:
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._inlet.close()
        self._loop.call_soon(self._lost, self, error)


class WritePipe(asyncio.WriteTransport):
    """Writes to a child; what does not fit is buffered, and ``protocol`` told to wait when that is much.

    As asyncio's, it notices at once when nobody reads any more.
    """

    number = 0

    def __init__(self, outlet: FdOutlet, loop: asyncio.AbstractEventLoop, protocol: Protocol, lost: Lost) -> None:
        super().__init__({"pipe": outlet})
        self._outlet = outlet
        self._loop = loop
        self._protocol = protocol
        self._lost = lost
        self._buffer = bytearray()
        self._high, self._low = _HIGH, _LOW
        self._full = False
        self._closing = False
        self._refused = 0
        self._watched = -1

    def __repr__(self) -> str:
        state = "closed" if self._outlet.fileno() < 0 else "closing" if self._closing else "open"
        return f"<{type(self).__name__} fd={self._outlet.fileno()} {state} bufsize={len(self._buffer)}>"

    def __del__(self) -> None:
        if self._outlet.fileno() >= 0:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self, stacklevel=2)
            self._shut()

    def watch(self) -> None:
        """The write end of a pipe never becomes readable, but reports as such that its readers are gone."""
        self._watched = self._outlet.fileno()
        self._loop.add_reader(self._watched, self._hung_up)

    def _hung_up(self) -> None:
        self._end(BrokenPipeError() if self._buffer else None)

    # ----------------------------------------------------------------------------------------- writing

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Writes ``data`` now or later; never waits."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data: expected bytes-like, got {type(data).__name__}")
        view = memoryview(data).cast("B")
        if not view:
            return
        if self._closing:
            if self._refused >= _WARN_AFTER:
                _log.warning("stdin was closed, what is written to it is lost")
            self._refused += 1
            return
        if not self._buffer:
            try:
                taken = self._outlet.write_nowait(view) or 0
            except OSError as error:
                self._refused += 1
                self._end(error)
                return
            view = view[taken:]
            if not view:
                return
            self._outlet.on_writable(self._ready)
        self._buffer += view
        if len(self._buffer) > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def _ready(self) -> None:
        if not self._buffer:
            return
        try:
            with memoryview(self._buffer) as view:
                taken = self._outlet.write_nowait(view) or 0
        except OSError as error:
            self._end(error)
            return
        del self._buffer[:taken]
        if not self._buffer:
            self._outlet.on_writable(None)
        if self._full and len(self._buffer) <= self._low:
            self._full = False
            self._protocol.resume_writing()
        if self._closing and not self._buffer:
            self._finish(None)

    def get_write_buffer_size(self) -> int:
        """Bytes not yet taken by the kernel."""
        return len(self._buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The low and the high bound of the buffer."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Sets between which sizes of the buffer ``drain`` waits."""
        if high is None:
            high = _HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        if len(self._buffer) > high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    # ----------------------------------------------------------------------------------------- closing

    def can_write_eof(self) -> bool:
        """It can: closing is the end of the file."""
        return True

    def write_eof(self) -> None:
        """Closes once everything is written."""
        if not self._closing:
            self._closing = True
            if not self._buffer:
                self._finish(None)

    def is_closing(self) -> bool:
        """Whether it was closed, or nobody reads."""
        return self._closing

    def close(self) -> None:
        """Closes once everything is written."""
        self.write_eof()

    def abort(self) -> None:
        """Closes now; what was not written is lost."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._outlet.fileno() >= 0:
            self._closing = True
            self._buffer.clear()
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._shut()
        self._loop.call_soon(self._lost, self, error)

    def _shut(self) -> None:
        if self._watched >= 0:
            quietly(self._loop.remove_reader, self._watched)
            self._watched = -1
        self._outlet.close()
