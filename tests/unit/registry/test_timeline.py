from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, cast

import pytest

from procession import Command, Exit, ProcessRegistry, ProcessState
from procession._types import Containment, ProcessRef
from procession.events import HealthChanged
from procession.registry import timeline_page, trace_events, write_timeline, write_trace
from procession.registry._spans import Outcome, Span, concurrency, lanes, spans

if TYPE_CHECKING:
    from procession.abc import ProcessHandle

HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)> & \' $title ]]>'


class Handle:
    """As much of a live child as the registry looks at."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ref = ProcessRef(pid, 1, "x")
        self.containment = Containment.TREE


def live(registry: ProcessRegistry, pid: int, *argv: str, name: str = "", owner: str = "", **labels: str):
    entry = registry.register(Command(*(argv or ("sleep", "9")), labels=labels), name=name or "sleep", owner=owner)
    entry.spawned(cast("ProcessHandle", Handle(pid)), 0.001)
    return entry


@pytest.fixture
def registry() -> ProcessRegistry:
    """Every way to end, once."""
    registry = ProcessRegistry()
    live(registry, 1, name="fine").exited(Exit(0))
    live(registry, 2, name="wrong").exited(Exit(3))
    stopped = live(registry, 3, name="polite")
    stopped.to(ProcessState.SUSPENDED, "suspend")
    stopped.to(ProcessState.RUNNING, "resume")
    stopped.to(ProcessState.STOPPING, "stop")
    stopped.exited(Exit(0))
    forced = live(registry, 4, name="deaf", role="trouble")
    forced.to(ProcessState.STOPPING, "stop")
    forced.exited(Exit(-9))
    live(registry, 5, name="shot").exited(Exit(-9))
    live(registry, 6, name="unknown").exited(Exit(None))
    registry.register(Command("nothing"), name="absent").failed("program not found")
    live(registry, 7, name="alive", owner="pool")
    return registry


def told(registry: ProcessRegistry, label: str | None = None) -> dict[str, Span]:
    events = registry.history()
    return {span.name: span for span in spans(events, {event.id: registry.get(event.id) for event in events}, label)}


def test_every_outcome_is_told_apart(registry: ProcessRegistry) -> None:
    assert {name: span.outcome for name, span in told(registry).items()} == {
        "fine": Outcome.SUCCESS,
        "wrong": Outcome.FAILURE,
        "polite": Outcome.STOPPED,
        "deaf": Outcome.FORCED,
        "shot": Outcome.KILLED,
        "unknown": Outcome.LOST,
        "absent": Outcome.REFUSED,
        "alive": Outcome.LIVE,
    }


def test_marks_tell_what_happened_in_between(registry: ProcessRegistry) -> None:
    alive = next(iter(registry))
    registry.publish(HealthChanged(id=alive.id, owner="pool", probe="ping", healthy=False))
    assert [mark.kind for mark in told(registry)["polite"].marks] == ["suspended", "resumed", "stopping"]
    assert [mark.kind for mark in told(registry)["alive"].marks] == ["HealthChanged"]


def test_groups_are_owners_or_labels(registry: ProcessRegistry) -> None:
    assert told(registry)["alive"].group == "pool"
    assert told(registry)["deaf"].group == "(no owner)"
    assert told(registry, "role")["deaf"].group == "trouble"
    assert told(registry, "role")["alive"].group == "pool"


def test_a_lost_beginning_is_worked_out_from_the_end() -> None:
    registry = ProcessRegistry(journal_size=1)
    entry = live(registry, 9, name="long")
    born = entry.record.spawned_at
    entry.exited(Exit(0))
    span = told(registry)["long"]
    assert span.start == pytest.approx(born)
    assert (span.pid, span.outcome) == (9, Outcome.SUCCESS)


def test_an_id_used_again_is_a_span_of_its_own() -> None:
    registry = ProcessRegistry()
    for pid, code in ((1, 0), (2, 1)):
        entry = registry.register(Command("x"), id="unit")
        entry.spawned(cast("ProcessHandle", Handle(pid)), 0.0)
        entry.exited(Exit(code))
    events = registry.history()
    assert [(span.pid, span.ended) for span in spans(events, {})] == [(1, "exit 0"), (2, "exit 1")]


def test_rows_and_the_curve() -> None:
    found = [Span("a", 0.0, end=2.0), Span("b", 1.0, end=3.0), Span("c", 2.0, end=4.0), Span("d", 2.5)]
    assert lanes(found, 5.0) == [0, 1, 0, 2]
    assert concurrency(found) == [(0.0, 1), (1.0, 2), (2.0, 2), (2.5, 3), (3.0, 2), (4.0, 1)]


def test_the_trace_is_in_the_trace_event_format(registry: ProcessRegistry, tmp_path) -> None:
    path = write_trace(registry, tmp_path / "trace.json", label="role")
    trace = json.loads(path.read_text())
    assert trace["displayTimeUnit"] == "ms"
    assert trace["traceEvents"] == trace_events(registry, label="role")
    by_phase: dict[str, list[dict]] = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["name"]
        by_phase.setdefault(event["ph"], []).append(event)
    assert set(by_phase) == {"M", "X", "i", "C"}
    assert len(by_phase["X"]) == 8
    for event in by_phase["X"]:
        assert event["ts"] >= 0
        assert event["dur"] >= 0
    assert all(event["s"] == "t" for event in by_phase["i"])
    assert by_phase["C"][-1]["args"] == {"processes": 1}
    names = {event["pid"]: event["args"]["name"] for event in by_phase["M"]}
    deaf = next(event for event in by_phase["X"] if event["name"] == "deaf")
    assert names[deaf["pid"]] == "trouble"


class Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "action", "data", "poster", "srcset", "xlink:href"):
                self.links.append(f"{tag} {name}={value}")
            if name.startswith("on"):
                self.handlers.append(f"{tag} {name}")


def parsed(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    return page


def test_the_page_needs_nothing_but_itself(registry: ProcessRegistry, tmp_path) -> None:
    text = write_timeline(registry, tmp_path / "timeline.html", title="A day").read_text()
    page = parsed(text)
    assert page.links == []
    assert page.handlers == []
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "<title>A day</title>" in text
    assert text.count('<g class="bar ') == 8
    assert "default-src 'none'" in text


def test_hostile_texts_stay_texts() -> None:
    registry = ProcessRegistry()
    live(registry, 1, "sh", "-c", HOSTILE, name="x", role=HOSTILE).exited(Exit(0))
    registry.register(Command("y"), name="y").failed(HOSTILE)
    harmless = parsed(timeline_page(registry, title="t", label="none"))
    text = timeline_page(registry, title=HOSTILE, label="role")
    page = parsed(text)
    assert set(page.tags) == set(harmless.tags)
    assert (page.links, page.handlers) == ([], [])
    assert "<img" not in text
    assert text.count("<script>") == 1
    json.dumps(trace_events(registry, label="role"))


def test_an_empty_journal_is_told_too() -> None:
    registry = ProcessRegistry()
    assert trace_events(registry) == []
    assert "<b>0</b> processes" in timeline_page(registry)
