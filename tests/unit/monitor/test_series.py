"""The rings of history."""

from __future__ import annotations

from math import isnan

import pytest

from procession.monitor._sample import Reading
from procession.monitor._series import Series
from tests.monitor.support import reading

pytestmark = pytest.mark.row("MO7")


def filled(count: int, size: int = 100, **options) -> Series:
    series = Series(size)
    for number in range(count):
        series.append(float(number), reading(float(number), rss_mb=float(number), cpu_seconds=number / 2, **options))
    return series


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 99, 100, 101, 250])
def test_the_last_so_many_are_kept_in_order(count):
    series = filled(count)
    kept = list(map(float, range(max(0, count - 100), count)))
    assert len(series) == len(kept)
    assert list(series.column("at")) == kept
    assert list(series.column("rss_mb")) == kept
    assert list(series.column("rss_mb", 10)) == kept[-10:]
    assert [at for at, _ in series.readings()] == kept


def test_columns_never_grow_beyond_their_size():
    series = filled(1000, pss_mb=1.0, uss_mb=1.0, network_received_mb=1.0, network_sent_mb=1.0)
    assert series.nbytes == 100 * (7 * 8 + 2 * 4 + 4 * 8 + 1)


def test_600_samples_of_everything_take_less_than_64_kb():
    series = filled(2000, size=600, pss_mb=1.0, uss_mb=1.0, network_received_mb=1.0, network_sent_mb=1.0)
    assert series.nbytes <= 64_000


@pytest.mark.parametrize("size", [2, 3, 64, 65, 1000])
def test_sizes_that_are_no_multiple_of_a_block(size):
    series = filled(size * 2 + 1, size=size)
    assert list(series.column("at")) == list(map(float, range(size + 1, size * 2 + 1)))


def test_what_was_read_comes_back_whole_and_unknown_stays_unknown():
    first = Reading(1.0, "D", None, None, None, None, None, None, None, None, 1.0)
    second = Reading(2.0, "R", 0.5, 1.5, 2.5, 3.5, 4.5, 6, 7, 8, 2.0, 9.5, 10.5, 11.5, 12.5, 3)
    series = Series(10)
    series.append(1.0, first)
    series.append(2.0, second)
    assert series.readings() == [(1.0, first), (2.0, second)]
    assert series.readings(1) == [(2.0, second)]
    assert isnan(series.column("pss_mb")[0])


def test_seldom_figures_that_stop_are_unknown_again():
    series = Series(3)
    for at, share in enumerate((None, 1.0, None, 2.0)):
        series.append(float(at), reading(float(at), pss_mb=share))
    assert [one.pss_mb for _, one in series.readings()] == [1.0, None, 2.0]


def test_samples_have_rates_from_the_reading_before_also_the_first_of_a_part():
    series = filled(5)
    whole, part = series.samples("a", 1), series.samples("a", 1, 2)
    assert [one.cpu_percent for one in whole] == [None, 50.0, 50.0, 50.0, 50.0]
    assert part == whole[-2:]


def test_since_counts_what_was_taken_at_a_time_or_later():
    for count in (0, 5, 150):
        series = filled(count)
        times = list(series.column("at"))
        for since in (-1.0, 0.0, 2.5, 60.0, 149.0, 1000.0):
            assert series.since(since) == sum(at >= since for at in times)


def test_a_frozen_copy_stays_as_it_is():
    series = filled(5)
    column = series.frozen(2)
    series.append(5.0, reading(5.0, rss_mb=99.0))
    assert list(column("rss_mb", 2)) == [3.0, 4.0]
    assert list(column("rss_mb", None)) == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert list(series.column("rss_mb", 2)) == [4.0, 99.0]


def test_there_is_no_such_figure():
    with pytest.raises(KeyError):
        Series(5).column("weight")


def test_a_reading_at_the_same_time_has_no_rates():
    series = Series(5)
    series.append(1.0, reading(1.0, cpu_seconds=1.0))
    series.append(1.0, reading(1.0, cpu_seconds=2.0))
    assert series.samples("a", 1)[1].cpu_percent is None
