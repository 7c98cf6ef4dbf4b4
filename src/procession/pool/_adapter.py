"""A function pool in the words of ``concurrent.futures``."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from procession._types import Priority
from procession.errors import PoolClosed, WorkerLost, WorkerStartError

if TYPE_CHECKING:
    from procession.pool._dispatcher import Dispatcher

P = ParamSpec("P")
T = TypeVar("T")

SHUT = "cannot schedule new futures after shutdown"


class BrokenWorker(WorkerLost, BrokenProcessPool):
    """A :class:`WorkerLost` for code that was written for ``ProcessPoolExecutor``. The executor is not broken."""


class BrokenStart(WorkerStartError, BrokenProcessPool):
    """A :class:`WorkerStartError` for code that was written for ``ProcessPoolExecutor``."""


class PoolFuture(concurrent.futures.Future[T]):
    """Says what was lost in the words of ``concurrent.futures``."""

    def set_exception(self, exception: BaseException | None) -> None:
        if type(exception) is WorkerLost:
            lost = exception
            exception = BrokenWorker(lost.worker, lost.exit, lost.cause, lost.phase, lost.stderr_tail)
        elif type(exception) is WorkerStartError:
            failed = exception
            exception = BrokenStart(failed.pool, failed.reason, failed.exit, failed.stderr_tail)
            exception.__cause__ = failed.__cause__
        super().set_exception(exception)


class PoolExecutor(concurrent.futures.Executor):
    """A ``concurrent.futures.Executor`` over an open :class:`FunctionPool`; made by ``pool.executor()``.

    It may be used from any thread and with ``loop.run_in_executor``. Shutting it down leaves the pool as it is.
    """

    def __init__(self, inside: Callable[[], Dispatcher]) -> None:
        self._inside = inside
        self._shut = False
        self._open: set[concurrent.futures.Future[Any]] = set()
        self._lock = threading.Lock()
        self._loop = inside().loop

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Hands a call to the pool and returns its future; see ``concurrent.futures.Executor.submit``.

        Raises:
            RuntimeError: the executor was shut down, or the pool is closed.
        """
        future: PoolFuture[T] = PoolFuture()
        with self._lock:
            if self._shut:
                raise RuntimeError(SHUT)
            self._open.add(future)
        future.add_done_callback(self._forget)
        try:
            dispatcher = self._inside()
            if asyncio._get_running_loop() is self._loop:
                hand_over(dispatcher, future, fn, args, kwargs)
            else:
                self._loop.call_soon_threadsafe(hand_over, dispatcher, future, fn, args, kwargs)
        except BaseException:
            self._forget(future)
            raise
        return future

    def _forget(self, future: concurrent.futures.Future[Any]) -> None:
        with self._lock:
            self._open.discard(future)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accepts nothing more; see ``concurrent.futures.Executor.shutdown``. On the loop's own thread it never waits."""
        with self._lock:
            self._shut = True
            left = list(self._open)
        if cancel_futures:
            for future in left:
                future.cancel()
        if wait and asyncio._get_running_loop() is not self._loop:
            concurrent.futures.wait(left)

    def __repr__(self) -> str:
        return f"<PoolExecutor: {len(self._open)} calls>"


def hand_over(
    dispatcher: Dispatcher,
    future: concurrent.futures.Future[Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Makes the call, on the loop's thread; whatever is wrong with it is the future's answer."""
    try:
        dispatcher.enter(function, args, kwargs or None, None, 0, Priority.NORMAL, future)
    except PoolClosed:
        if future.set_running_or_notify_cancel():
            future.set_exception(RuntimeError(SHUT))
    except BaseException as error:  # noqa: BLE001 - it is the future's answer
        if future.set_running_or_notify_cancel():
            future.set_exception(error)
