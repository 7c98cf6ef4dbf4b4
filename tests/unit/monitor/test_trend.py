"""Slopes, percentiles, leaks and sawteeth."""

from __future__ import annotations

from array import array
from math import isnan, nan

import pytest

from procession.monitor import Figure, Trend
from procession.monitor._trend import certain_change, figure, known, theil_sen, thinned

pytestmark = pytest.mark.row("MO7")


def trend_of(memory, whole=None, samples=None, **columns) -> Trend:
    memory = list(memory)
    figures = {"rss_mb": memory, "at": list(map(float, range(len(memory)))), **columns}

    def column(name, last):
        values = figures[name]
        if last is None:
            return array("d", whole if whole is not None else values)
        kind = "i" if name in ("threads", "file_descriptors") else "d"
        return array(kind, values[-last:] if last else [])

    return Trend("a", column, len(memory) if samples is None else samples)


def leak(count=100, slope=0.1, start=50.0):
    return [start + slope * number for number in range(count)]


def saw(count=100, period=10, height=40.0, start=50.0):
    return [start + height * (number % period) / period for number in range(count)]


def test_a_figure_is_summed_up():
    found = figure(list(map(float, range(100))), list(map(float, range(100))))
    assert (found.count, found.mean, found.min, found.max) == (100, 49.5, 0.0, 99.0)
    assert (found.p50, found.p90, found.p95, found.p99) == (49.0, 89.0, 94.0, 98.0)
    assert found.slope_per_hour == pytest.approx(3600.0)


def test_nothing_known_is_no_figure():
    assert figure([], []) == figure([1.0], [nan]) or isnan(figure([1.0], [nan]).mean)
    assert figure([1.0, 2.0], [nan, nan]).count == Figure().count == 0


def test_unknown_values_are_left_out():
    assert known([1.0, 2.0, 3.0], [1.0, nan, 3.0]) == ([1.0, 3.0], [1.0, 3.0])
    assert known([1.0], [2.0]) == ([1.0], [2.0])


def test_a_slope_is_not_impressed_by_wild_values():
    values = [float(number) for number in range(30)]
    values[5] = values[17] = 1e6
    assert theil_sen(list(map(float, range(30))), values) == pytest.approx(1.0)
    assert theil_sen([1.0], [1.0]) == theil_sen([], []) == theil_sen([1.0, 1.0], [1.0, 2.0]) == 0.0


def test_many_points_become_few():
    times, values = thinned(list(map(float, range(1000))), list(map(float, range(1000))))
    assert len(times) == len(values) == 40
    assert times == values
    assert times[0] == 12.0
    assert thinned([1.0, 2.0], [3.0, 4.0]) == ([1.0, 2.0], [3.0, 4.0])


def test_a_line_changes_for_certain_and_a_sawtooth_does_not():
    times = list(map(float, range(100)))
    assert certain_change(times, leak()) == pytest.approx(0.1)
    assert certain_change(times, leak(slope=-0.1)) == pytest.approx(-0.1)
    assert certain_change(times, saw()) == certain_change(times, [5.0] * 100) == 0.0
    assert certain_change(times[:3], leak()[:3]) == 0.0
    assert certain_change([1.0] * 8, leak(8)) == 0.0


def test_a_leak_is_found_and_its_slope():
    found = trend_of(leak())
    assert found.memory_slope_mb_per_hour == pytest.approx(360.0)
    assert found.is_leaking
    assert found.leak_mb_per_hour == pytest.approx(360.0)


@pytest.mark.parametrize("period", [3, 10, 25, 33, 50, 70])
def test_a_sawtooth_is_no_leak_whatever_its_period(period):
    ever = saw(1000, period)
    for end in range(100, 1000, 7):
        if end >= 2 * period:
            assert not trend_of(ever[end - 100 : end], whole=ever[:end]).is_leaking


@pytest.mark.parametrize("period", [3, 10, 25, 33, 50])
def test_a_sawtooth_with_two_teeth_in_the_window_does_not_rise(period):
    ever = saw(1000, period)
    for end in range(100, 1000, 7):
        assert trend_of(ever[end - 100 : end]).memory_slope_mb_per_hour <= 0.0


def test_a_tooth_longer_than_the_window_has_a_slope_but_has_been_there_before():
    ever = saw(1500, period=500)
    found = trend_of(ever[1200:1300], whole=ever[:1300])
    assert found.memory_slope_mb_per_hour > 0
    assert not found.is_leaking
    assert found.leak_mb_per_hour == 0.0


def test_a_sawtooth_that_climbs_is_a_leak():
    climbing = [one + number for number, one in enumerate(saw(200, 10, 20.0))]
    assert trend_of(climbing).is_leaking


def test_growth_at_the_start_is_no_leak_before_the_window_is_full():
    found = trend_of(leak(50))
    assert found.is_leaking
    found = trend_of(leak(50))
    found.window = 100.0
    assert found.memory_slope_mb_per_hour > 0
    assert not found.is_leaking


def test_growth_too_small_or_too_short_is_no_leak():
    assert not trend_of(leak(19)).is_leaking
    assert not trend_of(leak(100, slope=0.001)).is_leaking  # less than a megabyte
    assert not trend_of(leak(100, slope=0.02, start=500.0)).is_leaking  # less than a hundredth
    assert not trend_of(leak(slope=-1.0, start=500.0)).is_leaking


def test_a_fall_is_a_negative_slope():
    assert trend_of(leak(slope=-0.1, start=500)).memory_slope_mb_per_hour == pytest.approx(-360.0)


def test_a_certain_change_against_the_slope_of_most_is_none():
    values = [10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 20.0]  # the last alone is above the first
    found = trend_of(values)
    assert certain_change(list(map(float, range(8))), values) < 0 or found.memory_slope_mb_per_hour == 0.0


def test_the_processor_is_judged_by_the_work_between_samples():
    found = trend_of([1.0] * 5, cpu_seconds=[0.0, 0.5, 1.0, 1.0, 0.9])
    assert (found.cpu.count, found.cpu.max, found.cpu.min, found.cpu.mean) == (4, 50.0, 0.0, 25.0)


def test_other_figures_and_unknown_ones():
    found = trend_of(
        [1.0] * 4,
        threads=[1, 2, 3, -1],
        file_descriptors=[-1] * 4,
        vms_mb=[1.0, 2.0, 3.0, 4.0],
        pss_mb=[nan] * 4,
        disk_read_mb=[0.0, 1.0, 2.0, 3.0],
        disk_write_mb=[0.0] * 4,
        network_received_mb=[nan] * 4,
        network_sent_mb=[0.0, 2.0, 4.0, 6.0],
    )
    assert (found.threads.count, found.threads.max) == (3, 3)
    assert found.file_descriptors.count == found.pss.count == found.network_received.count == 0
    assert found.virtual_memory.mean == 2.5
    assert found.disk_read.slope_per_hour == 3600.0
    assert found.disk_written.slope_per_hour == 0.0
    assert found.network_sent.slope_per_hour == 7200.0
    assert found.memory.p50 == 1.0


def test_an_empty_trend():
    found = Trend("a")
    assert (found.samples, found.seconds, found.memory_slope_mb_per_hour, found.is_leaking) == (0, 0.0, 0.0, False)
    assert isnan(found.since)
    assert isnan(found.until)
    assert repr(found) == "<Trend of a: 0 samples over 0 s>"
    whole = trend_of([1.0, 2.0, 3.0])
    assert (whole.since, whole.until, whole.seconds) == (0.0, 2.0, 2.0)
