"""What happens next: a pure core that is told the time and answers with one decision."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from math import frexp
from typing import TYPE_CHECKING

from procession.scheduler._backfill import Ends, Reservation
from procession.scheduler._config import Preemption
from procession.scheduler._entry import NANO, Entry
from procession.scheduler._guard import Guarded
from procession.scheduler._policies import Policy
from procession.scheduler._preempt import Victims
from procession.scheduler._queue import Queue
from procession.scheduler._states import RUNNING, SUSPENDED, move

if TYPE_CHECKING:
    from collections.abc import Iterable

    from procession.abc import QueuePolicy
    from procession.scheduler._queue import Lane
    from procession.scheduler._resources import Resources

_TRIED = 256
"""Lanes one decision tries for backfilling."""


@dataclass(frozen=True, slots=True)
class Preempt:
    """The decision that ``victims`` make room for ``head``."""

    head: Entry
    victims: list[Entry]


class Dispatcher:
    """Holds what waits, what runs and what is free; decides what starts.

    Args:
        resources: what there is.
        policy: who is next.
        backfill: whether a blocked head may be passed.
        max_overtakes: how often, while no estimate tells when it can start.
        max_preemptions: how often one task has to make room.
    """

    def __init__(
        self,
        resources: Resources,
        policy: QueuePolicy,
        *,
        backfill: bool = True,
        max_overtakes: int = 16,
        max_preemptions: int = 3,
    ) -> None:
        self.resources = resources
        self.policy = policy
        self.queue = Queue(policy, resources)
        self.victims = Victims(resources)
        self.running: dict[Entry, None] = {}
        self.suspended: dict[Entry, None] = {}
        self._ends = Ends(resources)
        self._backfill = backfill
        self._max_overtakes = max_overtakes
        self._max_preemptions = max_preemptions
        self._overtaken: dict[Entry, int] = {}
        self._outranked: dict[Entry, int] = {}  # whoever is in here is in there, too
        self._promises: dict[Entry, int] = {}
        self._promised = 0
        self._kept = 0
        self._heir: Entry | None = None
        self._reserved: tuple[Entry, Reservation | None] | None = None
        self.kind = kind = policy.kind if isinstance(policy, Guarded) else type(policy)
        self._ranks = kind.rank is not Policy.rank
        self._grouped = not getattr(kind, "by_priority", False)
        self._takes = getattr(kind, "urgent_first", False)
        self._counts = any(
            getattr(kind, name) is not getattr(Policy, name) for name in ("queued", "started", "stopped", "left")
        )
        self._settles = kind.settled is not Policy.settled

    # ---------------------------------------------------------------------------------- the queue

    def enqueue(self, entry: Entry, now: float) -> None:
        """It begins to wait for its turn, for the first time or again; then it keeps its place."""
        instant = int(now * NANO)
        if entry.queued_at < 0:
            entry.queued_at = now
            entry.rank = self.policy.rank(entry, instant) if self._ranks else instant
        else:
            entry.rank = self.policy.again(entry, instant)
        self._place(entry)
        if self._counts:
            self._reorder(self.policy.queued(entry, now))

    def _place(self, entry: Entry) -> None:
        length = None if entry.estimate is None or not self._backfill else frexp(entry.estimate)[1]
        if self._grouped:
            entry.slot = (self.policy.group(entry), entry.priority, length)
        else:
            entry.slot = entry.priority if length is None else (entry.priority, length)
        self.queue.push(entry)

    def withdraw(self, entry: Entry, now: float) -> None:
        """It waits no more, and did not get its turn."""
        self.queue.discard(entry)
        self._forget(entry)
        if self._counts:
            self._reorder(self.policy.left(entry, now))

    def reprioritise(self, entry: Entry, priority: int) -> None:
        """Changes how urgent it is, wherever it stands."""
        waits = entry.lane is not None
        if waits:
            self.queue.discard(entry)
        is_victim = self.victims.has(entry)
        if is_victim:
            self.victims.discard(entry)
        entry.priority = priority
        if waits:
            self._place(entry)
        if is_victim:
            self.victims.add(entry)

    def settled(self, entry: Entry, now: float) -> None:
        """It has its fate, and the policy may forget it."""
        if self._settles:
            self.policy.settled(entry, now)

    def forsake(self) -> None:
        """Asks the policy no more, because it has raised."""
        self._counts = self._ranks = self._settles = False

    def tick(self, now: float) -> None:
        """Lets the policy do what it does from time to time."""
        self._reorder(self.policy.tick(now))

    def _forget(self, entry: Entry) -> None:
        if self._overtaken:
            self._overtaken.pop(entry, None)
            self._outranked.pop(entry, None)
        if self._reserved is not None and self._reserved[0] is entry:
            self._reserved = None
        if self._heir is entry:
            self._heir = None

    def _reorder(self, groups: Iterable[object]) -> None:
        groups = tuple(groups)
        if groups:
            self.queue.reoffset(groups)

    # ----------------------------------------------------------------------------------- deciding

    def next(self, now: float) -> Entry | Preempt | None:
        """What to do now: start (or continue) a task, make room for one, or nothing until something changes.

        A returned task has its resources and is running as far as this core knows.
        """
        lane = self.queue.top()
        if lane is None:
            return None
        if self._heir is not None:
            lane = self._heirs_or(lane, self._heir)
        resources = self.resources
        if (resources.open - lane.shape.need) & resources.guard == resources.guard:
            if self._overtaken or self._reserved is not None or self._heir is not None:
                assert lane.head is not None
                self._forget(lane.head)
                self._reserved = None  # also another's: what was promised to it is less now
            return self._begin(self.queue.pop(lane), now)
        return self._blocked(lane, now)

    def _heirs_or(self, lane: Lane, heir: Entry) -> Lane:
        """The lane that is next while room was made for ``heir``.

        It is the heir's, though who made room may have waited longer and so stand before it: they would only take
        their places back. Who is as urgent as the heir keeps its turn.
        """
        resources = self.resources
        room = resources.open + self._promised
        if heir.lane is None or (room - heir.shape.need) & resources.guard != resources.guard:
            self._heir = None
            return lane
        return heir.lane if lane.priority > heir.priority else lane

    def _blocked(self, lane: Lane, now: float) -> Entry | Preempt | None:
        head, resources = lane.head, self.resources
        assert head is not None
        if self.suspended and (resources.total + resources.guard - self._kept - lane.shape.need) & resources.guard != (
            resources.guard
        ):  # whatever else ends, it waits for suspended ones, and they may not wait for it
            entry = self._most_urgent_suspended()
            if entry is not None and entry.lane is not None:
                if resources.fits(entry.shape.need):
                    self.queue.discard(entry)
                    self._forget(entry)
                    return self._begin(entry, now)
                lane, head = entry.lane, entry  # nobody may delay it, or all that wait for it would wait for ever
        least = self.victims.least_urgent()
        if least is not None:
            decision = self._preempting(head, least)
            if decision is not None:
                return decision
        if not self._backfill or not resources.open & 0xFFFFFFFF or len(self.queue) == 1:
            return None
        chosen = self._passing(head, now)
        if chosen is None:
            return None
        entry = self.queue.pop(chosen)
        if entry in self._overtaken:  # it has been the head itself
            del self._overtaken[entry]
            self._outranked.pop(entry, None)
        return self._begin(entry, now)

    def _preempting(self, head: Entry, least: int) -> Preempt | None:
        """Somebody makes room for the head; or for one that is more urgent, whatever goes before it by its age.

        Or what has waited for long would not only be next, but keep urgent ones from places that it cannot have itself.
        It puts up with that a limited number of times, so that it does not starve. What is being stopped already counts,
        so that no more give way than need to.
        """
        if least > head.priority:
            victims = self.victims.plan(head, self._promised)
            if victims:
                self._heir = head
                return Preempt(head, victims)
        if not self._takes:
            return None
        passed = self._outranked.get(head, 0)
        urgent = self.queue.most_urgent(min(least, head.priority)) if passed < self._max_overtakes else None
        if urgent is None:
            return None
        victims = self.victims.plan(urgent, self._promised)
        if not victims:
            return None
        self._overtaken.setdefault(head, 0)
        self._outranked[head] = passed + 1
        self._heir = urgent
        return Preempt(urgent, victims)

    def _most_urgent_suspended(self) -> Entry | None:
        """Of those that can go on now; if none can, of all."""
        best, found = None, None
        for entry in self.suspended:
            if entry.lane is not None:
                key = (not self.resources.fits(entry.shape.need), entry.rank + entry.lane.offset, entry.number)
                if best is None or key < best:
                    best, found = key, entry
        return found

    def _passing(self, head: Entry, now: float) -> Lane | None:
        """A lane whose head may pass the blocked one."""
        reservation = self.reservation(head, now)
        passed = self._overtaken.get(head, 0)
        guard = self.resources.guard
        spare = self._ends.spare(head.shape.need) if reservation is None else reservation.extra
        for lane in islice(self.queue.fitting(), _TRIED):
            entry = lane.head
            assert entry is not None
            if (spare - lane.shape.need) & guard == guard:
                if reservation is not None:
                    reservation.extra -= lane.shape.need
                return lane
            if reservation is None:
                if passed < self._max_overtakes:
                    self._overtaken[head] = passed + 1
                    return lane
                continue
            estimate = entry.estimate  # nothing is known about one that has outlived its own
            if estimate is not None and entry.ran <= estimate and now + estimate - entry.ran <= reservation.at:
                return lane
        return None

    def reservation(self, head: Entry, now: float) -> Reservation | None:
        """When the blocked head can start at the latest, as far as estimates tell."""
        if self._reserved is None or self._reserved[0] is not head or self._is_over(self._reserved[1], now):
            self._reserved = (head, self._reserve(head, now))
        return self._reserved[1]

    def _reserve(self, head: Entry, now: float) -> Reservation | None:
        """Counts what those would give up who have to make room as soon as that is enough.

        Without them, others would go on to pass for as long as a little more than they hold is missing.
        """
        victims, ends = self.victims, self._ends
        gains = victims.gains_below(head.priority)
        if not gains:
            return ends.reserve(head.shape.need, now, self._promised)

        def counted(entry: Entry) -> int:
            return victims.gain(entry) if entry.priority > head.priority and victims.has(entry) else 0

        return ends.reserve(head.shape.need, now, self._promised + gains, counted)

    def overtaken(self, entry: Entry) -> int:
        """How often it was passed while nobody could tell when it would start, or by more urgent ones that took a place."""
        return self._overtaken.get(entry, 0) + self._outranked.get(entry, 0)

    @staticmethod
    def _is_over(reservation: Reservation | None, now: float) -> bool:
        return reservation is not None and reservation.at < now

    # ------------------------------------------------------------------------- starting and stopping

    def _begin(self, entry: Entry, now: float) -> Entry:
        need = entry.shape.need
        self.resources.open -= need
        entry.holds += need
        entry.started_at = now
        if entry.state is SUSPENDED:
            entry.shape = entry.whole
            del self.suspended[entry]
            self._kept -= entry.holds - need
        else:
            entry.ran = 0.0
            entry.attempts += 1
        move(entry, RUNNING)
        self.running[entry] = None
        if self._backfill and entry.estimate is not None:
            self._ends.add(entry, now + entry.estimate - entry.ran)
        if self._counts:
            self._reorder(self.policy.started(entry, now))
        return entry

    def preemptible(self, entry: Entry) -> None:
        """It runs, and can be made to give way from now on."""
        if entry.spec.preemption is not Preemption.NEVER and entry.preemptions < self._max_preemptions:
            self.victims.add(entry)
            self._reserved = None

    def stopping(self, entry: Entry) -> None:
        """It was asked to stop: what it holds will be free soon. A suspended one waits for no turn any more."""
        if entry in self._promises:
            return
        if entry.lane is not None:
            self.queue.discard(entry)
            self._forget(entry)
        if entry in self.suspended:
            self._kept -= entry.holds
        elif entry.estimate is not None:
            self._ends.discard(entry)  # it is expected sooner, and not twice
        self.victims.discard(entry)
        self._promises[entry] = entry.holds
        self._promised += entry.holds
        self._reserved = None

    def suspend(self, entry: Entry, now: float) -> None:
        """It stops to run for a while, gives back what it cannot use, and waits for its turn again."""
        self._pause(entry, now)
        gain = entry.whole.need & self.resources.released
        entry.holds -= gain
        self.resources.open += gain
        entry.shape = entry.whole.resume
        move(entry, SUSPENDED)
        self.suspended[entry] = None
        self._kept += entry.holds
        self.enqueue(entry, now)

    def release(self, entry: Entry, now: float) -> None:
        """It is over, or has to begin again: gives back all it holds, once, wherever it stood."""
        if entry in self.running:
            self._pause(entry, now)
        elif entry.lane is not None or entry in self.suspended:
            if entry.lane is not None:
                self.queue.discard(entry)
                self._forget(entry)
            if entry in self.suspended:
                del self.suspended[entry]
                if entry not in self._promises:
                    self._kept -= entry.holds
            if self._counts:
                self._reorder(self.policy.left(entry, now))
        self.resources.open += entry.holds
        entry.holds = 0
        entry.shape = entry.whole
        if self._promises:
            self._promised -= self._promises.pop(entry, 0)

    @property
    def is_plain(self) -> bool:
        """Whether the policy wants to know a task's priority and the time of its arrival, and to hear of nothing."""
        return not (self._counts or self._ranks or self._grouped or self._settles)

    @property
    def is_busy(self) -> bool:
        """Whether anybody waits for more than a turn: passed, reserved for, made room for, suspended or stopping."""
        return bool(self._overtaken or self._reserved or self._heir or self._promises or self.suspended)

    def _pause(self, entry: Entry, now: float) -> None:
        """It runs no more; how long it did is added up."""
        del self.running[entry]
        self.victims.discard(entry)
        if entry.estimate is not None:
            self._ends.discard(entry)
        ran = now - entry.started_at
        entry.ran += ran
        self._reserved = None
        if self._counts:
            self._reorder(self.policy.stopped(entry, now, ran))
