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


# A member of an enumeration is slow to look up on its class (Python 3.11), and these are looked up for every task.
NEW = TaskState.NEW
BLOCKED = TaskState.BLOCKED
DELAYED = TaskState.DELAYED
QUEUED = TaskState.QUEUED
RUNNING = TaskState.RUNNING
SUSPENDED = TaskState.SUSPENDED
STOPPING = TaskState.STOPPING
RETRYING = TaskState.RETRYING
SUCCEEDED = TaskState.SUCCEEDED
FAILED = TaskState.FAILED
CANCELLED = TaskState.CANCELLED
MISSED = TaskState.MISSED

TASK_MOVES: Transitions[TaskState] = Transitions(
    initial=NEW,
    final=(SUCCEEDED, FAILED, CANCELLED, MISSED),
    moves={
        NEW: (BLOCKED, DELAYED, QUEUED),
        BLOCKED: (DELAYED, QUEUED, FAILED, CANCELLED, MISSED),
        DELAYED: (QUEUED, CANCELLED, MISSED),
        QUEUED: (RUNNING, CANCELLED, MISSED),
        # A suspended process can be ended from outside, so it has the same ways out as a running one.
        RUNNING: (SUSPENDED, STOPPING, RETRYING, SUCCEEDED, FAILED, CANCELLED),
        SUSPENDED: (RUNNING, STOPPING, RETRYING, SUCCEEDED, FAILED, CANCELLED),
        # What is asked to stop may still end by itself first; what was preempted goes back to the queue.
        STOPPING: (QUEUED, RETRYING, SUCCEEDED, FAILED, CANCELLED),
        RETRYING: (QUEUED, CANCELLED, MISSED),
    },
)
"""Every move a task can make; anything else raises ``InvalidTransition``."""

FINAL = TASK_MOVES.final
_MOVES = TASK_MOVES.moves


def move(entry: Entry, new: TaskState) -> None:
    """Moves a task by one step.

    Raises:
        InvalidTransition: the table does not allow it.
    """
    old = entry.state
    if new not in _MOVES.get(old, ()):
        raise InvalidTransition(entry.id, old, new)
    entry.state = new
