"""State machines: one transition table per role, checked at import, and the only mutator of a state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from procession.errors import InvalidTransition

S = TypeVar("S", bound=str)

_STORY = 15
"""How many moves, besides the last, a machine remembers for the story of an error."""


class Transitions(Generic[S]):
    """A validated table of allowed moves.

    Args:
        initial: where every machine begins.
        final: states that nothing leaves; none for a role that never ends.
        moves: for every other state, the states that may follow it.

    Raises:
        ValueError: a state cannot be reached, or cannot reach a final state – where there is none, the initial
            one. The table is a constant of the program, so this is raised at import.
    """

    def __init__(self, initial: S, final: Iterable[S], moves: Mapping[S, Iterable[S]]) -> None:
        self.initial = initial
        self.final: frozenset[S] = frozenset(final)
        self.moves: Mapping[S, frozenset[S]] = {old: frozenset(new) for old, new in moves.items()}
        states = {initial, *self.final, *self.moves}.union(*self.moves.values())
        reached = self._closure({initial}, self.moves)
        if missing := states - reached:
            raise ValueError(f"unreachable states: {sorted(missing)}")
        if leaving := self.final & {old for old, new in self.moves.items() if new}:
            raise ValueError(f"final states with a way out: {sorted(leaving)}")
        backwards: dict[S, set[S]] = {}
        for old, new in self.moves.items():
            for state in new:
                backwards.setdefault(state, set()).add(old)
        if stuck := states - self._closure(set(self.final) or {initial}, backwards):
            raise ValueError(f"states that never end: {sorted(stuck)}")

    @staticmethod
    def _closure(start: set[S], edges: Mapping[S, Iterable[S]]) -> set[S]:
        seen, todo = set(start), list(start)
        while todo:
            for state in edges.get(todo.pop(), ()):
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
        return seen

    def allows(self, old: S, new: S) -> bool:
        """Whether ``old`` may be followed by ``new``."""
        return new in self.moves.get(old, ())

    def mermaid(self) -> str:
        """The table as a Mermaid state diagram, for the documentation."""
        lines = ["stateDiagram-v2", f"    [*] --> {self.initial}"]
        lines += [f"    {old} --> {new}" for old in self.moves for new in sorted(self.moves[old])]
        lines += [f"    {state} --> [*]" for state in sorted(self.final)]
        return "\n".join(lines)


class Machine(Generic[S]):
    """One state, moved by :meth:`to` only. ``epoch`` counts the moves, to tell stale news apart."""

    __slots__ = ("_story", "_table", "epoch", "id", "state")

    def __init__(self, id: str, table: Transitions[S]) -> None:
        self.id: str = id
        self.state: S = table.initial
        self.epoch: int = 0
        self._table = table
        self._story: tuple[tuple[S, str], ...] = ()

    def to(self, new: S, reason: str = "") -> S:
        """Moves to ``new`` and returns the state it left.

        Raises:
            InvalidTransition: the table does not allow the move; the state is unchanged.
        """
        old = self.state
        if new not in self._table.moves.get(old, ()):
            raise InvalidTransition(self.id, old, new, self.story())
        self._story = (*self._story[-_STORY:], (new, reason))
        self.state = new
        self.epoch += 1
        return old

    def story(self) -> list[str]:
        """The last moves, oldest first."""
        return [f"{state}: {reason}" if reason else str(state) for state, reason in self._story]
