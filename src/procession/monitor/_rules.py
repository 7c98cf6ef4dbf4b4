"""When a condition becomes an alert, and when that is over. Pure: no clock, no loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from procession._core.backoff import duration
from procession._fields import check_name
from procession.errors import ConfigError
from procession.monitor._sample import Sample
from procession.monitor._words import AlertType, Severity

_MOST_FLAPS = 5
"""What keeps coming back has to stay away 2, 4, … 32 times as long as at first."""


class Phase(StrEnum):
    """Where a condition stands.

    ``CLEAR`` it does not hold. ``PENDING`` it holds, but not for long enough yet. ``RAISED`` there is an alert.
    ``CLEARING`` there is an alert, and it no longer holds, but not for long enough yet. ``SETTLED`` the alert was resolved
    by hand while it still held; it has to clear once before it counts again.
    """

    CLEAR = "clear"
    PENDING = "pending"
    RAISED = "raised"
    CLEARING = "clearing"
    SETTLED = "settled"


class Verdict(StrEnum):
    """What a decision asks for."""

    RAISE = "raise"
    RESOLVE = "resolve"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a condition has to hold, or be over, before that counts. Samples and seconds have both to be reached.

    Attributes:
        for_samples: samples in a row that raise it.
        for_seconds: seconds it has to hold, from the first of those samples on.
        clear_samples: samples in a row that resolve it.
        clear_seconds: seconds it has to be over.
        flap_window: seconds since the last resolution within which coming up again counts as flapping.
    """

    for_samples: int = 1
    for_seconds: float = 0.0
    clear_samples: int = 2
    clear_seconds: float = 0.0
    flap_window: float = 300.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one condition stands for one process.

    Attributes:
        phase: the phase.
        since: when the present run of equal answers began.
        hits: how long that run is, in samples.
        flaps: how often it has come back soon after it was over.
        resolved_at: when it was over last.
    """

    phase: Phase = Phase.CLEAR
    since: float = 0.0
    hits: int = 0
    flaps: int = 0
    resolved_at: float = -math.inf

    @property
    def is_raised(self) -> bool:
        """Whether there is an alert."""
        return self.phase is Phase.RAISED or self.phase is Phase.CLEARING


_RAISED = (Phase.RAISED, Phase.CLEARING)


def decide(standing: Standing, holds: bool | None, now: float, patience: Patience) -> tuple[Standing, Verdict | None]:
    """What one more sample means.

    Args:
        standing: where the condition stood.
        holds: whether it holds now; ``None`` when that cannot be known, which changes nothing.
        now: the time of the sample.
        patience: how long it takes.

    Returns:
        Where it stands now, and what is to be done.
    """
    phase = standing.phase
    if holds is None or (phase is Phase.CLEAR and not holds) or (phase is Phase.RAISED and holds):
        return standing, None
    if phase is Phase.CLEAR or phase is Phase.PENDING:
        return _rising(standing, holds, now, patience)
    if holds:  # it was about to clear
        back = Phase.SETTLED if phase is Phase.SETTLED else Phase.RAISED
        return Standing(back, now, 0, standing.flaps, standing.resolved_at), None
    return _falling(standing, now, patience)


def _rising(standing: Standing, holds: bool, now: float, patience: Patience) -> tuple[Standing, Verdict | None]:
    if not holds:
        return Standing(flaps=standing.flaps, resolved_at=standing.resolved_at), None
    hits = standing.hits + 1
    since = standing.since if standing.phase is Phase.PENDING else now
    if hits < patience.for_samples or now - since < patience.for_seconds:
        return Standing(Phase.PENDING, since, hits, standing.flaps, standing.resolved_at), None
    soon = now - standing.resolved_at <= patience.flap_window
    flaps = min(standing.flaps + 1, _MOST_FLAPS) if soon else 0
    return Standing(Phase.RAISED, now, 0, flaps, standing.resolved_at), Verdict.RAISE


def _falling(standing: Standing, now: float, patience: Patience) -> tuple[Standing, Verdict | None]:
    hits = standing.hits + 1
    since = standing.since if standing.hits else now
    more = 1 << standing.flaps
    settled = standing.phase is Phase.SETTLED
    if hits < patience.clear_samples * more or now - since < patience.clear_seconds * more:
        phase = Phase.SETTLED if settled else Phase.CLEARING
        return Standing(phase, since, hits, standing.flaps, standing.resolved_at), None
    if settled:
        return Standing(flaps=standing.flaps, resolved_at=standing.resolved_at), None
    return Standing(flaps=standing.flaps, resolved_at=now), Verdict.RESOLVE


def settled_by_hand(standing: Standing, now: float) -> Standing:
    """Its alert was resolved by hand."""
    return Standing(Phase.SETTLED, now, 0, standing.flaps, now) if standing.is_raised else standing


Predicate = Callable[[Sample], object]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A condition of your own: any predicate over the figures of one process.

    ::

        Rule("leak", lambda s: s.trend.memory_slope_mb_per_hour > 50, for_seconds=60)

    The predicate is called on the loop with every sample of every process the rule is for; it has to be quick. What it
    returns is taken as true or false, ``None`` as "cannot be known", which changes nothing. When it raises, that is
    counted and logged, and taken as ``None``.

    Attributes:
        name: what alerts call it: letters, digits, ``.``, ``_`` and ``-``.
        when: the predicate.
        for_samples: samples in a row it has to hold. Default 1.
        for_seconds: seconds it has to hold. Default 0.
        severity: of its alerts. Default warning.
        clear_when: what has to hold for the alert to be over. Default: that ``when`` does not. With a lower bound than
            that of ``when``, an alert does not come and go around the limit.
        clear_samples: samples in a row it has to be over. Default 2.
        clear_seconds: seconds it has to be over. Default 0.
        message: what alerts say: text, or a function of the sample. Default: made from the name.
        callbacks: a function or action, or several, called with each alert of this rule like those of ``monitor.on_alert``.
        type: what alerts are about.
        ids: only for the processes watched under these ids. Default: all.
        owner: only for the processes of this owner.
        label: only for processes with this label, ``"key"`` or ``("key", "value")``.
    """

    name: str
    when: Predicate
    for_samples: int = 1
    for_seconds: float = 0.0
    severity: Severity = Severity.WARNING
    clear_when: Predicate | None = None
    clear_samples: int = 2
    clear_seconds: float = 0.0
    message: str | Callable[[Sample], str] = ""
    callbacks: Any = ()
    type: AlertType = AlertType.RULE
    ids: Collection[str] | None = None
    owner: str | None = None
    label: str | tuple[str, str] | None = None

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        name_of("name", self.name)
        if not callable(self.when):
            raise ConfigError("when", self.when, "a function of one sample is needed")
        if self.clear_when is not None and not callable(self.clear_when):
            raise ConfigError("clear_when", self.clear_when, "a function of one sample is needed")
        for field in ("for_samples", "clear_samples"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(field, value, "a whole number, 1 or more, is needed")
        for field in ("for_seconds", "clear_seconds"):
            set_field(self, field, duration(field, getattr(self, field)))
        set_field(self, "severity", severity_of(self.severity))
        if not isinstance(self.message, str) and not callable(self.message):
            raise ConfigError("message", self.message, "text, or a function of one sample, is needed")
        try:
            set_field(self, "type", AlertType(self.type))
        except ValueError:
            raise ConfigError("type", self.type, "one of " + ", ".join(AlertType) + " is needed") from None
        callbacks = self.callbacks if isinstance(self.callbacks, (tuple, list)) else (self.callbacks,)
        for callback in callbacks:
            check_responder("callbacks", callback)
        set_field(self, "callbacks", tuple(callbacks))
        if self.ids is not None:
            given: object = self.ids
            if isinstance(given, str) or not isinstance(given, Collection):
                raise ConfigError("ids", self.ids, "a set of ids is needed")
            set_field(self, "ids", frozenset(self.ids))

    @property
    def patience(self) -> Patience:
        """How long it takes."""
        return Patience(self.for_samples, self.for_seconds, self.clear_samples, self.clear_seconds)


def name_of(field: str, value: object) -> str:
    """Checks a name.

    Raises:
        ConfigError: it is none.
    """
    try:
        return check_name(value)
    except ValueError as error:
        raise ConfigError(field, value, str(error)) from None


def check_responder(field: str, value: object) -> None:
    """Makes sure that something can be told of an alert: a function, or an action.

    Raises:
        ConfigError: it is neither.
    """
    if not callable(value if not hasattr(value, "run") else value.run):
        raise ConfigError(field, value, "a function of one alert is needed, or one of procession.monitor.actions")


def severity_of(value: object) -> Severity:
    """Reads a severity.

    Raises:
        ConfigError: it is none.
    """
    try:
        return Severity(value)  # type: ignore[arg-type]
    except ValueError:
        raise ConfigError("severity", value, "one of " + ", ".join(Severity) + " is needed") from None
