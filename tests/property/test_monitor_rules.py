"""The rule engine, the rings and the slopes against models that look at everything."""

from __future__ import annotations

import math
from array import array
from itertools import combinations
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession.errors import AlertNotFound
from procession.monitor._alerts import AlertBook
from procession.monitor._rules import Patience, Phase, Standing, Verdict, decide, settled_by_hand
from procession.monitor._sample import Reading
from procession.monitor._series import Series
from procession.monitor._trend import certain_change, figure, theil_sen, thinned
from procession.monitor._words import AlertType, Severity

ANSWERS = st.lists(st.tuples(st.sampled_from([True, True, False, False, None]), st.floats(0.1, 5.0)), max_size=60)
PATIENCE = st.builds(
    Patience,
    for_samples=st.integers(1, 4),
    for_seconds=st.sampled_from([0.0, 1.0, 6.0]),
    clear_samples=st.integers(1, 4),
    clear_seconds=st.sampled_from([0.0, 1.0, 6.0]),
    flap_window=st.sampled_from([0.0, 10.0, 1e9]),
)


def model(answers, patience):
    """When alerts are raised and resolved, found by looking back over all answers that were given."""
    known = [(holds, at) for holds, at in answers if holds is not None]
    raised, flaps, over_at, events = False, 0, -math.inf, []
    start = 0  # answers before this do not count for the next move
    for index, (_, at) in enumerate(known):
        run = []
        for holds, when in reversed(known[start : index + 1]):
            if holds is raised:
                break
            run.append(when)
        if not run:
            continue
        more = 2**flaps if raised else 1
        samples = patience.clear_samples if raised else patience.for_samples
        seconds = patience.clear_seconds if raised else patience.for_seconds
        if len(run) >= samples * more and at - run[-1] >= seconds * more:
            if raised:
                over_at = at
                events.append(("resolve", at))
            else:
                flaps = min(flaps + 1, 5) if at - over_at <= patience.flap_window else 0
                events.append(("raise", at))
            raised, start = not raised, index + 1
    return events


def times(steps):
    found, now = [], 0.0
    for holds, step in steps:
        now += step
        found.append((holds, now))
    return found


@pytest.mark.row("MO5")
@settings(max_examples=500, deadline=None)
@given(ANSWERS, PATIENCE)
def test_decisions_are_those_of_the_model(steps, patience):
    standing, events = Standing(), []
    for holds, at in times(steps):
        standing, verdict = decide(standing, holds, at, patience)
        if verdict is not None:
            events.append((verdict.value, at))
        assert standing.is_raised == (bool(events) and events[-1][0] == "raise")
    assert events == model(times(steps), patience)


@pytest.mark.row("MO4")
@settings(max_examples=500, deadline=None)
@given(ANSWERS, PATIENCE, st.sets(st.integers(0, 60), max_size=4))
def test_an_alert_is_raised_once_however_it_ends(steps, patience, by_hand):
    standing, active = Standing(), 0
    for index, (holds, at) in enumerate(times(steps)):
        if index in by_hand and standing.is_raised:
            standing = settled_by_hand(standing, at)
            active -= 1
            assert standing.phase is Phase.SETTLED
        before = standing
        standing, verdict = decide(standing, holds, at, patience)
        active += (verdict is Verdict.RAISE) - (verdict is Verdict.RESOLVE)
        assert active in (0, 1)
        assert standing.is_raised == bool(active)
        if before.phase is Phase.SETTLED and holds is not False:
            assert verdict is None


@pytest.mark.row("MO4")
@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["add", "resolve", "overdue"])), max_size=60),
    st.integers(1, 3),
)
def test_the_book_has_one_active_alert_per_condition(moves, size):
    book, past = AlertBook(size), list[Any]()
    active: dict[str, str] = {}
    counts: dict[str, int] = {}
    for now, (who, move) in enumerate(moves):
        if move == "add":
            alert = book.add(
                (who, "r"),
                process=who,
                target=who,
                pid=1,
                owner="",
                type=AlertType.RULE,
                severity=Severity.INFO,
                message="",
                raised_at=float(now),
            )
            counts[who] = counts.get(who, 0) + 1
            assert alert.count == counts[who]
            assert active.setdefault(who, alert.id) == alert.id
        elif move == "resolve" and who in active:
            past.append(book.resolve(active.pop(who), float(now), "cleared"))
        elif move == "overdue":
            late = book.overdue()
            assert (late is not None) == (len(active) > size)
            if late is not None:
                assert late.raised_at == min(alert.raised_at for alert in book.active.values())
        assert {alert.process: id for id, alert in book.active.items()} == active
        assert list(book.past) == past[-size:]
        for alert in past[:-size]:
            with pytest.raises(AlertNotFound):
                book.get(alert.id)


