"""Facts, as the registry tells them: immutable, numbered, with two clocks and a cause.

Whoever publishes fills in what happened; the registry stamps ``seq``, ``at``, ``wall`` and ``cause``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from procession._types import Containment, Exit, StopReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event carries.

    Attributes:
        id: whom it is about: a process, task, unit or pool.
        owner: the module or program part that owns it; empty when nobody claims it.
        seq: 1, 2, 3 … in the order of publication; 0 before it is published.
        at: loop time of publication, in seconds.
        wall: the same as seconds since the epoch; for display only.
        cause: ``seq`` of the event that brought this one about, or 0.
    """

    id: str
    owner: str = ""
    seq: int = 0
    at: float = 0.0
    wall: float = 0.0
    cause: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Event):
    """In a subscriber's stream: ``missed`` events were dropped here because it did not keep up."""

    missed: int


# ----------------------------------------------------------------------------------------- process


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpawned(Event):
    """A process was started or adopted. ``command`` is fit for display: secrets are masked."""

    pid: int
    name: str
    command: str
    containment: Containment
    adopted: bool = False
    duration: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExited(Event):
    """A process ended; there is exactly one per process."""

    pid: int
    exit: Exit
    uptime: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStopped(Event):
    """A stop of a process and its tree is over; ``report`` proves what was done, escaped and survived."""

    report: StopReport


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChanged(Event):
    """A process, task or unit moved from ``old`` to ``new``."""

    old: str
    new: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(Event):
    """A probe changed its mind."""

    probe: str
    healthy: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeChecked(Event):
    """A probe gave an answer, the same as before or not, after ``duration`` seconds."""

    probe: str
    healthy: bool
    duration: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartScheduled(Event):
    """It will be started again after ``delay`` seconds, for the ``attempt``-th time."""

    attempt: int
    delay: float
    reason: str = ""


# ----------------------------------------------------------------------------- monitor and recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSampled(Event):
    """Figures of one process at one moment, by name."""

    pid: int
    figures: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRaised(Event):
    """A condition holds that somebody wanted to know of.

    ``alert`` is the id of the alert, ``kind`` its type, for example ``"cpu_high"``; ``count`` tells how often the
    condition has come up.
    """

    alert: str
    severity: str
    message: str = ""
    kind: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertResolved(Event):
    """The condition has passed; ``duration`` is how long it held, in seconds.

    ``how`` is ``"cleared"``, ``"by hand"``, ``"ended"`` (with the process) or ``"recovered"`` (it runs again).
    """

    alert: str
    severity: str
    duration: float = 0.0
    kind: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionTaken(Event):
    """An alert was answered by an action; ``detail`` says what went wrong when it is not ``ok``."""

    action: str
    alert: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessVanished(Event):
    """A watched process that nobody here owns is gone, or its pid belongs to somebody else by now."""

    pid: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingStretched(Event):
    """A round of sampling cost more than its budget: ``cost`` seconds. The next ones come every ``interval`` seconds."""

    cost: float
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReported(Event):
    """Something failed, of the given kind, and whoever owns it has done what it could: it is left to others now.

    Who restarts a process by a policy of its own says this only when the policy has given up.
    """

    kind: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryStarted(Event):
    """A recovery began."""

    strategy: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryAttempted(Event):
    """An attempt of a recovery is over after ``duration`` seconds; ``ok`` tells whether it has done its work."""

    strategy: str
    attempt: int
    ok: bool
    duration: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryFinished(Event):
    """A recovery ended."""

    strategy: str
    attempt: int
    recovered: bool
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitChanged(Event):
    """A circuit breaker moved."""

    old: str
    new: str
    reason: str = ""


# -------------------------------------------------------------------------------- pool and scheduler


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLeased(Event):
    """A worker was handed out after ``waited`` seconds."""

    pool: str
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReleased(Event):
    """A worker came back after ``held`` seconds."""

    pool: str
    held: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFinished(Event):
    """A pool answered a call ``duration`` seconds after it was made; ``ok`` tells whether with a value."""

    pool: str
    ok: bool
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolScaled(Event):
    """A pool changed its size."""

    old: int
    new: int
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSubmitted(Event):
    """Work was accepted."""

    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(Event):
    """Work began after ``waited`` seconds in the queue."""

    attempt: int
    waited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPreempted(Event):
    """Work made room for something more urgent."""

    by: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResumed(Event):
    """Work that was suspended goes on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRetried(Event):
    """Work failed and will be tried again after ``delay`` seconds."""

    attempt: int
    delay: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFinished(Event):
    """Work reached its fate."""

    outcome: str
    duration: float


# ------------------------------------------------------------------------------------- coordination


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderChanged(Event):
    """Somebody leads, with fencing token ``token``; ``leader`` is empty when nobody does."""

    leader: str
    token: int
