"""Snapshots are cut into small parts, whatever the shape, and put together again are the same."""

from __future__ import annotations

import json
import marshal
from typing import Any

import pytest

from procession.recovery._snapshot import LARGE, SMALL, Part, Unserialisable, decode, encode, snapshot

pytestmark = pytest.mark.row("RE7")


def encoded(parts: list[Part]) -> bytes:
    return b"".join(piece for part in parts for piece in encode(part))


RECORD = {"id": 17, "name": "job", "done": [1, 2, 3], "rate": 0.25, "left": None}


@pytest.mark.parametrize(
    "state",
    [
        [RECORD] * 5000,
        {f"job-{number}": RECORD for number in range(5000)},
        {"a": {"b": {"c": [[number] * 20 for number in range(3000)]}}},
        ["x" * 5000] * 40,
        {str(number): "x" * 9000 for number in range(10)},
        [[["x" * 3000] * 20] * 2] * 10,
        {"rows": [{"cells": list(range(2000))}] * 40},
        [list(range(100))] * 100,
        [0.1] * 50_000,
    ],
    ids=range(9),
)
def test_parts_are_small_and_together_the_whole(state: Any):
    state = json.loads(json.dumps(state))  # no two values are the same object, which a copy would keep once
    parts = snapshot(state)
    copies = [part[0] for part in parts if isinstance(part, tuple)]
    assert max(map(len, copies)) <= 2 * LARGE
    pieces = [piece for part in parts for piece in encode(part)]
    assert max(map(len, pieces)) <= LARGE
    assert sum(map(len, pieces)) / len(pieces) > SMALL / 40  # nor are they tiny
    assert decode(encoded(parts)) == state


def test_one_large_text_is_one_part():
    state = {"text": "x" * 100_000, "more": ["y" * 100_000]}
    assert decode(encoded(snapshot(state))) == state


def test_a_snapshot_does_not_change_with_the_state():
    state = {"numbers": list(range(1000)), "in": {"deep": [[1]]}}
    before = json.dumps(state)
    parts = snapshot(state)
    state["numbers"].append("later")  # type: ignore[attr-defined]
    state["in"]["deep"][0].append("later")  # type: ignore[index]
    assert decode(encoded(parts)) == json.loads(before)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {1: 2}}, "state['a'] has the key 1"),
        ({"a": [[(1, {None: 2})]]}, "state['a'][0][0][1] has the key None"),
        ({3: list(range(100))}, "keys must be text, not 3"),
        ({"x": {"y": float("nan")}}, "Out of range float"),
    ],
)
def test_it_says_where_the_fault_is(state: Any, said: str):
    with pytest.raises(Unserialisable) as caught:
        encoded(snapshot(state))
    assert said in str(caught.value)


def test_parts_are_made_by_nobody_else():
    with pytest.raises(Unserialisable):
        encoded([(marshal.dumps([{1}]),)])
