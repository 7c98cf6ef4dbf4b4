"""Sources that tell what they are told, and processes that do one thing a monitor can see."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from procession import Command
from procession.monitor import Alert, ResourceMonitor
from procession.monitor._sample import Reading
from procession.monitor._sampler import Round, Target

PROGRAM = Path(__file__).parents[1] / "programs" / "monitored.py"
MB = 1 << 20


def program(*words: object, **options: Any) -> Command:
    """A process that does what its first word says, see ``tests/programs/monitored.py``."""
    return Command(sys.executable, "-I", "-S", PROGRAM, *map(str, words), **{"stdin": "pipe", **options})


def reading(at: float = 0.0, **figures: Any) -> Reading:
    """A reading of a process that does nothing."""
    values: dict[str, Any] = {
        "taken": at,
        "letter": "S",
        "cpu_seconds": 0.0,
        "rss_mb": 10.0,
        "vms_mb": 20.0,
        "disk_read_mb": 0.0,
        "disk_write_mb": 0.0,
        "file_descriptors": 3,
        "threads": 1,
        "context_switches": 0,
        "uptime": at,
        **figures,
    }
    return Reading(**values)


class ScriptedSource:
    """A source on the loop's own clock: ``figures`` says what each process shows at each time, ``None`` that it is gone.

    Attributes:
        targets: whom it reads.
        rounds: how many rounds it has made.
        cost: what a round claims to cost.
    """

    def __init__(self, figures: Callable[[Target, float], Reading | None] = lambda target, at: reading(at)) -> None:
        self.figures = figures
        self.targets: dict[int, Target] = {}
        self.rounds = 0
        self.cost = 0.0
        self.fails: BaseException | None = None
        self.is_open = False

    def clock(self) -> float:
        return asyncio.get_running_loop().time()

    async def open(self) -> None:
        self.is_open = True

    async def round(self, added: Sequence[Target], removed: Sequence[int]) -> Round:
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        for key in removed:
            self.targets.pop(key, None)
        for target in added:
            self.targets[target.key] = target
        now, done = self.clock(), Round()
        self.rounds += 1
        for key, target in list(self.targets.items()):
            shown = self.figures(target, now)
            if shown is None:
                done.gone.append((key, "it has ended"))
                del self.targets[key]
            else:
                done.readings.append((key, shown))
        done.taken = now
        done.cost = self.cost
        return done

    async def aclose(self) -> None:
        self.is_open = False


async def until(monitor: ResourceMonitor, holds: Callable[[], object]) -> None:
    """Lets rounds pass until something holds."""
    async with asyncio.timeout(40):
        while not holds():
            await monitor._next_round()


async def alert_of(monitor: ResourceMonitor, stream: Any, **wanted: Any) -> Alert:
    """The next alert with these fields."""
    async for alert in stream:
        if all(getattr(alert, name) == value for name, value in wanted.items()):
            found: Alert = alert
            return found
    raise AssertionError(f"the monitor closed before {wanted}; there were {monitor.history()}")
