"""Figures of a monitor, and of all it watches together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from procession.monitor._words import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorStatistics:
    """Figures of this moment.

    Attributes:
        watched: processes that are watched.
        ended: ended ones whose samples are still known.
        cpu_percent: of all watched processes together; 100 is one core.
        cpu_seconds: processor time of all of them.
        rss_mb: resident memory of all; what they share counts once for each.
        file_descriptors: open ones of all.
        threads: of all.
        by_state: how many are in which state.
        cores: processors there are, for us or for the container we are in.
        memory_mb: memory there is, likewise.
        memory_percent: share of it that is resident in watched processes.
        rounds: rounds of sampling made.
        interval: seconds between rounds now; more than configured while sampling would cost too much.
        round_cost: seconds of processor time the last round took.
        stretched: rounds that cost more than their budget.
        open_files: descriptors kept open for reading.
        unread: processes that could not be read in the last round though they are there.
        network: why there are no figures of the network; empty when there are.
        active_alerts: by severity.
        alerts_raised: since the monitor began, by severity.
        rule_errors: how often a rule raised.
        callback_failures: how often a callback or sink raised, or took too long.
        actions: actions taken.
        action_failures: those that failed.
        dropped: alerts that a reader, callback or sink was not told of because it did not keep up.
    """

    watched: int = 0
    ended: int = 0
    cpu_percent: float = 0.0
    cpu_seconds: float = 0.0
    rss_mb: float = 0.0
    file_descriptors: int = 0
    threads: int = 0
    by_state: Mapping[str, int] = field(default_factory=dict)
    cores: float = 0.0
    memory_mb: float = 0.0
    memory_percent: float = 0.0
    rounds: int = 0
    interval: float = 0.0
    round_cost: float = 0.0
    stretched: int = 0
    open_files: int = 0
    unread: int = 0
    network: str = ""
    active_alerts: Mapping[Severity, int] = field(default_factory=dict)
    alerts_raised: Mapping[Severity, int] = field(default_factory=dict)
    rule_errors: int = 0
    callback_failures: int = 0
    actions: int = 0
    action_failures: int = 0
    dropped: int = 0
