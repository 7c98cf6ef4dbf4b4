"""What the tests of the scheduler share: virtual time, the sums that always hold, gates to wait at, what was told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from procession import Command, ProcessRegistry
from procession.events import Event, TaskFinished, TaskStarted, TaskSubmitted
from procession.scheduler import Fifo, Scheduler, SchedulerConfig, SchedulerStatistics, Task
from procession.testing import run_virtual
from tests.programs import program, state

FATES = ("succeeded", "failed", "cancelled", "missed")
PLACES = ("queued", "blocked", "delayed", "retrying", "running", "suspended")


def virtual(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Runs an async test in virtual time, and fails it when anything reached the loop's exception handler."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            seen: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context))
            await test(*args, **kwargs)
            assert seen == []

        run_virtual(main, limit=1e7)

    return run


def config(slots: int = 1, **options: Any) -> SchedulerConfig:
    """A configuration that needs nothing but slots, and keeps the order of arrival unless it says otherwise."""
    given: dict[str, Any] = {"max_concurrent_tasks": slots, "resources": {}, "policy": Fifo(), **options}
    return SchedulerConfig(**given)


def check_sums(scheduler: Scheduler) -> SchedulerStatistics:
    """What holds at every moment."""
    found = scheduler.statistics()
    fates = sum(getattr(found, name) for name in FATES)
    places = sum(getattr(found, name) for name in PLACES)
    assert fates + places == found.submitted, found
    assert places == len(scheduler), found
    assert found.queued <= sum(found.by_priority.values()) <= found.queued + found.suspended, found
    assert found.allocated.keys() == found.total.keys()
    for name, amount in found.allocated.items():
        assert 0 <= amount <= found.total[name], found
    assert all(0 <= share <= 1 for share in found.utilisation.values()), found
    if not found.running and not found.suspended:
        assert not any(found.allocated.values()), found
    return found


def check_over(scheduler: Scheduler) -> SchedulerStatistics:
    """What holds when every task has its fate: nothing is left, and everything was given back."""
    found = check_sums(scheduler)
    assert not len(scheduler)
    assert not any(getattr(found, name) for name in PLACES), found
    assert not any(found.allocated.values()), found
    assert not any(found.utilisation.values()), found
    assert found.by_priority == {}
    assert found.next_start is None
    return found


class Told:
    """What a registry was told of tasks; each of them begins once and has one fate."""

    def __init__(self, registry: ProcessRegistry) -> None:
        self.events: list[Event] = []
        registry.listen(self.events.append)

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def check(self) -> None:
        begun = Counter(event.id for event in self.of(TaskSubmitted))
        ended = Counter(event.id for event in self.of(TaskFinished))
        assert begun == ended
        assert set(begun.values()) <= {1}
        started = Counter((event.id, event.attempt) for event in self.of(TaskStarted))
        assert set(started) <= {(id, attempt) for id, attempt in started if id in begun}


class Gate:
    """A coroutine function that waits until it is let through, and says who is inside."""

    def __init__(self) -> None:
        self.inside: list[object] = []
        self.begun: list[object] = []
        self._gates: dict[object, asyncio.Future[Any]] = {}

    async def __call__(self, name: object = "it") -> object:
        self.begun.append(name)
        self.inside.append(name)
        self._gates[name] = asyncio.get_running_loop().create_future()
        try:
            return await self._gates[name]
        finally:
            self.inside.remove(name)

    def open(self, name: object = "it", value: object = None) -> None:
        self._gates[name].set_result(value)

    def fail(self, error: BaseException, name: object = "it") -> None:
        self._gates[name].set_exception(error)


async def turns(count: int = 5) -> None:
    """Lets the loop turn a few times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def value(of: Any = None) -> Any:
    """Work that is over at once."""
    return of


async def nap(seconds: float, of: Any = None) -> Any:
    await asyncio.sleep(seconds)
    return of


async def failing(error: BaseException) -> None:
    raise error


def ids(tasks: list[Task[Any]]) -> list[str]:
    return [task.id for task in tasks]


class Burner:
    """One tree of ``burn.py``: how far each of its processes has come, and when they come further."""

    def __init__(self, folder: Path, *, goal: int = 0) -> None:
        self._path = folder / f"counters-{id(self)}"
        self._path.write_bytes(bytes(64))
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.command: Command = program(
            "burn", str(self._path), str(self._writer), str(goal), pass_fds=(self._writer,), grace=5.0
        )

    @property
    def counters(self) -> tuple[int, int, int]:
        return struct.unpack_from("qqq", self._path.read_bytes())

    @property
    def pids(self) -> tuple[int, ...]:
        return struct.unpack_from("qqq", self._path.read_bytes(), 32)

    @property
    def states(self) -> str:
        """The letters of proc(5) of the three processes."""
        return "".join(map(state, self.pids))

    async def progress(self, who: str = "abc", within: float = 15.0) -> None:
        """Waits until each of these processes has come further than it is now."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._reader, 65536):
                pass
        loop = asyncio.get_running_loop()
        left, done = set(who), loop.create_future()

        def read() -> None:
            left.difference_update(os.read(self._reader, 65536).decode())
            if not left and not done.done():
                done.set_result(None)

        loop.add_reader(self._reader, read)
        try:
            async with asyncio.timeout(within):
                await done
        finally:
            loop.remove_reader(self._reader)

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


@contextlib.contextmanager
def burning(folder: Path, count: int = 1, *, goal: int = 0) -> Iterator[list[Burner]]:
    """Some of them."""
    burners = [Burner(folder, goal=goal) for _ in range(count)]
    try:
        yield burners
    finally:
        for burner in burners:
            burner.close()
