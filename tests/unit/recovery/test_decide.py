"""The core of a recovery, driven by hand: time is a number."""

from __future__ import annotations

import random
from typing import Any

import pytest

from procession import Backoff, Command, FailureKind
from procession.errors import ConfigError, InvalidTransition
from procession.recovery import (
    RECOVERY_MOVES,
    Chain,
    Fallback,
    Nothing,
    Notify,
    RecoveryConfig,
    RecoveryState,
    Replace,
    Restart,
    circuit_diagram,
)
from procession.recovery._decide import Act, Case, Done, GiveUp, Noted, Step, Wait
from procession.recovery._strategies import plan_of

pytestmark = pytest.mark.row("RE5")
CRASH, TIMEOUT = FailureKind.CRASH, FailureKind.TIMEOUT
ALONE = (Step("restart"),)
CHAIN = (Step("restart", attempts=2), Step("replace", attempts=1), Step("notify", heals=False, attempts=1))


def case(**options: Any) -> Case:
    even = {"backoff": Backoff.exponential(1.0, cap=8.0, jitter=False), "stable_after": 10, "recovery_timeout": 1000}
    return Case("api", RecoveryConfig(**{**even, "window": 1000, **options}), random.Random(0))


def act(made: Case, now: float) -> Act:
    decision = made.next(now)
    assert isinstance(decision, Act), decision
    return decision


def test_the_first_attempt_is_made_at_once_and_the_next_ones_after_growing_delays():
    made = case()
    assert made.failed(CRASH, 5.0, ALONE) is Noted.BEGINS
    assert act(made, 5.0).attempt == 1
    made.acted(False, 6.0)
    assert made.next(6.0) == Wait(7.0)
    assert act(made, 7.0).attempt == 2
    made.acted(False, 7.0)
    assert made.next(8.0) == Wait(9.0)
    act(made, 9.0)
    made.acted(True, 10.0)
    assert made.state == "proving"
    assert made.next(10.0) == Wait(20.0)
    assert made.next(20.0) == Done()
    assert made.state == "healthy"
    assert made.next(20.0) == Done()


@pytest.mark.row("RE3")
def test_what_does_not_hold_is_the_same_recovery_and_what_holds_ends_it():
    made = case()
    made.failed(CRASH, 0.0, ALONE)
    act(made, 0.0)
    made.acted(True, 0.0)
    assert made.failed(CRASH, 9.0, ALONE) is Noted.JOINED  # within stable_after
    assert made.next(9.0) == Wait(10.0)
    assert act(made, 10.0).attempt == 2
    made.acted(True, 10.0)
    assert made.next(20.0) == Done()
    assert made.failed(CRASH, 21.0, ALONE) is Noted.BEGINS
    assert act(made, 21.0) == Act(ALONE[0], 1, 1021.0)  # the backoff begins anew


@pytest.mark.row("RE2")
def test_a_chain_degrades_step_by_step_and_begins_anew_when_it_was_stable():
    made = case()
    made.failed(CRASH, 0.0, CHAIN)
    names = []
    now = 0.0
    for ok in (False, True):
        names.append(act(made, now).step.name)
        made.acted(ok, now)
        if ok:
            made.failed(CRASH, now, CHAIN)
        now += 8
    names.append(act(made, now).step.name)
    made.acted(False, now, "no")
    last = act(made, now)  # somebody is told at once
    names.append(last.step.name)
    assert last.until == now + 1000
    made.acted(False, now)
    assert names == ["restart", "restart", "replace", "notify"]
    assert made.next(now) == GiveUp("strategies")
    assert made.state == "failed"
    assert made.next(now) == GiveUp("strategies")
    assert made.failed(CRASH, now, CHAIN) is Noted.LOST
    assert made.succeeded()
    made.failed(CRASH, now, CHAIN)
    assert act(made, now).step.name == "restart"


def test_two_failures_at_once_are_one_recovery():
    made = case()
    assert made.failed(CRASH, 0.0, ALONE, "first") is Noted.BEGINS
    assert made.failed(TIMEOUT, 0.0, CHAIN, "second") is Noted.JOINED
    assert act(made, 0.0).step is ALONE[0]
    assert made.failed(CRASH, 0.0, ALONE, "third") is Noted.JOINED
    made.acted(True, 0.0)
    assert made.next(10.0) == Done()
    assert made.episode is not None
    assert (made.episode.failures, made.episode.error, made.episode.kind) == (3, "third", CRASH)


