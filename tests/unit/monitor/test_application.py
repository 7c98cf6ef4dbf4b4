"""Answers, counted from events."""

from __future__ import annotations

import pytest

from procession.events import (
    CallFinished,
    ProbeChecked,
    TaskFinished,
    TaskRetried,
    TaskStarted,
    WorkerLeased,
    WorkerReleased,
)
from procession.monitor._application import SILENT, Answers, Applications

pytestmark = pytest.mark.row("MO3")


def at(event, time):
    object.__setattr__(event, "at", float(time))
    return event


def test_answers_within_the_window_count():
    answers = Answers(60.0, 0.0)
    for second in range(100):
        answers.add(float(second), second % 4 != 0, 0.5)
    response, errors, throughput, count = answers.told(99.0)
    assert (response, errors, count) == (0.5, 0.25, 60)
    assert throughput == 1.0
    late = answers.told(99.0 + 59)
    assert (late[0], late[1], late[3]) == (0.5, 0.0, 1)
    assert late[2] == pytest.approx(1 / 60)
    assert answers.told(1000.0) == (None, None, 0.0, 0)


def test_throughput_at_the_beginning_is_over_the_time_there_was():
    answers = Answers(60.0, 100.0)
    for _ in range(10):
        answers.add(104.0, True, 0.1)
    assert answers.told(105.0)[2] == 2.0
    assert answers.told(100.0)[2] == 10.0  # never over less than a bucket


def test_figures_tell_totals_and_percentiles():
    answers = Answers(60.0, 0.0)
    for seconds in (0.1, 0.2, 0.3):
        answers.add(1.0, True, seconds)
    answers.add(2.0, False, 0.4)
    answers.waited(0.05)
    answers.retries += 1
    found = answers.figures(2.0)
    assert (found.answers, found.successes, found.errors, found.error_rate) == (4, 3, 1, 0.25)
    assert (found.total_successes, found.total_errors, found.retries) == (3, 1, 1)
    assert found.response_time == pytest.approx(0.25)
    assert (found.response.max, found.waiting.max, found.waiting.count) == (0.4, 0.05, 1)
    later = answers.figures(1000.0)
    assert (later.answers, later.response_time, later.throughput, later.total_successes) == (0, None, 0.0, 3)


def test_every_event_counts_where_it_belongs():
    known = Applications(60.0, 0.0)
    for event in (
        CallFinished(id="w1", owner="pool", pool="pool", ok=True, duration=1.0),
        CallFinished(id="pool", owner="pool", pool="pool", ok=False, duration=3.0),
        ProbeChecked(id="api", probe="http", healthy=True, duration=0.2),
        ProbeChecked(id="api", probe="http", healthy=False, duration=0.4),
        TaskStarted(id="t1", owner="scheduler", attempt=1, waited=0.5),
        TaskRetried(id="t1", owner="scheduler", attempt=1, delay=0.0),
        TaskFinished(id="t1", owner="scheduler", outcome="succeeded", duration=2.0),
        TaskFinished(id="t2", owner="scheduler", outcome="failed", duration=2.0),
        TaskFinished(id="t3", owner="scheduler", outcome="missed", duration=2.0),
        TaskFinished(id="t4", owner="scheduler", outcome="cancelled", duration=2.0),
        WorkerLeased(id="w2", owner="leases", pool="leases", waited=0.1),
        WorkerReleased(id="w2", owner="leases", pool="leases", held=0.7),
        WorkerReleased(id="leases", owner="leases", pool="leases", held=0.7),
    ):
        known.hear(at(event, 1.0))
    assert known.told(("w1",), 1.0) == (1.0, 0.0, 1.0, 1)
    assert known.told(("nobody", "pool"), 1.0)[:2] == (2.0, 0.5)
    assert known.told(("api",), 1.0)[1] == 0.5
    assert known.told(("nobody",), 1.0) == SILENT
    scheduler = known.figures("scheduler", 1.0)
    assert (scheduler.successes, scheduler.errors, scheduler.retries, scheduler.waiting.max) == (1, 2, 1, 0.5)
    assert known.figures("leases", 1.0).answers == 2
    assert known.figures("nobody", 1.0).answers == 0
    assert "api" in known
    assert len(known) == 6


def test_who_is_silent_longest_is_forgotten(monkeypatch):
    monkeypatch.setattr("procession.monitor._application._MOST", 2)
    known = Applications(60.0, 0.0)
    for id in ("a", "b", "a", "c"):
        known.hear(at(ProbeChecked(id=id, probe="p", healthy=True, duration=0.1), 1.0))
    assert [id in known for id in "abc"] == [True, False, True]
