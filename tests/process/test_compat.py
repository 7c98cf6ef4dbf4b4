"""The drop-in for asyncio's subprocess functions: what asyncio promises, and where ours does better."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from procession import ConfigError, SpawnError, SpawnFailure, create_subprocess_exec, create_subprocess_shell
from procession._linux._tools import tool

PYTHON = sys.executable
TWO_LINES = "import os; os.write(1, b'x' * 50 + b'\\n' + b'yyyyy\\n')"  # at once: asyncio drops what is there
BIG = os.urandom(1 << 20) * 10
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")


async def python(code: str, *args: str, **options: Any) -> Any:
    return await create_subprocess_exec(PYTHON, "-c", code, *args, **options)


async def output(*argv: Any, **options: Any) -> str:
    process = await create_subprocess_exec(*argv, stdout=PIPE, **options)
    stdout, _ = await process.communicate()
    assert process.returncode == 0
    return stdout.decode().strip()


# --------------------------------------------------------------------------------------- attributes


async def test_it_is_asyncios_process_with_asyncios_streams() -> None:
    process = await create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert isinstance(process, asyncio.subprocess.Process)
    assert isinstance(process.stdin, asyncio.StreamWriter)
    assert isinstance(process.stdout, asyncio.StreamReader)
    assert isinstance(process.stderr, asyncio.StreamReader)
    assert psutil.Process(process.pid).name() == "cat"
    assert repr(process) == f"<Process {process.pid}>"
    assert process.returncode is None
    assert await process.communicate(b"hello") == (b"hello", b"")
    assert process.returncode == await process.wait() == 0


async def test_without_pipes_there_are_no_streams() -> None:
    process = await create_subprocess_exec("true", stdin=DEVNULL, stdout=DEVNULL)
    assert (process.stdin, process.stdout, process.stderr) == (None, None, None)
    assert await process.communicate() == (None, None)  # type: ignore[comparison-overlap]


async def test_streams_are_inherited_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    process = await create_subprocess_shell("echo out; echo err >&2; exit 4")
    assert await process.wait() == 4
    assert capfd.readouterr() == ("out\n", "err\n")


async def test_stderr_into_stdout_and_streams_into_files(tmp_path: Path) -> None:
    process = await create_subprocess_shell("echo out; echo err >&2", stdout=PIPE, stderr=STDOUT)
    assert await process.communicate() == (b"out\nerr\n", None)  # type: ignore[comparison-overlap]
    (tmp_path / "in").write_text("from a file")
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as target:
        process = await create_subprocess_exec("cat", stdin=source, stdout=target.fileno())
        assert await process.wait() == 0
    assert (tmp_path / "out").read_text() == "from a file"


async def test_stdin_behaves_as_a_stream_writer() -> None:
    process = await create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None
    assert stdin.can_write_eof()
    assert stdin.get_extra_info("pipe").fileno() >= 0
    assert stdin.get_extra_info("none", 7) == 7
    stdin.write(b"one\n")
    stdin.writelines([b"two\n", bytearray(b"three\n")])
    await stdin.drain()
    assert await stdout.readline() == b"one\n"
    assert await stdout.readexactly(4) == b"two\n"
    assert not stdin.is_closing()
    stdin.write_eof()
    assert stdin.is_closing()
    await stdin.wait_closed()
    assert await stdout.read() == b"three\n"
    assert stdout.at_eof()
    assert await process.wait() == 0


async def test_buffer_limits_of_stdin() -> None:
    process = await create_subprocess_exec("sleep", "10", stdin=PIPE)
    assert process.stdin is not None
    transport = process.stdin.transport
    transport.set_write_buffer_limits(high=1000)
    assert transport.get_write_buffer_limits() == (250, 1000)
    with pytest.raises(ValueError, match="high"):
        transport.set_write_buffer_limits(high=1, low=2)
    with pytest.raises(TypeError):
        transport.write("text")  # type: ignore[arg-type]
    process.stdin.write(bytes(100_000))
    assert transport.get_write_buffer_size() > 1000
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await process.stdin.drain()
    transport.abort()
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_written_bytes_follow_after_close() -> None:
    process = await create_subprocess_shell("sleep 0.1; exec wc -c", stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    process.stdin.write(bytes(1_000_000))
    process.stdin.close()
    await process.stdin.wait_closed()
    assert process.stdout is not None
    assert (await process.stdout.read()).strip() == b"1000000"
    assert await process.wait() == 0


async def test_pause_reading() -> None:
    """As CPython's case of that name, which replaces asyncio's own pipe transport."""
    process = await python("print('x' * 21, end='')", stdout=PIPE, limit=10)
    transport = process._transport.get_pipe_transport(1)
    with (
        mock.patch.object(transport, "pause_reading", wraps=transport.pause_reading) as paused,
        mock.patch.object(transport, "resume_reading", wraps=transport.resume_reading) as resumed,
    ):
        stdout, _ = await process.communicate()
    assert stdout == b"x" * 21
    assert paused.called
    assert resumed.called


async def test_a_reader_that_does_not_read_stops_the_child() -> None:
    process = await create_subprocess_exec("cat", "/dev/zero", stdout=PIPE, limit=1000)
    await asyncio.sleep(0.1)
    transport = process._transport.get_pipe_transport(1)
    assert transport is not None
    assert not transport.is_reading()  # type: ignore[union-attr]
    assert len(process.stdout._buffer) < 200_000  # type: ignore[union-attr]
    process.kill()
    assert await process.wait() == -signal.SIGKILL
    await process.stdout.read()  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------- faults


async def test_wait_returns_at_the_exit_while_a_grandchild_holds_the_pipe() -> None:
    process = await create_subprocess_shell("sleep 2 & echo ready; exit 3", stdout=PIPE)
    assert process.stdout is not None
    began = time.perf_counter()
    assert await process.stdout.readline() == b"ready\n"
    assert await process.wait() == 3
    assert time.perf_counter() - began < 1.5
    # communicate() waits for the end of the pipes, as asyncio's does.
    assert await process.communicate() == (b"", None)  # type: ignore[comparison-overlap]
    assert time.perf_counter() - began > 0.4


async def test_wait_after_kill_takes_no_longer_for_a_grandchild() -> None:
    took = []
    for _ in range(5):  # a busy machine may be late once; a wait for the grandchild would be late every time
        process = await create_subprocess_shell("sleep 0.5 & echo ready; wait", stdout=PIPE)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.kill()
        began = time.perf_counter()
        assert await process.wait() == -signal.SIGKILL
        took.append(time.perf_counter() - began)
        await process.stdout.read()
    assert min(took) < 0.05


async def test_a_hundred_children_and_no_thread_for_any() -> None:
    before = threading.active_count()
    processes = await asyncio.gather(*(create_subprocess_exec("sleep", "30") for _ in range(100)))
    assert threading.active_count() <= before + 1
    for process in processes:
        process.terminate()
    assert await asyncio.gather(*(process.wait() for process in processes)) == [-signal.SIGTERM] * 100


@pytest.mark.parametrize("launch", [create_subprocess_exec, asyncio.create_subprocess_exec])
@pytest.mark.one_loop
async def test_long_lines_behave_as_with_asyncio(launch: Callable[..., Any]) -> None:
    process = await launch(PYTHON, "-c", TWO_LINES, stdout=PIPE, limit=20)
    with pytest.raises(ValueError, match="limit"):
        await process.stdout.readline()
    assert await process.stdout.readline() == b"yyyyy\n"
    await process.communicate()
    process = await launch(PYTHON, "-c", "import os; os.write(1, b'x' * 50 + b'\\n')", stdout=PIPE, limit=20)
    with pytest.raises(asyncio.LimitOverrunError):
        await process.stdout.readuntil(b"\n")
    assert await process.communicate() == (b"x" * 50 + b"\n", None)


async def test_long_lines_are_refused() -> None:
    process = await python(TWO_LINES, stdout=PIPE, limit=20)
    with pytest.raises(ValueError, match="limit"):
        await process.stdout.readline()
    assert await process.stdout.readline() == b"yyyyy\n"
    await process.communicate()


async def test_communicate_both_ways() -> None:
    code = "import sys\nfor b in iter(lambda: sys.stdin.buffer.read(99_999), b''):\n for f in (sys.stdout, sys.stderr): f.buffer.write(b)"
    process = await python(code, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    stdout, stderr = await process.communicate(BIG)
    assert stdout == BIG
    assert stderr == BIG


async def test_communicate_without_input_closes_stdin() -> None:
    process = await create_subprocess_exec("cat", stdin=PIPE, stdout=PIPE)
    assert await process.communicate() == (b"", None)  # type: ignore[comparison-overlap]


async def test_cancelled_communicate_leaves_the_process_to_its_owner() -> None:
    process = await create_subprocess_exec("sleep", "30", stdin=PIPE, stdout=PIPE, stderr=PIPE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await process.communicate(BIG)
    assert process.returncode is None
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_signals_after_the_exit() -> None:
    process = await create_subprocess_exec("true")
    await process.wait()
    for send in (process.kill, process.terminate, lambda: process.send_signal(signal.SIGUSR1)):
        with pytest.raises(ProcessLookupError):
            send()


async def test_no_signal_to_the_bare_pid_of_a_child_let_go_of() -> None:
    process = await create_subprocess_exec("sleep", "30")
    process._transport.abandon()
    with mock.patch("os.kill", side_effect=AssertionError), pytest.raises(ProcessLookupError):
        process.kill()
    while psutil.pid_exists(process.pid):
        await asyncio.sleep(0.01)


async def test_many_wait_and_one_is_cancelled() -> None:
    process = await create_subprocess_exec("sleep", "30")
    waiters = [asyncio.create_task(process.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    waiters[2].cancel()
    process.kill()
    ends = await asyncio.gather(*waiters, return_exceptions=True)
    assert [end for end in ends if end != -9] == [ends[2]]
    assert isinstance(ends[2], asyncio.CancelledError)


async def test_stdin_closed_by_the_child_is_noticed_without_writing() -> None:
    process = await create_subprocess_shell("exec <&-; echo closed; sleep 0.3", stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    async with asyncio.timeout(0.2):
        await process.stdin.wait_closed()
    process.stdin.write(b"lost")
    with pytest.raises(ConnectionResetError):
        await process.stdin.drain()
    assert await process.wait() == 0


async def test_drain_fails_when_the_reader_dies() -> None:
    process = await create_subprocess_exec("sleep", "30", stdin=PIPE)
    assert process.stdin is not None
    process.stdin.write(BIG)
    drain = asyncio.create_task(process.stdin.drain())
    await asyncio.sleep(0.01)
    process.kill()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        await drain
    await process.wait()


async def test_cancelled_spawn_whose_child_was_just_made() -> None:
    """The answer stands before the cancellation in the loop's queue: it once was thrown away, and waited for 30 s."""
    task = asyncio.create_task(create_subprocess_exec("sleep", "30"))
    await asyncio.sleep(0)
    time.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await task


