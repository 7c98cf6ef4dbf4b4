"""Every metric there is: name, kind, labels, unit and meaning. The table in the documentation is made from this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds in seconds for what takes milliseconds."""

LONG = (0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
"""Bounds in seconds for what takes up to a day."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: without the namespace, with its unit and ``_total`` as Prometheus wants them.
        kind: ``"counter"``, ``"gauge"`` or ``"histogram"``.
        help: what it means.
        labels: the names of its labels.
        buckets: upper bounds of a histogram.
        source: what it is made from: an event, or who is asked.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    source: str = ""

    @property
    def unit(self) -> str:
        """``"seconds"``, ``"bytes"``, or empty for a plain number."""
        words = self.name.removesuffix("_total").split("_")
        return words[-1] if words[-1] in ("seconds", "bytes") else ""


_WHO = ("owner", "name")

SPAWNS = Metric("process_spawns_total", "counter", "Processes started or adopted.", _WHO, source="ProcessSpawned")
SPAWN_FAILURES = Metric(
    "process_spawn_failures_total", "counter", "Processes that could not be started.", ("owner",), source="StateChanged"
)
EXITS = Metric(
    "process_exits_total",
    "counter",
    "Processes that have ended; outcome is success, failure, signal or lost.",
    ("owner", "name", "outcome"),
    source="ProcessExited",
)
SPAWN_DURATION = Metric(
    "process_spawn_duration_seconds",
    "histogram",
    "Time to start a process.",
    ("owner",),
    SHORT,
    source="ProcessSpawned",
)
RUN_DURATION = Metric(
    "process_run_duration_seconds",
    "histogram",
    "How long processes have lived.",
    _WHO,
    LONG,
    source="ProcessExited",
)
PROCESSES = Metric("processes", "gauge", "Live processes by state.", ("state",), source="registry")
RESTARTS = Metric("restarts_total", "counter", "Restarts of units.", ("unit",), source="RestartScheduled")

CPU = Metric("process_cpu_seconds_total", "counter", "Processor time, user and system.", _WHO, source="monitor")
RSS = Metric("process_resident_memory_bytes", "gauge", "Resident memory.", _WHO, source="monitor")
VMS = Metric("process_virtual_memory_bytes", "gauge", "Virtual memory.", _WHO, source="monitor")
FDS = Metric("process_open_fds", "gauge", "Open file descriptors.", _WHO, source="monitor")
THREADS = Metric("process_threads", "gauge", "Threads.", _WHO, source="monitor")
SWITCHES = Metric(
    "process_context_switches_total", "counter", "Context switches of main threads.", _WHO, source="monitor"
)
DISK_READ = Metric("process_disk_read_bytes_total", "counter", "Bytes read from storage.", _WHO, source="monitor")
DISK_WRITTEN = Metric(
    "process_disk_written_bytes_total", "counter", "Bytes written to storage.", _WHO, source="monitor"
)
RECEIVED = Metric("process_network_received_bytes_total", "counter", "Bytes received over TCP.", _WHO, source="monitor")
SENT = Metric("process_network_sent_bytes_total", "counter", "Bytes sent over TCP.", _WHO, source="monitor")
WATCHED = Metric("monitor_watched_processes", "gauge", "Processes that are watched.", source="monitor")
INTERVAL = Metric("monitor_interval_seconds", "gauge", "Time between rounds of sampling.", source="monitor")
ROUND_COST = Metric(
    "monitor_round_cost_seconds", "gauge", "Processor time of the last round of sampling.", source="monitor"
)
RULE_ERRORS = Metric("monitor_rule_errors_total", "counter", "How often a rule raised.", source="monitor")
CALLBACK_FAILURES = Metric(
    "monitor_callback_failures_total", "counter", "How often a callback or sink failed.", source="monitor"
)

POOL_SIZE = Metric("pool_size", "gauge", "Workers of a pool.", ("pool",), source="PoolScaled")
POOL_WAIT = Metric(
    "pool_wait_duration_seconds",
    "histogram",
    "How long a lease was waited for.",
    ("pool",),
    SHORT,
    source="WorkerLeased",
)
POOL_HELD = Metric(
    "pool_lease_duration_seconds",
    "histogram",
    "How long workers were leased.",
    ("pool",),
    LONG,
    source="WorkerReleased",
)
POOL_CALL = Metric(
    "pool_call_duration_seconds",
    "histogram",
    "How long calls took, waiting included; outcome is ok or error.",
    ("pool", "outcome"),
    SHORT,
    source="CallFinished",
)

SUBMITTED = Metric(
    "scheduler_tasks_submitted_total", "counter", "Tasks accepted.", ("scheduler",), source="TaskSubmitted"
)
FINISHED = Metric(
    "scheduler_tasks_finished_total", "counter", "Fates of tasks.", ("scheduler", "outcome"), source="TaskFinished"
)
TASK_WAIT = Metric(
    "scheduler_wait_duration_seconds",
    "histogram",
    "How long tasks waited before they began.",
    ("scheduler",),
    LONG,
    source="TaskStarted",
)
TASK_DURATION = Metric(
    "scheduler_task_duration_seconds",
    "histogram",
    "From submission to fate.",
    ("scheduler",),
    LONG,
    source="TaskFinished",
)
RETRIES = Metric(
    "scheduler_retries_total",
    "counter",
    "Attempts that failed and are made again.",
    ("scheduler",),
    source="TaskRetried",
)
PREEMPTIONS = Metric(
    "scheduler_preemptions_total", "counter", "Tasks that made room.", ("scheduler", "mode"), source="TaskPreempted"
)

PROBES = Metric(
    "probe_duration_seconds",
    "histogram",
    "How long probes took; outcome is healthy or unhealthy.",
    ("probe", "outcome"),
    SHORT,
    source="ProbeChecked",
)
ALERTS = Metric("alerts_raised_total", "counter", "Alerts raised.", ("type", "severity"), source="AlertRaised")
ALERTS_ACTIVE = Metric(
    "alerts_active", "gauge", "Alerts that are not over.", ("type", "severity"), source="AlertRaised, AlertResolved"
)
ACTIONS = Metric(
    "actions_total",
    "counter",
    "Answers to alerts; outcome is ok or error.",
    ("action", "outcome"),
    source="ActionTaken",
)
FAILURES = Metric("failures_total", "counter", "Failures left to recovery.", ("kind",), source="FailureReported")
RECOVERIES = Metric(
    "recovery_duration_seconds",
    "histogram",
    "How long recoveries took; outcome is recovered or failed.",
    ("strategy", "outcome"),
    LONG,
    source="RecoveryFinished",
)
CIRCUIT = Metric(
    "circuit_state", "gauge", "1 for the state a circuit breaker is in, 0 for others.", ("circuit", "state"),
    source="CircuitChanged",
)  # fmt: skip
CIRCUIT_CHANGES = Metric(
    "circuit_changes_total", "counter", "Moves of circuit breakers.", ("circuit", "state"), source="CircuitChanged"
)
LEADER_CHANGES = Metric("leader_changes_total", "counter", "Changes of leader.", ("election",), source="LeaderChanged")

EVENTS = Metric("events_total", "counter", "Events published.", source="registry")
EVENTS_DROPPED = Metric("events_dropped_total", "counter", "Events that slow subscribers missed.", source="registry")
LISTENER_FAILURES = Metric("listener_failures_total", "counter", "How often a listener raised.", source="registry")

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All metrics."""


def metric_table(namespace: str = "procession") -> str:
    """All metrics as a Markdown table, as in the documentation.

    Args:
        namespace: what their names begin with.
    """
    rows = ["| name | kind | labels | meaning | from |", "| --- | --- | --- | --- | --- |"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "–"
        source = ", ".join(f"`{word}`" if word[0].isupper() else word for word in metric.source.split(", "))
        rows.append(f"| `{namespace}_{metric.name}` | {metric.kind} | {labels} | {metric.help} | {source} |")
    return "\n".join(rows)
