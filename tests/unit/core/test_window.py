"""A ring of measurements, summed up."""

import random
from fractions import Fraction
from math import ceil

import pytest

from procession._core.window import FAILED, SLOW, CountWindow, Percentiles, Samples, TimeWindow


def test_nothing_measured_is_all_zero():
    assert Samples().summary() == Percentiles(0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_one_measurement_is_every_percentile():
    samples = Samples()
    samples.add(3.5)
    assert samples.summary() == Percentiles(1, 3.5, 3.5, 3.5, 3.5, 3.5)


def test_of_a_hundred_the_percentiles_are_the_measurements_of_that_rank():
    samples = Samples()
    for value in range(100, 0, -1):
        samples.add(float(value))
    assert samples.summary() == Percentiles(100, 50.5, 50.0, 90.0, 99.0, 100.0)


@pytest.mark.row("SC10")
@pytest.mark.parametrize("count", [2, 3, 7, 10, 99, 101, 700, 1000])
def test_percentiles_are_the_least_value_that_so_many_do_not_exceed(count):
    rng = random.Random(count)
    samples, values = Samples(), [rng.random() for _ in range(count)]
    for value in values:
        samples.add(value)
    summary, ordered = samples.summary(), sorted(values)
    for share, got in ((50, summary.p50), (90, summary.p90), (99, summary.p99)):
        assert got == ordered[ceil(Fraction(share, 100) * count) - 1]


def test_old_measurements_are_counted_and_otherwise_forgotten():
    samples = Samples(4)
    for value in (1000.0, 1.0, 2.0, 3.0, 4.0):
        samples.add(value)
    assert samples.summary() == Percentiles(5, 2.5, 2.0, 4.0, 4.0, 4.0)


@pytest.mark.row("RE4")
def test_a_window_of_a_count_holds_the_last_so_many():
    window = CountWindow(3)
    for mark in (FAILED, SLOW, FAILED | SLOW, 0, 0):
        window.add(mark)
    assert (window.calls, window.failed, window.slow) == (3, 1, 1)
    window.settle(1e9)
    window.clear()
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)


@pytest.mark.row("RE4")
def test_a_window_of_time_forgets_what_is_old_and_bears_a_clock_that_goes_back():
    window = TimeWindow(10.0, 10)
    window.add(FAILED, 100.5)
    window.add(SLOW, 105.0)
    window.settle(109.9)
    assert (window.calls, window.failed, window.slow) == (2, 1, 1)
    window.settle(110.0)
    assert (window.calls, window.failed, window.slow) == (1, 0, 1)
    window.add(FAILED, 50.0)  # a clock that was set back stands still
    assert (window.calls, window.failed, window.slow) == (2, 1, 1)
    window.settle(1e9)
    assert (window.calls, window.failed, window.slow) == (0, 0, 0)


def test_samples_can_be_looked_at():
    samples = Samples(2)
    for value in (1.0, 2.0, 3.0):
        samples.add(value)
    assert (list(samples), len(samples), samples.count) == ([2.0, 3.0], 2, 3)
