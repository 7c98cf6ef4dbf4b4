"""Who waits, and who gets what comes free: priority first, then order of arrival. Pure."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


class WaitQueue(Generic[T]):
    """Items in order of priority (the smaller number first), and of arrival among equals.

    One first-in-first-out class per priority and a heap of the classes, so that nothing is ever sorted and an item
    anywhere in it is taken out in O(1).
    """

    __slots__ = ("_classes", "_heap", "_size")

    def __init__(self) -> None:
        self._classes: dict[int, OrderedDict[T, None]] = {}
        self._heap: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[T]:
        for priority in sorted(self._classes):
            yield from self._classes[priority]

    def push(self, item: T, priority: int) -> None:
        """Adds ``item`` behind its equals."""
        self._class(priority)[item] = None
        self._size += 1

    def push_front(self, item: T, priority: int) -> None:
        """Puts ``item`` back before its equals: it had its turn, and lost it through no fault of its own."""
        line = self._class(priority)
        line[item] = None
        line.move_to_end(item, last=False)
        self._size += 1

    def _class(self, priority: int) -> OrderedDict[T, None]:
        line = self._classes.get(priority)
        if line is None:
            line = self._classes[priority] = OrderedDict()
            heapq.heappush(self._heap, priority)
        return line

    def pop(self) -> T:
        """Takes out who is first.

        Raises:
            IndexError: nobody waits.
        """
        priority = self._first()
        line = self._classes[priority]
        item, _ = line.popitem(last=False)
        self._size -= 1
        if not line:
            del self._classes[priority]
            heapq.heappop(self._heap)
        return item

    def peek(self) -> T:
        """Who is first.

        Raises:
            IndexError: nobody waits.
        """
        return next(iter(self._classes[self._first()]))

    def _first(self) -> int:
        while self._heap[0] not in self._classes:  # emptied by discard()
            heapq.heappop(self._heap)
        return self._heap[0]

    def discard(self, item: T, priority: int) -> bool:
        """Takes ``item`` out; ``False`` when it is not there."""
        line = self._classes.get(priority)
        if line is None or item not in line:
            return False
        del line[item]
        self._size -= 1
        if not line:
            del self._classes[priority]
            if not self._classes:
                self._heap.clear()
            elif len(self._heap) > 2 * len(self._classes) + 8:
                self._heap = sorted(self._classes)
        return True


class Counter(Generic[T, R]):
    """A counter with a line before it: what is offered goes to who is first, and is never lost on the way.

    Between the moment a resource is granted and the moment its new holder wakes up, the holder may be cancelled. Then
    it leaves, and what it was granted comes back to be offered to the next.
    """

    __slots__ = ("_granted", "_priorities", "line")

    def __init__(self) -> None:
        self.line: WaitQueue[T] = WaitQueue()
        self._priorities: dict[T, int] = {}
        self._granted: dict[T, R] = {}

    def __len__(self) -> int:
        """How many wait and have not been granted anything."""
        return len(self.line)

    @property
    def granted(self) -> int:
        """How many were granted something and have not taken it."""
        return len(self._granted)

    def join(self, waiter: T, priority: int) -> None:
        """``waiter`` lines up."""
        self._priorities[waiter] = priority
        self.line.push(waiter, priority)

    def offer(self, resource: R) -> T | None:
        """Grants ``resource`` to who is first and says who that is; ``None`` when nobody waits."""
        if not self.line:
            return None
        waiter = self.line.pop()
        self._granted[waiter] = resource
        return waiter

    def take(self, waiter: T) -> R:
        """``waiter`` takes what it was granted.

        Raises:
            KeyError: it was granted nothing.
        """
        resource = self._granted.pop(waiter)
        del self._priorities[waiter]
        return resource

    def leave(self, waiter: T) -> R | None:
        """``waiter`` gives up; returns what it had been granted, for the next."""
        priority = self._priorities.pop(waiter, None)
        if priority is None:
            return None
        if not self.line.discard(waiter, priority):
            return self._granted.pop(waiter, None)
        return None
