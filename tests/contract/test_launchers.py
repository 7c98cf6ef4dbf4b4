"""One contract for every engine: real children by pidfd, real children by waiting thread, and simulated ones.

This keeps the simulation honest: what a policy is tested with behaves as what it will meet.
"""

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from procession import (
    AsyncioLauncher,
    Command,
    Containment,
    ExecutionTimeout,
    PidfdLauncher,
    ProcessExited,
    ProcessRegistry,
    SpawnError,
    SpawnFailure,
    run,
    spawn,
)
from procession.testing import Script, SimulatedLauncher
from tests.programs import first_line, program, sh

pytestmark = pytest.mark.row("PR12")

CHILD = Script(hangs=True, escaped=True, ignores_term=True, holds_pipes=False, name="sleep")

SCENARIOS: dict[str, tuple[Command, Script]] = {
    "success": (Command("true"), Script()),
    "exit 3": (sh("exit 3"), Script(exit=3)),
    "exit by signal": (sh("kill -KILL $$"), Script(exit=signal.SIGKILL)),
    "says": (sh("echo out; echo err >&2; exit 4"), Script(stdout=b"out\n", stderr=b"err\n", exit=4)),
    "merged": (sh("echo out; echo err >&2", stderr="stdout"), Script(stdout=b"out\n", stderr=b"err\n")),
    "cat": (Command("cat", stdin="pipe"), Script(echo=True)),
    "sleeper": (Command("sleep", "1000"), Script(hangs=True)),
    "stubborn": (program("ignore_term"), Script(hangs=True, ignores_term=True, stdout=b"ready\n")),
    "polite": (program("polite", "7"), Script(hangs=True, term_delay=0.0, term_exit=7, stdout=b"ready\n")),
    "escape": (program("escape", "ignore", "close"), Script(hangs=True, children=[CHILD], stdout=b"ready\n")),
    "flood": (Command("head", "-c", "1000000", "/dev/zero"), Script(stdout=b"\0" * 1_000_000)),
    "deaf": (Command("sleep", "1000", stdin="pipe"), Script(hangs=True)),
    "missing": (Command("no-such-program-anywhere"), Script(refuses=SpawnFailure.NOT_FOUND)),
}


@dataclass
class Engine:
    """An engine, and how a scenario is told to it."""

    name: str

    def __call__(self, scenario: str, **changes: Any) -> tuple[Command, Any]:
        command, script = SCENARIOS[scenario]
        launcher: Any
        if self.name == "simulated":
            launcher = SimulatedLauncher(script)
        elif self.name == "asyncio":
            launcher = AsyncioLauncher()
        else:
            launcher = PidfdLauncher()
        return command.replace(**changes), launcher

    @property
    def is_real(self) -> bool:
        return self.name != "simulated"


@pytest.fixture(params=["pidfd", "asyncio", "simulated"])
def engine(request):
    return Engine(request.param)


# ------------------------------------------------------------------------------------------------------- the protocol


async def exit_of(handle):
    future = asyncio.get_running_loop().create_future()
    handle.on_exit(lambda exit: future.done() or future.set_result(exit))
    return await future


async def test_name(engine):
    assert engine("success")[1].name == engine.name


async def test_a_handle_says_who_it_is(engine):
    command, launcher = engine("sleeper")
    handle = await launcher.launch(command, "test-1")
    try:
        assert handle.pid == handle.ref.pid > 0
        assert handle.ref.name == command.name
        assert handle.containment is Containment.TREE
        assert handle.exit is None
        assert (handle.stdin, handle.stdout is None, handle.stderr is None) == (None, False, False)
    finally:
        handle.send_signal(signal.SIGKILL)
        exit = await exit_of(handle)
        handle.close()
    assert exit == handle.exit
    assert exit.signal == signal.SIGKILL
    assert handle.pidfd is None


@pytest.mark.parametrize(("scenario", "code"), [("success", 0), ("exit 3", 3), ("exit by signal", -9)])
async def test_the_end_is_told_once_to_everybody_and_at_once_to_those_who_come_late(engine, scenario, code):
    command, launcher = engine(scenario)
    handle = await launcher.launch(command, "test-1")
    told: list[Any] = []
    handle.on_exit(told.append)
    handle.on_exit(told.append)
    await exit_of(handle)
    assert [exit.returncode for exit in told] == [code, code]
    handle.on_exit(told.append)
    assert len(told) == 3
    assert handle.exit is told[0]
    handle.close()
    handle.close()


