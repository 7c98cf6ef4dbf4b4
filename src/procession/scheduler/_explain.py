"""Why a task waits, in data and as a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from procession.scheduler._resources import SLOTS
from procession.scheduler._states import FINAL, TaskState

if TYPE_CHECKING:
    from procession.scheduler._entry import Entry
    from procession.scheduler._lives import Lives


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a task stands and what it waits for.

    Attributes:
        id: the task.
        state: where it stands.
        position: how many are before it in the queue; ``None`` when it is not in the queue.
        ahead: the ids of the first few of them.
        lacking: resources it could not have now, by name: (needed, free). The name of a place to run is ``slots``.
        reserved_start: loop time at which it can start at the latest, if estimates hold; for the first in the queue.
        due: loop time until which it is delayed or waits to be tried again.
        after: ids of unfinished tasks that have to succeed first.
        overtaken: how often it was passed by others while it was the first.
        at: loop time of this answer.
    """

    id: str
    state: TaskState
    position: int | None = None
    ahead: tuple[str, ...] = ()
    lacking: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    reserved_start: float | None = None
    due: float | None = None
    after: tuple[str, ...] = ()
    overtaken: int = 0
    at: float = 0.0

    def __str__(self) -> str:
        return f"{self.id} {self._why()}."

    def _why(self) -> str:
        if self.state is TaskState.BLOCKED:
            return "comes after " + ", ".join(self.after)
        if self.state in (TaskState.DELAYED, TaskState.RETRYING) and self.due is not None:
            what = "is delayed" if self.state is TaskState.DELAYED else "failed and is tried again"
            return f"{what}, due in {max(0.0, self.due - self.at):.3f} s"
        if self.position is None:
            return f"is {self.state}"
        what = "is suspended and waits to go on" if self.state is TaskState.SUSPENDED else "waits"
        parts = [f"{what} as number {self.position + 1} in the queue"]
        if self.ahead:
            more = self.position - len(self.ahead)
            parts.append("behind " + ", ".join(self.ahead) + (f" and {more} more" if more else ""))
        if self.lacking:
            parts.append("lacking " + ", ".join(_lack(name, *pair) for name, pair in self.lacking.items()))
        if self.reserved_start is not None:
            parts.append(f"to start within {max(0.0, self.reserved_start - self.at):.3f} s")
        if self.overtaken:
            parts.append(f"passed {self.overtaken} times")
        return ", ".join(parts)


def _lack(name: str, needed: float, free: float) -> str:
    return "a free slot" if name == SLOTS else f"{name} ({needed:g} needed, {free:g} free)"


def explain(lives: Lives, entry: Entry, now: float) -> Explanation:
    """Says why ``entry`` waits."""
    dispatcher = lives.dispatcher
    if entry.state in FINAL or entry.lane is None:
        return Explanation(
            id=entry.id,
            state=entry.state,
            due=lives.due_at(entry),
            after=tuple(sorted(one.id for one in lives.blockers(entry))),
            at=now,
        )
    position, ahead = dispatcher.queue.ahead_of(entry)
    lacking = dispatcher.resources.lacking(entry.shape.need)
    reserved = dispatcher.reservation(entry, now) if not position and lacking else None
    return Explanation(
        id=entry.id,
        state=entry.state,
        position=position,
        ahead=tuple(one.id for one in ahead),
        lacking=lacking,
        reserved_start=None if reserved is None else reserved.at,
        overtaken=dispatcher.overtaken(entry),
        at=now,
    )
