"""Spans and metrics as a collector of OpenTelemetry gets them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from procession import Command, ProcessRegistry, run, spawn
from procession.errors import ConfigError
from procession.exporters import OpenTelemetryExporter
from procession.monitor import MonitorConfig, ResourceMonitor
from tests.monitor.support import program, until

pytestmark = [pytest.mark.both_loops, pytest.mark.row("MO9")]

FAST = MonitorConfig(interval=0.05, network=False)


class Home:
    def __init__(self) -> None:
        self.spans = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    def exporter(self, registry: ProcessRegistry, **options: Any) -> OpenTelemetryExporter:
        return OpenTelemetryExporter(registry, tracer_provider=self.tracers, meter_provider=self.meters, **options)

    def metrics(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        return {
            metric.name: list(metric.data.data_points)
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def home() -> Iterator[Home]:
    made = Home()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


async def test_each_process_is_a_span(home: Home) -> None:
    tracer = home.tracers.get_tracer("test")
    async with ProcessRegistry() as registry:
        with home.exporter(registry):
            with tracer.start_as_current_span("request") as request:
                await run(Command("true"), registry=registry, name="good", owner="jobs")
            await run(Command("sh", "-c", "exit 3", "--token", "hush"), registry=registry, name="bad")
            async with spawn(Command("sleep", "60"), registry=registry, name="killed") as process:
                process.kill()
                await process.wait()
    spans = {span.name: span for span in home.spans.get_finished_spans()}
    good, bad, killed = (spans[f"process {name}"] for name in ("good", "bad", "killed"))
    assert good.parent is not None
    assert good.parent.span_id == request.get_span_context().span_id
    assert (good.status.status_code, bad.status.status_code) == (StatusCode.OK, StatusCode.ERROR)
    assert (bad.status.description, killed.status.description) == ("exit 3", "SIGKILL")
    assert good.attributes is not None
    assert (good.attributes["process.exit.code"], good.attributes["procession.owner"]) == (0, "jobs")
    assert killed.attributes is not None
    assert (killed.attributes["process.exit.code"], killed.attributes["procession.outcome"]) == (-9, "signal")
    assert bad.parent is None
    assert "hush" not in str(bad.attributes)
    assert good.start_time is not None
    assert good.end_time is not None
    assert 0 < good.end_time - good.start_time < 60e9


async def test_metrics_are_those_of_the_other_exporter(home: Home) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with home.exporter(registry, monitor=monitor):
            await run(Command("true"), registry=registry, owner="jobs")
            async with spawn(program("wait"), registry=registry, name="web") as process:
                await until(monitor, lambda: monitor.latest(process))
                told = home.metrics()
            (spawns,) = [one for one in told["procession.process_spawns"] if one.attributes["owner"] == "jobs"]
            assert (spawns.value, dict(spawns.attributes)) == (1, {"owner": "jobs", "name": "true"})
            (duration,) = [
                one for one in told["procession.process_spawn_duration"] if one.attributes["owner"] == "jobs"
            ]
            assert duration.count == 1
            assert tuple(duration.explicit_bounds)[:2] == (0.001, 0.0025)
            (memory,) = told["procession.process_resident_memory"]
            assert memory.value > 1e6
            assert told["procession.monitor_watched_processes"][0].value == 1
        assert "procession.process_spawns" not in home.metrics()  # it tells nothing once it is closed


async def test_spans_of_those_who_live_on_are_ended_unfinished(home: Home) -> None:
    async with ProcessRegistry() as registry:
        exporter = home.exporter(registry, max_spans=2)
        async with (
            spawn(Command("sleep", "60"), registry=registry, name="a"),
            spawn(Command("sleep", "60"), registry=registry, name="b"),
            spawn(Command("sleep", "60"), registry=registry, name="c"),
        ):
            assert repr(exporter) == "<OpenTelemetryExporter: 2 spans open>"
            assert [span.name for span in home.spans.get_finished_spans()] == ["process a"]
            exporter.close()
            exporter.close()
            assert repr(exporter) == "<OpenTelemetryExporter: closed>"
        ends = {span.name: (span.attributes or {})["procession.outcome"] for span in home.spans.get_finished_spans()}
        assert ends == {"process a": "unfinished", "process b": "unfinished", "process c": "unfinished"}


async def test_a_stranger_that_vanishes_has_no_span_to_end(home: Home) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with home.exporter(registry, monitor=monitor), pytest.MonkeyPatch.context():
            async with spawn(program("wait")) as process:
                watch = monitor.watch(process.pid)
                await monitor.sample(watch)
                process.kill()
                await watch.ended
        assert home.spans.get_finished_spans() == ()


async def test_bad_values(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ProcessRegistry() as registry:
        for options in ({"max_spans": 0}, {"max_spans": True}, {"max_series": 0}, {"monitor": 5}):
            with pytest.raises(ConfigError):
                home.exporter(registry, **options)
        monkeypatch.setitem(sys.modules, "opentelemetry", None)
        with pytest.raises(ConfigError, match=r"procession\[otel\]"):
            OpenTelemetryExporter(registry)
        assert registry.statistics().listeners == 0
