"""The places of a pool: who stands where, who is worn out, who is to start or to go. Pure: ``now`` is an argument."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from procession._core.machine import Machine, Transitions


class SlotState(StrEnum):
    """Where a worker of a pool stands."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    STOPPING = "stopping"
    FAILED = "failed"
    TERMINATED = "terminated"


SLOT_MOVES: Transitions[SlotState] = Transitions(
    initial=SlotState.STARTING,
    final=(SlotState.TERMINATED,),
    moves={
        SlotState.STARTING: (SlotState.IDLE, SlotState.STOPPING, SlotState.FAILED),
        SlotState.IDLE: (SlotState.BUSY, SlotState.STOPPING, SlotState.FAILED),
        SlotState.BUSY: (SlotState.IDLE, SlotState.STOPPING, SlotState.FAILED),
        SlotState.STOPPING: (SlotState.TERMINATED,),
        SlotState.FAILED: (SlotState.TERMINATED,),
    },
)
"""Every move a worker can make; anything else raises ``InvalidTransition``."""

_STARTING, _IDLE, _BUSY = SlotState.STARTING, SlotState.IDLE, SlotState.BUSY
_READY = frozenset({_IDLE, _BUSY})
_ALIVE = frozenset({_STARTING, _IDLE, _BUSY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Wear:
    """When a worker is replaced.

    Attributes:
        max_uses: calls or leases after which it is.
        max_memory: bytes it may grow by, beyond what it had when it became ready.
        idle_timeout: seconds of idleness after which one above the minimum goes.
    """

    max_uses: int | None = None
    max_memory: int | None = None
    idle_timeout: float | None = None


@dataclass(slots=True, eq=False)
class Slot:
    """One worker's place.

    Attributes:
        id: the worker's id.
        began: when its start began.
        ready_at: when it became ready.
        idle_since: since when it has been idle.
        expires: when it is too old.
        uses: calls or leases it has been given.
        baseline: bytes of memory when it became ready.
        memory: bytes of memory when last measured.
        retiring: why it is to be replaced, or empty.
        strict: whether it must not be used again, though its replacement is not ready.
        survived: calls or leases that ended well, for telling a crash storm from a single crash.
        pid: its process, once there is one.
    """

    id: str
    began: float
    machine: Machine[SlotState] = field(init=False)
    ready_at: float = 0.0
    idle_since: float = 0.0
    expires: float | None = None
    uses: int = 0
    baseline: int = 0
    memory: int = 0
    retiring: str = ""
    strict: bool = False
    survived: int = 0
    pid: int | None = None

    def __post_init__(self) -> None:
        self.machine = Machine(self.id, SLOT_MOVES)

    @property
    def state(self) -> SlotState:
        """Where it stands."""
        return self.machine.state

    def untake(self) -> None:
        """A use was taken back before it began."""
        self.uses -= 1
        if self.retiring == "max_uses":
            self.strict = False

    def worn(self, wear: Wear, now: float) -> str:
        """Why it should be replaced; empty when it should not."""
        if wear.max_uses is not None and self.uses >= wear.max_uses - wear.max_uses // 20:
            return "max_uses"  # a little early, so that the next one is ready when it may not be used any more
        if self.expires is not None and now >= self.expires:
            return "max_lifetime"
        if wear.max_memory is not None and self.memory - self.baseline > wear.max_memory:
            return "max_memory"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """One worker at one moment.

    Attributes:
        id: the worker's id.
        pid: its process id; ``None`` before there is a process.
        state: where it stands.
        uses: calls or leases it has been given.
        retiring: why it is to be replaced, or empty.
    """

    id: str
    pid: int | None
    state: SlotState
    uses: int
    retiring: str


@dataclass(frozen=True, slots=True)
class Staffing:
    """What is to be done: so many to start, these to stop."""

    start: int
    stop: tuple[Slot, ...]


class Roster:
    """All places of one pool. Numbers are derived from the states, never counted beside them.

    Args:
        least: how many there always are.
        most: how many there are at most. A replacement may stand beside the one it replaces for a while.
        wear: when a worker is replaced.
    """

    def __init__(self, least: int, most: int, wear: Wear) -> None:
        self.least = least
        self.most = most
        self.wear = wear
        self.target = least
        self.slots: dict[str, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots.values())

    def look_around(self) -> tuple[WorkerInfo, ...]:
        """All of them as they are now, the oldest first."""
        return tuple(
            WorkerInfo(id=slot.id, pid=slot.pid, state=slot.state, uses=slot.uses, retiring=slot.retiring)
            for slot in self
        )

    def count(self, *states: SlotState) -> int:
        """How many stand in one of ``states``."""
        return sum(slot.machine.state in states for slot in self.slots.values())

    @property
    def size(self) -> int:
        """How many work or are about to, those that are being replaced not counted."""
        return sum(slot.machine.state in _ALIVE and not slot.retiring for slot in self.slots.values())

    @property
    def ready(self) -> int:
        """How many can take work or have some."""
        return sum(slot.machine.state in _READY and not slot.strict for slot in self.slots.values())

    def aim(self, target: int) -> int:
        """Sets how many there shall be, between least and most, and returns that."""
        self.target = max(self.least, min(self.most, target))
        return self.target

    def add(self, id: str, now: float) -> Slot:
        """A start begins."""
        slot = self.slots[id] = Slot(id, now)
        return slot

    def became_ready(self, slot: Slot, now: float, memory: int, lifetime: float | None) -> None:
        """It has started; ``lifetime`` is how long it may live, jitter included."""
        slot.machine.to(_IDLE, "ready")
        slot.ready_at = slot.idle_since = now
        slot.baseline = slot.memory = memory
        slot.expires = None if lifetime is None else now + lifetime

    def take(self, slot: Slot) -> None:
        """Work goes to it."""
        slot.machine.to(_BUSY)

    def give_back(self, slot: Slot, now: float) -> None:
        """It has no work any more."""
        slot.machine.to(_IDLE)
        slot.idle_since = now
        self.look(slot, now)

    def look(self, slot: Slot, now: float) -> None:
        """Marks it as to be replaced when it is worn out."""
        if slot.strict:
            return
        most = self.wear.max_uses
        if most is not None and slot.uses >= most:
            self.retire(slot, "max_uses", strict=True)
        elif why := slot.worn(self.wear, now):
            self.retire(slot, why, strict=False)

    def retire(self, slot: Slot, why: str, *, strict: bool) -> None:
        """It is to be replaced."""
        slot.retiring = slot.retiring or why
        slot.strict = slot.strict or strict

    def remove(self, slot: Slot) -> None:
        """It is gone."""
        slot.machine.to(SlotState.TERMINATED)
        del self.slots[slot.id]

    def staffing(self, now: float) -> Staffing:
        """What has to be done so that there are as many as there shall be.

        Idle ones go when they are worn out and enough others are ready, or must not be used again; when there are
        more than there shall be, the longest idle first; and one that has been idle for too long goes too, which
        lowers the aim, but never below the least. Busy ones get nothing more to do when they are worn out and
        another stands ready in their place, or when there are too many of them.
        """
        start = max(0, self.target - self.size)
        idle = sorted((slot for slot in self if slot.state is _IDLE), key=lambda slot: slot.idle_since)
        stop: list[Slot] = []
        ready = self.ready
        for slot in idle:
            if slot.strict:
                stop.append(slot)
            elif slot.retiring and (ready > max(self.least, 1) or not self.target):
                stop.append(slot)
                ready -= 1
        surplus = self.size - self.target
        timeout = self.wear.idle_timeout
        for slot in idle:
            if slot.retiring or slot.strict or ready <= self.least:
                continue
            if surplus > 0:
                surplus -= 1
            elif timeout is not None and now - slot.idle_since >= timeout and self.target > self.least:
                self.target -= 1
            else:
                continue
            ready -= 1
            stop.append(slot)
        surplus -= self.count(_STARTING)
        for slot in self:
            if slot.machine.state is not _BUSY or slot.strict:
                continue
            if slot.retiring and ready > max(self.target, 1):
                slot.strict = True
                ready -= 1
            elif not slot.retiring and surplus > 0:
                self.retire(slot, "surplus", strict=True)
                surplus -= 1
                ready -= 1
        return Staffing(start, tuple(stop))

    def next_look(self) -> float | None:
        """When an idle worker will have been idle for too long, or the next will be too old; ``None`` for never."""
        times = [slot.expires for slot in self if slot.expires is not None and not slot.retiring]
        timeout = self.wear.idle_timeout
        if timeout is not None and self.target > self.least:
            times += [slot.idle_since + timeout for slot in self if slot.state is _IDLE]
        return min(times, default=None)
