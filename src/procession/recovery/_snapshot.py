"""A state as JSON in pieces: taken at once, so that it is of one moment, and encoded bit by bit, so that nobody waits long.

A snapshot of plain values is a copy made by :mod:`marshal`, which takes a tenth of the time that JSON does. It never leaves
this program. The pieces of it are encoded one after the other, by whoever has a moment, and each is read again to see that
what will be restored is equal to what was saved.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

Part = bytes | tuple[bytes]
"""JSON as it is; or, as a tuple of one, a marshalled container whose contents are still to be encoded."""

SMALL = 12 * 1024
"""Bytes of JSON that are encoded in one go, which takes a third of a millisecond."""

LARGE = 64 * 1024
"""Bytes of a copy that are brought back in one go, which takes a third of a millisecond."""

_FEW = 32
"""Items of a container that are taken together at first."""

_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


class Unserialisable(ValueError):
    """The state cannot be restored from JSON as it is; the text says why."""


def snapshot(state: Any) -> list[Part]:
    """A copy of ``state`` as it is now, in parts.

    Raises:
        Unserialisable: it is not made of what JSON knows.
    """
    try:
        try:
            parts: list[Part] = []
            _split(state, parts)
            return parts
        except ValueError as error:
            if isinstance(error, Unserialisable):
                raise
            return [_whole(state)]  # something beside the plain types, which JSON may know nevertheless
    except Unserialisable:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise Unserialisable(str(error)) from error


def encode(part: Part) -> Iterator[bytes]:
    """One part as JSON, piece by piece.

    Raises:
        Unserialisable: it is not made of what JSON knows.
    """
    if isinstance(part, bytes):
        yield part
        return
    try:
        container = marshal.loads(part[0])  # noqa: S302 - made by ourselves a moment ago
        kind, count = type(container), len(container)
        items, done = iter(container.items() if kind is dict else container), 0
        size = max(1, min(_FEW, count * SMALL // len(part[0])))
        while done < count:
            if done:
                yield b","
            piece = _whole(kind(islice(items, size)))[1:-1]
            yield piece
            done += size
            size = max(1, min(8 * size, size * SMALL // len(piece)))
    except (TypeError, ValueError, RecursionError) as error:
        raise Unserialisable(str(error)) from error


def decode(data: bytes) -> Any:
    """The state that was encoded.

    Raises:
        ValueError: it is no JSON.
    """
    return json.loads(data)


def _whole(value: Any) -> bytes:
    text = _encoder.encode(value)
    again = json.loads(text)
    if again != value and again != (plain := _plain(value)):
        raise Unserialisable(f"it would come back as another value: {_difference(plain, again)}")
    return text.encode()


def _split(value: Any, parts: list[Part]) -> None:
    kind = type(value)
    if (kind is not dict and kind is not list) or not value:
        parts.append(_whole(value))
        return
    opening, closing = (b"{", b"}") if kind is dict else (b"[", b"]")
    parts.append(opening)
    _add(value, parts)
    parts.append(closing)


def _add(container: Any, parts: list[Part]) -> None:
    """Adds the contents of a container, without its brackets, as many items at a time as make a part of some size."""
    kind, count = type(container), len(container)
    if count <= _FEW:
        if any(type(item) in (dict, list) and len(item) > _FEW for item in _values(container)):
            _add_each(container, parts)
        else:
            _add_few(container, parts)
        return
    items, done, size = iter(container.items() if kind is dict else container), 0, _FEW
    while done < count:
        chunk = kind(islice(items, size))
        if done:
            parts.append(b",")
        done += len(chunk)
        taken = _add_few(chunk, parts)
        size = max(1, min(8 * size, size * LARGE // taken))


def _add_few(chunk: Any, parts: list[Part]) -> int:
    """Adds some items in one part, or in several if they are large; returns how large they are."""
    copy = marshal.dumps(chunk)
    if len(copy) <= (2 * LARGE if len(chunk) > 1 else 2 * SMALL):
        parts.append((copy,))
    elif len(chunk) == 1:
        _add_each(chunk, parts)
    else:
        items, half = iter(chunk.items() if type(chunk) is dict else chunk), len(chunk) // 2
        _add_few(type(chunk)(islice(items, half)), parts)
        parts.append(b",")
        _add_few(type(chunk)(items), parts)
    return len(copy)


def _add_each(chunk: Any, parts: list[Part]) -> None:
    for number, item in enumerate(chunk):
        if number:
            parts.append(b",")
        if type(chunk) is dict:
            if type(item) is not str:
                raise Unserialisable(f"keys must be text, not {item!r:.100}")
            parts.append(_encoder.encode(item).encode() + b":")
            item = chunk[item]  # noqa: PLW2901 - what the key stands for
        _split(item, parts)


def _values(chunk: Any) -> Iterable[Any]:
    return chunk.values() if type(chunk) is dict else chunk


def _plain(value: Any) -> Any:
    """The same with lists instead of tuples, which is what JSON makes of them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _difference(value: Any, again: Any, where: str = "state") -> str:
    """Where the first difference is."""
    if isinstance(value, dict) and isinstance(again, dict):
        if odd := [key for key in value if key not in again]:
            return f"{where} has the key {odd[0]!r:.100}, and keys must be text"
        pairs = ((f"{where}[{key!r}]", value[key], again[key]) for key in value)
    elif isinstance(value, list) and isinstance(again, list):
        pairs = ((f"{where}[{index}]", one, two) for index, (one, two) in enumerate(zip(value, again, strict=True)))
    else:
        return f"{where} is {value!r:.100}"
    return next(_difference(one, two, place) for place, one, two in pairs if one != two)
