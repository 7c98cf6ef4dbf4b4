"""``CircuitBreaker``: the core with a clock, around calls of coroutines and blocks."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar
from types import CoroutineType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from procession._clock import monotonic
from procession._core.window import FAILED, SLOW
from procession._types import NAME_PATTERN
from procession.errors import CircuitOpen, ConfigError
from procession.events import CircuitChanged
from procession.recovery._breaker import Circuit, CircuitChange
from procession.recovery._config import BreakerConfig
from procession.recovery._permit import IGNORED, BreakerStatistics, Permit
from procession.recovery._states import CircuitState

if TYPE_CHECKING:
    from procession.registry import ProcessRegistry

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("procession.recovery")
_running_loop = asyncio._get_running_loop  # the fastest way to ask; None where there is no loop


class _Entry:
    """A block that was entered: of which breaker, with which token, when; and the one around it."""

    __slots__ = ("began", "breaker", "outer", "token")

    def __init__(self, breaker: CircuitBreaker, token: int, began: float, outer: _Entry | None) -> None:
        self.breaker = breaker
        self.token = token
        self.began = began
        self.outer = outer


_entered: ContextVar[_Entry | None] = ContextVar("procession_breakers_entered", default=None)


class CircuitBreaker:
    """Refuses calls to something that fails, until it has shown that it works again. Needs nothing else of this library.

    ::

        breaker = CircuitBreaker(BreakerConfig(window=Count(50), failure_rate=0.5, open_for=15.0), name="mail")

        async with breaker:                       # CircuitOpen when it is open
            await send(message)

        await breaker.call(send, message)

        @breaker
        async def send(message): ...

    One breaker may be used by any number of calls at the same time, on the thread of one loop. The blocks may be nested,
    and ``with`` works as well as ``async with``, since nothing is ever waited for.

    Args:
        config: its limits. Default: ``BreakerConfig()``.
        name: for errors and events.
        registry: is told of its moves (``CircuitChanged``), under ``name`` as the id.
        owner: the ``owner`` in those events.
        on_change: called with each :class:`CircuitChange`; what it raises is logged.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        config: BreakerConfig | None = None,
        *,
        name: str = "breaker",
        registry: ProcessRegistry | None = None,
        owner: str = "",
        on_change: Callable[[CircuitChange], object] | None = None,
    ) -> None:
        config = BreakerConfig() if config is None else config
        if not isinstance(config, BreakerConfig):
            raise ConfigError("config", config, "a BreakerConfig is needed")
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
            hint = "1 to 64 letters, digits, '.', '_' or '-' are needed, the first a letter or digit"
            raise ConfigError("name", name, hint)
        if on_change is not None and (not callable(on_change) or inspect.iscoroutinefunction(on_change)):
            raise ConfigError("on_change", on_change, "a plain function of one CircuitChange is needed")
        self.config: BreakerConfig = config
        self.name: str = name
        self._registry = registry
        self._owner = owner
        self._on_change = on_change
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last = -math.inf
        self._core = Circuit(config, name, self._now())
        self._timed = config.slow_call is not None
        self._slow = math.inf if config.slow_call is None else config.slow_call
        self._timer: asyncio.TimerHandle | None = None
        self._judges_results: Callable[[Any], object] | None = config.record_result

    # ------------------------------------------------------------------------------------------ the clock

    def _now(self) -> float:
        loop = _running_loop()
        now = monotonic() if loop is None else loop.time()
        if loop is not self._loop:
            self._loop = loop
            if now < self._last:  # another loop, whose clock began anew: nothing has happened in between
                self._core.hasten(self._last - now)
        self._last = now
        return now

    # --------------------------------------------------------------------------------------- around calls

    async def __aenter__(self) -> Self:
        """Asks whether the block may run.

        Raises:
            CircuitOpen: it may not.

        Cancellation: never waits.
        """
        core = self._core
        token = core.epoch if core.passing else self._ask()
        _entered.set(_Entry(self, token, self._now() if self._timed else 0.0, _entered.get()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry = _entered.get()
        if entry is not None and entry.breaker is self:
            _entered.set(entry.outer)
        else:
            entry = self._entry_below(entry)
        self._came_back(entry.token, 0 if error is None else self._judge(error), entry.began)

    def __enter__(self) -> Self:
        core = self._core
        token = core.epoch if core.passing else self._ask()
        _entered.set(_Entry(self, token, self._now() if self._timed else 0.0, _entered.get()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        entry = _entered.get()
        if entry is not None and entry.breaker is self:
            _entered.set(entry.outer)
        else:
            entry = self._entry_below(entry)
        self._came_back(entry.token, 0 if error is None else self._judge(error), entry.began)

    def _entry_below(self, top: _Entry | None) -> _Entry:
        """Where blocks were not left in the reverse order, or by another task than the one that entered."""
        above, entry = top, None if top is None else top.outer
        while entry is not None and entry.breaker is not self:
            above, entry = entry, entry.outer
        if entry is None or above is None:  # entered in another context: its oldest probe, or nobody in particular
            core = self._core
            return _Entry(self, core.oldest(), self._now(), None)
        above.outer = entry.outer
        return entry

    @overload
    async def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    @overload
    async def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def call(self, function: Callable[P, Any], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Calls ``function``, awaits what it returns if that can be awaited, and returns the value.

        Args:
            function: what to call.
            args: its arguments.
            kwargs: its keyword arguments.

        Raises:
            CircuitOpen: it was not called.

        Cancellation: goes to the call, which then counts as nothing; a probe gives its permit back.
        """
        core = self._core
        token = core.epoch if core.passing else self._ask()
        began = self._now() if self._timed else 0.0
        try:
            value = function(*args, **kwargs)
            if type(value) is CoroutineType or hasattr(value, "__await__"):
                value = await value
        except BaseException as error:
            self._came_back(token, self._judge(error), began)
            raise
        self._returned(token, value, began)
        return value

    def __call__(self, function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorates a coroutine function: each of its calls goes through the breaker.

        Raises:
            ConfigError: it is no coroutine function.
        """
        if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - looked at, not tested for
        ):
            raise ConfigError("function", function, "a breaker decorates coroutine functions: async def")
        core = self._core

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
            token = core.epoch if core.passing else self._ask()
            began = self._now() if self._timed else 0.0
            try:
                value = await function(*args, **kwargs)
            except BaseException as error:
                self._came_back(token, self._judge(error), began)
                raise
            self._returned(token, value, began)
            return value

        return guarded

    def acquire(self) -> Permit:
        """Asks for one call that is made elsewhere; the permit takes its outcome.

        A permit that is never given back blocks a half-open breaker for ``probe_timeout`` at most.

        Raises:
            CircuitOpen: it may not be made.
        """
        core = self._core
        token = core.epoch if core.passing else self._ask()
        return Permit(self, token, self._now())

    def _ask(self) -> int:
        core = self._core
        loop = _running_loop()
        now = self._now() if loop is None or loop is not self._loop else loop.time()
        if now < core.refuses_until:  # refusing has to be quick
            core.refused += 1
            raise CircuitOpen(core.refuses_until - now, self.name, core.state)
        token = core.acquire(now)
        if core.changes:
            self._tell()
        if core.state is CircuitState.HALF_OPEN:
            self._arm()
        if not token:
            raise CircuitOpen(core.retry_after(now), self.name, core.state)
        return token

    def _judge(self, error: BaseException) -> int:
        if not isinstance(error, Exception):
            return IGNORED  # cancelled, interrupted, or thrown away
        config = self.config
        if config.ignore and _meant(config.ignore, error):
            return IGNORED
        return FAILED if _meant(config.record, error) else 0

    def _returned(self, token: int, value: object, began: float) -> None:
        judge = self._judges_results
        failed = judge is not None and judge(value)
        self._came_back(token, FAILED if failed else 0, began)

    def _came_back(self, token: int, mark: int, began: float) -> None:
        core = self._core
        if mark == IGNORED:
            core.give_back(token, self._now())
        elif self._timed:
            now = self._now()
            core.finish(token, mark | SLOW if now - began >= self._slow else mark, now)
        elif mark or not core.succeed(token):
            core.finish(token, mark, self._now())
        if core.changes:
            self._tell()

    # ------------------------------------------------------------------------------------ moves and timers

    def _tell(self) -> None:
        """Takes note of moves: timers of the state that was left die, and whoever wants to know is told."""
        core = self._core
        changes, core.changes = core.changes, []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._arm()
        registry, on_change = self._registry, self._on_change
        for change in changes:
            if registry is not None and registry.wants(CircuitChanged):
                registry.publish(
                    CircuitChanged(
                        id=self.name, owner=self._owner, old=change.old, new=change.new, reason=change.reason
                    )
                )
            if on_change is not None:
                try:
                    on_change(change)
                except Exception:  # noqa: BLE001 - isolation: whoever made the call has nothing to do with it
                    _log.exception("%s: on_change failed", self.name)

    def _arm(self) -> None:
        if self._timer is None and self._loop is not None and (due := self._core.next_due()) is not None:
            self._timer = self._loop.call_at(due, self._due, self._loop)

    def _due(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if loop is not self._loop:
            return
        now = self._now()
        self._core.settle(now)
        if self._core.changes:
            self._tell()
        else:
            self._arm()

    @property
    def state(self) -> CircuitState:
        """Where it stands. An open breaker whose time is over becomes half-open with the next call."""
        self._settle()
        return self._core.state

    def _settle(self) -> float:
        now = self._now()
        self._core.settle(now)
        if self._core.changes:
            self._tell()
        return now

    @property
    def retry_after(self) -> float:
        """Seconds until a call may pass, as far as can be told: 0 when one may, infinite when it is held open."""
        return self._core.retry_after(self._settle())

    def _to(self, new: CircuitState, reason: str) -> None:
        now = self._settle()
        if self._core.state is not new:
            self._core.move(new, now, reason)
            self._tell()

    def open(self, reason: str = "by hand") -> None:
        """Opens it, as if a limit had been reached; after ``open_for`` seconds it lets probes pass."""
        self._to(CircuitState.OPEN, reason)

    def half_open(self, reason: str = "by hand") -> None:
        """Lets probes pass now.

        Raises:
            InvalidTransition: it is held by hand in another state.
        """
        self._to(CircuitState.HALF_OPEN, reason)

    def close(self, reason: str = "by hand") -> None:
        """Closes it, with clean figures."""
        self._to(CircuitState.CLOSED, reason)

    def reset(self, reason: str = "reset") -> None:
        """Closes it and forgets all figures of its window, whatever it is."""
        self._core.reset(self._settle(), reason)
        if self._core.changes:
            self._tell()

    def force_open(self, reason: str = "by hand") -> None:
        """Refuses all calls until told otherwise."""
        self._to(CircuitState.FORCED_OPEN, reason)

    def force_closed(self, reason: str = "by hand") -> None:
        """Lets all calls pass until told otherwise; the figures are kept."""
        self._to(CircuitState.FORCED_CLOSED, reason)

    def metrics_only(self, reason: str = "by hand") -> None:
        """Lets all calls pass until told otherwise; the statistics say which limit would have been reached."""
        self._to(CircuitState.METRICS_ONLY, reason)

    def disable(self, reason: str = "by hand") -> None:
        """Lets all calls pass until told otherwise, and counts nothing."""
        self._to(CircuitState.DISABLED, reason)

    def statistics(self) -> BreakerStatistics:
        """Figures of this moment."""
        now = self._settle()
        core = self._core
        calls, failed, slow = core.figures(now)
        judged = calls >= core.enough
        return BreakerStatistics(
            name=self.name,
            state=core.state,
            since=max(0.0, now - core.since),
            calls=calls,
            failure_rate=failed / calls if judged and calls else None,
            slow_rate=slow / calls if judged and calls else None,
            exceeded=core.exceeded(now),
            succeeded=core.succeeded,
            failed=core.failed,
            slow=core.slow,
            refused=core.refused,
            given_back=core.given_back,
            stale=core.stale,
            retry_after=core.retry_after(now),
        )

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name} {self._core.state}>"


def _meant(matcher: Any, error: Exception) -> bool:
    if type(matcher) is tuple:
        return isinstance(error, matcher)
    return bool(matcher(error))
