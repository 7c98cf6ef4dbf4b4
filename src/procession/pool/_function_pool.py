"""``FunctionPool``: Python functions in warm worker processes that may die without taking anything along."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from procession._core.aio import Latch, finish
from procession._core.backoff import RetryPolicy
from procession._types import Priority
from procession.errors import ConfigError, PoolClosed, StateError
from procession.pool._adapter import PoolExecutor
from procession.pool._call import PoolCall
from procession.pool._common import Pool
from procession.pool._config import PoolConfig
from procession.pool._dispatcher import Dispatcher
from procession.pool._functions import name_of
from procession.pool._map import results
from procession.pool._options import count, pool_name
from procession.pool._slots import WorkerInfo
from procession.pool._statistics import PoolStatistics

if TYPE_CHECKING:
    from procession.registry import ProcessRegistry

T = TypeVar("T")

_OPTIONS = ("kwargs", "timeout", "retries", "priority")


class FunctionPool(Pool):
    """Runs Python functions in worker processes.

    ::

        async with FunctionPool(PoolConfig(max_size=4)) as pool:
            digest = await pool.run(checksum, path, timeout=5.0)

    Workers are fresh interpreters, or clean forks of one, never forks of this program; they import what a function needs by
    name. A worker's death is the affair of the one call it ran; a timeout or a cancellation kills the worker that
    runs the call, with everything it started. Functions, arguments and results travel as pickles: a worker is
    trusted as far as this program trusts itself.

    Args:
        config: how many workers, and what they bring along.
        name: for records, logs and errors.
        registry: is told of every worker, and of changes of size.
        rng: for jitter; give a seeded one for reproducible tests.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        config: PoolConfig | None = None,
        *,
        name: str = "functions",
        registry: ProcessRegistry | None = None,
        rng: random.Random | None = None,
    ) -> None:
        config = PoolConfig() if config is None else config
        if not isinstance(config, PoolConfig):
            raise ConfigError("config", config, "a PoolConfig is needed")
        self.config: PoolConfig = config
        self.name: str = pool_name(name)
        self._registry = registry
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._dispatcher: Dispatcher | None = None
        self._closed = False

    # ------------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Starts the first workers.

        Raises:
            WorkerStartError: one could not be started; nothing is left of any.
            NotPicklable: the initializer or the state cannot travel.
            StateError: the pool was entered or closed before.

        Cancellation: nothing is left of any worker before the cancellation goes on.
        """
        if self._closed:
            raise PoolClosed(self.name)
        if self._dispatcher is not None:
            raise StateError(f"the pool {self.name} was entered before")
        self._dispatcher = Dispatcher(self.name, self.config, self._registry, self._rng)
        await self._dispatcher.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the pool: after an exception at once, else when what was accepted is done.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await self.aclose(cancel=error is not None)

    async def aclose(self, *, cancel: bool = False) -> None:
        """Closes the pool; may be called twice.

        Nothing new is accepted from now on. What was accepted is finished first, unless ``cancel`` is set or the
        caller is cancelled; then it fails with ``PoolClosed`` and its workers are killed.

        Args:
            cancel: do not wait for what waits and runs.

        Cancellation: what is left is cancelled too; the cancellation goes on when no worker is left.
        """
        self._closed = True
        dispatcher = self._dispatcher
        if dispatcher is None:
            return
        dispatcher.closing = True
        try:
            if not cancel:
                await dispatcher.drained()
        finally:
            await dispatcher.shut()

    def _inside(self) -> Dispatcher:
        if self._dispatcher is None or self._closed:
            raise PoolClosed(self.name)
        return self._dispatcher

    # ---------------------------------------------------------------------------------------- calls

    async def run(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        retries: int | RetryPolicy = 0,
        priority: int = Priority.NORMAL,
    ) -> T:
        """Runs ``function(*args, **kwargs)`` in a worker and returns its value.

        Large ``bytes`` and buffers (NumPy arrays, say) are not copied on the way out: leave them as they are until
        this returns.

        Args:
            function: what to call; one that pickle finds by name, or anything with cloudpickle installed.
            args: its arguments.
            kwargs: its keyword arguments.
            timeout: seconds from now, waiting included; the worker that runs the call is then killed.
            retries: how often it is tried again when its worker is lost; a ``RetryPolicy`` also says after which
                delays, and after which of the function's own exceptions.
            priority: the smaller number goes first.

        Raises:
            PoolClosed: the pool is closed.
            PoolExhausted: as many wait as may.
            NotPicklable: function, arguments or result cannot travel; no worker was lost.
            MessageTooLarge: arguments or result are too large; no worker was lost.
            CallTimeout: it took too long.
            WorkerLost: its worker ended while it ran the call.
            PoisonedTask: it has ended several workers.
            WorkerStartError: no worker can be started.
            RemoteError: it raised something that cannot be raised here. Any other exception of its own is raised as
                it is, with the remote traceback as its cause.

        Cancellation: if the call runs, its worker is killed, with everything it started, before the cancellation goes on; a
            call that has not begun is forgotten.
        """
        dispatcher = self._dispatcher
        if dispatcher is None:
            raise PoolClosed(self.name)
        future = dispatcher.loop.create_future()
        call = dispatcher.enter(function, args, kwargs, timeout, retries, priority, future)
        try:
            return cast("T", await future)
        except asyncio.CancelledError:
            gone = dispatcher.abandon(call)
            if gone is not None:
                await finish(_opened(gone))
            raise

    def submit(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        retries: int | RetryPolicy = 0,
        priority: int = Priority.NORMAL,
    ) -> asyncio.Future[T]:
        """Like :meth:`run`, but returns a future at once. Cancelling the future cancels the call.

        Raises:
            PoolClosed: the pool is closed.
            PoolExhausted: as many wait as may.
            NotPicklable: function or arguments cannot travel.
            MessageTooLarge: the arguments are too large.
        """
        dispatcher = self._inside()
        future: asyncio.Future[T] = dispatcher.loop.create_future()
        call = dispatcher.enter(function, args, kwargs, timeout, retries, priority, future)

        def done(future: asyncio.Future[T]) -> None:
            if future.cancelled():
                dispatcher.abandon(call)

        future.add_done_callback(done)
        return future

    def call(self, function: Callable[..., T], /, *args: Any, **options: Any) -> PoolCall:
        """A call that is described but not made, for a scheduler or for later: ``await pool.call(f, x)()``.

        Args:
            function: as for :meth:`run`.
            args: as for :meth:`run`.
            options: as for :meth:`run`.

        Raises:
            ConfigError: an option is none of ``run()``.
        """
        for name, value in options.items():
            if name not in _OPTIONS:
                raise ConfigError(name, value, "the options of a call are " + ", ".join(_OPTIONS))
        return PoolCall(name_of(function), lambda: self.run(function, *args, **options))

    def map(
        self,
        function: Callable[..., T],
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        max_in_flight: int | None = None,
        ordered: bool = True,
        timeout: float | None = None,
        retries: int | RetryPolicy = 0,
        priority: int = Priority.NORMAL,
    ) -> AsyncGenerator[T, None]:
        """Runs ``function(item)`` for each item and yields the values.

        Items are taken as results are, never more than ``max_in_flight`` ahead; ``items`` may be endless. Results do not
        wait for a source that lets us wait. Where ``max_waiting`` has no room, the next item waits until it has. The first
        exception ends the iteration. Whatever ends it, calls under way are cancelled. Close an iterator that is left early
        (``contextlib.aclosing``) to have that done at once.

        Args:
            function: as for :meth:`run`.
            items: an iterable or an asynchronous one.
            max_in_flight: calls under way at once. Default: sixteen per worker.
            ordered: whether values come in the order of the items; else as they are ready.
            timeout: as for :meth:`run`, for each call.
            retries: as for :meth:`run`, for each call.
            priority: as for :meth:`run`.

        Raises:
            ConfigError: an option was refused.
            PoolExhausted: as many wait as may, none of them from here.
        """
        limit = 16 * self.config.most if max_in_flight is None else count("max_in_flight", max_in_flight)
        if not isinstance(items, (Iterable, AsyncIterable)):
            raise ConfigError("items", items, "an iterable or an asynchronous one is needed")

        def one(item: Any) -> asyncio.Future[T]:
            return self.submit(function, item, timeout=timeout, retries=retries, priority=priority)

        return results(one, items, limit, ordered=ordered)

    def executor(self) -> PoolExecutor:
        """A ``concurrent.futures.Executor`` over this pool, for ``loop.run_in_executor`` and for other threads.

        Raises:
            PoolClosed: the pool is not open.
        """
        return PoolExecutor(self._inside)

    # --------------------------------------------------------------------------------- size, figures

    async def scale_up(self, n: int = 1) -> int:
        """Grows by up to ``n`` workers and returns the new size once they are ready.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.
            PoolClosed: the pool is closed.

        Cancellation: safe; the change goes on.
        """
        fleet = self._inside().fleet
        return await fleet.resize(fleet.roster.target + count("n", n), "scale_up")

    async def scale_down(self, n: int = 1) -> int:
        """Shrinks by up to ``n`` workers and returns the new size. Busy ones go when they are done.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.
            PoolClosed: the pool is closed.

        Cancellation: safe; the change goes on.
        """
        fleet = self._inside().fleet
        return await fleet.resize(fleet.roster.target - count("n", n), "scale_down")

    async def resize(self, n: int) -> int:
        """Aims at ``n`` workers, within ``min_size`` and ``max_size``, and returns the size that is aimed at.

        Raises:
            ConfigError: ``n`` is no whole number of 0 or more.
            PoolClosed: the pool is closed.

        Cancellation: safe; the change goes on.
        """
        return await self._inside().fleet.resize(count("n", n, 0), "resize")

    @property
    def workers(self) -> tuple[WorkerInfo, ...]:
        """The workers of this moment, and where each stands."""
        return () if self._dispatcher is None else self._dispatcher.fleet.roster.look_around()

    def statistics(self) -> PoolStatistics:
        """Figures of this moment."""
        return PoolStatistics() if self._dispatcher is None else self._dispatcher.statistics()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "not entered" if self._dispatcher is None else "open"
        return f"<FunctionPool {self.name}: {state}>"


async def _opened(latch: Latch) -> None:
    await asyncio.wait((latch,))
