"""A program around a monitor, cancelled at every suspension point: its thread, files and tasks end with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
import uvloop

from procession import Command, ProcessRegistry, spawn
from procession.monitor import MonitorConfig, ResourceMonitor, Rule, actions
from procession.testing import cancel_everywhere

pytestmark = [pytest.mark.one_loop, pytest.mark.row("MO1")]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
FAST = MonitorConfig(interval=0.05, network=False)
SEEN: list[ResourceMonitor] = []


async def readings_alerts_and_actions() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        SEEN.append(monitor)
        monitor.on_alert("info", actions.renice(3))
        monitor.add_rule(Rule("always", lambda s: True))
        with monitor.alerts() as alerts:
            async with spawn(Command("sleep", "60"), registry=registry) as process:
                await anext(alerts)
                await monitor.sample(process)
                await monitor.tree(process)


def check() -> None:
    assert [one.name for one in threading.enumerate() if one.name.startswith("procession-monitor")] == []
    while SEEN:
        assert "monitor open" not in repr(SEEN.pop())


@pytest.mark.timeout(120)
@pytest.mark.parametrize("loop", LOOPS)
def test_wherever_it_is_cancelled_nothing_is_left(loop: str) -> None:
    report = cancel_everywhere(readings_alerts_and_actions, check=check, loop_factory=LOOPS[loop], max_points=60)
    assert report.points >= 5
