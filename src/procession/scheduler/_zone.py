"""Time zones by name, and the one of this machine, over changes of the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from procession.errors import ConfigError

_HINT = "a name such as 'Europe/Berlin' or a tzinfo is needed; a system without zone files needs `pip install tzdata`"


class LocalZone(tzinfo):
    """The time zone of this machine.

    ``datetime.astimezone()`` alone gives the offset of one moment, which is wrong half a year later; so every moment
    is asked for anew.
    """

    def utcoffset(self, moment: datetime | None) -> timedelta | None:
        """The offset at ``moment``, whose ``fold`` tells the two passes of an hour apart."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().utcoffset()

    def dst(self, moment: datetime | None) -> timedelta | None:  # noqa: ARG002 - as tzinfo has it
        """Not known, and not needed."""
        return None

    def tzname(self, moment: datetime | None) -> str | None:
        """What the system calls it."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime) -> datetime:
        """``moment``, which is UTC, by the local clock."""
        since = moment.replace(tzinfo=UTC).timestamp()
        return datetime.fromtimestamp(since).replace(tzinfo=self)  # noqa: DTZ006 - local time is what is wanted

    def __str__(self) -> str:
        return "local time"


def zone_of(timezone: object) -> tzinfo:
    """Reads a time zone: a name, a ``tzinfo``, or ``None`` for local time.

    Raises:
        ConfigError: there is no such zone here.
    """
    if timezone is None:
        return LocalZone()
    if isinstance(timezone, tzinfo):
        return timezone
    if not isinstance(timezone, str):
        raise ConfigError("timezone", timezone, _HINT)
    try:
        return ZoneInfo(timezone)
    except (LookupError, ValueError, OSError):  # unknown; no name at all; a folder of zones, or unreadable
        raise ConfigError("timezone", timezone, _HINT) from None
