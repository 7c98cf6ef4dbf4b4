"""Simulated processes: they live by their script, take signals as the kernel gives them, and push back."""

import asyncio
import errno
import signal
from collections.abc import Callable
from functools import partial

import pytest

from procession._types import Containment, Exit
from procession.abc import Launcher, Member, ProcessHandle
from procession.command import Command
from procession.errors import ConfigError, SpawnError, SpawnFailure
from procession.testing import (
    FIRST_PID,
    MemoryInlet,
    MemoryOutlet,
    Script,
    SimulatedHandle,
    SimulatedLauncher,
    run_virtual,
)


def now() -> float:
    return asyncio.get_running_loop().time()


def out(handle: SimulatedHandle) -> MemoryInlet:
    assert handle.stdout is not None
    return handle.stdout


def into(handle: SimulatedHandle) -> MemoryOutlet:
    assert handle.stdin is not None
    return handle.stdin


async def ended(handle: SimulatedHandle) -> tuple[Exit, float]:
    future: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    handle.on_exit(future.set_result)
    return await future, now()


async def read_all(inlet: MemoryInlet | None) -> list[tuple[float, bytes]]:
    assert inlet is not None
    loop = asyncio.get_running_loop()
    got: list[tuple[float, bytes]] = []
    done = loop.create_future()

    def readable() -> None:
        data = inlet.read_nowait(1_000_000)
        if data == b"":
            inlet.on_readable(None)
            done.set_result(None)
        elif data:
            got.append((loop.time(), data))

    inlet.on_readable(readable)
    await done
    return got


async def start(script: Script, *, rung: Containment = Containment.CGROUP, **options: object) -> SimulatedHandle:
    launcher = SimulatedLauncher(script, rung=rung)
    return await launcher.launch(Command("it", **options), "it")


def send_at(handle: SimulatedHandle, at: float, signum: int) -> None:
    asyncio.get_running_loop().call_at(at, handle.process.deliver, signum)


# ------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize(
    ("script", "returncode", "at"),
    [
        (Script(), 0, 0),
        (Script(duration=3600, exit=3), 3, 3600),
        (Script(duration=1, exit=signal.SIGSEGV), -11, 1),
        (Script(duration=1, exit=None), None, 1),
        (Script(duration=1, stdout=[(5, b"late")]), 0, 5),
        (Script(hangs=True, dies_at=7), -9, 7),
        (Script(hangs=True, dies_at=7, dies_of=signal.SIGABRT), -6, 7),
        (Script(duration=3, dies_at=7), 0, 3),
        (Script(duration=3, unkillable=True, dies_at=1), -9, 3),
    ],
)
def test_it_ends_as_its_script_says(script, returncode, at):
    async def main():
        handle = await start(script)
        exit, when = await ended(handle)
        assert handle.exit == exit
        return exit.returncode, when

    assert run_virtual(main) == (returncode, at)


@pytest.mark.parametrize(
    ("script", "signals", "returncode", "at"),
    [
        (Script(hangs=True), [(2, signal.SIGTERM)], -15, 2),
        (Script(hangs=True), [(2, signal.SIGUSR1)], -10, 2),
        (Script(hangs=True, ignores_term=True), [(2, signal.SIGTERM), (4, signal.SIGKILL)], -9, 4),
        (Script(hangs=True, ignores=(signal.SIGINT,)), [(2, signal.SIGINT), (4, signal.SIGTERM)], -15, 4),
        (Script(duration=9), [(2, 0), (2, signal.SIGCHLD), (2, signal.SIGWINCH), (3, signal.SIGCONT)], 0, 9),
        (Script(hangs=True, term_delay=5), [(2, signal.SIGTERM), (3, signal.SIGTERM)], 0, 7),
        (Script(hangs=True, term_delay=5, term_exit=3), [(2, signal.SIGINT)], 3, 7),
        (Script(hangs=True, term_delay=5), [(2, signal.SIGTERM), (4, signal.SIGKILL)], -9, 4),
        # suspended: its clock stands still
        (Script(duration=10), [(2, signal.SIGSTOP), (5, signal.SIGCONT)], 0, 13),
        (
            Script(duration=10),
            [(2, signal.SIGSTOP), (3, signal.SIGSTOP), (5, signal.SIGCONT), (6, signal.SIGCONT)],
            0,
            13,
        ),
        (Script(duration=10, ignores=(signal.SIGTSTP,)), [(2, signal.SIGTSTP)], 0, 10),
        # a signal to a stopped process waits for SIGCONT, except SIGKILL and what is ignored
        (Script(hangs=True), [(2, signal.SIGSTOP), (3, signal.SIGTERM), (8, signal.SIGCONT)], -15, 8),
        (Script(hangs=True), [(2, signal.SIGSTOP), (3, signal.SIGKILL)], -9, 3),
        (Script(duration=5, ignores_term=True), [(2, signal.SIGSTOP), (3, signal.SIGTERM), (4, signal.SIGCONT)], 0, 7),
        (Script(hangs=True, term_delay=5), [(2, signal.SIGTERM), (3, signal.SIGSTOP), (10, signal.SIGCONT)], 0, 14),
    ],
)
def test_signals_do_what_they_do_in_the_kernel(script, signals, returncode, at):
    async def main():
        handle = await start(script)
        for when, signum in signals:
            send_at(handle, when, signum)
        exit, when = await ended(handle)
        return exit.returncode, when

    assert run_virtual(main) == (returncode, at)


