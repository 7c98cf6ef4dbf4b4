"""Keeps one process tree stopped or going, whatever was wanted last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from procession.errors import InvalidTransition

if TYPE_CHECKING:
    from procession.process import Process


class Freezer:
    """Suspends and resumes one tree. The group is signalled at once; what has left it is looked for off the loop.

    Looking takes some milliseconds, and a wish may change meanwhile: then the last one is carried out, so that no late
    SIGSTOP can hit what was continued since.
    """

    def __init__(self, process: Process, tasks: set[asyncio.Task[None]]) -> None:
        self._process = process
        self._tasks = tasks
        self._frozen = False
        self._done = False
        self._busy = False

    def set(self, *, frozen: bool) -> None:
        """Suspends or resumes it."""
        self._frozen = frozen
        try:
            reach = self._process.suspend() if frozen else self._process.resume()
        except (ProcessLookupError, InvalidTransition):
            return  # it has ended, or is being stopped for good
        del reach  # the group has had its signal; the rest of the tree follows
        if not self._busy:
            self._busy = True
            task = asyncio.get_running_loop().create_task(self._follow())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        try:
            while self._done is not self._frozen:
                wanted = self._frozen
                try:
                    await (self._process.suspend() if wanted else self._process.resume())
                except (ProcessLookupError, InvalidTransition):
                    return
                self._done = wanted
        finally:
            self._busy = False
