"""Who is watched, and what became of those who were."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import psutil

from procession._fields import name_of
from procession._linux import _proc
from procession._types import ProcessRef, ProcessState
from procession.errors import ConfigError, ProcessUnknown
from procession.monitor._config import MonitorConfig
from procession.monitor._sampler import Target
from procession.monitor._watch import Watch

if TYPE_CHECKING:
    from procession.registry import ProcessRecord, ProcessRegistry

Which = Any
"""A process in any of its forms: an id, a pid, a ``Process``, a ``ProcessRecord``, a ``Watch``, a ``psutil.Process``."""

_RUNS = frozenset({ProcessState.RUNNING, ProcessState.SUSPENDED, ProcessState.STOPPING, ProcessState.UNKILLABLE})


class Roster:
    """All watches: active ones by id, pid and key, and the last so many that have ended.

    Args:
        config: the monitor's.
        registry: where processes are registered, or ``None``.
        loop: the loop everything belongs to.
    """

    def __init__(
        self, config: MonitorConfig, registry: ProcessRegistry | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.active: dict[str, Watch] = {}
        self.by_key: dict[int, Watch] = {}
        self.ended: OrderedDict[str, Watch] = OrderedDict()
        self._config = config
        self._registry = registry
        self._loop = loop
        self._serial = 0
        self._added: dict[int, Target] = {}
        self._removed: list[int] = []

    def __iter__(self) -> Iterator[Watch]:
        return iter(list(self.active.values()))

    def find(self, which: Which, *, ended: bool = True) -> Watch:
        """The watch of a process; an active one before one that has ended.

        Raises:
            ProcessUnknown: it is not watched.
        """
        if isinstance(which, Watch):
            return which
        if isinstance(which, int) and not isinstance(which, bool):
            found = next((watch for watch in self.active.values() if watch.pid == which), None)
            late = (watch for watch in reversed(self.ended.values()) if watch.pid == which)
        else:
            id = which if isinstance(which, str) else getattr(which, "id", None)
            if id is None and isinstance(which, psutil.Process):
                return self.find(which.pid, ended=ended)
            if not isinstance(id, str):
                raise ConfigError("process", which, "an id, a pid or a process is needed")
            found = self.active.get(id) or next(
                (watch for watch in self.active.values() if id in (watch.target, watch.name)), None
            )
            late = (watch for watch in reversed(self.ended.values()) if id in (watch.id, watch.target, watch.name))
        if found is None and ended:
            found = next(late, None)
        if found is None:
            raise ProcessUnknown(_called(which))
        return found

    # ------------------------------------------------------------------------------------ taking in

    def take(self, which: Which, name: str) -> tuple[Watch, bool]:
        """Watches a process in any of its forms; whether it was not watched before.

        Raises:
            ProcessUnknown: there is no such process.
            ConfigError: it is none.
        """
        from procession.process import Process

        record = self._record_of(which)
        if record is not None:
            watch = self.active.get(record.id)
            new = watch is None
            if watch is None:
                watch = self.take_record(record)
            if isinstance(which, Process):
                watch.process = which
            return watch, new
        if isinstance(which, Process):
            if which.exit is not None:
                raise ProcessUnknown(which.id, "it has ended")
            watch, new = self._take_ref(which.ref, which.id, name or which.name, which.owner)
            watch.process = which
            return watch, new
        ref = _ref_of(which)
        return self._take_ref(ref, f"pid-{ref.pid}", name, "")

    def _record_of(self, which: Which) -> ProcessRecord | None:
        registry = self._registry
        if registry is None:
            return None
        if isinstance(which, int) and not isinstance(which, bool):
            return registry.by_pid(which)
        if isinstance(which, psutil.Process):
            return registry.by_pid(which.pid)
        id = which if isinstance(which, str) else getattr(which, "id", None)
        if not isinstance(id, str):
            return None
        if id not in registry:
            if not isinstance(which, str):
                return None
            named = registry.find(name=which)
            if len(named) != 1:
                raise ProcessUnknown(id, "no process is known by that name" if not named else "several have that name")
            return named[0]
        record = registry.get(id)
        if record.state not in _RUNS:
            raise ProcessUnknown(id, f"it is {record.state}")
        return record

    def take_record(self, record: ProcessRecord) -> Watch:
        """Watches a process of the registry."""
        assert record.pid is not None
        target = record.labels.get("unit") or record.name
        watch = self._make(record.id, record.pid, record.started, record.name, record.owner, target)
        watch.record = record
        return watch

    def _take_ref(self, ref: ProcessRef, id: str, name: str, owner: str) -> tuple[Watch, bool]:
        present = self.active.get(id)
        if present is not None and (present.pid, present.started) == (ref.pid, ref.started):
            return present, False
        if present is not None:
            self.drop(present)
        shown = name or name_of(ref.name or "process")
        return self._make(id, ref.pid, ref.started, shown, owner, name or id), True

    def _make(self, id: str, pid: int, started: int, name: str, owner: str, target: str) -> Watch:
        self._serial += 1
        watch = Watch(
            id,
            pid,
            started,
            key=self._serial,
            name=name,
            owner=owner,
            target=target,
            now=self._loop.time(),
            config=self._config,
            loop=self._loop,
        )
        self.ended.pop(id, None)
        self.active[id] = watch
        self.by_key[watch._key] = watch
        self.announce(watch)
        return watch

    def announce(self, watch: Watch) -> None:
        """Has the source read it from the next round on, in the way it says now."""
        if watch._key not in self._added:
            self._removed.append(watch._key)
        network = self._config.network
        self._added[watch._key] = Target(watch._key, watch.pid, watch.started, watch.tree, watch.shares, network)

    # ----------------------------------------------------------------------------------- giving up

    def drop(self, watch: Watch) -> None:
        """It is not watched any more; what is known of it is kept for a while."""
        if self.by_key.pop(watch._key, None) is None:
            return
        if self.active.get(watch.id) is watch:
            del self.active[watch.id]
        if self._added.pop(watch._key, None) is None or watch._series is not None:
            self._removed.append(watch._key)
        watch._end()
        if watch._series is not None and self._config.ended_size:
            self.ended[watch.id] = watch
            while len(self.ended) > self._config.ended_size:
                self.ended.popitem(last=False)

    def changes(self) -> tuple[list[Target], list[int]]:
        """Who came and who went since this was asked last."""
        added, removed = list(self._added.values()), self._removed
        self._added, self._removed = {}, []
        return added, removed


def _ref_of(which: Which) -> ProcessRef:
    """Who that is, checked now."""
    pid = which.pid if isinstance(which, psutil.Process) else which
    if isinstance(pid, str):
        raise ProcessUnknown(pid, "no process is known by that name")
    if isinstance(pid, bool) or not isinstance(pid, int) or pid < 1:
        raise ConfigError("process", which, "an id, a pid or a process is needed")
    if not _proc.has_proc():
        try:
            return ProcessRef(pid, 0, psutil.Process(pid).name())
        except psutil.Error:
            raise ProcessUnknown(f"pid-{pid}", "there is no such process") from None
    stat = _proc.stat(pid)
    if stat is None or stat.state in "ZX":
        raise ProcessUnknown(f"pid-{pid}", "there is no such process" if stat is None else "it has ended")
    return ProcessRef(stat.pid, stat.started, stat.name)


def _called(which: Which) -> str:
    return f"pid-{which}" if isinstance(which, int) else str(getattr(which, "id", which))
