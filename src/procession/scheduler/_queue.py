"""The queue: a heap of lanes, not of tasks.

Tasks of one lane – the same group of the policy, priority, shape and length – are interchangeable but for their order,
so a lane is a FIFO and only its head is compared. Order between lanes is ``rank + offset(group)``; linear ageing is of
that form, because ``priority - factor · (now - since)`` and ``since + priority / factor`` order tasks alike, so nothing
is ever sorted again (Kleinrock, *A delay dependent queue discipline*, 1964). The cost of a push or a pop depends on how
many lanes there are, not on how many tasks wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from typing import TYPE_CHECKING

from procession.scheduler._index import ShapeIndex

if TYPE_CHECKING:
    from procession.abc import QueuePolicy
    from procession.scheduler._entry import Entry
    from procession.scheduler._resources import Resources, Shape

_FEW_DEAD = 32

_LOOKED_AT = 256
"""Lanes of one priority that are compared to find its next task."""

_MANY_SHAPES = 64
"""From so many shapes on, those that fit are looked up in a tree instead of being tried one by one."""


class Lane:
    """Tasks that differ by their order only.

    Attributes:
        head: the first live task; a lane without one is dropped.
        key: what orders it among the lanes; the very object that stands in the heap, so that others there are stale.
        dead: those of its tasks that were taken out but still stand in it.
    """

    __slots__ = ("dead", "early", "fifo", "group", "head", "key", "offset", "priority", "shape", "slot")

    def __init__(self, slot: Hashable, shape: Shape, priority: int, group: Hashable, offset: int) -> None:
        self.slot: Hashable = slot
        self.shape: Shape = shape
        self.priority: int = priority
        self.group: Hashable = group
        self.offset: int = offset
        self.fifo: deque[Entry] = deque()
        self.early: list[tuple[int, int, Entry]] = []
        self.head: Entry | None = None
        self.key: tuple[int, int, Lane] | None = None
        self.dead: set[Entry] | None = None  # few lanes ever have one

    def __len__(self) -> int:
        return len(self.fifo) + len(self.early) - (len(self.dead) if self.dead else 0)

    def __lt__(self, other: Lane) -> bool:
        return False  # only asked when a lane stands in the heap twice under one key, where any order will do

    def __iter__(self) -> Iterator[Entry]:
        """The live tasks, in no particular order."""
        for entry in self.fifo:
            if entry.lane is self:
                yield entry
        for _, _, entry in self.early:
            if entry.lane is self:
                yield entry


def _place(lane: Lane) -> tuple[int, int, Lane]:
    assert lane.key is not None
    return lane.key


class Queue:
    """The tasks that wait for their turn, the next one first.

    Args:
        policy: who is next.
        resources: what shapes are compared with when something that fits is looked for.
    """

    def __init__(self, policy: QueuePolicy, resources: Resources) -> None:
        self._policy = policy
        self._resources = resources
        self.heap: list[tuple[int, int, Lane]] = []
        self._lanes = 0
        self.count = 0
        self.shapes: dict[Shape, None] = {}
        self._groups: dict[Hashable, dict[Lane, None]] = {}
        self._levels: dict[int, dict[Lane, None]] = {}
        self._index: ShapeIndex | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def is_indexed(self) -> bool:
        """Whether there are so many shapes that changes have to be noted in a tree."""
        return self._index is not None

    # ------------------------------------------------------------------------------------ in and out

    def push(self, entry: Entry) -> None:
        """Adds a task whose ``rank``, ``slot`` and ``shape`` are set."""
        lane = entry.shape.lanes.get(entry.slot)
        if lane is None:
            self._open(entry)  # asks the policy, which may be a user's own and raise
            self.count += 1
            return
        self.count += 1
        if lane.dead:
            self._clean(lane, entry)
        entry.lane = lane
        fifo, head = lane.fifo, lane.head
        if fifo:
            last = fifo[-1]
            if entry.rank > last.rank or (entry.rank == last.rank and entry.number > last.number):
                fifo.append(entry)
                return
            # It comes back, or is ordered by something that does not grow with time.
            heappush(lane.early, (entry.rank, entry.number, entry))
        else:  # what is there came early
            fifo.append(entry)
        assert head is not None
        if (entry.rank, entry.number) < (head.rank, head.number):
            self._announce(lane, entry)

    def top(self) -> Lane | None:
        """The lane whose head is next, or ``None`` when nothing waits."""
        heap = self.heap
        while heap:
            key = heap[0]
            if key[2].key is key:
                return key[2]
            heappop(heap)
        return None

    def pop(self, lane: Lane) -> Entry:
        """Takes the head of ``lane``."""
        entry, fifo = lane.head, lane.fifo
        assert entry is not None
        entry.lane = None
        self.count -= 1
        if fifo and fifo[0] is entry:
            fifo.popleft()
            if fifo and not lane.early:
                head = fifo[0]
                if head.lane is lane:  # the way of nearly all
                    lane.head = head
                    heap = self.heap
                    lane.key = key = (head.rank + lane.offset, head.number, lane)
                    if heap[0][2] is lane:
                        heapreplace(heap, key)
                    else:  # it was passed to: the stale keys of such lanes would pile up behind the first
                        heappush(heap, key)
                        self._sweep()
                    if self._index is not None:
                        self._index.touch(lane.shape)
                    return entry
        else:
            heappop(lane.early)
        self._advance(lane)
        return entry

    def discard(self, entry: Entry) -> None:
        """Takes out a task from anywhere, in constant time: it is skipped when it gets to the front."""
        lane = entry.lane
        assert lane is not None
        entry.lane = None
        self.count -= 1
        dead = lane.dead
        if dead is None:
            lane.dead = dead = {entry}
        else:
            dead.add(entry)
        if lane.head is entry:
            self._advance(lane)
        elif len(dead) > _FEW_DEAD and len(dead) * 2 > len(lane.fifo) + len(lane.early):
            self._compact(lane)

    # --------------------------------------------------------------------------------------- lanes

    def _open(self, entry: Entry) -> None:
        shape = entry.shape
        group = self._policy.group(entry)
        lane = Lane(entry.slot, shape, entry.priority, group, self._policy.offset(group))
        if not shape.lanes:
            self.shapes[shape] = None
            if self._index is not None:
                self._index.add(shape)
        shape.lanes[entry.slot] = lane
        self._groups.setdefault(group, {})[lane] = None
        level = self._levels.get(entry.priority)
        if level is None:
            self._levels[entry.priority] = level = {}
        level[lane] = None
        self._lanes += 1
        lane.fifo.append(entry)
        entry.lane = lane
        self._announce(lane, entry)

    def _close(self, lane: Lane) -> None:
        shape = lane.shape
        lane.head = lane.key = None
        del shape.lanes[lane.slot]
        alike = self._groups[lane.group]
        del alike[lane]
        if not alike:
            del self._groups[lane.group]
        level = self._levels[lane.priority]
        del level[lane]
        if not level:
            del self._levels[lane.priority]
        self._lanes -= 1
        if not shape.lanes:
            del self.shapes[shape]
            if self._index is not None:
                self._index.remove(shape)
                if len(self.shapes) < _MANY_SHAPES // 2:
                    self._index = None
                    return
        if self._index is not None and shape.lanes:
            self._index.touch(shape)

    def _announce(self, lane: Lane, head: Entry) -> None:
        """Puts the lane where its new head belongs; what stood for it in the heap is stale from now on."""
        lane.head = head
        lane.key = key = (head.rank + lane.offset, head.number, lane)
        heappush(self.heap, key)
        self._sweep()
        if self._index is not None:
            self._index.touch(lane.shape)

    def _sweep(self) -> None:
        if len(self.heap) > 2 * self._lanes + 64:
            self.heap[:] = [key for key in self.heap if key[2].key is key]
            heapify(self.heap)

    def _advance(self, lane: Lane) -> None:
        """Finds the next live head, or closes the lane."""
        fifo, early, dead = lane.fifo, lane.early, lane.dead
        if dead:
            while fifo and fifo[0].lane is not lane:
                dead.discard(fifo.popleft())
            while early and early[0][2].lane is not lane:
                dead.discard(heappop(early)[2])
        if fifo and (not early or (fifo[0].rank, fifo[0].number) < early[0][:2]):
            self._announce(lane, fifo[0])
        elif early:
            self._announce(lane, early[0][2])
        else:
            self._close(lane)

    def _clean(self, lane: Lane, entry: Entry) -> None:
        """Readies a lane for ``entry``: no dead twin of it in there may come to life again, and the last one lives.

        Where the last one is dead its rank means nothing: it may wait elsewhere now, with another one.
        """
        fifo, dead = lane.fifo, lane.dead
        assert dead is not None
        if entry in dead:
            self._compact(lane)
            return
        while fifo and fifo[-1].lane is not lane:
            dead.discard(fifo.pop())

    def _compact(self, lane: Lane) -> None:
        lane.fifo = deque(entry for entry in lane.fifo if entry.lane is lane)
        lane.early = [item for item in lane.early if item[2].lane is lane]
        heapify(lane.early)
        lane.dead = None

    def reoffset(self, groups: Iterable[Hashable]) -> None:
        """Puts lanes in order again after the policy has changed the offset of their groups."""
        for group in groups:
            lanes = self._groups.get(group)
            if lanes is None:
                continue
            offset = self._policy.offset(group)
            for lane in lanes:
                if offset != lane.offset and lane.head is not None:
                    lane.offset = offset
                    self._announce(lane, lane.head)

    # ------------------------------------------------------------------------------------- looking

    def fitting(self) -> Iterator[Lane]:
        """The lanes whose shape fits what is free, the most urgent first. Nothing may change meanwhile."""
        resources = self._resources
        if len(self.shapes) > _MANY_SHAPES:
            if self._index is None:
                self._index = ShapeIndex(self.shapes, resources)
            yield from self._index.fitting()
            return
        room, guard = resources.open, resources.guard
        keys = [
            key
            for shape in self.shapes
            if (room - shape.need) & guard == guard
            for lane in shape.lanes.values()
            if (key := lane.key) is not None
        ]
        heapify(keys)  # not sorted, because mostly the first one is taken
        while keys:
            yield heappop(keys)[2]

    def most_urgent(self, below: int) -> Entry | None:
        """The next one of the most urgent priority, if that is more urgent than ``below``; ageing does not count.

        Where very many lanes have that priority, those that have been there for longest are looked at.
        """
        if not self._levels or (priority := min(self._levels)) >= below:
            return None
        return min(islice(self._levels[priority], _LOOKED_AT), key=_place).head

    def lanes(self) -> Iterator[Lane]:
        """All lanes, in no particular order."""
        for shape in self.shapes:
            yield from shape.lanes.values()

    def __iter__(self) -> Iterator[Entry]:
        """All that waits, in no particular order."""
        for lane in self.lanes():
            yield from lane

    def ahead_of(self, entry: Entry, names: int = 3) -> tuple[int, list[Entry]]:
        """How many tasks are before ``entry``, and the first few of them; costs what the queue holds."""
        home = entry.lane
        assert home is not None
        own = (entry.rank + home.offset, entry.number)
        before = [
            (one.rank + lane.offset, one.number, one)
            for lane in self.lanes()
            for one in lane
            if (one.rank + lane.offset, one.number) < own
        ]
        before.sort()
        return len(before), [one for _, _, one in before[:names]]
