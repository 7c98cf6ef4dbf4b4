"""To each tenant its share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from procession.errors import ConfigError
from procession.scheduler import FairShare
from procession.scheduler._entry import Entry
from tests.helpers.desk import Desk

pytestmark = pytest.mark.row("SC4")
NAN = float("nan")


def run_one(desk: Desk, seconds: float = 1.0) -> str:
    """Runs the next task and says whose it was."""
    entry = desk.next()
    assert entry is not None
    desk.pass_time(seconds)
    desk.finish(entry)
    desk.check()
    return entry.tenant


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *(("weights", {"weights": bad}) for bad in (5, ["a"], "a", {1: 1.0})),
        *(("weights.a", {"weights": {"a": bad}}) for bad in (0, -1, NAN, float("inf"), 1e-7, 1e7, True, "1", None)),
        *(("default_weight", {"default_weight": bad}) for bad in (0, -1, NAN, True, "1", None)),
        *(("nominal", {"nominal": bad}) for bad in (0, -1, NAN, True, "1", None)),
    ],
)
def test_bad_arguments_are_refused_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        FairShare(**arguments)
    assert caught.value.field == field


def test_it_says_what_it_is() -> None:
    assert repr(FairShare()) == "FairShare({}, default_weight=1, nominal=1)"
    assert repr(FairShare({"a": 2.0}, 0.5, 3)) == "FairShare({'a': 2.0}, default_weight=0.5, nominal=3)"


def test_weights_given_are_copied() -> None:
    weights = {"a": 2.0}
    policy = FairShare(weights)
    weights["a"] = 7.0
    assert policy.weights == {"a": 2.0}


def test_service_is_in_proportion_to_weight() -> None:
    desk = Desk(FairShare({"a": 3.0, "b": 1.0, "c": 0.5}, default_weight=1.5))
    for tenant in ("a", "b", "c", "d"):
        for _ in range(200):
            desk.submit(2, tenant)
    assert Counter(run_one(desk) for _ in range(240)) == {"a": 120, "b": 40, "c": 20, "d": 60}


def test_within_a_tenant_priority_counts_then_arrival() -> None:
    desk = Desk(FairShare())
    for priority in (2, 0, 2, 4, 0):
        desk.submit(priority, "a")
    while desk.waiting:
        run_one(desk)
    assert [entry.number for entry in desk.starts] == [2, 5, 1, 3, 4]


def test_priorities_beyond_all_bounds_stay_within_their_tenant() -> None:
    desk = Desk(FairShare())
    desk.submit(10**30, "a")
    desk.submit(-(10**30), "a")
    desk.submit(0, "b")
    assert [run_one(desk) for _ in range(3)] == ["a", "b", "a"]
    assert [entry.number for entry in desk.starts] == [2, 3, 1]


def test_one_tenant_cannot_take_all_slots_at_once() -> None:
    desk = Desk(FairShare(), slots=4)
    for tenant in ("a", "a", "a", "a", "b", "b", "b", "b"):
        desk.submit(2, tenant)
    started = [desk.next() for _ in range(4)]
    assert Counter(entry.tenant for entry in started if entry) == {"a": 2, "b": 2}


def test_a_start_counts_as_long_as_it_is_expected_to_take() -> None:
    desk = Desk(FairShare(nominal=2.0), slots=6)
    desk.submit(2, "a", None, 10.0)
    desk.submit(2, "a")
    for _ in range(5):
        desk.submit(2, "b")
    started = [desk.next() for _ in range(6)]
    assert "".join(entry.tenant for entry in started if entry) == "abbbbb"


def test_an_end_corrects_what_the_start_was_taken_for() -> None:
    desk = Desk(FairShare())
    desk.submit(2, "a", None, 1_000.0)
    desk.submit(2, "a")
    desk.submit(2, "b")
    desk.submit(2, "b")
    assert run_one(desk, 1.0) == "a"
    assert run_one(desk, 1.5) == "b"
    assert run_one(desk, 1.0) == "a"
    assert run_one(desk, 1.0) == "b"


def test_a_newcomer_does_not_catch_up() -> None:
    desk = Desk(FairShare())
    for _ in range(200):
        desk.submit(2, "old")
    for _ in range(100):
        run_one(desk)
    for _ in range(50):
        desk.submit(2, "new")
    assert Counter(run_one(desk) for _ in range(20)) == {"old": 10, "new": 10}


def test_who_was_idle_does_not_catch_up_either() -> None:
    desk = Desk(FairShare())
    desk.submit(2, "a")
    for _ in range(100):
        desk.submit(2, "b")
    for _ in range(60):
        run_one(desk)
    for _ in range(50):
        desk.submit(2, "a")
    assert Counter(run_one(desk) for _ in range(20)) == {"a": 10, "b": 10}


def test_going_away_for_a_moment_wins_nothing() -> None:
    desk = Desk(FairShare())
    for tenant in ("greedy", "modest"):
        desk.submit(2, tenant)
    assert run_one(desk, 100.0) == "greedy"
    for _ in range(20):
        desk.submit(2, "modest")
    desk.submit(2, "greedy")
    assert {run_one(desk) for _ in range(21)} == {"modest"}
    assert run_one(desk) == "greedy"


def test_a_wrong_estimate_of_others_costs_a_newcomer_nothing() -> None:
    desk = Desk(FairShare(), slots=2)
    desk.submit(2, "wrong", None, 1_000_000.0)
    wrong = desk.next()
    assert wrong is not None
    desk.pass_time(1.0)
    desk.submit(2, "new")
    desk.finish(wrong)
    for _ in range(10):
        desk.submit(2, "wrong")
        desk.submit(2, "new")
    assert Counter(run_one(desk) for _ in range(20)) == {"wrong": 10, "new": 10}


def test_a_suspended_task_does_not_make_its_tenant_a_newcomer() -> None:
    desk = Desk(FairShare())
    desk.submit(2, "a")
    desk.submit(2, "b")
    desk.submit(2, "b")
    assert run_one(desk, 10.0) == "a"
    for _ in range(2):
        desk.submit(2, "a")
    entry = desk.next()
    assert entry is not None
    assert entry.tenant == "b"
    desk.cancel(next(one for one in desk.waiting if one.tenant == "b"))
    desk.pass_time(1.0)
    desk.suspend(entry)  # its tenant has 1 second, the other 10: it is still the one that was served least
    desk.check()
    assert desk.next() is entry
    desk.pass_time(1.0)
    desk.suspend(entry)
    late = desk.submit(2, "b")
    order = [desk.next()]
    assert order == [entry]
    desk.finish(entry)
    assert desk.next() is late


def test_whoever_comes_when_nobody_is_there_begins_where_the_last_one_ended() -> None:
    desk = Desk(FairShare())
    desk.submit(2, "a")
    run_one(desk, 50.0)
    desk.pass_time(1.0)
    for _ in range(10):
        desk.submit(2, "b")
        desk.submit(2, "a")
    assert Counter(run_one(desk) for _ in range(10)) == {"a": 5, "b": 5}


def test_what_a_start_adds_its_end_takes_back_to_the_last_digit() -> None:
    policy = FairShare({"a": 0.3, "b": 7.77})
    desk = Desk(policy, slots=3)
    for tenant in ("a", "b", "c"):
        desk.submit(2, tenant, None, 0.1)
    for entry in [desk.next() for _ in range(3)]:
        assert entry is not None
        desk.finish(entry)  # none of them has run for any time
    for _ in range(1000):
        entry = desk.submit(2, "a", None, 0.7)
        assert desk.next() is entry
        desk.finish(entry)
    assert {account.served for account in policy._accounts.values()} == {0}
    assert {account.charged for account in policy._accounts.values()} == {0}


def test_tenants_gone_are_forgotten_unless_they_had_more_than_others() -> None:
    policy = FairShare()
    desk = Desk(policy)
    desk.submit(2, "rich")
    desk.submit(2, "busy")
    run_one(desk, 1_000_000.0)
    for number in range(2_000):
        desk.submit(2, "busy")
        desk.submit(2, f"passer-by-{number}")
        run_one(desk)
        run_one(desk)
    assert len(policy._accounts) < 300
    assert "rich" in policy._accounts
    desk.submit(2, "rich")
    assert run_one(desk) == "busy"


def test_a_tenant_that_is_idle_for_no_time_is_not_forgotten_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procession.scheduler._policies._fair._KEPT", 0)
    policy = FairShare()
    policy._limit = 0
    desk = Desk(policy, slots=2)
    slow, fast = desk.submit(2, "slow"), desk.submit(2, "fast")
    assert {desk.next(), desk.next()} == {slow, fast}
    desk.pass_time(1.0)
    desk.submit(2, "fast")
    desk.suspend(slow)
    assert policy._accounts["slow"].served
    desk.check()


def test_only_the_tenant_concerned_is_put_in_order_again() -> None:
    policy = FairShare()
    desk = Desk(policy)
    first: Entry = desk.submit(1, "a")
    desk.submit(3, "a")
    desk.submit(2, "b")
    changed: list[Any] = []
    started = policy.started
    policy.started = lambda task, now: changed.append(found := tuple(started(task, now))) or found
    assert desk.next() is first
    assert changed == [(("a", 1), ("a", 3))]
