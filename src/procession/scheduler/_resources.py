"""Resources as integers: exact, and compared, taken and given back in one operation each.

All amounts of one bundle are packed into a single integer, 64 bits a field, in millionths. The highest bit of a field
is its guard: what is free carries it set, and a bundle fits when subtracting it leaves every guard standing. This is
"SIMD within a register" (Lamport, *Multiple byte processing with full-word instructions*, CACM 18(8), 1975) with
Python's integers for registers.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from procession.errors import ConfigError, InsufficientResources

if TYPE_CHECKING:
    from collections.abc import Hashable

    from procession.scheduler._queue import Lane

UNIT = 1_000_000
FIELD = 64
_VALUE = (1 << (FIELD - 1)) - 1
_FINITE = sys.float_info.max  # an integer can be larger, and then not be shown as a number with a fraction
_KNOWN_SHAPES = 4096
_GIVEN_BACK = ("cpu_cores", "network_mbps")
SLOTS = "slots"


class Shape:
    """One combination of needs; tasks that share it are interchangeable but for their order.

    Attributes:
        need: what it takes to run, packed, with one slot.
        resume: what a suspended task of this shape takes to go on; a shape of its own.
        lanes: the queue's lanes of this shape, by slot.
        leaf: its place in the index of shapes, while there is one.
    """

    __slots__ = ("__weakref__", "lanes", "leaf", "need", "resume")

    def __init__(self, need: int, released: int) -> None:
        self.need: int = need
        self.lanes: dict[Hashable, Lane] = {}
        self.leaf: int = -1
        rest = need & released
        self.resume: Shape = self if rest == need else Shape(rest, released)


class Resources:
    """What there is, and what is free of it.

    Args:
        slots: how many tasks run at a time.
        totals: how much there is, by name.
        kept: names a suspended task holds on to; ``None``: all but those that a stopped process cannot use.
    """

    __slots__ = ("_asked", "_positions", "_shapes", "guard", "names", "open", "plain", "released", "total")

    def __init__(self, slots: int, totals: Mapping[str, float], kept: Iterable[str] | None = None) -> None:
        if SLOTS in totals:
            raise ConfigError(f"resources.{SLOTS}", totals[SLOTS], "the name is taken: every running task takes a slot")
        self.names = (SLOTS, *totals)
        self._positions = {name: index * FIELD for index, name in enumerate(self.names)}
        self.guard = sum(1 << (position + FIELD - 1) for position in self._positions.values())
        self.total = slots
        for name, amount in totals.items():
            self.total += round(amount * UNIT) << self._positions[name]
        held = set(totals).difference(_GIVEN_BACK) if kept is None else set(kept)
        if unknown := held.difference(totals):
            raise ConfigError("kept_when_suspended", sorted(unknown), "only resources the scheduler has can be kept")
        self.released = sum(_VALUE << at for name, at in self._positions.items() if name not in held)
        self.open = self.total | self.guard
        self._shapes: dict[int, Shape] = {}
        self._asked: dict[tuple[tuple[str, float], ...], Shape] = {}
        self.plain = self._shape(1)
        """The shape of a task that needs nothing but a slot."""

    # ------------------------------------------------------------------------------- taking and giving

    def fits(self, need: int) -> bool:
        """Whether as much is free now."""
        return (self.open - need) & self.guard == self.guard

    def take(self, need: int) -> None:
        """Takes what :meth:`fits`."""
        self.open -= need

    def give(self, need: int) -> None:
        """Gives back what was taken."""
        self.open += need

    @property
    def allocated(self) -> int:
        """What is taken, packed."""
        return (self.total | self.guard) - self.open

    # ------------------------------------------------------------------------------------ in and out

    def shape(self, wanted: Mapping[str, float]) -> Shape:
        """The shape of a request.

        Raises:
            ConfigError: a name is unknown or an amount is no number, negative or too fine.
            InsufficientResources: it could never be met.
        """
        if type(wanted) is not dict:
            return self._shape_of(wanted)
        asked = tuple(wanted.items())
        try:
            known = self._asked.get(asked)
        except TypeError:  # an amount that is none, and is told so
            return self._shape_of(wanted)
        if known is not None:
            for amount in wanted.values():
                if amount is True or amount is False:  # equal to 1 and 0, and refused
                    break
            else:
                return known
        shape = self._shape_of(wanted)
        if len(self._asked) >= _KNOWN_SHAPES:
            self._asked.clear()
        self._asked[asked] = shape
        return shape

    def _shape_of(self, wanted: Mapping[str, float]) -> Shape:
        if not isinstance(wanted, Mapping):
            raise ConfigError("resources", wanted, 'amounts by name are needed, for example {"cpu_cores": 2}')
        need = 1
        for name, amount in wanted.items():
            position = self._positions.get(name)
            if not position:  # unknown, or the slot, which everybody takes one of
                there = ", ".join(self.names[1:]) or "no resources at all"
                raise ConfigError(f"resources.{name}", amount, f"the scheduler has {there}")
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < math.inf:
                raise ConfigError(f"resources.{name}", amount, "a number, 0 or more, is needed")
            units = round(amount * UNIT) if amount < _VALUE else _VALUE  # what is larger may overflow
            if units > self.total >> position & _VALUE:
                raise InsufficientResources(name, min(amount, _FINITE), (self.total >> position & _VALUE) / UNIT)
            if amount and not units:
                raise ConfigError(f"resources.{name}", amount, f"amounts are counted in steps of {1 / UNIT:g}")
            need += units << position
        return self._shapes.get(need) or self._shape(need)

    def _shape(self, need: int) -> Shape:
        if len(self._shapes) >= _KNOWN_SHAPES:  # a shape that is forgotten while it is used merely has a twin
            self._shapes.clear()
            self._asked.clear()
        self._shapes[need] = shape = Shape(need, self.released)
        return shape

    def amount(self, packed: int, name: str) -> float:
        """One field of a packed bundle, in its own unit."""
        units = packed >> self._positions[name] & _VALUE
        return float(units) if name == SLOTS else units / UNIT

    def amounts(self, packed: int) -> dict[str, float]:
        """A packed bundle by name, without the slots."""
        return {name: self.amount(packed, name) for name in self.names[1:]}

    def lacking(self, need: int) -> dict[str, tuple[float, float]]:
        """What is missing for ``need``: (needed, free) by name; empty when it fits."""
        short = self.guard & ~(self.open - need)
        return {
            name: (self.amount(need, name), self.amount(self.open, name))
            for name, position in self._positions.items()
            if short >> (position + FIELD - 1) & 1
        }
