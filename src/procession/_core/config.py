"""The base of every validated description: frozen, closed to unknown fields, one typed error."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from procession.errors import ConfigError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")

_PRIVATE = frozenset({"env"})
"""Fields whose values are never shown, not even when they are refused."""

MASK = "***"

M = TypeVar("M", bound="Config")


def seconds(value: object) -> float:
    """Reads a duration: a number of seconds, or text such as ``"1m30s"`` or ``"250ms"``.

    Raises:
        ValueError: it is neither, is negative, or is not finite.
    """
    if isinstance(value, str):
        text = value.replace(" ", "")
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError('a duration is seconds, or text such as "1m30s" or "250ms"')
        return float(sum(float(number) * _UNITS[unit] for number, unit in parts))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError('a duration is seconds, or text such as "1m30s" or "250ms"')
    if not math.isfinite(value) or value < 0:
        raise ValueError("a duration is a finite number of seconds, 0 or more")
    return float(value)


def no_bool(value: object) -> object:
    """Refuses ``True`` and ``False`` where a number is meant."""
    if isinstance(value, bool):
        raise ValueError("a number is needed, not a boolean")
    return value


Seconds = Annotated[float, BeforeValidator(seconds)]
"""A duration field: float seconds, or text such as ``"1m30s"``."""


class Config(BaseModel):
    """A frozen model that refuses unknown fields and raises :class:`ConfigError` only."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    def __init__(self, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise config_error(error, type(self)) from None

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # nested ones complain together, not one by one

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated as a whole.

        Raises:
            ConfigError: a field is unknown or a value is refused.
        """
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **changes})


def config_error(error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """The first complaint of pydantic as the project's own error."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return cause
    field = str(first["loc"][0]) if first["loc"] else model.__name__
    hint = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        hint = "no such field; there are " + ", ".join(sorted(model.model_fields))
    value = MASK if field in _PRIVATE else first.get("input")
    return ConfigError(field, value, hint)
