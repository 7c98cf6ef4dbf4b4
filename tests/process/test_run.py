"""run(): input of every kind, output, limits, time, cancellation – and nothing left, whatever happens."""

import asyncio
import io
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from procession import (
    Command,
    ConfigError,
    ExecutionTimeout,
    ExitError,
    ProcessExited,
    ProcessRegistry,
    ProcessSpawned,
    SignaledError,
    run,
)
from tests.programs import alive, ended, program, sh

pytestmark = pytest.mark.row("PR2")


async def test_what_it_wrote_and_how_it_ended():
    completed = await run(sh("echo out; echo err >&2; exit 3"))
    assert (completed.stdout, completed.stderr) == (b"out\n", b"err\n")
    assert (completed.text, completed.error_text) == ("out\n", "err\n")
    assert completed.returncode == 3
    assert str(completed.exit) == "exit 3"
    assert not completed.ok
    assert not completed.truncated
    assert completed.report is None
    assert completed.pid > 0
    assert completed.command.program == "sh"
    assert 0 < completed.duration < 10
    assert pickle.loads(pickle.dumps(completed)) == completed


async def test_its_stdin_is_empty_by_default():
    assert (await run(Command("cat", timeout=10))).stdout == b""


BIG = b"0123456789abcdef" * 65_536  # more than any pipe holds


def _generator():
    for at in range(0, len(BIG), 100_000):
        yield BIG[at : at + 100_000]


async def _agenerator():
    for piece in _generator():
        await asyncio.sleep(0)
        yield piece


