"""Many calls at once, as an asynchronous iterator with a bounded number under way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from procession._core.aio import Latch

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
    source = _items(items)
    flying: set[asyncio.Future[T]] = set()
    line: deque[asyncio.Future[T]] = deque()  # in the order of items, or in the order of arrival
    loop = asyncio.get_running_loop()
    landed = Latch(loop=loop)

    def land(future: asyncio.Future[T]) -> None:
        flying.discard(future)
        if not ordered:
            line.append(future)
        landed.open()

    exhausted = False
    try:
        while True:
            while not exhausted and len(flying) < limit and len(line) < 2 * limit:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    exhausted = True
                    break
                future = submit(item)
                flying.add(future)
                if ordered:
                    line.append(future)
                future.add_done_callback(land)
            while line and line[0].done():
                yield line.popleft().result()
                if not exhausted and len(flying) < limit:
                    break
            else:
                if exhausted and not flying and not line:
                    return
                if flying and not (line and line[0].done()):
                    landed = Latch(loop=loop)
                    await landed
    finally:
        for future in (*flying, *line):
            if not future.cancel() and not future.cancelled():
                future.exception()  # seen: the iteration ended before its turn came


async def _items(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
