"""A few descriptors kept back: when a program has used up all others, what must be ended can still be found.

Looking through ``/proc`` needs one descriptor at a time, and one pidfd for each process that is found.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_SIZE = 8
_kept: list[int] = []
_filling = threading.Lock()


def is_short(error: OSError) -> bool:
    """Whether the error says that no descriptor is left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def fill() -> None:
    """Puts aside what is missing, as far as there is any."""
    if len(_kept) >= _SIZE or not _filling.acquire(blocking=False):
        return
    try:
        while len(_kept) < _SIZE:
            _kept.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        pass  # the next time, then
    finally:
        _filling.release()


def spend(open_one: Callable[[], T], *, leave: int = 0) -> T:
    """Calls ``open_one`` again, at the expense of the reserve, until it has its descriptor.

    Raises:
        OSError: it failed for another reason, or the reserve is down to ``leave``.
    """
    while True:
        try:
            return open_one()
        except OSError as error:
            if not is_short(error) or len(_kept) <= leave:
                raise
        try:
            os.close(_kept.pop())
        except IndexError:
            pass  # another thread has taken the last one
