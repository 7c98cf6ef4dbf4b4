"""Events become numbers, each once."""

from __future__ import annotations

import pytest

from procession import Containment, Exit
from procession.events import (
    ActionTaken,
    AlertRaised,
    AlertResolved,
    CallFinished,
    CircuitChanged,
    FailureReported,
    LeaderChanged,
    PoolScaled,
    ProbeChecked,
    ProcessExited,
    ProcessSpawned,
    RecoveryFinished,
    RestartScheduled,
    StateChanged,
    TaskFinished,
    TaskPreempted,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
    WorkerLeased,
    WorkerReleased,
)
from procession.exporters import METRICS, Metric, metric_table
from procession.exporters._tally import Histogram, Tally, outcome_of

pytestmark = pytest.mark.row("MO9")


def tally(**options) -> Tally:
    return Tally(lambda id: id.rstrip("-0123456789"), options.pop("max_series", 100), **options)


def spawned(id="web-1", duration=0.004, adopted=False):
    return ProcessSpawned(
        id=id,
        owner="me",
        pid=1,
        name=id.rstrip("-0123456789"),
        command="web",
        containment=Containment.TREE,
        duration=duration,
        adopted=adopted,
    )


def alert(kind, **fields):
    return kind(id="web-1", alert="a.1", severity="critical", kind="cpu_high", **fields)


EVENTS = [
    (spawned(), {"process_spawns_total": {("me", "web"): 1}}, {"process_spawn_duration_seconds": {("me",): 1}}),
    (spawned(adopted=True), {"process_spawns_total": {("me", "web"): 1}}, {}),
    (
        ProcessExited(id="web-1", owner="me", pid=1, exit=Exit(0), uptime=3.0),
        {"process_exits_total": {("me", "web", "success"): 1}},
        {"process_run_duration_seconds": {("me", "web"): 1}},
    ),
    (
        StateChanged(id="web-1", owner="me", old="starting", new="failed"),
        {"process_spawn_failures_total": {("me",): 1}},
        {},
    ),
    (StateChanged(id="web-1", owner="me", old="running", new="failed"), {}, {}),
    (RestartScheduled(id="api", attempt=1, delay=1.0), {"restarts_total": {("api",): 1}}, {}),
    (PoolScaled(id="p", owner="p", old=1, new=4), {"pool_size": {("p",): 4}}, {}),
    (WorkerLeased(id="w", pool="p", waited=0.1), {}, {"pool_wait_duration_seconds": {("p",): 1}}),
    (WorkerReleased(id="w", pool="p", held=0.1), {}, {"pool_lease_duration_seconds": {("p",): 1}}),
    (
        CallFinished(id="w", pool="p", ok=False, duration=0.1),
        {},
        {"pool_call_duration_seconds": {("p", "error"): 1}},
    ),
    (TaskSubmitted(id="t", owner="s", priority=1), {"scheduler_tasks_submitted_total": {("s",): 1}}, {}),
    (TaskStarted(id="t", owner="s", attempt=1, waited=0.2), {}, {"scheduler_wait_duration_seconds": {("s",): 1}}),
    (
        TaskFinished(id="t", owner="s", outcome="failed", duration=2.0),
        {"scheduler_tasks_finished_total": {("s", "failed"): 1}},
        {"scheduler_task_duration_seconds": {("s",): 1}},
    ),
    (TaskRetried(id="t", owner="s", attempt=1, delay=0.1), {"scheduler_retries_total": {("s",): 1}}, {}),
    (
        TaskPreempted(id="t", owner="s", by="u", mode="suspend"),
        {"scheduler_preemptions_total": {("s", "suspend"): 1}},
        {},
    ),
    (
        ProbeChecked(id="api", probe="http", healthy=True, duration=0.1),
        {},
        {"probe_duration_seconds": {("http", "healthy"): 1}},
    ),
    (
        alert(AlertRaised),
        {"alerts_raised_total": {("cpu_high", "critical"): 1}, "alerts_active": {("cpu_high", "critical"): 1}},
        {},
    ),
    (alert(AlertResolved), {"alerts_active": {("cpu_high", "critical"): 0}}, {}),
    (ActionTaken(id="a", action="restart", alert="x", ok=True), {"actions_total": {("restart", "ok"): 1}}, {}),
    (FailureReported(id="api", kind="crash"), {"failures_total": {("crash",): 1}}, {}),
    (
        RecoveryFinished(id="api", strategy="restart", attempt=1, recovered=True, duration=2.0),
        {},
        {"recovery_duration_seconds": {("restart", "recovered"): 1}},
    ),
    (
        CircuitChanged(id="db", old="closed", new="open"),
        {
            "circuit_changes_total": {("db", "open"): 1},
            "circuit_state": {("db", "closed"): 0, ("db", "open"): 1, ("db", "half_open"): 0},
        },
        {},
    ),
    (LeaderChanged(id="e", leader="me", token=1), {"leader_changes_total": {("e",): 1}}, {}),
]


@pytest.mark.parametrize(("event", "numbers", "counts"), EVENTS, ids=lambda one: type(one).__name__)
def test_each_event_counts_once_where_it_belongs(event, numbers, counts):
    found = tally()
    found.hear(event)
    assert found.numbers == numbers
    assert {
        name: {labels: sum(one.counts) for labels, one in series.items()} for name, series in found.histograms.items()
    } == counts


def test_every_event_there_is_a_hand_for_is_tried_above():
    assert set(tally().types) == {type(event) for event, _, _ in EVENTS}


def test_histograms_put_values_where_they_belong():
    one = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 99.0):
        one.add(value)
    assert one.counts == [2, 2, 1]
    assert one.sum == 104.0


def test_times_are_never_negative_and_are_told_once_more_to_who_asks():
    told = []
    found = tally(observed=lambda *one: told.append(one))
    found.hear(spawned(duration=-1.0))
    assert found.histograms["process_spawn_duration_seconds"]["me",].sum == 0.0
    assert [(metric.name, labels, value) for metric, labels, value in told] == [
        ("process_spawn_duration_seconds", ("me",), 0.0)
    ]


def test_labels_are_bounded():
    found = tally(max_series=3)
    for number in range(10):
        found.hear(RestartScheduled(id=f"u{number}", attempt=1, delay=0.0))
    found.hear(RestartScheduled(id="u1", attempt=1, delay=0.0))
    assert found.numbers["restarts_total"] == {("u0",): 1, ("u1",): 2, ("u2",): 1, ("other",): 7}
    for number in range(10):
        found.hear(WorkerLeased(id="w", pool=f"p{number}", waited=0.1))
    assert len(found.histograms["pool_wait_duration_seconds"]) == 4


@pytest.mark.parametrize(("code", "word"), [(0, "success"), (3, "failure"), (-9, "signal"), (None, "lost")])
def test_how_a_process_ended_is_one_word(code, word):
    assert outcome_of(Exit(code)) == word


def test_names_are_as_prometheus_wants_them():
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert (metric.kind == "counter") == metric.name.endswith("_total")
        assert (metric.kind == "histogram") == bool(metric.buckets)
        assert metric.help.endswith(".")
        assert metric.source
        if metric.kind == "histogram":
            assert metric.unit == "seconds"
            assert list(metric.buckets) == sorted(metric.buckets)
    assert Metric("x_bytes_total", "counter", "X.").unit == "bytes"


def test_the_table_names_them_all():
    table = metric_table("ns")
    assert table.count("\n") == len(METRICS) + 1
    for metric in METRICS:
        assert f"| `ns_{metric.name}` | {metric.kind} |" in table
