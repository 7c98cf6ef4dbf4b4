"""What the registry knows of one process: read-only for everybody, written through slots by the ledger alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from procession._core.machine import Machine
from procession._types import Containment, Exit, ProcessState, StopReport
from procession.abc import PROCESS_MOVES
from procession.command import Command

if TYPE_CHECKING:
    from procession.abc import ProcessHandle

_NO_COUNTERS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True, init=False, eq=False, repr=False)
class ProcessRecord:
    """One process, as it stands now; the same object from registration to the end, and after it.

    Times are loop times, in seconds.

    Attributes:
        id: its id in the registry.
        name: a name for people; several processes may share it.
        owner: the module or program part that owns it; empty when nobody claims it.
        command: what was run.
        adopted: whether it was running before we knew it.
        created_at: when it was registered.
        state: where it stands.
        reason: why it came there, as far as somebody said so.
        pid: its process id; ``None`` before it was spawned. After the exit the number may belong to somebody else.
        started: its start time in clock ticks since boot, which tells recycled pids apart; 0 when unknown.
        containment: the rung in force; ``None`` before it was spawned.
        handle: the live handle; ``None`` before the spawn and after the exit.
        exit: how it ended; ``None`` until then.
        report: the proof of the last stop of it and its tree, or ``None``.
        spawned_at: when it was spawned or adopted, or ``None``.
        exited_at: when it exited or failed to start, or ``None``.
    """

    id: str
    name: str
    owner: str
    command: Command
    adopted: bool
    created_at: float
    state: ProcessState
    reason: str
    pid: int | None
    started: int
    containment: Containment | None
    handle: ProcessHandle | None
    exit: Exit | None
    report: StopReport | None
    spawned_at: float | None
    exited_at: float | None
    _machine: Machine[ProcessState]
    _clock: Callable[[], float]
    _counters: dict[str, int] | None

    @property
    def labels(self) -> Mapping[str, str]:
        """The command's labels."""
        return self.command.labels

    @property
    def is_live(self) -> bool:
        """Whether it has neither exited nor failed to start."""
        return not self.state.is_final

    @property
    def uptime(self) -> float:
        """Seconds from the spawn to the exit, or until now; 0.0 before the spawn."""
        if self.spawned_at is None:
            return 0.0
        return max(0.0, (self._clock() if self.exited_at is None else self.exited_at) - self.spawned_at)

    @property
    def counters(self) -> Mapping[str, int]:
        """What modules counted about it through ``registry.count``, by name."""
        return _NO_COUNTERS if self._counters is None else MappingProxyType(self._counters)

    def story(self) -> list[str]:
        """Its last moves from state to state, oldest first, one line each."""
        return self._machine.story()

    def __repr__(self) -> str:
        pid = "" if self.pid is None else f" pid {self.pid}"
        end = "" if self.exit is None else f" ({self.exit})"
        return f"<ProcessRecord {self.id}{pid} {self.state}{end}: {self.command.display()}>"


def writer(name: str) -> Callable[[ProcessRecord, Any], None]:
    """The function that writes the slot ``name``: how the ledger, and nobody else, changes a record."""
    write: Callable[[ProcessRecord, Any], None] = ProcessRecord.__dict__[name].__set__
    return write


_GIVEN = tuple(map(writer, ("id", "name", "owner", "command", "adopted", "created_at", "_clock")))
_UNKNOWN = tuple(
    map(writer, ("pid", "containment", "handle", "exit", "report", "spawned_at", "exited_at", "_counters")),
)
_set_state, _set_reason, _set_started, _set_machine = map(writer, ("state", "reason", "started", "_machine"))


def new_record(
    id: str, name: str, owner: str, command: Command, adopted: bool, created_at: float, clock: Callable[[], float]
) -> ProcessRecord:
    """A record in the state ``starting``; records have no public constructor."""
    record = ProcessRecord.__new__(ProcessRecord)
    for write, value in zip(_GIVEN, (id, name, owner, command, adopted, created_at, clock), strict=True):
        write(record, value)
    for write in _UNKNOWN:
        write(record, None)
    machine = Machine(id, PROCESS_MOVES)
    _set_machine(record, machine)
    _set_state(record, machine.state)
    _set_reason(record, "")
    _set_started(record, 0)
    return record
