"""Order of arrival, priorities that grow with waiting, and the policy they all are made from."""

from __future__ import annotations

from typing import Any

import pytest

from procession.errors import ConfigError
from procession.scheduler import Fifo, Policy, PriorityAging
from tests.helpers.desk import Desk

pytestmark = pytest.mark.row("SC3")


@pytest.mark.parametrize("bad", [-1, -0.001, float("nan"), float("inf"), True, "0.1", None])
def test_bad_factors_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        PriorityAging(bad)
    assert caught.value.field == "aging_factor"


def test_they_say_what_they_are() -> None:
    assert repr(Fifo()) == "Fifo()"
    assert repr(PriorityAging()) == "PriorityAging(aging_factor=0.1)"


def order(desk: Desk) -> list[int]:
    found = []
    while (entry := desk.next()) is not None:
        found.append(entry.number)
        desk.finish(entry)
    return found


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(0.1, [1, 2]), (0.125, [1, 2]), (0.0625, [2, 1]), (0, [2, 1]), (1e-300, [2, 1]), (1e6, [1, 2])],
)
def test_after_the_inverse_of_the_factor_a_level_is_made_up_for(factor: float, expected: list[int]) -> None:
    desk = Desk(PriorityAging(factor))
    desk.submit(3)
    desk.pass_time(10.0)
    desk.submit(2)
    assert order(desk) == expected


def test_at_the_very_moment_they_are_equal_the_older_one_is_first() -> None:
    desk = Desk(PriorityAging(0.5))
    desk.submit(4)
    desk.pass_time(4.0)
    desk.submit(2)
    desk.submit(1)
    assert order(desk) == [3, 1, 2]


def test_without_ageing_priorities_are_strict_however_long_one_waits() -> None:
    desk = Desk(PriorityAging(0))
    desk.submit(1)
    desk.pass_time(1e9)
    desk.submit(0)
    assert order(desk) == [2, 1]


def test_the_base_keeps_the_order_of_arrival_and_changes_nothing() -> None:
    policy = Policy()
    task = Desk(policy).make()
    assert policy.rank(task, 7) == 7
    assert policy.group(task) == policy.offset(0) == 0
    assert [*policy.queued(task, 0.0), *policy.started(task, 0.0), *policy.stopped(task, 0.0, 0.0)] == []
    assert [*policy.left(task, 0.0), *policy.tick(0.0)] == []
    policy.admit(task, 0.0)
    policy.settled(task, 0.0)
    policy.used_up(task, 0.0)
    assert policy.quantum(task) is policy.next_tick() is None
    desk = Desk(policy)
    for priority in (4, 0, 2):
        desk.submit(priority)
    assert order(desk) == [1, 2, 3]
