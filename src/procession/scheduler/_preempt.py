"""Who makes room: the least urgent, and of those the one that started last."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from procession.scheduler._config import Preemption
from procession.scheduler._resources import FIELD

if TYPE_CHECKING:
    from procession.scheduler._entry import Entry
    from procession.scheduler._resources import Resources

Started = tuple[float, int]
"""When one was started, and a number that tells apart those of the same instant."""


class _Kind:
    """The candidates of one level that would give up something of the same resources, in order of their start."""

    __slots__ = ("entries", "fields", "priority")

    def __init__(self, priority: int, fields: int) -> None:
        self.priority = priority
        self.fields = fields
        # An ordered dict, because a plain one walks over what was deleted from its end again and again.
        self.entries: OrderedDict[Entry, Started] = OrderedDict()

    def put_in(self, entry: Entry, started: Started) -> None:
        """Gives it its place before others: it was slow to get under way, or was moved."""
        entries = self.entries
        later = []
        while entries and entries[last := next(reversed(entries))] > started:
            later.append((last, entries.pop(last)))
        entries[entry] = started
        entries.update(reversed(later))


class _Tip:
    """How far a search has come among those of one kind."""

    __slots__ = ("_rest", "entry", "kind", "started")

    def __init__(self, kind: _Kind) -> None:
        self.kind = kind
        self._rest = iter(reversed(kind.entries.items()))
        self.next()

    def next(self) -> bool:
        """Goes to the one that was started before; ``False`` when there is none."""
        item = next(self._rest, None)
        if item is not None:
            self.entry, self.started = item
        return item is not None


def _started(tip: _Tip) -> Started:
    return tip.started


class Victims:
    """The running tasks that may be made to give way, by level, by what they would give up, and in order of start.

    Those that would give up nothing of what is missing are passed over all at once: there are as many kinds as there
    are combinations of resources that tasks hold, however many run.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._levels: dict[int, dict[int, _Kind]] = {}
        self._order: list[int] = []
        self._gains: dict[int, int] = {}
        self._where: dict[Entry, tuple[_Kind, int]] = {}
        self._added = 0

    def __len__(self) -> int:
        return len(self._where)

    def add(self, entry: Entry) -> None:
        """A task that may be preempted runs."""
        if entry in self._where:
            return
        priority, gain, guard = entry.priority, self.gain(entry), self._resources.guard
        fields = ((gain | guard) - (guard >> (FIELD - 1))) & guard  # where it is more than nothing
        level = self._levels.get(priority)
        if level is None:
            self._levels[priority] = level = {}
            insort(self._order, priority)
            self._gains[priority] = 0
        kind = level.get(fields)
        if kind is None:
            level[fields] = kind = _Kind(priority, fields)
        self._added = added = self._added + 1
        started = (entry.started_at, added)
        entries = kind.entries
        if entries and entries[next(reversed(entries))] > started:
            kind.put_in(entry, started)
        else:
            entries[entry] = started
        self._where[entry] = kind, gain
        self._gains[priority] += gain

    def discard(self, entry: Entry) -> None:
        """It runs no more, or may not be preempted any more."""
        found = self._where.pop(entry, None)
        if found is None:
            return
        kind, gain = found
        priority = kind.priority
        del kind.entries[entry]
        self._gains[priority] -= gain
        if not kind.entries:
            level = self._levels[priority]
            del level[kind.fields]
            if not level:
                del self._levels[priority], self._gains[priority]
                self._order.pop(bisect_left(self._order, priority))

    def has(self, entry: Entry) -> bool:
        """Whether it may be made to give way."""
        return entry in self._where

    def __iter__(self) -> Iterator[Entry]:
        """All of them, in no particular order."""
        return iter(self._where)

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
        resources, order = self._resources, self._order
        guard, need = resources.guard, head.shape.need
        room = resources.open + promised
        if not order or order[-1] <= head.priority or (room - need) & guard == guard:
            return []
        level = self._levels[order[-1]]
        if len(level) == 1:  # the way of nearly all: the first one asked is enough
            for kind in level.values():
                last = next(reversed(kind.entries))
                if (room + self._where[last][1] - need) & guard == guard:
                    return [last]
        if (room + self.gains_below(head.priority) - need) & guard != guard:
            return []  # all of them together are not enough
        picked: list[tuple[Entry, int]] = []
        for priority in reversed(order):
            if priority <= head.priority:
                break
            tips = [_Tip(kind) for kind in self._levels[priority].values()]
            while tips:
                short = guard & ~(room - need)
                useful = [tip for tip in tips if tip.kind.fields & short]
                if not useful:
                    break
                tip = max(useful, key=_started) if len(useful) > 1 else useful[0]
                gain = self._where[tip.entry][1]
                picked.append((tip.entry, gain))
                room += gain
                if (room - need) & guard == guard:
                    return self._pruned(picked, room, need)
                if not tip.next():
                    tips.remove(tip)
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
