"""Indexes over live processes: every question costs what its answer holds, not what the registry holds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from procession._types import ProcessState
from procession.registry._filters import Term, has_labels
from procession.registry._records import ProcessRecord

Bucket = dict[str, ProcessRecord]
_EMPTY: Bucket = {}


class Index:
    """Live records by id, pid, name, owner, state and label."""

    __slots__ = ("_labels", "_names", "_owners", "_pids", "_states", "records")

    def __init__(self) -> None:
        self.records: Bucket = {}
        self._pids: dict[int, ProcessRecord] = {}
        self._names: dict[str, Bucket] = {}
        self._owners: dict[str, Bucket] = {}
        self._states: dict[ProcessState, Bucket] = {}
        self._labels: dict[Term, Bucket] = {}

    def add(self, record: ProcessRecord) -> None:
        """Takes in a new record."""
        id = record.id
        self.records[id] = record
        _put(self._names, record.name, record)
        _put(self._owners, record.owner, record)
        _put(self._states, record.state, record)
        for item in record.labels.items():
            _put(self._labels, item, record)
            _put(self._labels, item[0], record)

    def moved(self, record: ProcessRecord, old: ProcessState) -> None:
        """Takes note that ``record`` left the state ``old``."""
        _drop(self._states, old, record.id)
        _put(self._states, record.state, record)

    def runs(self, record: ProcessRecord, pid: int) -> None:
        """Takes note of its pid. Should an older process still claim the same number, the newer one has it."""
        self._pids[pid] = record

    def remove(self, record: ProcessRecord, old: ProcessState) -> None:
        """Forgets a record that was in the state ``old``."""
        id = record.id
        del self.records[id]
        _drop(self._names, record.name, id)
        _drop(self._owners, record.owner, id)
        _drop(self._states, old, id)
        for item in record.labels.items():
            _drop(self._labels, item, id)
            _drop(self._labels, item[0], id)
        pid = record.pid
        if pid is not None and self._pids.get(pid) is record:
            del self._pids[pid]

    def by_pid(self, pid: int) -> ProcessRecord | None:
        """The live process with this pid."""
        return self._pids.get(pid)

    def states(self) -> Mapping[ProcessState, int]:
        """How many are in each state that anybody is in."""
        return {state: len(bucket) for state, bucket in self._states.items()}

    def find(
        self, name: str | None, state: ProcessState | None, owner: str | None, terms: tuple[Term, ...]
    ) -> list[ProcessRecord]:
        """The records that pass all filters: the smallest bucket, filtered by the others."""
        buckets: list[Bucket] = []
        if name is not None:
            buckets.append(self._names.get(name, _EMPTY))
        if state is not None:
            buckets.append(self._states.get(state, _EMPTY))
        if owner is not None:
            buckets.append(self._owners.get(owner, _EMPTY))
        buckets += [self._labels.get(term, _EMPTY) for term in terms]
        if not buckets:
            return list(self.records.values())
        smallest = min(buckets, key=len)
        if len(buckets) == 1:
            return list(smallest.values())
        return [record for record in smallest.values() if matches(record, name, state, owner, terms)]


def matches(
    record: ProcessRecord,
    name: str | None,
    state: ProcessState | None,
    owner: str | None,
    terms: tuple[Term, ...],
) -> bool:
    """Whether one record passes all filters."""
    return (
        (name is None or record.name == name)
        and (state is None or record.state == state)
        and (owner is None or record.owner == owner)
        and (not terms or has_labels(record.labels, terms))
    )


def _put(index: dict[Any, Bucket], key: Hashable, record: ProcessRecord) -> None:
    bucket = index.get(key)
    if bucket is None:
        index[key] = {record.id: record}
    else:
        bucket[record.id] = record


def _drop(index: dict[Any, Bucket], key: Hashable, id: str) -> None:
    bucket = index[key]
    del bucket[id]
    if not bucket:
        del index[key]
