"""What the pure core knows of one task: a slotted record, small enough to queue a million of."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from procession.scheduler._states import TaskState

if TYPE_CHECKING:
    from procession.scheduler._queue import Lane
    from procession.scheduler._resources import Shape
    from procession.scheduler._spec import Spec

NANO = 1_000_000_000


class Entry:
    """One task as queue, policies and decisions see it.

    Attributes:
        number: 1, 2, 3 … in the order of submission; breaks ties.
        priority: the smaller number is more urgent.
        whole: what it needs to run.
        shape: what it needs next: the whole, or, while it is suspended, only what it gave back.
        holds: what it has taken and not given back, packed.
        rank: its place within its lane, an integer fixed while it waits; nanoseconds where it is a time.
        slot: names its lane among those of its shape.
        lane: the lane it waits in; ``None`` while it does not wait.
        mark: whatever its policy wants to remember about it.
        state: where it stands.
        estimate: how long a run is expected to take, in seconds, or ``None``.
        queued_at: loop time when it began to wait for its turn, kept when it comes back; below 0 before.
        started_at: loop time when the present run or stretch of it began.
        ran: seconds the present attempt has run, suspensions left out, up to ``started_at``.
        attempts: how often it was started from the beginning.
        preemptions: how often it had to make room.
        spec: the options few tasks have.
    """

    __slots__ = (
        "attempts",
        "estimate",
        "holds",
        "lane",
        "mark",
        "number",
        "preemptions",
        "priority",
        "queued_at",
        "ran",
        "rank",
        "shape",
        "slot",
        "spec",
        "started_at",
        "state",
        "whole",
    )

    def __init__(self, number: int, priority: int, shape: Shape, spec: Spec, estimate: float | None = None) -> None:
        self.number: int = number
        self.priority: int = priority
        self.whole: Shape = shape
        self.shape: Shape = shape
        self.holds: int = 0
        self.spec: Spec = spec
        self.estimate: float | None = estimate
        self.rank: int = 0
        self.slot: Hashable = priority
        self.lane: Lane | None = None
        self.mark: Any = None
        self.state: TaskState = TaskState.NEW
        self.queued_at: float = -1.0
        self.started_at: float = 0.0
        self.ran: float = 0.0
        self.attempts: int = 0
        self.preemptions: int = 0

    @property
    def id(self) -> str:
        """Its name: the one it was given, or ``"task-7"``."""
        return self.spec.id or f"task-{self.number}"

    @property
    def tenant(self) -> str:
        """On whose behalf it runs; empty when nobody said."""
        return self.spec.tenant

    @property
    def deadline(self) -> float | None:
        """Loop time by which it is to have been started, or ``None``."""
        return self.spec.deadline

    def _lighten(self) -> None:
        """Keeps its fate, not what was needed to get there: least of all those before it, with theirs."""
        spec = self.spec
        if spec.after or spec.kwargs or spec.input is not None or spec.on_spawn is not None:
            self.spec = replace(spec, after=(), kwargs={}, input=None, on_spawn=None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state} priority={self.priority}>"
