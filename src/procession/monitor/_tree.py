"""A process and all its descendants, read as one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TypeVar

import psutil

from procession._linux import _proc
from procession.monitor._reader import NO_TRAFFIC, Gone, ProcReader, PsutilReader, Setting, Traffic, open_reader
from procession.monitor._sample import Reading

N = TypeVar("N", int, float)


class Family:
    """Who is whose child. The kernel's own lists are read where it keeps them, else all processes, once a round."""

    def __init__(self) -> None:
        own = f"/proc/self/task/{threading.get_native_id()}/children"
        self._has_lists = os.path.exists(own)
        self._map: dict[int, list[int]] | None = None

    def new_round(self) -> None:
        """What was found out about all processes is old now."""
        self._map = None

    def children(self, pid: int) -> list[int]:
        """The pids of its children; empty when it has none or is gone."""
        if self._has_lists:
            found: list[int] = []
            with suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                        found += map(int, file.read().split())
            return found
        if self._map is None:
            self._map = self._look_at_all()
        return self._map.get(pid, [])

    def _look_at_all(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        if _proc.has_proc():
            parents: Iterable[tuple[int, int]] = (
                (stat.ppid, stat.pid) for stat in map(_proc.stat, _proc.pids()) if stat is not None
            )
        else:
            parents = ((process.info["ppid"], process.pid) for process in psutil.process_iter(["ppid"]))
        for parent, pid in parents:
            found.setdefault(parent, []).append(pid)
        return found


class TreeReader:
    """Reads a process together with its descendants.

    A descendant that was seen once stays in the tree until it ends, also when its parent is gone and it belongs to
    somebody else. Counters never run backwards: what a member had used when it was last read stays in the sum (unless its
    parent has waited for it and the kernel has added all of it there).

    Args:
        leader: reads the process at the top.
        setting: what readers share.
        family: who is whose child.
    """

    __slots__ = ("_family", "_leader", "_members", "_offsets", "_setting", "_totals", "pid")

    def __init__(self, leader: ProcReader | PsutilReader, setting: Setting, family: Family) -> None:
        self.pid = leader.pid
        self._leader = leader
        self._setting = setting
        self._family = family
        self._members: dict[int, ProcReader | PsutilReader] = {}
        self._totals: dict[str, float] = {}
        self._offsets: dict[str, float] = {}

    @property
    def started(self) -> int:
        """The start time of the process at the top."""
        return self._leader.started

    @property
    def pids(self) -> list[int]:
        """Who belongs to it, as far as the last reading saw."""
        return [self.pid, *self._members]

    def read(self, shares: bool = False, traffic: Traffic = NO_TRAFFIC) -> Reading:
        """Reads all of them.

        Raises:
            Gone: the process at the top has ended.
        """
        top = self._leader.read(shares)
        self._discover()
        readings = [top]
        for pid, member in list(self._members.items()):
            try:
                readings.append(member.read(shares))
            except Gone:
                self._members.pop(pid).close()
        pss, uss = _all([one.pss_mb for one in readings]), _all([one.uss_mb for one in readings])
        switches = self._counter("context_switches", _sum([one.context_switches for one in readings]))
        return Reading(
            top.taken,
            top.letter,
            self._counter("cpu", _sum([one.cpu_seconds for one in readings])),
            _sum([one.rss_mb for one in readings]),
            _sum([one.vms_mb for one in readings]),
            self._counter("read", _sum([one.disk_read_mb for one in readings])),
            self._counter("written", _sum([one.disk_write_mb for one in readings])),
            _sum([one.file_descriptors for one in readings]),
            _sum([one.threads for one in readings]),
            None if switches is None else int(switches),
            top.uptime,
            pss,
            uss,
            *traffic,
            len(readings),
        )

    def _discover(self) -> None:
        """Takes in descendants that are new. One that ends or multiplies meanwhile is found at the next reading."""
        todo = [self.pid, *self._members]
        while todo:
            for child in self._family.children(todo.pop()):
                if child in self._members or child == self.pid:
                    continue
                with suppress(Gone, OSError):
                    self._members[child] = open_reader(child, 0, self._setting)
                    todo.append(child)

    def _counter(self, name: str, value: float | None) -> float | None:
        if value is None:
            return None
        value += self._offsets.get(name, 0.0)
        before = self._totals.get(name, 0.0)
        if value < before:
            self._offsets[name] = self._offsets.get(name, 0.0) + before - value
            value = before
        self._totals[name] = value
        return value

    def close(self) -> None:
        """Lets go of all of them; may be called twice."""
        self._leader.close()
        for member in self._members.values():
            member.close()
        self._members.clear()


def _sum(values: Iterable[N | None]) -> N | None:
    """The sum of what is known; ``None`` when nothing is."""
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None


def _all(values: list[float | None]) -> float | None:
    """The sum, if all are known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