NUMBERS = st.one_of(st.none(), st.floats(0, 1e6))
READINGS = st.builds(
    Reading,
    taken=st.just(0.0),
    letter=st.sampled_from("RSDT"),
    cpu_seconds=NUMBERS,
    rss_mb=NUMBERS,
    vms_mb=NUMBERS,
    disk_read_mb=NUMBERS,
    disk_write_mb=NUMBERS,
    file_descriptors=st.one_of(st.none(), st.integers(0, 1000)),
    threads=st.one_of(st.none(), st.integers(1, 1000)),
    context_switches=st.one_of(st.none(), st.integers(0, 10**9)),
    uptime=st.just(0.0),
    pss_mb=NUMBERS,
    uss_mb=NUMBERS,
    network_received_mb=NUMBERS,
    network_sent_mb=NUMBERS,
    processes=st.integers(1, 5),
)


@pytest.mark.row("MO7")
@settings(max_examples=500, deadline=None)
@given(st.integers(2, 200), st.lists(READINGS, max_size=30), st.integers(1, 8), st.integers(0, 30))
def test_a_ring_is_the_end_of_a_list(size, readings, times_over, last):
    series, model = Series(size), []
    for number, one in enumerate(readings * times_over):
        at = float(number)
        model.append((at, one._replace(taken=at, uptime=at)))
        series.append(*model[-1])
    assert len(series) == min(size, len(model))
    assert series.readings() == model[-size:]
    if last:
        assert series.readings(last) == model[-size:][-last:]
    for since in (0.0, 3.5, float(len(model))):
        assert series.since(since) == sum(at >= since for at, _ in model[-size:])


POINTS = st.lists(st.tuples(st.floats(0.1, 10), st.floats(-1e6, 1e6)), min_size=2, max_size=40)


def spread(points):
    at, found = 0.0, []
    for step, value in points:
        at += step
        found.append((at, value))
    return [at for at, _ in found], [value for _, value in found]


@pytest.mark.row("MO7")
@settings(max_examples=500, deadline=None)
@given(POINTS)
def test_slopes_and_percentiles_are_what_they_are_called(points):
    at, values = spread(points)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(list(zip(at, values, strict=True)), 2)]
    assert theil_sen(at, values) == pytest.approx(median(slopes), rel=1e-9, abs=1e-9)
    found = figure(array("d", at), array("d", values))
    assert (found.min, found.max, found.count) == (min(values), max(values), len(values))
    for percent in (50, 90, 95, 99):
        value = getattr(found, f"p{percent}")
        assert sum(one <= value for one in values) >= percent / 100 * len(values)
        assert sum(one < value for one in values) < percent / 100 * len(values)
    assert thinned(at, values) == (at, values)


@pytest.mark.row("MO7")
@settings(max_examples=500, deadline=None)
@given(POINTS, st.floats(-100, 100))
def test_what_is_certain_is_no_more_than_the_quarters_say(points, slope):
    at, values = spread(points)
    quarter = len(values) // 4
    change = certain_change(at, values)
    if change > 0:
        assert min(values[-quarter:]) > max(values[:quarter])
    elif change < 0:
        assert max(values[-quarter:]) < min(values[:quarter])
    elif len(values) >= 4:
        assert min(values[-quarter:]) <= max(values[:quarter])
        assert max(values[-quarter:]) >= min(values[:quarter])
    line = [slope * when for when in at]
    if len(at) >= 4:
        assert certain_change(at, line) == pytest.approx(slope, rel=1e-6, abs=1e-6)
