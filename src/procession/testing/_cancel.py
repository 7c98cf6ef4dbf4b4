"""Cancel a scenario at every one of its suspension points, and see that it always ends well."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from procession._clock import monotonic
from procession.testing._virtual import VirtualLoop, VirtualTimeError
from procession.testing._where import await_stack
from procession.testing.audit import LeakAudit

_PATIENCE = 1.0
"""Seconds a hung scenario gets to end after the verdict, so that it does not spoil what runs next."""


class CancelMode(StrEnum):
    """How the cancellation comes.

    ``ONCE`` at the moment of the suspension; ``TWICE`` likewise, and again at the next suspension, which is in the
    clean-up; ``LATE`` one turn of the loop after the suspension, when what is waited for may have come already.
    """

    ONCE = "once"
    TWICE = "twice"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class CancelRun:
    """One run of the scenario.

    Attributes:
        point: at which suspension it was cancelled, counted from 1; 0 for the run without a cancellation.
        mode: how.
        where: ``file:line in function`` of that suspension.
        outcome: ``"cancelled"``, ``"completed"``, or the name of a permitted exception.
        suspensions: how many suspensions it made in all.
        duration: real seconds it took.
    """

    point: int
    mode: CancelMode
    where: str
    outcome: str
    suspensions: int
    duration: float


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What ``cancel_everywhere`` did.

    Attributes:
        points: the highest suspension at which a run was cancelled.
        runs: every run, the one without a cancellation first.
    """

    points: int
    runs: tuple[CancelRun, ...]

    @property
    def outcomes(self) -> Counter[str]:
        """How many of the cancelled runs ended in which way."""
        return Counter(run.outcome for run in self.runs if run.point)

    def __str__(self) -> str:
        ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items())) or "none cancelled"
        return f"{self.points} suspension points, {len(self.runs)} runs: {ends}"


class CancelFailure(AssertionError):
    """A cancelled scenario did not end well.

    Attributes:
        run: the run at fault; its ``outcome`` says what went wrong.
        problem: the same, at length.
    """

    def __init__(self, run: CancelRun, problem: str) -> None:
        super().__init__(run, problem)
        self.run = run
        self.problem = problem

    def __str__(self) -> str:
        when = f"cancelled ({self.run.mode}) at suspension {self.run.point}" if self.run.point else "not cancelled"
        return f"{when}, {self.run.where or 'nowhere'}: {self.problem}"


class _Driven(Coroutine[Any, Any, Any]):
    """Drives a coroutine, counts its suspensions, and has its task cancelled at one of them."""

    def __init__(self, inner: Coroutine[Any, Any, Any], point: int, mode: CancelMode) -> None:
        self._inner = inner
        self._point = point
        self._mode = mode
        self.task: asyncio.Task[Any] | None = None
        self.suspensions = 0
        self.where = ""

    def send(self, value: Any) -> Any:
        return self._suspended(self._inner.send(value))

    def throw(self, *error: Any) -> Any:
        return self._suspended(self._inner.throw(*error))

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Any:
        raise TypeError("driven by its task only")

    def __getattr__(self, name: str) -> Any:  # cr_frame, cr_await, __qualname__: for those who show where a task waits
        return getattr(self._inner, name)

    @property
    def reached(self) -> bool:
        """Whether the point came."""
        return 0 < self._point <= self.suspensions

    def _suspended(self, awaited: Any) -> Any:
        self.suspensions += 1
        task = self.task
        assert task is not None
        if self.suspensions == self._point:
            stack = await_stack(self._inner)
            self.where = stack[-1] if stack else ""
            if self._mode is CancelMode.LATE:
                task.get_loop().call_soon(task.cancel)
            else:
                task.cancel()
        elif self.suspensions == self._point + 1 and self._mode is CancelMode.TWICE and self._point:
            task.cancel()
        return awaited


class _Hung(Exception):
    """The scenario did not end in time."""


