"""Limits and rules as conditions."""

from __future__ import annotations

import math
from typing import Any

import pytest

from procession.errors import ConfigError
from procession.monitor import AlertType, MonitorConfig, ResourceLimits, Rule, Sample, Severity, Trend
from procession.monitor._limits import CLEAR, Cell, RuleCondition, conditions
from procession.monitor._rules import Verdict

pytestmark = pytest.mark.row("MO4")


def sample(at=0.0, **figures) -> Sample:
    return Sample(id="a", pid=1, at=at, uptime=at, state="running", **figures)


LIMITS: Any = {
    "max_cpu_percent": (80, {"cpu_percent": 81.0}, "cpu_high", "processor at 81 %, limit 80 %"),
    "max_memory_mb": (100, {"rss_mb": 101.5}, "memory_high", "memory at 101.5 MB, limit 100 MB"),
    "max_memory_percent": (10, {"rss_mb": 150.0}, "memory_percent_high", "memory at 15 %, limit 10 %"),
    "max_disk_mb": (5, {"disk_read_mb": 3.0, "disk_write_mb": 3.0}, "disk_high", "disk traffic of 6 MB, limit 5 MB"),
    "max_disk_mb_per_second": (5, {"disk_mb_per_second": 6.0}, "disk_rate_high", "disk at 6 MB/s, limit 5 MB/s"),
    "max_network_mb": (
        5,
        {"network_received_mb": 3.0, "network_sent_mb": 3.0},
        "network_total_high",
        "network traffic of 6 MB, limit 5 MB",
    ),
    "max_network_mbps": (5, {"network_mbps": 6.0}, "network_high", "network at 6 Mbit/s, limit 5 Mbit/s"),
    "max_file_descriptors": (
        200,
        {"file_descriptors": 201},
        "file_descriptors_high",
        "open descriptors: 201, limit 200",
    ),
    "max_threads": (64, {"threads": 65}, "threads_high", "threads: 65, limit 64"),
    "max_response_time": (0.5, {"response_time": 0.75}, "response_time_high", "answers take 0.75 s, limit 0.5 s"),
    "max_error_rate": (0.1, {"error_rate": 0.25, "answers": 20}, "error_rate_high", "share of errors: 0.25, limit 0.1"),
    "max_idle_seconds": (10, {"idle_seconds": 12.0}, "idle", "idle for 12 s, limit 10 s"),
}


@pytest.mark.parametrize("field", LIMITS)
def test_each_limit_is_a_condition(field):
    limit, figures, name, message = LIMITS[field]
    (condition,) = conditions(ResourceLimits(**{field: limit}), 1000.0)
    assert condition.name == name
    assert condition.limit == limit
    assert condition.holds(sample(**figures), False) is True
    assert condition.told(sample(**figures))[0] == message
    if field != "max_idle_seconds":
        assert condition.holds(sample(), False) is None
        assert condition.told(sample())[0].count("unknown") == 1


def test_no_limit_is_no_condition():
    assert conditions(ResourceLimits(), 1000.0) == []


def test_memory_is_judged_by_its_share_where_that_is_known():
    (condition,) = conditions(ResourceLimits(max_memory_mb=100), None)
    assert condition.holds(sample(rss_mb=300.0, pss_mb=50.0), False) is False
    (condition,) = conditions(ResourceLimits(max_memory_percent=10), None)
    assert condition.holds(sample(rss_mb=300.0), False) is None


def test_few_answers_say_nothing_about_errors():
    (condition,) = conditions(ResourceLimits(max_error_rate=0.1, min_answers=5), None)
    assert condition.holds(sample(error_rate=1.0, answers=4), False) is None
    assert condition.holds(sample(error_rate=1.0, answers=5), False) is True


def test_growth_of_memory_is_a_leak():
    (condition,) = conditions(ResourceLimits(max_memory_growth_mb_per_hour=10), None)
    assert condition.type is AlertType.MEMORY_LEAK

    class Leaking(Trend):
        leak_mb_per_hour = 50.0

    shown = sample()
    object.__setattr__(shown, "_look_back", lambda window: Leaking("a"))
    assert condition.holds(shown, False) is True
    assert condition.holds(sample(), False) is False


