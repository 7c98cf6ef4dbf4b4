"""What is wrong with a configuration file, all of it at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from procession.errors._base import ConfigError


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One complaint.

    Attributes:
        field: dotted path of the field; empty for the file as a whole.
        value: what stands in the file, as text fit for display; never what a variable was replaced by.
        hint: what would be accepted.
        line: where, from 1.
        column: where in the line, from 1.
    """

    field: str
    value: str
    hint: str
    line: int
    column: int

    def __str__(self) -> str:
        what = f"{self.field}: " if self.field else ""
        shown = f"{self.value} was refused: " if self.value else ""
        return f"{self.line}:{self.column}: {what}{shown}{self.hint}"


class ConfigFileError(ConfigError):
    """A configuration file was refused. ``field``, ``value`` and ``hint`` are those of the first complaint.

    Attributes:
        path: the file, as it was named.
        problems: all complaints, in the order of the file.
    """

    _fields: ClassVar[tuple[str, ...]] = ("field", "value", "hint", "path", "problems")

    def __init__(self, path: str, problems: Sequence[ConfigProblem]) -> None:
        first = problems[0]
        super().__init__(first.field or path, first.value, first.hint)
        self.path = path
        self.problems: tuple[ConfigProblem, ...] = tuple(problems)

    def __str__(self) -> str:
        return "\n".join(f"{self.path}:{problem}" for problem in self.problems)
