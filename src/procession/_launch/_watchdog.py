"""The deadline of spawns: one timer per loop for the oldest of them, not one per spawn."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import Any

from procession._launch import _spawner
from procession.errors import SpawnError, SpawnFailure


class Watchdog:
    """Fails spawns that the kernel does not answer in time."""

    __slots__ = ("_jobs", "_loop", "_timeout", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop = weakref.ref(loop)
        self._timeout = timeout
        self._jobs: deque[tuple[float, _spawner.Job[Any]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, job: _spawner.Job[Any]) -> None:
        """From now on ``job`` has its time."""
        jobs = self._jobs
        while jobs and jobs[0][1].future.done():
            jobs.popleft()
        deadline = job.loop.time() + self._timeout
        jobs.append((deadline, job))
        if self._timer is None:
            self._timer = job.loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._timer = None
        loop = self._loop()
        if loop is None:
            return
        now = loop.time()
        jobs = self._jobs
        while jobs and (jobs[0][1].future.done() or jobs[0][0] <= now):
            _, job = jobs.popleft()
            if not job.future.done():
                _too_late(job)
        if jobs:
            self._timer = loop.call_at(jobs[0][0], self._ring)


def _too_late(job: _spawner.Job[Any]) -> None:
    """What the kernel makes later is ended by the job's ``dispose``."""
    spawner = _spawner.spawner()
    if spawner.withdraw(job):
        job.dispose(None)
    elif job.state == "running":
        spawner.add_thread()  # the others must not wait behind it
    job.future.set_exception(SpawnError.of(SpawnFailure.TIMEOUT, job.command))
