"""What the workers of the pools run; imports as little as possible, for it is imported in each of them."""

from __future__ import annotations

import os
import time
from importlib import import_module

HEAVY = ("asyncio", "http.client", "xml.dom.minidom", "sqlite3", "decimal", "unittest", "email.mime.text", "ctypes")
_POLL = 0.001
_PATIENCE = 60.0


def echo(value: object) -> object:
    return value


async def echo_async(value: object) -> object:
    return value


def square(number: int, seconds: float) -> tuple[int, int]:
    """An answer that can be checked, and who gave it; waits, so that few processors are no limit."""
    time.sleep(seconds)
    return number * number, os.getpid()


async def square_async(number: int, seconds: float) -> tuple[int, int]:
    return square(number, seconds)  # not a sleep of the loop: a worker runs one of these at a time


def meet(path: str, count: int, modules: tuple[str, ...]) -> int:
    """Returns when `count` workers are here, each with all the modules imported: no worker can do that twice."""
    for name in modules:
        import_module(name)
    with open(path, "ab", buffering=0) as file:
        file.write(b".")
    until = time.monotonic() + _PATIENCE
    while os.stat(path).st_size < count:  # noqa: PTH116 - no import for this
        if time.monotonic() > until:
            raise RuntimeError(f"{os.stat(path).st_size} workers of {count} have come")  # noqa: PTH116 - same
        time.sleep(_POLL)
    return os.getpid()


async def meet_async(path: str, count: int, modules: tuple[str, ...]) -> int:
    return meet(path, count, modules)
