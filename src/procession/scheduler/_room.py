"""The line of those who wait for room in the queue."""

from __future__ import annotations

import asyncio
from collections import deque

from procession.errors import Closed


class Room:
    """First come, first served; who is cancelled while being let in gives his place to the next.

    Who is let in has not taken the room yet, and somebody who never stood in line may be quicker. So those who are on
    their way are counted, nobody else is let in to the same room, and who finds it taken goes back to the same place.
    """

    def __init__(self) -> None:
        self._line: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._coming = 0
        self._tickets = 0
        self._closed = False

    @property
    def has_line(self) -> bool:
        """Whether anybody waits or is on the way."""
        return bool(self._line) or self._coming > 0

    def ticket(self) -> int:
        """A place at the end of the line."""
        self._tickets += 1
        return self._tickets

    async def wait(self, loop: asyncio.AbstractEventLoop, ticket: int) -> None:
        """Waits at the place of ``ticket`` to be let in.

        Raises:
            Closed: there will be no more room.

        Cancellation: safe; the place goes to the next.
        """
        if self._closed:
            raise Closed("scheduler")
        place: asyncio.Future[None] = loop.create_future()
        if not self._line or self._line[-1][0] < ticket:
            self._line.append((ticket, place))
        else:
            self._line.insert(next(at for at, (other, _) in enumerate(self._line) if other > ticket), (ticket, place))
        try:
            await place
        except asyncio.CancelledError:
            if (ticket, place) in self._line:
                self._line.remove((ticket, place))
            elif not place.cancelled():
                self._coming -= 1
                self._let_in_one()
            raise
        self._coming -= 1
        if self._closed:
            raise Closed("scheduler")

    def let_in(self, room: int) -> None:
        """Lets in the first ones, as many as there is room for and nobody is on the way to."""
        while self._coming < room and self._line:
            self._let_in_one()

    def _let_in_one(self) -> None:
        while self._line:
            _, place = self._line.popleft()
            if not place.done():
                place.set_result(None)
                self._coming += 1
                return

    def close(self) -> None:
        """Sends everybody away."""
        self._closed = True
        while self._line:
            self._let_in_one()
