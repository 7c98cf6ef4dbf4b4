"""A lease that was asked for and is not there yet."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from procession._core.aio import finish
from procession.errors import LeaseError

if TYPE_CHECKING:
    from procession.pool._lease import Lease
    from procession.pool._process_pool import ProcessPool


class Acquiring:
    """A worker that was asked for: ``async with`` it, or ``await`` it and release the lease yourself."""

    __slots__ = ("_entered", "_lease", "_pool", "_priority", "_timeout")

    def __init__(self, pool: ProcessPool, timeout: float | None, priority: int) -> None:
        self._pool = pool
        self._timeout = timeout
        self._priority = priority
        self._lease: Lease | None = None
        self._entered = False

    def __await__(self) -> Generator[Any, None, Lease]:
        """Waits for the worker.

        Raises:
            PoolClosed: the pool is closed.
            PoolExhausted: as many wait as may.
            AcquireTimeout: none could be had in time; ``phase`` says why.
            WorkerStartError: none can be started.

        Cancellation: safe; a worker that was already granted goes to the next.
        """
        return self._pool._acquire(self._timeout, self._priority).__await__()

    async def __aenter__(self) -> Lease:
        """Waits for the worker; raises as awaiting it does.

        Raises:
            LeaseError: its block is entered already; each needs an ``acquire()`` of its own.

        Cancellation: safe; a worker that was already granted goes to the next.
        """
        if self._entered:
            raise LeaseError("lease", "its block is entered already: each needs an acquire() of its own")
        self._entered = True
        try:
            self._lease = await self
        except BaseException:
            self._entered = False
            raise
        return self._lease

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the worker back; after an exception it is reset or replaced.

        Cancellation: safe; the worker is then replaced.
        """
        lease, self._lease, self._entered = self._lease, None, False
        if lease is None or lease.is_released:
            return
        if error is None:
            lease.release()
        else:
            await finish(self._pool._left_by_exception(lease))
