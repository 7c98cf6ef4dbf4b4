from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from procession._types import Containment, Exit, ProcessRef
from procession.command import Command
from procession.events import Event
from procession.registry import ProcessRegistry, RegistryEntry


class FakeHandle:
    """As much of a handle as the registry looks at."""

    def __init__(self, pid: int, started: int = 7) -> None:
        self.pid = pid
        self.ref = ProcessRef(pid, started, "fake")
        self.containment = Containment.GROUP
        self.exit: Exit | None = None


@pytest.fixture
def registry() -> ProcessRegistry:
    return ProcessRegistry()


@pytest.fixture
def handle() -> Callable[..., Any]:
    return FakeHandle


@pytest.fixture
def start(registry: ProcessRegistry) -> Callable[..., RegistryEntry]:
    """Registers a process and lets it run: start("a", pid=5, labels={...}, name=..., owner=...)."""
    pids = count(1000)

    def start(id: str = "", *, pid: int = 0, labels: Any = None, spawned: bool = True, **options: Any) -> RegistryEntry:
        entry = registry.register(Command("server", labels=labels or {}), id=id, **options)
        if spawned:
            entry.spawned(FakeHandle(pid or next(pids)), 0.01)  # type: ignore[arg-type]
        return entry

    return start


@pytest.fixture
def heard(registry: ProcessRegistry) -> Iterator[list[Event]]:
    """Every event of the registry, as a listener heard it."""
    events: list[Event] = []
    with registry.listen(events.append):
        yield events