def test_a_raised_alert_needs_a_lower_figure_to_be_over():
    (condition,) = conditions(ResourceLimits(max_memory_mb=100, hysteresis=0.2, for_samples=1), None)
    cell = Cell(condition)
    seen = [cell.see(sample(float(at), rss_mb=mb)) for at, mb in enumerate((90, 101, 95, 85, 81, 79, 79, 79))]
    assert seen == [None, Verdict.RAISE, None, None, None, None, Verdict.RESOLVE, None]
    assert cell.standing.phase == "clear"


def test_severities_differ_by_type():
    made: Any = ResourceLimits
    limits = made(max_cpu_percent=1, max_threads=1, severity="critical", severities={"threads_high": "emergency"})
    assert [(one.type, one.severity) for one in conditions(limits, None)] == [
        (AlertType.CPU_HIGH, Severity.CRITICAL),
        (AlertType.THREADS_HIGH, Severity.EMERGENCY),
    ]


def test_a_condition_that_never_held_costs_nothing_to_remember():
    (condition,) = conditions(ResourceLimits(max_threads=5), None)
    cell = Cell(condition)
    for at in range(5):
        assert cell.see(sample(float(at), threads=1)) is None
    assert cell.standing is CLEAR
    cell.see(sample(6.0, threads=9))
    assert cell.standing.phase == "pending"
    cell.see(sample(7.0, threads=1))
    assert cell.standing is CLEAR


def test_rules_are_conditions_too():
    rule = Rule(
        "hot",
        lambda s: (s.cpu_percent or 0) > 50,
        clear_when=lambda s: (s.cpu_percent or 0) < 10,
        message=lambda s: f"{s.cpu_percent}!",
    )
    condition = RuleCondition(rule)
    assert condition.holds(sample(cpu_percent=60.0), False) is True
    assert condition.holds(sample(cpu_percent=30.0), True) is True
    assert condition.holds(sample(cpu_percent=5.0), True) is False
    assert condition.told(sample(cpu_percent=60.0)) == ("60.0!", None)
    plain = RuleCondition(Rule("r", lambda s: [], message="text", clear_when=lambda s: None))
    assert plain.holds(sample(), False) is False
    assert plain.holds(sample(), True) is None
    assert plain.told(sample()) == ("text", None)
    assert RuleCondition(Rule("r", lambda s: None)).told(sample()) == ("the rule r holds", None)


BAD: tuple[object, ...] = (-1, math.nan, math.inf, True, "much", [])


@pytest.mark.parametrize(
    ("model", "field", "value"),
    [
        *((ResourceLimits, field, bad) for field in LIMITS for bad in BAD),
        (ResourceLimits, "max_memory_growth_mb_per_hour", -1),
        (ResourceLimits, "max_error_rate", 1.5),
        (ResourceLimits, "hysteresis", 2),
        (ResourceLimits, "for_samples", 0),
        (ResourceLimits, "for_samples", True),
        (ResourceLimits, "clear_samples", 1.5),
        (ResourceLimits, "severity", "bad"),
        (ResourceLimits, "severities", {"cpu": "critical"}),
        (ResourceLimits, "max_cpu", 5),
        (MonitorConfig, "interval", 0),
        (MonitorConfig, "interval", -1),
        (MonitorConfig, "interval", math.nan),
        (MonitorConfig, "interval", "often"),
        (MonitorConfig, "history", 1),
        (MonitorConfig, "history", True),
        (MonitorConfig, "history", 10**9),
        (MonitorConfig, "budget", 0),
        (MonitorConfig, "budget", 1.5),
        (MonitorConfig, "limits", 5),
        (MonitorConfig, "callback_timeout", 0),
        (MonitorConfig, "max_open_files", -1),
        (MonitorConfig, "idle_below_percent", math.nan),
        (MonitorConfig, "surprise", 1),
    ],
)
def test_bad_values_name_their_field(model, field, value):
    with pytest.raises(ConfigError) as error:
        model(**{field: value})
    assert error.value.field == field


def test_good_values_are_taken():
    made: Any = MonitorConfig
    limits: Any = ResourceLimits
    config = made(interval="500ms", hung_after=None, limits=limits(max_idle_seconds="2m"))
    assert (config.interval, config.hung_after) == (0.5, None)
    assert config.limits.max_idle_seconds == 120.0
    assert config.replace(history=10).history == 10
