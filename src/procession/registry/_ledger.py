"""The only writer of process state: moves records, keeps the indexes, tells the bus, wakes who waits."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from procession._types import NAME_PATTERN, Exit, ProcessState, StopReport
from procession.abc import PROCESS_MOVES
from procession.command import Command
from procession.errors import Closed, ConfigError, InvalidTransition
from procession.events import ProcessExited, ProcessSpawned, ProcessStopped, StateChanged
from procession.registry._bus import EventBus
from procession.registry._entry import RegistryEntry
from procession.registry._index import Index
from procession.registry._records import ProcessRecord, new_record, writer

if TYPE_CHECKING:
    from procession.abc import ProcessHandle

_set_state = writer("state")
_set_reason = writer("reason")
_set_pid = writer("pid")
_set_started = writer("started")
_set_containment = writer("containment")
_set_handle = writer("handle")
_set_exit = writer("exit")
_set_spawned_at = writer("spawned_at")
_set_exited_at = writer("exited_at")
_set_report = writer("report")
_set_counters = writer("_counters")

_STARTING, _RUNNING = ProcessState.STARTING, ProcessState.RUNNING
_EXITED, _FAILED = ProcessState.EXITED, ProcessState.FAILED


Waiters = dict["asyncio.Future[ProcessState | None]", frozenset[ProcessState]]


class Ledger:
    """All records: the live ones in the index, the last ``ended_size`` of the ended ones beside it."""

    def __init__(self, bus: EventBus, clock: Callable[[], float], ended_size: int) -> None:
        self.live: Index = Index()
        self.ended: OrderedDict[str, ProcessRecord] = OrderedDict()  # a dict is slow to give up its first
        self._bus = bus
        self._clock = clock
        self._ended_size = ended_size
        self._waiters: dict[str, Waiters] = {}
        self._number = 0
        self._shown_for: Command | None = None
        self._shown = ""

    def get(self, id: str) -> ProcessRecord | None:
        """The record, live or ended."""
        return self.live.records.get(id) or self.ended.get(id)

    def register(self, command: Command, id: str, name: str, owner: str, adopted: bool) -> RegistryEntry:
        """Makes a record in the state ``starting``; nothing is published."""
        if not name:
            name = command.name
        _check_name("name", name)
        if not id:
            id = self._free_id(name)
        _check_name("id", id)
        if owner != "":
            _check_name("owner", owner)
        if id in self.live.records:
            raise ConfigError("id", id, "a live process has this id")
        self.ended.pop(id, None)
        record = new_record(id, name, owner, command, adopted, self._clock(), self._clock)
        self.live.add(record)
        return RegistryEntry(self, record)

    def _free_id(self, name: str) -> str:
        while True:
            self._number += 1
            id = f"{name[:48]}-{self._number}"
            if self.get(id) is None:
                return id

    # ------------------------------------------------------------------------------------- moves

    def spawned(self, record: ProcessRecord, handle: ProcessHandle, duration: float) -> None:
        """Moves to ``running`` and publishes ``ProcessSpawned``."""
        if record.state is not _STARTING:
            raise InvalidTransition(record.id, record.state, _RUNNING, record.story())
        ref, pid, containment = handle.ref, handle.pid, handle.containment  # may raise: before anything is assigned
        self._assign(record, _RUNNING, "")
        _set_pid(record, pid)
        _set_started(record, ref.started)
        _set_containment(record, containment)
        _set_handle(record, handle)
        _set_spawned_at(record, self._clock())
        self.live.runs(record, pid)
        self.live.moved(record, _STARTING)
        self._wake(record)
        if self._bus.wants(ProcessSpawned):
            event = ProcessSpawned(
                id=record.id,
                owner=record.owner,
                pid=pid,
                name=record.name,
                command=self._display(record.command),
                containment=containment,
                adopted=record.adopted,
                duration=duration,
            )
            self._bus.publish(event)

    def failed(self, record: ProcessRecord, reason: str) -> None:
        """Moves to ``failed`` and publishes ``StateChanged``."""
        old = self._assign(record, _FAILED, reason)
        _set_exited_at(record, self._clock())
        self._retire(record, old)
        self._tell(record, old)
        self._trim()

    def move(self, record: ProcessRecord, state: ProcessState, reason: str) -> None:
        """Moves to ``state`` and publishes ``StateChanged``."""
        if state not in tuple(ProcessState):
            raise ConfigError("state", state, "one of " + ", ".join(ProcessState) + " is needed")
        state = ProcessState(state)
        if PROCESS_MOVES.allows(record.state, state) and (state.is_final or record.state is _STARTING):
            raise ConfigError("state", state, "say spawned(), failed() or exited(), which tell what happened")
        old = self._assign(record, state, reason)
        self.live.moved(record, old)
        self._wake(record)
        self._tell(record, old)

    def exited(self, record: ProcessRecord, exit: Exit) -> None:
        """Moves to ``exited`` and publishes ``ProcessExited``."""
        old = self._assign(record, _EXITED, str(exit))
        pid, since, at = record.pid, record.spawned_at, self._clock()
        assert pid is not None
        assert since is not None
        _set_exit(record, exit)
        _set_exited_at(record, at)
        _set_handle(record, None)
        self._retire(record, old)
        if self._bus.wants(ProcessExited):
            uptime = max(0.0, at - since)
            event = ProcessExited(id=record.id, owner=record.owner, pid=pid, exit=exit, uptime=uptime)
            self._bus.publish(event)
        self._trim()

    def stopped(self, record: ProcessRecord, report: StopReport) -> None:
        """Keeps the proof of a stop and publishes ``ProcessStopped``."""
        _set_report(record, report)
        if self._bus.wants(ProcessStopped):
            self._bus.publish(ProcessStopped(id=record.id, owner=record.owner, report=report))

    def count(self, record: ProcessRecord, name: str, n: int) -> int:
        """Adds to one counter of a record and returns its new value."""
        counters = record._counters
        if counters is None:
            counters = {}
            _set_counters(record, counters)
        counters[name] = value = counters.get(name, 0) + n
        return value

    def _assign(self, record: ProcessRecord, new: ProcessState, reason: str) -> ProcessState:
        old = record._machine.to(new, reason)
        _set_state(record, new)
        _set_reason(record, reason)
        return old

    def _retire(self, record: ProcessRecord, old: ProcessState) -> None:
        self.live.remove(record, old)
        self.ended[record.id] = record
        self._wake(record)

    def _trim(self) -> None:
        while len(self.ended) > self._ended_size:
            self.ended.popitem(last=False)

    def _tell(self, record: ProcessRecord, old: ProcessState) -> None:
        if self._bus.wants(StateChanged):
            event = StateChanged(id=record.id, owner=record.owner, old=old, new=record.state, reason=record.reason)
            self._bus.publish(event)

    def _display(self, command: Command) -> str:
        if command is not self._shown_for:  # the same command is often started many times in a row
            self._shown_for, self._shown = command, command.display()
        return self._shown

    # ----------------------------------------------------------------------------------- waiting

    def _wake(self, record: ProcessRecord) -> None:
        waiters = self._waiters.get(record.id)
        if not waiters:
            return
        state = record.state
        for future, states in waiters.items():
            if (state in states or state.is_final) and not future.done():
                future.set_result(state)

    async def wait(self, record: ProcessRecord, states: frozenset[ProcessState]) -> ProcessState:
        """Waits for one of ``states`` and returns the one reached; see ``ProcessRegistry.wait_for``."""
        state: ProcessState | None = record.state
        if state not in states and not record.state.is_final:
            future: asyncio.Future[ProcessState | None] = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(record.id, {})[future] = states
            try:
                state = await future
            finally:
                waiters = self._waiters[record.id]
                del waiters[future]
                if not waiters:
                    del self._waiters[record.id]
        if state is None:
            raise Closed("registry")
        if state not in states:
            wanted = " or ".join(sorted(states))
            raise InvalidTransition(record.id, state, wanted, record.story())
        return state

    def close(self) -> None:
        """Lets everybody who waits go, with ``Closed``."""
        for waiters in self._waiters.values():
            for future in waiters:
                if not future.done():
                    future.set_result(None)

    def labels_of(self, id: str) -> Mapping[str, str] | None:
        """The labels of a process, live or ended."""
        record = self.get(id)
        return None if record is None else record.labels


def _check_name(field: str, value: object) -> None:
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        hint = "1 to 64 letters, digits, '.', '_' or '-' are needed, the first a letter or digit"
        raise ConfigError(field, value, hint)
