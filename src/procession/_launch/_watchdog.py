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

    __slots__ = ("_armed", "_jobs", "_loop", "_timeout")

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout: float) -> None:
        self._loop = weakref.ref(loop)
        self._timeout = timeout
        # Weak, and no timer kept: a job and a timer hold the loop, which would then never be forgotten.
        self._jobs: deque[tuple[float, weakref.ref[_spawner.Job[Any]]]] = deque()
        self._armed = False

    def watch(self, job: _spawner.Job[Any]) -> None:
        """From now on ``job`` has its time."""
        jobs = self._jobs
        while jobs and _is_over(jobs[0][1]()):
            jobs.popleft()
        deadline = job.loop.time() + self._timeout
        jobs.append((deadline, weakref.ref(job)))
        if not self._armed:
            self._armed = True
            job.loop.call_at(deadline, self._ring)

    def _ring(self) -> None:
        self._armed = False
        loop = self._loop()
        if loop is None:
            return
        now = loop.time()
        jobs = self._jobs
        while jobs:
            deadline, ref = jobs[0]
            job = ref()
            if job is not None and not job.future.done():
                if deadline > now:
                    self._armed = True
                    loop.call_at(deadline, self._ring)
                    return
                _too_late(job)
            jobs.popleft()


def _is_over(job: _spawner.Job[Any] | None) -> bool:
    return job is None or job.future.done()


def _too_late(job: _spawner.Job[Any]) -> None:
    """What the kernel makes later is ended by the job's ``dispose``."""
    spawner = _spawner.spawner()
    if spawner.withdraw(job):
        job.dispose(None)
    elif job.state == "running":
        spawner.relieve()  # the others must not wait behind it
    job.future.set_exception(SpawnError.of(SpawnFailure.TIMEOUT, job.command))
