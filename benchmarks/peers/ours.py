"""procession itself, everything on: registry, events, containment at its default rung."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from benchmarks.peers._base import ECHO, ECHOED, SLEEPER, TRUE, Live, Peer, expect, flood
from benchmarks.peers.thirdparty import Uvloop

NEEDED = ("Command", "ProcessExited", "ProcessRegistry", "run", "spawn")


class Procession(Peer):
    """`procession` on asyncio."""

    def __init__(self) -> None:
        self._api: Any = import_module("procession")
        if lacking := [name for name in NEEDED if not hasattr(self._api, name)]:
            raise ImportError(f"procession has no {', '.join(lacking)} yet")

        # Made once, as the argument vector of the compiled peers is.
        self._true = self._api.Command(*TRUE, stdin="null", stdout="null", stderr="null")
        self._echo = self._api.Command(*ECHO, stdin="null")

    def versions(self) -> dict[str, str]:
        return {"procession": getattr(self._api, "__version__", "?")}

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        async with self._api.ProcessRegistry() as registry:
            self.registry = registry
            registry.listen(self._exited, types=(self._api.ProcessExited,))
            yield

    def _exited(self, _event: object) -> None:
        self.exit_seen = time.perf_counter()

    async def once(self) -> None:
        async with self._api.spawn(self._true, registry=self.registry) as process:
            await process.wait()
            expect(process.returncode, 0)

    async def capture(self) -> None:
        done = await self._api.run(self._echo, registry=self.registry)
        expect((done.returncode, done.stdout), (0, ECHOED))

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[Live]:
        command = self._api.Command(*SLEEPER, stdin="null", stdout="null", stderr="null")
        async with self._api.spawn(command, registry=self.registry) as process:
            yield process
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def stream(self, megabytes: int) -> AsyncIterator[int]:
        command = self._api.Command(*flood(megabytes), stdin="null", stdout="pipe", stderr="null")
        async with self._api.spawn(command, registry=self.registry) as process:
            async for chunk in process.chunks():
                yield len(chunk)
            await process.wait()
            expect(process.returncode, 0)


class ProcessionUvloop(Procession):
    """`procession` on uvloop."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = Uvloop()
        self.run = self._loop.run  # type: ignore[method-assign]

    def versions(self) -> dict[str, str]:
        return super().versions() | self._loop.versions()
