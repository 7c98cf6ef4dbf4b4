"""A program that uses procession: starts a child with a death signal, says the child's pid, and dies."""

import asyncio
import os
import signal
import sys

from procession import Command, spawn


async def main():
    async with spawn(Command("sleep", "1000", death_signal=signal.SIGKILL, detach=True)) as process:
        print(process.pid, flush=True)
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGKILL)


asyncio.run(main())
