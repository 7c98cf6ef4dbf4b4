"""Figures of a registry at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from procession._types import ProcessState


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryStatistics:
    """Figures of a registry at one moment.

    Attributes:
        live: processes that have neither exited nor failed to start.
        ended: ended processes that are still known.
        by_state: live processes by state; states nobody is in are missing.
        published: events published so far.
        journal: events in the journal.
        listeners: listeners, queues and sinks in use.
        subscriptions: queues among them.
        queued: events waiting in queues.
        dropped: events that queues did not deliver, closed queues included.
        failures: exceptions raised by listeners and sinks.
        disabled: listeners and sinks switched off because they failed too often in a row.
        slow: calls of a listener that held the loop up for more than 0.1 s.
        journal_errors: failed writes to the journal file.
    """

    live: int
    ended: int
    by_state: Mapping[ProcessState, int]
    published: int
    journal: int
    listeners: int
    subscriptions: int
    queued: int
    dropped: int
    failures: int
    disabled: int
    slow: int
    journal_errors: int
