"""Recoveries, availability and snapshots against models that look at everything."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import Backoff, FailureKind
from procession.recovery import RecoveryConfig, RecoveryState, availability
from procession.recovery._decide import Act, Case, Done, GiveUp, Noted, Step, Wait
from procession.recovery._history import Ledger
from procession.recovery._snapshot import Part, Unserialisable, decode, encode, snapshot

steps = st.builds(Step, st.sampled_from("abcd"), st.booleans(), st.sampled_from([None, 1, 2]))
happenings = st.lists(
    st.tuples(st.sampled_from(["fail", "fresh", "act", "act", "wait", "wait", "tick", "success"]), st.integers(0, 20)),
    max_size=80,
)


class Story:
    """A case, and what must hold of it after each thing that happens."""

    def __init__(self, plan: list[Step], bounds: RecoveryConfig, seed: int) -> None:
        self.plan = plan
        self.bounds = bounds
        self.case = Case("x", bounds, random.Random(seed))
        self.now = self.began = 0.0
        self.position = 0
        self.acting = False
        self.attempts: list[float] = []  # since it was last stable, or said to work
        self.windowed: list[float] = []

    def fail(self, fresh: bool) -> None:
        case, before = self.case, self.case.state
        noted = case.failed(FailureKind.CRASH, self.now, self.plan, fresh=fresh)
        if not any(step.heals for step in self.plan):
            assert noted is Noted.TOLD
            assert case.state is before is RecoveryState.HEALTHY
            return
        expected = {RecoveryState.HEALTHY: Noted.BEGINS, RecoveryState.FAILED: Noted.LOST}
        assert noted is expected.get(before, Noted.JOINED)
        if noted is Noted.BEGINS:
            self.began, self.position = self.now, 0
        if before is RecoveryState.PROVING:
            assert case.state == "backoff"

    def act(self, ok: bool) -> None:
        if self.acting:
            self.case.acted(ok, self.now)
            assert self.case.state in ("proving", "backoff")
            self.acting = False

    def succeed(self) -> None:
        if self.case.succeeded() or self.case.state is RecoveryState.HEALTHY:
            assert self.case.state == "healthy"
            self.attempts, self.windowed = [], []

    def go_on(self, patient: bool) -> None:
        case, was = self.case, self.case.state
        if self.acting or case.episode is None:
            return
        match case.next(self.now):
            case Wait(until):
                assert until > self.now
                assert case.state is was
                self.now = until if patient else self.now
            case Act() as act:
                assert was == "backoff"
                self.begin(act)
            case Done():
                assert case.state == "healthy"
                if was is RecoveryState.PROVING:
                    self.attempts = []
            case GiveUp(reason):
                assert case.state == "failed"
                assert reason in ("attempts", "window", "time", "strategies")
                if was is RecoveryState.BACKOFF and reason == "attempts":
                    assert len(self.attempts) == self.bounds.max_attempts

    def begin(self, act: Act) -> None:
        episode, now = self.case.episode, self.now
        assert episode is not None
        self.acting = True
        assert act.until > now
        assert act.attempt == episode.attempts
        assert episode.step >= self.position  # a chain never goes back
        self.position = episode.step
        assert self.plan[episode.step] is act.step
        if act.step.heals:
            self.attempts.append(now)
            self.windowed = [*(at for at in self.windowed if at > now - self.bounds.window), now]
            assert len(self.attempts) <= self.bounds.max_attempts
            assert len(self.windowed) <= self.bounds.max_in_window
            assert now < self.began + self.bounds.recovery_timeout


@pytest.mark.row("RE5")
@settings(max_examples=1000, deadline=None)
@given(
    plan=st.lists(steps, min_size=1, max_size=4),
    most=st.integers(1, 4),
    timeout=st.sampled_from([3, 10, 1000]),
    in_window=st.integers(1, 5),
    window=st.sampled_from([5, 50]),
    stable=st.sampled_from([0, 2, 7]),
    happened=happenings,
    seed=st.integers(0, 5),
)
def test_no_story_breaks_a_bound(
    plan: list[Step],
    most: int,
    timeout: int,
    in_window: int,
    window: int,
    stable: int,
    happened: list[tuple[str, int]],
    seed: int,
):
    bounds = RecoveryConfig(
        max_attempts=most,
        recovery_timeout=timeout,
        max_in_window=in_window,
        window=window,
        stable_after=stable,
        backoff=Backoff.exponential(1.0, cap=4.0),
    )
    story = Story(plan, bounds, seed)
    for what, value in happened:
        if what in ("fail", "fresh"):
            story.fail(what == "fresh")
        elif what == "act":
            story.act(bool(value % 3))
        elif what == "tick":
            story.now += value / 2
        elif what == "success":
            story.succeed()
        else:
            story.go_on(bool(value % 2))
    assert len(story.case.recent) <= in_window


@pytest.mark.row("RE6")
@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40),
    st.one_of(st.none(), st.integers(1, 60)),
    st.integers(0, 9),
)
def test_availability_is_what_counting_every_second_gives(story: list[tuple[bool, int]], window: int | None, rest: int):
    ledger, now, down = Ledger(100.0), 100, False
    seconds: list[bool] = []
    for fails, gap in story:
        seconds += [not down] * gap
        now += gap
        if fails:
            ledger.down(now)
        else:
            ledger.up(now)
        down = fails
    seconds += [not down] * rest
    now += rest
    looked_at = seconds if window is None else seconds[max(0, len(seconds) - window) :]
    expected = sum(looked_at) / len(looked_at) if looked_at else 1.0
    assert math.isclose(ledger.availability(now, window), expected, abs_tol=1e-9)


@pytest.mark.row("RE6")
def test_outages_of_long_ago_are_forgotten_and_not_counted_as_up():
    ledger = Ledger(0.0)
    for number in range(1500):
        ledger.down(number * 10.0)
        ledger.up(number * 10.0 + 5)
    assert ledger.availability(15_000.0, None) == pytest.approx(0.5, abs=0.001)
    assert ledger.availability(15_000.0, 1000.0) == pytest.approx(0.5, abs=0.01)
    assert availability([], 5, 5) == availability([(0, 1)], 5, 1) == 1.0
    assert availability([(0, None)], 5, 10) == 0.0


def encoded(parts: list[Part]) -> bytes:
    return b"".join(piece for part in parts for piece in encode(part))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=4), inner, max_size=6),
    max_leaves=30,
)


@pytest.mark.row("RE7")
@settings(max_examples=1000, deadline=None)
@given(value=values, times=st.sampled_from([1, 1, 40, 700]), shape=st.integers(0, 2))
def test_a_snapshot_is_equal_to_what_was_saved_however_it_was_cut(value: Any, times: int, shape: int):
    state = ([value] * times, {f"key {number}": value for number in range(times)}, {"in": [value] * times, "x": value})
    chosen = state[shape]
    parts = snapshot(chosen)
    data = encoded(parts)
    assert decode(data) == chosen == json.loads(data)


odd = st.sampled_from([{1: 2}, {None: 1}, {1.5: 1}, {True: 0}, b"x", {1}, 1j, float("nan"), object()])


@pytest.mark.row("RE7")
@settings(max_examples=500, deadline=None)
@given(value=values, wrong=odd, times=st.sampled_from([0, 1, 40, 700]), shape=st.integers(0, 3))
def test_one_wrong_value_anywhere_is_found(value: Any, wrong: Any, times: int, shape: int):
    state: Any = (
        [*([value] * times), wrong],
        {**{f"key {number}": value for number in range(times)}, "wrong": wrong},
        {"in": [*([[value]] * times), {"deep": [wrong]}]},
        [[value, {"x": (value, wrong)}]] + [value] * times,
    )[shape]
    with pytest.raises(Unserialisable):
        encoded(snapshot(state))
