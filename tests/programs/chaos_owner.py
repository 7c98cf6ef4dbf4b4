"""A real program that owns processes, and comes to an end in many ways.

``python chaos_owner.py LOOP KIND,KIND...`` starts one child per kind (see ``chaos_child.py``), says in one line of JSON
who is there, and does what the lines on its stdin say.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from procession import Command, run, spawn
from procession._launch._owner import owner

CHILD = str(Path(__file__).with_name("chaos_child.py"))


TASKS: list[asyncio.Task[Any]] = []
ENDLESS = b"x" * (1 << 22)  # more than a pipe holds: its writer waits


def command(kind: str) -> Command:
    return Command(
        sys.executable,
        "-I",
        "-S",
        CHILD,
        kind,
        grace=0.2,
        detach=kind == "detached",
        contain="cgroup" if kind == "cgroup" else "auto",
        stderr="inherit",
    )


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


async def start(stack: AsyncExitStack, kind: str) -> dict[str, int]:
    if kind in ("run", "pipeline"):  # under way in a task of its own
        where = Path(tempfile.mkdtemp()) / "fifo"
        os.mkfifo(where)
        shell = Command.shell(f"echo $$ > {where}; exec sleep 1000", stdin="pipe")
        work: Any = (
            run(shell, input=ENDLESS) if kind == "run" else (Command("cat", stdin="pipe") | shell).run(input=ENDLESS)
        )
        TASKS.append(asyncio.get_running_loop().create_task(work))
        pid = await asyncio.to_thread(where.read_text)
        shutil.rmtree(where.parent)
        return {kind: int(pid)}
    process = await stack.enter_async_context(spawn(command(kind)))
    line = await anext(aiter(process.lines("stdout")))
    found: dict[str, int] = json.loads(line)
    return found


def fork_by_hand() -> int:
    """A fork that no Python hook sees, so that every descriptor is inherited."""
    libc = ctypes.CDLL(None)
    pid: int = libc.fork()
    if not pid:
        libc.pause()
        libc._exit(0)
    return pid


async def commands() -> str:
    """The next line of stdin, without a thread."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.add_reader(0, lambda: future.done() or future.set_result(None))
    try:
        await future
    finally:
        loop.remove_reader(0)
    return os.read(0, 4096).decode().strip()


async def another_guardian(old: int | None) -> None:
    while owner().guardian_pid in (None, old):
        await asyncio.sleep(0.002)
    say(guardian=owner().guardian_pid)


class Owner:
    def __init__(self) -> None:
        self.after = ""

    async def main(self, kinds: list[str]) -> None:
        async with AsyncExitStack() as stack:
            facts: dict[str, Any] = {"owner": os.getpid()}
            for kind in kinds:
                facts |= await start(stack, kind)
            guardian = owner().guardian_pid
            say(**facts, guardian=guardian, token=owner().token)
            while True:
                word = await commands()
                if word in ("", "return"):
                    return
                elif word == "raise":
                    raise RuntimeError("on purpose")
                elif word == "sys.exit":
                    sys.exit(7)
                elif word == "os._exit":
                    os._exit(8)
                elif word == "multiprocessing":
                    process = multiprocessing.get_context("fork").Process(target=signal.pause, daemon=True)
                    process.start()
                    say(multiprocessing=process.pid)
                elif word == "fork":
                    say(fork=fork_by_hand())
                elif word == "guardian":
                    await another_guardian(guardian)
                elif word == "spawn":
                    say(**await start(stack, "plain"))
                else:  # leave the blocks where they are and stop the loop under them
                    self.after = word
                    asyncio.get_running_loop().stop()
                    await asyncio.get_running_loop().create_future()


def main(loop_name: str, kinds: str) -> None:
    if loop_name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.SelectorEventLoop()
    asyncio.set_event_loop(loop)
    program = Owner()
    task = loop.create_task(program.main([kind for kind in kinds.split(",") if kind]))
    task.add_done_callback(lambda _: loop.stop())
    loop.run_forever()
    if task.done():
        task.result()
    elif program.after == "abandon and raise":
        raise RuntimeError("on purpose")
    elif program.after == "abandon and sys.exit":
        sys.exit(7)
    elif program.after == "abandon and close":
        loop.close()
        del task
        TASKS.clear()
        gc.collect()
        say(closed=True)
        sys.stdin.readline()
    elif program.after == "abandon and end":
        pass


if __name__ == "__main__":
    main(*sys.argv[1:])
