"""Actions on real processes."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path

import psutil
import pytest

from procession import CommandPool, ProcessRegistry, spawn
from procession.events import ActionTaken, ProcessExited, StateChanged
from procession.monitor import MonitorConfig, ResourceMonitor, Rule, actions
from tests.monitor.support import program

pytestmark = pytest.mark.row("MO6")

FAST = MonitorConfig(interval=0.05, network=False, hung_after=0.2)
ALWAYS = Rule("always", lambda s: True)


async def act(monitor: ResourceMonitor, registry: ProcessRegistry, *wanted: actions.Action) -> list[ActionTaken]:
    """Has an alert raised, and waits for what is done about it."""
    async with registry.subscribe(ActionTaken) as events:
        monitor.on_alert("info", *wanted)
        monitor.add_rule(ALWAYS)
        found = [await anext(events) for _ in wanted]
    return sorted((event for event in found if isinstance(event, ActionTaken)), key=lambda event: event.action)


@pytest.mark.parametrize("owned", [True, False])
async def test_priorities_are_lowered(owned: bool) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("threads", 3), registry=registry if owned else None) as process:
            assert await anext(process.lines()) == "ready"
            monitor.watch(process if owned else process.pid)
            disk, processor = await act(monitor, registry, actions.renice(7), actions.ionice("idle"))
            assert (disk.ok, disk.detail) == (True, "idle for 1 process")
            assert (processor.ok, processor.detail) == (True, "nice 7 for 1 process")
            assert psutil.Process(process.pid).nice() == 7
            assert psutil.Process(process.pid).ionice().ioclass == psutil.IOPRIO_CLASS_IDLE
            tasks = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
            assert [os.getpriority(os.PRIO_PROCESS, task) for task in tasks] == [7] * 4


async def test_a_whole_tree_is_reniced() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("children", 2, 1), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            found = await act(
                monitor, registry, actions.renice(3, tree=True), actions.ionice("best_effort", 7, tree=True)
            )
            assert [event.detail for event in found] == ["best_effort for 3 processes", "nice 3 for 3 processes"]
            for child in psutil.Process(process.pid).children():
                assert child.nice() == 3
                assert child.ionice().value == 7


@pytest.mark.parametrize("how", ["process", "record", "stranger"])
async def test_a_process_is_suspended_and_does_not_count_as_hung(how: str) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("wait"), registry=None if how == "stranger" else registry) as process:
            assert await anext(process.lines()) == "ready"
            if how == "process":
                monitor.watch(process)
            elif how == "stranger":
                monitor.watch(process.pid)
            (event,) = await act(monitor, registry, actions.suspend())
            assert (event.ok, event.detail) == (True, "suspended")
            while psutil.Process(process.pid).status() != "stopped":
                await monitor.sample(process.pid)
            if how == "process":
                assert [getattr(one, "new", "") for one in registry.history(StateChanged, id=process.id)] == [
                    "suspended"
                ]
            for _ in range(10):
                await monitor.sample(process.pid)
            assert {alert.rule for alert in monitor.history()} == {"always"}
            monitor.on_alert("info", actions.resume())
            monitor.add_rule(Rule("again", lambda s: True))
            while psutil.Process(process.pid).status() == "stopped":
                await monitor.sample(process.pid)


@pytest.mark.parametrize("how", ["process", "record", "stranger"])
async def test_a_process_is_stopped(how: str) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("wait"), registry=None if how == "stranger" else registry) as process:
            assert await anext(process.lines()) == "ready"
            if how != "record":
                monitor.watch(process if how == "process" else process.pid)
            (event,) = await act(monitor, registry, actions.stop(grace=20))
            assert event.ok, event.detail
            assert await process.wait() == -signal.SIGTERM
            assert [alert.rule for alert in monitor.history()] == ["always"]  # it is not down: it was stopped


async def test_a_process_that_ignores_termination_is_killed() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        command = program("wait").replace(argv=("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"))
        async with spawn(command, registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            (event,) = await act(monitor, registry, actions.stop(grace=0.2))
            assert (event.ok, event.detail) == (True, "ended after SIGKILL")


async def test_a_pool_is_a_scalable() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with CommandPool(2, registry=registry) as pool, spawn(program("wait"), registry=registry):
            (event,) = await act(monitor, registry, actions.scale(via=pool, by=3))
            assert (event.detail, pool.statistics().size) == ("size 5", 5)


async def test_a_snapshot_is_written_for_its_owner_alone_and_old_ones_go(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "snapshots"
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        command = program("files", 5, env={"API_TOKEN": "hush-hush"})
        async with spawn(command, registry=registry, name="web") as process:
            assert await anext(process.lines()) == "ready"
            monitor.on_alert("info", actions.snapshot(folder, keep=2, cooldown=0))
            path = tmp_path
            async with registry.subscribe(ActionTaken) as events:
                for number in range(4):
                    monitor.add_rule(Rule(f"r{number}", lambda s: True))
                    event = await anext(events)
                    assert isinstance(event, ActionTaken)
                    assert event.ok, event.detail
                    path = Path(event.detail)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            files = sorted(folder.iterdir())
            assert len(files) == 4
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            told = json.loads(path.read_text())
            assert told["pid"] == process.pid
            assert told["environment"]["API_TOKEN"] == "***"
            assert not any("hush-hush" in file.read_text() for file in files)
            assert f"process {process.pid}" in path.with_suffix(".txt").read_text()


async def test_an_action_on_a_process_that_is_gone_says_so() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        monitor.on_alert("critical", actions.renice(5), actions.stop())
        async with registry.subscribe(ActionTaken) as events:
            async with spawn(program("wait"), registry=registry) as process:
                assert await anext(process.lines()) == "ready"
                monitor.watch(process)
                process.kill()
                found = [await anext(events), await anext(events)]
        assert [event.ok for event in found if isinstance(event, ActionTaken)] == [False, False]
        assert registry.history(ProcessExited)
        assert monitor.statistics().action_failures == 2