def cancel_everywhere(
    scenario: Callable[[], Coroutine[Any, Any, Any]],
    *,
    check: Callable[[], Awaitable[None] | None] | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    limit: float = 10.0,
    modes: tuple[CancelMode, ...] = tuple(CancelMode),
    allow: tuple[type[BaseException], ...] = (),
    audit: bool = True,
    max_points: int = 10_000,
) -> CancelReport:
    """Runs ``scenario`` once as it is, then again and again, cancelled at its 1st, 2nd, 3rd … suspension.

    Each run has a loop of its own. A suspension is counted whenever the scenario's own task gives way to the loop,
    in its clean-up too; nothing is patched. As real processes make the number vary, it goes on until a run ends
    before its point came.

    Args:
        scenario: makes a fresh coroutine each time.
        check: called after every run, the first included; an ``async`` one inside the run's loop.
        loop_factory: makes the loops, for example ``uvloop.new_event_loop`` or ``VirtualLoop``; default: asyncio's.
        limit: seconds within which a run must end. On a ``VirtualLoop`` its own errors take this part.
        modes: how to cancel; each point is tried in every mode.
        allow: exceptions that may come out instead, for a scenario that answers a cancellation with an error.
        audit: look for leaks around every run.
        max_points: more than so many points are an error.

    Returns:
        What was done, for assertions such as ``report.points > 10``.

    Raises:
        CancelFailure: a cancelled run hung, raised something else, swallowed the loop's life, left something
            behind, or failed the check (the check's own error is its cause).
        RuntimeError: called where a loop runs already.

    An exception of the run without a cancellation comes out as it is.
    """
    factory = loop_factory or asyncio.SelectorEventLoop
    factory().close()  # some loops open something for good the first time
    runner = _Runner(scenario, check, factory, limit, allow, audit)
    runs = [runner.run(0, CancelMode.ONCE)[0]]
    points = 0
    for mode in modes:
        for point in range(1, max_points + 2):
            if point > max_points:
                raise CancelFailure(runs[-1], f"more than {max_points} suspension points")
            run, reached = runner.run(point, mode)
            if not reached:
                break
            runs.append(run)
            points = max(points, point)
    return CancelReport(points, tuple(runs))


@dataclass(frozen=True, slots=True)
class _Runner:
    scenario: Callable[[], Coroutine[Any, Any, Any]]
    check: Callable[[], Awaitable[None] | None] | None
    factory: Callable[[], asyncio.AbstractEventLoop]
    limit: float
    allow: tuple[type[BaseException], ...]
    audit: bool

    def run(self, point: int, mode: CancelMode) -> tuple[CancelRun, bool]:
        driven = _Driven(self.scenario(), point, mode)
        audit = LeakAudit.start() if self.audit else None
        began = monotonic()

        def told(outcome: str) -> CancelRun:
            return CancelRun(point, mode, driven.where, outcome, driven.suspensions, monotonic() - began)

        loop = self.factory()
        try:
            try:
                outcome = loop.run_until_complete(self._drive(driven, audit))
            finally:
                _close(loop)
        except BaseException as error:
            if audit is not None:
                audit.finish(settle=0)
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if not driven.reached and not isinstance(error, _Hung):
                raise
            hung = isinstance(error, _Hung | VirtualTimeError)
            problem = f"it hung: {error}" if hung else f"{type(error).__name__}: {error}"
            raise CancelFailure(told("hung" if hung else type(error).__name__), problem) from error
        leaks = [] if audit is None else audit.finish()
        if leaks:
            raise CancelFailure(told("leaked"), "it left behind:" + "".join(f"\n  - {leak}" for leak in leaks))
        if self.check is not None and not inspect.iscoroutinefunction(self.check):
            self._checked(told, driven.reached, self.check)
        return told(outcome), driven.reached

    async def _drive(self, driven: _Driven, audit: LeakAudit | None) -> str:
        loop = asyncio.get_running_loop()
        if audit is not None:
            audit.watch_loop(loop)
        task = driven.task = loop.create_task(driven, name="scenario")
        bound = None if isinstance(loop, VirtualLoop) else self.limit
        await asyncio.wait((task,), timeout=bound)
        if not task.done():
            where = "\n  ".join(await_stack(driven))
            task.cancel()
            await asyncio.wait((task,), timeout=_PATIENCE)
            raise _Hung(f"not done after {self.limit:g} s, waiting at\n  {where}")
        outcome = "completed"
        try:
            task.result()
        except asyncio.CancelledError:
            if not driven.reached:
                raise _Unasked("it raised CancelledError though nobody had cancelled it") from None
            outcome = "cancelled"
        except self.allow as error:
            if not driven.reached:
                raise
            outcome = type(error).__name__
        if self.check is not None and inspect.iscoroutinefunction(self.check):
            await self.check()
        if audit is not None:
            await audit.settle_tasks()
        return outcome

    def _checked(self, told: Callable[[str], CancelRun], reached: bool, check: Callable[[], Any]) -> None:
        try:
            check()
        except Exception as error:
            if not reached:
                raise
            raise CancelFailure(told("check failed"), f"the check failed: {error}") from error


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Closes the loop as ``asyncio.run`` does, but gives up on a task that will not end."""
    try:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            with contextlib.suppress(VirtualTimeError):
                loop.run_until_complete(asyncio.wait(left, timeout=_PATIENCE))
        for task in left:
            if task.done() and not task.cancelled():
                task.exception()  # seen: the verdict is another one
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


class _Unasked(RuntimeError):
    """A cancellation out of nowhere."""
