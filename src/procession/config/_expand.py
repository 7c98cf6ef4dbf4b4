"""``${NAME}`` and ``${NAME:-default}`` in text values; ``$$`` is a dollar sign."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from procession.config._positions import Path

_REFERENCE = re.compile(
    r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|(?P<wrong>\{))"
)


class Expansion:
    """Replaces references, and remembers where, so that what came out of them is never shown.

    Args:
        environ: the variables.
        dotenv: a file with further ones, which stand back behind those; read when it is needed.

    Attributes:
        sources: what stood in the file and what became of it, by path, wherever something was replaced.
        complaints: (path, what stood there, the way out) of references to nothing.
    """

    def __init__(self, environ: Mapping[str, str], dotenv: FilePath | None) -> None:
        self._environ = environ
        self._dotenv = dotenv
        self._more: Mapping[str, str | None] | None = None
        self.sources: dict[Path, tuple[str, str]] = {}
        self.complaints: list[tuple[Path, str, str]] = []

    def expand(self, data: Any, path: Path = ()) -> Any:
        """A copy of ``data`` with everything replaced."""
        if isinstance(data, dict):
            return {name: self.expand(value, (*path, name)) for name, value in data.items()}
        if isinstance(data, list):
            return [self.expand(value, (*path, index)) for index, value in enumerate(data)]
        if not isinstance(data, str) or "$" not in data:
            return data
        text = _REFERENCE.sub(self._replacing(data, path), data)
        if text != data:
            self.sources[path] = data, text
        return text

    def _replacing(self, source: str, path: Path) -> Callable[[re.Match[str]], str]:
        def replaced(found: re.Match[str]) -> str:
            if found["dollar"]:
                return "$"
            if found["wrong"]:
                self.complaints.append((path, source, "${NAME} or ${NAME:-default} is needed; $$ is a dollar sign"))
                return found[0]
            value = self._value(found["name"])
            if value is None or (value == "" and found["default"] is not None):
                value = found["default"]
            if value is None:
                self.complaints.append((path, source, f"the variable {found['name']} is not set{self._hint()}"))
                return found[0]
            return value

        return replaced

    def _value(self, name: str) -> str | None:
        value = self._environ.get(name)
        return value if value is not None else self._from_file().get(name)

    def _from_file(self) -> Mapping[str, str | None]:
        if self._more is None:
            self._more = {}
            if self._dotenv is not None and self._dotenv.is_file():
                try:
                    from dotenv import dotenv_values
                except ImportError:
                    return self._more
                self._more = dotenv_values(self._dotenv, interpolate=False)
        return self._more

    def _hint(self) -> str:
        if self._dotenv is None:
            return ""
        if not self._dotenv.is_file():
            return f", and there is no {self._dotenv.name} beside the file"
        try:
            import dotenv
        except ImportError:
            return f"; reading {self._dotenv.name} needs python-dotenv: pip install 'procession[config]'"
        del dotenv
        return f", nor in {self._dotenv.name}"


def surroundings(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    """The variables asked for, or those of this program."""
    return os.environ if environ is None else environ


def scalar(text: object) -> int | float | bool | None:
    """The number or truth value a text stands for: variables are always texts."""
    if not isinstance(text, str):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
