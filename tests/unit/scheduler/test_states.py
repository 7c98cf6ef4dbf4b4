"""The life of a task: one table, one way to move."""

import pytest

from procession.errors import InvalidTransition
from procession.scheduler._entry import Entry
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec
from procession.scheduler._states import FINAL, TASK_MOVES, TaskState, move

S = TaskState


def make(state=S.NEW, **options):
    entry = Entry(7, 2, Resources(1, {}).plain, Spec(**options))
    entry.state = state
    return entry


@pytest.mark.parametrize("old", list(S))
@pytest.mark.parametrize("new", list(S))
def test_a_task_moves_as_the_table_says_and_no_other_way(old, new):
    entry = make(old)
    if TASK_MOVES.allows(old, new):
        move(entry, new)
        assert entry.state is new
    else:
        with pytest.raises(InvalidTransition) as caught:
            move(entry, new)
        assert (caught.value.id, caught.value.old, caught.value.new) == ("task-7", old, new)
        assert entry.state is old


@pytest.mark.row("SC11")
def test_four_states_are_final_and_nothing_leaves_them():
    assert {S.SUCCEEDED, S.FAILED, S.CANCELLED, S.MISSED} == FINAL
    assert {state for state in S if state.is_final} == FINAL
    assert not any(TASK_MOVES.allows(old, new) for old in FINAL for new in S)


@pytest.mark.row("SC11")
def test_whatever_is_not_over_can_be_cancelled():
    assert all(TASK_MOVES.allows(state, S.CANCELLED) for state in S if state not in FINAL and state is not S.NEW)


def test_only_what_waited_for_its_turn_or_was_suspended_runs():
    assert {old for old in S if TASK_MOVES.allows(old, S.RUNNING)} == {S.QUEUED, S.SUSPENDED}


def test_an_entry_tells_its_name_and_options():
    entry = make(tenant="a", deadline=4.0)
    assert (entry.id, entry.tenant, entry.deadline) == ("task-7", "a", 4.0)
    assert make(id="mine").id == "mine"
    assert repr(entry) == "<Entry task-7 new priority=2>"
