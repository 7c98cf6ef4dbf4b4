"""Stopping one process: one stop at a time, shared by everybody who asks, told to the registry."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from procession._core.aio import Latch, finish
from procession._launch._ending import KILL_BOUND, Ending, end_tree
from procession._types import ProcessState, StopReport
from procession.errors import InvalidTransition

if TYPE_CHECKING:
    from procession.abc import Entry, ProcessHandle
    from procession.command import Command


_BEING_STOPPED = (ProcessState.STOPPING, ProcessState.UNKILLABLE)


class Stopper:
    """Ends one tree. Created at the first wish to do so."""

    def __init__(self, handle: ProcessHandle, entry: Entry, command: Command, id: str) -> None:
        self._handle = handle
        self._entry = entry
        self._command = command
        self._id = id
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[StopReport] | None = None
        self._hurry: Latch | None = None
        self._deadline = 0.0
        self.report: StopReport | None = None

    async def stop(self, grace: float, *, kill_bound: float = KILL_BOUND) -> StopReport:
        """Stops the tree, or joins the stop under way and hurries it when ``grace`` ends earlier.

        Cancellation: absorbed until the stop is over, then raised.
        """
        task = self.begin(grace, kill_bound=kill_bound)
        return await finish(_join(task))

    def begin(self, grace: float, *, whole: bool = True, kill_bound: float = KILL_BOUND) -> asyncio.Task[StopReport]:
        """The same without waiting. ``whole=False`` leaves alone what has left the process group."""
        now = self._loop.time()
        if self._task is None or self._task.done():
            if self._handle.exit is None and self._entry.state not in _BEING_STOPPED:
                self._entry.to(ProcessState.STOPPING, "stop")
            self._hurry = Latch(loop=self._loop)
            self._deadline = now + grace
            self._task = self._loop.create_task(self._run(grace, whole, kill_bound))
        elif now + grace < self._deadline and self._hurry is not None:
            self._deadline = now + grace
            timer = self._loop.call_later(grace, self._hurry.open)
            self._task.add_done_callback(lambda _: timer.cancel())
        return self._task

    @property
    def task(self) -> asyncio.Task[StopReport] | None:
        """The stop under way or over."""
        return self._task

    async def _run(self, grace: float, whole: bool, kill_bound: float) -> StopReport:
        began = self._loop.time()
        was = self.report
        ending = await end_tree(
            self._handle,
            stop_signal=self._command.stop_signal,
            grace=grace,
            hurry=self._hurry,
            whole=whole,
            kill_bound=kill_bound,
        )
        if self._handle.exit is None:
            try:
                self._entry.to(ProcessState.UNKILLABLE, f"alive {kill_bound:g} s after SIGKILL")
            except InvalidTransition:
                pass  # it was found unkillable before
        report = self._report(ending, self._loop.time() - began)
        if was is not None and not ending.signalled and self._handle.exit is not None and not ending.survived:
            return was  # a second look found nothing to do: the first report stands
        self.report = report
        self._entry.stopped(report)
        return report

    def _report(self, ending: Ending, duration: float) -> StopReport:
        return StopReport(
            id=self._id,
            rung=self._handle.containment,
            signalled=tuple(ending.signalled),
            members=len(ending.seen),
            escaped=tuple(ending.escaped.values()),
            survived=tuple(ending.survived),
            verified=ending.verified,
            forced=ending.forced,
            duration=duration,
            exit=self._handle.exit,
        )


async def _join(task: asyncio.Task[StopReport]) -> StopReport:
    return await task
