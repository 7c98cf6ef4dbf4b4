"""What a scheduler is told when it is made."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from procession._core.config import Config, Seconds, no_bool
from procession._fields import check_name
from procession.abc import QueuePolicy
from procession.scheduler._policies import (
    EarliestDeadline,
    FairShare,
    Fifo,
    MultiLevelFeedback,
    Policy,
    PriorityAging,
    TimeSlice,
)

POLICIES: dict[str, type[Policy]] = {
    "fifo": Fifo,
    "priority_aging": PriorityAging,
    "multi_level_feedback": MultiLevelFeedback,
    "fair_share": FairShare,
    "earliest_deadline": EarliestDeadline,
    "time_slice": TimeSlice,
}
"""The policies by the names they have in configuration files."""

_MOST_SLOTS = 1_000_000_000
_MOST = 1e12
"""The largest total of a resource: amounts are counted in millionths, in fields of 63 bits."""


class Preemption(StrEnum):
    """How a running task makes room for a more urgent one.

    ``NEVER`` it does not. ``SUSPEND`` its process and all that it started are stopped with SIGSTOP and continued
    later; only commands can do so, others are then left alone. ``REQUEUE`` it is stopped gracefully and run again
    from the beginning later.
    """

    NEVER = "never"
    SUSPEND = "suspend"
    REQUEUE = "requeue"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _machine() -> dict[str, float]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu_cores": float(_cores()), "memory_mb": float(memory >> 20)}


_HOOKS = [name for name in vars(QueuePolicy) if not name.startswith("_")]


def _policy(value: object) -> object:
    if isinstance(value, str):
        value = {"kind": value}
    if isinstance(value, Mapping):  # from a file
        options = dict(value)
        kind = POLICIES.get(str(options.pop("kind", None)).replace("-", "_").lower())
        if kind is None:
            raise ValueError(f"a policy is needed, of the kinds {', '.join(POLICIES)}")
        try:
            return kind(**options)
        except TypeError as error:
            raise ValueError(f"{kind.__name__}: {str(error).rpartition('() ')[2]}") from None
    missing = [name for name in _HOOKS if not callable(getattr(value, name, None))]
    if len(missing) == len(_HOOKS) or isinstance(value, type):
        raise ValueError("a policy is needed, for example PriorityAging(aging_factor=0.1) or Fifo()")
    if missing:
        raise ValueError(f"this policy has no {', no '.join(missing)}: derive it from procession.scheduler.Policy")
    return value


Count = Annotated[int, BeforeValidator(no_bool), Field(ge=1)]


class SchedulerConfig(Config):
    """The limits and rules of one scheduler. Frozen; every value is checked at once.

    Attributes:
        max_concurrent_tasks: how many tasks run at a time, at most 1,000,000; suspended ones do not count. Default:
            the cores this program may use.
        resources: how much there is of each resource, by name: ``cpu_cores``, ``memory_mb``, ``disk_mb``,
            ``network_mbps`` and any name of your own. Default: the machine's cores and memory. Amounts are counted
            in millionths, exactly.
        policy: who is next; a policy, or as in files ``"fifo"`` or ``{"kind": "fair_share", "weights": {"a": 2}}``.
            Default: ``PriorityAging(aging_factor=0.1)``.
        preemption: how running tasks make room for more urgent ones, unless they say otherwise. Default: never.
        max_preemptions: how often one task has to make room before it is left alone. Default 3.
        kept_when_suspended: resources a suspended task holds on to. Default: all but ``cpu_cores`` and
            ``network_mbps``.
        backfill: whether work may pass a task that waits for resources, without delaying it. Default yes.
        max_overtakes: how often one waiting task may be passed while nobody can tell when it could start, because
            running tasks have no ``estimated_duration``; and how often by more urgent ones for which others make room,
            when it is next only because it has waited for long. Default 16.
        max_queued: how many tasks may wait. Default 1,000,000.
        close_timeout: seconds ``aclose()`` waits for work that ignores its cancellation. Default 30.
    """

    max_concurrent_tasks: Annotated[Count, Field(le=_MOST_SLOTS)] = Field(default_factory=_cores)
    resources: dict[str, float] = Field(default_factory=_machine)
    policy: Annotated[Any, BeforeValidator(_policy)] = Field(default_factory=PriorityAging)
    preemption: Preemption = Preemption.NEVER
    max_preemptions: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 3
    kept_when_suspended: frozenset[str] | None = None
    backfill: bool = True
    max_overtakes: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] = 16
    max_queued: Count = 1_000_000
    close_timeout: Seconds = 30.0

    @field_validator("resources", mode="before")
    @classmethod
    def _amounts(cls, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError('amounts by name are needed, for example {"cpu_cores": 8}')
        for name, amount in value.items():
            if not isinstance(name, str) or not name.isidentifier():
                try:
                    check_name(name)
                except ValueError as error:
                    raise ValueError(f"{name!r} is no name of a resource: {error}") from None
            if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not 0 <= amount < math.inf:
                raise ValueError(f"{name}: a number, 0 or more, is needed, not {amount!r}")
            if amount > _MOST:
                raise ValueError(f"{name}: at most {_MOST:g} is possible")
        return value

    @property
    def queue_policy(self) -> QueuePolicy:
        """The policy, with its type."""
        policy: QueuePolicy = self.policy
        return policy
