"""The book of alerts."""

from __future__ import annotations

import json

import pytest

from procession.errors import AlertNotFound, NotFound
from procession.monitor import AlertType, Severity
from procession.monitor._alerts import AlertBook

pytestmark = pytest.mark.row("MO4")


def add(book, process="a", rule="cpu_high", at=0.0, message="hot", severity=Severity.WARNING, pid=7):
    return book.add(
        (process, rule),
        process=process,
        target=process,
        pid=pid,
        owner="",
        type=AlertType.CPU_HIGH,
        severity=severity,
        message=message,
        raised_at=at,
        wall=at,
    )


def test_a_condition_has_one_active_alert_and_counts_how_often_it_came_up():
    book = AlertBook(10)
    first = add(book)
    again = add(book, message="hotter", pid=8)
    assert (again.id, again.count, again.message, again.pid) == (first.id, 2, "hotter", 8)
    assert list(book.active.values()) == [again]
    book.resolve(first.id, 5.0, "cleared")
    third = add(book, at=9.0)
    assert third.count == 3
    assert third.id != first.id
    assert book.by_severity[Severity.WARNING] == 2
    assert book.raised == 3


def test_what_is_over_is_kept_for_a_while_and_found():
    book = AlertBook(2)
    ids = [add(book, process=name, at=float(at)).id for at, name in enumerate("abc")]
    for id in ids[:2]:
        book.resolve(id, 10.0, "cleared", "note")
    over = book.resolve(ids[2], 10.0, "cleared", "note")
    assert (over.is_active, over.duration, over.note, over.resolution) == (False, 8.0, "note", "cleared")
    assert [alert.id for alert in book.all()] == ids[1:]
    assert book.get(ids[2]) == over
    with pytest.raises(AlertNotFound) as error:
        book.get(ids[0])
    assert (error.value.id, error.value.what) == (ids[0], "alert")
    assert isinstance(error.value, NotFound)
    assert str(error.value) == f"no alert is known as '{ids[0]}'"


def test_only_active_alerts_can_be_resolved():
    book = AlertBook(5)
    alert = add(book)
    book.resolve(alert.id, 1.0, "by hand")
    for id in (alert.id, "nonsense"):
        with pytest.raises(AlertNotFound):
            book.resolve(id, 1.0, "by hand")
    assert book.find(("a", "cpu_high")) is None


def test_too_many_active_ones_are_overdue():
    book = AlertBook(2)
    first = add(book, process="a")
    add(book, process="b")
    assert book.overdue() is None
    add(book, process="c")
    assert book.overdue() == first


def test_alerts_are_told_as_text_and_json():
    book = AlertBook(5)
    alert = add(book)
    assert str(alert) == "WARNING a: hot"
    told = json.loads(json.dumps(alert.to_dict()))
    assert (told["type"], told["severity"], told["is_active"], told["duration"]) == ("cpu_high", "warning", True, None)
    over = book.resolve(alert.id, 2.5, "cleared")
    assert str(over) == "WARNING a: hot (cleared after 2.5 s)"
    assert json.loads(json.dumps(over.to_dict()))["duration"] == 2.5


def test_counts_of_long_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr("procession.monitor._alerts._COUNTED", 2)
    book = AlertBook(10)
    for process in ("a", "b", "c"):
        book.resolve(add(book, process=process).id, 1.0, "cleared")
    assert add(book, process="a").count == 1
    assert add(book, process="c").count == 2
