"""Scrapes of the exporter, parsed by Prometheus's own parser, beside real processes."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import psutil
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from procession import Command, FunctionPool, PoolConfig, ProcessPool, ProcessRegistry, Scheduler, run, spawn
from procession.errors import ConfigError, SpawnError
from procession.exporters import METRICS, PrometheusExporter
from procession.monitor import MonitorConfig, ResourceLimits, ResourceMonitor, actions
from tests.monitor.support import MB, program, until
from tests.programs import pool_functions as work

pytestmark = [pytest.mark.both_loops, pytest.mark.row("MO9")]

FAST = MonitorConfig(interval=0.05, network=False)


def scrape(exporter: PrometheusExporter) -> dict[str, dict[tuple[str, ...], float]]:
    """All samples by name and values of labels, in the order of the labels' names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exporter.render().decode()):
        for sample in family.samples:
            key = tuple(value for _, value in sorted(sample.labels.items()))
            assert key not in found.setdefault(sample.name, {}), "told twice"
            found[sample.name][key] = sample.value
    return found


def made(registry: ProcessRegistry, **options: Any) -> PrometheusExporter:
    return PrometheusExporter(registry, collector_registry=CollectorRegistry(), **options)


async def test_processes_and_what_they_cost() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with made(registry, monitor=monitor) as exporter:
            await run(Command("true"), registry=registry, owner="jobs")
            await run(Command("false"), registry=registry, owner="jobs")
            with pytest.raises(SpawnError):
                await run(Command("no-such-program"), registry=registry, owner="jobs")
            async with spawn(program("burn"), registry=registry, name="web", owner="me") as process:
                await until(monitor, lambda: any(one.cpu_seconds for one in monitor.samples("web")))
                told = scrape(exporter)
                memory = psutil.Process(process.pid).memory_info()
                assert told["procession_process_spawns_total"] == {
                    ("true", "jobs"): 1,
                    ("false", "jobs"): 1,
                    ("web", "me"): 1,
                }
                assert told["procession_process_exits_total"] == {
                    ("false", "failure", "jobs"): 1,
                    ("true", "success", "jobs"): 1,
                }
                assert told["procession_process_spawn_failures_total"] == {("jobs",): 1}
                assert told["procession_process_spawn_duration_seconds_count"] == {("jobs",): 2, ("me",): 1}
                buckets = [key for key in told["procession_process_spawn_duration_seconds_bucket"] if key[1] == "me"]
                assert {key[0] for key in buckets} >= {"0.001", "10.0", "+Inf"}
                assert told["procession_process_run_duration_seconds_count"] == {
                    ("true", "jobs"): 1,
                    ("false", "jobs"): 1,
                }
                assert told["procession_processes"] == {("running",): 1}
                used = told["procession_process_cpu_seconds_total"]["web", "me"]
                assert used > 0
                assert told["procession_process_resident_memory_bytes"]["web", "me"] == pytest.approx(
                    memory.rss, rel=0.1
                )
                assert told["procession_process_open_fds"]["web", "me"] == 3
                assert told["procession_monitor_watched_processes"] == {(): 1}
            after = scrape(exporter)
            assert after["procession_process_cpu_seconds_total"]["web", "me"] >= used  # what it used stays
            assert "procession_process_resident_memory_bytes" not in after
            assert after["procession_process_exits_total"]["web", "signal", "me"] == 1


async def test_the_same_again_adds_up_and_never_runs_backwards() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with made(registry, monitor=monitor) as exporter:

            def used() -> float:
                return scrape(exporter).get("procession_process_cpu_seconds_total", {}).get(("web", ""), 0.0)

            seen = [0.0]
            for _ in range(2):
                async with spawn(program("burn"), registry=registry, name="web"):
                    await until(monitor, lambda: used() > seen[-1])
                    seen.append(used())
                seen.append(used())
            assert seen == sorted(seen)


