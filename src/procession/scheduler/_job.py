"""One piece of work with its options, for submitting many at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Unpack

from procession._types import Priority
from procession.command import Command
from procession.errors import ConfigError
from procession.scheduler._submission import TaskOptions

Work = Command | Callable[..., Awaitable[Any]]
"""What a scheduler runs: a command, a coroutine function, or anything ``Runnable``."""


class Job:
    """What would be given to ``Scheduler.submit``, kept for ``Scheduler.submit_many``.

    Args:
        work: a ``Command``, a coroutine function or a ``Runnable``.
        args: its arguments.
        priority: how urgent it is; ``None``: as the call of ``submit_many`` says.
        resources: what it takes; ``None``: as that call says.
        options: see ``TaskOptions``; what is not given is as that call says.
    """

    __slots__ = ("args", "options", "priority", "resources", "work")

    def __init__(
        self,
        work: Work,
        *args: Any,
        priority: int | None = None,
        resources: Mapping[str, float] | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        self.work: Work = work
        self.args: tuple[Any, ...] = args
        self.priority: int = priority  # type: ignore[assignment]  # given by `of`
        self.resources: Mapping[str, float] | None = resources
        self.options: Mapping[str, Any] = lasting(options)

    @classmethod
    def of(
        cls,
        work: Job | Work | tuple[Any, ...],
        priority: int = Priority.NORMAL,
        resources: Mapping[str, float] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Job:
        """``work`` as a job, with what it does not say itself.

        Raises:
            ConfigError: it is an empty tuple.
        """
        if isinstance(work, tuple):
            if not work:
                raise ConfigError("works", work, "a tuple holds a work and its arguments")
            work = cls(*work)
        elif not isinstance(work, Job):
            work = cls(work)
        job = cls(work.work, *work.args)
        job.priority = priority if work.priority is None else work.priority
        job.resources = resources if work.resources is None else work.resources
        job.options = {**(options or {}), **work.options}
        return job

    def __repr__(self) -> str:
        return f"<Job {self.options.get('id', '')} {self.work!r}>"


def lasting(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """``options`` that can be read more than once: what they come ``after`` may have been given as an iterator."""
    after = options.get("after")
    return {**options, "after": tuple(after)} if isinstance(after, Iterator) else options


def in_order(jobs: Sequence[Job]) -> list[int]:
    """The jobs' indexes, each after those of the same batch that it comes after.

    Raises:
        ConfigError: they come after one another in a circle; the error shows it.
    """
    by_id = {job.options["id"]: index for index, job in enumerate(jobs) if job.options.get("id")}
    order: list[int] = []
    placed: set[int] = set()
    for start in range(len(jobs)):
        path: list[int] = []
        on_path: set[int] = set()
        todo = [(start, False)]
        while todo:
            index, left = todo.pop()
            if left:
                on_path.discard(path.pop())
                if index not in placed:
                    placed.add(index)
                    order.append(index)
            elif index in on_path:
                names = [str(jobs[one].options["id"]) for one in (*path[path.index(index) :], index)]
                raise ConfigError("after", jobs[index].options["id"], "a circle: " + " after ".join(names))
            elif index not in placed:
                path.append(index)
                on_path.add(index)
                todo.append((index, True))
                todo += [(by_id[one], False) for one in _names(jobs[index]) if one in by_id]
    return order


def _names(job: Job) -> list[str]:
    after = job.options.get("after") or ()
    return [one for one in after if isinstance(one, str)] if isinstance(after, Iterable) else []
