"""Reads a configuration file into a model, or says all that is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from procession.config import _json, _toml, _yaml
from procession.config._expand import Expansion, scalar, surroundings
from procession.config._positions import Positions
from procession.config._problems import Clerk, SyntaxProblem
from procession.errors import ConfigError, ConfigFileError

M = TypeVar("M", bound=BaseModel)
_FORMATS: dict[str, Callable[[str], tuple[Any, Positions]]] = {
    "toml": _toml.parse,
    "yaml": _yaml.parse,
    "yml": _yaml.parse,
    "json": _json.parse,
}
_MOST = 16 << 20


def load(
    path: str | os.PathLike[str], model: type[M], *, environ: Mapping[str, str] | None = None, dotenv: bool = True
) -> M:
    """Reads a file; its suffix says whether it is TOML, YAML (``.yaml``, ``.yml``) or JSON.

    Args:
        path: the file, UTF-8, at most 16 MiB.
        model: what it describes.
        environ: the variables for ``${NAME}``. Default: those of this program.
        dotenv: whether a file ``.env`` beside it may give variables that are not set. What it holds is not put into
            the environment.

    Returns:
        The model.

    Raises:
        ConfigFileError: something is wrong with it; ``problems`` says all that is, with lines.
        ConfigError: there is no such file, or it is of no known format.
    """
    file = Path(path)
    kind = _format(file.suffix.removeprefix("."), "path", str(path))
    try:
        with file.open("rb") as opened:
            raw = opened.read(_MOST + 1)
    except OSError as error:
        raise ConfigError("path", str(path), f"it cannot be read: {error.strerror or error}") from None
    if len(raw) > _MOST:
        raise ConfigError("path", str(path), f"at most {_MOST >> 20} MiB are read")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problem = SyntaxProblem("it is not UTF-8", line, error.start - raw.rfind(b"\n", 0, error.start))
        raise ConfigFileError(str(path), [problem.as_problem()]) from None
    return _read(text, kind, model, str(path), environ, file.parent / ".env" if dotenv else None)


def loads(
    text: str, model: type[M], *, format: str = "toml", name: str = "<text>", environ: Mapping[str, str] | None = None
) -> M:
    """The same for a text.

    Args:
        text: the configuration.
        model: what it describes.
        format: ``"toml"``, ``"yaml"`` or ``"json"``.
        name: how complaints call it.
        environ: the variables for ``${NAME}``. Default: those of this program.

    Returns:
        The model.

    Raises:
        ConfigFileError: something is wrong with it; ``problems`` says all that is, with lines.
        ConfigError: the format is not known.
    """
    return _read(text, _format(format, "format", format), model, name, environ, None)


def _format(name: str, field: str, value: str) -> Callable[[str], tuple[Any, Positions]]:
    try:
        return _FORMATS[name.lower()]
    except KeyError:
        raise ConfigError(field, value, "TOML, YAML or JSON is needed: .toml, .yaml, .yml or .json") from None


def _read(
    text: str,
    parse: Callable[[str], tuple[Any, Positions]],
    model: type[M],
    name: str,
    environ: Mapping[str, str] | None,
    dotenv: Path | None,
) -> M:
    try:
        data, positions = parse(text)
    except SyntaxProblem as problem:
        raise ConfigFileError(name, [problem.as_problem()]) from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigFileError(name, [SyntaxProblem("a table of names is needed", 1, 1).as_problem()])
    expansion = Expansion(surroundings(environ), dotenv)
    data = expansion.expand(data)
    clerk = Clerk(model, positions, expansion.sources)
    problems = [clerk.problem(*complaint) for complaint in expansion.complaints]
    broken = {path for path, _, _ in expansion.complaints}
    made, said = _validated(model, data)
    texts = [one["loc"] for one in said if one["loc"] in expansion.sources]
    if texts and _with_numbers(data, texts):
        made, said = _validated(model, data)
    problems += [clerk.of_pydantic(one) for one in said if one["loc"] not in broken]
    if problems or made is None:
        raise ConfigFileError(name, sorted(problems, key=lambda problem: (problem.line, problem.column)))
    return made


def _validated(model: type[M], data: dict[str, Any]) -> tuple[M | None, list[Any]]:
    """The model, or all that is wrong."""
    try:
        return model.__pydantic_validator__.validate_python(data), []
    except ValidationError as error:
        return None, list(error.errors(include_url=False))


def _with_numbers(data: Any, paths: Iterable[tuple[str | int, ...]]) -> bool:
    """Puts numbers and truth values where variables gave them as text; returns whether there were any."""
    changed = False
    for path in paths:
        table = data
        for part in path[:-1]:
            table = table[part]
        value = scalar(table[path[-1]])
        if value is not None:
            table[path[-1]] = value
            changed = True
    return changed
