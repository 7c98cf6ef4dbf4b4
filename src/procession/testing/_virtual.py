"""Virtual time: a loop that jumps to the next timer when everybody waits, and says so when nobody can go on."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context
from selectors import BaseSelector, DefaultSelector
from threading import Lock
from typing import Any, ClassVar, TypeVar, TypeVarTuple

from procession._clock import monotonic
from procession.errors import ProcessionError
from procession.testing._selector import JumpingSelector
from procession.testing._where import WaitingTask, waiting_tasks

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LIVE = "procession._launch._live"


class VirtualTimeError(ProcessionError, RuntimeError):
    """A virtual loop cannot go on.

    Attributes:
        at: the virtual time.
        waiting: the tasks that wait, and where.
        watched: how many descriptors the loop watches beside its own.
    """

    _fields: ClassVar[tuple[str, ...]] = ("at", "waiting", "watched")

    def __init__(self, at: float, waiting: tuple[WaitingTask, ...] = (), watched: int = 0) -> None:
        super().__init__(at, waiting, watched)
        self.at = at
        self.waiting = waiting
        self.watched = watched

    def _told(self) -> str:
        lines = "".join(f"\n  {task}" for task in self.waiting) or "\n  (no task waits)"
        if self.watched:
            lines += (
                f"\n  and {self.watched} descriptor(s) are watched: for a peer outside of the loop, use real_time()"
            )
        return lines


class VirtualDeadlock(VirtualTimeError):
    """Everybody waits and no timer, no ready descriptor, no child and no thread can ever wake anybody."""

    def __str__(self) -> str:
        return f"nothing can happen any more at {self.at:g} s of virtual time:{self._told()}"


class VirtualLivelock(VirtualTimeError):
    """Virtual time ran on beyond the bound: something ticks for ever and what is waited for never comes.

    Attributes:
        jumps: how many jumps were made.
    """

    _fields = ("at", "waiting", "watched", "jumps")

    def __init__(self, at: float, waiting: tuple[WaitingTask, ...] = (), watched: int = 0, jumps: int = 0) -> None:
        super().__init__(at, waiting, watched)
        self.jumps = jumps

    def __str__(self) -> str:
        return f"still not done at {self.at:g} s of virtual time, after {self.jumps} jumps:{self._told()}"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it.

    I/O that is ready is served before any jump. Time flows at real speed – and nothing is jumped over – while something
    real is under way: a child process started by a launcher or by this loop, a function in an executor of this loop, or
    a :meth:`real_time` block. Otherwise :meth:`time` stands still while code runs.

    The class itself is a loop factory: ``asyncio.Runner(loop_factory=VirtualLoop)``.

    Args:
        start: what the clock shows at first.
        limit: virtual seconds after which :class:`VirtualLivelock` is raised, for something that ticks for ever.
        max_jumps: jumps after which it is raised. Either bound is granted once more after each raise, so that the
            clean-up after it can use time as well.
        selector: what waits for real I/O; default: the best of the system.

    Raises:
        VirtualDeadlock: out of ``run_forever`` and all that stands on it, when nothing can ever happen.
        VirtualLivelock: likewise, when one of the bounds is reached.
    """

    def __init__(
        self,
        *,
        start: float = 0.0,
        limit: float | None = None,
        max_jumps: int = 1_000_000,
        selector: BaseSelector | None = None,
    ) -> None:
        self._virtual_time = start
        self._real_since: float | None = None
        self._holds = 0
        self._work = 0
        self._work_lock = Lock()
        self._own_children: list[asyncio.SubprocessTransport] = []
        self._own_executor: ThreadPoolExecutor | None = None
        self._limit = math.inf if limit is None else limit
        self._max_jumps = max_jumps
        self._time_bound = start + self._limit
        self._jump_bound = max_jumps
        self._jumps = 0
        self._eyes = JumpingSelector(selector or DefaultSelector(), self._idle)
        super().__init__(self._eyes)
        self._own_descriptors = len(self._eyes.get_map() or ())
        self._set_time(start)

    # --------------------------------------------------------------------------------------- the clock

    def time(self) -> float:
        """The virtual time, in seconds."""
        if self._real_since is None:
            return self._virtual_time
        return self._virtual_time + (monotonic() - self._real_since)

    @property
    def jumps(self) -> int:
        """How many times the clock has jumped."""
        return self._jumps

    @contextmanager
    def real_time(self) -> Iterator[None]:
        """While the block is entered, time flows at real speed: for a peer this loop knows nothing of."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1

    @property
    def is_real(self) -> bool:
        """Whether something real is under way, so that nothing may be jumped over."""
        return bool(self._holds or self._work or self._has_own_child() or _live_children())

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Like any loop's, except that what is due at infinity is never scheduled, so it hides no deadlock."""
        if math.isinf(when) and when > 0:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    # ------------------------------------------------------------------------------------- what is real

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Like any loop's; until the function has ended, cancelled or not, time flows at real speed."""
        if self.is_closed():
            raise RuntimeError("Event loop is closed")
        if executor is None:
            executor = self._own_executor
            if executor is None:
                executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
                self.set_default_executor(executor)
        work = executor.submit(func, *args)
        with self._work_lock:
            self._work += 1
        future = asyncio.wrap_future(work, loop=self)
        work.add_done_callback(self._work_done)  # after wrap_future's own: the result is on its way by then
        return future

    def _work_done(self, _work: Future[Any]) -> None:
        with self._work_lock:
            self._work -= 1

    def set_default_executor(self, executor: ThreadPoolExecutor) -> None:  # type: ignore[override]
        """Sets what ``run_in_executor(None, …)`` uses."""
        super().set_default_executor(executor)
        self._own_executor = executor

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Like any loop's, at real speed.

        Cancellation: as in asyncio.
        """
        if self._own_executor is None:
            return
        with self.real_time():
            if timeout is None:
                await super().shutdown_default_executor()
            else:  # Python 3.12 and newer
                await super().shutdown_default_executor(timeout)  # type: ignore[call-arg,unused-ignore]

    async def subprocess_exec(self, *args: Any, **kwargs: Any) -> Any:
        """Like any loop's; while the child lives, time flows at real speed.

        Cancellation: as in asyncio.
        """
        with self.real_time():
            transport, protocol = await super().subprocess_exec(*args, **kwargs)
        self._own_children.append(transport)
        return transport, protocol

    async def subprocess_shell(self, *args: Any, **kwargs: Any) -> Any:
        """Like any loop's; while the child lives, time flows at real speed.

        Cancellation: as in asyncio.
        """
        with self.real_time():
            transport, protocol = await super().subprocess_shell(*args, **kwargs)
        self._own_children.append(transport)
        return transport, protocol

    def _has_own_child(self) -> bool:
        if self._own_children:
            self._own_children = [transport for transport in self._own_children if transport.get_returncode() is None]
        return bool(self._own_children)

    # ---------------------------------------------------------------------------- when everybody waits

    def _idle(self, timeout: float | None) -> bool:
        """Everybody waits: jumps by ``timeout`` and returns True, or returns False to wait for real."""
        if self.is_real:
            if self._real_since is None:
                self._real_since = monotonic()
            return False
        if self._real_since is not None:
            self._set_time(self.time())
            self._real_since = None
            return True  # what is due is computed anew
        if timeout is None:
            raise VirtualDeadlock(self._virtual_time, waiting_tasks(asyncio.all_tasks(self)), self._foreign())
        target = self._virtual_time + timeout
        if self._jumps >= self._jump_bound or target > self._time_bound:
            self._jump_bound = self._jumps + self._max_jumps
            self._time_bound = self._virtual_time + self._limit
            waiting = waiting_tasks(asyncio.all_tasks(self))
            raise VirtualLivelock(self._virtual_time, waiting, self._foreign(), self._jumps)
        self._jumps += 1
        self._set_time(target)
        return True

    def _set_time(self, now: float) -> None:
        self._virtual_time = now
        # Far from zero, adding a nanosecond changes nothing; the loop would turn for ever without seeing its timer due.
        self._clock_resolution = max(1e-9, 2 * math.ulp(now))

    def _foreign(self) -> int:
        return len(self._eyes.get_map() or ()) - self._own_descriptors


def _live_children() -> bool:
    """Whether a launcher has a real child or is making one; what was never imported has none."""
    live = sys.modules.get(_LIVE)
    return live is not None and bool(live.live() or live.in_flight())


def run_virtual(
    main: Callable[[], Awaitable[T]] | Coroutine[Any, Any, T],
    *,
    limit: float | None = None,
    max_jumps: int = 1_000_000,
    start: float = 0.0,
    debug: bool | None = None,
) -> T:
    """Runs ``main`` on a fresh :class:`VirtualLoop`, ends what it left, closes the loop and returns the value.

    Args:
        main: a coroutine, or a function that makes one.
        limit: virtual seconds it may take.
        max_jumps: jumps it may take.
        start: what the clock shows at first.
        debug: asyncio's debug mode.

    Raises:
        VirtualDeadlock: nothing could happen any more.
        VirtualLivelock: a bound was reached.
        RuntimeError: called where a loop runs already.
    """

    def factory() -> VirtualLoop:
        return VirtualLoop(start=start, limit=limit, max_jumps=max_jumps)

    async def _main() -> T:
        return await (main() if callable(main) else main)

    runner = asyncio.Runner(loop_factory=factory, debug=debug)
    try:
        value = runner.run(_main())
    except BaseException as error:
        try:
            runner.close()
        except VirtualTimeError as second:
            error.add_note(f"and what it left could not be ended either: {second}")
        raise
    runner.close()
    return value
