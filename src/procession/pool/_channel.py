"""Our end of the channel to one function worker: a socketpair, frames with ids, never a wait.

The frames are described in ``_worker.py``. What is sent in one turn of the loop leaves in one system call; what does not
fit waits in a list, not in a copy. A frame that is larger than the buffer is received in place.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from procession._launch._fds import quietly
from procession.pool._link import BYTEARRAY, BYTES, HEADER, KINDS, LARGE, SIZE

Buffer = bytes | bytearray | memoryview
OnFrame = Callable[[int, int, int, Any, Sequence[Any]], None]

_BUFFER = 1 << 16
_JOIN = 1 << 16  # up to here one copy is cheaper than a vector
_VECTOR = 64
_SPARE = 1 << 21  # so much memory is kept for the next large frame: to get it anew costs more than to fill it
_HEAD = HEADER.size
_unpack = HEADER.unpack_from


class Parcel:
    """One message, pickled: what travels in the pickle, what beside it.

    Attributes:
        pickled: the pickle.
        buffers: what travels beside it, not copied.
        length: bytes of all of it, the table of sizes included.
    """

    __slots__ = ("buffers", "length", "pickled", "table")

    def __init__(self, pickled: bytes, buffers: Sequence[pickle.PickleBuffer] = ()) -> None:
        self.pickled = pickled
        self.buffers: list[memoryview] = []
        self.table = b""
        self.length = len(pickled)
        if buffers:
            self.buffers = [buffer.raw() for buffer in buffers]
            sizes = [view.nbytes | KINDS.get(type(view.obj), 0) for view in self.buffers]
            self.table = struct.pack(f"<{len(sizes)}Q", *sizes)
            self.length += len(self.table) + sum(view.nbytes for view in self.buffers)


def beside(value: object) -> object:
    """Large bytes travel beside the pickle: they are not copied into it."""
    if type(value) in (bytes, bytearray) and len(value) >= LARGE:  # type: ignore[arg-type]
        return pickle.PickleBuffer(value)  # type: ignore[arg-type]
    return value


class Channel:
    """Frames to and from one worker.

    Args:
        end: our socket; owned from now on.
        loop: the loop it is served on.
        limit: bytes a frame may have.
    """

    __slots__ = (
        "_armed",
        "_buffer",
        "_have",
        "_large",
        "_limit",
        "_loop",
        "_on_end",
        "_on_frame",
        "_out",
        "_scheduled",
        "_size",
        "_socket",
        "_spare",
        "_view",
        "_want",
        "closed",
        "ended",
    )

    def __init__(
        self,
        end: socket.socket,
        loop: asyncio.AbstractEventLoop,
        limit: int,
    ) -> None:
        end.setblocking(False)
        self._socket = end
        self._loop = loop
        self._limit = limit
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._have = 0
        self._large: bytearray | None = None  # a frame larger than the buffer, with its header
        self._size = 0  # bytes of that frame
        self._want = 0  # and how many of them are here
        self._spare: bytearray | None = None
        self._out: list[Buffer] = []
        self._scheduled = False
        self._armed = False
        self.ended = False
        self.closed = False

    def open(self, on_frame: OnFrame, on_end: Callable[[str], None]) -> None:
        """Begins to receive.

        Args:
            on_frame: called with kind, id, number, pickle and buffers of each frame, which are valid during the call.
            on_end: called once when no more will come: empty when the other end closed it, else what was wrong.
        """
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop.add_reader(self._socket.fileno(), self._readable)

    # -------------------------------------------------------------------------------------- sending

    def send(self, kind: int, id: int = 0, number: int = 0, parcel: Parcel | None = None) -> None:
        """Sends one frame at the end of this turn of the loop."""
        out = self._out
        if parcel is None:
            out.append(HEADER.pack(0, id, number, kind, 0))
        else:
            head = HEADER.pack(parcel.length, id, number, kind, len(parcel.buffers))
            out.append(head)
            if parcel.buffers:
                out.append(parcel.table)
            out.append(parcel.pickled)
            if parcel.buffers:
                out.extend(parcel.buffers)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    @property
    def congested(self) -> bool:
        """Whether the other end has not read what was sent."""
        return self._armed

    def _flush(self) -> None:
        self._scheduled = False
        if not self._armed:
            self._write()

    def _write(self) -> None:
        out = self._out
        while out and not self.closed:
            try:
                if len(out) == 1 or sum(map(_length, out[:_VECTOR])) <= _JOIN:
                    data = out[0] if len(out) == 1 else b"".join(out)
                    sent = self._socket.send(data)
                    if sent == _length(data):
                        out.clear()
                    else:
                        out[:] = [memoryview(data).cast("B")[sent:]]
                else:
                    self._took(self._socket.sendmsg(out[:_VECTOR]))
            except BlockingIOError:
                self._arm()
                return
            except OSError:
                out.clear()  # nobody reads any more; the reading side tells what becomes of it
        self._disarm()

    def _took(self, sent: int) -> None:
        """Forgets the first ``sent`` bytes of what waits."""
        out = self._out
        done = 0
        while done < len(out) and sent >= _length(out[done]):
            sent -= _length(out[done])
            done += 1
        del out[:done]
        if sent:
            out[0] = memoryview(out[0]).cast("B")[sent:]

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self._loop.add_writer(self._socket.fileno(), self._write)

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            quietly(self._loop.remove_writer, self._socket.fileno())

    # ------------------------------------------------------------------------------------ receiving

    def _readable(self) -> None:
        if self._large is not None:
            self._read_large(self._large)
            return
        try:
            got = self._socket.recv_into(self._view[self._have :])
        except BlockingIOError:
            return
        except OSError:
            got = 0
        if not got:
            self._end("")
            return
        self._parse(self._have + got)

    def _parse(self, have: int) -> None:
        view, at = self._view, 0
        on_frame, limit = self._on_frame, self._limit
        while have - at >= _HEAD:
            length, id, number, kind, count = _unpack(view, at)
            if length > limit or count * 8 > length:
                self._end(f"a frame of {length:,} bytes with {count} buffers")
                return
            end = at + _HEAD + length
            if end > have:
                if _HEAD + length > _BUFFER:
                    self._begin_large(_HEAD + length, view[at:have])
                    return
                break
            at += _HEAD
            if count:
                self._unpack(view[at:end], id, number, kind, count, owned=False)
            else:
                on_frame(kind, id, number, view[at:end], ())
            if self.ended:
                return
            at = end
        self._have = have - at
        if at and self._have:
            view[: self._have] = bytes(view[at:have])

    def _begin_large(self, size: int, begun: memoryview) -> None:
        spare, self._spare = self._spare, None
        large = self._large = spare if spare is not None and len(spare) >= size else bytearray(size)
        self._size = size
        self._want = len(begun)
        large[: self._want] = begun
        self._have = 0

    def _read_large(self, large: bytearray) -> None:
        try:
            got = self._socket.recv_into(memoryview(large)[self._want : self._size])
        except BlockingIOError:
            return
        except OSError:
            got = 0
        if not got:
            self._end("")
            return
        self._want += got
        if self._want < self._size:
            return
        self._large = None
        _, id, number, kind, count = _unpack(large, 0)
        view = memoryview(large)[_HEAD : self._size]
        given = False
        if count:
            given = self._unpack(view, id, number, kind, count, owned=True)
        else:
            self._on_frame(kind, id, number, view, ())
        if not given and len(large) <= _SPARE:
            self._spare = large

    def _unpack(self, view: memoryview, id: int, number: int, kind: int, count: int, *, owned: bool) -> bool:
        """Hands over a frame with buffers; returns whether some of its memory went with it."""
        sizes = struct.unpack_from(f"<{count}Q", view)
        total = sum(size & SIZE for size in sizes)
        start = len(view) - total
        if start < 8 * count:
            self._end("buffers larger than their frame")
            return False
        buffers: list[Buffer] = []
        given = False
        at = start
        for size in sizes:
            part = view[at : at + (size & SIZE)]
            at += size & SIZE
            if size & BYTES:
                buffers.append(bytes(part))
            elif size & BYTEARRAY or not owned:
                buffers.append(bytearray(part))
            else:
                buffers.append(part)
                given = True
        self._on_frame(kind, id, number, view[8 * count : start], buffers)
        return given

    def drain(self) -> None:
        """Takes what has come and nobody has been told of; for when the worker has ended."""
        while not self.ended:
            try:
                self._socket.recv(1, socket.MSG_PEEK)
            except OSError:
                return  # nothing is there, but somebody else still has the other end
            self._readable()

    def _end(self, problem: str) -> None:
        if not self.ended:
            self.ended = True
            quietly(self._loop.remove_reader, self._socket.fileno())
            self._on_end(problem)

    def close(self) -> None:
        """Closes our end; may be called twice."""
        if not self.closed:
            self.closed = True
            self._disarm()
            if not self.ended:
                self.ended = True
                quietly(self._loop.remove_reader, self._socket.fileno())
            self._out.clear()
            self._socket.close()


def _length(part: Buffer) -> int:
    return part.nbytes if type(part) is memoryview else len(part)
