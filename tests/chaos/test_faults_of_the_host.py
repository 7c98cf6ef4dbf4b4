"""What the program around us may do: take our children's statuses, our descriptors, our memory, our time."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from procession import Command, PidfdLauncher, Process, SpawnError, SpawnFailure, run, spawn
from procession._launch import _spawner
from procession._linux import _reserve
from procession.testing import failing_spawn, fd_limit, slow_spawn
from tests.chaos.support import alive, child, python, watching

WAITS = "import sys; sys.stdin.read(); sys.exit(3)"


@pytest.fixture(autouse=True)
def _reserve_is_full() -> Iterator[None]:
    yield
    _reserve.fill()


async def facts(process: Process) -> dict[str, int]:
    """What a child of ours says about itself."""
    found: dict[str, int] = json.loads(await anext(aiter(process.lines("stdout"))))
    return found


@contextmanager
def handler(of: int, action: Callable[..., object] | int) -> Iterator[None]:
    before = signal.signal(of, action)
    try:
        yield
    finally:
        signal.signal(of, before)


def knows_lost_statuses() -> bool:
    """Whether the kernel remembers how a process ended that somebody else has reaped (Linux 6.15)."""
    from procession._linux._pidfd import recorded_exit

    pid = os.fork()
    if not pid:
        os._exit(5)
    fd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    try:
        return recorded_exit(fd).returncode == 5
    finally:
        os.close(fd)


# ------------------------------------------------------------------------------------------------- somebody else reaps


async def test_sigchld_ignored_by_the_host_gives_the_true_status_or_none() -> None:
    with handler(signal.SIGCHLD, signal.SIG_IGN):
        async with spawn(python(WAITS, stdin="pipe")) as process:
            assert process.stdin is not None
            process.stdin.close()
            status = await asyncio.wait_for(process.wait(), 5)
            assert process.exit is not None
            if knows := known():
                assert status == 3
            else:
                assert status is None
                assert str(process.exit) == "status lost"
            assert process.exit.is_lost is not knows
        quick = await run(Command("sh", "-c", "exit 4"))
        assert quick.returncode in (4, None)  # never an invented number


async def test_a_foreign_sigchld_handler_is_left_alone_and_takes_nothing() -> None:
    def reaps_all(*_: object) -> None:
        with_children = True
        while with_children:
            try:
                with_children = os.waitpid(-1, os.WNOHANG) != (0, 0)
            except ChildProcessError:
                with_children = False

    with handler(signal.SIGCHLD, reaps_all):
        async with spawn(python(WAITS, stdin="pipe")) as process:
            assert process.stdin is not None
            process.stdin.close()
            status = await process.wait()
            assert status == 3 or (status is None and not known())
        assert signal.getsignal(signal.SIGCHLD) is reaps_all


async def test_a_thread_that_reaps_everything_does_not_make_us_lie() -> None:
    stop = threading.Event()

    def reaper() -> None:
        while not stop.is_set():
            try:
                pid = os.waitpid(-1, os.WNOHANG)[0]
            except ChildProcessError:
                pid = 0
            if not pid:
                stop.wait(0.0005)

    thread = threading.Thread(target=reaper)
    thread.start()
    try:
        for code in range(3, 8):
            async with spawn(python(f"import sys; sys.stdin.read(); sys.exit({code})", stdin="pipe")) as process:
                assert process.stdin is not None
                process.stdin.close()
                status = await process.wait()
                assert status == code or (status is None and not known())
        async with spawn(child("stubborn")) as process:
            await facts(process)
            report = await process.stop(0.05)
            assert report.is_clean
            assert report.exit is not None
            assert report.exit.signal in (signal.SIGKILL, None)
    finally:
        stop.set()
        thread.join()


def known() -> bool:
    return KNOWN


KNOWN = sys.platform.startswith("linux") and knows_lost_statuses()


async def test_a_signal_after_the_end_reaches_nobody() -> None:
    async with spawn(Command("true")) as process:
        await process.wait()
        for late in (process.kill, process.terminate, lambda: process.send_signal("USR1"), process.suspend):
            with pytest.raises(ProcessLookupError):
                late()


async def test_a_signal_to_a_child_reaped_by_somebody_else_reaches_nobody() -> None:
    async with spawn(child("plain")) as process:
        await facts(process)
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)  # from here on the number is free for anybody; we have not noticed yet
        assert process.is_running
        with pytest.raises(ProcessLookupError):
            process.kill()
        assert await process.wait() == (-signal.SIGKILL if known() else None)


# ------------------------------------------------------------------------------------------------ descriptors, memory


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
async def test_a_limit_is_named_and_the_next_spawn_works(number: int) -> None:
    expected = {
        errno.EAGAIN: SpawnFailure.PROCESS_LIMIT,
        errno.ENOMEM: SpawnFailure.OUT_OF_MEMORY,
        errno.EMFILE: SpawnFailure.FD_LIMIT,
        errno.ENFILE: SpawnFailure.FD_LIMIT,
    }
    with failing_spawn(number, times=3):
        for _ in range(3):
            with pytest.raises(SpawnError) as caught:
                await run(Command("true"), input=b"x")
            assert caught.value.reason is expected[number]
            assert caught.value.errno == number
            assert caught.value.command.program == "true"
        assert (await run(Command("true"))).ok


async def test_every_number_of_free_descriptors_is_survived() -> None:
    outcomes: set[object] = set()
    for free in range(16):
        with fd_limit(free):
            try:
                completed = await run(Command("cat"), input=b"data")
                assert completed.stdout == b"data"
                outcomes.add("ok")
            except SpawnError as error:
                outcomes.add(error.reason)
    assert outcomes == {"ok", SpawnFailure.FD_LIMIT}


async def test_no_descriptor_left_yet_everything_can_be_stopped() -> None:
    async with spawn(child("setsid")) as process:
        pids = await facts(process)
        with watching(pids) as watch:
            with fd_limit(0):
                report = await process.stop(0.05)
            assert report.is_clean
            assert {ref.pid for ref in report.escaped} == {pids["setsid"]}
            assert watch.left(within=2.0) == set()


async def test_no_descriptor_left_yet_control_goes_on() -> None:
    async with spawn(python("import sys\nfor l in sys.stdin: print(l, end='', flush=True)", stdin="pipe")) as process:
        talk = process.communicator()
        with fd_limit(0):
            assert await talk.request("hello") == "hello"
            process.suspend()
            process.resume()
            await process.signal_tree("CONT")
            process.terminate()
            assert await process.wait() == -signal.SIGTERM


async def test_a_block_left_without_a_free_descriptor_leaves_nothing() -> None:
    with watching({}) as watch:
        async with spawn(child("quiet_setsid")) as process:
            watch.add(await facts(process))
            soft = fd_limit(0)
            soft.__enter__()
        soft.__exit__(None, None, None)
        assert watch.left(within=2.0) == set()


async def test_the_thread_limit_is_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first spawn of a program needs a thread; when that fails the second one must not hang."""

    class Refused(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    fresh = _spawner.Spawner()
    monkeypatch.setattr(_spawner, "_spawner", fresh)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(threading, "Thread", Refused)
            for _ in range(2):
                with pytest.raises(SpawnError) as caught:
                    await run(Command("true"))
                assert caught.value.reason is SpawnFailure.PROCESS_LIMIT
    finally:
        os.close(fresh._wake_r)
        os.close(fresh._wake_w)


def test_the_first_spawn_of_a_program_without_a_free_descriptor_is_a_typed_error() -> None:
    code = """
import asyncio, gc, os
from procession import Command, run, SpawnError
from procession.testing import fd_limit
async def main():
    await asyncio.sleep(0)
    before = len(os.listdir("/proc/self/fd"))
    outcomes = []
    for free in range(14):
        with fd_limit(free):
            try:
                await run(Command("cat"), input=b"x")
                outcomes.append("ok")
            except SpawnError as error:
                outcomes.append(error.reason.name)
    assert set(outcomes) == {"FD_LIMIT", "ok"}, outcomes
    kept = len(os.listdir("/proc/self/fd")) - before
    assert kept <= 4 + 16, kept
    assert (await run(Command("cat"), input=b"x")).stdout == b"x"
asyncio.run(main())
print("fine")
"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("fine\n", "")


async def test_a_nul_and_an_equals_sign_never_reach_the_kernel() -> None:
    from procession import ConfigError

    for bad in (
        lambda: Command("echo", "a\0b"),
        lambda: Command("echo", env={"A": "b\0c"}),
        lambda: Command("echo", env={"A=B": "c"}),
        lambda: Command("echo", env={"": "c"}),
        lambda: Command("echo", cwd="/tmp\0/x"),
    ):
        with pytest.raises(ConfigError):
            bad()


async def test_an_inheritable_descriptor_of_ours_is_not_seen_by_the_child() -> None:
    mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    try:
        for fd in mine:
            os.set_inheritable(fd, True)
        code = "import os; print(sorted(int(fd) for fd in os.listdir('/proc/self/fd')))"
        seen = json.loads((await run(python(code))).stdout)
        assert [fd for fd in seen if fd > 3] == []  # 3 is the listing itself
        seen = json.loads((await run(python(code, pass_fds=[mine[1]]))).stdout)
        assert mine[1] in seen
        assert not {mine[0], mine[2]} & set(seen)
    finally:
        for fd in mine:
            os.close(fd)


# ---------------------------------------------------------------------------------------------------------- slow exec


async def worst_stall(task: asyncio.Task[object]) -> float:
    """The longest time between two turns of the loop until ``task`` is done."""
    loop = asyncio.get_running_loop()
    worst, last = 0.0, loop.time()
    while not task.done():
        await asyncio.sleep(0.001)
        now = loop.time()
        worst, last = max(worst, now - last), now
    return worst


async def test_a_child_slow_to_exec_does_not_stall_the_loop() -> None:
    async def two() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(run(Command("true")))

    gc.collect()
    with slow_spawn(0.25) as fault:
        task: asyncio.Task[object] = asyncio.get_running_loop().create_task(two())
        assert await worst_stall(task) < 0.05
        await task
        assert fault.hits == 2


async def test_a_spawn_past_its_deadline_fails_and_what_comes_late_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    late = asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()
    real = _spawner.popen
    go_on = threading.Event()

    def slow(*args: object, **options: object) -> object:
        if args[0] != ["sleep", "1000"]:
            return real(*args, **options)
        go_on.wait(10)
        made = real(*args, **options)
        loop.call_soon_threadsafe(late.set_result, os.pidfd_open(made.pid))
        return made

    monkeypatch.setattr(_spawner, "popen", slow)
    launcher = PidfdLauncher(spawn_timeout=0.2)
    with pytest.raises(SpawnError) as caught:
        async with spawn(Command("sleep", "1000"), launcher=launcher):
            pass
    assert caught.value.reason is SpawnFailure.TIMEOUT
    assert (await run(Command("true"), launcher=launcher)).ok  # others go on meanwhile
    go_on.set()
    pidfd = await late
    ended: asyncio.Future[None] = loop.create_future()
    loop.add_reader(pidfd, lambda: ended.done() or ended.set_result(None))
    async with asyncio.timeout(5):
        await ended
    loop.remove_reader(pidfd)
    os.close(pidfd)


async def test_others_go_on_whichever_thread_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads on one queue: a spawn must never wait behind one that hangs while the other thread is idle."""
    real = _spawner.popen
    release = threading.Event()

    def slow(*args: object, **options: object) -> object:
        if args[0][0] == "sleep":  # type: ignore[index]
            release.wait(10)
        return real(*args, **options)

    monkeypatch.setattr(_spawner, "popen", slow)
    launcher = PidfdLauncher(spawn_timeout=0.1)
    with pytest.raises(SpawnError):
        await run(Command("sleep", "1000"), launcher=launcher)  # from here on there are two threads
    release.set()
    await run(Command("true"))
    for _ in range(10):
        release.clear()
        patient = PidfdLauncher(spawn_timeout=5)
        hanging = asyncio.get_running_loop().create_task(run(Command("sleep", "0"), launcher=patient))
        await asyncio.sleep(0)
        assert (await run(Command("true"), launcher=PidfdLauncher(spawn_timeout=1))).ok
        release.set()
        await hanging


def test_a_loop_closed_while_a_spawn_is_under_way_leaves_nothing() -> None:
    for turns in (1, 2, 3):
        loop = asyncio.SelectorEventLoop()
        made: list[int] = []
        real = _spawner.popen

        def noting(*args: object, _real=real, _made=made, **options: object) -> object:
            child = _real(*args, **options)
            _made.append(os.pidfd_open(child.pid))
            return child

        _spawner.popen = noting  # type: ignore[assignment]
        try:
            tasks = [loop.create_task(run(Command("sleep", "1000"))) for _ in range(5)]
            for _ in range(turns):
                loop.call_soon(loop.stop)
                loop.run_forever()
            loop.close()
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
            del tasks
            del task
            gc.collect()
            end = time.monotonic() + 5
            left = [fd for fd in made if not ended(fd, end)]
            while len(made) < 5 and time.monotonic() < end:  # those still in the queue are made, and ended
                left = [fd for fd in made if not ended(fd, end)]
            assert left == []
        finally:
            _spawner.popen = real
            for fd in made:
                os.close(fd)


def ended(pidfd: int, until: float) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, until - time.monotonic()) * 1000))


