"""The owner's side of one record: the way to say what became of the process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from procession._types import Exit, ProcessState, StopReport
from procession.registry._records import ProcessRecord

if TYPE_CHECKING:
    from procession.abc import ProcessHandle
    from procession.registry._ledger import Ledger


class RegistryEntry:
    """Held by whoever owns the process, as returned by ``registry.register``.

    Every call assigns first and publishes then, so whoever hears of the event sees the new state:

    - ``spawned`` publishes one ``ProcessSpawned``, which says that it runs;
    - ``exited`` publishes one ``ProcessExited``, the only one there will be;
    - ``failed`` and ``to`` publish one ``StateChanged``.

    Attributes:
        record: what the registry knows of it.
    """

    __slots__ = ("_ledger", "record")

    def __init__(self, ledger: Ledger, record: ProcessRecord) -> None:
        self._ledger = ledger
        self.record: ProcessRecord = record

    @property
    def id(self) -> str:
        """Its id."""
        return self.record.id

    @property
    def state(self) -> ProcessState:
        """The present state."""
        return self.record.state

    def spawned(self, handle: ProcessHandle, duration: float) -> None:
        """It runs: starting → running.

        Args:
            handle: the live child.
            duration: seconds the spawn took.

        Raises:
            InvalidTransition: it was spawned, or failed, before.
        """
        self._ledger.spawned(self.record, handle, duration)

    def failed(self, reason: str) -> None:
        """It could not be started: starting → failed.

        Args:
            reason: why, fit for display.

        Raises:
            InvalidTransition: it was started.
        """
        self._ledger.failed(self.record, reason)

    def to(self, state: ProcessState, reason: str = "") -> None:
        """Any other move: suspended, running again, stopping, unkillable.

        Args:
            state: the new state.
            reason: why, fit for display.

        Raises:
            InvalidTransition: the table does not allow it.
            ConfigError: the move has a method of its own that says more.
        """
        self._ledger.move(self.record, state, reason)

    def exited(self, exit: Exit) -> None:
        """It was reaped: → exited. The one and only announcement of its end.

        Args:
            exit: how it ended.

        Raises:
            InvalidTransition: it never ran, or its end was announced before.
        """
        self._ledger.exited(self.record, exit)

    def stopped(self, report: StopReport) -> None:
        """A stop of it and its tree is over: kept in the record, published as one ``ProcessStopped``.

        Args:
            report: what was done, what had escaped, what survived.
        """
        self._ledger.stopped(self.record, report)

    def __repr__(self) -> str:
        return f"<RegistryEntry of {self.record!r}>"
