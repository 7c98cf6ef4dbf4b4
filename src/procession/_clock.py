"""The two clocks. Decisions use the loop's monotonic time; wall time is for display only."""

from __future__ import annotations

import time

monotonic = time.monotonic


def wall() -> float:
    """Seconds since the epoch, for people to read; compared only with the times of calendars."""
    return time.time()  # noqa: TID251 - the one place where wall time is read