# ------------------------------------------------------------------------------- the end of the loop


def _run_and_leave(new_loop: Callable[[], asyncio.AbstractEventLoop] | None) -> int:
    async def main() -> int:
        return (await create_subprocess_exec("sleep", "30", stdin=PIPE, stdout=PIPE)).pid

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main())


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_children_end_with_asyncio_run(name: str) -> None:
    uvloop = pytest.importorskip("uvloop")
    pid = _run_and_leave(uvloop.new_event_loop if name == "uvloop" else None)
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_children_of_a_loop_closed_without_shutdown_end_with_it(name: str) -> None:
    uvloop = pytest.importorskip("uvloop")
    loop = uvloop.new_event_loop() if name == "uvloop" else asyncio.new_event_loop()
    process = loop.run_until_complete(create_subprocess_exec("sleep", "30", stdout=PIPE))
    pid = process.pid
    loop.close()
    del process, loop
    with pytest.warns(ResourceWarning):  # from whichever of its objects is collected first
        gc.collect()
    deadline = time.monotonic() + 2
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not psutil.pid_exists(pid)


async def test_a_process_nobody_holds_runs_on() -> None:
    pid = (await create_subprocess_exec("sleep", "0.3")).pid
    gc.collect()
    await asyncio.sleep(0.1)
    assert psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    while psutil.pid_exists(pid):
        await asyncio.sleep(0.02)


