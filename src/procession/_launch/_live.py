"""How many real children live and how many are being started, for those who must not outrun them."""

from __future__ import annotations

import os
from collections.abc import Callable

_live = 0
_in_flight = 0

starting: set[str] = set()
"""Ids of real children that are being made."""

leaders: dict[str, int] = {}
"""Ids and pids of real children that were made and have not been reaped."""

on_end: Callable[[], None] | None = None
"""Called on the loop's thread whenever a real child was reaped."""


def _forget() -> None:
    """In a child made by ``os.fork``: none of it is its own."""
    global _live, _in_flight
    _live = _in_flight = 0
    starting.clear()
    leaders.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def live() -> int:
    """Real children that were started and have not been reaped."""
    return _live


def in_flight() -> int:
    """Real work handed to the spawner or scanner threads and not yet answered."""
    return _in_flight


def count_live(change: int) -> None:
    """Notes that a child was started (1) or reaped (-1). Called on loop threads."""
    global _live
    _live += change


def count_in_flight(change: int) -> None:
    """Notes that work was handed to a thread (1) or answered (-1). Called on loop threads."""
    global _in_flight
    _in_flight += change
