"""What a Python driver can do, whichever library it drives."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

TRUE = ("/bin/true",)
ECHO = ("/bin/echo", "x")
ECHOED = b"x\n"
SLEEPER = ("/bin/sleep", "3600")
CHUNK = 65536

Figures = dict[str, float]
Job = Callable[[], Awaitable[None]]


def flood(megabytes: int) -> tuple[str, ...]:
    """The program whose output the streaming case reads."""
    return ("/bin/dd", "if=/dev/zero", "bs=64K", f"count={megabytes * 16}", "status=none")


def expect(value: object, wanted: object) -> None:
    """A driver that does not do the work must not win."""
    if value != wanted:
        raise RuntimeError(f"a child gave {value!r} instead of {wanted!r}")


class Live(Protocol):
    """A running child."""

    def kill(self) -> None: ...

    async def wait(self) -> object: ...


class Peer:
    """One way to spawn; asyncio's own calls unless a subclass says otherwise."""

    exit_seen: float | None = None  # perf_counter() at which an exit event came, where there are such events

    def versions(self) -> dict[str, str]:
        return {}

    def run(self, main: Callable[[], Awaitable[Figures]]) -> Figures:
        async def entry() -> Figures:
            return await main()

        return asyncio.run(entry())

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """What an application would keep open around all its children."""
        yield

    async def together(self, jobs: list[Job]) -> None:
        async def guarded(job: Job) -> None:
            await job()

        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(guarded(job))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def beside(self, endless: Job) -> AsyncIterator[None]:
        """Run `endless` on the same loop for as long as the block lasts."""

        async def guarded() -> None:
            await endless()

        task = asyncio.create_task(guarded())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def once(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *TRUE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        expect(await process.wait(), 0)

    async def capture(self) -> None:
        process = await asyncio.create_subprocess_exec(
            *ECHO, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        out, _ = await process.communicate()
        expect((process.returncode, out), (0, ECHOED))

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[Live]:
        process = await asyncio.create_subprocess_exec(
            *SLEEPER, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def live(self) -> AbstractAsyncContextManager[Live]:
        """A sleeping child that is killed and reaped when the block ends."""
        return self._live()

    async def stream(self, megabytes: int) -> AsyncIterator[int]:
        """Sizes of the chunks of a child's output."""
        process = await asyncio.create_subprocess_exec(
            *flood(megabytes), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert process.stdout is not None
        while chunk := await process.stdout.read(CHUNK):
            yield len(chunk)
        expect(await process.wait(), 0)
