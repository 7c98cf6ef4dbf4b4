"""The queue alone: the same ready-made handles through every kind of queue.

All handles are pushed, a tenth is cancelled, and the rest popped until nothing is left. Keys are those of linear
ageing. A queue that cannot take out from the middle marks what was cancelled and skips it, as its documentation says.
"""

from __future__ import annotations

import asyncio
import gc
import queue
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from importlib import import_module
from typing import Any, ClassVar

from benchmarks.peers._base import Figures, expect
from procession.scheduler import PriorityAging
from procession.scheduler._entry import Entry
from procession.scheduler._queue import Queue
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

LEVELS = 5
AGING = 0.1  # levels per second: ten seconds of waiting are worth a level
SPAN_NS = 100 * 10**9  # all arrive within so much, whatever their number, so that keys of all levels mix
CANCELLED = 10  # one of so many
OPERATIONS = 100_000  # small queues are filled and emptied until they had as many tasks, each only once
OFFSETS = [PriorityAging(AGING).offset(level) for level in range(LEVELS)]
Handles = Sequence[Entry]


class Way:
    """One kind of queue. Each loops by itself, so that no wrapper is measured."""

    ordered: ClassVar[bool] = True

    def push(self, entries: Handles) -> None:
        raise NotImplementedError

    def cancel(self, entries: Handles) -> None:
        for entry in entries:
            entry.mark = True

    def pop(self, took: Callable[[Entry], object] | None = None) -> None:
        raise NotImplementedError


class Ours(Way):
    """`procession`: a heap of lanes."""

    def __init__(self, shape_of: Resources) -> None:
        self._queue = Queue(PriorityAging(AGING), shape_of)

    def push(self, entries: Handles) -> None:
        push = self._queue.push
        for entry in entries:
            push(entry)

    def cancel(self, entries: Handles) -> None:
        discard = self._queue.discard
        for entry in entries:
            discard(entry)

    def pop(self, took: Callable[[Entry], object] | None = None) -> None:
        top, pop = self._queue.top, self._queue.pop
        while (lane := top()) is not None:
            entry = pop(lane)
            if took is not None:
                took(entry)


class Heapq(Way):
    """`heapq` of (key, number, handle)."""

    def __init__(self, _: Resources) -> None:
        self._heap: list[tuple[int, int, Entry]] = []

    def push(self, entries: Handles) -> None:
        heap = self._heap
        for entry in entries:
            heappush(heap, (entry.rank + OFFSETS[entry.priority], entry.number, entry))

    def pop(self, took: Callable[[Entry], object] | None = None) -> None:
        heap = self._heap
        while heap:
            entry = heappop(heap)[2]
            if entry.mark is None and took is not None:
                took(entry)


class AsyncioQueue(Way):
    """`asyncio.PriorityQueue` without waiting."""

    def __init__(self, _: Resources) -> None:
        self._queue: asyncio.PriorityQueue[tuple[int, int, Entry]] = asyncio.PriorityQueue()

    def push(self, entries: Handles) -> None:
        put = self._queue.put_nowait
        for entry in entries:
            put((entry.rank + OFFSETS[entry.priority], entry.number, entry))

    def pop(self, took: Callable[[Entry], object] | None = None) -> None:
        get, empty = self._queue.get_nowait, self._queue.empty
        while not empty():
            entry = get()[2]
            if entry.mark is None and took is not None:
                took(entry)


class ThreadQueue(Way):
    """`queue.PriorityQueue`, which also locks."""

    def __init__(self, _: Resources) -> None:
        self._queue: queue.PriorityQueue[tuple[int, int, Entry]] = queue.PriorityQueue()

    def push(self, entries: Handles) -> None:
        put = self._queue.put_nowait
        for entry in entries:
            put((entry.rank + OFFSETS[entry.priority], entry.number, entry))

    def pop(self, took: Callable[[Entry], object] | None = None) -> None:
        get, empty = self._queue.get_nowait, self._queue.empty
        while not empty():
            entry = get()[2]
            if entry.mark is None and took is not None:
                took(entry)


