"""Who makes room: the least urgent, and of those the one that started last."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from typing import TYPE_CHECKING

from procession.scheduler._config import Preemption

if TYPE_CHECKING:
    from procession.scheduler._entry import Entry
    from procession.scheduler._resources import Resources

_LOOKED_AT = 64
"""How many candidates one decision looks at, so that it costs the same however many run."""


class Victims:
    """The running tasks that may be made to give way, by level and in order of their start."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        # Ordered dicts, because a plain one walks over what was deleted from its end again and again.
        self._levels: dict[int, OrderedDict[Entry, None]] = {}
        self._order: list[int] = []
        self._gains: dict[int, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._levels.values()))

    def add(self, entry: Entry) -> None:
        """A task that may be preempted runs."""
        level = self._levels.get(entry.priority)
        if level is None:
            self._levels[entry.priority] = level = OrderedDict()
            insort(self._order, entry.priority)
            self._gains[entry.priority] = 0
        elif entry in level:
            return
        later = []
        while level and next(reversed(level)).started_at > entry.started_at:  # it was slow to get there, or was moved
            later.append(level.popitem()[0])
        level[entry] = None
        self._gains[entry.priority] += self.gain(entry)
        for one in reversed(later):
            level[one] = None

    def discard(self, entry: Entry) -> None:
        """It runs no more, or may not be preempted any more."""
        level = self._levels.get(entry.priority)
        if level is not None and entry in level:
            del level[entry]
            self._gains[entry.priority] -= self.gain(entry)
            if not level:
                del self._levels[entry.priority], self._gains[entry.priority]
                self._order.pop(bisect_left(self._order, entry.priority))

    def has(self, entry: Entry) -> bool:
        """Whether it may be made to give way."""
        return entry in self._levels.get(entry.priority, ())

    def least_urgent(self) -> int | None:
        """The largest priority number among them, or ``None``."""
        return self._order[-1] if self._order else None

    def gains_below(self, priority: int) -> int:
        """What would be free if all that are less urgent than ``priority`` made room."""
        return sum(gain for level, gain in self._gains.items() if level > priority)

    def plan(self, head: Entry, promised: int = 0) -> list[Entry]:
        """Victims, least urgent first, whose place and ``promised`` let ``head`` start; maybe none.

        Only tasks of a less urgent priority than ``head`` are taken, and none whose leaving would be of no use. Of all
        choices that is the one which spares the most urgent, and among equals those that have run the longest.
        """
        resources = self._resources
        guard, need = resources.guard, head.shape.need
        room = resources.open + promised
        picked: list[tuple[Entry, int]] = []
        looked = 0
        for priority in reversed(self._order):
            if priority <= head.priority:
                break
            for entry in reversed(self._levels[priority]):
                looked += 1
                if looked > _LOOKED_AT:
                    return []
                gain = self.gain(entry)
                short = guard & ~(room - need)
                if gain & (short - (short >> 63)) == 0:
                    continue  # it holds nothing of what is missing
                picked.append((entry, gain))
                room += gain
                if (room - need) & guard == guard:
                    return self._pruned(picked, room, need)
        return []

    def gain(self, entry: Entry) -> int:
        """What becomes free when it makes room."""
        if entry.spec.preemption is Preemption.SUSPEND:
            return entry.holds & self._resources.released
        return entry.holds

    def _pruned(self, picked: list[tuple[Entry, int]], room: int, need: int) -> list[Entry]:
        guard = self._resources.guard
        kept: list[Entry] = []
        for entry, gain in reversed(picked):
            if (room - gain - need) & guard == guard:
                room -= gain
            else:
                kept.append(entry)
        kept.reverse()
        return kept
