"""What is said at ``submit``: checked as a whole, before anything happens."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypedDict

from procession._clock import wall
from procession._core.backoff import RetryPolicy, duration
from procession._fields import check_name
from procession._types import Priority
from procession.command import Command
from procession.errors import ConfigError
from procession.process import Pipeline
from procession.process._run import check_bounds
from procession.process._sink import check_input
from procession.scheduler._config import Preemption
from procession.scheduler._spec import Spec

if TYPE_CHECKING:
    from procession.process import Process
    from procession.scheduler._task import Task

MOST_URGENT = 1 << 31
_COROUTINE = inspect.CO_COROUTINE
_LEVELS = {level: int(level) for level in Priority}
AUTOMATIC = "task-"


class TaskOptions(TypedDict, total=False):
    """What may be said about a task beside its work, priority and resources.

    Attributes:
        id: its name, unique among unfinished tasks. Default: ``"task-7"``, made from its number.
        estimated_duration: how long one run is expected to take; lets it pass others, and others pass it, by
            reservation. Seconds, or text such as ``"1m30s"``, as for every duration here.
        timeout: how long one attempt may run, suspensions left out. Default for a command: its own.
        deadline: by when it has to be started; loop time, or a ``datetime`` with a time zone. Default: none.
        delay: how long it stays aside before it begins to wait for its turn.
        not_before: the same as a point in time: loop time, or a ``datetime`` with a time zone.
        retry: a ``RetryPolicy``; a command fails when its exit code is not 0. Default: no retry.
        after: unfinished tasks, or their ids, that have to succeed before it may start.
        preemptible: whether it may be made to give way at all, to more urgent work (if the scheduler preempts) and at
            the end of a quantum (if its policy has one). Default yes.
        preemption: how it makes room. Default: as the scheduler is configured.
        tenant: on whose behalf it runs, for ``FairShare``.
        kwargs: keyword arguments for its work.
        input: what a command reads on its stdin, as for ``run``. What can be read once (an iterator, an open file)
            does not go with ``retry`` or ``"requeue"``.
        check: whether ``await`` raises when a command's exit code is not 0. Default no, as for ``run``.
        max_output: the most bytes kept of each stream of a command.
        on_spawn: called with the live ``Process`` of a command.
    """

    id: str
    estimated_duration: float | str | None
    timeout: float | str | None
    deadline: float | datetime | None
    delay: float | str
    not_before: float | datetime | None
    retry: RetryPolicy | None
    after: Iterable[Task[Any] | str]
    preemptible: bool
    preemption: Preemption | str | None
    tenant: str
    kwargs: Mapping[str, Any]
    input: Any
    check: bool
    max_output: int | None
    on_spawn: Callable[[Process], object] | None


_KNOWN = frozenset(TaskOptions.__annotations__)
_OF_COMMANDS = ("input", "check", "max_output", "on_spawn")


def check_priority(priority: object) -> int:
    """Reads a priority.

    Raises:
        ConfigError: it is no whole number, or out of all proportion.
    """
    if type(priority) is int:
        value = priority
    elif isinstance(priority, Priority):
        return _LEVELS[priority]
    elif isinstance(priority, int) and not isinstance(priority, bool):
        value = int(priority)
    else:
        raise ConfigError(
            "priority", priority, "a Priority or any other whole number is needed; the smaller goes first"
        )
    if not -MOST_URGENT <= value <= MOST_URGENT:
        raise ConfigError("priority", priority, f"a whole number from {-MOST_URGENT} to {MOST_URGENT} is needed")
    return value


def check_work(work: Any, args: tuple[Any, ...]) -> None:
    """Refuses what cannot be run without blocking the loop.

    Raises:
        ConfigError: it is no command, coroutine function or ``Runnable``.
    """
    if isinstance(work, Command):
        if args:
            raise ConfigError("args", args, "a Command has its arguments already")
        return
    if isinstance(work, FunctionType) and work.__code__.co_flags & _COROUTINE:
        return
    if inspect.isawaitable(work):
        raise ConfigError("work", work, "give the coroutine function and its arguments, not what it returned")
    if isinstance(work, Pipeline):
        raise ConfigError("work", work, "give its run method: submit(pipeline.run)")
    if not callable(work) or isinstance(work, type):
        raise ConfigError("work", work, "a Command, a coroutine function or a Runnable is needed")
    called = work
    while isinstance(called, functools.partial):
        called = called.func
    blocking = inspect.isbuiltin(called) or (
        inspect.isfunction(work) and work.__name__ != "<lambda>" and not hasattr(work, "__wrapped__")
    )
    if blocking and not inspect.iscoroutinefunction(work):
        hint = "it would block the loop; give a coroutine function, for example one that uses asyncio.to_thread"
        raise ConfigError("work", work, hint)


def moment(field: str, value: object, now: float) -> float:
    """Reads a point in time as loop time.

    Raises:
        ConfigError: it is neither a finite number nor a ``datetime`` with a time zone.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigError(field, value, "a datetime without a time zone could mean anything; give it one")
        return now + (value.timestamp() - wall())
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(field, value, "loop time (loop.time() + seconds) or a datetime with a time zone is needed")
    return float(value)


