"""Order of arrival, and priorities that grow with waiting: the policies of the hot path."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

from procession.errors import ConfigError
from procession.scheduler._policies._base import BEYOND, NANO, Policy

if TYPE_CHECKING:
    from procession.abc import QueuedTask


class Fifo(Policy):
    """First come, first served; priorities are not looked at."""

    by_priority = True


class PriorityAging(Policy):
    """Priorities, and waiting makes more urgent: after ``1 / aging_factor`` seconds by one whole level.

    The effective priority of a task that has waited ``w`` seconds is ``priority - aging_factor · w``, the smallest
    goes first, and among equals the one submitted first. With a factor above 0 no task starves: whatever its level,
    after a bounded time it is more urgent than all that come later.

    Args:
        aging_factor: levels gained per second; 0 keeps priorities strictly apart. Default 0.1.

    Raises:
        ConfigError: the factor is no number, negative or not finite.
    """

    by_priority = True
    urgent_first = True

    def __init__(self, aging_factor: float = 0.1) -> None:
        if isinstance(aging_factor, bool) or not isinstance(aging_factor, (int, float)) or not (
            0 <= aging_factor < math.inf
        ):  # fmt: skip
            raise ConfigError("aging_factor", aging_factor, "a number of levels per second, 0 or more, is needed")
        self.aging_factor = aging_factor
        # A level is worth as many nanoseconds of waiting; that turns ageing into a static key of integers.
        self._level = min(BEYOND, round(NANO / aging_factor)) if aging_factor > NANO / BEYOND else BEYOND

    def group(self, task: QueuedTask) -> Hashable:
        """Its priority."""
        return task.priority

    def offset(self, group: Hashable) -> int:
        """What a level is worth, times the level."""
        assert isinstance(group, int)
        return group * self._level

    def __repr__(self) -> str:
        return f"PriorityAging(aging_factor={self.aging_factor:g})"
