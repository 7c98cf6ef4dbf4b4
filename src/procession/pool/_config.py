"""What a pool is to be like: :class:`PoolConfig`, checked as a whole before anything is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from procession import _fields
from procession._core.config import Config, Seconds, no_bool
from procession.errors import ConfigError
from procession.pool._slots import Wear

_Count = Annotated[int, BeforeValidator(no_bool), Field(strict=True)]


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError('names of modules are needed: preload=["numpy"]')
    names = tuple(value)
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{name!r} is not the name of a module")
    return names


def _callable(value: object) -> object:
    if value is not None and not callable(value):
        raise ValueError("something that can be called is needed")
    return value


def _arguments(value: object) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError("a tuple of arguments is needed")
    return tuple(value)


def processors() -> int:
    """How many processors this program may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


class PoolConfig(Config):
    """How many workers a pool has, how long they live, and what they bring along.

    Args:
        min_size: workers there always are; 0 lets the pool run empty. Default 1.
        initial_size: workers that are ready when the block is entered. Default: ``min_size``.
        max_size: workers there are at most. Default: the processors we may use, at least ``min_size``.
        idle_timeout: seconds after which an idle worker above ``min_size`` goes; ``None`` keeps it. Default 60.
        max_uses: calls or leases after which a worker is replaced.
        max_lifetime: seconds after which a worker is replaced, give or take ``lifetime_jitter``.
        lifetime_jitter: share by which lifetimes vary, so that workers started together do not end together.
        max_memory_mb: MiB by which a worker may grow beyond what it had when it became ready, before it is replaced.
        autoscale: whether the rule of ``docs/pools.md`` changes the size; else only ``scale_up`` and ``scale_down`` do.
        cool_down: seconds between changes by that rule. Default 5.
        patience: seconds the first in line waits before another worker is started. Default 0.05.
        start_timeout: seconds a worker may take to become ready. Default 30.
        start_failures: starts that fail in a row, with no worker left, before those who wait are told. Default 3.
        stop_grace: seconds a worker gets to end by itself before it is killed. Default 5.
        health_check: what is asked of an idle worker now and then: ``"alive"``: that it is not stopped; ``"ping"``:
            that it answers (function workers; for processes the same as ``"alive"``); your own: an async function that gets
            the worker and returns whether it is well; ``None``: nothing. Default ``"ping"``.
        health_interval: seconds between checks of one worker. Default 30.
        health_timeout: seconds a check may take. Default 5.
        max_waiting: how many may wait before ``PoolExhausted`` is raised; ``None``: any number.
        preload: modules imported once before workers are made (function workers). ``"__main__"`` is possible.
        initializer: called in each new function worker, with ``initargs``.
        initargs: its arguments.
        worker_state: a class, or anything that can be called and pickled, made once in each function worker. What it
            returns is given by :func:`worker_state`; its ``open()`` is called first and its ``close()`` last,
            where it has them.
        start_method: ``"template"`` forks function workers from a clean process that has imported what they need;
            ``"spawn"`` starts an interpreter for each. Default: the template, where it is possible.
        prefetch: the most calls that wait at a function worker behind the one it runs; 0 for none. How many
            really do follows from how long calls take. Default 64.
        max_message_mb: MiB of arguments or of a result in one call. Default 1024.
        poison_after: workers a call may end before it is not tried again. Default 3.
        env: variables for function workers, in addition to ours; ``None`` as a value removes one.
        on_output: called with each line (:class:`WorkerOutput`) that function workers write to stdout and stderr.
            Default: the log ``procession.pool.output``.

    Raises:
        ConfigError: a value was refused; ``field`` says which.
    """

    min_size: Annotated[_Count, Field(ge=0)] = 1
    initial_size: Annotated[_Count, Field(ge=0)] | None = None
    max_size: Annotated[_Count, Field(ge=1)] | None = None
    idle_timeout: Seconds | None = 60.0
    max_uses: Annotated[_Count, Field(ge=1)] | None = None
    max_lifetime: Seconds | None = None
    lifetime_jitter: Annotated[float, BeforeValidator(no_bool), Field(ge=0, le=1)] = 0.1
    max_memory_mb: Annotated[float, BeforeValidator(no_bool), Field(gt=0, allow_inf_nan=False)] | None = None
    autoscale: Annotated[bool, Field(strict=True)] = True
    cool_down: Seconds = 5.0
    patience: Seconds = 0.05
    start_timeout: Seconds = 30.0
    start_failures: Annotated[_Count, Field(ge=1)] = 3
    stop_grace: Seconds = 5.0
    health_check: Literal["alive", "ping"] | Callable[[Any], Any] | None = "ping"
    health_interval: Seconds = 30.0
    health_timeout: Seconds = 5.0
    max_waiting: Annotated[_Count, Field(ge=0)] | None = None
    preload: Annotated[Sequence[str], BeforeValidator(_names)] = ()
    initializer: Annotated[Callable[..., object] | None, BeforeValidator(_callable)] = None
    initargs: Annotated[Sequence[Any], BeforeValidator(_arguments)] = ()
    worker_state: Annotated[Callable[[], Any] | None, BeforeValidator(_callable)] = None
    start_method: Literal["template", "spawn"] = "template"
    prefetch: Annotated[_Count, Field(ge=0, le=512)] = 64
    max_message_mb: Annotated[float, BeforeValidator(no_bool), Field(gt=0, allow_inf_nan=False)] = 1024.0
    poison_after: Annotated[_Count, Field(ge=1)] = 3
    env: Annotated[dict[str, str | None], BeforeValidator(_fields.environment)] = Field(
        default_factory=dict, repr=False
    )
    on_output: Annotated[Callable[[Any], object] | None, BeforeValidator(_callable)] = None

    @model_validator(mode="after")
    def _together(self) -> PoolConfig:
        if self.max_size is not None and self.min_size > self.max_size:
            raise ConfigError("min_size", self.min_size, f"at most max_size, which is {self.max_size}")
        if self.initial_size is not None and not self.min_size <= self.initial_size <= self.most:
            raise ConfigError("initial_size", self.initial_size, f"from min_size {self.min_size} to {self.most}")
        for name in ("max_lifetime", "start_timeout", "health_interval", "health_timeout"):
            if getattr(self, name) == 0:
                raise ConfigError(name, 0, "more than 0 seconds")
        return self

    @property
    def most(self) -> int:
        """The most workers there may be."""
        return (
            self.max_size if self.max_size is not None else max(1, self.min_size, self.initial_size or 0, processors())
        )

    @property
    def first(self) -> int:
        """How many there are when the block is entered."""
        return self.min_size if self.initial_size is None else self.initial_size

    @property
    def wear(self) -> Wear:
        """When a worker is replaced."""
        memory = None if self.max_memory_mb is None else int(self.max_memory_mb * (1 << 20))
        return Wear(max_uses=self.max_uses, max_memory=memory, idle_timeout=self.idle_timeout)
