"""What a process writes, read on demand: :class:`Source`, and several of them as one.

Data are pulled: nothing is read while nobody asks, so a slow reader slows the process down instead of filling memory.
Whatever was read but not yet handed out stays *in the source*; a reader that is cancelled or leaves loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from procession._types import Stream
from procession.errors import ConfigError, StateError
from procession.process._collect import READ, Spill, Tail

if TYPE_CHECKING:
    from procession.abc import Inlet

LINGER = 0.25
"""Seconds of silence after which the output of a process that has ended is over, though a descendant holds its pipe."""

_TURNS = 32  # reads in a row without suspension before the loop gets its turn
_BURST = 8  # reads in one callback when nobody waits


class Overflow(StrEnum):
    """What becomes of output that nobody reads.

    ``BLOCK`` it stays in the pipe, and the process waits once that is full; ``DROP_OLDEST`` the newest bytes are kept
    in memory, the others are counted and dropped; ``SPILL`` it goes to an unlinked temporary file, and the process
    waits once that is full.
    """

    BLOCK = "block"
    DROP_OLDEST = "drop_oldest"
    SPILL = "spill"


class _Holder(Protocol):
    """Somebody who took bytes out of a source and has not delivered all of them."""

    def holds(self, source: Source) -> bool:
        """Whether something of ``source`` is undelivered."""

    def give_back(self, source: Source) -> bytes:
        """Hands over what is undelivered and forgets it."""


class _Wait:
    """One wait for whichever of some sources has something first."""

    __slots__ = ("arrived", "future", "limit", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: int) -> None:
        self.future: asyncio.Future[None] = loop.create_future()
        self.arrived: deque[Source] = deque()
        self.limit = limit
        self.task = asyncio.current_task(loop)

    def wake(self, source: Source) -> None:
        self.arrived.append(source)
        if not self.future.done():
            self.future.set_result(None)


class Source:
    """One output stream of a process.

    ``async for chunk in source`` yields bytes until the end. One reader at a time may wait; who comes later is told.

    Args:
        inlet: our end of the pipe; the source reads it from now on and closes it in :meth:`close`.
        stream: which stream it is.
        loop: the loop it is read on.
    """

    __slots__ = (
        "_armed",
        "_closed",
        "_eager",
        "_eof",
        "_head",
        "_holder",
        "_inlet",
        "_loop",
        "_patience",
        "_policy",
        "_store",
        "_streak",
        "_truncated",
        "_wait",
        "dropped",
        "stream",
    )

    def __init__(self, inlet: Inlet, stream: Stream, loop: asyncio.AbstractEventLoop) -> None:
        self.stream: Stream = stream
        self.dropped: int = 0
        """Bytes thrown away by :attr:`Overflow.DROP_OLDEST`, by :meth:`divert`, or with a spill file at the close."""
        self._inlet = inlet
        self._loop = loop
        # What is read next comes from _head, then from _store, then from _inlet.
        self._head: deque[bytes] = deque()
        self._store: Tail | Spill | None = None
        self._policy = Overflow.BLOCK
        self._eager = False  # whether to read into _store while nobody waits
        self._holder: _Holder | None = None
        self._wait: _Wait | None = None
        self._armed = False
        self._streak = 0
        self._eof = False
        self._closed = False
        self._truncated = False
        self._patience: float | None = None

    # ------------------------------------------------------------------------------------ reading

    def read_nowait(self, limit: int = READ) -> bytes | None:
        """Up to ``limit`` bytes that are there now; ``b""`` at the end, ``None`` when nothing has come yet.

        Raises:
            StateError: somebody waits for data of this stream.
            ConfigError: ``limit`` is less than 1.
        """
        if limit < 1:
            raise ConfigError("limit", limit, "at least 1 byte")  # 0 bytes would look like the end
        if self._wait is not None:
            raise self._busy(self._wait)
        if self._holder is not None:
            self._recall()
        return self._take(limit)

    async def read(self, limit: int = READ) -> bytes:
        """Waits for data and returns up to ``limit`` bytes of it; ``b""`` at the end.

        After some reads in a row that found data at once it yields to the loop, so that a fast process cannot keep
        everything else from running.

        Raises:
            StateError: somebody else waits for data of this stream.
            ConfigError: ``limit`` is less than 1.

        Cancellation: safe; nothing is lost, the next read gets what had come.
        """
        if self._streak < _TURNS:
            data = self.read_nowait(limit)
            if data is not None:
                self._streak += 1
                return data
        else:
            await asyncio.sleep(0)
        self._streak = 0
        while (data := self.read_nowait(limit)) is None:
            await _any_of((self,), self._loop, limit)
        return data

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes, as :meth:`read` does.

        Cancellation: safe, see :meth:`read`.
        """
        data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    def push_back(self, data: bytes) -> None:
        """Puts ``data`` back in front of everything else; the next read returns it."""
        if self._holder is not None:
            self._recall()
        if data:
            self._head.appendleft(data)
            if self._wait is not None:
                self._wait.wake(self)

    @property
    def at_end(self) -> bool:
        """Whether the end was met and everything before it handed out."""
        if not self._eof or self._head or (self._store is not None and self._store.size):
            return False
        return self._holder is None or not self._holder.holds(self)

    @property
    def truncated(self) -> bool:
        """Whether our end was closed before the process had closed its own: more might have come."""
        return self._truncated

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """Closes our end; may be called twice.

        A waiting reader gets what had come, then the end. A spill file and what is in it are let go of.
        """
        if self._closed:
            return
        self._closed = True
        self._truncated = not self._eof
        self._finish()
        self._eager = False
        if isinstance(self._store, Spill):
            self.dropped += self._store.size
            self._store.close()
            self._store = None
        self._inlet.close()
        if self._wait is not None:
            self._wait.wake(self)

    def bound(self, patience: float) -> None:
        """From now on, for a reader who has waited ``patience`` seconds in vain, this is the end.

        For when the process has ended and a descendant may hold its pipe open for ever.
        """
        self._patience = patience
        self._impatient()

    def _impatient(self) -> None:
        if self._patience is not None and self._wait is not None:
            self._loop.call_later(self._patience, self._give_up, self._wait)

    def _give_up(self, wait: _Wait) -> None:
        if self._wait is wait and not wait.future.done() and not self._eof:
            self._truncated = True
            self._finish()
            wait.wake(self)

    # ------------------------------------------------------------------- output that nobody reads

    def divert(self, keep: int = 1 << 20) -> None:
        """From now on reads while nobody else does, and keeps the last ``keep`` bytes; the rest is counted.

        So a stream in which nobody takes an interest cannot bring the process to a halt. The next read gets what was
        kept and ends the diversion. Without effect where :meth:`set_overflow` set a policy other than ``BLOCK``.
        """
        if keep < 1:
            raise ConfigError("keep", keep, "at least 1 byte")
        if self._policy is Overflow.BLOCK:
            self._replace_store(Tail(keep))

    def set_overflow(self, policy: Overflow | str, max_bytes: int | None = None) -> None:
        """Says what becomes of output while nobody reads, until the next call.

        Args:
            policy: see :class:`Overflow`.
            max_bytes: how much is kept; default 1 MiB in memory, 1 GiB on disk. A full disk counts as a full file.

        Raises:
            ConfigError: there is no such policy, or ``max_bytes`` is less than 1.
        """
        try:
            policy = Overflow(policy)
        except ValueError:
            raise ConfigError("policy", policy, "one of " + ", ".join(Overflow)) from None
        if max_bytes is not None and max_bytes < 1:
            raise ConfigError("max_bytes", max_bytes, "at least 1 byte")
        if policy is Overflow.BLOCK:
            self._eager = False
        elif policy is Overflow.DROP_OLDEST:
            self._replace_store(Tail(max_bytes or 1 << 20))
        else:
            self._replace_store(Spill(max_bytes or 1 << 30))
        self._policy = policy

    def _replace_store(self, store: Tail | Spill) -> None:
        old, self._store = self._store, store
        if old is not None:
            while old.size and store.room:
                self.dropped += store.put(old.take(min(READ, store.room)))
            self.dropped += old.size
            old.close()
        if self._closed and isinstance(store, Spill):
            self.dropped += store.size
            store.close()
            self._store = None
        elif not self._eof:
            self._eager = True
            self._arm()

    # -------------------------------------------------------------------------------- the inside

    def _take(self, limit: int) -> bytes | None:
        """What is there now, from wherever it comes first."""
        if self._head:
            data = self._head.popleft()
            if len(data) > limit:
                self._head.appendleft(data[limit:])
                data = data[:limit]
            return data
        if self._store is not None:
            kept = self._take_kept(self._store, limit)
            if kept:
                return kept
        if self._eof:
            return b""
        got = self._inlet.read_nowait(limit)
        if got == b"":
            self._finish()
        return got

    def _take_kept(self, store: Tail | Spill, limit: int) -> bytes:
        if self._policy is Overflow.BLOCK:
            self._eager = False
        data = store.take(limit)
        if self._eager:
            if not self._eof:
                self._arm()  # there is room again
        elif not store.size:
            store.close()
            self._store = None
        return data

    def _ready(self) -> None:
        """The loop says that there is something to read."""
        wait = self._wait
        try:
            if wait is None or self._head:
                if self._eager and self._store is not None:
                    self._absorb(self._store)
                else:
                    self._pause()
                return
            data = self._inlet.read_nowait(wait.limit)
        except OSError:  # the reader meets it again when it reads itself
            self._pause()
            if wait is not None:
                wait.wake(self)
            return
        if data is None:
            return
        if data:
            self._head.append(data)
        else:
            self._finish()
        wait.wake(self)

    def _absorb(self, store: Tail | Spill) -> None:
        for _ in range(_BURST):
            if not store.room:
                self._pause()
                return
            data = self._inlet.read_nowait(min(READ, store.room))
            if data is None:
                return
            if not data:
                self._finish()
                return
            self.dropped += store.put(data)

    def _finish(self) -> None:
        self._eof = True
        self._pause()

    def _arm(self) -> None:
        if not self._armed:
            self._inlet.on_readable(self._ready)
            self._armed = True

    def _pause(self) -> None:
        if self._armed:
            self._armed = False
            self._inlet.on_readable(None)

    def _recall(self) -> None:
        """Takes back what somebody holds who is no longer the one to read."""
        holder, self._holder = self._holder, None
        if holder is not None:
            data = holder.give_back(self)
            if data:
                self._head.appendleft(data)

    def _busy(self, wait: _Wait) -> StateError:
        who = "another reader" if wait.task is None else wait.task.get_name()
        return StateError(f"{self.stream} is already being read by {who}")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._eof else self._policy.value
        return f"<Source {self.stream}: {state}>"


async def _any_of(sources: Iterable[Source], loop: asyncio.AbstractEventLoop, limit: int) -> deque[Source]:
    """Waits until any of ``sources`` has data (in its head) or ended; returns them in order of arrival.

    Cancellation: safe; what has come stays in the sources, and nothing stays registered with the loop.
    """
    sources = tuple(sources)
    for source in sources:
        if source._wait is not None:
            raise source._busy(source._wait)
    wait = _Wait(loop, limit)
    try:
        for source in sources:
            source._wait = wait
            source._arm()
            source._impatient()
        await wait.future
    except BaseException:
        for source in sources:
            if source._wait is wait and not source._eager:
                source._pause()
        raise
    finally:
        for source in sources:
            if source._wait is wait:
                source._wait = None
    return wait.arrived
