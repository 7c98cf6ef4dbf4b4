"""The dispatcher as a machine that is told anything at any time, and checked after every step."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession.scheduler._config import Preemption
from procession.scheduler._decide import Dispatcher, Preempt
from procession.scheduler._entry import Entry
from procession.scheduler._policies import Fifo, Policy, PriorityAging
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec
from procession.scheduler._states import FINAL, TaskState, move

S = TaskState
TOTALS = {"cpu_cores": 4, "memory_mb": 6, "gpu": 0.3}
MODES = {mode: Spec(preemption=mode) for mode in Preemption}
CPU = st.integers(0, 4)
MEMORY = st.integers(0, 6)
GPU = st.sampled_from([0, 0, 0, 0.1, 0.2, 0.3])
ESTIMATE = st.sampled_from([None, None, 0.0, 0.7, 1.0, 3.0, 8.0])
WHICH = st.integers(0, 999)


class Balanced(Policy):
    """Counts what it is told, and changes the order whenever it is told something."""

    def __init__(self):
        self.waiting: set[Entry] = set()
        self.running: set[Entry] = set()
        self.shift = 0

    def group(self, task):
        return task.priority % 2

    def offset(self, group):
        return group * self.shift

    def _other(self):
        self.shift = (self.shift + 3_000_000_000) % 8_000_000_000
        return (1,)

    def queued(self, task, now):
        assert task not in self.waiting
        assert task not in self.running
        self.waiting.add(task)
        return self._other()

    def started(self, task, now):
        self.waiting.remove(task)
        self.running.add(task)
        return ()

    def stopped(self, task, now, ran):
        assert ran >= 0
        self.running.remove(task)
        return self._other()

    def left(self, task, now):
        self.waiting.remove(task)
        return ()


POLICIES = {
    "fifo": Fifo,
    "strict": lambda: PriorityAging(0),
    "ageing": lambda: PriorityAging(0.5),
    "balanced": Balanced,
}


class Machine:
    """A shell that does at once what is decided, except for stopping, which takes its time."""

    def __init__(self, policy, backfill, overtakes, preemptions, slots, kept):
        self.resources = Resources(slots, TOTALS, kept)
        self.dispatcher = Dispatcher(
            self.resources,
            POLICIES[policy](),
            backfill=backfill,
            max_overtakes=overtakes,
            max_preemptions=preemptions,
        )
        self.max_preemptions = preemptions
        self.now = 0.0
        self.number = 0
        self.waiting: list[Entry] = []
        self.running: list[Entry] = []
        self.suspended: list[Entry] = []
        self.stopping: list[Entry] = []
        self.aside: list[Entry] = []
        self.done: list[Entry] = []

    # ---------------------------------------------------------------------------------- what is told

    def submit(self, priority, cpu, memory, gpu, mode, estimate):
        self.number += 1
        shape = self.resources.shape({"cpu_cores": cpu, "memory_mb": memory, "gpu": gpu})
        entry = Entry(self.number, priority, shape, MODES[mode], estimate)
        move(entry, S.QUEUED)
        self.dispatcher.enqueue(entry, self.now)
        self.waiting.append(entry)

    def time_goes_by(self, seconds):
        self.now += seconds

    def decide_once(self):
        self.step()

    def decide_all(self):
        while self.step():
            self.consistent()

    def step(self):
        """One decision, carried out as the shell would: all of a decision before the next one."""
        before = dict.fromkeys(self.running)
        found = self.dispatcher.next(self.now)
        if found is None:
            return False
        if isinstance(found, Preempt):
            self.make_room(found)
        else:
            self.start(found, before)
        return True

    def start(self, entry, before):
        assert entry not in before
        if entry in self.suspended:
            self.suspended.remove(entry)
        else:
            self.waiting.remove(entry)
        assert entry.state is S.RUNNING
        assert entry.lane is None
        assert entry.holds == entry.whole.need
        self.running.append(entry)

    def make_room(self, decision):
        head, victims = decision.head, decision.victims
        assert victims
        assert len(set(victims)) == len(victims)
        assert head.lane is not None
        for victim in victims:
            assert victim in self.running
            assert victim.priority > head.priority
            assert victim.spec.preemption is not Preemption.NEVER
            assert victim.preemptions < self.max_preemptions
            victim.preemptions += 1
            if victim.spec.preemption is Preemption.SUSPEND:
                self.suspend(victim)
            else:
                self.stop(victim)
        asked = {entry for entry in victims if entry.spec.preemption is Preemption.SUSPEND}
        if asked == set(victims) and not self.stopping:
            # Who made room at once must not take its place back: the next to start is not one of them.
            found = self.dispatcher.next(self.now)
            assert found is not None
            assert found not in victims
            if isinstance(found, Preempt):
                self.make_room(found)
            else:
                self.start(found, {})

    def comes_up(self, which):
        """From now on it can be asked to make room; commands that are still being spawned cannot."""
        self.dispatcher.preemptible(self.running[which % len(self.running)])

    def ends(self, which, state):
        self.over(self.running.pop(which % len(self.running)), state)

    def quantum_is_over(self, which):
        self.suspend(self.running[which % len(self.running)])

    def is_asked_to_stop(self, which):
        there = self.running + self.suspended
        self.stop(there[which % len(there)])

    def is_asked_to_stop_again(self, which):
        self.dispatcher.stopping(self.stopping[which % len(self.stopping)])

    def has_stopped(self, which, state):
        self.over(self.stopping.pop(which % len(self.stopping)), state)

    def is_ended_from_outside_while_suspended(self, which, state):
        self.over(self.suspended.pop(which % len(self.suspended)), state)

    def is_cancelled_while_it_waits(self, which):
        entry = self.waiting.pop(which % len(self.waiting))
        self.dispatcher.withdraw(entry, self.now)
        move(entry, S.CANCELLED)
        self.done.append(entry)

    def is_tried_again(self, which):
        entry = self.aside.pop(which % len(self.aside))
        move(entry, S.QUEUED)
        self.dispatcher.enqueue(entry, self.now)
        self.waiting.append(entry)

    def becomes_more_or_less_urgent(self, which, priority):
        there = self.waiting + self.running + self.suspended
        self.dispatcher.reprioritise(there[which % len(there)], priority)

    # -------------------------------------------------------------------------------- what that means

    def suspend(self, entry):
        self.running.remove(entry)
        self.dispatcher.suspend(entry, self.now)
        self.suspended.append(entry)

    def stop(self, entry):
        (self.running if entry in self.running else self.suspended).remove(entry)
        self.dispatcher.stopping(entry)
        move(entry, S.STOPPING)
        self.stopping.append(entry)

    def over(self, entry, state):
        self.dispatcher.release(entry, self.now)
        assert entry.holds == 0
        move(entry, state)
        if state is S.QUEUED:
            self.dispatcher.enqueue(entry, self.now)
            self.waiting.append(entry)
        else:
            (self.aside if state is S.RETRYING else self.done).append(entry)

    def consistent(self):
        dispatcher, resources = self.dispatcher, self.resources
        holders = self.running + self.suspended + self.stopping
        assert resources.allocated == sum(entry.holds for entry in holders)
        for name in resources.names:
            taken, there = resources.amount(resources.allocated, name), resources.amount(resources.total, name)
            assert 0 <= taken <= there
            assert resources.amount(resources.open, name) == pytest.approx(there - taken, abs=1e-9)
        assert resources.open & resources.guard == resources.guard

        places = [self.waiting, self.running, self.suspended, self.stopping, self.aside, self.done]
        everybody = [entry for place in places for entry in place]
        assert len(everybody) == len(set(everybody)) == self.number
        queued = list(dispatcher.queue)
        assert len(queued) == len(dispatcher.queue) == len(set(queued))
        assert set(queued) == set(self.waiting) | set(self.suspended)
        assert all((entry.lane is not None) is (entry in set(queued)) for entry in everybody)

        stopped = set(self.stopping)
        assert set(dispatcher.running) - stopped == set(self.running)
        assert set(dispatcher.suspended) - stopped == set(self.suspended)
        assert set(dispatcher.running) | set(dispatcher.suspended) >= stopped
        assert all(entry.state is S.RUNNING for entry in self.running)
        assert all(entry.state is S.SUSPENDED for entry in self.suspended)
        assert all(entry.state in FINAL for entry in self.done)
        assert all(entry.holds == 0 for entry in self.waiting + self.aside + self.done)
        assert all(entry.shape is entry.whole for entry in everybody if entry not in dispatcher.suspended)

        running = set(self.running)
        victims = set(dispatcher.victims)
        assert victims <= running
        assert all(entry.spec.preemption is not Preemption.NEVER for entry in victims)
        for priority, level in dispatcher.victims._levels.items():
            assert level
            for kind in level.values():
                assert kind.entries
                assert {entry.priority for entry in kind.entries} == {priority}
                starts = [entry.started_at for entry in kind.entries]
                assert starts == sorted(starts)
        assert set(dispatcher._ends._by_entry) <= running
        assert set(dispatcher._promises) == stopped
        assert dispatcher._promised == sum(entry.holds for entry in stopped)
        assert dispatcher._kept == sum(entry.holds for entry in self.suspended)
        assert set(dispatcher._overtaken) <= set(queued)
        assert all(0 <= dispatcher.overtaken(entry) <= dispatcher._max_overtakes for entry in queued)
        policy = dispatcher.policy
        if isinstance(policy, Balanced):
            # A suspended one that is being stopped waits for a turn until it is gone, as far as the policy knows.
            sidelined = {entry for entry in stopped if entry in dispatcher.suspended}
            assert policy.waiting == set(queued) | sidelined
            assert policy.running == set(dispatcher.running)

    def drain(self):
        """Whatever has happened: when all that runs ends in its time, all that waits gets its turn."""
        while self.aside:
            self.is_tried_again(0)
        for _ in range(20 * self.number + 20):
            self.consistent()
            while self.step():
                self.consistent()
            if self.stopping:
                self.over(self.stopping.pop(0), S.CANCELLED)
            elif self.running:
                self.now += 1.0
                self.over(self.running.pop(0), S.SUCCEEDED)
            else:
                break
        assert [self.waiting, self.running, self.suspended, self.stopping] == [[], [], [], []]
        assert self.resources.allocated == 0
        assert not self.dispatcher.is_busy
        assert self.dispatcher.next(self.now) is None

    def play(self, steps):
        """Does what can be done of what is asked."""
        for name, options in steps:
            there = self.where(name)
            if there is None or there:
                getattr(self, name)(**options)
                self.consistent()

    def where(self, name):
        if name in ("comes_up", "ends", "quantum_is_over"):
            return self.running
        return {
            "is_asked_to_stop": self.running + self.suspended,
            "is_asked_to_stop_again": self.stopping,
            "has_stopped": self.stopping,
            "is_ended_from_outside_while_suspended": self.suspended,
            "is_cancelled_while_it_waits": self.waiting,
            "is_tried_again": self.aside,
            "becomes_more_or_less_urgent": self.waiting + self.running + self.suspended,
        }.get(name)


def step(name, **options):
    return st.tuples(st.just(name), st.fixed_dictionaries(options))


SUBMIT = step(
    "submit",
    priority=st.integers(0, 4),
    cpu=CPU,
    memory=MEMORY,
    gpu=GPU,
    mode=st.sampled_from(Preemption),
    estimate=ESTIMATE,
)
ENDS = step("ends", which=WHICH, state=st.sampled_from([S.SUCCEEDED, S.FAILED, S.RETRYING]))
STOPS = step(
    "has_stopped",
    which=WHICH,
    state=st.sampled_from([S.QUEUED, S.CANCELLED, S.SUCCEEDED, S.FAILED, S.RETRYING]),
)
ALL, UP = step("decide_all"), step("comes_up", which=WHICH)
STEP = st.one_of(
    SUBMIT,
    SUBMIT,
    SUBMIT,
    ALL,
    ALL,
    UP,
    UP,
    ENDS,
    STOPS,
    step("decide_once"),
    step("time_goes_by", seconds=st.sampled_from([0.1, 1.0, 1.0, 5.0])),
    step("quantum_is_over", which=WHICH),
    step("is_asked_to_stop", which=WHICH),
    step("is_asked_to_stop_again", which=WHICH),
    step("is_ended_from_outside_while_suspended", which=WHICH, state=st.sampled_from([S.FAILED, S.RETRYING])),
    step("is_cancelled_while_it_waits", which=WHICH),
    step("is_tried_again", which=WHICH),
    step("becomes_more_or_less_urgent", which=WHICH, priority=st.integers(0, 4)),
)
MACHINE = st.builds(
    Machine,
    policy=st.sampled_from(sorted(POLICIES)),
    backfill=st.booleans(),
    overtakes=st.integers(0, 3),
    preemptions=st.integers(0, 3),
    slots=st.integers(1, 4),
    kept=st.sampled_from([None, (), ("memory_mb", "gpu"), ("gpu",)]),
)


@pytest.mark.row("SC5")
@pytest.mark.row("SC7")
@pytest.mark.row("SC9")
@settings(max_examples=1000, deadline=None)
@given(MACHINE, st.lists(STEP, min_size=8, max_size=60))
def test_whatever_is_told_nothing_is_lost_or_started_twice_and_all_comes_back_in_the_end(machine, steps):
    machine.play(steps)
    machine.drain()