async def test_pools_schedulers_alerts_and_actions() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with made(registry, monitor=monitor, namespace="mine") as exporter:
            async with FunctionPool(PoolConfig(max_size=1), registry=registry, name="sums") as pool:
                await pool.run(work.add, 1, kwargs={"b": 2})
                with pytest.raises(ZeroDivisionError):
                    await pool.run(divmod, 1, 0)
            async with ProcessPool(Command("cat"), PoolConfig(max_size=1), registry=registry, name="cats") as pool2:
                async with pool2.acquire() as worker:
                    await worker.request("x")
            async with Scheduler(registry=registry) as scheduler:
                await scheduler.submit(Command("true"))
            monitor.on_alert("info", actions.renice(1))
            async with spawn(program("threads", 5), registry=registry) as process:
                monitor.watch(process, limits=ResourceLimits(max_threads=3, for_samples=1))
                await until(monitor, lambda: monitor.statistics().actions)
                told = scrape(exporter)
                assert told["mine_alerts_active"] == {("warning", "threads_high"): 1}
            assert told["mine_pool_call_duration_seconds_count"] == {("ok", "sums"): 1, ("error", "sums"): 1}
            assert told["mine_pool_wait_duration_seconds_count"] == {("cats",): 1}
            assert told["mine_pool_lease_duration_seconds_count"] == {("cats",): 1}
            assert told["mine_scheduler_tasks_finished_total"] == {("succeeded", "scheduler"): 1}
            assert told["mine_scheduler_wait_duration_seconds_count"] == {("scheduler",): 1}
            assert told["mine_alerts_raised_total"] == {("warning", "threads_high"): 1}
            assert told["mine_actions_total"] == {("renice", "ok"): 1}
            assert scrape(exporter)["mine_alerts_active"] == {("warning", "threads_high"): 0}


async def test_a_scrape_on_another_thread_over_http() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with made(registry, monitor=monitor) as exporter:
            stop = threading.Event()
            problems: list[BaseException] = []

            def scrape_on() -> None:
                while not stop.is_set():
                    try:
                        scrape(exporter)
                    except BaseException as error:
                        problems.append(error)
                        return

            thread = threading.Thread(target=scrape_on)
            thread.start()
            try:
                await asyncio.gather(*(run(Command("true"), registry=registry, owner=f"o{n}") for n in range(60)))
            finally:
                stop.set()
                await asyncio.get_running_loop().run_in_executor(None, thread.join)
            assert problems == []
            assert sum(scrape(exporter)["procession_process_spawns_total"].values()) == 60
    assert exporter.content_type.startswith("text/plain")


async def test_it_can_do_without_a_monitor_and_bounds_its_labels() -> None:
    async with ProcessRegistry() as registry:
        with made(registry, max_series=3) as exporter:
            for number in range(6):
                await run(Command("true"), registry=registry, name=f"n{number}")
            told = scrape(exporter)
            assert told["procession_process_spawns_total"] == {
                ("n0", ""): 1,
                ("n1", ""): 1,
                ("n2", ""): 1,
                ("other", "other"): 3,
            }
            assert "procession_process_cpu_seconds_total" not in told
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with made(registry, monitor=monitor, max_series=1) as exporter:
            async with (
                spawn(Command("sleep", "60"), registry=registry, name="a"),
                spawn(Command("sleep", "60"), registry=registry, name="b"),
            ):
                await until(monitor, lambda: all(watch.latest for watch in monitor.watched))
                assert scrape(exporter)["procession_process_threads"] == {("a", ""): 1, ("other", "other"): 1}


async def test_strangers_count_too() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        with made(registry, monitor=monitor) as exporter:
            async with spawn(program("grow", 20, 0)) as process:
                assert await anext(process.lines()) == "ready"
                watch = monitor.watch(process.pid, name="stranger")
                await monitor.sample(watch)
                told = scrape(exporter)
                assert told["procession_process_resident_memory_bytes"]["stranger", ""] > 20 * MB
                process.kill()
                await watch.ended
            told = scrape(exporter)
            assert told["procession_process_cpu_seconds_total"]["stranger", ""] >= 0
            assert "procession_process_resident_memory_bytes" not in told


async def test_two_exporters_one_home_and_bad_values(monkeypatch: pytest.MonkeyPatch) -> None:
    home = CollectorRegistry()
    async with ProcessRegistry() as registry:
        first = PrometheusExporter(registry, collector_registry=home)
        assert repr(first) == "<PrometheusExporter procession: registered>"
        with pytest.raises(ValueError, match="Duplicated"):
            PrometheusExporter(registry, collector_registry=home)
        first.close()
        first.close()
        assert repr(first) == "<PrometheusExporter procession: closed>"
        with PrometheusExporter(registry, collector_registry=home) as second:
            assert len(list(second.describe())) == len(METRICS)
        for options in (
            {"namespace": "two words"},
            {"namespace": 5},
            {"max_series": 0},
            {"max_series": True},
            {"monitor": registry},
        ):
            with pytest.raises(ConfigError):
                PrometheusExporter(registry, collector_registry=home, **options)
        with pytest.raises(ConfigError):
            PrometheusExporter("registry", collector_registry=home)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "prometheus_client", None)
        with pytest.raises(ConfigError, match=r"procession\[prometheus\]"):
            PrometheusExporter(registry)
        assert registry.statistics().listeners == 0
