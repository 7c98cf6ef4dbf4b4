"""Keeps one process tree stopped or going, whatever was wanted last."""

from __future__ import annotations

import asyncio
import signal
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
        self._left = False

    def set(self, *, frozen: bool) -> None:
        """Suspends or resumes it."""
        self._frozen = frozen
        try:
            reach = self._process.suspend() if frozen else self._process.resume()
        except (OSError, InvalidTransition):
            return  # it has ended, is being stopped for good, or is another user's by now and goes on
        del reach  # the group has had its signal; the rest of the tree follows
        self._begin()

    def leave(self) -> None:
        """Its process has ended. What had left its group lives on, as it would have otherwise: not stopped for ever."""
        if self._frozen or self._done or self._busy:
            self._frozen, self._left = False, True
            self._begin()

    def _begin(self) -> None:
        if not self._busy:
            self._busy = True
            task = asyncio.get_running_loop().create_task(self._follow())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _follow(self) -> None:
        try:
            while self._done is not self._frozen and not self._left:
                wanted = self._frozen
                try:
                    await (self._process.suspend() if wanted else self._process.resume())
                except (OSError, InvalidTransition):
                    break
                self._done = wanted
            if self._left:
                for member in await self._process._handle.members():
                    member.send_signal(signal.SIGCONT)
                    member.close()
        finally:
            self._busy = False