# ------------------------------------------------------------------------------------------ options


async def test_cwd_env_and_umask(tmp_path: Path) -> None:
    assert await output("pwd", cwd=os.fsencode(tmp_path)) == str(tmp_path)
    env = {b"A": b"1", "B": "2"}
    words = set((await output("/usr/bin/env", env=env)).split())
    assert {word.partition("=")[0] for word in words} == {"A", "B", "PROCESSION_OWNER", "PROCESSION_ID"}
    assert {"A=1", "B=2"} <= words
    assert await output("sh", "-c", "umask", umask=0o027) == "0027"


async def test_program_is_found_on_the_path_of_env(tmp_path: Path) -> None:
    program = tmp_path / "only-here"
    program.write_text("#!/bin/sh\necho found $0")
    program.chmod(0o755)
    assert (await output("only-here", env={"PATH": str(tmp_path)})).startswith("found")
    with pytest.raises(FileNotFoundError):
        await create_subprocess_exec("only-here")
    with pytest.raises(FileNotFoundError):
        await create_subprocess_exec("ls", env={"PATH": str(tmp_path)})


async def test_executable_and_shell() -> None:
    assert await output("other", "-c", "echo $0", executable="/bin/sh") == "other"
    process = await create_subprocess_shell(b"echo $0", stdout=PIPE, executable="/bin/bash")
    assert await process.communicate() == (b"/bin/bash\n", None)  # type: ignore[comparison-overlap]


