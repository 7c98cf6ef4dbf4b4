"""Several sources read as one, in order of arrival: :func:`merged`, and the engine below it and ``lines()``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from procession._types import Stream
from procession.process._collect import READ
from procession.process._source import _TURNS, Source, _any_of, _Holder


class Chunk(bytes):
    """Some bytes, and the stream they came from in :attr:`stream`."""

    __slots__ = ()
    stream: Stream = Stream.STDOUT


class _ErrorChunk(Chunk):
    __slots__ = ()
    stream = Stream.STDERR


class Merge:
    """Reads several sources as their data arrive; the engine below :func:`merged` and ``lines()``.

    Args:
        sources: what to read.
        holder: the one on whose behalf it reads; what others hold is called back first.
    """

    __slots__ = ("_arrived", "_holder", "_live", "_streak")

    def __init__(self, sources: Iterable[Source], holder: _Holder | None = None) -> None:
        self._live = deque(dict.fromkeys(sources))
        self._arrived: deque[Source] = deque()
        self._holder = holder
        self._streak = 0

    async def next(self, limit: int = READ) -> tuple[Source, bytes] | None:
        """The next source with what it has, ``b""`` when it ended; ``None`` when all have.

        Raises:
            StateError: somebody else waits for data of one of them.

        Cancellation: safe; nothing is lost.
        """
        if self._streak >= _TURNS:
            self._streak = 0
            await asyncio.sleep(0)
        live = self._live
        while live:
            while self._arrived:
                source = self._arrived.popleft()
                data = self._try(source, limit)
                if data is not None:
                    return source, data
            for _ in range(len(live)):
                source = live[0]
                live.rotate(-1)
                data = self._try(source, limit)
                if data is not None:
                    self._streak += 1
                    return source, data
            self._streak = 0
            self._arrived = await _any_of(live, live[0]._loop, limit)
        return None

    def _try(self, source: Source, limit: int) -> bytes | None:
        if source._wait is not None:
            raise source._busy(source._wait)
        if source._holder is not None and source._holder is not self._holder:
            source._recall()
        data = source._take(limit)
        if data == b"" and source in self._live:
            self._live.remove(source)
        return data

    def close(self) -> None:
        """Leaves the sources alone; nothing stays registered with the loop."""
        for source in self._live:
            if source._wait is None and not source._eager:
                source._pause()
        self._live.clear()
        self._arrived.clear()


class Merged:
    """Chunks of several sources in order of arrival, until all have ended; see :func:`merged`."""

    __slots__ = ("_merge",)

    def __init__(self, sources: Iterable[Source]) -> None:
        self._merge = Merge(sources)

    def __aiter__(self) -> Merged:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk.

        Cancellation: safe; nothing is lost.
        """
        while (arrival := await self._merge.next()) is not None:
            source, data = arrival
            if data:
                return _ErrorChunk(data) if source.stream is Stream.STDERR else Chunk(data)
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leaves early; what was not handed out stays in the sources.

        Cancellation: never suspends.
        """
        self._merge.close()


def merged(sources: Iterable[Source]) -> Merged:
    """Reads several sources as one, in order of arrival, until all have ended.

    The order is that in which data reached us: two streams are two pipes, and the kernel does not say which of them was
    written first when both have data. One may leave the loop at any time and read on by any other means.

    Example:
        ``async for chunk in merged((process.stdout, process.stderr)): ...``
    """
    return Merged(sources)
