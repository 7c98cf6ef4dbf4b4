"""Passing a blocked task without delaying it: EASY backfilling.

The blocked head gets a reservation: the earliest time at which, by the estimates of what runs, enough will be free for
it. A task behind it may start now if it will be done by then, or if it needs only what the head leaves over at that
time. After Lifka, *The ANL/IBM SP scheduling system* (JSSPP 1995), and Mu'alem and Feitelson (IEEE TPDS 12(6), 2001).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procession.scheduler._entry import Entry
    from procession.scheduler._resources import Resources


@dataclass(slots=True)
class Reservation:
    """When the head can start at the latest, if estimates hold.

    Attributes:
        at: loop time.
        extra: what will be left over then, packed, guards set.
    """

    at: float
    extra: int


class Ends:
    """When running tasks are expected to end, soonest first."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._ends: list[tuple[float, int, int, Entry]] = []
        self._by_entry: dict[Entry, tuple[float, int, int, Entry]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, entry: Entry, at: float) -> None:
        """It runs and will be done by ``at``."""
        item = (at, entry.number, entry.shape.need, entry)
        self._by_entry[entry] = item
        insort(self._ends, item)

    def discard(self, entry: Entry) -> None:
        """It runs no more."""
        item = self._by_entry.pop(entry, None)
        if item is not None:
            del self._ends[bisect_left(self._ends, item)]

    def reserve(
        self, need: int, now: float, promised: int = 0, counted: Callable[[Entry], int] | None = None
    ) -> Reservation | None:
        """The earliest time at which ``need`` fits; ``None`` when the estimates do not tell.

        What has run for longer than its estimate is expected at any time, which is not a time.

        Args:
            need: what is wanted, packed.
            now: loop time.
            promised: what can be had beside what is free, packed.
            counted: how much of what a task holds is in ``promised`` already.
        """
        guard = self._resources.guard
        room = self._resources.open + promised
        if (room - need) & guard == guard:  # as soon as what was told to stop has done so
            return Reservation(now, room - need)
        ends = self._ends
        index = bisect_left(ends, (now,))
        while index < len(ends):
            at, _, freed, entry = ends[index]
            room += freed if counted is None else freed - counted(entry)
            index += 1
            if (room - need) & guard == guard:
                while index < len(ends) and ends[index][0] == at:
                    _, _, freed, entry = ends[index]
                    room += freed if counted is None else freed - counted(entry)
                    index += 1
                return Reservation(at, room - need)
        return None

    def spare(self, need: int) -> int:
        """What others may take now without ever delaying ``need``, whenever that can start; packed, guards set.

        Of what ``need`` lacks, nothing; of the rest, what it leaves over.
        """
        guard = self._resources.guard
        left = self._resources.open - need
        lacking = guard & ~left
        return left & ~(lacking - (lacking >> 63)) | guard
