"""``CommandPool``: one-shot commands, so many at once, the most urgent first."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from procession._core.aio import Latch, finish
from procession._core.backoff import RetryPolicy, duration
from procession._core.window import Samples
from procession._types import Completed
from procession.command import Command
from procession.errors import (
    ConfigError,
    ExecutionTimeout,
    ExitError,
    PoolClosed,
    PoolError,
    PoolExhausted,
    ProcessError,
    SignaledError,
    StateError,
)
from procession.events import CallFinished
from procession.pool._common import Pool
from procession.pool._options import count, pool_name, priority_of, retries_of, seconds_or_none
from procession.pool._statistics import PoolStatistics
from procession.pool._waiters import Counter
from procession.process import raise_for, run

if TYPE_CHECKING:
    from procession.abc import Launcher
    from procession.process._sink import Input
    from procession.registry import ProcessRegistry

DEFAULT_PRIORITY = 128


class CommandPool(Pool):
    """Runs commands, at most ``max_concurrent`` at once.

    ::

        async with CommandPool(max_concurrent=4) as pool:
            completed = await pool.execute(Command("gzip", "-k", path), priority=10, retries=2)

    Args:
        max_concurrent: commands that run at once.
        max_waiting: how many may wait before ``PoolExhausted`` is raised; default: any number.
        name: for records, logs and errors.
        registry: is told of every process.
        launcher: the engine that starts them.
        rng: for the jitter of a ``RetryPolicy``.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        max_concurrent: int = 4,
        *,
        max_waiting: int | None = None,
        name: str = "commands",
        registry: ProcessRegistry | None = None,
        launcher: Launcher | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self.name: str = pool_name(name)
        self._most = count("max_concurrent", max_concurrent)
        self._max_waiting = None if max_waiting is None else count("max_waiting", max_waiting, 0)
        self._registry = registry
        self._launcher = launcher
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._line: Counter[asyncio.Future[None], None] = Counter()
        self._running = 0
        self._entered = 0  # calls of execute() that have not returned
        self._tasks: set[asyncio.Task[Completed]] = set()
        self._all: set[asyncio.Task[Any]] = set()  # whose execute() has begun and has not returned
        self._cut: set[asyncio.Task[Any]] = set()  # those that were cancelled because the pool closes
        self._idle: Latch | None = None
        self._response = Samples()
        self._ok = self._errors = self._retried = self._cancelled = self._started = 0
        self._open = self._closed = self._is_shut = False

    # ------------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Opens the pool.

        Raises:
            StateError: it was entered before.
            PoolClosed: it was closed before.

        Cancellation: never waits.
        """
        if self._closed:
            raise PoolClosed(self.name)
        if self._open:
            raise StateError(f"the pool {self.name} was entered before")
        self._open = True
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the pool: after an exception at once, else when what was accepted is done.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await self.aclose(cancel=error is not None)

    async def aclose(self, *, cancel: bool = False) -> None:
        """Closes the pool; may be called twice. Nothing new is accepted.

        Args:
            cancel: do not wait for what waits and runs: commands are stopped, and all of that fails with ``PoolClosed``.

        Cancellation: what is left is cancelled too; the cancellation goes on when no command is left.
        """
        self._closed = True
        if not self._open:
            return
        try:
            if not cancel:
                await self._until_idle()
        finally:
            await finish(self._shut())

    async def _shut(self) -> None:
        self._is_shut = True
        for task in self._all - self._cut:
            self._cut.add(task)
            task.cancel()
        await self._until_idle()

    async def _until_idle(self) -> None:
        while self._entered or self._tasks:
            if self._idle is None or self._idle.done():
                self._idle = Latch(loop=self._loop)
            await asyncio.wait((self._idle,))

    # ------------------------------------------------------------------------------------- commands

    async def execute(
        self,
        command: Command,
        *,
        input: Input | None = None,
        input_data: Input | None = None,
        timeout: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        retries: int | RetryPolicy = 0,
        retry_delay: float = 0.0,
        check: bool = False,
        max_output: int | None = None,
    ) -> Completed:
        """Runs a command when its turn comes and returns what it wrote and how it ended.

        Args:
            command: what to run.
            input: what it reads on stdin, as for ``run()``. With ``retries`` it has to be something that can be read again.
            input_data: another name of ``input``.
            timeout: seconds one attempt may take, from its start; default: the command's own.
            priority: 0 to 255; the smaller number goes first.
            retries: how often it is tried again when it exits with another code than 0, is ended by a signal, or takes too
                long; or a ``RetryPolicy``, whose ``on`` is matched with ``ExitError``, ``SignaledError``, ``ExecutionTimeout``.
            retry_delay: seconds between attempts, during which somebody else has the place.
            check: raise unless the last attempt exited with 0.
            max_output: the most bytes kept of each stream.

        Returns:
            The result of the last attempt.

        Raises:
            ConfigError: an option was refused.
            PoolClosed: the pool is closed.
            PoolExhausted: as many wait as may.
            SpawnError: it could not be started.
            ExecutionTimeout: the last attempt took too long.
            ExitError: ``check``, and it exited with another code than 0.
            SignaledError: ``check``, and a signal ended it.

        Cancellation: a command that runs is stopped with its tree before the cancellation goes on; one that waits is
            forgotten.
        """
        if self._closed or not self._open:
            raise PoolClosed(self.name)
        return await self._prepared(
            command,
            input=input,
            input_data=input_data,
            timeout=timeout,
            priority=priority,
            retries=retries,
            retry_delay=retry_delay,
            check=check,
            max_output=max_output,
        )

    def _prepared(
        self,
        command: Command,
        *,
        input: Input | None = None,
        input_data: Input | None = None,
        timeout: float | None = None,
        priority: int = DEFAULT_PRIORITY,
        retries: int | RetryPolicy = 0,
        retry_delay: float = 0.0,
        check: bool = False,
        max_output: int | None = None,
    ) -> Coroutine[Any, Any, Completed]:
        """Checks what was asked for, before anything happens."""
        if not isinstance(command, Command):
            raise ConfigError("command", command, 'a Command is needed: Command("gzip", path)')
        if input_data is not None and input is not None:
            raise ConfigError("input_data", input_data, "it is another name of input, which was given too")
        return self._execute(
            command,
            input if input_data is None else input_data,
            seconds_or_none("timeout", timeout),
            priority_of(priority, 0, 255),
            retries_of(retries),
            duration("retry_delay", retry_delay),
            check,
            max_output,
        )

    async def _execute(
        self,
        command: Command,
        input: Input | None,
        timeout: float | None,
        priority: int,
        policy: int | RetryPolicy,
        delay: float,
        check: bool,
        max_output: int | None,
    ) -> Completed:
        if self._is_shut:
            raise PoolClosed(self.name)

        async def attempt() -> Completed:
            await self._enter(priority)
            self._started += 1
            try:
                return await run(
                    command,
                    input=input,
                    timeout=timeout,
                    max_output=max_output,
                    registry=self._registry,
                    launcher=self._launcher,
                    owner=self.name,
                )
            finally:
                self._leave()

        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        self._entered += 1
        self._all.add(task)
        began = self._loop.time()
        try:
            completed = await self._tried(attempt, policy, delay)
            self._ok += completed.ok
            self._errors += not completed.ok
            self._response.add(self._loop.time() - began)
            self._tell(completed.id, began, ok=completed.ok)
            if check:
                raise_for(completed)
            return completed
        except asyncio.CancelledError:
            self._cancelled += 1
            if task in self._cut:
                self._cut.discard(task)
                if task.uncancel() <= before:
                    raise PoolClosed(self.name) from None  # it was we who cancelled it, and nobody else
            raise
        except (ExitError, SignaledError):
            raise
        except Exception as error:
            self._errors += 1
            if not isinstance(error, PoolError):
                self._tell(self.name, began, ok=False)
            raise
        finally:
            self._entered -= 1
            self._all.discard(task)
            if task in self._cut:
                self._cut.discard(task)
                task.uncancel()  # something else came first
            self._calm()

    def _tell(self, id: str, began: float, *, ok: bool) -> None:
        """Publishes that a command has ended, if anybody listens."""
        registry = self._registry
        if registry is not None and registry.heard(CallFinished):
            duration = self._loop.time() - began
            registry.publish(CallFinished(id=id, owner=self.name, pool=self.name, ok=ok, duration=duration))

    async def _tried(
        self, attempt: Callable[[], Coroutine[Any, Any, Completed]], policy: int | RetryPolicy, delay: float
    ) -> Completed:
        failures, wait = 0, None
        while True:
            completed: Completed | None = None
            try:
                completed = await attempt()
                if completed.ok:
                    return completed
                raise_for(completed)
            except ProcessError as error:
                if not isinstance(error, (ExitError, SignaledError, ExecutionTimeout)):
                    raise
                failures += 1
                if isinstance(policy, RetryPolicy):
                    wait = policy.next_delay(failures, error, self._rng)
                else:
                    wait = delay if failures <= policy else None
                if wait is None:
                    if completed is None:
                        raise
                    return completed
            self._retried += 1
            if wait:
                await asyncio.sleep(wait)

    async def _enter(self, priority: int) -> None:
        if self._running < self._most and not len(self._line):
            self._running += 1
            return
        if self._max_waiting is not None and len(self._line) >= self._max_waiting:
            raise PoolExhausted(self.name, self._max_waiting)
        future: asyncio.Future[None] = self._loop.create_future()
        self._line.join(future, priority)
        try:
            await future
        except BaseException:
            had = self._line.granted
            self._line.leave(future)
            if self._line.granted < had:  # a place was ours already: it goes to the next
                self._leave()
            raise
        self._line.take(future)

    def _leave(self) -> None:
        self._running -= 1
        self._admit()

    def _admit(self) -> None:
        while self._running < self._most and len(self._line):
            future = self._line.offer(None)
            assert future is not None
            if future.done():
                self._line.leave(future)
                continue
            self._running += 1
            future.set_result(None)

    def _calm(self) -> None:
        if self._idle is not None and not self._entered and not self._tasks:
            self._idle.open()

    def submit(self, command: Command, **options: Any) -> asyncio.Task[Completed]:
        """Begins :meth:`execute` and returns at once; the pool owns the task, :meth:`wait_all` waits for it.

        Args:
            command: what to run.
            options: as for :meth:`execute`.

        Raises:
            ConfigError: an option was refused.
            PoolClosed: the pool is closed.
        """
        if self._closed or not self._open:
            raise PoolClosed(self.name)
        task = self._loop.create_task(self._prepared(command, **options))
        self._tasks.add(task)

        def done(task: asyncio.Task[Completed]) -> None:
            self._tasks.discard(task)
            if self._is_shut and not task.cancelled():
                task.exception()  # whoever closes a pool at once knows; nobody has to be told by the log
            self._calm()

        task.add_done_callback(done)
        return task

    async def wait_all(self) -> None:
        """Waits until nothing waits or runs. What failed is told to those who hold its task.

        Cancellation: safe; only the waiting ends.
        """
        if self._open:
            await self._until_idle()

    # --------------------------------------------------------------------------------- size, figures

    async def scale_up(self, n: int = 1) -> int:
        """Lets ``n`` more run at once, and returns how many that makes.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.

        Cancellation: never waits.
        """
        return await self.resize(self._most + count("n", n))

    async def scale_down(self, n: int = 1) -> int:
        """Lets ``n`` fewer run at once, at least one, and returns how many that makes. What runs goes on.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.

        Cancellation: never waits.
        """
        return await self.resize(max(1, self._most - count("n", n)))

    async def resize(self, n: int) -> int:
        """Lets ``n`` run at once. What runs goes on.

        Raises:
            ConfigError: ``n`` is no whole number of 1 or more.

        Cancellation: never waits.
        """
        self._most = count("n", n)
        if self._open:
            self._admit()
        return self._most

    def statistics(self) -> PoolStatistics:
        """Figures of this moment. A worker here is a place for one command."""
        return PoolStatistics(
            size=self._most,
            target=self._most,
            active=self._most,
            idle=max(0, self._most - self._running),
            busy=self._running,
            created=self._started,
            destroyed=self._started - self._running,
            waiting=len(self._line),
            running=self._running,
            ok=self._ok,
            errors=self._errors,
            retried=self._retried,
            cancelled=self._cancelled,
            response=self._response.summary(),
        )

    def __repr__(self) -> str:
        return f"<CommandPool {self.name}: {self._running} of {self._most} run, {len(self._line)} wait>"