class Deques(Way):
    """One deque per priority: what cannot age, and so the limit."""

    ordered = False

    def __init__(self, _: Resources) -> None:
        self._deques: list[deque[Entry]] = [deque() for _ in range(LEVELS)]

    def push(self, entries: Handles) -> None:
        deques = self._deques
        for entry in entries:
            deques[entry.priority].append(entry)

    def pop(self, took: Callable[[Entry], object] | None = None) -> None:
        for level in self._deques:
            while level:
                entry = level.popleft()
                if entry.mark is None and took is not None:
                    took(entry)


WAYS: dict[str, Callable[[Resources], Way]] = {
    "procession": Ours,
    "heapq": Heapq,
    "asyncio-queue": AsyncioQueue,
    "thread-queue": ThreadQueue,
    "deques": Deques,
}


def handles(resources: Resources, count: int, number: Callable[[int], int] = int) -> tuple[list[Entry], list[Entry]]:
    """Handles with everything set that a queue reads, and those of them that get cancelled."""
    rng, spec = random.Random(count), Spec()
    made = []
    for index, level in enumerate(rng.choices(range(LEVELS), k=count)):
        entry = Entry(index + 1, level, resources.plain, spec)
        entry.rank = number(index * SPAN_NS // count)
        made.append(entry)
    return made, rng.sample(made, count // CANCELLED)


def check(name: str) -> None:
    """What does not give everything back in its order must not win."""
    resources = Resources(1, {})
    entries, cancelled = handles(resources, 1_000)
    out = set(cancelled)
    kept = [one for one in entries if one not in out]
    wanted = [one.number for one in sorted(kept, key=lambda one: (one.rank + OFFSETS[one.priority], one.number))]
    got: list[int] = []
    way = WAYS[name](resources)
    way.push(entries)
    way.cancel(cancelled)
    way.pop(lambda entry: got.append(entry.number))
    expect(got if way.ordered else sorted(got), wanted if way.ordered else sorted(wanted))


def measure(name: str, counts: Sequence[int]) -> Figures:
    """Processor time per task, pushed and popped, for each length of the queue. The garbage collector stays on.

    No handle is used twice, so that a short queue does not look faster than it is for all of it being in the caches.
    """
    check(name)
    figures: Figures = {}
    handled = min(OPERATIONS, 3 * max(counts))
    for count in counts:
        resources = Resources(1, {})
        batches = [handles(resources, count) for _ in range(max(1, handled // count))]
        took = 0.0
        gc.collect()
        for entries, cancelled in batches:
            way = WAYS[name](resources)
            began = time.process_time()
            way.push(entries)
            way.cancel(cancelled)
            way.pop()
            took += time.process_time() - began
        figures[f"queue {count}/us"] = took / len(batches) / count * 1e6
        figures[f"queue {count}/rate"] = len(batches) * count / took
    return figures


class Counted(int):
    """A key that counts how often it is compared for order."""

    asked = 0

    def __add__(self, other: int) -> Counted:
        return Counted(int(self) + other)

    def __lt__(self, other: int) -> bool:
        Counted.asked += 1
        return int(self) < int(other)

    def __gt__(self, other: int) -> bool:
        Counted.asked += 1
        return int(self) > int(other)


def counts(name: str, count: int) -> Figures:
    """Comparisons of keys and operations on the heap, per task: they depend on nothing but the code."""
    resources = Resources(1, {})
    entries, cancelled = handles(resources, count, Counted)
    module: Any = import_module("procession.scheduler._queue" if name == "procession" else __name__)
    done = 0

    def counting(operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal done
            done += 1
            return operation(*args)

        return counted

    names = ("heappush", "heappop", "heapreplace", "heappushpop", "heapify")
    plain = {name: getattr(module, name) for name in names if hasattr(module, name)}
    vars(module).update({name: counting(operation) for name, operation in plain.items()})
    way = WAYS[name](resources)
    Counted.asked = 0
    way.push(entries)
    way.cancel(cancelled)
    way.pop()
    vars(module).update(plain)
    return {"comparisons": Counted.asked / count, "heap_operations": done / count}
