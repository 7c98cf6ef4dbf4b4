"""Short work first without being told which it is: several levels, and use moves a task down."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from procession.errors import ConfigError
from procession.scheduler._policies._base import BEYOND, Policy
from procession.scheduler._policies._check import LONGEST, SHORTEST, count, seconds
from procession.scheduler._policies._slice import Arrivals

if TYPE_CHECKING:
    from procession.abc import QueuedTask

_TOP = 0
_MOST_LEVELS = 32


class _Stay:
    """A task's stay at a level: since which boost, in which place there, and how much of its quantum is used."""

    __slots__ = ("epoch", "level", "place", "since", "used")

    def __init__(self, epoch: int, place: int) -> None:
        self.epoch = epoch
        self.level = 0
        self.place = place
        self.used = 0.0
        self.since = 0.0


class MultiLevelFeedback(Policy):
    """A multi-level feedback queue: who has used much waits for who has used little.

    A task begins at the top level. Once it has run for the quantum of its level, in one stretch or in several, it goes
    down by one; at the lowest level it goes to the tail. The highest level that has a task is served first, within a
    level the order is that of arrival there. Every ``boost`` seconds all tasks, running ones too, are back at the top,
    ordered by how long they have been where they were; so nothing starves, and work that turns interactive is noticed.

    After Corbató, Daggett and Daley, *An experimental time-sharing system* (1962), with the accounting and the boost of
    Arpaci-Dusseau, *Operating Systems: Three Easy Pieces*, chapter 8.

    A boost costs as much as there are lanes in the queue, however many tasks wait: it counts an epoch, and the levels
    of an older epoch are worth nothing.

    Args:
        levels: how many levels, 1 to 32. Default: as many as there are quanta, else 4.
        quantum: seconds a task may run, of each level, or of the top one; then it doubles from level to level.
        boost: seconds between boosts; ``None`` for never. Default 10.

    Raises:
        ConfigError: an argument is not of that kind; seconds are from 0.001 to 1e9.
    """

    def __init__(
        self, levels: int | None = None, quantum: float | Sequence[float] = 0.1, boost: float | None = 10.0
    ) -> None:
        self.quanta: tuple[float, ...] = _quanta(levels, quantum)
        self.boost: float | None = None if boost is None else seconds("boost", boost)
        self._arrivals = Arrivals()
        self._epoch = 0
        self._boosted_at = 0.0
        self._next: float | None = None

    def fresh(self, slots: int) -> MultiLevelFeedback:
        """One that has seen nobody yet."""
        return MultiLevelFeedback(None, self.quanta, self.boost)

    # -------------------------------------------------------------------------------------- the order

    def group(self, task: QueuedTask) -> Hashable:
        """The level since the last boost; the top is one and the same group whatever the epoch."""
        mark: _Stay | None = task.mark
        if mark is None or mark.epoch != self._epoch or not mark.level:
            return _TOP
        return mark.epoch, mark.level

    def offset(self, group: Hashable) -> int:
        """One level after the other; what was lower before the last boost is at the top now."""
        if isinstance(group, tuple) and group[0] == self._epoch:
            return int(group[1]) * BEYOND
        return 0

    def rank(self, task: QueuedTask, now: int) -> int:
        """The end of the line."""
        return self._arrivals.newcomer(now)

    def again(self, task: QueuedTask, now: int) -> int:
        """Where it came to its level."""
        return task.rank if task.mark is None else int(task.mark.place)

    # ------------------------------------------------------------------------------------ the quantum

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """The first one sets the clock of the boosts."""
        if self._next is None and self.boost is not None:
            self._next = now + self.boost
        return ()

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """Its quantum is running."""
        self._stay(task).since = now
        return ()

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        """What it used of its quantum stays used, or giving way just before its end would be a way to stay on top."""
        stay = self._stay(task)
        stay.used += now - stay.since
        return ()

    def quantum(self, task: QueuedTask) -> float | None:
        """What is left of that of its level."""
        stay = self._stay(task)
        return max(SHORTEST, self.quanta[stay.level] - stay.used)

    def used_up(self, task: QueuedTask, now: float) -> None:
        """It goes down by one level."""
        stay = self._stay(task)
        stay.level = min(stay.level + 1, len(self.quanta) - 1)
        stay.place = self._arrivals.tail(now)
        stay.used = 0.0
        stay.since = now

    def _stay(self, task: QueuedTask) -> _Stay:
        stay: _Stay | None = task.mark
        if stay is None:
            task.mark = stay = _Stay(self._epoch, task.rank)
        elif stay.epoch != self._epoch:  # all have been boosted since; those that ran find out now
            stay.epoch = self._epoch
            stay.level = 0
            stay.used = 0.0
            stay.since = max(stay.since, self._boosted_at)
        return stay

    # -------------------------------------------------------------------------------------- the boost

    def next_tick(self) -> float | None:
        """The next boost."""
        return self._next

    def tick(self, now: float) -> Iterable[Hashable]:
        """All go back to the top."""
        if self.boost is None:
            return ()
        ended = self._epoch
        self._epoch += 1
        self._boosted_at = now
        self._next = now + self.boost
        return [(ended, level) for level in range(1, len(self.quanta))]

    def __repr__(self) -> str:
        quanta = ", ".join(f"{quantum:g}" for quantum in self.quanta)
        boost = None if self.boost is None else f"{self.boost:g}"
        return f"MultiLevelFeedback(quantum=[{quanta}], boost={boost})"


def _quanta(levels: object, quantum: object) -> tuple[float, ...]:
    """The quantum of each level."""
    if isinstance(quantum, Sequence) and not isinstance(quantum, (str, bytes)):
        if not 1 <= len(quantum) <= _MOST_LEVELS:
            raise ConfigError("quantum", quantum, f"the quanta of 1 to {_MOST_LEVELS} levels are needed")
        if levels is not None and count("levels", levels, _MOST_LEVELS) != len(quantum):
            raise ConfigError("levels", levels, f"there are quanta for {len(quantum)}")
        return tuple(seconds(f"quantum[{index}]", value) for index, value in enumerate(quantum))
    number = 4 if levels is None else count("levels", levels, _MOST_LEVELS)
    base = seconds("quantum", quantum)
    return tuple(min(LONGEST, base * 2**level) for level in range(number))
