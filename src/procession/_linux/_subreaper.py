"""Becoming the parent of orphans below us, see prctl(2), PR_SET_CHILD_SUBREAPER."""

from __future__ import annotations

import ctypes
import os

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """From now on a descendant whose parent ends becomes our child; process 1 is that already.

    Raises:
        OSError: the kernel refuses.
    """
    if os.getpid() == 1:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
