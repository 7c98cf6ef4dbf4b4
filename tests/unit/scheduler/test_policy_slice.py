"""Everybody in turn."""

from __future__ import annotations

from typing import Any

import pytest

from procession.errors import ConfigError
from procession.scheduler import TimeSlice
from tests.helpers.desk import Desk

pytestmark = pytest.mark.row("SC4")


@pytest.mark.parametrize("bad", [0, -1, 0.0001, 1e10, float("nan"), float("inf"), True, "1s", None, [1]])
def test_bad_quanta_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        TimeSlice(bad)
    assert caught.value.field == "quantum"


def test_it_says_what_it_is() -> None:
    assert repr(TimeSlice()) == "TimeSlice(quantum=0.1)"


def test_tasks_take_turns_whatever_their_priority() -> None:
    desk = Desk(TimeSlice(0.5))
    for priority in (4, 2, 0):
        desk.submit(priority)
    for number in (1, 2, 3, 1, 2, 3):
        entry = desk.next()
        assert entry is not None
        assert entry.number == number
        assert desk.policy.quantum(entry) == 0.5
        desk.pass_time(0.5)
        desk.used_up(entry)
        desk.suspend(entry)


def test_several_whose_quantum_ends_at_once_keep_their_order() -> None:
    desk = Desk(TimeSlice(0.5), slots=3)
    for _ in range(5):
        desk.submit()
    running = [desk.next() for _ in range(3)]
    desk.pass_time(0.5)
    for entry in reversed(running):  # the last one's end is seen first
        assert entry is not None
        desk.used_up(entry)
        desk.suspend(entry)
    assert [entry.number for entry in (desk.next(), desk.next(), desk.next()) if entry] == [4, 5, 3]


def test_a_turn_begins_anew_when_nobody_waited_at_its_end() -> None:
    desk = Desk(TimeSlice(0.5))
    first = desk.submit()
    desk.next()
    desk.pass_time(0.25)
    early = desk.submit()
    desk.cancel(early)
    desk.pass_time(0.25)
    desk.used_up(first)  # and goes on
    desk.pass_time(0.25)
    late = desk.submit()
    desk.suspend(first)  # makes room for something else before its second turn is over
    assert desk.next() is first
    desk.finish(first)
    assert desk.next() is late
