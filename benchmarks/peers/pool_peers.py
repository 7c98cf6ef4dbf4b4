"""Pools of Python workers behind one small face, each used the way its documentation says."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks.peers import pool_functions as work


@dataclass(frozen=True, slots=True)
class Wish:
    """What a case asks of a pool."""

    workers: int = 2
    prefetch: bool = True  # False: no call waits at a worker; only ours can be told
    preload: tuple[str, ...] = ()  # only ours; the others import in the call
    retries: int = 0  # only ours
    one_each: bool = False  # no worker may take two calls at once, for they wait for each other


class PoolPeer:
    """One kind of pool."""

    uvloop = False
    has_prefetch = False

    def open(self, wish: Wish) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        raise NotImplementedError

    async def revive(self) -> bool:
        """Whether a pool that refuses everything can be had anew by asking for it in the documented way."""
        return False


class Ours(PoolPeer):
    """`FunctionPool`, everything on: registry, events, containment."""

    has_prefetch = True

    def __init__(self) -> None:
        self._api: Any = import_module("procession")
        self._pools: Any = import_module("procession.pool")

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        options: dict[str, Any] = {} if wish.prefetch else {"prefetch": 0}
        config = self._pools.PoolConfig(min_size=wish.workers, max_size=wish.workers, preload=wish.preload, **options)
        async with self._api.ProcessRegistry() as registry, self._pools.FunctionPool(config, registry=registry) as pool:
            self._run = partial(pool.run, retries=wish.retries) if wish.retries else pool.run
            yield

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._run(function, *args)


class OursUvloop(Ours):
    uvloop = True


class OfExecutor(PoolPeer):
    """Whatever is a `concurrent.futures.Executor`, through `run_in_executor`."""

    def make(self, wish: Wish) -> Executor:
        return ProcessPoolExecutor(wish.workers, mp_context=multiprocessing.get_context("fork"))

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        self._wish = wish
        self._executor = self.make(wish)
        self._loop = asyncio.get_running_loop()
        yield
        self._executor.shutdown()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._loop.run_in_executor(self._executor, function, *args)


class OfExecutorUvloop(OfExecutor):
    uvloop = True


class OfExecutorDefault(OfExecutor):
    """The way of starting that this Python prefers."""

    def __init__(self) -> None:
        if multiprocessing.get_start_method() == "fork":
            raise ImportError("the default of this Python is fork")

    def make(self, wish: Wish) -> Executor:
        return ProcessPoolExecutor(wish.workers)


class Loky(OfExecutor):
    def __init__(self) -> None:
        self._loky = import_module("loky")

    def make(self, wish: Wish) -> Executor:
        executor: Executor = self._loky.get_reusable_executor(wish.workers, timeout=60)
        return executor

    async def revive(self) -> bool:
        self._executor = await asyncio.to_thread(self.make, self._wish)
        return True


class MultiprocessingPool(PoolPeer):
    """`apply_async` with callbacks."""

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        self._pool = multiprocessing.Pool(wish.workers)
        yield
        self._pool.terminate()
        self._pool.join()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        future: asyncio.Future[Any] = self._loop.create_future()

        def tell(give: Callable[[Any], None], value: object) -> None:
            self._loop.call_soon_threadsafe(_if_wanted, future, give, value)

        self._pool.apply_async(
            function,
            args,
            callback=partial(tell, future.set_result),
            error_callback=partial(tell, future.set_exception),
        )
        return await future


def _if_wanted(future: asyncio.Future[Any], give: Callable[[Any], None], value: object) -> None:
    if not future.done():
        give(value)


class Pebble(PoolPeer):
    def __init__(self) -> None:
        self._pebble: Any = import_module("pebble")

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        self._pool = self._pebble.ProcessPool(max_workers=wish.workers)
        yield
        self._pool.stop()
        self._pool.join()

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.wrap_future(self._pool.schedule(function, args=args))


class Aiomultiprocess(PoolPeer):
    """Its workers run coroutines; these never wait for their loop, so that a worker does one thing at a time."""

    _as_coroutine: dict[Callable[..., Any], Callable[..., Any]] = {  # noqa: RUF012 - never changed
        work.echo: work.echo_async,
        work.square: work.square_async,
        work.meet: work.meet_async,
    }

    def __init__(self) -> None:
        self._aiomultiprocess: Any = import_module("aiomultiprocess")

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        options = {"childconcurrency": 1} if wish.one_each else {}
        async with self._aiomultiprocess.Pool(wish.workers, **options) as pool:
            self._pool = pool
            yield

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._pool.apply(self._as_coroutine[function], args)


class AnyioToProcess(PoolPeer):
    def __init__(self) -> None:
        self._run = import_module("anyio.to_process").run_sync
        self._limiter: Any = import_module("anyio").CapacityLimiter

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        self._limit = self._limiter(wish.workers)
        yield  # its workers end with the loop

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._run(function, *args, limiter=self._limit)


class Distributed(PoolPeer):
    def __init__(self) -> None:
        self._distributed: Any = import_module("distributed")

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[None]:
        api = self._distributed
        cluster = api.LocalCluster(
            n_workers=wish.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
            asynchronous=True,
        )
        async with cluster, api.Client(cluster, asynchronous=True) as client:
            self._submit = client.submit
            yield

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        return await self._submit(function, *args, pure=False)


PEERS: dict[str, type[PoolPeer]] = {
    "procession": Ours,
    "procession-uvloop": OursUvloop,
    "executor": OfExecutor,
    "executor-uvloop": OfExecutorUvloop,
    "executor-default": OfExecutorDefault,
    "multiprocessing": MultiprocessingPool,
    "loky": Loky,
    "pebble": Pebble,
    "aiomultiprocess": Aiomultiprocess,
    "anyio": AnyioToProcess,
    "distributed": Distributed,
}
