"""What is due first goes first; and, if wanted, nothing is accepted that is sure to be late."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING

from procession.errors import ConfigError, DeadlineMissed
from procession.scheduler._policies._base import BEYOND, NANO, Policy
from procession.scheduler._policies._check import count
from procession.scheduler._policies._demand import Demand, Item

if TYPE_CHECKING:
    from procession.abc import QueuedTask

_DUE, _WHENEVER = 0, 1
_END_OF_TIME = BEYOND // NANO


class _Claim:
    """The work of an accepted task.

    Attributes:
        item: what is due when, all of it or what is left after a suspension.
        whole: the work of a run from the beginning.
        end: when it will be over, while it runs; else ``None``.
        left: how much there is to do after a suspension.
    """

    __slots__ = ("end", "item", "left", "whole")

    def __init__(self, item: Item) -> None:
        self.item = item
        self.whole = self.left = item[2]
        self.end: int | None = None


class EarliestDeadline(Policy):
    """Earliest deadline first; tasks without one come after all others, in order of arrival.

    A task whose deadline passes while it waits is dropped by the scheduler with ``DeadlineMissed`` and never started.

    With ``admission``, a task that has a deadline and an estimate is refused when it is submitted if its work cannot be
    over by its deadline: because it is too long; because, together with the accepted work that is due no later, it is
    more than all slots can do until then; or because it would be too much for the deadline of an accepted task that
    comes after it. Accepted work is that of tasks with both a deadline and an estimate, whether they wait, run, are
    suspended, or are still held back by a delay or by others; of what runs, the rest. For one slot and true estimates
    that is exact but for work already begun that is due later or never. For several it refuses only what is sure to
    be late, and may accept what is not sure to be in time. While accepted work is late already, nothing is accepted that
    would go before it.

    Liu and Layland, *Scheduling algorithms for multiprogramming in a hard-real-time environment* (JACM 20(1), 1973);
    the test is the processor demand of Baruah, Rosier and Howell (Real-Time Systems 2, 1990).

    A test looks at what runs and, of ``n`` tasks accepted, at ``n / 256`` sums and the tasks of a few of them; taking
    note of one looks at 256 at most. Without ``admission`` nothing is kept.

    Args:
        admission: whether to refuse what would be late. Default no.
        slots: how many tasks run at a time. Default: as many as the scheduler has.

    Raises:
        ConfigError: an argument is not of that kind.
    """

    def __init__(self, admission: bool = False, slots: int | None = None) -> None:
        if not isinstance(admission, bool):
            raise ConfigError("admission", admission, "True or False is needed")
        if slots is not None:
            count("slots", slots, 1_000_000)
        self.admission = admission
        self.slots = slots
        self._slots = slots or 1
        self._demand = Demand(self._slots)
        self._outside: dict[int, _Claim] = {}
        """Claims of tasks that run, or have stopped and not come back, by number."""

    def fresh(self, slots: int) -> EarliestDeadline:
        """One that has accepted nothing yet, for as many slots as it was made for, or the scheduler has."""
        return EarliestDeadline(self.admission, self.slots or slots)

    # -------------------------------------------------------------------------------------- the order

    def group(self, task: QueuedTask) -> Hashable:
        """Whether it has a deadline that is ever to come."""
        return _DUE if task.deadline is not None and task.deadline < _END_OF_TIME else _WHENEVER

    def offset(self, group: Hashable) -> int:
        """Those that are due go before the others."""
        return 0 if group == _DUE else BEYOND

    def rank(self, task: QueuedTask, now: int) -> int:
        """Its deadline, or when it came."""
        return now if task.deadline is None or self.group(task) == _WHENEVER else int(task.deadline * NANO)

    # ---------------------------------------------------------------------------------- the admission

    def admit(self, task: QueuedTask, now: float) -> None:
        """Accepts its work, or refuses it.

        Raises:
            DeadlineMissed: it would be late, or make others late; ``late`` says by how much.
        """
        if not self.admission or task.deadline is None or task.estimate is None or self.group(task) == _WHENEVER:
            return
        due, work, instant = int(task.deadline * NANO), int(min(task.estimate, _END_OF_TIME) * NANO), int(now * NANO)
        outside = sorted(self._rest(claim, instant) for claim in self._outside.values())
        late = max(instant + work - due, -(-self._demand.excess(instant, due, work, outside) // self._slots))
        if late > 0:
            raise DeadlineMissed(task.id, task.deadline, late / NANO, "admission")
        task.mark = claim = _Claim((due, task.number, work))
        self._demand.add(claim.item)

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """What comes back has less to do if it was suspended, and all of it otherwise."""
        claim = self._outside.pop(task.number, None)
        if claim is not None:
            due, number, _ = claim.item
            if task.state != "suspended":
                claim.left = claim.whole
            claim.item = (due, number, claim.left)
            self._demand.add(claim.item)
        return ()

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """From now on its work grows less."""
        claim: _Claim | None = task.mark
        if claim is not None:
            self._demand.remove(claim.item)
            self._outside[task.number] = claim
            claim.end = int(now * NANO) + claim.left
        return ()

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        """Whether it has to begin again is not known yet; until it is, all of its work counts."""
        claim: _Claim | None = task.mark
        if claim is not None:
            assert claim.end is not None
            claim.left = max(0, claim.end - int(now * NANO))
            claim.end = None
        return ()

    def settled(self, task: QueuedTask, now: float) -> None:
        """Its work is no more."""
        claim: _Claim | None = task.mark
        if claim is not None:
            task.mark = None
            if self._outside.pop(task.number, None) is None:
                self._demand.remove(claim.item)

    @staticmethod
    def _rest(claim: _Claim, instant: int) -> Item:
        due, number, _ = claim.item
        return due, number, claim.whole if claim.end is None else max(0, claim.end - instant)

    def __repr__(self) -> str:
        return f"EarliestDeadline(admission=True, slots={self.slots})" if self.admission else "EarliestDeadline()"
