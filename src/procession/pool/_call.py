"""One call to a function pool: what is called, who waits for it, what it has cost so far."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from procession._core.backoff import RetryPolicy
from procession.errors import WorkerLost
from procession.pool._channel import Parcel
from procession.pool._functions import Function

if TYPE_CHECKING:
    from procession.pool._function_worker import FunctionWorker, Sent

Future = asyncio.Future[Any] | concurrent.futures.Future[Any]


class Call:
    """One call on its way.

    Attributes:
        function: how workers know the function; ``None`` when it travels with the call.
        name: the function's name.
        parcel: the call as it travels.
        priority: the smaller number goes first.
        future: gets the result.
        retries: how often it is tried again after a worker was lost with it.
        timeout: seconds it may take in all.
        queued_at: when it came.
        worker: who has it.
        sent: its place at that worker.
        deaths: the workers it has ended.
        failures: how often it has been tried in vain.
        fate: the error it gets once the worker that was killed for it is gone.
        timer: its timeout.
    """

    __slots__ = (
        "deaths",
        "failures",
        "fate",
        "function",
        "future",
        "name",
        "parcel",
        "priority",
        "queued_at",
        "retries",
        "sent",
        "timeout",
        "timer",
        "worker",
    )

    def __init__(
        self,
        function: Function | None,
        name: str,
        parcel: Parcel,
        priority: int,
        future: Future,
        retries: int | RetryPolicy,
        timeout: float | None,
        now: float,
    ) -> None:
        self.function = function
        self.name = name
        self.parcel = parcel
        self.priority = priority
        self.future = future
        self.retries = retries
        self.timeout = timeout
        self.queued_at = now
        self.worker: FunctionWorker | None = None
        self.sent: Sent | None = None
        self.deaths: list[WorkerLost] | None = None
        self.failures = 0
        self.fate: BaseException | None = None
        self.timer: asyncio.TimerHandle | None = None

    def begin(self) -> bool:
        """It goes to a worker; ``False`` when it was cancelled by another thread meanwhile."""
        future = self.future
        if not isinstance(future, concurrent.futures.Future):
            return not future.done()
        return future.running() or future.set_running_or_notify_cancel()

    def succeed(self, value: object) -> None:
        """Hands over the result, if anybody still waits."""
        if not self.future.done():
            self.future.set_result(value)

    def fail(self, error: BaseException) -> None:
        """Hands over an error, if anybody still waits."""
        if not self.future.done():
            self.future.set_exception(error)

    def __repr__(self) -> str:
        return f"<Call {self.name} priority={self.priority}>"


class PoolCall:
    """A call that is described but not made: work for a scheduler. Made by ``pool.call()``.

    Awaiting ``call()`` makes it; it may be made any number of times.
    """

    __slots__ = ("_make", "name")

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self._make = make
        self.name: str = name

    async def __call__(self) -> Any:
        """Makes the call and returns its value.

        Cancellation: as for ``pool.run()``: the worker that runs it is killed before the cancellation goes on.
        """
        return await self._make()

    def __repr__(self) -> str:
        return f"<PoolCall {self.name}>"
