"""A worker's end of its channel: frames in, frames out, and what is held back in shared memory.

Loaded by path beside the worker program, so it imports as little as possible, nothing of procession. The other end is
``_channel.py``; both share this file's numbers. What a frame is stands in ``_worker.py``.
"""

from __future__ import annotations

import _socket
import _struct
import _thread

TYPE_CHECKING = False  # importing typing takes longer than all of the above
if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence
    from typing import Any

HEADER = _struct.Struct("<QQIHH")
"""Length of what follows, id, number of a function or microseconds of a run, kind, number of buffers."""

MARK = _struct.Struct("<QB")
HELD = _struct.Struct("<QQ")  # at 16: how many bytes of answers are held back, and how often they have been sent
HELD_AT = 16
ANSWERS = 4096  # where answers that are held back stand: whoever finds this program dead finds them
HOLD = 32768
PAGE = ANSWERS + HOLD  # the mark, the flags, the answers
FLAGS = 64  # where the flags begin: one byte per call, by its id
FLAG_COUNT = 2048

CALL, DEFINE, FORGET, PING, STOP, SETUP = 1, 2, 3, 4, 5, 6
RESULT, ERROR, SKIPPED, PONG, READY, LOG, WARNING, START_FAILED = 11, 12, 13, 14, 15, 16, 17, 18
WAITING, READING, RUNNING, REPLYING = 0, 1, 2, 3

BYTES, BYTEARRAY = 1 << 63, 1 << 62  # in the table of sizes: what the buffer was
SIZE = ~(BYTES | BYTEARRAY)
LARGE = 32768  # bytes objects from this size on travel beside the pickle, not in it
KINDS: dict[object, int] = {bytes: BYTES, bytearray: BYTEARRAY}
_READ = 1 << 16
_PATIENCE = 0.0003  # seconds for which answers are held back while further calls are here already
_WAITALL = _socket.MSG_WAITALL


class Gone(Exception):
    """The other end has closed the channel."""


