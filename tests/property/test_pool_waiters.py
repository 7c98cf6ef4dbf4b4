"""Waiters under random interleavings: the model is a sorted list; resources are conserved."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from procession.pool._slots import Roster, SlotState, Wear
from procession.pool._waiters import Counter, WaitQueue

pytestmark = pytest.mark.row("PO7")


class Desk(RuleBasedStateMachine):
    """A pool of `size` resources with people joining, being served, taking, releasing and giving up at any moment."""

    @initialize(size=st.integers(1, 4))
    def begin(self, size):
        self.counter: Counter[int, int] = Counter()
        self.free = list(range(size))
        self.size = size
        self.next = 0
        self.waiting: list[tuple[int, int, int]] = []  # priority, arrival, who: the model
        self.granted: dict[int, int] = {}
        self.held: dict[int, int] = {}

    def serve(self):
        while self.free:
            resource = self.free[-1]
            who = self.counter.offer(resource)
            if who is None:
                assert not self.waiting
                return
            self.free.pop()
            expected = min(self.waiting)
            assert who == expected[2]
            self.waiting.remove(expected)
            self.granted[who] = resource

    @rule(priority=st.integers(0, 3))
    def join(self, priority):
        self.next += 1
        self.counter.join(self.next, priority)
        self.waiting.append((priority, self.next, self.next))
        self.serve()

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def wake_up(self, data):
        who = data.draw(st.sampled_from(sorted(self.granted)))
        resource = self.counter.take(who)
        assert resource == self.granted.pop(who)
        self.held[who] = resource

    @precondition(lambda self: self.granted)
    @rule(data=st.data())
    def give_up_when_granted(self, data):
        who = data.draw(st.sampled_from(sorted(self.granted)))
        resource = self.counter.leave(who)
        assert resource == self.granted.pop(who)
        self.free.append(resource)
        self.serve()

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up_waiting(self, data):
        entry = data.draw(st.sampled_from(self.waiting))
        assert self.counter.leave(entry[2]) is None
        self.waiting.remove(entry)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data):
        who = data.draw(st.sampled_from(sorted(self.held)))
        self.free.append(self.held.pop(who))
        self.serve()

    @invariant()
    def nothing_is_lost(self):
        if hasattr(self, "counter"):
            assert len(self.counter) == len(self.waiting)
            assert self.counter.granted == len(self.granted)
            assert sorted([*self.free, *self.granted.values(), *self.held.values()]) == list(range(self.size))
            assert not (self.free and self.waiting)


TestDesk = Desk.TestCase
TestDesk.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.sampled_from(["push", "front", "pop", "drop"]), st.integers(0, 4)), max_size=60))
@settings(deadline=None)
def test_a_queue_is_a_sorted_list(steps):
    queue: WaitQueue[int] = WaitQueue()
    model: list[tuple[int, int, int]] = []
    front, back = 0, 0
    for item, (what, number) in enumerate(steps):
        if what == "push":
            back += 1
            queue.push(item, number)
            model.append((number, back, item))
        elif what == "front":
            front -= 1
            queue.push_front(item, number)
            model.append((number, front, item))
        elif what == "pop" and model:
            first = min(model)
            model.remove(first)
            assert queue.pop() == first[2]
        elif what == "drop" and model:
            victim = model.pop(number % len(model))
            assert queue.discard(victim[2], victim[0])
        assert len(queue) == len(model)
        assert list(queue) == [entry[2] for entry in sorted(model)]


@given(
    st.integers(0, 3),
    st.integers(0, 4),
    st.lists(
        st.tuples(st.sampled_from(["ready", "take", "give", "fail", "aim", "look"]), st.integers(0, 9)), max_size=80
    ),
)
@settings(deadline=None)
def test_the_roster_never_asks_for_too_many_nor_stops_too_many(least, more, steps):
    roster = Roster(least, max(1, least + more), Wear(max_uses=3, idle_timeout=5, max_memory=10))
    now, names = 0.0, 0

    def of(state):
        return [slot for slot in roster if slot.state is state]

    for what, number in steps:
        now += number / 3
        starting, idle, busy = of(SlotState.STARTING), of(SlotState.IDLE), of(SlotState.BUSY)
        if what == "ready" and starting:
            roster.became_ready(starting[0], now, 0, 4.0 + number)
        elif what == "take" and [slot for slot in idle if not slot.strict]:
            slot = next(slot for slot in idle if not slot.strict)
            roster.take(slot)
            slot.uses += 1
            slot.memory += number
            roster.look(slot, now)
        elif what == "give" and busy:
            roster.give_back(busy[number % len(busy)], now)
        elif what == "fail" and (starting or idle or busy):
            slot = [*starting, *idle, *busy][number % len([*starting, *idle, *busy])]
            slot.machine.to(SlotState.FAILED)
            roster.remove(slot)
        elif what == "aim":
            roster.aim(number)
        else:
            for slot in roster:
                roster.look(slot, now)
            usable = [slot for slot in idle if not slot.strict]
            before = len(usable) + len(busy)
            staffing = roster.staffing(now)
            kept = before - sum(not slot.strict for slot in staffing.stop)
            assert kept >= min(before, least)
            for slot in staffing.stop:
                slot.machine.to(SlotState.STOPPING)
                roster.remove(slot)
            for _ in range(staffing.start):
                names += 1
                roster.add(str(names), now)
            assert least <= roster.target <= roster.most
            assert roster.size >= roster.target
