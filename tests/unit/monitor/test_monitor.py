"""The monitor as a whole, in virtual time, over sources and processes that do as they are told."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, Self

import pytest

from procession import Command, ProcessRegistry, run, spawn
from procession.errors import (
    AlertNotFound,
    Closed,
    ConfigError,
    MetricsUnavailable,
    NotFound,
    ProcessUnknown,
    StateError,
)
from procession.events import (
    ActionTaken,
    AlertRaised,
    AlertResolved,
    CallFinished,
    Event,
    FailureReported,
    HealthChanged,
    MetricsSampled,
    ProbeChecked,
    SamplingStretched,
    StateChanged,
    TaskStarted,
)
from procession.monitor import (
    Alert,
    AlertType,
    MonitorConfig,
    ResourceLimits,
    ResourceMonitor,
    Rule,
    Severity,
    actions,
)
from procession.monitor import actions as monitor_actions
from procession.testing import Script, SimulatedLauncher
from tests.monitor.support import ScriptedSource, reading
from tests.scheduler.support import virtual


class Room:
    """A registry, a monitor over a scripted source, and a simulated process in it."""

    def __init__(self, figures: Any = None, **config: Any) -> None:
        self.source = ScriptedSource() if figures is None else ScriptedSource(figures)
        self.registry = ProcessRegistry()
        self.monitor: Any = ResourceMonitor(MonitorConfig(**config), registry=self.registry, source=self.source)
        self.told: list[Any] = []
        self.registry.listen(self.told.append, types=(AlertRaised, AlertResolved, ActionTaken))

    async def __aenter__(self) -> Self:
        await self.registry.__aenter__()
        await self.monitor.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.monitor.aclose()
        await self.registry.aclose()

    def server(self, **options: Any):
        labels = options.pop("labels", {})
        launcher = SimulatedLauncher({"server": Script(duration=1e9)})
        return spawn(Command("server", labels=labels), registry=self.registry, launcher=launcher, **options)

    def events(self, *types: type[Event]) -> list[Any]:
        return [event for event in self.told if isinstance(event, types)]


def rising(target, at):
    return reading(at, rss_mb=10.0 + at, cpu_seconds=at / 2)


# ----------------------------------------------------------------------------------------------------------- its life


@pytest.mark.row("MO1")
@virtual
async def test_it_is_opened_once_and_closed_as_often_as_one_likes():
    source = ScriptedSource()
    monitor = ResourceMonitor(source=source)
    assert repr(monitor) == "<ResourceMonitor monitor not open: 0 watched, 0 alerts>"
    await monitor.aclose()
    for early in (
        lambda: monitor.watch(1),
        monitor.alerts,
        lambda: monitor.latest("a"),
        lambda: monitor.application("a"),
    ):
        with pytest.raises(StateError, match="async with"):
            early()
    async with monitor:
        with pytest.raises(StateError, match="once"):
            await monitor.__aenter__()
        assert source.is_open
        stream = monitor.alerts()
    assert not source.is_open
    await monitor.aclose()
    assert [alert async for alert in stream] == []
    with pytest.raises(StateError):
        await monitor.__aenter__()
    for late in (lambda: monitor.watch(1), monitor.alerts):
        with pytest.raises(Closed):
            late()
    assert monitor.history() == []


@pytest.mark.row("MO1")
@virtual
async def test_a_closed_registry_leaves_nothing_of_a_monitor():
    source = ScriptedSource()
    async with ProcessRegistry() as registry:
        monitor = ResourceMonitor(registry=registry, source=source)
    with pytest.raises(Closed):
        await monitor.__aenter__()
    assert not source.is_open


@pytest.mark.row("MO1")
@virtual
async def test_a_registry_that_closes_first_does_no_harm():
    registry = ProcessRegistry()
    launcher = SimulatedLauncher({"server": Script(duration=3.0, exit=1)})
    async with ResourceMonitor(registry=registry, source=ScriptedSource()) as monitor:
        async with registry, spawn(Command("server"), registry=registry, launcher=launcher) as process:
            await asyncio.sleep(1.5)
            await registry.aclose()
            await process.wait()
        await asyncio.sleep(2)
        assert monitor.samples(process.id)


@pytest.mark.row("MO1")
def test_bad_values_are_refused_before_anything_happens():
    for options in ({"config": 5}, {"name": "two words"}, {"registry": "registry"}):
        with pytest.raises(ConfigError):
            ResourceMonitor(**options)


@pytest.mark.row("MO1")
@virtual
async def test_registered_processes_are_watched_by_themselves_and_figures_have_rates():
    async with Room(rising) as room, room.server(name="web") as process:
        await asyncio.sleep(3.5)
        sample = room.monitor.latest(process.id)
        assert (sample.id, sample.pid, sample.at, sample.rss_mb) == (process.id, process.pid, 3.0, 13.0)
        assert sample.cpu_percent == pytest.approx(50.0)
        assert room.monitor.latest("web") == room.monitor.latest(process.pid) == room.monitor.latest(process) == sample
        assert [one.at for one in room.monitor.samples("web")] == [0.0, 1.0, 2.0, 3.0]
        assert [one.at for one in room.monitor.samples("web", window=1.5)] == [2.0, 3.0]
        assert room.monitor.trend("web", window=2).samples == 3
        assert room.monitor.trend("web").memory.max == 13.0
        assert room.monitor.latest("web").trend.memory.max == 13.0
        (watch,) = room.monitor.watched
        assert room.monitor.find(process) is watch
        assert (watch.name, watch.target, watch.is_active) == ("web", "web", True)
        assert "3 samples" in repr(watch) or "4 samples" in repr(watch)
    assert room.monitor.latest(process.id) == sample
    assert not watch.is_active
    assert watch.ended.done()


@pytest.mark.row("MO1")
@virtual
async def test_what_runs_already_is_watched_and_what_the_configuration_excludes_is_not():
    registry = ProcessRegistry()
    launcher = SimulatedLauncher({"server": Script(duration=1e9)})
    async with registry, spawn(Command("server"), registry=registry, launcher=launcher) as process:
        async with ResourceMonitor(registry=registry, source=ScriptedSource()) as monitor:
            assert [watch.id for watch in monitor.watched] == [process.id]
        config = MonitorConfig(watch_registered=False)
        async with ResourceMonitor(config, registry=registry, source=ScriptedSource()) as monitor:
            assert monitor.watched == ()
            assert monitor.watch(process.id).pid == process.pid
            assert monitor.watch("server").id == process.id
            monitor.unwatch(process)
            assert monitor.watched == ()
            with pytest.raises(ProcessUnknown):
                monitor.unwatch(process)


@pytest.mark.row("MO1")
@virtual
async def test_a_fresh_sample_is_taken_when_asked_for():
    async with Room(rising, interval=100) as room, room.server() as process:
        await asyncio.sleep(10)
        assert room.monitor.latest(process).at == 0.0
        sample = await room.monitor.sample(process)
        assert sample.at == 10.0
        assert room.source.rounds == 2
    with pytest.raises((ProcessUnknown, Closed)):
        await room.monitor.sample(process)


@pytest.mark.row("MO1")
@virtual
async def test_samples_are_published_when_somebody_listens_for_them():
    async with Room(rising) as room, room.server() as process:
        await asyncio.sleep(2.5)
        assert room.registry.history(MetricsSampled) == []
        heard: list[Any] = []
        with room.registry.listen(heard.append, types=MetricsSampled):
            await asyncio.sleep(2)
        await asyncio.sleep(2)
        assert [event.id for event in heard] == [process.id] * 2
        assert heard[0].figures["rss_mb"] == 13.0
        assert heard[0].figures["pss_mb"] is None
    async with Room(rising, publish_samples=True) as room, room.server():
        await asyncio.sleep(2.5)
        assert len(room.registry.history(MetricsSampled)) == 3


@pytest.mark.row("MO1")
@virtual
async def test_rounds_that_cost_too_much_come_less_often_and_that_is_said():
    async with Room(interval=1.0, budget=0.1) as room:
        room.source.cost = 0.5
        await asyncio.sleep(0.5)
        assert room.monitor.statistics().interval == 5.0
        await asyncio.sleep(100)
        assert 19 <= room.source.rounds <= 22
        room.source.cost = 0.0
        await asyncio.sleep(10)
        assert room.monitor.statistics().interval == 1.0
        assert room.monitor.statistics().stretched >= 20
        event: Any
        (event,) = room.registry.history(SamplingStretched)
        assert (event.id, event.cost, event.interval) == ("monitor", 0.5, 5.0)


@pytest.mark.row("MO1")
@virtual
async def test_a_round_that_fails_is_not_the_last():
    async with Room(rising) as room, room.server() as process:
        await asyncio.sleep(1.5)
        room.source.fails = RuntimeError("no eyes")
        await asyncio.sleep(5)
        room.source.fails = None
        await asyncio.sleep(2)
        assert room.monitor.latest(process).at >= 6


# ------------------------------------------------------------------------------------------------------------- alerts


@pytest.mark.row("MO4")
@virtual
async def test_a_limit_is_one_alert_that_resolves_itself():
    def figures(target, at):
        return reading(at, rss_mb=200.0 if 3 <= at < 10 else 50.0)

    async with Room(figures) as room, room.server(name="web", owner="me") as process:
        watch = room.monitor.watch(process, limits=ResourceLimits(max_memory_mb=100, max_threads=5, for_samples=3))
        stream = room.monitor.alerts(resolved=True)
        raised, over = await anext(stream), await anext(stream)
        assert (raised.type, raised.rule, raised.process, raised.target) == (
            AlertType.MEMORY_HIGH,
            "memory_high",
            process.id,
            "web",
        )
        assert (raised.value, raised.limit, raised.count, raised.is_active) == (200.0, 100.0, 1, True)
        assert (raised.raised_at, raised.pid, raised.owner) == (5.0, process.pid, "me")
        assert (over.id, over.resolved_at, over.resolution, over.duration) == (raised.id, 11.0, "cleared", 6.0)
        first, second = room.told
        assert (first.id, first.alert, first.kind, first.severity, first.count) == (
            process.id,
            raised.id,
            "memory_high",
            "warning",
            1,
        )
        assert (second.alert, second.duration, second.how) == (raised.id, 6.0, "cleared")
        assert room.monitor.active_alerts == ()
        assert room.monitor.history() == room.monitor.history(process) == room.monitor.history("web") == [over]
        assert room.monitor.history(type="memory_high", severity="warning", since=5.0, limit=1) == [over]
        assert room.monitor.history(type="cpu_high") == room.monitor.history(severity="critical") == []
        assert room.monitor.history(limit=0) == room.monitor.history(since=6.0) == []
        assert watch.limits.max_memory_mb == 100


@pytest.mark.row("MO4")
@virtual
async def test_a_condition_that_comes_back_is_raised_again_and_counted():
    def figures(target, at):
        return reading(at, threads=9 if int(at) // 5 % 2 else 1)

    async with Room(figures) as room, room.server() as process:
        room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1, clear_samples=1))
        stream = room.monitor.alerts()
        counts = [(await anext(stream)).count for _ in range(3)]
        assert counts == [1, 2, 3]
        assert [event.count for event in room.events(AlertRaised)] == [1, 2, 3]
        assert room.monitor.statistics().alerts_raised[Severity.WARNING] == 3


@pytest.mark.row("MO4")
@virtual
async def test_flapping_is_no_flood():
    async with (
        Room(lambda target, at: reading(at, threads=9 if int(at) % 3 == 0 else 1)) as room,
        room.server() as process,
    ):
        room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1, clear_samples=2))
        await asyncio.sleep(3600)
        assert len(room.events(AlertRaised)) <= 3


@pytest.mark.row("MO4")
@virtual
async def test_resolved_by_hand_it_stays_so_until_it_has_cleared():
    loud = True
    async with Room(lambda target, at: reading(at, threads=9 if loud else 1)) as room, room.server() as process:
        room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1))
        alert = await anext(room.monitor.alerts())
        over = room.monitor.resolve(alert.id, note="known")
        assert (over.resolution, over.note) == ("by hand", "known")
        with pytest.raises(AlertNotFound):
            room.monitor.resolve(alert.id)
        assert room.monitor.alert(alert.id) == over
        await asyncio.sleep(20)
        assert room.monitor.active_alerts == ()
        loud = False
        await asyncio.sleep(20)
        loud = True
        await asyncio.sleep(5)
        (again,) = room.monitor.active_alerts
        assert again.count == 2


@pytest.mark.row("MO4")
@virtual
async def test_standing_still_is_hung_and_moving_again_is_not():
    def figures(target, at):
        return reading(at, letter="D" if 10 <= at < 60 else "S")

    async with Room(figures, hung_after=30) as room, room.server() as process:
        stream = room.monitor.alerts(resolved=True)
        alert = await anext(stream)
        assert (alert.type, alert.severity, alert.raised_at) == (AlertType.PROCESS_HUNG, Severity.CRITICAL, 40.0)
        assert alert.message == "makes no progress: in state disk-sleep for 30 s"
        assert (await anext(stream)).resolved_at == 60.0
        assert room.monitor.latest(process).state == "sleeping"


@pytest.mark.row("MO4")
@virtual
async def test_who_waits_for_a_slow_disk_at_every_look_is_not_hung():
    def figures(target, at):
        return reading(at, letter="D", context_switches=int(at))

    async with Room(figures, hung_after=5) as room, room.server():
        await asyncio.sleep(100)
        assert room.monitor.history() == []


@pytest.mark.row("MO4")
@virtual
async def test_stopped_by_somebody_else_is_hung_but_suspended_by_its_owner_is_not():
    async with Room(lambda target, at: reading(at, letter="T"), hung_after=5) as room:
        async with room.server() as process:
            process.suspend()
            await asyncio.sleep(20)
            assert room.told == []
            process.resume()
            await asyncio.sleep(20)
            assert [event.kind for event in room.told] == ["process_hung"]


@pytest.mark.row("MO4")
@virtual
async def test_a_heart_that_stops_beating_is_hung():
    async with Room() as room, room.server(name="web", labels={"unit": "api"}) as process:
        room.monitor.watch(process, limits=ResourceLimits(heartbeat_timeout=5))
        for _ in range(10):
            await asyncio.sleep(2)
            room.monitor.heartbeat("web")
        assert room.told == []
        for _ in range(10):
            await asyncio.sleep(2)
            room.registry.publish(ProbeChecked(id="api", probe="http", healthy=True, duration=0.1))
        assert room.told == []
        await asyncio.sleep(10)
        assert [event.kind for event in room.told] == ["process_hung"]
        room.monitor.heartbeat(process.pid)
        await asyncio.sleep(2)
        assert [event.how for event in room.events(AlertResolved)] == ["cleared"]


@pytest.mark.row("MO3")
@pytest.mark.row("MO4")
@virtual
async def test_a_liveness_probe_that_fails_is_a_warning_until_it_does_not_or_the_process_ends():
    async with Room() as room:

        def say(probe, healthy):
            room.registry.publish(HealthChanged(id="api-1", probe=probe, healthy=healthy, detail="500"))

        say("liveness", False)
        (alert,) = room.monitor.active_alerts
        assert (alert.process, alert.pid, alert.type) == ("api-1", None, AlertType.PROCESS_HUNG)
        say("liveness", True)
        async with room.server(name="api-1", labels={"unit": "api"}) as process:
            say("readiness", False)
            assert room.monitor.active_alerts == ()
            say("liveness", False)
            (alert,) = room.monitor.active_alerts
            assert (alert.process, alert.target, alert.severity) == (process.id, "api", Severity.WARNING)
            assert alert.message == "its liveness probe fails: 500"
            say("liveness", True)
            assert room.monitor.active_alerts == ()
            say("liveness", False)
        assert [alert.resolution for alert in room.monitor.history()] == ["cleared", "cleared", "ended"]


@pytest.mark.row("MO4")
@virtual
async def test_idle_is_no_work_and_no_data():
    def figures(target, at):
        return reading(at, cpu_seconds=min(at, 10.0), disk_write_mb=20.0 if at >= 20 else 0.0)

    async with Room(figures) as room, room.server() as process:
        room.monitor.watch(process, limits=ResourceLimits(max_idle_seconds=30, for_samples=1))
        alert = await anext(room.monitor.alerts())
        assert (alert.type, alert.raised_at) == (AlertType.IDLE, 51.0)
        assert room.monitor.latest(process).idle_seconds == 31.0


# ------------------------------------------------------------------------------------------------------ unexpected ends


async def ended(room: Room, script: Script, *, watched: bool = False, **options: Any) -> list[tuple[str, str]]:
    labels = options.pop("labels", {})
    launcher = SimulatedLauncher({"server": script})
    before = len(room.told)
    async with spawn(Command("server", labels=labels), registry=room.registry, launcher=launcher, **options) as process:
        if watched:
            room.monitor.watch(process)
        await process.wait()
    return [(event.kind, event.severity) for event in room.told[before:] if isinstance(event, AlertRaised)]


@pytest.mark.row("MO4")
@virtual
async def test_the_unexpected_end_of_a_process_is_an_alert():
    critical, warning = [("process_down", "critical")], [("process_down", "warning")]
    lives: Any = {"duration": 3.0}
    brief: Any = {"duration": 0.1}
    async with Room() as room:
        await asyncio.sleep(0.5)
        assert await ended(room, Script(exit=0, **lives), watched=True, name="a") == []
        assert await ended(room, Script(exit=3, **lives), watched=True, name="b") == critical
        assert await ended(room, Script(exit=3, **lives), name="c") == critical
        assert await ended(room, Script(exit=3, **brief), name="d") == []
        assert await ended(room, Script(exit=signal.SIGKILL, **brief), name="e") == critical
        assert await ended(room, Script(exit=signal.SIGKILL, **brief), name="f", labels={"unit": "f"}) == warning
        assert await ended(room, Script(exit=signal.SIGKILL, **brief), name="g", labels={"pool": "p"}) == warning
        assert await ended(room, Script(exit=3, **lives), name="h", labels={"pool": "p"}) == []
        room.registry.publish(TaskStarted(id="t", owner="scheduler", attempt=1, waited=0.0))
        assert await ended(room, Script(exit=signal.SIGKILL, **lives), name="i", owner="scheduler") == warning
        async with room.server(name="stopped") as process:
            await process.stop()
        assert room.monitor.history("stopped") == []
        messages = [alert.message for alert in room.monitor.history()]
        assert messages[0] == "b is down: exit 3"
        assert messages[2] == "e is down: SIGKILL"


@pytest.mark.row("MO4")
@virtual
async def test_one_alert_per_unit_however_often_it_goes_down_and_none_when_it_is_up():
    async with Room() as room:
        for _ in range(3):
            await ended(room, Script(exit=signal.SIGKILL, duration=1.0), name="w", labels={"unit": "api"})
            (alert,) = room.monitor.active_alerts
            assert alert.target == "api"
        async with room.server(labels={"unit": "api"}):
            assert room.monitor.active_alerts == ()
            assert {alert.resolution for alert in room.monitor.history()} == {"recovered"}


@pytest.mark.row("MO4")
@virtual
async def test_what_its_owner_gives_up_is_critical_until_it_runs_again():
    async with Room() as room:
        await ended(room, Script(exit=signal.SIGKILL, duration=1.0), labels={"unit": "api"})
        room.registry.publish(FailureReported(id="api", owner="lifecycle", kind="crash", error="too often"))
        (alert,) = room.monitor.active_alerts
        assert (alert.process, alert.severity, alert.message) == (
            "api",
            Severity.CRITICAL,
            "api is down (crash): too often",
        )
        room.registry.publish(FailureReported(id="api", owner="lifecycle", kind="crash"))
        assert len(room.monitor.active_alerts) == 1
        room.registry.publish(StateChanged(id="api", owner="lifecycle", old="starting", new="running"))
        assert room.monitor.active_alerts == ()
    async with Room(down_alerts=False) as room:
        room.registry.publish(FailureReported(id="api", owner="lifecycle", kind="crash"))
        assert await ended(room, Script(exit=signal.SIGKILL, duration=1.0), watched=True) == []


@pytest.mark.row("MO4")
@virtual
async def test_alerts_about_a_process_end_with_it():
    async with Room(lambda target, at: reading(at, threads=9)) as room:
        async with room.server() as process:
            room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1))
            await anext(room.monitor.alerts())
        assert [alert.resolution for alert in room.monitor.history()] == ["ended"]


# --------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.row("MO5")
@virtual
async def test_a_rule_is_asked_about_every_process_it_is_for():
    seen: list[Alert] = []
    async with Room(rising) as room:
        room.monitor.add_rule(
            Rule(
                "big",
                lambda s: (s.rss_mb or 0) > 15,
                for_seconds=3,
                callbacks=seen.append,
                message=lambda s: f"{s.rss_mb} MB",
            )
        )
        room.monitor.add_rule(Rule("mine", lambda s: True, owner="me"))
        room.monitor.add_rule(Rule("named", lambda s: True, ids=["web"]))
        async with room.server(name="web", owner="me", labels={"tier": "front"}), room.server(name="other"):
            room.monitor.add_rule(Rule("front", lambda s: True, label="tier"))
            room.monitor.add_rule(Rule("back", lambda s: True, label=("tier", "back")))
            room.monitor.add_rule(Rule("front2", lambda s: True, label=("tier", "front")))
            await asyncio.sleep(20)
            found = {(alert.target, alert.rule) for alert in room.monitor.active_alerts}
            assert found == {
                ("web", "big"),
                ("other", "big"),
                ("web", "mine"),
                ("web", "named"),
                ("web", "front"),
                ("web", "front2"),
            }
            assert [(alert.message, alert.raised_at) for alert in seen] == [("19.0 MB", 9.0)] * 2
            room.monitor.remove_rule("big")
            assert len(room.monitor.active_alerts) == 4
            with pytest.raises(ConfigError):
                room.monitor.remove_rule("big")


@pytest.mark.row("MO5")
@virtual
async def test_a_rule_that_raises_is_counted_and_harms_nobody():
    def bad(sample):
        if sample.at < 5:
            raise ZeroDivisionError("no")
        return True

    def bad_message(sample):
        raise LookupError("no words")

    async with Room() as room, room.server() as process:
        room.monitor.add_rule(Rule("bad", bad))
        room.monitor.add_rule(Rule("none", lambda s: s.network_mbps > 5))  # type: ignore[operator]
        room.monitor.add_rule(Rule("dumb", lambda s: True, message=bad_message))
        room.monitor.add_rule(Rule("good", lambda s: True))
        await asyncio.sleep(6.5)
        assert {alert.rule for alert in room.monitor.active_alerts} == {"bad", "dumb", "good"}
        assert room.monitor.statistics().rule_errors == 5 + 7 + 1
        assert room.monitor.latest(process).at == 6.0


@pytest.mark.row("MO5")
@virtual
async def test_a_rule_may_look_back():
    async with Room(rising) as room, room.server():
        room.monitor.add_rule(Rule("leak", lambda s: s.trend.memory_slope_mb_per_hour > 50, for_seconds=60))
        alert = await anext(room.monitor.alerts())
        assert alert.rule == "leak"
        assert 60 <= alert.raised_at <= 70


@pytest.mark.row("MO5")
@virtual
async def test_a_rule_of_the_same_name_takes_the_place_of_the_first_and_limits_can_change():
    async with Room(lambda target, at: reading(at, threads=9)) as room, room.server() as process:
        room.monitor.add_rule(Rule("r", lambda s: True))
        room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1))
        await asyncio.sleep(1.5)
        assert {alert.rule for alert in room.monitor.active_alerts} == {"r", "threads_high"}
        room.monitor.watch(process)
        room.monitor.add_rule(Rule("r", lambda s: False))
        assert {alert.rule for alert in room.monitor.active_alerts} == {"threads_high"}
        room.monitor.watch(process, limits=ResourceLimits())
        assert room.monitor.active_alerts == ()


# ---------------------------------------------------------------------------------------------------------- callbacks


@pytest.mark.row("MO5")
@virtual
async def test_callbacks_are_told_of_what_they_asked_for():
    told: dict[str, list[Any]] = {name: [] for name in ("all", "bad", "type", "rule", "process", "over", "async")}

    async def later(alert):
        await asyncio.sleep(0.1)
        told["async"].append(alert.rule)

    def into(name):
        return lambda alert: told[name].append((alert.rule, alert.is_active))

    async with (
        Room(lambda target, at: reading(at, threads=9 if at < 5 else 1)) as room,
        room.server(name="web") as process,
    ):
        on = room.monitor.on_alert
        everything = on("info", into("all"), later)
        on(Severity.CRITICAL, into("bad"))
        on("info", into("type"), type=["threads_high", AlertType.IDLE])
        on("info", into("rule"), rule="other")
        on("info", into("process"), process=["web", "x"])
        on("info", into("over"), resolved=True, type="threads_high")
        room.monitor.add_rule(Rule("other", lambda s: True, severity=Severity.CRITICAL))
        room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1))
        await asyncio.sleep(8.5)
        assert sorted(told["all"]) == sorted(told["process"]) == [("other", True), ("threads_high", True)]
        assert told["bad"] == told["rule"] == [("other", True)]
        assert told["type"] == [("threads_high", True)]
        assert told["over"] == [("threads_high", True), ("threads_high", False)]
        assert sorted(told["async"]) == ["other", "threads_high"]
        assert (everything.calls, everything.failures) == (4, 0)
        everything.close()
        room.monitor.add_rule(Rule("third", lambda s: True))
        await asyncio.sleep(2)
        assert len(told["all"]) == len(told["async"]) == 2
        assert repr(everything).endswith("<locals>.later: 4 calls, 0 failures>")


@pytest.mark.row("MO5")
@virtual
async def test_callbacks_that_fail_or_hang_harm_nobody():
    seen: list[str] = []

    async def hangs(alert):
        await asyncio.Event().wait()

    async def cancels(alert):
        raise asyncio.CancelledError

    async def stubborn_for_a_while(alert):
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(1)

    def fails(alert):
        raise ValueError("no")

    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def mute(alert):
        raise Mute

    async with Room(callback_timeout=2.0) as room, room.server():
        bad = [room.monitor.on_alert("info", one) for one in (hangs, cancels, fails, mute, stubborn_for_a_while)]
        room.monitor.on_alert("info", lambda alert: seen.append(alert.rule))
        room.monitor.add_rule(Rule("r", lambda s: True))
        await asyncio.sleep(1.5)
        assert seen == ["r"]
        await asyncio.sleep(5)
        assert [one.failures for one in bad] == [1] * 5
        assert room.monitor.statistics().callback_failures == 5


@pytest.mark.row("MO5")
@virtual
async def test_a_callback_that_does_not_keep_up_misses_the_oldest():
    seen: list[str] = []

    async def slow(alert):
        await asyncio.sleep(1e6)
        seen.append(alert.rule)

    async with Room(callback_timeout=1e9) as room, room.server():
        responder = room.monitor.on_alert("info", slow)
        stream = room.monitor.alerts(max_queued=3)
        for number in range(1500):
            room.monitor.add_rule(Rule(f"r{number}", lambda s: True))
        await asyncio.sleep(1.5)
        assert responder.dropped == 500
        assert stream.dropped == 1497
        assert room.monitor.statistics().dropped == 500 + 1497
        assert [(await anext(stream)).rule for _ in range(3)] == ["r1497", "r1498", "r1499"]
        responder.close()


@pytest.mark.row("MO5")
@virtual
async def test_sinks_are_sent_alerts_and_their_ends():
    class Sink:
        def __init__(self):
            self.got = []

        async def send(self, alert):
            self.got.append((alert.rule, alert.is_active))
            if len(self.got) == 1:
                raise OSError("full")

    sink = Sink()
    async with Room(lambda target, at: reading(at, threads=9 if at < 5 else 1)) as room, room.server() as process:
        responder = room.monitor.add_sink(sink, severity="warning")
        room.monitor.watch(process, limits=ResourceLimits(max_threads=5, for_samples=1))
        await asyncio.sleep(9.5)
        assert sink.got == [("threads_high", True), ("threads_high", False)]
        assert (responder.calls, responder.failures) == (2, 1)
        for bad in (Sink, 5, print):
            with pytest.raises(ConfigError):
                room.monitor.add_sink(bad)


@pytest.mark.row("MO5")
@virtual
async def test_what_nobody_can_be_told_by_is_refused():
    async with Room() as room, room.server() as process:
        on = room.monitor.on_alert
        for options in ({"type": "cpu"}, {"type": 5}, {"rule": 5}, {"process": 5}):
            with pytest.raises(ConfigError):
                on("info", print, **options)
        with pytest.raises(ConfigError):
            on("bad", print)
        for responders in ((), (5,), (print, None)):
            with pytest.raises(ConfigError):
                on("info", *responders)
        for call in (
            lambda: room.monitor.add_rule("leak"),
            lambda: room.monitor.alerts("loud"),
            lambda: room.monitor.alerts(max_queued=0),
            lambda: room.monitor.watch(process, limits=5),
            lambda: room.monitor.watch(process, tree="yes"),
            lambda: room.monitor.watch(process, pss=1),
            lambda: room.monitor.watch(process, name="two words"),
            lambda: room.monitor.watch(3.5),
            lambda: room.monitor.watch(True),
            lambda: room.monitor.watch(None),
            lambda: room.monitor.watch(0),
            lambda: room.monitor.watch(-1),
            lambda: room.monitor.latest(None),
            lambda: room.monitor.latest(True),
            lambda: room.monitor.samples(process, window=-1),
            lambda: room.monitor.trend(process, window=float("nan")),
            lambda: room.monitor.history(limit=-1),
            lambda: room.monitor.history(type="cpu"),
            lambda: room.monitor.watch_owner("pool", limits=None),
            lambda: room.monitor.watch_owner("two words", limits=ResourceLimits()),
        ):
            with pytest.raises(ConfigError):
                call()


@pytest.mark.row("MO1")
@virtual
async def test_unknown_processes_are_typed_errors():
    async with Room() as room:
        for call in (
            lambda: room.monitor.watch(2**30 + 5),
            lambda: room.monitor.watch("nobody"),
            lambda: room.monitor.latest("nobody"),
            lambda: room.monitor.latest(2**30 + 5),
            lambda: room.monitor.unwatch("nobody"),
            lambda: room.monitor.heartbeat("nobody"),
            lambda: room.monitor.find("nobody"),
        ):
            with pytest.raises(ProcessUnknown) as error:
                call()
            assert isinstance(error.value, (NotFound, MetricsUnavailable))
        with pytest.raises(AlertNotFound):
            room.monitor.resolve("nothing")
        with pytest.raises(AlertNotFound):
            room.monitor.alert("nothing")


# ------------------------------------------------------------------------------------------------------------ actions


class Units:
    """Stands in for whoever can restart and stop things."""

    def __init__(self):
        self.did: list[tuple[str, str, str]] = []
        self.size = 2

    async def restart(self, id, *, reason=""):
        self.did.append(("restart", id, reason))

    async def stop(self, id, *, reason=""):
        self.did.append(("stop", id, reason))
        raise RuntimeError("it does not want to")

    async def scale_up(self, n=1):
        self.size += n
        return self.size

    async def scale_down(self, n=1):
        self.size -= n
        return self.size


@pytest.mark.row("MO6")
@virtual
async def test_actions_go_through_protocols_are_events_and_fail_loudly():
    units = Units()
    async with Room() as room, room.server(name="web", labels={"unit": "api"}):
        room.monitor.on_alert(
            "critical",
            actions.restart(via=units),
            actions.stop(via=units),
            actions.scale(via=units, by=3),
            actions.scale(via=units, by=-1),
            actions.restart(via=units, id=lambda alert: f"{alert.target}-2"),
            actions.restart(via=units, id="fixed"),
            actions.notify(lambda alert: f"told of {alert.rule}"),
            actions.call("own", lambda alert: asyncio.sleep(0)),
        )
        room.monitor.add_rule(Rule("r", lambda s: True, severity=Severity.CRITICAL))
        await asyncio.sleep(2)
        reason = "critical alert r: the rule r holds"
        assert sorted(units.did) == [
            ("restart", "api", reason),
            ("restart", "api-2", reason),
            ("restart", "fixed", reason),
            ("stop", "api", reason),
        ]
        found = sorted((event.action, event.ok, event.detail) for event in room.events(ActionTaken))
        assert found == [
            ("notify", True, "told of r"),
            ("own", True, ""),
            ("restart", True, "restarted api"),
            ("restart", True, "restarted api-2"),
            ("restart", True, "restarted fixed"),
            ("scale", True, "size 4"),
            ("scale", True, "size 5"),
            ("stop", False, "RuntimeError: it does not want to"),
        ]
        statistics = room.monitor.statistics()
        assert (statistics.actions, statistics.action_failures, units.size) == (8, 1, 4)
        assert {event.alert for event in room.events(ActionTaken)} == {room.monitor.active_alerts[0].id}


@pytest.mark.row("MO6")
@virtual
async def test_what_is_given_together_is_done_in_order_and_what_is_given_apart_does_not_wait():
    done: list[str] = []

    async def slow(alert):
        await asyncio.sleep(1.0)
        done.append("slow")

    def fails(alert):
        done.append("fails")
        raise ValueError

    async with Room() as room, room.server():
        room.monitor.on_alert("info", slow, fails, actions.notify(lambda alert: done.append("notified")), resolved=True)
        room.monitor.on_alert("info", lambda alert: done.append("apart"))
        room.monitor.add_rule(Rule("r", lambda s: True))
        await asyncio.sleep(2.5)
        assert done == ["apart", "slow", "fails", "notified"]
        room.monitor.remove_rule("r")
        await asyncio.sleep(2.5)
        assert done[4:] == ["slow", "fails"]  # nothing is done about what is over


@pytest.mark.row("MO6")
@virtual
async def test_an_action_has_a_cool_down_for_each_process():
    units = Units()

    def figures(target, at):
        return reading(at, threads=9 if int(at) % 10 < 3 else 1)

    async with Room(figures) as room, room.server(name="a") as a, room.server(name="b") as b:
        limits = ResourceLimits(max_threads=5, for_samples=1, clear_samples=1)
        for process in (a, b):
            room.monitor.watch(process, limits=limits)
        responder = room.monitor.on_alert("info", actions.restart(via=units, cooldown=25))
        await asyncio.sleep(39)
        assert sorted(id for _, id, _ in units.did) == ["a", "a", "b", "b"]
        assert responder.skipped >= 2


@pytest.mark.row("MO6")
@virtual
async def test_an_action_that_hangs_is_ended_and_one_about_who_is_gone_fails():
    class Hanging(Units):
        async def restart(self, id, *, reason=""):
            await asyncio.Event().wait()

    async with Room(callback_timeout=3.0) as room:
        async with room.server():
            room.monitor.on_alert("info", actions.restart(via=Hanging()), actions.restart(via=Hanging(), timeout=1.0))
            room.monitor.add_rule(Rule("r", lambda s: True))
            await asyncio.sleep(5)
        assert sorted(event.detail for event in room.events(ActionTaken)) == [
            "it took longer than 1 s",
            "it took longer than 3 s",
        ]
        room.monitor.on_alert("info", actions.suspend(), actions.snapshot("unused"))
        await ended(room, Script(exit=signal.SIGKILL, duration=1.0))
        await asyncio.sleep(1)
        late = [event for event in room.events(ActionTaken) if event.action in ("suspend", "snapshot")]
        assert {event.detail.split(": ", 1)[1].split(": ")[-1] for event in late} == {"it has ended"}
        assert not any(event.ok for event in late)


@pytest.mark.row("MO6")
def test_bad_actions_are_refused():
    units: Any = Units()
    actions: Any = monitor_actions
    for make in (
        lambda: actions.restart(via=None),
        lambda: actions.restart(via=Units),
        lambda: actions.restart(via=print),
        lambda: actions.stop(via=print),
        lambda: actions.stop(grace=-1),
        lambda: actions.scale(via=print),
        lambda: actions.scale(via=units, by=0),
        lambda: actions.scale(via=units, by=True),
        lambda: actions.restart(via=units, cooldown=-1),
        lambda: actions.restart(via=units, timeout="soon"),
        lambda: actions.renice(20),
        lambda: actions.renice(True),
        lambda: actions.ionice("fast"),
        lambda: actions.ionice("idle", 3),
        lambda: actions.ionice("best_effort", 8),
        lambda: actions.snapshot("x", keep=0),
        lambda: actions.call("own", 5),
        lambda: actions.call("two words", print),
    ):
        with pytest.raises(ConfigError):
            make()
    assert repr(actions.suspend()) == "<Action suspend, cool-down 60 s>"


# -------------------------------------------------------------------------------------------------- application figures


@pytest.mark.row("MO3")
@virtual
async def test_answers_of_others_are_figures_and_can_be_limited():
    async with Room() as room, room.server(name="web", labels={"unit": "api"}) as process:
        room.monitor.watch(process, limits=ResourceLimits(max_error_rate=0.3, max_response_time=1.0, for_samples=1))
        for number in range(20):
            event = ProbeChecked(id="api", probe="http", healthy=number % 2 == 0, duration=0.5)
            room.registry.publish(event)
        await asyncio.sleep(1.5)
        sample = room.monitor.latest(process)
        assert (sample.response_time, sample.error_rate, sample.answers) == (0.5, 0.5, 20)
        assert {alert.type for alert in room.monitor.active_alerts} == {AlertType.ERROR_RATE_HIGH}
        assert room.monitor.application(process).errors == room.monitor.application("api").errors == 10
        assert room.monitor.application("web").total_successes == 10
        with pytest.raises(ProcessUnknown):
            room.monitor.application(2**30 + 7)
        assert room.monitor.application("nobody").answers == 0


@pytest.mark.row("MO3")
@virtual
async def test_a_pool_as_a_whole_can_be_watched():
    async with Room() as room:
        watch = room.monitor.watch_owner("pool", limits=ResourceLimits(max_response_time=1.0, for_samples=1))
        assert room.monitor.watch_owner("pool", limits=watch.limits) is watch
        for _ in range(3):
            room.registry.publish(CallFinished(id="w", owner="pool", pool="pool", ok=True, duration=2.0))
        alert = await anext(room.monitor.alerts())
        assert (alert.type, alert.process, alert.value) == (AlertType.RESPONSE_TIME_HIGH, "pool", 2.0)
        assert room.monitor.latest("pool").pid == 0
        assert room.monitor.trend("pool").memory.count == 0
        room.monitor.unwatch("pool")
        assert room.monitor.active_alerts == ()
        with pytest.raises(ProcessUnknown):
            room.monitor.latest("pool")


# ------------------------------------------------------------------------------------------------------------- overall


@pytest.mark.row("MO7")
@virtual
async def test_figures_of_all_processes_together():
    async with Room(rising) as room, room.server(), room.server():
        await asyncio.sleep(2.5)
        statistics = room.monitor.statistics()
        assert (statistics.watched, statistics.rss_mb, statistics.threads, statistics.file_descriptors) == (
            2,
            24.0,
            2,
            6,
        )
        assert statistics.cpu_percent == pytest.approx(100.0)
        assert statistics.by_state == {"sleeping": 2}
        assert statistics.memory_mb == room.monitor.capacity.memory_mb > 0
        assert statistics.memory_percent == pytest.approx(24.0 / statistics.memory_mb * 100)
    assert room.monitor.statistics().ended == 2


@pytest.mark.row("MO7")
@virtual
async def test_ended_processes_are_kept_for_a_while():
    async with Room(rising, ended_size=2) as room:
        ids = []
        for _ in range(3):
            async with room.server() as process:
                ids.append(process.id)
                await asyncio.sleep(1.5)
        with pytest.raises(ProcessUnknown):
            room.monitor.latest(ids[0])
        assert room.monitor.latest(ids[1]) is not None
        assert room.monitor.samples(ids[2])
        async with room.server() as process:
            assert room.monitor.samples(process) == []
            assert room.monitor.latest(process) is None
            assert room.monitor.trend(process).samples == 0


@pytest.mark.row("MO1")
@virtual
async def test_short_lived_processes_are_never_read():
    async with Room(interval=10) as room:
        await asyncio.sleep(1)
        launcher = SimulatedLauncher({"quick": Script(duration=0.01)})
        for _ in range(20):
            await run(Command("quick"), registry=room.registry, launcher=launcher)
        await asyncio.sleep(10)
        assert room.source.targets == {}
        assert room.monitor.watched == ()


@pytest.mark.row("MO1")
@virtual
async def test_a_callback_that_ignores_its_cancellation_does_not_hold_up_the_end():
    gate = asyncio.Event()

    async def stubborn(alert):
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    room = Room(close_timeout=2.0, callback_timeout=1e6)
    async with room, room.server():
        room.monitor.on_alert("info", stubborn)
        room.monitor.add_rule(Rule("r", lambda s: True))
        await asyncio.sleep(1.5)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began <= 5.0
    gate.set()
    await asyncio.sleep(0.1)