class Link:
    """This end of the channel."""

    def __init__(self, fd: int) -> None:
        self.socket = _socket.socket(fileno=fd)
        self.socket.setblocking(True)
        self.data = b""
        self.at = 0
        self.lock = _thread.RLock()  # a log record may come from another thread ...
        self.busy = False  # ... or from a signal handler or a finalizer of this one, in the middle of a frame
        self.later: list[tuple[int, int, int, bytes, Sequence[Any]]] = []
        self.limit = 1 << 62
        self.page: mmap.mmap | None = None
        self.held = 0
        self.held_since = 0.0
        self.sent = 0

    def fill(self, wanted: int) -> None:
        """Sees to it that ``wanted`` bytes can be had at once."""
        have = len(self.data) - self.at
        if have >= wanted:
            return
        parts = [self.data[self.at :]] if have else []
        while have < wanted:
            data = self.socket.recv(max(_READ, wanted - have))
            if not data:
                raise Gone
            parts.append(data)
            have += len(data)
        self.data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.at = 0

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes, as a view where they are there already."""
        if size <= _READ:
            self.fill(size)
            at = self.at
            self.at = at + size
            return memoryview(self.data)[at : at + size]
        return memoryview(self.take_into(size))

    def take_into(self, size: int) -> bytearray:
        """The next ``size`` bytes in a bytearray of their own, received in place."""
        target = bytearray(size)
        have = min(size, len(self.data) - self.at)
        target[:have] = memoryview(self.data)[self.at : self.at + have]
        self.at += have
        view = memoryview(target)
        while have < size:
            got = self.socket.recv_into(view[have:], size - have, _WAITALL)
            if not got:
                raise Gone
            have += got
        return target

    def take_bytes(self, size: int) -> bytes:
        """The next ``size`` bytes as a bytes object, received in place where possible."""
        if len(self.data) == self.at:
            data = self.socket.recv(size, _WAITALL)
            if len(data) == size:
                return data
            if not data:
                raise Gone
            self.data, self.at = data, 0
        return bytes(self.take_into(size))

    def frame(self) -> tuple[int, int, int, Any, Sequence[Any]]:
        """The next frame: kind, id, number, pickle, buffers."""
        self.fill(24)
        length, id, number, kind, count = HEADER.unpack_from(self.data, self.at)
        self.at += 24
        if not count:
            return kind, id, number, self.take(length), ()
        sizes = _struct.unpack(f"<{count}Q", self.take(8 * count))
        rest = length - 8 * count - sum(size & SIZE for size in sizes)
        pickled = bytes(self.take(rest))
        buffers = [self.take_bytes(size & SIZE) if size & BYTES else self.take_into(size & SIZE) for size in sizes]
        return kind, id, number, pickled, buffers

    def send(self, kind: int, id: int = 0, number: int = 0, pickled: bytes = b"", buffers: Sequence[Any] = ()) -> None:
        """Writes one frame, whole; one that comes up while another is being written goes after it."""
        with self.lock:
            if self.busy:
                self.later.append((kind, id, number, pickled, buffers))
                return
            self.busy = True
            try:
                if self.held:
                    self.release()
                self.write(kind, id, number, pickled, buffers)
                while self.later:
                    self.write(*self.later.pop(0))
            finally:
                self.busy = False

    def write(self, kind: int, id: int, number: int, pickled: bytes, buffers: Sequence[Any]) -> None:
        """Writes one frame. The lock is held."""
        if not buffers:
            head = HEADER.pack(len(pickled), id, number, kind, 0)
            if len(pickled) < _READ:
                self.socket.sendall(head + pickled)
            else:
                self.socket.sendall(head)
                self.socket.sendall(pickled)
            return
        views = [buffer.raw() for buffer in buffers]
        sizes = [view.nbytes | KINDS.get(type(view.obj), 0) for view in views]
        length = 8 * len(views) + len(pickled) + sum(view.nbytes for view in views)
        head = HEADER.pack(length, id, number, kind, len(views)) + _struct.pack(f"<{len(sizes)}Q", *sizes)
        self.socket.sendall(head + pickled)
        for view in views:
            self.socket.sendall(view)

    def has_call(self) -> bool:
        """Whether another call is here, whole, so that it will be run without waiting."""
        have = len(self.data) - self.at
        if have < 24:
            return False
        length, _, _, kind, _ = HEADER.unpack_from(self.data, self.at)
        return bool(kind == CALL and have >= 24 + length)

    def hold(self, kind: int, id: int, number: int, pickled: bytes, now: float) -> bool:
        """Holds an answer back, to be sent with the next ones in one go; ``False`` when it must not be.

        It stands in shared memory until then: if the next call ends this program, it is found there, and if the next
        call takes long, it is fetched from there.
        """
        with self.lock:
            held = self.held
            size = 24 + len(pickled)
            if self.busy or self.page is None or held + size > HOLD or (held and now - self.held_since > _PATIENCE):
                return False
            self.busy = True
            try:
                at = ANSWERS + held
                self.page[at : at + size] = HEADER.pack(len(pickled), id, number, kind, 0) + pickled
                if not held:
                    self.held_since = now
                self.held = held + size
                HELD.pack_into(self.page, HELD_AT, self.held, self.sent)
            finally:
                self.busy = False
        return True

    def cut(self, value: object) -> str:
        """The text of something that is news, not a result: as much of it as may be sent at once."""
        return plain(value)[: self.limit // 4]

    def release(self) -> None:
        """Sends what is held back. The lock is held."""
        page = self.page
        if page is not None:
            self.socket.sendall(page[ANSWERS : ANSWERS + self.held])
            self.held = 0
            self.sent += 1
            HELD.pack_into(page, HELD_AT, 0, self.sent)


def plain(value: object) -> str:
    """The text of anybody's object, as a string of no other kind: those do not travel."""
    try:
        return str.__str__(str(value))
    except Exception as worse:  # noqa: BLE001 - anybody's code
        return f"<its text cannot be had: {type(worse).__name__}>"