class _Iterable:
    def __aiter__(self):
        return _agenerator()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: BIG,
        lambda path: bytearray(BIG),
        lambda path: memoryview(BIG).cast("B"),
        lambda path: BIG.decode(),
        lambda path: path,
        lambda path: io.BytesIO(BIG),
        lambda path: [BIG, b"", BIG[:0]],
        lambda path: _generator(),
        lambda path: _agenerator(),
        lambda path: _Iterable(),
    ],
    ids=["bytes", "bytearray", "memoryview", "str", "path", "file", "list", "generator", "agenerator", "aiterable"],
)
async def test_input_of_every_kind_arrives_whole(make, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(BIG)
    completed = await run(Command("cat"), input=make(path), check=True)
    assert completed.stdout == BIG


async def test_an_open_file_as_input(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(BIG)
    with path.open("rb") as file:
        assert (await run(Command("cat"), input=file)).stdout == BIG


async def test_empty_input_is_the_end_of_the_file():
    nothing: Any
    for nothing in (b"", "", [], io.BytesIO()):
        assert (await run(Command("cat"), input=nothing, timeout=10)).ok


async def test_input_that_nobody_reads_is_no_error():
    assert (await run(Command("true"), input=BIG)).ok
    assert (await run(Command("head", "-c", "3"), input=_agenerator())).stdout == b"012"


class Mine(Exception):
    pass


async def _raising_soon():
    yield b"some\n"
    raise Mine("of the user")


async def _raising_late():
    yield b"some\n"
    await asyncio.sleep(0.01)
    raise Mine("of the user")


def _raising_plain():
    yield b"some\n"
    raise Mine("of the user")


@pytest.mark.parametrize("make", [_raising_soon, _raising_late, _raising_plain])
async def test_an_input_that_raises_stops_the_child_and_comes_back_unwrapped(make):
    async with ProcessRegistry() as registry:
        with pytest.raises(Mine, match="of the user") as caught:
            await run(Command("cat"), input=make(), registry=registry)
        assert type(caught.value) is Mine
        [exited] = registry.history(ProcessExited)
        assert isinstance(exited, ProcessExited)
        assert exited.exit.signal == signal.SIGTERM
        assert len(registry) == 0


async def test_input_of_the_wrong_type_is_refused():
    wrong: Any
    for wrong in ([1, 2], ["text"], io.StringIO("text")):
        with pytest.raises(ConfigError) as caught:
            await run(Command("cat"), input=wrong)
        assert caught.value.field == "input"
    with pytest.raises(ConfigError):
        await run(Command("cat"), input=Path("/no/such/file"))


async def test_the_async_generator_is_closed_when_the_child_stops_reading():
    closed = asyncio.Event()

    async def endless():
        try:
            while True:
                yield BIG
        finally:
            closed.set()

    assert (await run(Command("head", "-c", "1"), input=endless())).stdout == b"0"
    assert closed.is_set()


# --------------------------------------------------------------------------------------------------------------- check


@pytest.mark.row("PR9")
async def test_check_raises_an_error_with_code_and_tail():
    with pytest.raises(ExitError) as caught:
        await run(sh("seq 2000 >&2; echo out; exit 7"), check=True)
    error = caught.value
    assert error.returncode == 7
    assert error.stderr_tail.endswith("1999\n2000\n")
    assert len(error.stderr_tail) <= 4096
    assert error.completed is not None
    assert error.completed.stdout == b"out\n"
    assert "2000" in str(error)
    assert error.command.program == "sh"


@pytest.mark.row("PR9")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM", "SIGUSR1"])
async def test_check_names_the_signal(name):
    with pytest.raises(SignaledError) as caught:
        await run(sh(f"echo bad >&2; ulimit -c 0; kill -{name[3:]} $$"), check=True)
    assert caught.value.signal_name == name
    assert caught.value.returncode == -getattr(signal, name)
    assert caught.value.stderr_tail == "bad\n"


async def test_check_is_silent_about_success():
    assert (await run(Command("true"), check=True)).ok


# ---------------------------------------------------------------------------------------------------------- max_output


@pytest.mark.parametrize("limit", [0, 1, 1000, 65_536, 999_999, 1_000_000, 2_000_000])
async def test_max_output_keeps_the_first_bytes_and_counts_the_rest(limit):
    completed = await run(sh("head -c 1000000 /dev/zero; head -c 500000 /dev/zero >&2"), max_output=limit)
    assert len(completed.stdout) == min(limit, 1_000_000)
    assert completed.stdout_dropped == 1_000_000 - len(completed.stdout)
    assert completed.stderr_dropped == 500_000 - len(completed.stderr)
    assert completed.truncated == (limit < 1_000_000)
    assert completed.ok


async def test_max_output_bounds_memory():
    import psutil

    me = psutil.Process()
    before = me.memory_info().rss
    completed = await run(Command("head", "-c", "200M", "/dev/zero"), max_output=1000)
    assert completed.stdout_dropped == 200 * 2**20 - 1000
    assert me.memory_info().rss - before < 32 * 2**20


async def test_bytes_that_are_no_text_do_not_matter():
    completed = await run(sh(r"printf 'a\377\000b'; printf '\303' >&2"))
    assert completed.stdout == b"a\xff\x00b"
    assert completed.text == "a\\xff\x00b"
    assert completed.error_text == "\\xc3"


# ------------------------------------------------------------------------------------------------------------- timeout


async def timed_out(command, **options):
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(ExecutionTimeout) as caught:
        await run(command, **options)
    return caught.value, loop.time() - began


async def test_a_timeout_tells_the_output_until_then():
    error, took = await timed_out(sh("echo before; echo bad >&2; exec sleep 1000"), timeout=0.3)
    assert (error.stdout, error.stderr) == (b"before\n", b"bad\n")
    assert (error.timeout, error.phase) == (0.3, "run")
    assert error.completed is not None
    assert error.completed.returncode == -signal.SIGTERM
    assert error.report is not None
    assert error.report.signalled == ("SIGTERM",)
    again = pickle.loads(pickle.dumps(error))
    assert again.completed == error.completed
    assert 0.3 <= took < 3


async def test_the_commands_own_timeout_counts_unless_another_is_given():
    error, _ = await timed_out(Command("sleep", "1000", timeout=0.05))
    assert error.timeout == 0.05
    assert (await run(Command("sleep", "0.1", timeout=0.01), timeout=20)).ok
    error, _ = await timed_out(Command("sleep", "1000"), timeout=0)
    assert error.timeout == 0


async def test_a_timeout_kills_what_ignores_sigterm():
    error, took = await timed_out(program("ignore_term", grace=0.1), timeout=0.5)
    assert error.report is not None
    assert error.report.forced
    assert error.report.signalled == ("SIGTERM", "SIGKILL")
    assert error.completed is not None
    assert error.completed.returncode == -signal.SIGKILL
    assert took < 0.5 + 0.1 + 1


@pytest.mark.row("PR10")
async def test_a_timeout_bounds_kill_and_drain_though_a_grandchild_holds_the_pipes():
    """The grandchild left the session, ignores SIGTERM and holds both pipes."""
    error, took = await timed_out(program("escape", "ignore", grace=0.2), timeout=0.6)
    assert took < 0.6 + 0.2 + 1
    grandchild = int(error.stdout)
    assert not alive(grandchild)
    assert error.report is not None
    assert [ref.pid for ref in error.report.escaped] == [grandchild]
    assert error.report.is_clean
    assert error.report.forced


async def test_a_timeout_bounds_a_run_whose_child_is_stopped():
    error, took = await timed_out(sh("echo x; kill -STOP $$; echo never", grace=1), timeout=0.2)
    assert error.stdout == b"x\n"
    assert took < 0.2 + 1 + 1


async def test_a_timeout_while_the_child_does_not_read_its_input():
    error, took = await timed_out(sh("exec sleep 1000", grace=0.5), timeout=0.2, input=BIG)
    assert took < 0.2 + 0.5 + 1
    assert error.completed is not None


async def test_a_child_quicker_than_its_timeout_is_left_alone():
    completed = await run(sh("exit 4"), timeout=30)
    assert completed.returncode == 4


# ---------------------------------------------------------------------------------------------------------- cancelling


async def cancelled_when(command, said, **options):
    """Runs, cancels once ``said`` was registered, returns the error."""
    async with ProcessRegistry() as registry:
        task = asyncio.create_task(run(command, registry=registry, **options))
        [record] = await _spawned(registry)
        await said(record)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert len(registry) == 0
        assert task.cancelled()
        return caught.value, record


async def written_to(fifo):
    """Waits until somebody has written to a FIFO."""
    loop = asyncio.get_running_loop()
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    ready = loop.create_future()
    loop.add_reader(fd, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(fd)
        os.close(fd)


async def _spawned(registry):
    async with registry.subscribe(ProcessSpawned) as events:
        if not registry.history(ProcessSpawned):
            await anext(events)
    return list(registry)


async def test_a_cancelled_run_tells_its_output_until_then(tmp_path):
    os.mkfifo(tmp_path / "fifo")

    command = sh('echo before; echo bad >&2; echo x >"$1"; exec sleep 1000', str(tmp_path / "fifo"))
    error, record = await cancelled_when(command, lambda record: written_to(tmp_path / "fifo"))
    assert (error.completed.stdout, error.completed.stderr) == (b"before\n", b"bad\n")
    assert error.completed.returncode == -signal.SIGTERM
    assert error.completed.report.is_clean
    assert record.state == "exited"


async def test_the_last_words_of_a_cancelled_run_are_heard_however_long_they_are(tmp_path):
    """A child that says more than a pipe holds when it is asked to stop must not be killed for it."""
    os.mkfifo(tmp_path / "fifo")
    script = """trap 'head -c 1000000 /dev/zero; exit 0' TERM; echo x >"$1"; while :; do sleep 0.01; done"""
    command = sh(script, str(tmp_path / "fifo"), grace=20)
    error, _ = await cancelled_when(command, lambda record: written_to(tmp_path / "fifo"))
    assert error.completed.returncode == 0
    assert len(error.completed.stdout) == 1_000_000
    assert not error.completed.report.forced


async def test_a_run_cancelled_at_once_leaves_nothing():
    for turns in range(12):
        task = asyncio.create_task(run(Command("sleep", "1000")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_cancel_during_the_stop_does_not_cut_it_short():
    async with ProcessRegistry() as registry:
        task = asyncio.create_task(run(program("ignore_term", grace=0.3), registry=registry))
        [record] = await _spawned(registry)
        async with registry.subscribe() as events:
            task.cancel()
            while getattr(await anext(events), "new", None) != "stopping":
                pass
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert record.state == "exited"


async def test_asyncio_timeout_around_a_run_works():
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await run(Command("sleep", "1000"))


# ----------------------------------------------------------------------------------------------------------- descendants


@pytest.mark.row("PR10")
async def test_a_descendant_in_the_group_that_holds_the_pipes_is_ended_and_said():
    completed = await run(sh("sleep 1000 & echo $!"))
    assert completed.returncode == 0
    assert completed.truncated_by_descendant
    assert completed.truncated
    assert not alive(int(completed.stdout))


async def test_a_descendant_that_writes_on_for_a_moment_is_heard():
    completed = await run(sh("(sleep 0.05; echo late) & echo early"))
    assert completed.stdout == b"early\nlate\n"
    assert not completed.truncated


@pytest.mark.row("PR10")
async def test_a_descendant_in_another_session_is_not_waited_for():
    """At a natural exit only the group is ended: what made itself independent is said, not killed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    completed = await run(program("escape", "leave"))
    assert loop.time() - began < 5
    grandchild = int(completed.stdout)
    try:
        assert completed.truncated_by_descendant
        assert alive(grandchild)
    finally:
        os.kill(grandchild, signal.SIGKILL)
        await ended(grandchild)


async def test_hundred_at_once():
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(sh('echo "$1"', str(number)))) for number in range(100)]
    assert [int(task.result().stdout) for task in tasks] == list(range(100))


async def test_a_foreign_sigchld_handler_is_not_disturbed_and_does_not_disturb():
    calls = []
    old = signal.signal(signal.SIGCHLD, lambda *_: calls.append(1))
    try:
        assert (await run(sh("exit 3"))).returncode == 3
    finally:
        signal.signal(signal.SIGCHLD, old)


def test_run_needs_nothing_but_a_loop():
    assert asyncio.run(run(Command(sys.executable, "-I", "-S", "-c", "print(1)"))).stdout == b"1\n"
