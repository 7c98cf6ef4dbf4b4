"""How much accepted work is due when: the demand of all deadlines at once."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

_MOST = 256
"""Items of a block. To add or remove one costs as much as a block, to ask as much as there are blocks."""

Item = tuple[int, int, int]
"""When it is due, a number that makes it unlike others, and its work; nanoseconds."""


class _Block:
    """Items next to one another, and what they come to.

    Attributes:
        total: their work.
        room: the smallest ``slots · due - work up to and including it`` of all items; that less the time and the work
            before the block is the room left at its tightest deadline.
    """

    __slots__ = ("items", "room", "total")

    def __init__(self, items: list[Item]) -> None:
        self.items = items
        self.total = 0
        self.room = 0

    def sum_up(self, slots: int) -> None:
        total = 0
        room = slots * self.items[0][0]
        for due, _, work in self.items:
            total += work
            room = min(room, slots * due - total)
        self.total = total
        self.room = room


class Demand:
    """Work by deadline, in blocks of items with their sums, so that neither a change nor a question looks at all.

    Args:
        slots: how many tasks run at a time.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._blocks: list[_Block] = []
        self._lasts: list[Item] = []

    def __len__(self) -> int:
        return sum(len(block.items) for block in self._blocks)

    def add(self, item: Item) -> None:
        """Takes note of one."""
        blocks = self._blocks
        if not blocks:
            blocks.append(_Block([]))
            self._lasts.append(item)
        index = min(bisect_left(self._lasts, item), len(blocks) - 1)
        block = blocks[index]
        insort(block.items, item)
        if len(block.items) > _MOST:
            half = _Block(block.items[_MOST // 2 :])
            del block.items[_MOST // 2 :]
            blocks.insert(index + 1, half)
            self._lasts.insert(index + 1, half.items[-1])
            half.sum_up(self._slots)
        self._sum_up(index)

    def remove(self, item: Item) -> None:
        """Forgets one that is there."""
        index = bisect_left(self._lasts, item)
        items = self._blocks[index].items
        del items[bisect_left(items, item)]
        if items:
            self._sum_up(index)
        else:
            del self._blocks[index], self._lasts[index]

    def _sum_up(self, index: int) -> None:
        block = self._blocks[index]
        block.sum_up(self._slots)
        self._lasts[index] = block.items[-1]

    def excess(self, now: int, due: int, work: int, more: Sequence[Item]) -> int:
        """By how much the work due by some deadline, from ``due`` on, exceeds the time of all slots until then.

        Args:
            now: the present.
            due: when the new work is to be over.
            work: how much that is.
            more: work that is not kept here, for example of what runs, in order.

        Returns:
            The greatest excess, if the new work were accepted; 0 or less when all of it fits.
        """
        slots = self._slots
        early = [item for item in more if item[0] <= due]
        late = list(reversed(more[len(early) :]))  # a stack, the earliest on top
        known = sum(work for _, _, work in early)  # up to the deadline looked at
        before = known  # up to the new one
        offset = work + slots * now
        worst: int | None = None
        for block in self._blocks:
            first, last = block.items[0][0], block.items[-1][0]
            if last <= due:
                before += block.total
                known += block.total
            elif first > due and not (late and late[-1][0] <= last):
                worst = _larger(worst, known + offset - block.room)
                known += block.total
            else:
                for at, _, amount in block.items:
                    while late and late[-1][0] <= at:
                        at_more, _, amount_more = late.pop()
                        known += amount_more
                        worst = _larger(worst, known + offset - slots * at_more)
                    known += amount
                    if at <= due:
                        before += amount
                    else:
                        worst = _larger(worst, known + offset - slots * at)
        while late:
            at, _, amount = late.pop()
            known += amount
            worst = _larger(worst, known + offset - slots * at)
        return _larger(worst, before + offset - slots * due)


def _larger(one: int | None, other: int) -> int:
    return other if one is None or other > one else one
