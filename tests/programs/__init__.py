"""Small real programs that behave badly, and how tests start and watch them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from procession import Command, Process

HERE = Path(__file__).parent


def program(name: str, *args: str, **options: Any) -> Command:
    """One of the programs in this folder; they need nothing but the standard library."""
    return Command(sys.executable, "-I", "-S", HERE / f"{name}.py", *args, **options)


def sh(script: str, *args: str, **options: Any) -> Command:
    return Command("sh", "-c", script, "sh", *args, **options)


async def first_line(process: Process) -> str:
    """The next line of stdout; what a program says when it has come so far."""
    async for line in process.lines("stdout"):
        return str(line)
    raise AssertionError(f"{process} ended without a word")


def state(pid: int) -> str:
    """The letter of proc(5), or an empty text when there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return text.rpartition(")")[2].split()[0]


def alive(pid: int) -> bool:
    return state(pid) not in ("", "Z", "X")


async def ended(pid: int, within: float = 10.0) -> None:
    """Waits until a process that need not be our child has ended."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    done = loop.create_future()
    loop.add_reader(pidfd, lambda: done.done() or done.set_result(None))
    try:
        async with asyncio.timeout(within):
            await done
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def eventually(holds: Callable[[], object], within: float = 10.0) -> None:
    """Waits for what the kernel announces to nobody, such as a process having been stopped or reaped."""
    async with asyncio.timeout(within):
        while not holds():
            await asyncio.sleep(0.002)
