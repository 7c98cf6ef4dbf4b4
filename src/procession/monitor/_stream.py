"""Alerts as an async iterator over a bounded queue."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from procession.monitor._alerts import Alert
from procession.monitor._words import Severity


class AlertStream:
    """Alerts from now on, as returned by ``monitor.alerts()``; read it with ``async for``.

    The iteration ends when the monitor is closed and everything was read. When nobody reads, the oldest are dropped.
    Leaving the block of ``with`` closes it; leaving an ``async for`` loop alone does not.

    Attributes:
        dropped: alerts it did not deliver.
    """

    def __init__(
        self, severity: Severity, resolved: bool, max_queued: int, leave: Callable[[AlertStream], None]
    ) -> None:
        self.dropped: int = 0
        self._severity = severity
        self._resolved = resolved
        self._queue: deque[Alert] = deque()
        self._most = max_queued
        self._leave = leave
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def _offer(self, alert: Alert) -> None:
        if alert.severity < self._severity or not (alert.is_active or self._resolved):
            return
        if len(self._queue) >= self._most:
            self._queue.popleft()
            self.dropped += 1
        self._queue.append(alert)
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """Ends the iteration once what is queued was read."""
        if not self._closed:
            self._closed = True
            self._leave(self)
        while self._waiters:
            self._wake_one()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Alert:
        """Waits for the next alert.

        Raises:
            StopAsyncIteration: it, or the monitor, was closed and everything queued was read.

        Cancellation: safe; no alert is lost, another reader gets it.
        """
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                elif self._queue:
                    self._wake_one()
                raise
        return self._queue.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
