"""What the tests of recovery share: virtual time, and things that fail as often as they are told to."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from procession import Command, Process, ProcessRegistry, spawn
from procession.recovery import Recovery, RecoveryManager
from procession.testing import run_virtual
from tests.programs import eventually, program


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


def now() -> float:
    return asyncio.get_running_loop().time()


class Broken(Exception):
    """What a flaky thing raises."""


class Flaky:
    """An async function that fails when it is told to, and counts."""

    def __init__(self, *failures: BaseException | None, takes: float = 0.0) -> None:
        self.failures = list(failures)
        self.takes = takes
        self.calls: list[float] = []

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls.append(now())
        if self.takes:
            await asyncio.sleep(self.takes)
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        return (args, kwargs) if args or kwargs else "done"


class Target:
    """Something that can be restarted, replaced, scaled and stopped, and does what it is told: a test double of a unit."""

    def __init__(self, *outcomes: BaseException | bool | None, takes: float = 0.0) -> None:
        self.outcomes = list(outcomes)
        self.takes = takes
        self.calls: list[tuple[Any, ...]] = []
        self.reasons: list[str] = []
        self.size = 2

    async def _do(self, *call: Any) -> Any:
        self.calls.append((*call, now()))
        if self.takes:
            await asyncio.sleep(self.takes)
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def restart(self, id: str, *, reason: str = "") -> Any:
        self.reasons.append(reason)
        return await self._do("restart", id)

    async def replace(self, id: str, command: Any = None, *, reason: str = "") -> Any:
        return await self._do("replace", id, command)

    async def stop(self, id: str, *, reason: str = "") -> Any:
        return await self._do("stop", id)

    async def scale_up(self, n: int = 1) -> int:
        await self._do("scale_up", n)
        self.size = min(4, self.size + n)
        return self.size

    async def scale_down(self, n: int = 1) -> int:
        await self._do("scale_down", n)
        self.size = max(1, self.size - n)
        return self.size


class Service:
    """A small real supervisor: owns one process under a name, and can start, restart, replace and stop it.

    It has no policy of its own: what ends is left to the recovery.
    """

    def __init__(self, registry: ProcessRegistry, name: str, command: Command, *, owner: str = "") -> None:
        self.registry = registry
        self.name = name
        self.command = command
        self.owner = owner
        self.group = asyncio.TaskGroup()
        self.processes: list[Process] = []
        self.lives: dict[str, asyncio.Task[None]] = {}
        self.actions: list[str] = []

    async def __aenter__(self) -> Self:
        await self.group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self.lives.values():
            task.cancel()
        await self.group.__aexit__(kind, error, trace)

    @property
    def process(self) -> Process:
        return self.processes[-1]

    @property
    def alive(self) -> list[Process]:
        return [process for process in self.processes if process.exit is None]

    async def start(self, command: Command | None = None) -> Process:
        ready: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        task = self.group.create_task(self._live(command or self.command, ready))
        try:
            process = await ready
        except BaseException:
            task.cancel()
            await asyncio.wait([task])
            raise
        self.lives[process.id] = task
        return process

    async def _live(self, command: Command, ready: asyncio.Future[Process]) -> None:
        try:
            async with spawn(command, registry=self.registry, name=self.name, owner=self.owner) as process:
                self.processes.append(process)
                async for line in process.lines("stdout"):
                    if line == "up" and not ready.done():
                        ready.set_result(process)
                await process.wait()
                if not ready.done():
                    raise Broken(f"it ended with {process.exit} before it was up")
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def _end(self, process: Process) -> None:
        task = self.lives.pop(process.id)
        task.cancel()
        await asyncio.wait([task])

    async def restart(self, id: str, *, reason: str = "") -> None:
        assert id == self.name
        self.actions.append("restart")
        for process in list(self.processes):
            if process.id in self.lives:
                await self._end(process)
        await self.start()

    async def replace(self, id: str, command: Command | None = None, *, reason: str = "") -> None:
        assert id == self.name
        self.actions.append("replace")
        old = [process for process in self.processes if process.id in self.lives]
        if command is not None:
            self.command = command
        await self.start()
        for process in old:
            await self._end(process)


class Stoppable(Service):
    """The same, as something that can only be restarted and stopped."""

    replace = None  # type: ignore[assignment]

    async def stop(self, id: str, *, reason: str = "") -> None:
        self.actions.append("stop")
        for process in list(self.processes):
            if process.id in self.lives:
                await self._end(process)


def service(mode: str, *args: Any) -> Command:
    return program("flaky", mode, *map(str, args), stdin="pipe", grace=1.0)


async def over(recovery: RecoveryManager, id: str, count: int = 1) -> Recovery:
    """Waits until so many recoveries of ``id`` are over, and returns the last."""
    await eventually(lambda: len(recovery.history(id)) >= count, within=30)
    return recovery.history(id)[-1]