def test_an_unkillable_process_takes_its_signals_when_released():
    async def main():
        handle = await start(Script(hangs=True, unkillable=True))
        handle.send_signal(signal.SIGTERM)
        handle.send_signal(signal.SIGKILL)
        await asyncio.sleep(100)
        assert handle.exit is None
        assert handle.process.is_alive
        handle.process.release()
        return await ended(handle)

    assert run_virtual(main) == (Exit(-9), 100)


def test_the_end_is_told_a_turn_later_and_to_all():
    async def main():
        handle = await start(Script(hangs=True))
        told: list[str] = []
        handle.on_exit(lambda exit: told.append(f"first {exit}"))
        handle.send_signal(signal.SIGKILL)
        assert handle.exit is None  # dead, not yet reaped
        handle.send_signal(0)
        await ended(handle)
        handle.on_exit(lambda exit: told.append(f"late {exit}"))
        with pytest.raises(ProcessLookupError):
            handle.send_signal(0)
        return told

    assert run_virtual(main) == ["first SIGKILL", "late SIGKILL"]


def test_a_bad_signal_number_is_refused():
    async def main():
        handle = await start(Script(hangs=True))
        with pytest.raises(OSError, match="Invalid") as caught:
            handle.send_signal(99)
        return caught.value.errno

    assert run_virtual(main) == errno.EINVAL


# ---------------------------------------------------------------------------------------------- starting


def test_starting_takes_time_and_may_be_refused():
    async def main():
        launcher = SimulatedLauncher(Script(refuses=SpawnFailure.PROCESS_LIMIT, start_delay=2))
        with pytest.raises(SpawnError) as caught:
            await launcher.launch(Command("it"), "a")
        assert now() == 2
        assert [(one.id, one.at) for one in launcher.launched] == [("a", 0)]
        assert launcher.processes == []
        return caught.value.reason, caught.value.errno

    assert run_virtual(main) == (SpawnFailure.PROCESS_LIMIT, errno.EAGAIN)


@pytest.mark.parametrize("reason", SpawnFailure)
def test_every_failure_can_be_had(reason):
    async def main():
        with pytest.raises(SpawnError) as caught:
            await start(Script(refuses=reason))
        return caught.value.reason

    assert run_virtual(main) is reason


