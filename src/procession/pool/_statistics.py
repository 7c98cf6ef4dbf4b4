"""Figures of a pool, and a guess at how large one should be."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from procession._core.window import Percentiles
from procession.errors import ConfigError
from procession.pool._config import processors


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """Figures of one moment; the counters count since the pool was made.

    Attributes:
        size: workers there are or are being started.
        target: how many there shall be.
        active: workers that are idle or busy.
        idle: workers that wait for work.
        busy: workers at work.
        starting: workers that are being started.
        created: workers that became ready.
        destroyed: workers that are gone.
        failed: workers that ended unasked or could not be started.
        waiting: calls or leases that wait.
        running: calls or leases that are with a worker.
        ok: calls or leases that ended well.
        errors: calls that raised, and leases whose worker was lost.
        lost: calls that lost their worker, retried ones included.
        retried: calls that were tried again.
        cancelled: calls that were cancelled or ran out of time.
        response: seconds from request to answer.
    """

    size: int = 0
    target: int = 0
    active: int = 0
    idle: int = 0
    busy: int = 0
    starting: int = 0
    created: int = 0
    destroyed: int = 0
    failed: int = 0
    waiting: int = 0
    running: int = 0
    ok: int = 0
    errors: int = 0
    lost: int = 0
    retried: int = 0
    cancelled: int = 0
    response: Percentiles = field(default_factory=Percentiles)

    @property
    def queue_length(self) -> int:
        """The same as ``waiting``."""
        return self.waiting

    @property
    def requests_ok(self) -> int:
        """The same as ``ok``."""
        return self.ok

    @property
    def requests_failed(self) -> int:
        """The same as ``errors``."""
        return self.errors

    @property
    def mean(self) -> float:
        """Mean response time in seconds."""
        return self.response.mean

    @property
    def p50(self) -> float:
        """Half of the recent responses took no longer, in seconds."""
        return self.response.p50

    @property
    def p99(self) -> float:
        """Ninety-nine in a hundred took no longer, in seconds."""
        return self.response.p99


def suggest_size(kind: Literal["cpu", "io", "mixed"] = "cpu", *, wait_ratio: float | None = None) -> int:
    """How many workers would keep this machine busy.

    ``processors × (1 + wait/compute)``, the usual rule: one worker per processor for work that computes, more for work
    that waits.

    Args:
        kind: what the work does: ``"cpu"`` computes, ``"io"`` waits four times as long as it computes, ``"mixed"`` as long.
        wait_ratio: seconds of waiting per second of computing, when you have measured it; replaces ``kind``.

    Raises:
        ConfigError: there is no such kind, or the ratio is negative or not finite.
    """
    ratios = {"cpu": 0.0, "io": 4.0, "mixed": 1.0}
    if wait_ratio is None:
        if kind not in ratios:
            raise ConfigError("kind", kind, '"cpu", "io" or "mixed" is needed')
        wait_ratio = ratios[kind]
    elif isinstance(wait_ratio, bool) or not isinstance(wait_ratio, (int, float)) or not 0 <= wait_ratio < math.inf:
        raise ConfigError("wait_ratio", wait_ratio, "a number, 0 or more, is needed")
    return max(1, math.ceil(processors() * (1 + wait_ratio)))
