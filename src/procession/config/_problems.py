"""From what a parser and pydantic say to complaints with a line and a way out."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from procession._core.config import MASK
from procession.command import mask
from procession.config._positions import Path, Positions
from procession.errors import ConfigError, ConfigProblem

_SHOWN = 60


class SyntaxProblem(Exception):
    """The text is not of its format."""

    def __init__(self, said: str, line: int, column: int) -> None:
        super().__init__(said, line, column)
        self.said = said
        self.line = line
        self.column = column

    def as_problem(self) -> ConfigProblem:
        """As a complaint."""
        said = self.said[:1].lower() + self.said[1:]
        return ConfigProblem("", "", said, self.line, self.column)


class Clerk:
    """Writes complaints about one file.

    Args:
        model: what the file describes.
        positions: where everything stands.
        sources: what stood where something was replaced, and what it became.
    """

    def __init__(self, model: type[BaseModel], positions: Positions, sources: Mapping[Path, tuple[str, str]]) -> None:
        self._model = model
        self._positions = positions
        self._sources = sources

    def problem(self, path: Path, value: object, hint: str) -> ConfigProblem:
        """A complaint about what stands at ``path``."""
        known, mark = self._positions.nearest(path)
        source = self._sources.get(path)
        if source is not None and source[1]:
            hint = hint.replace(source[1], MASK)
        told = path if known == path else (*known, *(part for part in path[len(known) :] if _is_name(part)))
        return ConfigProblem(dotted(told), self._shown(path, value), hint, mark.line, mark.column)

    def of_pydantic(self, error: Any) -> ConfigProblem:
        """One entry of ``ValidationError.errors()``."""
        path: Path = tuple(error["loc"])
        kind, value = error["type"], error.get("input")
        cause = error.get("ctx", {}).get("error")
        hint = str(error["msg"]).removeprefix("Value error, ")
        if isinstance(cause, ConfigError):
            path = (*path, *cause.field.split("."))
            value, hint = cause.value, cause.hint
        elif kind in ("extra_forbidden", "unexpected_keyword_argument"):
            return self._unknown(path)
        elif kind in ("missing", "missing_argument"):
            return self.problem(path, "", "it is needed and not there")
        else:
            hint = hint[:1].lower() + hint[1:]
        return self.problem(path, value, hint)

    def _unknown(self, path: Path) -> ConfigProblem:
        names = fields_at(self._model, path[:-1])
        near = get_close_matches(str(path[-1]), names, 1, 0.6)
        if near:
            hint = f"there is no such name; did you mean {near[0]}?"
        else:
            hint = "there is no such name" + (f"; there are {', '.join(names)}" if names else "")
        return self.problem(path, "", hint)

    def _shown(self, path: Path, value: object) -> str:
        source = self._sources.get(path)
        if source is not None:
            return repr(source[0])
        if isinstance(value, (Mapping, list, tuple)):
            return ""
        if value == "" or (path and any(mask(f"{part}=x").endswith(MASK) for part in path if isinstance(part, str))):
            return MASK if value != "" else ""
        if "env" in path:
            return MASK
        text = mask(value) if isinstance(value, str) else str(value)
        shown = repr(text) if isinstance(value, str) else text
        return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


def _is_name(part: str | int) -> bool:
    return isinstance(part, int) or (part.isidentifier() and not part[:1].isupper())


def dotted(path: Path) -> str:
    """``("units", "api", 0)`` becomes ``units.api[0]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def fields_at(model: Any, path: Path) -> list[str]:
    """The names that may stand in the table at ``path``; empty when any may, or nobody knows."""
    kinds = [model]
    for part in path:
        kinds = [below for kind in kinds for below in _below(kind, part)]
    return sorted({name for kind in kinds for name in _hints(kind)})


def _below(kind: Any, part: str | int) -> list[Any]:
    if _is_table(kind):
        hints = _hints(kind)
        return _kinds(hints[part]) if isinstance(part, str) and part in hints else [kind]  # pydantic names alternatives
    arguments = get_args(kind)
    origin = get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(arguments) == 2:
        return _kinds(arguments[1])
    return [inner for argument in arguments for inner in _kinds(argument)]


def _kinds(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _kinds(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [kind for argument in get_args(annotation) for kind in _kinds(argument)]
    return [annotation]


def _is_table(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _hints(kind: Any) -> dict[str, Any]:
    if not _is_table(kind):
        return {}
    if issubclass(kind, BaseModel):
        return {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
