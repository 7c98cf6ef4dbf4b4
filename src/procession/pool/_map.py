"""Many calls at once, as an asynchronous iterator with a bounded number under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from procession._core.aio import Latch, finish
from procession.errors import PoolExhausted

T = TypeVar("T")


async def results(
    submit: Callable[[Any], asyncio.Future[T]],
    items: Iterable[Any] | AsyncIterable[Any],
    limit: int,
    *,
    ordered: bool,
) -> AsyncGenerator[T, None]:
    """Submits items, at most ``limit`` ahead, and yields what comes back.

    Cancellation: everything under way is cancelled.
    """
    flight: _Flight[T] = _Flight(submit, limit, ordered=ordered)
    pump: asyncio.Task[None] | None = None
    source: Iterator[Any] | None = None
    try:
        if isinstance(items, AsyncIterable):
            pump = flight.loop.create_task(flight.pump(aiter(items)))
            pump.add_done_callback(flight.changed)
        else:
            source = iter(items)
        exhausted = False
        while True:
            flight.retry()
            while source is not None and not exhausted and flight.has_room():
                try:
                    item = next(source)
                except StopIteration:
                    exhausted = True
                else:
                    flight.launch(item)
            if pump is not None and pump.done() and not exhausted:
                exhausted = True
                pump.result()
            if flight.has_landed():
                yield flight.take()
            elif exhausted and flight.is_over():
                return
            else:
                await flight.news()
    finally:
        flight.cancel()
        if pump is not None:
            pump.cancel()
            await finish(_ended(pump))


async def _ended(task: asyncio.Task[None]) -> None:
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()  # seen: it was raised above, or the iteration had ended


class _Flight(Generic[T]):
    """The calls of one iteration.

    Args:
        submit: makes a call.
        limit: calls under way at once.
        ordered: whether results stand in line in the order of items; else in that of arrival.
    """

    def __init__(self, submit: Callable[[Any], asyncio.Future[T]], limit: int, *, ordered: bool) -> None:
        self.loop = asyncio.get_running_loop()
        self._line: deque[asyncio.Future[T]] = deque()
        self._submit = submit
        self._limit = limit
        self._ordered = ordered
        self._flying: set[asyncio.Future[T]] = set()
        self._held: list[Any] = []  # an item for which the pool has no room at the moment
        self._waits: list[Latch] = []

    def has_room(self) -> bool:
        """Whether another item may be taken."""
        return not self._held and len(self._flying) < self._limit and len(self._line) < 2 * self._limit

    def is_over(self) -> bool:
        """Whether nothing is under way and everything was handed out."""
        return not (self._flying or self._line or self._held)

    def launch(self, item: Any) -> None:
        """Makes the call of one item, now or when the pool has room for it."""
        try:
            future = self._submit(item)
        except PoolExhausted:
            if not self._flying:
                raise  # it is full of the calls of others
            self._held.append(item)
            return
        self._flying.add(future)
        if self._ordered:
            self._line.append(future)
        future.add_done_callback(self._land)

    def retry(self) -> None:
        """Makes the call that had to wait for room."""
        if self._held:
            self.launch(self._held.pop())
            self.changed()

    def has_landed(self) -> bool:
        """Whether there is a result to hand out."""
        return bool(self._line) and self._line[0].done()

    def take(self) -> T:
        """The next result."""
        future = self._line.popleft()
        self.changed()
        return future.result()

    def _land(self, future: asyncio.Future[T]) -> None:
        self._flying.discard(future)
        if not self._ordered:
            self._line.append(future)
        self.changed()

    def changed(self, _: object = None) -> None:
        """Something has come back, or nothing more will go out: whoever waits looks again."""
        waits, self._waits = self._waits, []
        for latch in waits:
            latch.open()

    async def news(self) -> None:
        """Waits for the next change.

        Cancellation: safe.
        """
        latch = Latch(loop=self.loop)
        self._waits.append(latch)
        await latch

    async def pump(self, source: AsyncIterator[Any]) -> None:
        """Takes items from a source that may let us wait, while results are handed out.

        Cancellation: goes on in the source.
        """
        while True:
            while not self.has_room():
                await self.news()
            try:
                item = await anext(source)
            except StopAsyncIteration:
                return
            self.launch(item)

    def cancel(self) -> None:
        """Ends what is under way."""
        for future in (*self._flying, *self._line):
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen: the iteration ended before its turn came
