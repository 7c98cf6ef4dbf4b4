"""What a scheduler offers for recurring tasks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from procession._core.backoff import duration
from procession._types import Completed, Priority
from procession.command import Command
from procession.scheduler._recurrence import Cron, Interval
from procession.scheduler._recurring import Missed, Overlap, Recurring
from procession.scheduler._zone import zone_of

if TYPE_CHECKING:
    from procession.scheduler._recurring import Timetable
    from procession.scheduler._submission import TaskOptions

T = TypeVar("T")
_NORMAL = int(Priority.NORMAL)


class Recurs:
    """Part of :class:`Scheduler`: work that is run again and again."""

    _timetable: Timetable

    @overload
    def every(
        self,
        interval: float | str,
        work: Command,
        *,
        first_delay: float | str | None = ...,
        overlap: Overlap = ...,
        missed: Missed = ...,
        jitter: float | str = ...,
        priority: int = ...,
        resources: Mapping[str, float] | None = ...,
        **options: Unpack[TaskOptions],
    ) -> Recurring[Completed]: ...

    @overload
    def every(
        self,
        interval: float | str,
        work: Callable[..., Awaitable[T]],
        *args: Any,
        first_delay: float | str | None = ...,
        overlap: Overlap = ...,
        missed: Missed = ...,
        jitter: float | str = ...,
        priority: int = ...,
        resources: Mapping[str, float] | None = ...,
        **options: Unpack[TaskOptions],
    ) -> Recurring[T]: ...

    def every(
        self,
        interval: float | str,
        work: Any,
        *args: Any,
        first_delay: float | str | None = None,
        overlap: Overlap = "skip",
        missed: Missed = "once",
        jitter: float | str = 0.0,
        priority: int = _NORMAL,
        resources: Mapping[str, float] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Recurring[Any]:
        """Submits ``work`` again and again, at a fixed interval of loop time that does not drift.

        The n-th run is planned for the first plus n intervals, however long runs take. ``drain()`` does not wait for
        future runs; closing the scheduler ends them.

        Args:
            interval: seconds from one run to the next, at least 0.001, or text such as ``"1m30s"``.
            work: as for ``submit``; each run is in the context (``contextvars``) of this call.
            args: as for ``submit``.
            first_delay: seconds until the first run. Default: one interval.
            overlap: when a run is due and the last one is not over, ``"skip"`` leaves it out (counted in
                ``skipped``), ``"queue"`` submits it all the same, ``"replace"`` cancels the last one and submits it;
                the one cancelled may still be ending when the new one begins.
            missed: a run is missed when it cannot be submitted within a minute of its time, or within one interval
                if that is shorter. ``"once"``: however many are due, one run makes up for them all. ``"skip"``: none
                is made up for. What did not happen is counted in ``missed``.
            jitter: puts each run off by a random time of up to so many seconds, never beyond the next planned time.
            priority: as for ``submit``.
            resources: as for ``submit``.
            options: as for ``submit``, except ``after``, ``deadline``, ``delay`` and ``not_before``. ``id`` names
                the recurring task; its runs add their number.

        Returns:
            Its handle.

        Raises:
            ConfigError: a value was refused.
            InsufficientResources: it could never start.
            Closed: the scheduler was closed.
            StateError: it was not opened yet.
        """
        seconds = duration("interval", interval)
        delay = seconds if first_delay is None else duration("first_delay", first_delay)
        return self._timetable.make(
            "every",
            lambda now: Interval(seconds, now + delay),
            work,
            args,
            {**options, "priority": priority, "resources": resources},
            overlap=overlap,
            missed=missed,
            jitter=jitter,
        )

    @overload
    def cron(
        self,
        expression: str,
        work: Command,
        *,
        timezone: str | tzinfo | None = ...,
        overlap: Overlap = ...,
        missed: Missed = ...,
        jitter: float | str = ...,
        priority: int = ...,
        resources: Mapping[str, float] | None = ...,
        **options: Unpack[TaskOptions],
    ) -> Recurring[Completed]: ...

    @overload
    def cron(
        self,
        expression: str,
        work: Callable[..., Awaitable[T]],
        *args: Any,
        timezone: str | tzinfo | None = ...,
        overlap: Overlap = ...,
        missed: Missed = ...,
        jitter: float | str = ...,
        priority: int = ...,
        resources: Mapping[str, float] | None = ...,
        **options: Unpack[TaskOptions],
    ) -> Recurring[T]: ...

    def cron(
        self,
        expression: str,
        work: Any,
        *args: Any,
        timezone: str | tzinfo | None = None,
        overlap: Overlap = "skip",
        missed: Missed = "once",
        jitter: float | str = 0.0,
        priority: int = _NORMAL,
        resources: Mapping[str, float] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Recurring[Any]:
        """Submits ``work`` at the times of a crontab expression, by the wall clock. Needs ``procession[cron]``.

        Over daylight-saving time the rules are those of Debian's cron. Fixed times of day happen once a day: one
        that does not exist moves to the first minute after the gap, one that exists twice is the first of the two.
        Where the minute or the hour begins with ``*``, the clock is followed: a missing hour has no runs, a repeated
        one has them twice.

        When the wall clock is set, that is noticed within a minute. No planned time is run twice: set back, it has
        to pass the last planned time that was dealt with before anything runs again, unless it was set back by more
        than two days, which says that it was wrong before. Set forward, what lies between counts as missed.

        Args:
            expression: minute, hour, day of month, month, day of week, as in a crontab, or ``"@daily"`` and the like.
            work: as for ``submit``; each run is in the context (``contextvars``) of this call.
            args: as for ``submit``.
            timezone: whose clock is meant, ``"Europe/Berlin"`` for example. Default: that of this machine.
            overlap: as for :meth:`every`.
            missed: as for :meth:`every`; a run is missed when it cannot be submitted within a minute of its time.
            jitter: as for :meth:`every`.
            priority: as for ``submit``.
            resources: as for ``submit``.
            options: as for :meth:`every`.

        Returns:
            Its handle.

        Raises:
            ConfigError: a value was refused, or ``cronsim`` is not installed.
            InsufficientResources: it could never start.
            Closed: the scheduler was closed.
            StateError: it was not opened yet.
        """
        zone = zone_of(timezone)
        rule = Cron(expression, zone)
        return self._timetable.make(
            "cron",
            lambda _now: rule,
            work,
            args,
            {**options, "priority": priority, "resources": resources},
            overlap=overlap,
            missed=missed,
            jitter=jitter,
        )
