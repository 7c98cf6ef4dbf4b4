"""What the constructors of policies accept."""

from __future__ import annotations

from procession.errors import ConfigError

SHORTEST = 0.001
"""Seconds: less than that between two decisions would be spent on deciding, and might not move the clock at all."""
LONGEST = 1e9


def number(field: str, value: object, least: float, most: float, what: str) -> float:
    """A finite number within bounds.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise ConfigError(field, value, f"{what} from {least:g} to {most:g} is needed")
    return value


def seconds(field: str, value: object) -> float:
    """A length of time.

    Raises:
        ConfigError: it is none, or too short or too long to be meant.
    """
    return number(field, value, SHORTEST, LONGEST, "a number of seconds")


def count(field: str, value: object, most: int) -> int:
    """A whole number from 1 on.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ConfigError(field, value, f"a whole number from 1 to {most} is needed")
    return value
