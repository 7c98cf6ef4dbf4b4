"""Hosts a server that speaks JSON lines over stdin and stdout – as language servers and tool servers do – without orphans.

    python examples/stdio_server.py            host the server below, ask it things, let it crash
    python examples/stdio_server.py serve      be that server

The host asks with ``Communicator.request``: one line out, one line back, in order, whoever asks. When the server dies,
the request that met its death fails with ``StreamClosed``, which says how it died; the host starts another and goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from procession import Command, Communicator, ProcessRegistry, StreamClosed, spawn


class Host:
    """Keeps one server alive for as long as somebody asks it things."""

    def __init__(self, command: Command, registry: ProcessRegistry, restarts: int = 3) -> None:
        self.command, self.registry, self.restarts = command, registry, restarts
        self._server: AsyncExitStack | None = None
        self._talk: Communicator | None = None
        self._number = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        """Leaves the block of the server: it, and what it started, is gone afterwards."""
        server, self._server, self._talk = self._server, None, None
        if server is not None:
            await server.aclose()

    async def _ready(self) -> Communicator:
        if self._talk is None:
            self._server = AsyncExitStack()
            process = await self._server.enter_async_context(
                spawn(self.command, registry=self.registry, name="server", owner="host")
            )
            self._talk = process.communicator()
        return self._talk

    async def ask(self, method: str, **params: Any) -> Any:
        """One call; repeated on a fresh server when the present one dies of it, as often as was allowed."""
        self._number += 1
        line = json.dumps({"id": self._number, "method": method, "params": params})
        while True:
            talk = await self._ready()
            try:
                return json.loads(await talk.request(line))["result"]
            except StreamClosed as error:
                await self._end()
                print(f"server died ({error.exit}) while asked for {method!r}, {self.restarts} restarts left")
                if not self.restarts:
                    raise
                self.restarts -= 1


# ------------------------------------------------------------------------------------------------ the server


def serve() -> None:
    """Counts words; dies once when asked to crash; starts a helper, as servers do."""
    import subprocess

    subprocess.Popen(["sleep", "600"], start_new_session=True)  # nobody but the owner would ever end it
    for line in sys.stdin:
        call = json.loads(line)
        if call["method"] == "crash":
            marker = Path(call["params"]["marker"])
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            result: Any = "survived"
        else:
            result = len(call["params"]["text"].split())
        print(json.dumps({"id": call["id"], "result": result}), flush=True)


# -------------------------------------------------------------------------------------------------- the host


async def texts(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield "word " * number


async def main() -> int:
    import tempfile

    count = 20 if os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1" else 2000
    command = Command(sys.executable, __file__, "serve", stdin="pipe", stderr="inherit", grace=2)
    with tempfile.TemporaryDirectory() as folder:
        async with ProcessRegistry() as registry, Host(command, registry) as host:
            right = 0
            async for text in texts(count):
                right += await host.ask("count", text=text) == len(text.split())
            print(f"{right} of {count} answers are right")
            print("asked to crash:", await host.ask("crash", marker=f"{folder}/crashed"))
            print("afterwards:", await host.ask("count", text="still here"), "words")
    for record in registry.ended():
        print(f"{record.name} {record.pid}: {record.exit} after {record.uptime:.2f} s")
    return 0 if right == count and not len(registry) else 1


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        sys.exit(asyncio.run(main()))
