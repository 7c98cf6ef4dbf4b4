"""Where a task stands, and the one table of the moves it can make."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from procession._core.machine import Transitions
from procession.errors import InvalidTransition

if TYPE_CHECKING:
    from procession.scheduler._entry import Entry


class TaskState(StrEnum):
    """Where a task stands in its life. The moves between states are in ``TASK_MOVES``."""

    NEW = "new"
    BLOCKED = "blocked"
    DELAYED = "delayed"
    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSED = "missed"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL


_S = TaskState

TASK_MOVES: Transitions[TaskState] = Transitions(
    initial=_S.NEW,
    final=(_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.MISSED),
    moves={
        _S.NEW: (_S.BLOCKED, _S.DELAYED, _S.QUEUED),
        _S.BLOCKED: (_S.DELAYED, _S.QUEUED, _S.FAILED, _S.CANCELLED, _S.MISSED),
        _S.DELAYED: (_S.QUEUED, _S.CANCELLED, _S.MISSED),
        _S.QUEUED: (_S.RUNNING, _S.CANCELLED, _S.MISSED),
        # A suspended process can be ended from outside, so it has the same ways out as a running one.
        _S.RUNNING: (_S.SUSPENDED, _S.STOPPING, _S.RETRYING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED),
        _S.SUSPENDED: (_S.RUNNING, _S.STOPPING, _S.RETRYING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED),
        # What is asked to stop may still end by itself first; what was preempted goes back to the queue.
        _S.STOPPING: (_S.QUEUED, _S.RETRYING, _S.SUCCEEDED, _S.FAILED, _S.CANCELLED),
        _S.RETRYING: (_S.QUEUED, _S.CANCELLED, _S.MISSED),
    },
)
"""Every move a task can make; anything else raises ``InvalidTransition``."""

FINAL = TASK_MOVES.final
_MOVES = TASK_MOVES.moves


def move(entry: Entry, new: TaskState) -> None:
    """Moves a task; the only mutator of its state. ``epoch`` counts the moves, to tell stale timers apart.

    Raises:
        InvalidTransition: the table does not allow it.
    """
    old = entry.state
    if new not in _MOVES.get(old, ()):
        raise InvalidTransition(entry.id, old, new)
    entry.state = new
    entry.epoch += 1
