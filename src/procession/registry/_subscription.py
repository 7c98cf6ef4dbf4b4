"""Events as an async iterator over a bounded queue: the edge where publishers and slow readers part."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

from procession.errors import SubscriptionLost
from procession.events import Event, Gap

Overflow = Literal["drop_oldest", "disconnect"]


class Subscription:
    """A bounded queue of events, as returned by ``registry.subscribe``; read it with ``async for``.

    Several tasks may read one subscription: each event goes to one of them. Leaving the block of ``with`` or
    ``async with`` closes it; leaving an ``async for`` loop alone does not.

    Attributes:
        max_queued: how many events wait at most.
        overflow: what happens to one more.
        dropped: events it did not deliver so far.
    """

    __slots__ = (
        "_closed",
        "_id",
        "_last",
        "_leave",
        "_lost",
        "_missed",
        "_queue",
        "_waiters",
        "dropped",
        "max_queued",
        "overflow",
    )

    def __init__(
        self, max_queued: int, overflow: Overflow, id: str | None, leave: Callable[[Subscription], None]
    ) -> None:
        self.max_queued: int = max_queued
        self.overflow: Overflow = overflow
        self.dropped: int = 0
        self._id = id or ""
        self._leave = leave
        self._queue: deque[Event] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._missed = 0
        self._last: Event | None = None
        self._lost = False
        self._closed = False

    # ------------------------------------------------------------------------------- the bus's side

    def _offer(self, event: Event) -> None:
        if len(self._queue) >= self.max_queued:
            self.dropped += 1
            if self.overflow == "disconnect":
                self._lost = True
                self._end()
                return
            self._last = self._queue.popleft()
            self._missed += 1
        self._queue.append(event)
        if self._waiters:
            self._wake_one()

    def _end(self) -> None:
        """Ends the iteration once what is queued was read."""
        if not self._closed:
            self._closed = True
            self._leave(self)
        while self._waiters:
            self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    # ---------------------------------------------------------------------------- the reader's side

    def next_nowait(self) -> Event | None:
        """The next event, or ``None`` when none is waiting."""
        if self._missed:
            missed, last = self._missed, self._last
            self._missed, self._last = 0, None
            assert last is not None
            return Gap(id=self._id, missed=missed, seq=last.seq, at=last.at, wall=last.wall)
        return self._queue.popleft() if self._queue else None

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        """Waits for the next event.

        Returns:
            The event, or a ``Gap`` that stands where events were dropped; its ``seq``, ``at`` and ``wall`` are those
            of the last one dropped.

        Raises:
            StopAsyncIteration: the subscription or the registry was closed and everything queued was read.
            SubscriptionLost: the queue was full and ``overflow`` is ``"disconnect"``; everything queued was read.

        Cancellation: safe; no event is lost, another reader gets it.
        """
        while True:
            event = self.next_nowait()
            if event is not None:
                return event
            if self._lost:
                raise SubscriptionLost(self.max_queued)
            if self._closed:
                raise StopAsyncIteration
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.cancelled():
                    if waiter in self._waiters:
                        self._waiters.remove(waiter)
                elif self._queue:
                    self._wake_one()
                raise

    def close(self) -> None:
        """Stops listening and forgets what is queued; the iteration ends. May be called twice."""
        self._queue.clear()
        self._missed = 0
        self._lost = False
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """How many events wait."""
        return len(self._queue)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        how = "lost" if self._lost else "closed" if self._closed else "open"
        return f"<Subscription {how}, {len(self._queue)} of {self.max_queued} queued, {self.dropped} dropped>"
