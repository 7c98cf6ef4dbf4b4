"""Where a suspended task waits: the chain of awaits from its coroutine down to what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_INSIDE = str(Path(asyncio.__file__).parent)


@dataclass(frozen=True, slots=True)
class WaitingTask:
    """A task that waits.

    Attributes:
        name: the task's name.
        stack: ``file:line in function`` of every await on the way, outermost first, without asyncio's own.
    """

    name: str
    stack: tuple[str, ...]

    @property
    def where(self) -> str:
        """The innermost place outside of asyncio."""
        return self.stack[-1] if self.stack else "a place outside of Python code"

    def __str__(self) -> str:
        return f"{self.name} waits at {self.where}"


def await_stack(coroutine: object) -> tuple[str, ...]:
    """The places where ``coroutine`` is suspended, outermost first, without asyncio's own."""
    frames = list(_frames(coroutine))
    users = [frame for frame in frames if not frame.f_code.co_filename.startswith(_INSIDE)]
    return tuple(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}" for frame in users or frames)


def waiting_tasks(tasks: Iterable[asyncio.Task[Any]]) -> tuple[WaitingTask, ...]:
    """Describes the tasks that are not done, by name."""
    waiting = [WaitingTask(task.get_name(), await_stack(task.get_coro())) for task in tasks if not task.done()]
    return tuple(sorted(waiting, key=lambda task: task.name))


def _frames(coroutine: object) -> Iterator[FrameType]:
    current: object = coroutine
    while current is not None:
        frame = _first(current, "cr_frame", "gi_frame", "ag_frame")
        if isinstance(frame, FrameType):
            yield frame
        current = _first(current, "cr_await", "gi_yieldfrom", "ag_await")


def _first(thing: object, *names: str) -> object:
    for name in names:
        value: object = getattr(thing, name, None)
        if value is not None:
            return value
    return None
