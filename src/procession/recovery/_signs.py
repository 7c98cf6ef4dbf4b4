"""How failures are noticed without anybody reporting them: what the events of a registry mean."""

from __future__ import annotations

import signal
from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from procession._types import Exit, FailureKind, ProcessState
from procession.errors import NotFound
from procession.events import (
    AlertRaised,
    Event,
    FailureReported,
    PoolScaled,
    ProcessExited,
    RestartScheduled,
    StateChanged,
    TaskStarted,
    WorkerLeased,
)
from procession.recovery._config import RecoveryConfig

if TYPE_CHECKING:
    from procession.registry import ProcessRecord, ProcessRegistry

_EXHAUSTED = (signal.SIGXCPU, signal.SIGXFSZ)

_SUPERVISING = (PoolScaled, WorkerLeased, TaskStarted, RestartScheduled)
"""Whoever publishes one of these has moves of its own."""

SIGNS = (FailureReported, ProcessExited, StateChanged, AlertRaised)
"""The events that are listened to."""


class Signs:
    """Reads events.

    Args:
        name: our own name as an owner: what we say ourselves is no news.
        config: who supervises what it owns, and which alerts mean a failure.
        registry: where processes are looked up.
        ids: the registered ids.
        failed: is told of failures: id, kind, text, the process, and whether it was reported by somebody else.
        works: is told of ids that run again, whoever did it.
    """

    def __init__(
        self,
        name: str,
        config: RecoveryConfig,
        registry: ProcessRegistry,
        ids: Container[str],
        failed: Callable[[str, FailureKind, str, ProcessRecord | None, bool], None],
        works: Callable[[str], None],
    ) -> None:
        self._name = name
        self._config = config
        self._registry = registry
        self._ids = ids
        self._failed = failed
        self._works = works
        self._supervisors = set(config.supervisors)

    def read(self, event: Event) -> None:
        """Takes one event."""
        if event.owner == self._name and not isinstance(event, ProcessExited):
            return
        match event:
            case ProcessExited():
                self._exited(event)
            case FailureReported() if event.id in self._ids:
                self._failed(event.id, kind_of(event.kind), event.error, None, True)
            case StateChanged(new=ProcessState.FAILED, old=ProcessState.STARTING):
                self._not_started(event)
            case StateChanged(new="running") if event.id in self._ids:
                self._works(event.id)
            case AlertRaised():
                self._alert(event)

    def _exited(self, event: ProcessExited) -> None:
        if event.exit.is_success:
            return
        record = self._record(event.id)
        id = self._id_of(event.id, record)
        if id is None or self._is_supervisor(event.owner) or (record is not None and was_stopped(record)):
            return
        self._failed(id, kind_of_exit(event.exit), str(event.exit), record, False)

    def _not_started(self, event: StateChanged) -> None:
        """A process could not be started, or a unit failed to, which its owner reports when it has given up."""
        record = self._record(event.id)
        if record is None:
            return
        id = self._id_of(event.id, record)
        if id is not None and not self._is_supervisor(event.owner):
            self._failed(id, FailureKind.STARTUP_FAILURE, event.reason or "it could not be started", record, False)

    def _alert(self, event: AlertRaised) -> None:
        kind = self._config.alerts.get(event.alert)
        id = None if kind is None else self._id_of(event.id, self._record(event.id))
        if kind is not None and id is not None:
            self._failed(id, kind, event.message or event.alert, None, False)

    def _record(self, id: str) -> ProcessRecord | None:
        try:
            return self._registry.get(id)
        except NotFound:
            return None

    def _id_of(self, id: str, record: ProcessRecord | None) -> str | None:
        """The registered id that a process is meant by: its own id, its name, or its unit."""
        if id in self._ids:
            return id
        if record is None:
            return None
        if record.name in self._ids:
            return record.name
        unit = record.labels.get("unit")
        return unit if unit is not None and unit in self._ids else None

    def _is_supervisor(self, owner: str) -> bool:
        """Whether this owner has moves of its own, such as restarting or retrying."""
        if not owner or owner == self._name:
            return False
        if owner not in self._supervisors:
            if not self._registry.history(*_SUPERVISING, owner=owner, limit=1):
                return False
            self._supervisors.add(owner)
        return True

    def is_up(self, id: str, since: float) -> bool:
        """Whether a process that is meant by ``id`` was spawned at ``since`` or later, and lives."""
        registry = self._registry
        found = [*registry.find(name=id), *registry.find(label=("unit", id))]
        return any(record.spawned_at is not None and record.spawned_at >= since for record in found)


def was_stopped(record: ProcessRecord) -> bool:
    """Whether somebody had asked this process to end."""
    story = record.story()
    return len(story) > 1 and story[-2].partition(":")[0] in (ProcessState.STOPPING, ProcessState.UNKILLABLE)


def kind_of(kind: str) -> FailureKind:
    """The kind somebody said; one that nobody knows is a crash."""
    try:
        return FailureKind(kind)
    except ValueError:
        return FailureKind.CRASH


def kind_of_exit(exit: Exit) -> FailureKind:
    """The kind of failure that this end is."""
    return FailureKind.RESOURCE_EXHAUSTION if exit.signal in _EXHAUSTED else FailureKind.CRASH
