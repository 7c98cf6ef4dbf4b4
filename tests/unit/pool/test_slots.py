"""The roster: what is to be started and stopped, and why."""

import pytest

from procession.errors import InvalidTransition
from procession.pool._slots import SLOT_MOVES, Roster, SlotState, Wear

pytestmark = pytest.mark.row("PO5")


def ready(roster, name, now=0.0, *, lifetime=None, memory=0):
    slot = roster.add(name, now)
    roster.became_ready(slot, now, memory, lifetime)
    return slot


def test_the_table_is_the_documented_one():
    assert {state.value for state in SlotState} == {"idle", "busy", "starting", "stopping", "failed", "terminated"}
    assert SLOT_MOVES.allows(SlotState.IDLE, SlotState.BUSY)
    assert not SLOT_MOVES.allows(SlotState.TERMINATED, SlotState.IDLE)
    assert "starting --> idle" in SLOT_MOVES.mermaid()


def test_missing_ones_are_started():
    roster = Roster(2, 4, Wear())
    assert roster.staffing(0).start == 2
    roster.add("a", 0)
    assert (roster.size, roster.ready, roster.staffing(0).start) == (1, 0, 1)
    assert roster.aim(10) == 4
    assert roster.aim(0) == 2


def test_an_illegal_move_is_told():
    roster = Roster(0, 4, Wear())
    slot = roster.add("a", 0)
    with pytest.raises(InvalidTransition):
        roster.take(slot)
    with pytest.raises(InvalidTransition):
        roster.remove(slot)


def test_a_used_up_one_is_replaced_at_once_and_not_used_again():
    roster = Roster(1, 1, Wear(max_uses=2))
    slot = ready(roster, "a")
    for _ in range(2):
        roster.take(slot)
        slot.uses += 1
        roster.look(slot, 0)
        roster.give_back(slot, 0)
    assert (slot.retiring, slot.strict) == ("max_uses", True)
    staffing = roster.staffing(0)
    assert (staffing.start, staffing.stop) == (1, (slot,))


def test_with_many_uses_the_next_one_is_ready_before():
    roster = Roster(1, 1, Wear(max_uses=100))
    slot = ready(roster, "a")
    slot.uses = 95
    roster.look(slot, 0)
    assert (slot.retiring, slot.strict) == ("max_uses", False)
    assert roster.staffing(0) == type(roster.staffing(0))(1, ())
    ready(roster, "b")
    assert roster.staffing(0).stop == (slot,)
    slot.uses = 100
    roster.look(slot, 0)
    assert slot.strict


@pytest.mark.parametrize("why", ["max_lifetime", "max_memory"])
def test_the_old_and_the_fat_go_when_another_is_ready(why):
    roster = Roster(1, 1, Wear(max_memory=100))
    slot = ready(roster, "a", lifetime=10, memory=1000)
    roster.look(slot, 9.9)
    assert not slot.retiring
    if why == "max_memory":
        slot.memory = 1101
    roster.look(slot, 10 if why == "max_lifetime" else 1)
    assert (slot.retiring, slot.strict) == (why, False)
    staffing = roster.staffing(10)
    assert (staffing.start, staffing.stop) == (1, ())
    other = ready(roster, "b", 10)
    assert roster.staffing(10).stop == (slot,)
    slot.machine.to(SlotState.STOPPING)
    roster.remove(slot)
    assert list(roster) == [other]
    assert roster.staffing(10).start == 0


def test_idle_ones_go_in_time_but_never_too_many():
    roster = Roster(1, 5, Wear(idle_timeout=10))
    roster.aim(3)
    first, second, third = (ready(roster, name, now) for name, now in (("a", 0), ("b", 1), ("c", 2)))
    assert roster.next_look() == 10
    assert roster.staffing(9.9).stop == ()
    assert roster.staffing(11).stop == (first, second)
    assert roster.target == 1
    roster.take(third)
    assert roster.count(SlotState.BUSY) == 1


def test_surplus_goes_the_longest_idle_first_and_the_busy_are_left_alone():
    roster = Roster(0, 5, Wear())
    roster.aim(3)
    first, second, third = (ready(roster, name, now) for name, now in (("a", 0), ("b", 1), ("c", 2)))
    roster.take(first)
    roster.aim(1)
    assert roster.staffing(5).stop == (second, third)
    roster.aim(2)
    assert roster.staffing(5).stop == (second,)


def test_busy_ones_that_are_too_many_get_nothing_more_to_do():
    roster = Roster(1, 5, Wear())
    roster.aim(3)
    busy = [ready(roster, name) for name in ("a", "b", "c")]
    for slot in busy:
        roster.take(slot)
    roster.add("d", 4)
    assert roster.staffing(5).stop == ()
    assert not any(slot.retiring for slot in roster)  # the one too many has not started yet
    roster.aim(2)
    assert roster.staffing(5).stop == ()
    assert [(slot.retiring, slot.strict) for slot in busy] == [("surplus", True), ("", False), ("", False)]
    roster.give_back(busy[0], 6)
    assert roster.staffing(6).stop == (busy[0],)


def test_a_worn_out_one_that_is_never_idle_goes_when_another_is_ready():
    roster = Roster(1, 1, Wear())
    slot = ready(roster, "a", lifetime=10)
    roster.take(slot)
    roster.look(slot, 10)
    assert roster.staffing(10).start == 1
    assert not slot.strict
    other = ready(roster, "b", 10)
    roster.take(other)
    assert roster.staffing(10).start == 0
    assert (slot.strict, other.strict) == (True, False)
    roster.give_back(slot, 11)
    assert roster.staffing(11).stop == (slot,)


def test_nothing_is_due_when_nothing_ends():
    roster = Roster(1, 1, Wear())
    ready(roster, "a")
    assert roster.next_look() is None
    ready(roster, "b", lifetime=7)
    assert roster.next_look() == 7
