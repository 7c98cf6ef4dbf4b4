"""The few asyncio helpers everything else stands on: finishing a clean-up, waiting on callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` to its end whatever happens to the caller, then lets one cancellation go on.

    For clean-up that must not be left half done. ``work`` carries its own bound on time.

    Raises:
        CancelledError: the caller was cancelled meanwhile, once however often that was. An
            exception of ``work`` then becomes its context.

    Cancellation: absorbed until ``work`` has ended, then raised.
    """
    if asyncio._get_running_loop() is None:
        work.close()
        raise GeneratorExit  # the caller was thrown away together with its loop: there is nothing to wait on
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    try:
        task.result()
    finally:
        raise cancelled


async def settle(future: asyncio.Future[T]) -> tuple[T, asyncio.CancelledError | None]:
    """Waits for ``future`` to its end and hands back a cancellation that came meanwhile.

    For a future that is bound to be resolved by another thread and whose result somebody must take
    care of.

    Cancellation: absorbed and returned; the caller raises it once the result is dealt with.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    return future.result(), cancelled


class Latch(asyncio.Future[None]):
    """A future without a value that may be opened any number of times."""

    def open(self) -> None:
        """Lets everybody who waits go on."""
        if not self.done():
            self.set_result(None)


async def first_call(register: Callable[[Callable[[], None]], None]) -> None:
    """Waits until the callback handed to ``register`` is called for the first time.

    Cancellation: safe; the callback becomes a no-op.
    """
    latch = Latch(loop=asyncio.get_running_loop())
    register(latch.open)
    await latch


async def wait_until(future: asyncio.Future[Any], deadline: float) -> bool:
    """Waits for ``future`` until ``deadline`` (loop time); returns whether it was done by then.

    The future itself is neither cancelled nor consumed.

    Cancellation: safe; only the waiting ends.
    """
    if future.done():
        return True
    loop = asyncio.get_running_loop()
    done, _ = await asyncio.wait((future,), timeout=max(0.0, deadline - loop.time()))
    return bool(done)
