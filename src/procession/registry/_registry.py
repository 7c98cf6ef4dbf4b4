"""The registry: one place that knows every process, and tells everybody what becomes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from procession._types import ProcessState
from procession.command import Command
from procession.errors import Closed, ConfigError, NotFound
from procession.events import Event
from procession.registry._entry import RegistryEntry
from procession.registry._filters import Label, label_terms
from procession.registry._hub import EventHub, whole, whole_or_none
from procession.registry._index import matches
from procession.registry._ledger import Ledger
from procession.registry._records import ProcessRecord
from procession.registry._sink import JsonLines
from procession.registry._statistics import RegistryStatistics


class ProcessRegistry(EventHub):
    """Knows every process that any module started or adopted, and publishes what becomes of it.

    Use it as an async context manager. It also works before it is entered, without its journal file; what the
    journal holds by then is written to the file on entering. All calls belong on the thread of one loop, the
    one it is first used on. It keeps facts only: closing it ends no process.

    ``len(registry)`` counts the live processes, iteration yields their records, and ``id in registry`` is true
    for whatever ``get`` finds.

    Args:
        journal_size: how many past events are kept; 0 keeps none, which makes unheard events free. Default 10,000.
        ended_size: how many records of ended processes are kept. Default 1,000.
        journal_file: a file that gets one line of JSON per event, see :class:`JsonLines`. Default: none.
        max_listener_failures: failures in a row after which a listener is disabled. Default 10.

    Raises:
        ConfigError: a size is no whole number or too small.
    """

    def __init__(
        self,
        *,
        journal_size: int = 10_000,
        ended_size: int = 1_000,
        journal_file: str | os.PathLike[str] | None = None,
        max_listener_failures: int = 10,
    ) -> None:
        super().__init__(journal_size=journal_size, max_listener_failures=max_listener_failures)
        self._ledger = Ledger(self, self._now, whole("ended_size", ended_size, 0))
        self._path = journal_file
        self._file: JsonLines | None = None

    # ---------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Binds the registry to the running loop and opens the journal file.

        Raises:
            ConfigError: the journal file was refused.
            Closed: it was closed before.

        Cancellation: never waits.
        """
        if self._closed:
            raise Closed("registry")
        self._now()
        if self._path is not None and self._file is None:
            self._file = file = JsonLines.open(self._path)
            for event in self._journal.history((Event,), None, None, None, None, None):
                file.write(event)
            self.add_sink(file)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Closes listeners, lets subscribers read what is queued, writes and closes the sinks.

        Entries stay usable, so that an end that comes late still reaches record and journal; queries work too.
        Whoever waits in ``wait_for`` gets ``Closed``. May be called twice.

        Cancellation: never waits.
        """
        if self._closed:
            return
        self._closed = True
        self._ledger.close()
        self._hush()

    # --------------------------------------------------------------------------------- processes

    def register(
        self, command: Command, *, id: str = "", name: str = "", owner: str = "", adopted: bool = False
    ) -> RegistryEntry:
        """Takes note of a process about to be started, or found running. Publishes nothing yet.

        Args:
            command: what is run.
            id: its id; the id of an ended process may be used again. Default: made from the name.
            name: a name for people. Default: made from the program's file name.
            owner: who owns it. Default: nobody.
            adopted: whether it runs already.

        Returns:
            The entry through which the owner says what becomes of it.

        Raises:
            ConfigError: a live process has the id, or id, name or owner is not acceptable.
            Closed: the registry is closed.
        """
        if self._closed:
            raise Closed("registry")
        return self._ledger.register(command, id, name, owner, adopted)

    def get(self, id: str) -> ProcessRecord:
        """The record of a process, live or ended.

        Raises:
            NotFound: there is none, or it ended so long ago that it was dropped.
        """
        record = self._ledger.get(id)
        if record is None:
            raise NotFound(id)
        return record

    def by_pid(self, pid: int) -> ProcessRecord | None:
        """The live process with this pid, or ``None``; an ended one is never returned."""
        return self._ledger.live.by_pid(pid)

    def find(
        self,
        *,
        name: str | None = None,
        state: ProcessState | str | None = None,
        owner: str | None = None,
        label: Label | None = None,
    ) -> list[ProcessRecord]:
        """The live processes that pass all filters, in no particular order; without a filter all of them.

        The cost is that of the most selective filter, whatever the registry holds. A final ``state`` asks
        for ended processes instead.

        Args:
            name: their name.
            state: their state.
            owner: their owner; ``""`` for nobody's.
            label: ``"key"``, ``("key", "value")``, or a mapping all of whose items must match.

        Raises:
            ConfigError: the state or the label is none.
        """
        wanted = None if state is None else _state(state)
        if wanted is not None and wanted.is_final:
            return [record for record in self.ended(name=name, owner=owner, label=label) if record.state is wanted]
        return self._ledger.live.find(name, wanted, owner, label_terms(label))

    def ended(
        self,
        *,
        name: str | None = None,
        owner: str | None = None,
        label: Label | None = None,
        limit: int | None = None,
    ) -> list[ProcessRecord]:
        """Ended processes that are still known and pass all filters, the one that ended last at the end.

        Args:
            name: their name.
            owner: their owner.
            label: as in ``find``.
            limit: only the last so many. Default: all, at most ``ended_size``.

        Raises:
            ConfigError: the label or the limit is none.
        """
        terms, most = label_terms(label), whole_or_none("limit", limit)
        found = [record for record in self._ledger.ended.values() if matches(record, name, None, owner, terms)]
        return found if most is None else found[max(0, len(found) - most) :]

    def count(self, id: str, counter: str, n: int = 1) -> int:
        """Adds ``n`` to a counter of a process, as seen in ``record.counters``, and returns the new value.

        Raises:
            NotFound: no such process is known.
        """
        return self._ledger.count(self.get(id), counter, n)

    async def wait_for(self, id: str, *states: ProcessState | str) -> ProcessRecord:
        """Waits until a process is in one of ``states``, or passes through one while waiting.

        By the time this returns the process may have moved on; ``record.state`` tells. Bound it with
        ``asyncio.timeout()``.

        Args:
            id: the process.
            states: one state or several.

        Returns:
            Its record.

        Raises:
            NotFound: no such process is known.
            InvalidTransition: it ended, or has ended, in another state; the error tells how.
            ConfigError: no state was given, or one that does not exist.
            Closed: the registry was closed.

        Cancellation: safe; only the waiting ends.
        """
        if not states:
            raise ConfigError("states", states, "at least one state is needed")
        wanted = frozenset(map(_state, states))
        record = self.get(id)
        if self._closed and not record.state.is_final and record.state not in wanted:
            raise Closed("registry")
        await self._ledger.wait(record, wanted)
        return record

    def __len__(self) -> int:
        return len(self._ledger.live.records)

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[ProcessRecord]:
        return iter(list(self._ledger.live.records.values()))

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._ledger.get(id) is not None

    def __repr__(self) -> str:
        how = "closed" if self._closed else "open"
        return f"<ProcessRegistry {how}: {len(self)} live, {len(self._ledger.ended)} ended, {self._seq} events>"

    def _labels_of(self, id: str) -> Mapping[str, str]:
        return self._ledger.labels_of(id) or super()._labels_of(id)

    def statistics(self) -> RegistryStatistics:
        """Figures of this moment."""
        live = self._ledger.live
        return RegistryStatistics(
            live=len(live.records),
            ended=len(self._ledger.ended),
            by_state=live.states(),
            published=self._seq,
            journal=len(self._journal),
            listeners=len(self._everybody),
            subscriptions=len(self._subscriptions),
            queued=sum(map(len, self._subscriptions)),
            dropped=self._dropped + sum(subscription.dropped for subscription in self._subscriptions),
            failures=self._failures,
            disabled=self._disabled,
            slow=self._slow,
            journal_errors=sum(sink.errors for sink in self._sinks if isinstance(sink, JsonLines)),
        )


def _state(state: ProcessState | str) -> ProcessState:
    try:
        return ProcessState(state)
    except ValueError:
        raise ConfigError("state", state, "one of " + ", ".join(ProcessState) + " is needed") from None
