"""The journal: the last events, bounded, with queries over them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from procession.events import Event


class Journal:
    """The last ``size`` events. Every published event comes here, so their numbers have no holes."""

    __slots__ = ("_events", "append", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self._events: deque[Event] = deque(maxlen=size)
        self.append: Callable[[Event], None] = self._events.append

    def __len__(self) -> int:
        return len(self._events)

    def history(
        self,
        types: tuple[type[Event], ...],
        id: str | None,
        owner: str | None,
        since: float | None,
        until: float | None,
        limit: int | None,
    ) -> list[Event]:
        """The newest events, at most ``limit``, that pass all filters, oldest first."""
        found = (
            event
            for event in reversed(self._events)
            if isinstance(event, types)
            and (id is None or event.id == id)
            and (owner is None or event.owner == owner)
            and (since is None or event.at >= since)
            and (until is None or event.at <= until)
        )
        result = list(islice(found, limit))
        result.reverse()
        return result

    def story(self, id: str) -> list[Event]:
        """The events about ``id`` and whatever led to them, oldest first, as far as the journal reaches."""
        events = list(self._events)
        if not events:
            return []
        first = events[0].seq
        told = {event.seq: event for event in events if event.id == id}
        todo = list(told.values())
        while todo:
            cause = todo.pop().cause
            if cause >= first and cause not in told and cause - first < len(events):
                told[cause] = event = events[cause - first]
                todo.append(event)
        return [told[seq] for seq in sorted(told)]
