"""TOML with places (toml.io, version 1.0): ``tomllib`` reads it, and a scan of what is known to be right finds the places."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from procession.config._positions import Path, Positions, mark_at
from procession.config._problems import SyntaxProblem

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"""[ \t]*(?:(?P<bare>[A-Za-z0-9_-]+)|(?P<basic>"(?:[^"\\\n]|\\.)*")|'(?P<literal>[^'\n]*)')[ \t]*""")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'",
    re.DOTALL,
)
_BARE = re.compile(r"[^,\]}#\n]+")
_WHERE = re.compile(r" \(at line (\d+), column (\d+)\)$")


def parse(text: str) -> tuple[dict[str, Any], Positions]:
    """Reads a document.

    Raises:
        SyntaxProblem: it is no TOML.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        where = _WHERE.search(said)
        end = mark_at(text, len(text))
        line, column = (int(where[1]), int(where[2])) if where else (end.line, end.column)
        raise SyntaxProblem(said.split(" (at ", maxsplit=1)[0], line, column) from None
    except RecursionError:
        raise SyntaxProblem("it is nested too deeply", 1, 1) from None
    positions = Positions(text)
    _Scan(text.replace("\r\n", "\n"), positions).document()
    return data, positions


class _Scan:
    """Goes over a text that is known to be TOML."""

    def __init__(self, text: str, positions: Positions) -> None:
        self.text = positions.text = text
        self.positions = positions
        self.counts: dict[Path, int] = {}  # of arrays of tables

    def document(self) -> None:
        text, at, table = self.text, 0, ()
        path: Path = table
        while (at := self.blank(at)) < len(text):
            if text[at] == "[":
                path, at = self.header(at)
            else:
                at = self.pair(path, at)

    def blank(self, at: int) -> int:
        found = _BLANK.match(self.text, at)
        assert found is not None
        return found.end()

    def header(self, at: int) -> tuple[Path, int]:
        many = self.text.startswith("[[", at)
        begin = at
        names, at = self.key(at + 1 + many)
        path: Path = ()
        for index, name in enumerate(names):
            path = (*path, name)
            if many and index == len(names) - 1:
                self.counts[path] = self.counts.get(path, 0) + 1
            self.positions.note(path, begin)
            if path in self.counts:
                path = (*path, self.counts[path] - 1)
                self.positions.note(path, begin)
        return path, at + 1 + many

    def key(self, at: int) -> tuple[list[str], int]:
        names: list[str] = []
        while True:
            found = _KEY.match(self.text, at)
            assert found is not None
            if found["basic"] is not None:
                names.append(str(tomllib.loads(f"key = {found['basic']}")["key"]))
            else:
                names.append(found["bare"] if found["bare"] is not None else found["literal"])
            at = found.end()
            if not self.text.startswith(".", at):
                return names, at
            at += 1

    def pair(self, path: Path, at: int) -> int:
        names, after = self.key(at)
        for size in range(1, len(names) + 1):
            self.positions.note((*path, *names[:size]), at)
        return self.value((*path, *names), after + 1)

    def value(self, path: Path, at: int) -> int:
        at = self.blank(at)
        first = self.text[at]
        if first == "[":
            return self.array(path, at + 1)
        if first == "{":
            return self.table(path, at + 1)
        found = (_STRING if first in "\"'" else _BARE).match(self.text, at)
        assert found is not None
        return found.end()

    def array(self, path: Path, at: int) -> int:
        index = 0
        while self.text[at := self.blank(at)] != "]":
            self.positions.note((*path, index), at)
            at = self.blank(self.value((*path, index), at))
            index += 1
            if self.text[at] == ",":
                at += 1
        return at + 1

    def table(self, path: Path, at: int) -> int:
        while self.text[at := self.blank(at)] != "}":
            at = self.blank(self.pair(path, at))
            if self.text[at] == ",":
                at += 1
        return at + 1
