"""Which of very many shapes fit what is free, the most urgent first: a tournament tree of minima.

Each inner node knows, per resource, the least that any shape below it needs, and the most urgent key below it. A search
goes best first and leaves out every subtree whose minima do not fit. Neighbours in the tree need similar amounts (they
stand along Morton's curve: *A computer oriented geodetic data base*, IBM 1966), so that minima say much about what is
below them. A search looks at a bounded number of nodes, so it may miss a shape that fits, but never takes longer
because more wait. When very many that are more urgent do not fit, it looks at some more leaves in turn, each time from
where it ended the last time, so that nothing that fits is missed for good.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from procession.scheduler._queue import Lane
    from procession.scheduler._resources import Resources, Shape

_VISITS = 96
"""Nodes looked at in one search for the most urgent that fits."""

_MORE_VISITS = 64
"""Nodes looked at after that for anything that fits, from where the last search ended."""

_GRAIN = 16
"""Parts each resource is divided into to tell which shapes are similar."""

_NOBODY = (math.inf, 0)
Key = tuple[float, int]
_VALUE = (1 << 63) - 1


class ShapeIndex:
    """The shapes that wait, by what they need and how urgent their first task is.

    Args:
        shapes: those that wait now.
        resources: what they are compared with.
    """

    def __init__(self, shapes: Iterable[Shape], resources: Resources) -> None:
        self._resources = resources
        self._guard = resources.guard
        self._never = self._guard - (self._guard >> 63)  # the largest value in every field: fits nowhere
        self._shapes: list[Shape | None] = list(shapes)
        self._free: list[int] = []
        self._touched: set[Shape] = set()
        self._cursor = 0
        self._out_of_place = len(self._shapes)
        names = resources.names[1:]  # everybody takes one slot
        bits = _GRAIN.bit_length() - 1
        self._spread = [sum((part >> bit & 1) << (bit * len(names)) for bit in range(bits)) for part in range(_GRAIN)]
        self._fields = [
            (64 * place, max(1, resources.total >> (64 * place) & _VALUE)) for place in range(1, len(names) + 1)
        ]
        self._build()

    def add(self, shape: Shape) -> None:
        """A shape begins to wait; its first key is read at the next search."""
        if self._free:
            shape.leaf = self._free.pop()
            self._shapes[shape.leaf] = shape
        else:
            shape.leaf = len(self._shapes)
            self._shapes.append(shape)
        self._touched.add(shape)
        self._out_of_place += 1

    def remove(self, shape: Shape) -> None:
        """Nothing of this shape waits any more."""
        self._touched.discard(shape)
        self._shapes[shape.leaf] = None
        self._free.append(shape.leaf)
        if shape.leaf < self._width:
            self._set(shape.leaf, self._never, _NOBODY)
        shape.leaf = -1

    def touch(self, shape: Shape) -> None:
        """The most urgent task of a shape has changed."""
        self._touched.add(shape)

    def fitting(self) -> Iterator[Lane]:
        """The lanes whose shape fits, the most urgent first, as far as the search goes."""
        if len(self._shapes) > self._width or len(self._touched) * 8 > self._width:
            self._build()
        for shape in self._touched:
            self._set(shape.leaf, shape.need, _first(shape))
        self._touched.clear()
        least, first, width = self._least, self._first, self._width
        room, guard = self._resources.open, self._guard
        open_nodes: list[tuple[Key, int | Lane]] = [(first[1], 1)]  # no two of one key: the number is part of it
        given: set[Lane] = set()
        for _ in range(_VISITS):
            if not open_nodes:
                return
            _, node = heappop(open_nodes)
            if not isinstance(node, int):
                given.add(node)
                yield node
            elif node < width:
                for child in (2 * node, 2 * node + 1):
                    if (room - least[child]) & guard == guard:
                        heappush(open_nodes, (first[child], child))
            else:
                for lane in self._lanes(node):
                    heappush(open_nodes, (_key(lane), lane))
        # The most urgent ones that remain need just a little too much.
        for node in self._walk():
            yield from (lane for lane in sorted(self._lanes(node), key=_key) if lane not in given)

    def _walk(self) -> Iterator[int]:
        """Leaves that fit, from left to right and round again, from where the last walk ended."""
        least, width, room, guard = self._least, self._width, self._resources.open, self._guard
        node = width + self._cursor % width
        for _ in range(_MORE_VISITS):
            if (room - least[node]) & guard == guard:
                if node < width:
                    node *= 2
                    continue
                self._cursor = node - width
                yield node
            while node & 1:  # up from a right child, and then to the right; from the last leaf to the root
                node >>= 1
            node += 1
        self._cursor = (node << width.bit_length() - node.bit_length()) - width

    def _lanes(self, node: int) -> Iterable[Lane]:
        shape = self._shapes[node - self._width]
        assert shape is not None  # nothing that is not there fits
        return shape.lanes.values()

    # ------------------------------------------------------------------------------------- the tree

    def _arrange(self) -> None:
        """Gives similar shapes neighbouring leaves."""
        shapes = [shape for shape in self._shapes if shape is not None]
        shapes.sort(key=self._curve)
        for leaf, shape in enumerate(shapes):
            shape.leaf = leaf
        self._shapes = [*shapes]
        self._free = []
        self._out_of_place = 0

    def _curve(self, shape: Shape) -> int:
        need, place = shape.need, 0
        for dimension, (shift, total) in enumerate(self._fields):
            part = (need >> shift & _VALUE) * (_GRAIN - 1) // total
            place |= self._spread[part] << dimension
        return place

    def _build(self) -> None:
        if self._out_of_place * 4 > len(self._shapes):
            self._arrange()
        width = 1 << max(4, (len(self._shapes) - 1).bit_length())
        self._width = width
        least = [self._never] * (2 * width)
        first: list[Key] = [_NOBODY] * (2 * width)
        for leaf, shape in enumerate(self._shapes):
            if shape is not None:
                least[width + leaf] = shape.need
                first[width + leaf] = _first(shape)
        for node in range(width - 1, 0, -1):
            left, right = 2 * node, 2 * node + 1
            least[node] = self._minimum(least[left], least[right])
            first[node] = min(first[left], first[right])
        self._least, self._first = least, first
        self._touched.clear()

    def _set(self, leaf: int, need: int, key: Key) -> None:
        least, first = self._least, self._first
        node = self._width + leaf
        least[node], first[node] = need, key
        node >>= 1
        while node:
            left, right = 2 * node, 2 * node + 1
            smallest, soonest = self._minimum(least[left], least[right]), min(first[left], first[right])
            if smallest == least[node] and soonest == first[node]:
                return
            least[node], first[node] = smallest, soonest
            node >>= 1

    def _minimum(self, a: int, b: int) -> int:
        """Field by field: the guard bits of ``a - b`` tell where ``b`` is the smaller one."""
        if a == b:
            return a
        smaller = ((a | self._guard) - b) & self._guard
        mask = smaller - (smaller >> 63)
        return (b & mask) | (a & ~mask)


def _key(lane: Lane) -> Key:
    assert lane.key is not None
    return lane.key[:2]


def _first(shape: Shape) -> Key:
    return min((lane.key[:2] for lane in shape.lanes.values() if lane.key is not None), default=_NOBODY)