async def test_signals_after_the_end(engine):
    command, launcher = engine("success")
    handle = await launcher.launch(command, "test-1")
    await exit_of(handle)
    with pytest.raises(ProcessLookupError):
        handle.send_signal(signal.SIGTERM)
    assert handle.signal_group(0) is False
    assert list(await handle.members()) == []
    assert handle.kill_container() is False
    handle.close()


async def test_the_group_is_signalled(engine):
    command, launcher = engine("sleeper")
    handle = await launcher.launch(command, "test-1")
    assert handle.signal_group(0) is True
    assert handle.signal_group(signal.SIGTERM) is True
    assert (await exit_of(handle)).signal == signal.SIGTERM
    handle.close()


async def test_members_are_found_signalled_and_watched(engine):
    command, launcher = engine("escape")
    handle = await launcher.launch(command, "test-1")
    said = b""
    while b"\n" not in said:
        said += await readable(handle.stdout)
    [member] = await handle.members()
    assert member.escaped
    assert member.ref.name == "sleep"
    gone = asyncio.get_running_loop().create_future()
    member.on_exit(lambda: gone.set_result(None))
    assert member.send_signal(signal.SIGTERM) is True
    assert member.send_signal(signal.SIGKILL) is True
    await gone
    member.close()
    member.close()
    assert list(await handle.members()) == []
    handle.send_signal(signal.SIGKILL)
    await exit_of(handle)
    handle.close()


async def readable(inlet):
    while (data := inlet.read_nowait(65_536)) is None:
        ready = asyncio.get_running_loop().create_future()
        inlet.on_readable(lambda ready=ready: ready.done() or ready.set_result(None))
        await ready
        inlet.on_readable(None)
    return data


async def test_pipes_never_block(engine):
    command, launcher = engine("cat")
    handle = await launcher.launch(command, "test-1")
    assert handle.stdout.read_nowait(100) is None
    data = memoryview(b"x" * 1_000_000)
    taken = 0
    while (more := handle.stdin.write_nowait(data[taken:])) is not None:
        taken += more
    assert 0 < taken < len(data)
    got = 0
    while got < taken:
        got += len(await readable(handle.stdout))
    handle.stdin.close()
    handle.stdin.close()
    with pytest.raises(BrokenPipeError):
        handle.stdin.write_nowait(memoryview(b"x"))
    assert await readable(handle.stdout) == b""
    assert (await exit_of(handle)).returncode == 0
    handle.close()


async def test_writing_to_nobody_is_a_broken_pipe(engine):
    command, launcher = engine("deaf")
    handle = await launcher.launch(command, "test-1")
    handle.send_signal(signal.SIGKILL)
    await exit_of(handle)
    with pytest.raises(BrokenPipeError):
        handle.stdin.write_nowait(memoryview(b"x"))
    handle.close()


async def test_what_cannot_start_is_a_typed_error(engine):
    command, launcher = engine("missing")
    with pytest.raises(SpawnError) as caught:
        await launcher.launch(command, "test-1")
    assert caught.value.reason is SpawnFailure.NOT_FOUND
    assert caught.value.command is command
    assert isinstance(caught.value, FileNotFoundError)


