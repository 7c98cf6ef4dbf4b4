"""Who makes room."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procession.scheduler._config import Preemption
from procession.scheduler._entry import Entry
from procession.scheduler._preempt import Victims
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

SUSPEND, REQUEUE = Spec(preemption=Preemption.SUSPEND), Spec(preemption=Preemption.REQUEUE)


class Rig:
    def __init__(self, slots=100, **totals):
        self.resources = Resources(slots, totals or {"cpu_cores": 8, "memory_mb": 100, "gpu": 2})
        self.victims = Victims(self.resources)
        self.number = 0

    def make(self, priority, spec=REQUEUE, **needs):
        self.number += 1
        entry = Entry(self.number, priority, self.resources.shape(needs), spec)
        entry.started_at = float(self.number)
        return entry

    def run(self, priority, spec=REQUEUE, **needs):
        entry = self.make(priority, spec, **needs)
        self.resources.take(entry.whole.need)
        entry.holds = entry.whole.need
        self.victims.add(entry)
        return entry


@pytest.fixture
def rig():
    return Rig()


@pytest.mark.row("SC7")
def test_the_least_urgent_gives_way_first_and_of_those_the_one_that_started_last(rig):
    a, b, c, d = (rig.run(priority, cpu_cores=2) for priority in (3, 4, 4, 2))
    assert rig.victims.least_urgent() == 4
    assert rig.victims.plan(rig.make(1, cpu_cores=2)) == [c]
    assert rig.victims.plan(rig.make(1, cpu_cores=4)) == [c, b]
    assert rig.victims.plan(rig.make(1, cpu_cores=6)) == [c, b, a]
    assert rig.victims.plan(rig.make(1, cpu_cores=8)) == [c, b, a, d]


@pytest.mark.row("SC7")
def test_nobody_gives_way_to_one_that_is_no_more_urgent(rig):
    for _ in range(4):
        rig.run(2, cpu_cores=2)
    assert rig.victims.plan(rig.make(2, cpu_cores=2)) == []
    assert rig.victims.plan(rig.make(3, cpu_cores=2)) == []
    assert len(rig.victims.plan(rig.make(1, cpu_cores=2))) == 1


@pytest.mark.row("SC7")
def test_nobody_gives_way_when_that_would_not_be_enough(rig):
    rig.run(4, cpu_cores=4)
    rig.run(1, cpu_cores=4)
    assert rig.victims.plan(rig.make(1, cpu_cores=5)) == []


@pytest.mark.row("SC7")
def test_who_holds_nothing_of_what_is_missing_is_left_alone(rig):
    rig.run(4, cpu_cores=1)
    holder = rig.run(3, gpu=2)
    rig.run(4, cpu_cores=1)
    assert rig.victims.plan(rig.make(0, gpu=1)) == [holder]


@pytest.mark.row("SC7")
def test_who_is_not_needed_after_all_is_left_alone(rig):
    rig.run(4, cpu_cores=1)
    big = rig.run(3, cpu_cores=7)
    assert rig.victims.plan(rig.make(0, cpu_cores=7)) == [big]


@pytest.mark.row("SC7")
def test_the_more_urgent_is_spared_when_one_of_two_is_not_needed(rig):
    least = rig.run(4, cpu_cores=1)
    rig.run(3, cpu_cores=1)
    both = rig.run(2, cpu_cores=1, gpu=2)
    rig.run(0, cpu_cores=5)
    assert rig.victims.plan(rig.make(1, cpu_cores=2, gpu=1)) == [least, both]


@pytest.mark.row("SC7")
def test_a_suspended_one_keeps_its_memory_and_so_makes_no_room_for_memory(rig):
    rig.run(4, SUSPEND, cpu_cores=2, memory_mb=60)
    assert rig.victims.plan(rig.make(0, memory_mb=50)) == []
    assert len(rig.victims.plan(rig.make(0, cpu_cores=7))) == 1
    other = rig.run(3, memory_mb=20)
    assert rig.victims.plan(rig.make(0, memory_mb=40)) == [other]


@pytest.mark.row("SC7")
def test_a_slot_is_room_too():
    rig = Rig(slots=2)
    rig.run(4, SUSPEND)
    last = rig.run(4, SUSPEND)
    assert rig.victims.plan(rig.make(0)) == [last]


@pytest.mark.row("SC7")
def test_what_is_promised_already_spares_others(rig):
    first, second = rig.run(4, cpu_cores=4), rig.run(4, cpu_cores=4)
    rig.victims.discard(second)  # it is being stopped
    assert rig.victims.plan(rig.make(0, cpu_cores=8), second.holds) == [first]


@pytest.mark.row("SC7")
def test_the_one_that_holds_what_is_missing_is_found_among_however_many_others():
    rig = Rig(slots=1000, cpu_cores=1000, gpu=1)
    wanted = rig.run(3, gpu=1)
    for _ in range(500):
        rig.run(4, cpu_cores=1)
    assert rig.victims.plan(rig.make(0, gpu=1)) == [wanted]
    assert len(rig.victims.plan(rig.make(0, cpu_cores=800))) == 300


@pytest.mark.row("SC7")
@given(st.data())
def test_it_is_the_choice_that_looking_at_everybody_would_make(data):
    rig = Rig(slots=12)
    amounts = st.fixed_dictionaries(
        {"cpu_cores": st.integers(0, 3), "memory_mb": st.sampled_from([0, 0, 10]), "gpu": st.sampled_from([0, 0, 1])}
    )
    running = []
    for _ in range(data.draw(st.integers(0, 12))):
        needs, spec = data.draw(amounts), data.draw(st.sampled_from([SUSPEND, REQUEUE]))
        if rig.resources.fits(rig.make(0, **needs).whole.need):
            running.append(rig.run(data.draw(st.integers(1, 3)), spec, **needs))
    head = rig.make(data.draw(st.integers(0, 2)), **data.draw(amounts))
    guard, need, room, picked = rig.resources.guard, head.whole.need, rig.resources.open, []
    if rig.resources.fits(need):
        return
    for entry in sorted(running, key=lambda one: (-one.priority, -one.started_at)):
        short = guard & ~(room - need)
        gain = rig.victims.gain(entry)
        if entry.priority > head.priority and short and gain & (short - (short >> 63)):
            picked.append(entry)
            room += gain
    if (room - need) & guard != guard:
        assert rig.victims.plan(head) == []
        return
    for entry in reversed(list(picked)):
        if (room - rig.victims.gain(entry) - need) & guard == guard:
            room -= rig.victims.gain(entry)
            picked.remove(entry)
    assert rig.victims.plan(head) == picked


def test_levels_come_and_go(rig):
    a, b = rig.run(3), rig.run(5)
    assert (len(rig.victims), rig.victims.least_urgent()) == (2, 5)
    assert rig.victims.has(b)
    rig.victims.discard(b)
    rig.victims.discard(b)
    assert not rig.victims.has(b)
    assert (len(rig.victims), rig.victims.least_urgent()) == (1, 3)
    stranger = rig.make(3)
    rig.victims.discard(stranger)
    assert not rig.victims.has(stranger)
    rig.victims.discard(a)
    assert (len(rig.victims), rig.victims.least_urgent()) == (0, None)


@pytest.mark.row("SC7")
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_the_order_is_that_of_the_starts_whenever_they_could_first_be_asked(order):
    rig = Rig(slots=4)
    entries = [rig.run(4) for _ in range(4)]
    for entry in entries:
        rig.victims.discard(entry)
    for number in order:  # some are slow to get under way
        rig.victims.add(entries[number])
    assert [list(kind.entries) for kind in rig.victims._levels[4].values()] == [entries]
    assert rig.victims.plan(rig.make(0)) == [entries[3]]
