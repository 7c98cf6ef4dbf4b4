"""The scanner: one thread that looks through ``/proc`` for the loops, one pass for all who ask at once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from procession._launch import _live
from procession._linux import _reserve
from procession._linux._proc import Found, Wanted, scan

_log = logging.getLogger("procession")
_Request = tuple[Wanted, asyncio.AbstractEventLoop, "asyncio.Future[list[Found]]"]
_queue: SimpleQueue[_Request | Callable[[], None]] | None = None


async def find(wanted: Wanted) -> Sequence[Found]:
    """What lives of one process's tree, seen by a pass that began after this call.

    Cancellation: safe; pidfds found meanwhile are closed.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Found]] = loop.create_future()
    _live.count_in_flight(1)
    _started().put((wanted, loop, future))
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled():
            _close(future.result())
        raise


def soon(work: Callable[[], None]) -> None:
    """Has the thread do ``work``, which must not raise, between two passes."""
    _started().put(work)


def _started() -> SimpleQueue[_Request | Callable[[], None]]:
    global _queue
    if _queue is None:
        queue: SimpleQueue[_Request | Callable[[], None]] = SimpleQueue()
        threading.Thread(target=_run, args=(queue,), name="procession-scanner", daemon=True).start()
        _queue = queue
    return _queue


def _run(queue: SimpleQueue[_Request | Callable[[], None]]) -> None:
    while True:
        items = [queue.get()]
        while not queue.empty():
            items.append(queue.get())
        requests = [item for item in items if isinstance(item, tuple)]
        for work in {item for item in items if not isinstance(item, tuple)}:
            try:
                work()
            except OSError as error:
                _log.error("looking through /proc failed: %s", error)
        del items
        if not requests:
            continue
        try:
            found = scan([request[0] for request in requests])
        except OSError as error:
            _log.error("the trees of %d processes could not be looked through: %s", len(requests), error)
            found = {}
        _reserve.fill()
        for wanted, loop, future in requests:
            mine = found.get(wanted.id, [])
            try:
                loop.call_soon_threadsafe(_answer, future, mine)
            except RuntimeError:
                _close(mine)  # the loop is closed
        del requests, found


def _answer(future: asyncio.Future[list[Found]], found: list[Found]) -> None:
    _live.count_in_flight(-1)
    if future.done():
        _close(found)
    else:
        future.set_result(found)


def _close(found: list[Found]) -> None:
    for item in found:
        if item.pidfd is not None:
            os.close(item.pidfd)


def _forget() -> None:
    global _queue
    _queue = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
