"""Events into spans: who ran from when to when, and how it ended. Pure; timeline and trace are made from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from typing import Protocol

from procession._types import Exit, ProcessState
from procession.events import Event, Gap, ProcessExited, ProcessSpawned, StateChanged


class Outcome(StrEnum):
    """How a process ended, as its owner sees it.

    ``STOPPED`` and ``FORCED`` were asked for: it gave way to the stop signal, or SIGKILL was needed. ``KILLED`` was
    not: a signal ended it that came from elsewhere, or from itself.
    """

    SUCCESS = "success"
    FAILURE = "failure"
    STOPPED = "stopped"
    FORCED = "forced"
    KILLED = "killed"
    LOST = "lost"
    REFUSED = "refused"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened to a process at one moment."""

    at: float
    kind: str
    text: str


@dataclass(slots=True)
class Span:
    """The life of one process, as far as the events tell it. ``end`` is ``None`` while it lives."""

    id: str
    start: float
    name: str = ""
    group: str = ""
    owner: str = ""
    pid: int = 0
    command: str = ""
    contained: str = ""
    spawning: float = 0.0
    end: float | None = None
    outcome: Outcome = Outcome.LIVE
    ended: str = ""
    marks: list[Mark] = field(default_factory=list)


class Known(Protocol):
    """What is looked up beside the events: a ``ProcessRecord`` has it."""

    @property
    def name(self) -> str:
        """A name for people."""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the command."""


def spans(events: Iterable[Event], known: Mapping[str, Known], label: str | None = None) -> list[Span]:
    """The processes the events tell of, in the order of their start.

    An id that was used again gives one span per use. When the journal has lost the beginning of a process, its
    start is worked out from its end.

    Args:
        events: oldest first.
        known: records by id, for names and labels; may be incomplete.
        label: group by this label; processes without it, and all by default, by owner.
    """
    done: list[Span] = []
    open_: dict[str, Span] = {}
    stopping: set[str] = set()

    def begin(event: Event, start: float) -> Span:
        span = open_[event.id] = Span(event.id, start, owner=event.owner)
        stopping.discard(event.id)
        done.append(span)
        return span

    for event in events:
        span = open_.get(event.id)
        if isinstance(event, ProcessSpawned):
            span = begin(event, event.at - event.duration)
            span.name, span.pid, span.command = event.name, event.pid, event.command
            span.contained, span.spawning = str(event.containment), event.duration
            if event.adopted:
                span.marks.append(Mark(event.at, "adopted", "adopted"))
        elif isinstance(event, ProcessExited):
            span = span or begin(event, event.at - event.uptime)
            span.pid, span.end, span.ended = event.pid, event.at, str(event.exit)
            span.outcome = _outcome(event.exit, asked=event.id in stopping)
            del open_[event.id]
        elif isinstance(event, StateChanged):
            if event.new == ProcessState.FAILED and event.old == ProcessState.STARTING:
                span = begin(event, event.at)
                span.end, span.outcome, span.ended = event.at, Outcome.REFUSED, f"not started: {event.reason}"
                del open_[event.id]
            elif event.id in known or span is not None:
                span = span or begin(event, event.at)
                kind = "resumed" if (event.old, event.new) == ("suspended", "running") else event.new
                span.marks.append(Mark(event.at, kind, event.reason))
                if event.new == ProcessState.STOPPING:
                    stopping.add(event.id)
        elif span is not None and not isinstance(event, Gap):
            span.marks.append(Mark(event.at, type(event).__name__, ""))
    for span in done:
        record = known.get(span.id)
        labels = {} if record is None else record.labels
        span.name = span.name or ("" if record is None else record.name) or span.id
        span.group = (labels.get(label) if label is not None else None) or span.owner or "(no owner)"
    return sorted(done, key=lambda span: span.start)


def _outcome(exit: Exit, *, asked: bool) -> Outcome:
    if exit.is_lost:
        return Outcome.LOST
    if asked:
        return Outcome.FORCED if exit.returncode == -9 else Outcome.STOPPED
    if exit.signal is not None:
        return Outcome.KILLED
    return Outcome.SUCCESS if exit.is_success else Outcome.FAILURE


def groups(found: Iterable[Span]) -> dict[str, list[Span]]:
    """The spans by group, groups in the order of their first start."""
    by_group: dict[str, list[Span]] = {}
    for span in found:
        by_group.setdefault(span.group, []).append(span)
    return by_group


def lanes(found: Iterable[Span], until: float) -> list[int]:
    """A row for each span, in the same order, so that no two of a row overlap; as few rows as can be.

    Args:
        found: in the order of their start.
        until: where living ones end.
    """
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    result = []
    for span in found:
        while busy and busy[0][0] <= span.start:
            heappush(free, heappop(busy)[1])
        lane = heappop(free) if free else len(busy)
        heappush(busy, (until if span.end is None else span.end, lane))
        result.append(lane)
    return result


def concurrency(found: Iterable[Span]) -> list[tuple[float, int]]:
    """How many processes lived from each moment on at which that changed."""
    changes: dict[float, int] = {}
    for span in found:
        if span.outcome is Outcome.REFUSED:
            continue
        changes[span.start] = changes.get(span.start, 0) + 1
        if span.end is not None:
            changes[span.end] = changes.get(span.end, 0) - 1
    level, curve = 0, []
    for at in sorted(changes):
        level += changes[at]
        curve.append((at, level))
    return curve
