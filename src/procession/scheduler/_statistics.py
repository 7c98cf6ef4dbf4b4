"""What a scheduler looks like at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from procession._core.window import Percentiles
from procession.scheduler._states import TaskState

if TYPE_CHECKING:
    from procession.scheduler._lives import Lives


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerStatistics:
    """Figures of one moment. Those about states are derived from what is there, so they always add up.

    Attributes:
        queued: tasks that wait for their turn, suspended ones not counted.
        blocked: tasks that come after unfinished others.
        delayed: tasks whose time has not come.
        retrying: tasks that failed and will be tried again.
        running: tasks that run, those being stopped included.
        suspended: tasks whose process is suspended.
        by_priority: ``queued`` and ``suspended`` together, by priority, most urgent first.
        submitted: tasks accepted since the scheduler was opened.
        succeeded: tasks that ended well.
        failed: tasks that did not, including those that come after one that failed.
        cancelled: tasks that were cancelled.
        missed: tasks that were not started before their deadline.
        retried: retries, of all tasks together.
        preempted: how often a task had to make room.
        waited: seconds from the beginning of waiting to the first start.
        ran: seconds of each attempt, suspensions left out.
        total: how much there is of each resource.
        allocated: how much of it is taken.
        utilisation: the taken share of each resource and of the ``slots``, 0 to 1.
        next_start: loop time of the next start that is known: of a delayed task or a retry, or the time reserved for
            the first in the queue. ``None`` when nothing of the kind is known.
    """

    queued: int
    blocked: int
    delayed: int
    retrying: int
    running: int
    suspended: int
    by_priority: Mapping[int, int]
    submitted: int
    succeeded: int
    failed: int
    cancelled: int
    missed: int
    retried: int
    preempted: int
    waited: Percentiles
    ran: Percentiles
    total: Mapping[str, float]
    allocated: Mapping[str, float]
    utilisation: Mapping[str, float]
    next_start: float | None


def statistics(lives: Lives, now: float) -> SchedulerStatistics:
    """Looks at everything once; costs what there are lanes and tasks set aside, not what is queued."""
    dispatcher, tally = lives.dispatcher, lives.tally
    resources, queue = dispatcher.resources, dispatcher.queue
    aside = Counter(entry.state for entry in lives.aside)
    by_priority: Counter[int] = Counter()
    for lane in queue.lanes():
        by_priority[lane.priority] += len(lane)
    allocated = resources.allocated
    return SchedulerStatistics(
        queued=len(queue) - sum(1 for entry in dispatcher.suspended if entry.lane is not None),
        blocked=aside[TaskState.BLOCKED],
        delayed=aside[TaskState.DELAYED],
        retrying=aside[TaskState.RETRYING],
        running=len(dispatcher.running),
        suspended=len(dispatcher.suspended),
        by_priority=dict(sorted(by_priority.items())),
        submitted=tally.submitted,
        succeeded=tally.succeeded,
        failed=tally.failed,
        cancelled=tally.cancelled,
        missed=tally.missed,
        retried=tally.retried,
        preempted=tally.preempted,
        waited=lives.waited.summary(),
        ran=lives.ran.summary(),
        total=resources.amounts(resources.total),
        allocated=resources.amounts(allocated),
        utilisation={
            name: resources.amount(allocated, name) / total
            for name in resources.names
            if (total := resources.amount(resources.total, name))
        },
        next_start=_next_start(lives, now),
    )


def _next_start(lives: Lives, now: float) -> float | None:
    known = [at for entry in lives.aside if (at := lives.due_at(entry)) is not None]
    lane = lives.dispatcher.queue.top()
    if lane is not None and lane.head is not None:
        reserved = lives.dispatcher.reservation(lane.head, now)
        if reserved is not None:
            known.append(reserved.at)
    return min(known, default=None)
