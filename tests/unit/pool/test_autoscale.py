"""The one rule of size."""

import pytest

from procession.pool._autoscale import Load, Rule, Scaling, decide

pytestmark = pytest.mark.row("PO4")

RULE = Rule(least=1, most=8, cool_down=5, patience=0.1)


def load(waiting, workers, *, running=None, starting=0, waited=0.0):
    busy = workers - starting if running is None else min(running, workers)
    return Load(
        waiting=waiting, busy=busy, running=busy if running is None else running, workers=workers,
        starting=starting, waited=waited,
    )  # fmt: skip


def test_a_backlog_of_more_than_twice_the_workers_grows_to_half_of_it():
    verdict = decide(load(8, 2), RULE, Scaling(), 0)
    assert verdict.target == 5
    assert verdict.reason == "backlog 10"
    assert decide(load(100, 2), RULE, Scaling(), 0).target == 8
    assert decide(load(2, 2), RULE, Scaling(), 0).target == 2


def test_it_does_not_grow_again_before_it_has_cooled_down():
    grown = decide(load(8, 1), RULE, Scaling(), 0).scaling
    again = decide(load(30, 5, starting=1), RULE, grown, 1)
    assert (again.target, again.look_again) == (5, 5)
    assert decide(load(30, 5), RULE, grown, 5).target == 8


def test_who_has_run_out_of_patience_gets_another_worker():
    verdict = decide(load(1, 1), RULE, Scaling(), 10)
    assert (verdict.target, verdict.look_again) == (1, 10.1)
    assert decide(load(1, 1, waited=0.1), RULE, Scaling(grown_at=9), 10).target == 2
    assert decide(load(1, 2, starting=1, waited=9), RULE, Scaling(), 10).target == 2
    assert decide(load(3, 2, starting=1, waited=9), RULE, Scaling(), 10).target == 2


def test_without_patience_everybody_gets_one_at_once():
    rule = Rule(least=0, most=8, patience=0)
    assert decide(load(3, 0, running=0), rule, Scaling(grown_at=0), 1).target == 3
    assert decide(load(3, 1, starting=1, running=0), rule, Scaling(grown_at=0), 1).target == 3


def test_too_little_to_do_shrinks_by_one_after_the_cool_down():
    first = decide(load(0, 4, running=1), RULE, Scaling(), 0)
    assert (first.target, first.look_again) == (4, 5)
    assert decide(load(0, 4, running=1), RULE, first.scaling, 4.9).target == 4
    shrunk = decide(load(0, 4, running=1), RULE, first.scaling, 5)
    assert (shrunk.target, shrunk.reason) == (3, "little to do")
    assert decide(load(0, 3, running=1), RULE, shrunk.scaling, 9.9).target == 3
    busy = decide(load(0, 3, running=2), RULE, shrunk.scaling, 6)
    assert busy.scaling.low_since is None


@pytest.mark.parametrize("now", [0.0, 100.0])
@pytest.mark.parametrize("waiting", [0, 1, 50])
@pytest.mark.parametrize("workers", [0, 1, 8, 20])
def test_it_stays_within_its_limits(waiting, workers, now):
    verdict = decide(load(waiting, workers, waited=1), RULE, Scaling(low_since=0), now)
    assert verdict.target >= min(RULE.least, workers)
    if verdict.reason:
        assert verdict.target <= max(RULE.most, workers - 1)


def test_it_stops_growing_at_the_most():
    assert decide(load(100, 8, waited=9), RULE, Scaling(), 0).target == 8
