"""A breaker against a model that keeps every call and counts them all again each time it is asked."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession._core.window import CountWindow, TimeWindow
from procession.recovery import BreakerConfig, CircuitState, Count, Time
from procession.recovery._breaker import Circuit

pytestmark = pytest.mark.row("RE4")

S = CircuitState
PASSING = (S.CLOSED, S.FORCED_CLOSED, S.METRICS_ONLY, S.DISABLED)


class Model:
    """What the rules say, written down without regard to cost."""

    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        self.state = S.CLOSED
        self.since = 0.0
        self.log: list[tuple[float, int]] = []  # outcomes that count in this state
        self.probes: dict[int, float] = {}  # by token
        self.of: dict[int, int] = {}  # the generation each token belongs to
        self.generation = 0
        self.granted = 0
        self.let_through: dict[int, int] = {}  # by half-open generation, given back ones taken off

    def to(self, state: CircuitState, at: float) -> None:
        self.state, self.since = state, at
        self.generation += 1
        self.log, self.probes, self.granted = [], {}, 0

    def settle(self, now: float) -> None:
        config = self.config
        if self.state is S.OPEN and config.auto_half_open and now >= self.since + config.open_for:
            self.to(S.HALF_OPEN, now)
        while self.state is S.HALF_OPEN:
            due: list[tuple[float, int, int]] = []
            if config.half_open_wait is not None:
                due.append((self.since + config.half_open_wait, 0, 0))
            due += [(began + config.probe_timeout, 1, token) for token, began in self.probes.items()]
            if not due or min(due)[0] > now:
                return
            at, what, token = min(due)
            if what == 0:
                self.to(S.OPEN, at)
                return
            del self.probes[token]
            self.log.append((at, 1))
            self.judge_probes(at)

    def acquire(self, now: float) -> bool:
        if self.state in PASSING:
            return True
        self.settle(now)
        if self.state is S.OPEN and now >= self.since + self.config.open_for:
            self.to(S.HALF_OPEN, now)
        if self.state is S.HALF_OPEN and self.granted < self.config.half_open_permits:
            self.granted += 1
            return True
        return False

    def note(self, token: int, now: float) -> None:
        self.of[token] = self.generation
        if self.state is S.HALF_OPEN:
            self.probes[token] = now
            self.let_through[self.generation] = self.let_through.get(self.generation, 0) + 1

    def finish(self, token: int, mark: int, now: float) -> None:
        if self.state not in PASSING:
            self.settle(now)
        if self.of[token] != self.generation:
            return
        if self.state is S.HALF_OPEN:
            if self.probes.pop(token, None) is not None:
                self.log.append((now, mark))
                self.judge_probes(now)
        elif self.state in PASSING and self.state is not S.DISABLED:
            self.log.append((now, mark))
            if self.state is S.CLOSED and self.over(now):
                self.to(S.OPEN, now)

    def give_back(self, token: int, now: float) -> None:
        if self.probes:
            self.settle(now)
        if self.state is S.HALF_OPEN and self.probes.pop(token, None) is not None:
            self.granted -= 1
            self.let_through[self.generation] -= 1

    def judge_probes(self, now: float) -> None:
        if len(self.log) >= self.config.half_open_permits:
            marks = [mark for _, mark in self.log]
            self.to(S.OPEN if self.limits(marks, len(marks), half=True) else S.CLOSED, now)

    def over(self, now: float) -> bool:
        windows = getattr(self.config.window, "windows", (self.config.window,))
        return any(self.limits(*self.inside(window, now), half=False) for window in windows)

    def inside(self, window: Any, now: float) -> tuple[list[int], int]:
        if isinstance(window, Count):
            return [mark for _, mark in self.log[-window.calls :]], min(self.config.minimum_calls, window.calls)
        width = window.seconds / window.parts
        first = math.floor(now / width) - window.parts
        return [mark for at, mark in self.log if math.floor(at / width) > first], self.config.minimum_calls

    def limits(self, marks: list[int], enough: int, half: bool) -> bool:
        config, calls = self.config, len(marks)
        failed, slow = sum(mark & 1 for mark in marks), sum(mark >> 1 for mark in marks)
        if config.failure_count is not None:
            least = min(config.failure_count, config.half_open_permits) if half else config.failure_count
            if failed >= least:
                return True
        if calls < enough:
            return False
        by_rate = config.failure_rate is not None and failed > 0 and failed / calls >= config.failure_rate
        return bool(by_rate or (config.slow_rate is not None and slow > 0 and slow / calls >= config.slow_rate))


BY_HAND = (S.OPEN, S.CLOSED, S.HALF_OPEN, S.FORCED_OPEN, S.FORCED_CLOSED, S.METRICS_ONLY, S.DISABLED)


def some_config(rng: random.Random) -> BreakerConfig:
    windows: list[Any] = [Count(rng.randint(1, 8)), Time(rng.choice([0.5, 2, 5]), rng.choice([1, 2, 5, 10]))]
    windows.append(windows[0] | windows[1])
    return BreakerConfig(
        window=rng.choice(windows),
        failure_rate=rng.choice([None, 0, 0.3, 0.5, 0.7, 1]),
        failure_count=rng.choice([None, None, 1, 3]),
        slow_call=1.0,
        slow_rate=rng.choice([None, 0.5, 1]),
        minimum_calls=rng.randint(1, 6),
        open_for=rng.choice([0.5, 1, 3]),
        half_open_permits=rng.randint(1, 4),
        half_open_wait=rng.choice([None, None, 1, 4]),
        probe_timeout=rng.choice([1, 2, 60]),
        auto_half_open=rng.random() < 0.3,
    )


def run_trace(rng: random.Random, steps: int) -> set[CircuitState]:
    config = some_config(rng)
    circuit, model, now = Circuit(config), Model(config), 0.0
    out: list[int] = []
    seen: set[CircuitState] = set()
    bad = rng.random()
    for _ in range(steps):
        what = rng.random()
        if what < 0.4:
            token = circuit.acquire(now)
            assert bool(token) == model.acquire(now)
            if token:
                model.note(token, now)
                out.append(token)
        elif what < 0.72 and out:
            token = out.pop(rng.randrange(len(out)))
            mark = rng.choice([1, 2, 3]) if rng.random() < bad else 0
            if mark or not circuit.succeed(token):
                circuit.finish(token, mark, now)
            model.finish(token, mark, now)
        elif what < 0.8 and out:
            token = out.pop(rng.randrange(len(out)))
            circuit.give_back(token, now)
            model.give_back(token, now)
        elif what < 0.82:
            new = rng.choice(BY_HAND)
            if new in circuit._machine._table.moves[circuit.state]:
                circuit.move(new, now, "by hand")
                model.to(new, now)
        else:
            now += rng.choice([0.0, 0.1, 0.25, 0.5, 1.0, 4.0])
            if rng.random() < 0.3:
                circuit.settle(now)
                model.settle(now)
        assert circuit.state is model.state, circuit.story()
        assert circuit.since == model.since
        assert len(circuit._probes) == len(model.probes) <= config.half_open_permits
        assert all(count <= config.half_open_permits for count in model.let_through.values())
        assert circuit.retry_after(now) >= 0.0
        if circuit.state is S.CLOSED:
            assert bool(circuit.exceeded(now)) == model.over(now)
        seen.add(circuit.state)
    return seen


@pytest.mark.timeout(120)
def test_ten_thousand_random_traces():
    seen: set[CircuitState] = set()
    for seed in range(10_000):
        try:
            seen |= run_trace(random.Random(seed), 40)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert seen == set(CircuitState)


@settings(max_examples=500, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(1, 120))
def test_any_trace(rng: random.Random, steps: int):
    run_trace(rng, steps)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([Count(1), Count(3), Time(1, 1), Time(1, 4), Time(3, 10)]),
    st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3)), max_size=60),
)
def test_windows_hold_what_a_scan_finds(window: Count | Time, calls: list[tuple[float, int]]):
    made: CountWindow | TimeWindow = window.make()
    log: list[tuple[float, int]] = []
    now = 0.0
    for step, mark in calls:
        now += step
        made.add(mark, now)
        log.append((now, mark))
        if isinstance(window, Count):
            inside = [mark for _, mark in log[-window.calls :]]
        else:
            assert window.parts is not None
            width = window.seconds / window.parts
            inside = [mark for at, mark in log if math.floor(at / width) > math.floor(now / width) - window.parts]
        assert (made.calls, made.failed, made.slow) == (
            len(inside),
            sum(mark & 1 for mark in inside),
            sum(mark >> 1 for mark in inside),
        )