def test_what_an_attempt_has_brought_up_may_fail_before_the_attempt_is_over():
    made = case()
    made.failed(CRASH, 0.0, ALONE)
    act(made, 0.0)
    made.failed(CRASH, 0.5, ALONE, fresh=True)
    made.acted(True, 1.0)
    assert made.state == "backoff"
    act(made, 2.0)
    made.failed(CRASH, 2.5, ALONE, fresh=True)
    made.mended()
    made.acted(True, 3.0)
    assert made.state == "proving"


@pytest.mark.parametrize(
    ("options", "reason", "attempts"),
    [
        ({"max_attempts": 3}, "attempts", 3),
        ({"recovery_timeout": 7}, "time", 3),
        ({"max_attempts": 50, "window": 100, "max_in_window": 4}, "window", 4),
    ],
)
def test_every_bound_ends_it(options: dict[str, Any], reason: str, attempts: int):
    made = case(**options)
    now = 0.0
    made.failed(CRASH, now, ALONE)
    made_attempts = 0
    while not isinstance(decision := made.next(now), GiveUp):
        if isinstance(decision, Act):
            made_attempts += 1
            made.acted(False, now)
        else:
            assert isinstance(decision, Wait)
            now = decision.until
    assert (decision.reason, made_attempts) == (reason, attempts)


def test_attempts_count_within_the_window_also_when_they_succeeded():
    made = case(max_in_window=2, window=100, stable_after=1)
    now = 0.0
    for _ in range(2):
        made.failed(CRASH, now, ALONE)
        act(made, now)
        made.acted(True, now)
        now += 10
        assert made.next(now) == Done()
    made.failed(CRASH, now, ALONE)
    assert made.next(now) == GiveUp("window")
    made.succeeded()
    made.failed(CRASH, now, ALONE)
    act(made, now)
    made.acted(True, now)
    assert made.next(now + 1) == Done()
    made.failed(CRASH, now + 99, ALONE)
    act(made, now + 99)
    made.acted(True, now + 99)
    made.next(now + 100)
    made.failed(CRASH, now + 102, ALONE)
    act(made, now + 102)  # the first of them was too long ago to count


def test_something_else_may_hold_the_next_attempt_back():
    made = case(recovery_timeout=100)
    made.failed(CRASH, 0.0, ALONE)
    assert made.next(0.0, not_before=30.0) == Wait(30.0)
    assert isinstance(made.next(30.0, not_before=30.0), Act)
    made.acted(False, 31.0)
    assert made.next(31.0, not_before=100.0) == GiveUp("breaker")


def test_somebody_is_told_before_it_is_given_up_whichever_bound_was_reached():
    chain = (
        Step("first", heals=False),
        Step("restart", attempts=9),
        Step("second", heals=False),
        Step("third", heals=False),
    )
    made = case(max_attempts=1)
    made.failed(CRASH, 0.0, chain)
    seen = []
    now = 0.0
    while not isinstance(decision := made.next(now), GiveUp):
        if isinstance(decision, Act):
            seen.append((decision.step.name, decision.attempt))
            made.acted(decision.step.name != "restart", now)
        else:
            assert isinstance(decision, Wait)
            now = decision.until
    assert seen == [("first", 0), ("restart", 1), ("second", 1), ("third", 1)]
    assert decision.reason == "attempts"


def test_a_strategy_that_heals_nothing_begins_nothing():
    made = case()
    quiet = (Step("notify", heals=False),)
    assert made.failed(CRASH, 0.0, quiet) is Noted.TOLD
    assert made.state == "healthy"
    made.failed(CRASH, 0.0, ALONE)
    act(made, 0.0)
    made.acted(True, 0.0)
    assert made.failed(TIMEOUT, 1.0, quiet) is Noted.TOLD
    assert made.state == "proving"


def test_success_ends_the_waiting_but_not_an_attempt():
    made = case()
    assert not made.succeeded()
    made.failed(CRASH, 0.0, ALONE)
    act(made, 0.0)
    assert not made.succeeded()
    made.acted(True, 0.0)
    assert not made.succeeded()
    made.failed(CRASH, 1.0, ALONE)
    assert made.succeeded()
    assert made.episode is not None
    assert made.episode.by_itself
    assert made.next(1.0) == Done()
    made.failed(CRASH, 2.0, ALONE)
    assert act(made, 2.0).attempt == 1


