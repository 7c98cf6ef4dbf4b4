"""One table of moves per role, checked when it is made, and the only way from state to state."""

from enum import StrEnum

import pytest

from procession._core.machine import Machine, Transitions
from procession.abc import PROCESS_MOVES
from procession.errors import InvalidTransition


class S(StrEnum):
    A = "a"
    B = "b"
    C = "c"


def test_a_machine_moves_as_the_table_says_and_remembers():
    machine = Machine("m", Transitions(S.A, (S.C,), {S.A: (S.B, S.C), S.B: (S.A, S.C)}))
    assert (machine.state, machine.epoch) == (S.A, 0)
    assert machine.to(S.B, "because") is S.A
    assert (machine.state, machine.epoch) == (S.B, 1)
    machine.to(S.C)
    with pytest.raises(InvalidTransition) as caught:
        machine.to(S.A)
    assert (caught.value.id, caught.value.old, caught.value.new) == ("m", "c", "a")
    assert caught.value.story == ("b: because", "c")
    assert (machine.state, machine.epoch) == (S.C, 2)
    assert "because" in str(caught.value)


def test_the_story_is_bounded():
    machine = Machine("m", Transitions(S.A, (S.C,), {S.A: (S.B, S.C), S.B: (S.A,)}))
    for _ in range(50):
        machine.to(S.B)
        machine.to(S.A)
    assert len(machine.story()) == 16


@pytest.mark.parametrize(
    ("final", "moves", "said"),
    [
        ((S.C,), {S.A: (S.C,), S.B: (S.C,)}, "unreachable"),
        ((S.C,), {S.A: (S.B, S.C)}, "never end"),
        ((S.C,), {S.A: (S.B, S.C), S.B: (S.C,), S.C: (S.A,)}, "final"),
        ((S.C,), {S.A: (S.B,), S.B: (S.A,)}, "unreachable"),
        ((), {S.A: (S.B, S.C), S.B: (S.A,), S.C: ()}, "never end"),
    ],
)
def test_a_table_with_a_fault_is_refused(final, moves, said):
    with pytest.raises(ValueError, match=said):
        Transitions(S.A, final, moves)


def test_a_role_that_never_ends_has_no_final_state_but_a_way_back():
    table = Transitions(S.A, (), {S.A: (S.B,), S.B: (S.C,), S.C: (S.A,)})
    assert table.final == frozenset()
    assert table.mermaid() == "stateDiagram-v2\n    [*] --> a\n    a --> b\n    b --> c\n    c --> a"


def test_the_table_of_processes():
    assert PROCESS_MOVES.allows(PROCESS_MOVES.initial, next(iter(PROCESS_MOVES.moves[PROCESS_MOVES.initial])))
    assert "starting --> running" in PROCESS_MOVES.mermaid()
    assert not any(PROCESS_MOVES.moves.get(state) for state in PROCESS_MOVES.final)
