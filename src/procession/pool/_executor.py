"""``concurrent.futures`` over a function pool: an adapter for a pool, and a drop-in with a loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from procession.errors import WorkerStartError
from procession.pool._adapter import SHUT, BrokenStart, PoolFuture, hand_over
from procession.pool._config import PoolConfig, processors
from procession.pool._function_pool import FunctionPool

if TYPE_CHECKING:
    from procession.pool._dispatcher import Dispatcher

P = ParamSpec("P")
T = TypeVar("T")


class _Engine:
    """A thread with a loop and a pool in it, for an executor that nobody gave one."""

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.started: concurrent.futures.Future[Dispatcher] = concurrent.futures.Future()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.over: asyncio.Event | None = None
        self.broken: WorkerStartError | None = None
        self.thread = threading.Thread(target=self._run, name="procession-executor", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.over = over = asyncio.Event()
        pool = FunctionPool(self.config, name="executor")
        try:
            await pool.__aenter__()
        except BaseException as error:  # noqa: BLE001 - told to who started it
            self.started.set_exception(error)
            return
        self.started.set_result(pool._inside())
        try:
            await over.wait()
        finally:
            await pool.aclose()

    def end(self) -> None:
        """Lets the pool finish what it has, and the thread end."""
        loop, over = self.loop, self.over
        if loop is not None and over is not None:
            try:
                loop.call_soon_threadsafe(over.set)
            except RuntimeError:
                pass  # it has ended

    def end_and_wait(self) -> None:
        """The same, and waits for it."""
        self.end()
        if threading.current_thread() is not self.thread:
            self.thread.join()


class _Future(PoolFuture[T]):
    """Tells the engine that the initializer raises before it tells anybody else, so that no later call is accepted."""

    def __init__(self, engine: _Engine) -> None:
        super().__init__()
        self._engine = weakref.ref(engine)  # whoever keeps results does not keep what made them

    def set_exception(self, exception: BaseException | None) -> None:
        if isinstance(exception, WorkerStartError) and exception.__cause__ is not None:
            engine = self._engine()
            if engine is not None:
                engine.broken = exception
        super().set_exception(exception)


_engines: weakref.WeakSet[_Engine] = weakref.WeakSet()
_at_end = False


def _at_exit() -> None:
    global _at_end
    _at_end = True
    for engine in list(_engines):
        engine.end_and_wait()


# As concurrent.futures does: before non-daemon threads are joined, while everything still works.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]


class Executor(concurrent.futures.Executor):
    """Takes the place of ``concurrent.futures.ProcessPoolExecutor``: same arguments, same futures.

    It needs no running loop: it has one in a thread of its own. What differs: workers are never forked from this
    program; one that ends fails the call it ran, with :class:`BrokenWorker`, which is a ``BrokenProcessPool``, and is
    replaced, so the executor goes on; and what workers print goes to the log ``procession.pool.output``. Only an
    initializer that raises breaks it, as it does there.

    Args:
        max_workers: workers there are at most; default: the processors we may use. They are started when needed.
        mp_context: a context of ``multiprocessing``; one whose method is ``"spawn"`` starts an interpreter per worker.
        initializer: called in each new worker.
        initargs: its arguments.
        max_tasks_per_child: calls after which a worker is replaced.

    Raises:
        ValueError: a number is less than 1.
        TypeError: the initializer cannot be called, or a number is none.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: Any = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
    ) -> None:
        if max_workers is None:
            max_workers = processors()
        elif max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if max_tasks_per_child is not None:
            if not isinstance(max_tasks_per_child, int):
                raise TypeError("max_tasks_per_child must be an integer")
            if max_tasks_per_child <= 0:
                raise ValueError("max_tasks_per_child must be >= 1")
        self._max_workers = max_workers
        method: Literal["spawn", "template"] = (
            "spawn" if mp_context is not None and mp_context.get_start_method() == "spawn" else "template"
        )
        self._config = PoolConfig(
            min_size=0,
            initial_size=0,
            max_size=max_workers,
            patience=0,
            idle_timeout=None,
            autoscale=True,
            cool_down=1e6,
            initializer=initializer,
            initargs=tuple(initargs),
            max_uses=max_tasks_per_child,
            start_method=method,
            prefetch=0 if max_tasks_per_child is not None else 64,
            poison_after=1,
        )
        self._lock = threading.Lock()
        self._engine: _Engine | None = None
        self._finalizer: weakref.finalize[..., Executor] | None = None
        self._shut = False
        self._open: set[concurrent.futures.Future[Any]] = set()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
        """Hands a call to a worker and returns its future; see ``concurrent.futures.Executor.submit``.

        Raises:
            RuntimeError: the executor was shut down, or the program ends.
            BrokenStart: the initializer raises.
        """
        with self._lock:
            if self._shut:
                raise RuntimeError(SHUT)
            if _at_end:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            engine = self._engine
            if engine is None:
                engine = self._engine = _Engine(self._config)
                _engines.add(engine)
                self._finalizer = weakref.finalize(self, engine.end)
                self._finalizer.atexit = False
            dispatcher = engine.started.result()
            if (broken := engine.broken) is not None:
                raise BrokenStart(broken.pool, broken.reason, broken.exit, broken.stderr_tail) from broken.__cause__
            future: _Future[T] = _Future(engine)
            self._open.add(future)
            open_, lock = self._open, self._lock

            def forget(future: concurrent.futures.Future[Any]) -> None:
                with lock:
                    open_.discard(future)

            dispatcher.loop.call_soon_threadsafe(hand_over, dispatcher, future, fn, args, kwargs)
        future.add_done_callback(forget)
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Calls ``fn`` with the items of the iterables; see ``concurrent.futures.Executor.map``.

        ``chunksize`` is checked and otherwise not needed: short calls are sent together anyway.

        Raises:
            ValueError: ``chunksize`` is less than 1.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        return super().map(fn, *iterables, timeout=timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accepts nothing more and lets workers go when all is done; see ``concurrent.futures.Executor.shutdown``."""
        with self._lock:
            self._shut = True
            engine = self._engine
            left = list(self._open)
        if cancel_futures:
            for future in left:
                future.cancel()
        if engine is not None:
            engine.end()
            if wait and threading.current_thread() is not engine.thread:
                engine.thread.join()

    def __repr__(self) -> str:
        return f"<procession.pool.Executor of at most {self._max_workers} workers>"
