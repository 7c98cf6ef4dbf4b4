"""The scanner: one thread that looks through ``/proc`` for the loops, one pass for all who ask at once."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from queue import SimpleQueue

from procession._launch import _live
from procession._linux import _reserve
from procession._linux._proc import Found, Wanted, scan

_log = logging.getLogger("procession")
_Request = tuple[Wanted, asyncio.AbstractEventLoop, "asyncio.Future[list[Found]]"]
_queue: SimpleQueue[_Request | Callable[[], None]] | None = None
_starting = threading.Lock()


async def find(wanted: Wanted) -> Sequence[Found]:
    """What lives of one process's tree, seen by a pass that began after this call.

    Raises:
        OSError: ``/proc`` could not be looked through.

    Cancellation: safe; pidfds found meanwhile are closed.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Found]] = loop.create_future()
    try:
        queue = _started()
    except RuntimeError:  # the limit of threads: what must be ended is looked for here and now
        try:
            return scan([wanted])[wanted.id]
        finally:
            _reserve.fill()
    _live.count_in_flight(1)
    queue.put((wanted, loop, future))
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            _close(future.result())
        raise


def soon(work: Callable[[], None]) -> None:
    """Has the thread do ``work``, which must not raise, between two passes."""
    try:
        _started().put(work)
    except RuntimeError as error:  # the limit of threads
        _log.error("looking through /proc must wait for the next occasion: %s", error)


def _started() -> SimpleQueue[_Request | Callable[[], None]]:
    global _queue
    with _starting:  # loops of several threads may come at once
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
            except Exception as error:  # noqa: BLE001 - without this thread nobody would ever be found again
                _log.error("looking through /proc failed: %r", error)
        del items
        if not requests:
            continue
        failure: OSError | None = None
        try:
            found = scan([request[0] for request in requests])
        except Exception as error:  # noqa: BLE001 - as above; who asked must get an answer
            _log.error("the trees of %d processes could not be looked through: %r", len(requests), error)
            failure = error if isinstance(error, OSError) else OSError(f"looking through /proc failed: {error!r}")
            found = {}
        _reserve.fill()
        answers = []  # all of them before the first is handed out, which may be closed at once
        asked: set[str] = set()
        for wanted, loop, future in requests:
            mine = found.get(wanted.id, [])
            if wanted.id in asked:  # by several at once: everybody closes what he gets
                mine = [_again(item) for item in mine]
            asked.add(wanted.id)
            answers.append((loop, future, mine))
        for loop, future, mine in answers:
            try:
                loop.call_soon_threadsafe(_answer, future, mine, failure)
            except RuntimeError:  # the loop is closed
                _live.count_in_flight(-1)
                _close(mine)
        del requests, found, answers


def _answer(future: asyncio.Future[list[Found]], found: list[Found], failure: OSError | None) -> None:
    _live.count_in_flight(-1)
    if future.done():
        _close(found)
    elif failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(found)


def _again(item: Found) -> Found:
    """The same process with a pidfd of its own; without one where no descriptor is left."""
    try:
        return replace(item, pidfd=None if item.pidfd is None else os.dup(item.pidfd))
    except OSError:
        return replace(item, pidfd=None)


def _close(found: list[Found]) -> None:
    for item in found:
        if item.pidfd is not None:
            os.close(item.pidfd)


def _forget() -> None:
    global _queue, _starting
    _queue = None
    _starting = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