def test_a_loop_that_has_run_a_child_can_be_forgotten() -> None:
    async def program() -> None:
        await run(Command("true"))

    forgotten = []
    for _ in range(2):
        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(program())
        loop.close()
        forgotten.append(weakref.ref(loop))
        del loop
    gc.collect()
    assert [ref() for ref in forgotten] == [None, None]


# ------------------------------------------------------------------------------------------------------------- threads


async def test_the_number_of_threads_does_not_depend_on_the_number_of_children() -> None:
    await run(Command("true"))
    before = threading.active_count()
    from contextlib import AsyncExitStack

    async with AsyncExitStack() as stack:
        for _ in range(100):
            await stack.enter_async_context(spawn(Command("sleep", "1000", grace=1)))
        assert threading.active_count() <= before + 1  # the scanner's, at most
    assert threading.active_count() <= before + 1


async def test_a_death_signal_armed_in_the_spawner_is_not_sent_while_the_program_lives() -> None:
    """PR_SET_PDEATHSIG fires when the thread that made the child ends, so that thread must never end."""
    async with spawn(child("plain", death_signal="KILL")) as process:
        await facts(process)
        await asyncio.to_thread(lambda: None)
        for _ in range(20):
            await run(Command("true"))
        names = {thread.name for thread in threading.enumerate()}
        assert any(name.startswith("procession-spawner") for name in names)
        assert process.is_running
        assert alive(process.pid)
