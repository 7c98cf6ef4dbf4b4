"""Several levels: use moves down, a boost moves up."""

from __future__ import annotations

from typing import Any

import pytest

from procession.errors import ConfigError
from procession.scheduler import MultiLevelFeedback
from tests.helpers.desk import Desk

pytestmark = pytest.mark.row("SC4")


def turn(desk: Desk, number: int, seconds: float, *, used_up: bool = True) -> None:
    """The next task is ``number``; it runs for a while and makes room."""
    entry = desk.next()
    assert entry is not None
    assert entry.number == number
    desk.pass_time(seconds)
    if used_up:
        desk.used_up(entry)
    desk.suspend(entry)
    desk.check()


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *(("levels", {"levels": bad}) for bad in (0, -1, 33, True, 2.0, "2")),
        *(("quantum", {"quantum": bad}) for bad in (0, -1, 0.0001, 1e10, float("nan"), True, "1s", b"1", None)),
        *(("quantum", {"quantum": bad}) for bad in ([], [0.1] * 33)),
        *(("quantum[1]", {"quantum": [0.1, bad]}) for bad in (0, float("nan"), False, "1")),
        ("levels", {"levels": 3, "quantum": [0.1, 0.2]}),
        ("levels", {"levels": True, "quantum": [0.1]}),
        *(("boost", {"boost": bad}) for bad in (0, -1, float("nan"), float("inf"), True, "1s")),
    ],
)
def test_bad_arguments_are_refused_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        MultiLevelFeedback(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("arguments", "quanta"),
    [
        ({}, (0.1, 0.2, 0.4, 0.8)),
        ({"levels": 2, "quantum": 3}, (3, 6)),
        ({"quantum": [1.0, 0.5, 4.0]}, (1.0, 0.5, 4.0)),
        ({"levels": 2, "quantum": (1, 2)}, (1, 2)),
        ({"levels": 3, "quantum": 5e8}, (5e8, 1e9, 1e9)),
    ],
)
def test_quanta_are_given_or_double_from_level_to_level(arguments: dict[str, Any], quanta: tuple[float, ...]) -> None:
    assert MultiLevelFeedback(**arguments).quanta == pytest.approx(quanta)


def test_it_says_what_it_is() -> None:
    assert repr(MultiLevelFeedback(2)) == "MultiLevelFeedback(quantum=[0.1, 0.2], boost=10)"
    assert repr(MultiLevelFeedback(quantum=[1], boost=None)) == "MultiLevelFeedback(quantum=[1], boost=None)"


def test_who_used_a_quantum_waits_for_who_did_not() -> None:
    desk = Desk(MultiLevelFeedback(quantum=[1.0, 2.0, 4.0], boost=None))
    long = desk.submit(priority=0)
    desk.submit(priority=4)  # priorities are not looked at
    turn(desk, 1, 1.0)
    turn(desk, 2, 1.0)
    turn(desk, 1, 2.0)
    newcomer = desk.submit()
    assert desk.next() is newcomer
    desk.finish(newcomer)
    turn(desk, 2, 2.0)
    assert desk.next() is long
    assert desk.policy.quantum(long) == 4.0


def test_on_the_lowest_level_they_take_turns() -> None:
    desk = Desk(MultiLevelFeedback(quantum=[1.0], boost=None))
    for _ in range(3):
        desk.submit()
    for number in (1, 2, 3, 1, 2, 3, 1):
        turn(desk, number, 1.0)


def test_giving_way_before_the_end_of_the_quantum_does_not_keep_a_task_on_top() -> None:
    desk = Desk(MultiLevelFeedback(quantum=[1.0, 2.0], boost=None))
    sly = desk.submit()
    turn(desk, 1, 0.75, used_up=False)
    assert desk.next() is sly
    assert desk.policy.quantum(sly) == 0.25
    desk.pass_time(0.25)
    desk.suspend(sly)  # at the very end, before anybody said so
    assert desk.next() is sly
    assert desk.policy.quantum(sly) == 0.001  # never nothing, or time would stand still
    desk.pass_time(0.001)
    desk.used_up(sly)
    desk.suspend(sly)
    desk.submit()
    turn(desk, 2, 1.0)
    assert desk.next() is sly
    assert desk.policy.quantum(sly) == 2.0


def test_a_boost_brings_all_back_to_the_top_the_longest_waiting_first() -> None:
    desk = Desk(MultiLevelFeedback(quantum=[1.0, 1.0, 1.0], boost=10.0))
    for _ in range(3):
        desk.submit()
    turn(desk, 1, 1.0)
    turn(desk, 2, 1.0)
    turn(desk, 3, 1.0)
    turn(desk, 1, 1.0)  # now at the lowest level, since 4
    newcomer = desk.submit()  # at the top, since 4
    assert desk.policy.next_tick() == 10.0
    desk.pass_time(6.0)
    desk.check()
    assert desk.policy.next_tick() == 20.0
    after = desk.submit()
    order = []
    while (entry := desk.next()) is not None:
        order.append(entry.number)
        desk.finish(entry)
    assert order == [2, 3, 1, newcomer.number, after.number]


def test_a_boost_reaches_those_that_run() -> None:
    desk = Desk(MultiLevelFeedback(quantum=[1.0, 2.0, 4.0], boost=10.0))
    first = desk.submit()
    turn(desk, 1, 1.0)
    turn(desk, 1, 2.0)
    assert desk.next() is first
    assert desk.policy.quantum(first) == 4.0
    desk.pass_time(7.5)  # the boost comes at 10, when it has run for 7 of these
    desk.suspend(first)
    assert desk.next() is first
    assert desk.policy.quantum(first) == 0.5  # of the top level's, what it used since the boost taken off
    desk.used_up(first)
    assert desk.policy.quantum(first) == 2.0


def test_a_boost_touches_no_task() -> None:
    desk = Desk(MultiLevelFeedback(quantum=[1.0, 1.0], boost=1.0))
    for _ in range(100):
        desk.submit()
    changed = list(desk.policy.tick(1.0))
    assert changed == [(0, 1)]
    assert all(entry.mark is None for entry in desk.waiting)


def test_without_a_boost_there_are_no_ticks() -> None:
    policy = MultiLevelFeedback(boost=None)
    desk = Desk(policy)
    desk.submit()
    assert policy.next_tick() is None
    assert policy.tick(1.0) == ()


def test_quantum_of_a_task_it_never_saw_start() -> None:
    policy = MultiLevelFeedback(quantum=[1.0, 2.0])
    assert policy.quantum(Desk(policy).make()) == 1.0
