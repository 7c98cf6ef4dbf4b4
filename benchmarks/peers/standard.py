"""Peers that need nothing but the standard library."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator

from benchmarks.peers._base import CHUNK, ECHO, ECHOED, TRUE, Peer, expect, flood


class Asyncio(Peer):
    """`asyncio.create_subprocess_exec` with the child watcher this Python chooses."""

    def versions(self) -> dict[str, str]:
        return {"python": sys.version.split()[0], "watcher": self._watcher()}

    def _watcher(self) -> str:
        if sys.version_info >= (3, 12):
            return "PidfdChildWatcher" if hasattr(os, "pidfd_open") else "ThreadedChildWatcher"
        return type(asyncio.get_child_watcher()).__name__


class AsyncioPidfd(Asyncio):
    """The same with the pidfd watcher asked for (3.11; the default since 3.12)."""

    def __init__(self) -> None:
        if sys.version_info >= (3, 12):
            raise ImportError("the pidfd watcher is the default of this Python")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())

    def _watcher(self) -> str:
        return "PidfdChildWatcher"


class Threads(Peer):
    """`subprocess.run` in the loop's default thread pool."""

    def versions(self) -> dict[str, str]:
        return {"python": sys.version.split()[0]}

    async def once(self) -> None:
        done = await asyncio.to_thread(
            subprocess.run, TRUE, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        expect(done.returncode, 0)

    async def capture(self) -> None:
        done = await asyncio.to_thread(subprocess.run, ECHO, stdin=subprocess.DEVNULL, capture_output=True)
        expect((done.returncode, done.stdout), (0, ECHOED))


class OsRead(Peer):
    """The limit for streaming: `Popen` and a blocking `os.read` loop."""

    def versions(self) -> dict[str, str]:
        return {"python": sys.version.split()[0]}

    async def stream(self, megabytes: int) -> AsyncIterator[int]:
        process = subprocess.Popen(flood(megabytes), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while chunk := os.read(fd, CHUNK):
            yield len(chunk)
        process.stdout.close()
        expect(process.wait(), 0)
