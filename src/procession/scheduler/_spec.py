"""The options of a task that most tasks leave alone, kept apart so that those cost them nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from procession._core.backoff import RetryPolicy
from procession.scheduler._config import Preemption

if TYPE_CHECKING:
    from procession.process import Process
    from procession.scheduler._entry import Entry


@dataclass(frozen=True, slots=True)
class Spec:
    """What may be said about a task beyond what it runs, how urgent it is and what it needs.

    Attributes:
        id: the name it was given; empty for one made from its number.
        tenant: on whose behalf it runs.
        timeout: seconds one attempt may run, suspensions left out.
        deadline: loop time by which it is to have been started.
        not_before: loop time before which it does not begin to wait for its turn.
        retry: what to do when it fails.
        after: the tasks that have to succeed first.
        preemption: how it makes room for more urgent work.
        preemptible: whether it may be made to give way at all, at the end of a quantum too.
        kwargs: keyword arguments of its work.
        input: what a command reads.
        check: whether a command's exit code other than 0 is raised.
        max_output: the most bytes kept of each stream of a command.
        on_spawn: called with the live process of a command.
    """

    id: str = ""
    tenant: str = ""
    timeout: float | None = None
    deadline: float | None = None
    not_before: float | None = None
    retry: RetryPolicy | None = None
    after: tuple[Entry, ...] = ()
    preemption: Preemption = Preemption.NEVER
    preemptible: bool = True
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    input: Any = None
    check: bool = False
    max_output: int | None = None
    on_spawn: Callable[[Process], object] | None = None