def test_a_recovery_may_be_called_off_at_any_time():
    for steps in range(3):
        made = case()
        made.failed(CRASH, 0.0, ALONE)
        if steps:
            act(made, 0.0)
        if steps == 2:
            made.acted(True, 0.0)
        made.abandon()
        assert made.state == "healthy"
        made.abandon()
        assert made.state == "healthy"


def test_stable_after_nothing_is_at_once():
    made = case(stable_after=0)
    made.failed(CRASH, 0.0, ALONE)
    act(made, 0.0)
    made.acted(True, 0.0)
    assert made.next(0.0) == Done()


@pytest.mark.row("RE3")
def test_delays_are_the_same_under_the_same_seed():
    def delays(seed: int) -> list[float]:
        made = Case("api", RecoveryConfig(max_attempts=6, recovery_timeout=1000), random.Random(seed))
        made.failed(CRASH, 0.0, ALONE)
        found, now = [], 0.0
        while not isinstance(decision := made.next(now), GiveUp):
            if isinstance(decision, Wait):
                found.append(decision.until - now)
                now = decision.until
            else:
                made.acted(False, now)
        return found

    assert delays(1) == delays(1) != delays(2)
    assert all(0 <= delay <= 0.2 * 2**n for n, delay in enumerate(delays(3)))


def test_strategies_become_steps():
    def mine() -> None: ...

    assert [(step.name, step.heals, step.attempts) for step in plan_of(Restart())] == [("restart", True, None)]
    chain = Chain(Restart(attempts=3), Chain(Replace(), mine), Notify(), Nothing())
    assert [(step.name, step.heals, step.attempts) for step in plan_of(chain)] == [
        ("restart", True, 3),
        ("replace", True, 1),
        ("mine", True, 1),
        ("notify", False, 1),
        ("nothing", False, 1),
    ]
    assert chain == Chain(Restart(attempts=3), Replace(), mine, Notify(), Nothing())
    assert hash(chain) == hash(Chain(*chain.steps))
    assert chain != Chain(Restart())
    assert repr(Chain(Nothing())) == "Chain(Nothing(attempts=None, timeout=None, target=None))"


THREE: Any = 3
TEXT: Any = "restart"
CLASS: Any = Restart


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("strategy", lambda: plan_of(TEXT)),
        ("strategy", lambda: plan_of(CLASS)),
        ("strategy", Chain),
        ("strategy", lambda: Chain(Restart(), THREE)),
        ("attempts", lambda: Restart(attempts=0)),
        ("attempts", lambda: Restart(attempts=True)),
        ("timeout", lambda: Restart(timeout=-1)),
        ("command", lambda: Replace(TEXT)),
        ("command", lambda: Fallback(TEXT)),
        ("wait", lambda: Fallback(Command("true"), wait=THREE)),
        ("callback", lambda: Notify(THREE)),
        ("max_attempts", lambda: RecoveryConfig(max_attempts=0)),
        ("max_attempts", lambda: RecoveryConfig(max_attempts=True)),
        ("recovery_timeout", lambda: RecoveryConfig(recovery_timeout=0)),
        ("window", lambda: RecoveryConfig(window=0)),
        ("window", lambda: RecoveryConfig(window=-1)),
        ("backoff", lambda: RecoveryConfig(backoff=THREE)),
        ("breaker", lambda: RecoveryConfig(breaker=THREE)),
        ("supervisors", lambda: RecoveryConfig(supervisors=TEXT)),
        ("alerts", lambda: RecoveryConfig(alerts=THREE)),
        ("alerts", lambda: RecoveryConfig(alerts={"hung": TEXT})),
        ("history_size", lambda: RecoveryConfig(history_size=0)),
    ],
)
def test_nonsense_is_refused_and_its_field_is_named(field: str, make: Any):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


def test_the_tables_allow_what_is_needed_and_no_more():
    assert not RECOVERY_MOVES.allows(RecoveryState.HEALTHY, RecoveryState.FAILED)
    made = case()
    with pytest.raises(InvalidTransition):
        made.machine.to(RecoveryState.PROVING)
    assert circuit_diagram().startswith("stateDiagram-v2\n    [*] --> closed")
