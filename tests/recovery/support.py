"""What the tests of recovery share: virtual time, and things that fail as often as they are told to."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any

from procession.testing import run_virtual


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