async def test_a_launch_cancelled_leaves_nothing(engine):
    for turns in range(6):
        command, launcher = engine("sleeper")
        task = asyncio.ensure_future(launcher.launch(command, f"test-{turns}"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            handle = await task
            handle.send_signal(signal.SIGKILL)
            await exit_of(handle)
            handle.close()
            continue
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if not engine.is_real:
            assert launcher.alive == []


@pytest.mark.parametrize("rung", ["none", "group", "tree"])
async def test_the_rung_asked_for_is_given(engine, rung):
    command, launcher = engine("sleeper", contain=rung)
    handle = await launcher.launch(command, "test-1")
    assert handle.containment == rung
    handle.send_signal(signal.SIGKILL)
    await exit_of(handle)
    handle.close()


# --------------------------------------------------------------------------------------------- what users see of it


async def test_run_collects(engine):
    command, launcher = engine("says")
    completed = await run(command, launcher=launcher)
    assert (completed.stdout, completed.stderr, completed.returncode) == (b"out\n", b"err\n", 4)
    command, launcher = engine("merged")
    completed = await run(command, launcher=launcher)
    assert (completed.stdout, completed.stderr) == (b"out\nerr\n", b"")
    command, launcher = engine("flood")
    completed = await run(command, launcher=launcher, max_output=1000)
    assert (len(completed.stdout), completed.stdout_dropped) == (1000, 999_000)


async def test_run_feeds(engine):
    command, launcher = engine("cat")
    data = b"x" * 1_000_000
    assert (await run(command, launcher=launcher, input=data)).stdout == data


async def test_run_times_out(engine):
    command, launcher = engine("stubborn", grace=0.1)
    with pytest.raises(ExecutionTimeout) as caught:
        await run(command, launcher=launcher, timeout=0.5)
    assert caught.value.stdout == b"ready\n"
    assert caught.value.report is not None
    assert caught.value.report.signalled == ("SIGTERM", "SIGKILL")


async def test_stop_of_a_polite_child(engine):
    command, launcher = engine("polite")
    async with spawn(command, launcher=launcher) as process:
        assert await first_line(process) == "ready"
        report = await process.stop(20)
    assert (report.signalled, report.forced, process.returncode) == (("SIGTERM",), False, 7)


async def test_stop_of_a_child_that_is_suspended(engine):
    command, launcher = engine("polite")
    async with spawn(command, launcher=launcher) as process:
        assert await first_line(process) == "ready"
        process.suspend()
        report = await process.stop(20)
    assert (report.forced, process.returncode) == (False, 7)


async def test_stop_of_a_tree(engine):
    command, launcher = engine("escape")
    async with spawn(command, launcher=launcher) as process:
        await first_line(process)
        report = await process.stop(0.1)
    assert (report.signalled, report.forced, report.members) == (("SIGTERM", "SIGKILL"), True, 1)
    assert [ref.name for ref in report.escaped] == ["sleep"]
    assert report.is_clean


async def test_a_block_left_by_cancellation(engine):
    command, launcher = engine("stubborn", grace=0.1)
    inside = asyncio.Event()
    ended = []

    async def body():
        async with spawn(command, launcher=launcher) as process:
            ended.append(process)
            await first_line(process)
            inside.set()
            await process.wait()

    task = asyncio.create_task(body())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended[0].returncode == -signal.SIGKILL


async def test_a_conversation(engine):
    command, launcher = engine("cat")
    async with spawn(command, launcher=launcher) as process:
        for number in range(20):
            assert await process.communicator().request(str(number)) == str(number)


async def test_the_registry_hears_of_one_exit(engine):
    async with ProcessRegistry() as registry:
        command, launcher = engine("exit 3")
        await run(command, launcher=launcher, registry=registry)
        [event] = registry.history(ProcessExited)
        assert isinstance(event, ProcessExited)
        assert event.exit.returncode == 3


@pytest.mark.parametrize("kind", ["pidfd", "asyncio"])
async def test_threads_per_child(kind):
    """The default has none; the portable engine says that it has one."""
    import threading

    launcher = PidfdLauncher() if kind == "pidfd" else AsyncioLauncher()
    before = threading.active_count()
    async with spawn(Command("sleep", "1000"), launcher=launcher), spawn(Command("sleep", "1000"), launcher=launcher):
        assert threading.active_count() - before == (0 if kind == "pidfd" else 2)


async def test_a_pidfd_is_what_the_system_calls_one():
    if sys.platform != "linux":
        pytest.skip("pidfds are Linux's")
    async with spawn(Command("sleep", "1000"), launcher=PidfdLauncher()) as process:
        assert process.pidfd is not None
        assert os.readlink(f"/proc/self/fd/{process.pidfd}").startswith(("anon_inode:[pidfd]", "pidfd:"))  # noqa: PTH115