def check_options(
    options: Mapping[str, Any],
    work: object,
    now: float,
    default: Preemption,
    resolve: Callable[[object], Task[Any]],
) -> tuple[Spec, float | None]:
    """Reads the options of one task; returns them with its estimate.

    Args:
        options: as given to ``submit``.
        work: what it runs.
        now: loop time.
        default: how the scheduler preempts.
        resolve: finds a task of ``after``, or refuses it.

    Raises:
        ConfigError: one of them is unknown or refused.
    """
    is_command = isinstance(work, Command)
    for name in options:
        if name not in _KNOWN:
            hint = "no such option; there are priority, resources, " + ", ".join(sorted(_KNOWN))
            raise ConfigError(name, options[name], hint)
    get = options.get
    timeout, estimate, retry = get("timeout"), get("estimated_duration"), get("retry")
    if timeout is not None:
        timeout = duration("timeout", timeout)
    elif is_command:
        timeout = work.timeout  # type: ignore[attr-defined]
    deadline, not_before = _dates(options, now)
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigError("retry", retry, "a RetryPolicy is needed, for example RetryPolicy(3)")
    for name in ("check", "preemptible"):
        if not isinstance(get(name, False), bool):
            raise ConfigError(name, options[name], "True or False is needed")
    _check_feed(options, is_command=is_command)
    spec = Spec(
        id=_name("id", get("id")),
        tenant=_name("tenant", get("tenant")),
        timeout=timeout,
        deadline=deadline,
        not_before=not_before,
        retry=retry,
        after=_after(get("after"), resolve),
        preemption=_preemption(options, default, is_command=is_command),
        preemptible=get("preemptible", True),
        kwargs=dict(get("kwargs") or {}),
        input=get("input"),
        check=get("check", False),
        max_output=get("max_output"),
        on_spawn=get("on_spawn"),
    )
    return spec, None if estimate is None else duration("estimated_duration", estimate)


def _dates(options: Mapping[str, Any], now: float) -> tuple[float | None, float | None]:
    """Deadline and earliest beginning, as loop time."""
    deadline, not_before, delay = options.get("deadline"), options.get("not_before"), options.get("delay")
    if deadline is not None:
        deadline = moment("deadline", deadline, now)
        if deadline <= now:
            raise ConfigError("deadline", options["deadline"], f"it has passed: it is loop time {now:.3f} now")
    if not_before is not None:
        not_before = moment("not_before", not_before, now)
    if delay is not None:
        seconds = duration("delay", delay)
        if seconds and not_before is not None:
            raise ConfigError("delay", delay, "either delay or not_before is needed, not both")
        if seconds:
            not_before = now + seconds
    if deadline is not None and not_before is not None and not_before >= deadline:
        raise ConfigError("deadline", options["deadline"], "it passes before the task is to begin")
    return deadline, not_before


def _check_feed(options: Mapping[str, Any], *, is_command: bool) -> None:
    """What goes into the work and comes out of it."""
    for name in _OF_COMMANDS:
        if not is_command and options.get(name) is not None and options[name] is not False:
            raise ConfigError(name, options[name], "only a Command has this option")
    kwargs = {} if options.get("kwargs") is None else options["kwargs"]
    if not isinstance(kwargs, Mapping) or (is_command and kwargs) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigError("kwargs", kwargs, "keyword arguments by name are needed, and a Command has none")
    if is_command:
        check_bounds(None, options.get("max_output"))
        source = options.get("input")
        if source is not None and not isinstance(source, os.PathLike):
            check_input(source)  # a file is looked at when it is opened: submitting does no I/O
        retry = options.get("retry")
        if retry is not None and retry.max_retries and is_read_once(source):
            raise ConfigError("input", source, "it can be read once, so the command cannot be tried again with it")
    on_spawn = options.get("on_spawn")
    if on_spawn is not None and (not callable(on_spawn) or inspect.iscoroutinefunction(on_spawn)):
        raise ConfigError("on_spawn", on_spawn, "a plain function of the process is needed; it is called, not awaited")


def _name(field: str, value: object) -> str:
    if value is None or value == "":
        return ""
    try:
        name = check_name(value)
    except ValueError as error:
        raise ConfigError(field, value, str(error)) from None
    if field == "id" and name.startswith(AUTOMATIC) and name.removeprefix(AUTOMATIC).isdecimal():
        raise ConfigError(field, value, f"names like {AUTOMATIC}7 are given by the scheduler itself")
    return name


def _after(after: object, resolve: Callable[[object], Task[Any]]) -> tuple[Task[Any], ...]:
    if after is None:
        return ()
    if isinstance(after, str) or not isinstance(after, Iterable):
        raise ConfigError("after", after, "a list of tasks is needed")
    return tuple(dict.fromkeys(map(resolve, after)))


def is_read_once(source: object) -> bool:
    """Whether an ``input`` is used up by the first run that reads it."""
    return isinstance(source, Iterator | AsyncIterator) or callable(getattr(source, "read", None))


def _preemption(options: Mapping[str, Any], default: Preemption, *, is_command: bool) -> Preemption:
    wanted = options.get("preemption")
    try:
        mode = default if wanted is None else Preemption(wanted)
    except ValueError:
        raise ConfigError("preemption", wanted, "one of " + ", ".join(Preemption) + " is needed") from None
    if mode is Preemption.SUSPEND and not is_command:
        if wanted is not None:
            raise ConfigError("preemption", wanted, "only the process of a Command can be suspended")
        return Preemption.NEVER
    if mode is Preemption.REQUEUE and is_read_once(options.get("input")):
        if wanted is not None:
            raise ConfigError("preemption", wanted, "its input can be read once, so it cannot begin anew")
        return Preemption.NEVER
    return mode if options.get("preemptible", True) else Preemption.NEVER