async def test_sessions_and_groups() -> None:
    code = "import os; print(os.getpid() == os.getsid(0), os.getpgrp() == os.getpid(), os.getpgrp())"
    assert await output(PYTHON, "-c", code) == f"False False {os.getpgrp()}"
    assert (await output(PYTHON, "-c", code, start_new_session=True)).startswith("True True")
    assert (await output(PYTHON, "-c", code, process_group=0)).startswith("False True")
    leader = await create_subprocess_exec("sleep", "30", process_group=0)
    assert (await output(PYTHON, "-c", code, process_group=leader.pid)).endswith(str(leader.pid))
    leader.kill()
    await leader.wait()


async def test_descriptors() -> None:
    reader, writer = os.pipe()
    try:
        code = f"import os; os.write({writer}, b'x')"
        assert await output(PYTHON, "-c", code, pass_fds=(writer,)) == ""
        assert os.read(reader, 9) == b"x"
        os.set_inheritable(writer, True)
        assert await output(PYTHON, "-c", code, close_fds=False) == ""
        assert os.read(reader, 9) == b"x"
        process = await python(code, stderr=DEVNULL)  # neither inherited nor passed
        assert await process.wait() == 1
        with pytest.warns(RuntimeWarning, match="pass_fds"):
            assert await output(PYTHON, "-c", code, close_fds=False, pass_fds=[writer]) == ""
    finally:
        os.close(reader)
        os.close(writer)


@needs_root
@pytest.mark.skipif(tool("setpriv") is None, reason="this system has no setpriv")
async def test_identity_changes_as_popen_changes_it() -> None:
    code = "import os; print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))"
    cases: list[dict[str, Any]] = [
        {"user": "nobody"},
        {"user": 12345},
        {"user": 12345, "group": 54321},
        {"group": 54321},
        {"user": "nobody", "group": "daemon", "extra_groups": ["daemon", 777]},
        {"extra_groups": []},
        {"user": os.getuid(), "group": os.getgid()},
    ]
    for options in cases:
        expected = subprocess.run(["/usr/bin/env", "python3", "-c", code], stdout=PIPE, **options)
        if expected.returncode:
            pytest.skip("the system's python3 cannot be run as somebody else")
        assert await output("/usr/bin/env", "python3", "-c", code, **options) == expected.stdout.decode().strip()


@pytest.mark.parametrize(
    "options",
    [
        {"universal_newlines": True},
        {"text": True},
        {"encoding": "utf-8"},
        {"errors": "strict"},
        {"bufsize": 1},
        {"creationflags": 4},
        {"startupinfo": object()},
        {"limit": 0},
        {"user": "no such user"},
        {"process_group": -5},
        {"stdin": STDOUT},
        {"stdin": "nonsense"},
        {"env": {"A=B": "1"}},
    ],
    ids=lambda options: next(iter(options)),
)
async def test_refused_values(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - asyncio has no type of its own for it
        await create_subprocess_exec("true", **options)
    with pytest.raises(ValueError):  # noqa: PT011
        await create_subprocess_shell("true", **options)


async def test_refused_kinds_of_call() -> None:
    with pytest.raises(ConfigError) as caught:
        await create_subprocess_exec("true", preexec_fn=os.getpid)
    assert caught.value.field == "preexec_fn"
    with pytest.raises(TypeError, match="nonsense"):
        await create_subprocess_exec("true", nonsense=1)
    with pytest.raises(ValueError, match="shell must be False"):
        await create_subprocess_exec("true", shell=True)
    with pytest.raises(ValueError, match="shell must be True"):
        await create_subprocess_shell("true", shell=False)
    with pytest.raises(ValueError, match="cmd must be a string"):
        await create_subprocess_shell(["true"])  # type: ignore[arg-type]


async def test_failures_to_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        await create_subprocess_exec("no-such-program", stdin=PIPE, stdout=PIPE)
    assert isinstance(missing.value, SpawnError)
    assert missing.value.reason is SpawnFailure.NOT_FOUND
    with pytest.raises(PermissionError):
        await create_subprocess_exec(tmp_path, stdout=PIPE)
    with pytest.raises(FileNotFoundError):
        await create_subprocess_exec("true", cwd=tmp_path / "none")
    assert await output("echo", "works") == "works"
