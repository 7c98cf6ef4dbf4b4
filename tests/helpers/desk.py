"""The scheduler's core driven by hand: tasks come, run, stop and go without a loop, and time is a number."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from procession.scheduler._decide import Dispatcher
from procession.scheduler._entry import Entry
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec
from procession.scheduler._states import TaskState, move

S = TaskState
TENANTS = ("a", "b", "c", "d")
STEP = 0.125
"""Times, lengths and deadlines are multiples of this, which floats and nanoseconds both hold exactly."""


class Desk:
    """A dispatcher and what is known about its tasks; every method is one thing that can happen."""

    def __init__(self, policy: Any, slots: int = 1) -> None:
        self.policy = policy
        self.dispatcher = Dispatcher(Resources(slots, {}), policy, backfill=False)
        self.now = 0.0
        self.made = 0
        self.away: dict[Entry, None] = {}
        self.fates: dict[Entry, TaskState] = {}
        self.starts: list[Entry] = []

    # ------------------------------------------------------------------------------------ what is there

    @property
    def waiting(self) -> list[Entry]:
        return sorted(self.dispatcher.queue, key=lambda entry: entry.number)

    @property
    def running(self) -> list[Entry]:
        return sorted(self.dispatcher.running, key=lambda entry: entry.number)

    # ------------------------------------------------------------------------------------ what happens

    def make(
        self, priority: int = 2, tenant: str = "", deadline: float | None = None, estimate: float | None = None
    ) -> Entry:
        self.made += 1
        shape = self.dispatcher.resources.plain
        return Entry(self.made, priority, shape, Spec(tenant=tenant, deadline=deadline), estimate)

    def accept(self, entry: Entry) -> Entry:
        """It is accepted, but begins to wait only when it arrives."""
        self.policy.admit(entry, self.now)
        move(entry, S.DELAYED)
        self.away[entry] = None
        return entry

    def arrive(self, entry: Entry) -> None:
        self.away.pop(entry, None)
        move(entry, S.QUEUED)
        self.dispatcher.enqueue(entry, self.now)

    def submit(self, *args: Any, **kwargs: Any) -> Entry:
        entry = self.make(*args, **kwargs)
        self.policy.admit(entry, self.now)
        self.arrive(entry)
        return entry

    def next(self) -> Entry | None:
        decision = self.dispatcher.next(self.now)
        assert decision is None or isinstance(decision, Entry)
        if decision is not None:
            self.starts.append(decision)
        return decision

    def finish(self, entry: Entry, fate: TaskState = S.SUCCEEDED) -> None:
        self.dispatcher.release(entry, self.now)
        self._fate(entry, fate)

    def suspend(self, entry: Entry) -> None:
        self.dispatcher.suspend(entry, self.now)

    def used_up(self, entry: Entry) -> None:
        self.policy.used_up(entry, self.now)

    def requeue(self, entry: Entry) -> None:
        """It makes room by being stopped, and begins again later."""
        self.dispatcher.stopping(entry)
        move(entry, S.STOPPING)
        self.dispatcher.release(entry, self.now)
        self.arrive(entry)

    def fail(self, entry: Entry) -> None:
        """It failed and will be tried again when it arrives."""
        self.dispatcher.release(entry, self.now)
        move(entry, S.RETRYING)
        self.away[entry] = None

    def cancel(self, entry: Entry) -> None:
        if entry in self.away:
            del self.away[entry]
        elif entry.state is S.QUEUED:
            self.dispatcher.withdraw(entry, self.now)
        else:
            self.dispatcher.stopping(entry)
            move(entry, S.STOPPING)
            self.dispatcher.release(entry, self.now)
        self._fate(entry, S.CANCELLED)

    def pass_time(self, seconds: float) -> None:
        """Time goes by; the policy's ticks come when they are due."""
        until = self.now + seconds
        while (at := self.policy.next_tick()) is not None and at <= until:
            self.now = max(self.now, at)
            self.dispatcher.tick(self.now)
        self.now = until

    def _fate(self, entry: Entry, fate: TaskState) -> None:
        move(entry, fate)
        assert entry not in self.fates
        self.fates[entry] = fate
        self.dispatcher.settled(entry, self.now)

    # ------------------------------------------------------------------------------------- invariants

    def check(self) -> None:
        """The head of the queue is the smallest of all that wait, however that is found."""
        queue, policy = self.dispatcher.queue, self.policy
        waiting = list(queue)
        assert len(waiting) == len(set(waiting)) == len(queue)
        for lane in queue.lanes():
            assert lane.offset == policy.offset(lane.group)
        top = queue.top()
        if not waiting:
            assert top is None
            return
        assert top is not None
        assert top.head is min(waiting, key=self.key)

    def key(self, entry: Entry) -> tuple[int, int]:
        return entry.rank + self.policy.offset(self.policy.group(entry)), entry.number


_WHICH = st.integers(0, 50)
_EIGHTHS = st.integers(1, 40).map(lambda n: n * STEP)

_SUBMIT = st.tuples(
    st.just("submit"), st.integers(0, 4), st.sampled_from(TENANTS), st.none() | _EIGHTHS, st.none() | _EIGHTHS
)
_MOVE = st.tuples(st.sampled_from(["next", "next", "elapse", "finish", "serve", "serve"]), _WHICH)
_TURN = st.tuples(
    st.sampled_from(["slice", "slice", "suspend", "go_on", "requeue", "fail", "arrive", "cancel", "reprioritise"]),
    _WHICH,
)
PROGRAMS = st.tuples(
    st.lists(_SUBMIT, max_size=8), st.lists(st.one_of(_SUBMIT, _MOVE, _TURN), min_size=15, max_size=50)
).map(lambda parts: [*parts[0], *parts[1]])
"""What may happen, in any order; the number says to which of those it can happen to."""


def of(entries: list[Entry], which: int) -> Entry | None:
    return entries[which % len(entries)] if entries else None
