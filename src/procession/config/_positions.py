"""Where things stand in a file: by path, the line and column of each key and each element."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

Path = tuple[str | int, ...]


class Mark(NamedTuple):
    """A place in a text, counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Positions:
    """The places of one file.

    Attributes:
        marks: by path; that of a table's key is where the key stands.
    """

    text: str
    marks: dict[Path, Mark] = field(default_factory=dict)

    def note(self, path: Path, offset: int) -> None:
        """Remembers what stands at ``offset``; what is noted first stays."""
        if path not in self.marks:
            self.marks[path] = mark_at(self.text, offset)

    def nearest(self, path: Path) -> tuple[Path, Mark]:
        """The longest beginning of ``path`` that stands in the file, and where."""
        for size in range(len(path), 0, -1):
            mark = self.marks.get(path[:size])
            if mark is not None:
                return path[:size], mark
        return (), Mark(1, 1)


def mark_at(text: str, offset: int) -> Mark:
    """Line and column of an offset."""
    line = text.count("\n", 0, offset) + 1
    return Mark(line, offset - text.rfind("\n", 0, offset))
