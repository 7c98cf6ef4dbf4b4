"""The line of those who wait for room in the queue."""

from __future__ import annotations

import asyncio
from collections import deque

from procession.errors import Closed


class Room:
    """First come, first served; who is cancelled while being let in gives his place to the next."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._closed = False

    @property
    def has_line(self) -> bool:
        """Whether anybody waits."""
        return bool(self._line)

    async def wait(self, loop: asyncio.AbstractEventLoop, *, first: bool = False) -> None:
        """Waits to be let in, at the end of the line or as its ``first``.

        Raises:
            Closed: there will be no more room.

        Cancellation: safe; the place goes to the next.
        """
        if self._closed:
            raise Closed("scheduler")
        place: asyncio.Future[None] = loop.create_future()
        if first:
            self._line.appendleft(place)
        else:
            self._line.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place in self._line:
                self._line.remove(place)
            elif not place.cancelled():
                self.let_in(1)
            raise
        if self._closed:
            raise Closed("scheduler")

    def let_in(self, count: int) -> None:
        """Lets the first ``count`` in."""
        while count > 0 and self._line:
            place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                count -= 1

    def close(self) -> None:
        """Sends everybody away."""
        self._closed = True
        self.let_in(len(self._line))
