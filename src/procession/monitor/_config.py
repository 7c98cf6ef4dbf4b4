"""What a monitor is told when it is made, and what a process may use."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from procession._core.config import Config, Seconds, no_bool
from procession.monitor._words import AlertType, Severity


def _amount(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ValueError("a number, 0 or more, is needed")
    return value


def _share(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("a share between 0 and 1 is needed")
    return value


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("more than 0 seconds are needed")
    return value


Amount = Annotated[float, BeforeValidator(_amount)]
Share = Annotated[float, BeforeValidator(_share)]
Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1)]


class ResourceLimits(Config):
    """What one process may use. Each limit that is set gives an alert of its type when it is exceeded.

    Attributes:
        max_cpu_percent: percent of one core; 200 allows two cores.
        max_memory_mb: resident memory (of a tree: the sum; where shares were asked for: the sum of shares).
        max_memory_percent: the same in percent of what this machine, or the container we are in, has.
        max_memory_growth_mb_per_hour: how fast memory may leak, see ``Trend.leak_mb_per_hour``.
        max_disk_mb: read and written since the start of the process.
        max_disk_mb_per_second: read and written per second.
        max_network_mb: received and sent over TCP since it was first watched.
        max_network_mbps: megabits (10**6) received and sent per second.
        max_file_descriptors: open ones.
        max_threads: how many.
        max_response_time: mean seconds of its recent answers.
        max_error_rate: share of its recent answers that may be errors, 0 to 1; counts from ``min_answers`` on.
        max_idle_seconds: seconds it may do nothing.
        heartbeat_timeout: seconds between two calls of ``monitor.heartbeat()``, or healthy answers to probes, after which
            it counts as hung.
        for_samples: samples in a row that raise an alert. Default 2.
        for_seconds: seconds a limit has to be exceeded. Default 0.
        clear_samples: samples in a row that resolve it. Default 2.
        hysteresis: how far below its limit, as a share of it, a figure has to come for the alert to be over. Default 0.1.
        severity: of these alerts. Default warning.
        severities: severities that differ, by type of alert.
        min_answers: answers without which an error rate says nothing. Default 10.
    """

    max_cpu_percent: Amount | None = None
    max_memory_mb: Amount | None = None
    max_memory_percent: Amount | None = None
    max_memory_growth_mb_per_hour: Amount | None = None
    max_disk_mb: Amount | None = None
    max_disk_mb_per_second: Amount | None = None
    max_network_mb: Amount | None = None
    max_network_mbps: Amount | None = None
    max_file_descriptors: Amount | None = None
    max_threads: Amount | None = None
    max_response_time: Seconds | None = None
    max_error_rate: Share | None = None
    max_idle_seconds: Seconds | None = None
    heartbeat_timeout: Seconds | None = None
    for_samples: Count = 2
    for_seconds: Seconds = 0.0
    clear_samples: Count = 2
    hysteresis: Share = 0.1
    severity: Severity = Severity.WARNING
    severities: dict[AlertType, Severity] = Field(default_factory=dict)
    min_answers: Count = 10

    def severity_of(self, kind: AlertType) -> Severity:
        """The severity of alerts of one type."""
        return self.severities.get(kind, self.severity)


class MonitorConfig(Config):
    """How a monitor works. Frozen; every value is checked at once.

    Attributes:
        interval: seconds between two rounds of sampling. Default 1.
        history: samples kept per process. Default 600.
        limits: what processes may use that have no limits of their own. Default: no limits.
        watch_registered: whether all processes of the registry are watched. Default yes.
        tree: whether a process stands for its descendants too, unless said otherwise. Default no.
        pss: whether shares of memory are read too, which costs about as much as all else. Default no.
        network: whether TCP traffic is read, if the extra ``net`` is installed. Default yes.
        budget: share of its time that sampling may take; when a round takes more, they come less often. Default 0.1.
        trend_window: seconds over which the ``trend`` of a sample looks back. Default 300.
        application_window: seconds over which answers count. Default 60.
        hung_after: seconds in uninterruptible sleep, or stopped by somebody else, after which a process counts as hung;
            ``None`` for never. Default 30.
        idle_below_percent: percent of a core below which a process that moves no data is idle. Default 1.
        down_alerts: whether the unexpected end of a process is an alert. Default yes.
        callback_timeout: seconds a callback, a sink or an action may take. Default 10.
        alert_history: alerts that are over and still known. Default 1,000.
        ended_size: ended processes whose samples are kept. Default 100.
        max_open_files: descriptors kept open for reading ``/proc``, five per process; beyond, files are opened at each
            round, which costs twice the time. Default: a quarter of what this program may open, at most 8,192.
        publish_samples: whether each sample is published as ``MetricsSampled``. Default: while somebody listens for
            exactly that.
        close_timeout: seconds ``aclose()`` waits for actions that are under way. Default 5.
    """

    interval: Seconds = 1.0
    history: Annotated[int, BeforeValidator(no_bool), Field(ge=2, le=1_000_000)] = 600
    limits: ResourceLimits | None = None
    watch_registered: bool = True
    tree: bool = False
    pss: bool = False
    network: bool = True
    budget: Annotated[float, BeforeValidator(_share), Field(gt=0)] = 0.1
    trend_window: Seconds = 300.0
    application_window: Seconds = 60.0
    hung_after: Seconds | None = 30.0
    idle_below_percent: Amount = 1.0
    down_alerts: bool = True
    callback_timeout: Seconds = 10.0
    alert_history: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 1_000
    ended_size: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 100
    max_open_files: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] | None = None
    publish_samples: bool | None = None
    close_timeout: Seconds = 5.0

    @field_validator("interval", "trend_window", "application_window", "callback_timeout")
    @classmethod
    def _not_zero(cls, value: Any) -> Any:
        return _positive(value)
