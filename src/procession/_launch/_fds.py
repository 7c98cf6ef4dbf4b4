"""Our ends of pipes and terminals: non-blocking descriptors with ``add_reader`` and ``add_writer``.

Registering a reader is one synchronous call on asyncio and uvloop alike, so there is no half-made
transport for a cancellation to leak.
"""

from __future__ import annotations

import errno
import os
from asyncio import AbstractEventLoop
from collections.abc import Callable


class FdInlet:
    """The read end of a pipe, or a terminal's master side. Owns the descriptor."""

    __slots__ = ("_armed", "_fd", "_loop")

    def __init__(self, fd: int, loop: AbstractEventLoop) -> None:
        self._fd = fd
        self._loop = loop
        self._armed = False

    def fileno(self) -> int:
        """The descriptor, or -1 once closed."""
        return self._fd

    def read_nowait(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes; ``b""`` at the end of the file, ``None`` when nothing is there yet."""
        if self._fd < 0:
            return b""
        try:
            return os.read(self._fd, limit)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose last user is gone, see pty(7)
                return b""
            raise

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        """Calls ``callback`` whenever there is something to read, until ``None`` is given."""
        if self._fd < 0:
            return
        if callback is not None:
            self._loop.add_reader(self._fd, callback)
            self._armed = True
        elif self._armed:
            self._armed = False
            quietly(self._loop.remove_reader, self._fd)

    def close(self) -> None:
        """Closes the descriptor; may be called twice."""
        if self._fd >= 0:
            self.on_readable(None)
            fd, self._fd = self._fd, -1
            os.close(fd)


class FdOutlet:
    """The write end of a pipe, or a terminal's master side. Owns the descriptor."""

    __slots__ = ("_armed", "_fd", "_loop", "_terminal")

    def __init__(self, fd: int, loop: AbstractEventLoop, *, terminal: bool = False) -> None:
        self._fd = fd
        self._loop = loop
        self._armed = False
        self._terminal = terminal

    def fileno(self) -> int:
        """The descriptor, or -1 once closed."""
        return self._fd

    def write_nowait(self, data: memoryview) -> int | None:
        """Writes what fits and returns how much; ``None`` when nothing fits now.

        Raises:
            BrokenPipeError: nobody reads any more, or our end is closed.
        """
        if self._fd < 0:
            raise BrokenPipeError(errno.EPIPE, "closed")
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno == errno.EIO:
                raise BrokenPipeError(errno.EPIPE, "terminal is gone") from None
            raise

    def on_writable(self, callback: Callable[[], None] | None) -> None:
        """Calls ``callback`` whenever something fits, until ``None`` is given."""
        if self._fd < 0:
            return
        if callback is not None:
            self._loop.add_writer(self._fd, callback)
            self._armed = True
        elif self._armed:
            self._armed = False
            quietly(self._loop.remove_writer, self._fd)

    def close(self) -> None:
        """Closes the descriptor; may be called twice. On a terminal the end of file (Ctrl-D) is typed first."""
        if self._fd >= 0:
            self.on_writable(None)
            fd, self._fd = self._fd, -1
            if self._terminal:
                try:
                    os.write(fd, b"\x04")
                except OSError:
                    pass  # nobody is left to read it
            os.close(fd)


def quietly(remove: Callable[[int], object], fd: int) -> None:
    """Takes a descriptor out of a loop that may be closed."""
    try:
        remove(fd)
    except RuntimeError:
        pass  # the loop is closed and has forgotten the descriptor already
