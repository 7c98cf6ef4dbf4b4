"""When a recurring task is due: pure functions of the time it was planned for last and of now.

An interval counts loop time, a cron expression wall time. Neither looks at a clock; ``now`` is always given.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial

from procession.errors import ConfigError

_GRACE = 60.0
_DAY = 86400
_FAR = 2 * _DAY
_MOST_COUNTED = 1000
_SHORTEST = 0.001
_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = "five fields are needed: minute, hour, day of month, month, day of week; for example '*/5 * * * *'"
_NO_OFFSET = timedelta()
_SOME_DAY = 946_684_800.0  # 2000-01-01: from when on it is tried whether an expression is ever due


@dataclass(frozen=True, slots=True)
class Plan:
    """What comes after a planned time.

    Attributes:
        at: the next planned time, later than both the one before and now; ``None``: never again.
        missed: how many planned times lie between the one before and now.
    """

    at: float | None
    missed: int


class Interval:
    """Planned at ``first + n * every``, whatever happens in between, so that nothing drifts.

    Args:
        every: seconds from one to the next.
        first: loop time of the first.

    Attributes:
        grace: seconds by which a run may come late before it counts as missed: a minute, or one interval.

    Raises:
        ConfigError: ``every`` is less than a millisecond.
    """

    __slots__ = ("every", "first", "grace")

    def __init__(self, every: float, first: float) -> None:
        if not _SHORTEST <= every < math.inf:
            raise ConfigError("interval", every, f"a finite time of at least {_SHORTEST:g} s is needed")
        self.every: float = every
        self.first: float = first
        self.grace: float = min(every, _GRACE)

    def following(self, planned: float, now: float) -> Plan:
        """What comes after ``planned``."""
        index = round((planned - self.first) / self.every)
        reached = math.floor((now - self.first) / self.every)  # one too many at most: the quotient is rounded
        begin = max(index + 1, reached)
        number = next(n for n in itertools.count(begin) if self.first + n * self.every > now)
        return Plan(self.first + number * self.every, number - index - 1)

    def __str__(self) -> str:
        return f"every {self.every:g} s"


class Cron:
    """Planned by the clock on the wall, as Debian's cron does it, which ``cronsim`` follows.

    Over a change of the clock:

    - Fixed times of day (neither minute nor hour begins with ``*``) happen once a day. One that is left out when the
      clock goes forward is planned for the first minute after the gap; one that is passed twice when the clock goes
      back is planned for the first of the two.
    - All others (``*/5 * * * *``, ``0 * * * *``) follow the clock: what is left out does not happen, what is passed
      twice happens twice. So ``*/5`` is every five minutes, all the time.

    Args:
        expression: five fields, as in a crontab, or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly``, ``@yearly``.
        zone: whose clock is meant.

    Attributes:
        grace: seconds by which a run may come late before it counts as missed: a minute.

    Raises:
        ConfigError: it is no expression, it is never due, or ``cronsim`` is not installed.
    """

    __slots__ = ("_is_fixed", "_simulate", "expression", "grace", "zone")

    def __init__(self, expression: str, zone: tzinfo) -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ImportError:
            raise ConfigError("expression", expression, "cron needs cronsim: pip install procession[cron]") from None
        if not isinstance(expression, str):
            raise ConfigError("expression", expression, _FIELDS)
        text = _NICKNAMES.get(expression.strip().lower(), expression)
        if len(text.split()) != 5:  # cronsim reads seconds, too, by rules of their own; every() is there for those
            raise ConfigError("expression", expression, _FIELDS)
        self.expression: str = expression
        self.zone: tzinfo = zone
        self.grace: float = _GRACE
        self._is_fixed = not any(part.startswith("*") for part in text.split()[:2])
        self._simulate: Callable[[datetime], Iterator[datetime]] = partial(CronSim, text)
        try:
            self._simulate(datetime.fromtimestamp(_SOME_DAY, zone))
        except CronSimError as error:
            raise ConfigError("expression", expression, f"{str(error).lower()}; {_FIELDS}") from None
        except (AssertionError, TypeError, ValueError):  # of a few combinations it has not thought of
            raise ConfigError("expression", expression, _FIELDS) from None
        if self.after(_SOME_DAY) is None:
            raise ConfigError("expression", expression, "there is no such day within fifty years")

    def after(self, moment: float) -> float | None:
        """The first planned time later than ``moment``, in seconds since the epoch; ``None``: never."""
        return next(self._times(moment), None)

    def following(self, planned: float, now: float) -> Plan:
        """What comes after ``planned``; at most 1,000 missed times are counted, so that a leap of years costs little."""
        missed = 0
        for at in self._times(planned):
            if at > now:
                return Plan(at, missed)
            missed += 1
            if missed == _MOST_COUNTED:
                return Plan(self.after(now), missed)
        return Plan(None, missed)

    def replanned(self, handled: float | None, now: float) -> float | None:
        """The next planned time after the clock was set back to ``now``.

        No planned time comes twice: up to ``handled``, the last one that was dealt with, nothing is planned. When
        that lies more than two days ahead, the clock was plainly wrong before, and planning begins anew.
        """
        if handled is None or handled - now > _FAR:
            return self.after(now)
        return self.after(max(handled, now))

    def _times(self, moment: float) -> Iterator[float]:
        """All planned times later than ``moment``, each once."""
        try:
            yield from self._fixed_times(moment) if self._is_fixed else self._starred_times(math.floor(moment))
        except (OverflowError, ValueError, OSError):
            return  # beyond the years that datetime knows

    def _fixed_times(self, moment: float) -> Iterator[float]:
        last = moment
        for found in self._simulate(datetime.fromtimestamp(moment, self.zone)):
            at = found.timestamp()
            if at > last:  # it returns to the first of two passes, and tells the end of a gap repeatedly
                last = at
                yield at

    def _starred_times(self, begin: int) -> Iterator[float]:
        """Of one stretch after the other in which the clock runs evenly, so cronsim need not know of its changes.

        Left to itself it loses times where a clock goes forward at midnight, or by half an hour.
        """
        while True:
            offset, limit = self._stretch(begin + 1)
            local = datetime.fromtimestamp(begin, UTC).replace(tzinfo=None) + offset
            is_empty = True
            for found in self._simulate(local):
                at = begin + (found - local).total_seconds()
                if at >= limit:
                    break
                is_empty = False
                yield at
            else:
                return
            if is_empty and self._offset(limit) == offset:
                # No clock shows what was found two days before that, and none goes back by the day that was empty.
                limit = max(limit, math.floor(at) - 2 * _DAY)
            begin = limit - 1

    def _stretch(self, begin: int) -> tuple[timedelta, int]:
        """The offset at ``begin``, and until when it stays so: a day at most."""
        offset, same, other = self._offset(begin), begin, begin - 1 + _DAY
        if self._offset(other) == offset:
            return offset, other
        while other - same > 1:
            middle = (same + other) // 2
            if self._offset(middle) == offset:
                same = middle
            else:
                other = middle
        return offset, other

    def _offset(self, moment: int) -> timedelta:
        return datetime.fromtimestamp(moment, self.zone).utcoffset() or _NO_OFFSET

    def __str__(self) -> str:
        return f"cron {self.expression!r} in {self.zone}"


Recurrence = Interval | Cron
