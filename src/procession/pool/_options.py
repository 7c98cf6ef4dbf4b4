"""Checks of what callers of a pool say per call."""

from __future__ import annotations

from procession._core.backoff import RetryPolicy, duration
from procession._fields import check_name
from procession.errors import ConfigError


def pool_name(value: object) -> str:
    """A name fit for records and logs.

    Raises:
        ConfigError: it is none.
    """
    try:
        return check_name(value)
    except ValueError as error:
        raise ConfigError("name", value, str(error)) from None


def seconds_or_none(field: str, value: object) -> float | None:
    """A timeout.

    Raises:
        ConfigError: it is no duration.
    """
    return None if value is None else duration(field, value)


def retries_of(value: object) -> int | RetryPolicy:
    """How often something is tried again.

    Raises:
        ConfigError: it is neither a number nor a policy.
    """
    if isinstance(value, RetryPolicy):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError("retries", value, "a whole number, 0 or more, or a RetryPolicy is needed")
    return value


def priority_of(value: object, low: int | None = None, high: int | None = None) -> int:
    """How urgent something is; the smaller number goes first.

    Raises:
        ConfigError: it is no whole number, or outside its range.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError("priority", value, "a Priority or another whole number is needed")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ConfigError("priority", value, f"a whole number from {low} to {high} is needed")
    return value


def count(field: str, value: object, least: int = 1) -> int:
    """A whole number.

    Raises:
        ConfigError: it is none, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(field, value, f"a whole number, {least} or more, is needed")
    return value
