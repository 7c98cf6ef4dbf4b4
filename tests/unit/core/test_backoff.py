"""Schedules of delays, and how often they may be asked."""

import random

import pytest

from procession._core.backoff import Backoff, RetryPolicy
from procession.errors import ConfigError


class Most(random.Random):
    """Draws nearly the largest number there is, and counts."""

    drawn = 0

    def random(self) -> float:
        self.drawn += 1
        return 0.5


@pytest.mark.row("SC8")
@pytest.mark.parametrize(
    ("backoff", "ceilings"),
    [
        (Backoff.fixed(2.0), [2, 2, 2, 2, 2]),
        (Backoff.linear(1.0), [1, 2, 3, 4, 5]),
        (Backoff.linear(1.0, step=0.5, cap=2.0), [1, 1.5, 2, 2, 2]),
        (Backoff.exponential(0.5), [0.5, 1, 2, 4, 8]),
        (Backoff.exponential(0.5, multiplier=3.0, cap=10), [0.5, 1.5, 4.5, 10, 10]),
        (Backoff.exponential(0.5, multiplier=1.0), [0.5, 0.5, 0.5, 0.5, 0.5]),
        (Backoff.linear(0.0), [0, 0, 0, 0, 0]),
    ],
)
def test_delays_grow_as_said_up_to_their_cap(backoff, ceilings):
    assert [backoff.ceiling(attempt) for attempt in range(1, 6)] == ceilings


def test_a_delay_is_its_ceiling_without_jitter_and_nothing_is_drawn():
    rng = Most()
    assert Backoff.exponential(0.5, jitter=False).delay(3, rng) == 2.0
    assert Backoff.fixed(0.5).delay(3, rng) == 0.5
    assert rng.drawn == 0


def test_with_jitter_a_delay_is_drawn_evenly_below_its_ceiling():
    assert Backoff.exponential(0.5).delay(3, Most()) == 1.0
    rng = random.Random(7)
    drawn = [Backoff.fixed(1.0, jitter=True).delay(1, rng) for _ in range(2000)]
    assert 0 <= min(drawn) < 0.01 < 0.45 < sum(drawn) / 2000 < 0.55 < 0.99 < max(drawn) < 1


def test_very_late_attempts_do_not_overflow():
    assert Backoff.exponential(0.5, cap=60.0).ceiling(100_000) == 60.0
    assert Backoff.exponential(0.5, cap=1e300).ceiling(100_000) == 1e9
    assert Backoff.linear(0.5, step=1e308, cap=1e300).ceiling(100_000) == 1e9


def test_no_delay_stays_no_delay_however_late_the_attempt():
    assert Backoff.exponential(0.0).ceiling(5000) == 0.0


def test_durations_may_be_written_as_text():
    backoff = Backoff.linear("250ms", cap="1m")  # type: ignore[arg-type]
    assert (backoff.initial, backoff.step, backoff.cap) == (0.25, 0.25, 60.0)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("growth", lambda: Backoff("quadratic")),  # type: ignore[arg-type]
        ("initial", lambda: Backoff.exponential(-1)),
        ("initial", lambda: Backoff.linear(float("nan"))),
        ("cap", lambda: Backoff.exponential(1.0, cap=float("inf"))),
        ("delay", lambda: Backoff.fixed(True)),
        ("step", lambda: Backoff.exponential(1.0, multiplier=0.5)),
        ("step", lambda: Backoff.exponential(1.0, multiplier=float("nan"))),
        ("step", lambda: Backoff.linear(1.0, step=-1.0)),
        ("step", lambda: Backoff.linear(1.0, step=True)),
        ("step", lambda: Backoff.linear(1.0, step="2")),  # type: ignore[arg-type]
        ("jitter", lambda: Backoff(jitter=1)),  # type: ignore[arg-type]
        ("max_retries", lambda: RetryPolicy(-1)),
        ("max_retries", lambda: RetryPolicy(True)),
        ("max_retries", lambda: RetryPolicy(1.5)),  # type: ignore[arg-type]
        ("initial_delay", lambda: RetryPolicy(initial_delay=-1)),
        ("max_delay", lambda: RetryPolicy(max_delay="soon")),  # type: ignore[arg-type]
        ("multiplier", lambda: RetryPolicy(multiplier=0.9)),
        ("multiplier", lambda: RetryPolicy(multiplier=float("inf"))),
        ("multiplier", lambda: RetryPolicy(multiplier=True)),
        ("multiplier", lambda: RetryPolicy(multiplier="2")),  # type: ignore[arg-type]
        ("jitter", lambda: RetryPolicy(jitter=0)),  # type: ignore[arg-type]
        ("on", lambda: RetryPolicy(on=KeyboardInterrupt)),  # type: ignore[arg-type]
        ("on", lambda: RetryPolicy(on=(ValueError, "OSError"))),  # type: ignore[arg-type]
    ],
)
def test_nonsense_is_refused_and_its_field_is_named(field, make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field


@pytest.mark.row("SC8")
def test_a_policy_retries_as_often_as_it_says_and_what_it_says():
    policy = RetryPolicy(3, 0.5, jitter=False, on=OSError)  # type: ignore[arg-type]
    rng = random.Random(0)
    assert policy.on == (OSError,)
    assert [policy.next_delay(n, ConnectionError(), rng) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, None]
    assert policy.next_delay(1, ValueError(), rng) is None
    assert policy.next_delay(1, KeyboardInterrupt(), rng) is None
    assert RetryPolicy(0).next_delay(1, ValueError(), rng) is None


def test_a_policy_is_its_backoff():
    policy = RetryPolicy(2, 0.5, 8.0, 3.0)
    assert policy.backoff == Backoff("exponential", 0.5, 3.0, 8.0, True)
    assert policy.next_delay(2, ValueError(), Most()) == 0.75
