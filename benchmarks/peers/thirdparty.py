"""Peers from other libraries; importing one that is not installed raises ImportError."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.metadata import version

from benchmarks.peers._base import CHUNK, ECHO, ECHOED, SLEEPER, TRUE, Figures, Job, Live, Peer, expect, flood

NULL = subprocess.DEVNULL


class Uvloop(Peer):
    """uvloop's own subprocess, through asyncio's interface."""

    def __init__(self) -> None:
        self._new_loop = import_module("uvloop").new_event_loop

    def versions(self) -> dict[str, str]:
        return {"uvloop": version("uvloop")}

    def run(self, main: Callable[[], Awaitable[Figures]]) -> Figures:
        async def entry() -> Figures:
            return await main()

        with asyncio.Runner(loop_factory=self._new_loop) as runner:
            return runner.run(entry())


class Anyio(Peer):
    """anyio on asyncio."""

    def __init__(self) -> None:
        self._anyio = import_module("anyio")

    def versions(self) -> dict[str, str]:
        return {"anyio": version("anyio")}

    async def once(self) -> None:
        expect((await self._anyio.run_process(TRUE, stdin=NULL, stdout=NULL, stderr=NULL)).returncode, 0)

    async def capture(self) -> None:
        done = await self._anyio.run_process(ECHO, stdin=NULL)
        expect((done.returncode, done.stdout), (0, ECHOED))

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[Live]:
        async with await self._anyio.open_process(SLEEPER, stdin=NULL, stdout=NULL, stderr=NULL) as process:
            yield process
            if process.returncode is None:
                process.kill()

    async def stream(self, megabytes: int) -> AsyncIterator[int]:
        async with await self._anyio.open_process(flood(megabytes), stdin=NULL, stderr=NULL) as process:
            assert process.stdout is not None
            while True:
                try:
                    yield len(await process.stdout.receive(CHUNK))
                except self._anyio.EndOfStream:
                    break
            expect(await process.wait(), 0)


class Trio(Peer):
    """trio on its own loop."""

    def __init__(self) -> None:
        self._trio = import_module("trio")

    def versions(self) -> dict[str, str]:
        return {"trio": version("trio")}

    def run(self, main: Callable[[], Awaitable[Figures]]) -> Figures:
        result: Figures = self._trio.run(main)
        return result

    async def together(self, jobs: list[Job]) -> None:
        async with self._trio.open_nursery() as nursery:
            for job in jobs:
                nursery.start_soon(job)

    async def sleep(self, seconds: float) -> None:
        await self._trio.sleep(seconds)

    @asynccontextmanager
    async def beside(self, endless: Job) -> AsyncIterator[None]:
        async with self._trio.open_nursery() as nursery:
            nursery.start_soon(endless)
            yield
            nursery.cancel_scope.cancel()

    async def once(self) -> None:
        expect((await self._trio.run_process(TRUE, stdin=NULL, stdout=NULL, stderr=NULL)).returncode, 0)

    async def capture(self) -> None:
        done = await self._trio.run_process(ECHO, stdin=NULL, capture_stdout=True, capture_stderr=True)
        expect((done.returncode, done.stdout), (0, ECHOED))

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[Live]:
        process = await self._trio.lowlevel.open_process(SLEEPER, stdin=NULL, stdout=NULL, stderr=NULL)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def stream(self, megabytes: int) -> AsyncIterator[int]:
        process = await self._trio.lowlevel.open_process(flood(megabytes), stdin=NULL, stdout=subprocess.PIPE)
        assert process.stdout is not None
        while chunk := await process.stdout.receive_some(CHUNK):
            yield len(chunk)
        await process.stdout.aclose()
        expect(await process.wait(), 0)
