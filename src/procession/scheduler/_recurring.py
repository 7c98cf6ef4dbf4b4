"""Recurring tasks: the handle of one, and the timetable of all of a scheduler."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from procession._core.backoff import duration
from procession._core.heap import Agenda, Timer
from procession._fields import check_name
from procession.errors import Closed, ConfigError, QueueFull
from procession.scheduler._recurrence import Cron, Recurrence
from procession.scheduler._states import TaskState
from procession.scheduler._submission import is_read_once

if TYPE_CHECKING:
    from procession.scheduler._scheduler import Scheduler
    from procession.scheduler._task import Task

T = TypeVar("T")
Overlap = Literal["skip", "queue", "replace"]
Missed = Literal["once", "skip"]
log = logging.getLogger("procession.scheduler")

# How long a change of the wall clock may go unnoticed. Nothing portable tells of one, so the clock is looked at once a
# minute, which is as fine as a cron expression can be: one wake-up a minute for all of a scheduler's cron tasks, and
# none without them. A timer for the whole way would be an hour late after a step forward of an hour.
_LOOK = 60.0
_STEP = 1.0  # less than this is the clock being adjusted, not set
_TICK = 0.001  # timers may fire a little early; a cron task never does, so the rest is waited for in no finer steps
_ROOM_FOR_NUMBERS = 48
_PER_RUN = {
    "after": "a later run would come after what is long over",
    "deadline": "it would have passed for a later run",
    "delay": "first_delay says when the first run is due, jitter spreads all of them",
    "not_before": "first_delay says when the first run is due",
}


class Recurring(Generic[T]):
    """Work that a scheduler runs again and again; made by ``Scheduler.every`` and ``Scheduler.cron``, never directly.

    Each run is a task of its own. The scheduler keeps it going; nobody has to hold on to this handle.

    Attributes:
        id: its name; a task of a named one is called ``"name-1"``, ``"name-2"`` …
        last: the task of the last run that was accepted, or ``None``.
        runs: how many were accepted.
        missed: how many planned runs did not happen because nothing could run at their time: the program was
            suspended, its loop blocked, or the wall clock set forward. At most 1,000 are counted at once for ``cron``.
        skipped: how many did not happen because the one before was not over, or because the queue was full or
            the policy did not admit it, which is logged.
        failures: how many failed or missed a deadline, which is logged.
    """

    __slots__ = (
        "_args",
        "_context",
        "_due",
        "_handled",
        "_home",
        "_jitter",
        "_missed_rule",
        "_named",
        "_options",
        "_overlap",
        "_planned",
        "_rule",
        "_timer",
        "_unfinished",
        "_work",
        "failures",
        "id",
        "last",
        "missed",
        "runs",
        "skipped",
    )

    def __init__(
        self,
        home: Timetable,
        id: str,
        rule: Recurrence,
        work: Any,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        *,
        named: bool,
        overlap: Overlap,
        missed: Missed,
        jitter: float,
    ) -> None:
        self.id: str = id
        self.last: Task[T] | None = None
        self.runs: int = 0
        self.missed: int = 0
        self.skipped: int = 0
        self.failures: int = 0
        self._home = home
        self._rule = rule
        self._work = work
        self._args = args
        self._options = options
        self._named = named
        self._overlap = overlap
        self._missed_rule = missed
        self._jitter = jitter
        self._context = copy_context()
        self._planned = 0.0
        self._due = 0.0
        self._handled: float | None = None
        self._timer: Timer[Recurring[Any]] | None = None
        self._unfinished: dict[Task[Any], None] = {}

    @property
    def active(self) -> bool:
        """Whether there will be another run: it was not cancelled, and its scheduler is open."""
        return self._timer is not None

    @property
    def next_run(self) -> float | None:
        """Loop time of the next run, jitter included, or ``None``; of ``cron`` as the wall clock stands now."""
        return None if self._timer is None else self._home.loop_time(self)

    def cancel(self, *, running: bool = False) -> bool:
        """Ends it: there will be no further run.

        Args:
            running: whether runs that are not over are cancelled, too. Default: they go on.

        Returns:
            ``False`` when it had ended already.
        """
        was_active = self.active
        self._home.remove(self)
        if running:
            for task in list(self._unfinished):
                task.cancel(f"{self.id} was cancelled")
        return was_active

    def __repr__(self) -> str:
        at = self.next_run
        then = "ended" if at is None else f"next in {max(0.0, at - self._home.now()):.3f} s"
        counts = f"{self.runs} runs, {self.missed} missed, {self.skipped} skipped, {self.failures} failed"
        last = "" if self.last is None else f", last {self.last.state}"
        return f"<Recurring {self.id}: {self._rule}, {then}; {counts}{last}>"

    # ------------------------------------------------------------------------------ for the timetable

    def _start(self, scheduler: Scheduler) -> None:
        """Submits one run, unless the rule for overlap or the scheduler says no."""
        last = self.last
        if last is not None and not last.done():
            if self._overlap == "skip":
                self.skipped += 1
                return
            if self._overlap == "replace":
                last.cancel(f"{self.id} runs anew")
        options = {**self._options, "id": f"{self.id}-{self.runs + 1}"} if self._named else self._options
        submit: Callable[..., Task[Any]] = scheduler.submit
        try:
            task = self._context.run(submit, self._work, *self._args, **options)
        except Closed:  # by a policy that has raised a moment ago
            return
        except QueueFull as error:
            self.skipped += 1
            log.warning("%s: a run was skipped: %s", self.id, error)
        except Exception as error:
            self.skipped += 1
            log.exception("%s: a run was skipped: %r", self.id, error)  # noqa: TRY401 - the line alone is to say why
        else:
            self.runs += 1
            self.last = task
            self._unfinished[task] = None
            task.add_done_callback(self._over)

    def _over(self, task: Task[Any]) -> None:
        """Nobody may be awaiting it, so a failure is told here."""
        self._unfinished.pop(task, None)
        if task.state in (TaskState.FAILED, TaskState.MISSED):
            self.failures += 1
            log.warning("%s: %s failed: %r", self.id, task.id, task._error)


class Timetable:
    """When each recurring task of one scheduler is due; their earliest time is part of the scheduler's one timer.

    Args:
        scheduler: runs them.
        rng: draws jitter.
        wall: seconds since the epoch.

    Attributes:
        next_due: loop time when :meth:`run` is to be called; infinite when never.
    """

    def __init__(self, scheduler: Scheduler, rng: random.Random, wall: Callable[[], float]) -> None:
        self.next_due: float = math.inf
        self._scheduler = scheduler
        self._rng = rng
        self._wall = wall
        self._intervals: Agenda[Recurring[Any]] = Agenda()  # by loop time
        self._crons: Agenda[Recurring[Any]] = Agenda()  # by wall time
        self._ahead = 0.0  # by how much the wall clock was ahead of the loop's when it was looked at last
        self._active: dict[str, Recurring[Any]] = {}
        self._number = 0

    def now(self) -> float:
        """Loop time."""
        return self._scheduler._now()

    def loop_time(self, one: Recurring[Any]) -> float:
        """When it is due."""
        if isinstance(one._rule, Cron):
            return self.now() + max(0.0, one._due - self._wall())
        return one._due

    # ------------------------------------------------------------------------------ coming and going

    def make(
        self,
        kind: str,
        rule: Callable[[float], Recurrence],
        work: Any,
        args: tuple[Any, ...],
        options: Mapping[str, Any],
        *,
        overlap: Overlap,
        missed: Missed,
        jitter: float | str,
    ) -> Recurring[Any]:
        """Checks all that is said about it and takes it on, or raises and has changed nothing.

        Args:
            kind: what it is called after when it has no name.
            rule: makes the rule, of loop time.
            work: as for ``submit``.
            args: as for ``submit``.
            options: as for ``submit``, priority and resources among them.
            overlap: what happens when a run is due and the one before is not over.
            missed: what happens when planned runs were missed.
            jitter: by how many seconds at most a run is put off at random.

        Raises:
            ConfigError: a value was refused.
            InsufficientResources: it could never start.
            Closed: the scheduler was closed.
            StateError: it was not opened yet.
        """
        scheduler = self._scheduler
        scheduler._check_open()
        _check_choice("overlap", overlap, get_args(Overlap))
        _check_choice("missed", missed, get_args(Missed))
        spread = duration("jitter", jitter)
        options = {**options, "kwargs": dict(options["kwargs"])} if _has_kwargs(options) else dict(options)
        _check_repeatable(options)
        id = options.pop("id", None) or ""
        named = bool(id)
        trial = {**options, "id": f"{self._check_id(id)}-1"} if named else dict(options)
        priority, resources = trial.pop("priority"), trial.pop("resources")
        scheduler._make(work, args, priority, resources, trial, scheduler._find)  # refuses what submit would
        made = rule(self.now())
        while not id or id in self._active:
            self._number += 1
            id = f"{kind}-{self._number}"
        one: Recurring[Any] = Recurring(
            self, id, made, work, args, options, named=named, overlap=overlap, missed=missed, jitter=spread
        )
        self._add(one)
        return one

    def _check_id(self, id: object) -> str:
        try:
            name = check_name(id)
        except ValueError as error:
            raise ConfigError("id", id, str(error)) from None
        if len(name) > _ROOM_FOR_NUMBERS:
            raise ConfigError("id", id, f"at most {_ROOM_FOR_NUMBERS} characters: each run adds its number")
        if name in self._active:
            raise ConfigError("id", id, "a recurring task of this scheduler has this id")
        return name

    def _add(self, one: Recurring[Any]) -> None:
        rule, now = one._rule, self.now()
        if isinstance(rule, Cron):
            wall = self._wall()
            if not len(self._crons):
                self._ahead = wall - now
            self._plan(one, rule.after(wall))
            at = self._when_to_look(now, wall)
        else:
            self._plan(one, rule.first)
            at = one._due
        self._active[one.id] = one
        if at < self.next_due:
            self.next_due = at
            self._scheduler._arm()

    def remove(self, one: Recurring[Any]) -> None:
        """It is over; does nothing when it was already."""
        self._unplan(one)
        if self._active.pop(one.id, None) is not None and not self._active:
            self.close()
            self._scheduler._arm()

    def close(self) -> None:
        """All of them are over."""
        for one in self._active.values():
            self._unplan(one)
        self._active.clear()
        self.next_due = math.inf

    # --------------------------------------------------------------------------------------- planning

    def _agenda(self, one: Recurring[Any]) -> Agenda[Recurring[Any]]:
        return self._crons if isinstance(one._rule, Cron) else self._intervals

    def _unplan(self, one: Recurring[Any]) -> None:
        if one._timer is not None:
            self._agenda(one).discard(one._timer)
            one._timer = None

    def _plan(self, one: Recurring[Any], planned: float | None) -> None:
        """Takes note of its next run; ``None``: there is none."""
        self._unplan(one)
        if planned is None:
            self._active.pop(one.id, None)
            return
        one._planned = one._due = planned
        if one._jitter:  # at most until the next planned time, so that two runs never change places
            after = one._rule.following(planned, planned).at
            room = one._jitter if after is None else min(one._jitter, after - planned)
            one._due += self._rng.random() * room
        one._timer = self._agenda(one).add(one._due, one)

    def _when_to_look(self, now: float, wall: float) -> float:
        """Loop time of the next look at the wall clock."""
        due = self._crons.next_at()
        return math.inf if due is None else now + min(max(due - wall, _TICK), _LOOK)

    def run(self, now: float) -> None:
        """Starts what is due at loop time ``now``, and sets the scheduler's timer."""
        wall = self._wall() if len(self._crons) else 0.0
        if len(self._crons):
            if wall - now < self._ahead - _STEP:
                self._set_back(wall, self._ahead - (wall - now))
            self._ahead = wall - now
        for agenda, time in ((self._intervals, now), (self._crons, wall)):
            while (one := agenda.pop_due(time)) is not None:
                self._run(one, time)
        at = self._intervals.next_at()
        self.next_due = min(math.inf if at is None else at, self._when_to_look(now, wall))
        self._scheduler._arm()

    def _run(self, one: Recurring[Any], now: float) -> None:
        """It is due, and maybe has been for a while; ``now`` is of the clock it goes by."""
        one._timer = None
        one._handled = one._planned
        late = now - one._due >= one._rule.grace
        plan = one._rule.following(one._planned, now)
        one.missed += plan.missed
        self._plan(one, plan.at)  # before it starts: whoever hears of the start may cancel it
        if late and one._missed_rule == "skip":
            one.missed += 1
        else:
            one._start(self._scheduler)

    def _set_back(self, wall: float, by: float) -> None:
        log.warning("the wall clock was set back by %.0f s: cron tasks are planned anew", by)
        for one in list(self._active.values()):
            if isinstance(one._rule, Cron):
                self._plan(one, one._rule.replanned(one._handled, wall))


def _has_kwargs(options: Mapping[str, Any]) -> bool:
    return isinstance(options.get("kwargs"), Mapping)


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(field, value, "one of " + ", ".join(choices) + " is needed")


def _check_repeatable(options: Mapping[str, Any]) -> None:
    """Refuses what is good for one run only."""
    for name, why in _PER_RUN.items():
        if options.get(name) is not None:
            raise ConfigError(name, options[name], f"not for a recurring task: {why}")
    source = options.get("input")
    if is_read_once(source):
        raise ConfigError("input", source, "it can be read once; a recurring task needs bytes, text, a path or a list")
