"""JSON with places (RFC 8259)."""

from __future__ import annotations

import json
import re
from typing import Any

from procession.config._positions import Path, Positions, mark_at
from procession.config._problems import SyntaxProblem

_WORD = re.compile(r'[ \t\r\n]*("(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+)')


def parse(text: str) -> tuple[Any, Positions]:
    """Reads a document.

    Raises:
        SyntaxProblem: it is no JSON, or names a key twice.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise SyntaxProblem(error.msg, error.lineno, error.colno) from None
    except RecursionError:
        raise SyntaxProblem("it is nested too deeply", 1, 1) from None
    positions = Positions(text)
    _Scan(text, positions).value((), 0)
    return data, positions


class _Scan:
    """Goes over a text that is known to be JSON."""

    def __init__(self, text: str, positions: Positions) -> None:
        self.text = text
        self.positions = positions

    def next(self, at: int) -> tuple[str, int, int]:
        """A word, where it begins, where it ends."""
        found = _WORD.match(self.text, at)
        assert found is not None
        return found[1], found.start(1), found.end()

    def value(self, path: Path, at: int) -> int:
        """Notes what is in a value; returns where it ends."""
        word, _, end = self.next(at)
        if word == "{":
            return self.members(path, end)
        if word == "[":
            return self.elements(path, end)
        return end

    def members(self, path: Path, at: int) -> int:
        word, begin, end = self.next(at)
        while word != "}":
            if word == ",":
                word, begin, end = self.next(end)
            name = json.loads(word)
            if (*path, name) in self.positions.marks:
                raise SyntaxProblem(f"{name!r} is named twice", *mark_at(self.text, begin))
            self.positions.note((*path, name), begin)
            _, _, end = self.next(end)  # the colon
            word, begin, end = self.next(self.value((*path, name), end))
        return end

    def elements(self, path: Path, at: int) -> int:
        index = 0
        word, begin, end = self.next(at)
        while word != "]":
            if word == ",":
                at = end
                _, begin, _ = self.next(at)
            self.positions.note((*path, index), begin)
            at = self.value((*path, index), at)
            index += 1
            word, begin, end = self.next(at)
        return end
