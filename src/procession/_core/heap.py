"""A heap of things due at some time, from which any can be taken out in constant time."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T")

_FEW = 64


class Timer(Generic[T]):
    """One thing due; made by :meth:`Agenda.add`. ``item`` is ``None`` once it was taken out."""

    __slots__ = ("at", "item", "number")

    def __init__(self, at: float, number: int, item: T) -> None:
        self.at = at
        self.number = number
        self.item: T | None = item

    def __lt__(self, other: Timer[T]) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Agenda(Generic[T]):
    """What is due when. What was taken out is skipped later, and swept out once it is more than half.

    The same bookkeeping as of trio's ``Deadlines`` or asyncio's cancelled timer handles, without a clock.
    """

    def __init__(self) -> None:
        self._heap: list[Timer[T]] = []
        self._number = 0
        self._dead = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dead

    def add(self, at: float, item: T) -> Timer[T]:
        """Takes note of ``item``, due at ``at``; things due at once come in the order they were added."""
        self._number += 1
        timer = Timer(at, self._number, item)
        heappush(self._heap, timer)
        return timer

    def discard(self, timer: Timer[T]) -> None:
        """Takes it out; does nothing when it was already."""
        if timer.item is None:
            return
        timer.item = None
        self._dead += 1
        if self._dead > _FEW and self._dead * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.item is not None]
            heapify(self._heap)
            self._dead = 0

    def next_at(self) -> float | None:
        """When the first thing is due, or ``None``."""
        heap = self._heap
        while heap and heap[0].item is None:
            heappop(heap)
            self._dead -= 1
        return heap[0].at if heap else None

    def pop_due(self, now: float) -> T | None:
        """Takes out and returns the first thing that is due, or ``None``."""
        at = self.next_at()
        if at is None or at > now:
            return None
        timer = heappop(self._heap)
        item, timer.item = timer.item, None
        return item
