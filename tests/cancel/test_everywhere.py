"""Cancelled at every suspension point, for every k, in three ways: nothing is left, and it comes back in time.

``cancel_everywhere`` audits children, zombies, descriptors, threads and tasks around each of its runs.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from procession import AsyncioLauncher, Command, ExecutionTimeout, ProcessRegistry, SpawnError, run, spawn
from procession.testing import cancel_everywhere, slow_spawn

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
ECHO = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(1000)"
ESCAPEE = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if not os.fork():
    os.setsid()
    os.write(1, b'ready\\n')
signal.pause()
"""

Scenario = Callable[[], Coroutine[Any, Any, Any]]
SCENARIOS: dict[str, tuple[Scenario, int]] = {}


def scenario(least: int) -> Callable[[Scenario], Scenario]:
    """Registers a scenario that has to have at least so many suspension points."""

    def keep(function: Scenario) -> Scenario:
        SCENARIOS[function.__name__] = (function, least)
        return function

    return keep


def bare(code: str, **options: Any) -> Command:
    return Command(sys.executable, "-I", "-S", "-c", code, **({"grace": 0.05} | options))


@scenario(2)
async def run_plain() -> None:
    assert (await run(Command("echo", "hello"))).text == "hello\n"


@scenario(2)
async def run_with_input() -> None:
    assert (await run(Command("cat"), input=b"x" * (1 << 20))).stdout == b"x" * (1 << 20)


async def pieces() -> AsyncIterator[bytes]:
    for number in range(5):
        await asyncio.sleep(0)
        yield b"%d\n" % number


@scenario(2)
async def run_with_input_from_an_iterator() -> None:
    assert (await run(Command("cat"), input=pieces())).stdout == b"0\n1\n2\n3\n4\n"


@scenario(2)
async def run_with_timeout() -> None:
    with pytest.raises(ExecutionTimeout) as caught:
        await run(bare(DEAF), timeout=0.1)
    assert caught.value.report is not None
    assert caught.value.report.is_clean


@scenario(2)
async def run_with_max_output() -> None:
    completed = await run(Command("head", "-c", "1000000", "/dev/zero"), max_output=1000)
    assert (len(completed.stdout), completed.stdout_dropped) == (1000, 999_000)


@scenario(2)
async def run_in_a_registry() -> None:
    async with ProcessRegistry() as registry:
        assert (await run(Command("true"), registry=registry)).ok


@scenario(2)
async def run_on_the_portable_engine() -> None:
    assert (await run(Command("echo", "hello"), launcher=AsyncioLauncher())).text == "hello\n"


@scenario(1)
async def run_that_cannot_start() -> None:
    with pytest.raises(SpawnError):
        await run(Command("/nowhere/at/all"))


@scenario(2)
async def block_with_lines_left_by_its_end() -> None:
    async with spawn(Command("sh", "-c", "echo one; echo two >&2; exec sleep 1000", grace=0.5)) as process:
        seen = set()
        async for line in process.lines():
            seen.add(str(line))
            if len(seen) == 2:
                break


@scenario(2)
async def block_with_a_stop() -> None:
    async with spawn(bare(DEAF)) as process:
        assert [str(line) async for line in take(process.lines("stdout"), 1)] == ["deaf"]
        report = await process.stop()
        assert report.is_clean


@scenario(2)
async def block_with_an_escaped_grandchild() -> None:
    async with spawn(bare(ESCAPEE)) as process:
        await anext(aiter(process.lines("stdout")))
        assert (await process.stop(0.02)).is_clean


@scenario(2)
async def block_waiting_for_the_end() -> None:
    async with spawn(Command("sh", "-c", "echo out; exit 3")) as process:
        async for _chunk in process.chunks("both"):
            pass
        assert await process.wait() == 3


@scenario(2)
async def block_of_a_terminal() -> None:
    async with spawn(Command("sh", "-c", "echo out", pty=True)) as process:
        async for _line in process.lines():
            pass
        await process.wait()


@scenario(2)
async def request_and_answer() -> None:
    async with spawn(bare(ECHO, stdin="pipe")) as process:
        talk = process.communicator()
        assert str(await talk.request("hello")) == "HELLO"
        assert str(await talk.request("again")) == "AGAIN"


@scenario(2)
async def pipeline_run() -> None:
    done = await (Command("cat") | Command("tr", "a-z", "A-Z") | Command("cat")).run(input=b"abc" * 1000)
    assert done.stdout == b"ABC" * 1000


@scenario(2)
async def pipeline_stream() -> None:
    async with (Command("yes") | Command("cat")).stream() as stream:
        assert [str(line) async for line in take(stream.lines(), 3)] == ["y"] * 3


@scenario(2)
async def pipeline_iterated_without_a_block() -> None:
    chunks = aiter((Command("echo", "hello") | Command("cat")).stream())
    try:
        async for chunk in chunks:
            assert chunk == b"hello\n"
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]


@scenario(2)
async def pipeline_whose_second_stage_cannot_start() -> None:
    with pytest.raises(SpawnError):
        await (Command("yes") | Command("/nowhere/at/all")).run()


async def take(lines: AsyncIterator[Any], count: int) -> AsyncIterator[Any]:
    while count:
        yield await anext(lines)
        count -= 1


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_cancelled_at_every_point(name: str, loop: str) -> None:
    function, least = SCENARIOS[name]
    report = cancel_everywhere(function, loop_factory=LOOPS[loop], limit=4.0)
    assert report.points >= least
    assert report.outcomes["cancelled"]


@pytest.mark.parametrize("loop", LOOPS)
def test_cancelled_while_the_kernel_takes_its_time(loop: str) -> None:
    with slow_spawn(0.05):
        cancel_everywhere(run_plain, loop_factory=LOOPS[loop], limit=2.0)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("turns", [0, *[1] * 10, 2, 3, 5, 8, 50])
def test_a_program_that_cancels_twenty_spawns_in_flight_is_back_at_once(turns: int, loop: str) -> None:
    async def program() -> None:
        async def one(number: int) -> None:
            async with spawn(Command("sleep", "1000", grace=0.5)) as process:
                await process.wait()

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(20)]
            for _ in range(turns):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()

    began = time.monotonic()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(program())
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("loop", LOOPS)
def test_asyncio_run_returns_when_it_has_to_cancel_the_spawns_itself(loop: str) -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        TASKS.extend([loop.create_task(run(Command("sleep", "1000", grace=0.5))) for _ in range(20)])
        await asyncio.sleep(0)

    began = time.monotonic()
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(program())
    assert time.monotonic() - began < 1.0
    assert all(task.cancelled() for task in TASKS)
    TASKS.clear()


TASKS: list[asyncio.Task[Any]] = []