def test_a_cancelled_start_leaves_nothing():
    async def main():
        launcher = SimulatedLauncher(Script(start_delay=5, hangs=True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await launcher.launch(Command("it"), "a")
        assert len(launcher.launched) == 1
        return launcher.alive

    assert run_virtual(main) == []


@pytest.mark.parametrize(
    "scripts",
    [
        {"api": [Script(exit=1), Script(exit=2), Script()]},
        {"/usr/bin/api": [Script(exit=1), Script(exit=2), Script()]},
        [Script(exit=1), Script(exit=2), Script()],
    ],
)
def test_successive_starts_follow_successive_scripts(scripts):
    async def main():
        launcher = SimulatedLauncher(scripts)
        codes = []
        for number in range(4):
            exit, _ = await ended(await launcher.launch(Command("/usr/bin/api"), str(number)))
            codes.append(exit.returncode)
        return codes

    assert run_virtual(main) == [1, 2, 0, 0]


def test_a_function_may_choose_and_the_default_steps_in():
    def choose(command: Command) -> Script | None:
        return Script(exit=int(command.argv[1])) if command.program == "exit" else None

    async def main():
        launcher = SimulatedLauncher(choose, default=Script(exit=42))
        first, _ = await ended(await launcher.launch(Command("exit", "7"), "a"))
        second, _ = await ended(await launcher.launch(Command("other"), "b"))
        return first.returncode, second.returncode

    assert run_virtual(main) == (7, 42)


def test_an_unknown_program_is_not_found():
    async def main():
        with pytest.raises(FileNotFoundError):
            await SimulatedLauncher({"api": Script()}).launch(Command("db"), "a")

    run_virtual(main)


def test_nothing_given_everything_succeeds_at_once():
    async def main():
        return await ended(await SimulatedLauncher().launch(Command("it"), "a"))

    assert run_virtual(main) == (Exit(0), 0)


def test_pids_can_never_be_real():
    async def main():
        launcher = SimulatedLauncher()
        handles = [await launcher.launch(Command("it"), str(number)) for number in range(3)]
        assert len({handle.pid for handle in handles}) == 3
        assert all(handle.pid >= FIRST_PID > 2**22 for handle in handles)
        assert handles[0].pidfd is None
        assert handles[0].ref.pid == handles[0].pid
        assert launcher.handles == {str(number): handle for number, handle in enumerate(handles)}

    run_virtual(main)


@pytest.mark.parametrize(
    "bad",
    [
        {"duration": -1},
        {"duration": float("nan")},
        {"exit": 256},
        {"exit": -9},
        {"term_exit": -1},
        {"stdout": [(-1, b"")]},
        {"children": [Script(refuses=SpawnFailure.OTHER)]},
    ],
)
def test_a_script_that_makes_no_sense_is_refused(bad):
    with pytest.raises(ConfigError) as caught:
        Script(**bad)
    assert caught.value.field in bad


def test_two_words_for_every_program_are_refused():
    with pytest.raises(ConfigError):
        SimulatedLauncher(Script(), default=Script())


# --------------------------------------------------------------------------------------------------- streams


def test_output_comes_at_its_time_and_ends_with_the_process():
    async def main():
        handle = await start(Script(duration=10, stdout=[(1, b"a"), (5, b"b")], stderr=b"e"))
        out, err = await asyncio.gather(read_all(handle.stdout), read_all(handle.stderr))
        return out, err, now()

    assert run_virtual(main) == ([(1, b"a"), (5, b"b")], [(0, b"e")], 10)


def test_stderr_can_be_merged():
    async def main():
        handle = await start(Script(stdout=[(1, b"a"), (3, b"c")], stderr=[(2, b"b")]), stderr="stdout")
        assert handle.stderr is None
        return await read_all(handle.stdout)

    assert run_virtual(main) == [(1, b"a"), (2, b"b"), (3, b"c")]


def test_what_is_not_a_pipe_has_no_end_here():
    async def main():
        handle = await start(Script(stdout=b"x" * 1_000_000, reads_stdin=True), stdout="null", stderr="null")
        assert (handle.stdin, handle.stdout, handle.stderr) == (None, None, None)
        return await ended(handle)

    assert run_virtual(main) == (Exit(0), 0)


def test_a_full_pipe_stops_the_writer_and_its_clock():
    async def main():
        handle = await start(Script(duration=10, stdout=[(1, b"x" * 200_000)]))
        await asyncio.sleep(100)
        assert handle.process.is_blocked
        assert len(out(handle).pipe.buffer) == 65_536
        got = await read_all(handle.stdout)
        return sum(len(data) for _, data in got), now()

    assert run_virtual(main) == (200_000, 109)


def test_a_reader_that_left_is_a_broken_pipe():
    async def main():
        handle = await start(Script(duration=10, stdout=[(1, b"x")]))
        out(handle).close()
        out(handle).close()
        assert out(handle).read_nowait(1) == b""
        first = await ended(handle)
        blocked = await start(Script(hangs=True, stdout=b"x" * 100_000))
        await asyncio.sleep(1)
        out(blocked).close()
        second, _ = await ended(blocked)
        deaf = await start(Script(duration=1, stdout=b"x", ignores=(signal.SIGPIPE,)))
        out(deaf).close()
        third, _ = await ended(deaf)
        return first, second.returncode, third.returncode

    assert run_virtual(main) == ((Exit(-13), 1), -13, 0)


def test_it_echoes_its_stdin_until_the_end_of_it():
    async def main():
        handle = await start(Script(echo=True), stdin="pipe")
        reading = asyncio.ensure_future(read_all(handle.stdout))
        for word in (b"one", b"two"):
            await asyncio.sleep(1)
            assert into(handle).write_nowait(memoryview(word)) == 3
        await asyncio.sleep(1)
        into(handle).close()
        into(handle).close()
        with pytest.raises(BrokenPipeError):
            into(handle).write_nowait(memoryview(b"x"))
        return await reading, bytes(handle.process.received), (await ended(handle))[0]

    assert run_virtual(main) == ([(1, b"one"), (2, b"two")], b"onetwo", Exit(0))


def test_an_echo_nobody_reads_pushes_back_to_its_writer():
    async def main():
        handle = await start(Script(echo=True), stdin="pipe")
        sent, room = 0, asyncio.Event()
        data = memoryview(b"x" * 1_000_000)

        def write() -> None:
            nonlocal sent
            written = into(handle).write_nowait(data[sent:])
            sent += written or 0
            if sent == len(data):
                into(handle).on_writable(None)
                room.set()

        into(handle).on_writable(write)
        await asyncio.sleep(4)
        assert 2 * 65_536 <= sent <= 3 * 65_536
        assert handle.process.is_blocked
        reading = asyncio.ensure_future(read_all(handle.stdout))
        await room.wait()
        into(handle).close()
        return sum(len(part) for _, part in await reading)

    assert run_virtual(main) == 1_000_000


def test_small_writes_are_whole_or_not_at_all():
    async def main():
        handle = await start(Script(hangs=True), stdin="pipe")
        assert into(handle).write_nowait(memoryview(bytes(100_000))) == 65_536
        assert into(handle).write_nowait(memoryview(b"x")) is None
        handle.process.deliver(signal.SIGKILL)
        with pytest.raises(BrokenPipeError):
            into(handle).write_nowait(memoryview(b"x"))

    run_virtual(main)


def test_callbacks_come_while_the_level_holds_and_end_with_none():
    async def main():
        handle = await start(Script(hangs=True, stdout=b"abc"))
        calls = 0

        def readable() -> None:
            nonlocal calls
            calls += 1
            out(handle).read_nowait(1)

        out(handle).on_readable(readable)
        await asyncio.sleep(1)
        assert calls == 3
        assert out(handle).read_nowait(1) is None
        out(handle).on_readable(None)

    run_virtual(main)


def test_suspended_output_waits():
    async def main():
        handle = await start(Script(stdout=[(1, b"a"), (3, b"b")]))
        send_at(handle, 2, signal.SIGSTOP)
        send_at(handle, 12, signal.SIGCONT)
        return await read_all(handle.stdout)

    assert run_virtual(main) == [(1, b"a"), (13, b"b")]


def test_a_terminal_is_one_stream_with_a_size():
    async def main():
        handle = await start(Script(stdout=b"o", stderr=b"e"), pty=True)
        assert handle.stderr is None
        assert handle.stdin is not None
        handle.resize(50, 132)
        assert handle.size == (50, 132)
        plain = await start(Script())
        with pytest.raises(ConfigError):
            plain.resize(1, 1)
        return b"".join(data for _, data in await read_all(handle.stdout))

    assert run_virtual(main) == b"oe"


# -------------------------------------------------------------------------------------------- the tree


TREE = Script(
    duration=5,
    children=[
        Script(hangs=True, name="worker"),
        Script(
            hangs=True, escaped=True, ignores_term=True, name="daemon", children=[Script(hangs=True, name="helper")]
        ),
        Script(duration=1, name="short"),
    ],
)


@pytest.mark.parametrize(
    ("rung", "found"),
    [
        (Containment.NONE, []),
        (Containment.GROUP, ["worker"]),
        (Containment.TREE, ["daemon", "helper", "worker"]),
        (Containment.CGROUP, ["daemon", "helper", "worker"]),
    ],
)
def test_members_are_found_as_far_as_the_rung_reaches(rung, found):
    async def main():
        handle = await start(TREE, contain=rung)
        assert handle.containment is rung
        await asyncio.sleep(2)
        members = await handle.members()
        assert {member.ref.name for member in members if member.escaped} <= {"daemon", "helper"}
        return sorted(member.ref.name for member in members)

    assert run_virtual(main) == found


def test_the_system_may_offer_less_than_is_asked_for():
    async def main():
        handle = await start(TREE, rung=Containment.GROUP, contain=Containment.CGROUP)
        return handle.containment, handle.kill_container()

    assert run_virtual(main) == (Containment.GROUP, False)


def test_a_group_signal_reaches_the_group_even_after_its_leader():
    async def main():
        handle = await start(TREE)
        await ended(handle)
        assert handle.signal_group(0)
        assert handle.signal_group(signal.SIGTERM)
        await asyncio.sleep(0)
        assert not handle.signal_group(0)
        return sorted(member.ref.name for member in await handle.members())

    assert run_virtual(main) == ["daemon", "helper"]


def test_without_a_group_it_is_the_child_alone():
    async def main():
        handle = await start(TREE, contain=Containment.NONE)
        await asyncio.sleep(2)
        assert handle.signal_group(signal.SIGKILL)
        await ended(handle)
        return [one.name for one in handle.process.descendants() if one.is_alive], handle.signal_group(0)

    assert run_virtual(main) == (["worker", "daemon", "helper"], False)


def test_members_are_signalled_one_by_one_and_tell_their_end():
    async def main():
        handle = await start(TREE)
        await asyncio.sleep(2)
        members = {member.ref.name: member for member in await handle.members()}
        told: list[str] = []
        for name, member in members.items():
            member.on_exit(partial(told.append, name))
        members["worker"].close()
        for member in members.values():
            assert member.send_signal(signal.SIGTERM)
        await asyncio.sleep(0)
        assert members["daemon"].send_signal(signal.SIGKILL)
        assert not members["helper"].send_signal(signal.SIGKILL)
        await asyncio.sleep(0)
        return sorted(told)

    assert run_virtual(main) == ["daemon", "helper"]


def test_a_cgroup_is_ended_at_once():
    async def main():
        launcher = SimulatedLauncher(TREE, rung=Containment.CGROUP)
        handle = await launcher.launch(Command("it", contain="cgroup"), "it")
        await asyncio.sleep(2)
        assert len(launcher.alive) == 4
        assert len(launcher.processes) == 5
        assert handle.kill_container()
        return launcher.alive

    assert run_virtual(main) == []


def test_a_leak_is_an_escaped_daemon():
    async def main():
        handle = await start(Script(leaks=True))
        await read_all(handle.stdout)
        await ended(handle)
        (member,) = await handle.members()
        return member.escaped, member.ref.name

    assert run_virtual(main) == (True, "daemon")


@pytest.mark.parametrize(("holds", "at"), [(True, 50), (False, 1)])
def test_a_grandchild_may_hold_the_pipes(holds, at):
    async def main():
        handle = await start(Script(duration=1, children=[Script(duration=50, holds_pipes=holds)]))
        exit, when = await ended(handle)
        assert (exit, when) == (Exit(0), 1)
        await read_all(handle.stdout)
        return now()

    assert run_virtual(main) == at


def test_letting_go_touches_no_process():
    async def main():
        launcher = SimulatedLauncher(Script(duration=5))
        handle = await launcher.launch(Command("it"), "it")
        told: list[Exit] = []
        handle.on_exit(told.append)
        handle.close()
        handle.close()
        await asyncio.sleep(1)
        assert launcher.alive
        await asyncio.sleep(10)
        return told, launcher.alive

    assert run_virtual(main) == ([], [])


def test_tests_can_look_at_everything():
    async def main():
        launcher = SimulatedLauncher(Script(hangs=True, term_delay=3))
        handle = await launcher.launch(Command("it", "now"), "it")
        (process,) = launcher.processes
        assert "alive" in repr(process)
        await asyncio.sleep(1)
        handle.send_signal(signal.SIGSTOP)
        assert process.is_stopped
        assert "stopped" in repr(process)
        handle.send_signal(signal.SIGCONT)
        handle.send_signal(signal.SIGTERM)
        assert process.is_cleaning_up
        await ended(handle)
        assert process.signals == [(1, 19), (1, 18), (1, 15)]
        assert (process.started_at, process.ended_at) == (0, 4)
        assert launcher.launched[0].command.argv == ("it", "now")
        assert launcher.name == "simulated"
        return repr(process)

    assert "exit 0" in run_virtual(main)


def test_the_protocols_are_met():
    make: Callable[[], Launcher] = SimulatedLauncher

    async def main():
        handle: ProcessHandle = await make().launch(Command("it"), "it")
        members: list[Member] = list(await handle.members())
        return members

    assert run_virtual(main) == []
