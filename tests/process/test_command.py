"""What only the system can tell of a command: each fault is one typed error, nothing is left, the next spawn works.

The leak audit after every test is what proves that nothing is left.
"""

import errno
import json
import os
import pickle
import stat
import sys
from contextlib import contextmanager

import pytest

from procession import Command, ConfigError, ProcessRegistry, SpawnError, SpawnFailure, run, spawn
from procession.testing import failing_spawn, fd_limit
from tests.programs import HERE, program

pytestmark = [pytest.mark.row("PR1"), pytest.mark.row("PR9")]


def script(path, text="#!/bin/sh\nexit 0\n", mode=0o755):
    path.write_text(text)
    path.chmod(mode)
    return path


def _missing(tmp_path):
    return Command(tmp_path / "nothing"), SpawnFailure.NOT_FOUND, FileNotFoundError


def _not_on_path(tmp_path):
    return Command("no-such-program-anywhere"), SpawnFailure.NOT_FOUND, FileNotFoundError


def _directory(tmp_path):
    return Command(tmp_path), SpawnFailure.IS_DIRECTORY, PermissionError


def _no_execute_bit(tmp_path):
    return Command(script(tmp_path / "x", mode=0o644)), SpawnFailure.NOT_EXECUTABLE, PermissionError


def _missing_cwd(tmp_path):
    return Command("true", cwd=tmp_path / "nothing"), SpawnFailure.CWD_MISSING, FileNotFoundError


def _cwd_is_file(tmp_path):
    return Command("true", cwd=script(tmp_path / "x")), SpawnFailure.CWD_NOT_DIRECTORY, NotADirectoryError


def _missing_interpreter(tmp_path):
    path = script(tmp_path / "x", "#!/no/such/interpreter -x\n")
    return Command(path), SpawnFailure.INTERPRETER_MISSING, FileNotFoundError


def _relative_to_cwd(tmp_path):
    return Command("./x", cwd=tmp_path), SpawnFailure.NOT_FOUND, FileNotFoundError


def _dangling_link(tmp_path):
    (tmp_path / "x").symlink_to(tmp_path / "nothing")
    return Command(tmp_path / "x"), SpawnFailure.NOT_FOUND, FileNotFoundError


def _below_a_file(tmp_path):
    return Command(script(tmp_path / "x") / "y"), SpawnFailure.NOT_FOUND, NotADirectoryError


def _stdin_file_missing(tmp_path):
    return Command("cat", stdin=tmp_path / "nothing"), SpawnFailure.STREAM, FileNotFoundError


def _stdout_is_directory(tmp_path):
    return Command("true", stdout=tmp_path), SpawnFailure.STREAM, OSError


PLAIN = [
    _missing, _not_on_path, _directory, _no_execute_bit, _missing_cwd, _cwd_is_file, _missing_interpreter,
    _relative_to_cwd, _dangling_link, _below_a_file, _stdin_file_missing, _stdout_is_directory,
]  # fmt: skip


@pytest.mark.parametrize("chained", [False, True], ids=["direct", "chained"])
@pytest.mark.parametrize("case", PLAIN, ids=lambda case: case.__name__.strip("_"))
async def test_the_reason_is_told_apart(case, chained, tmp_path):
    command, reason, builtin = case(tmp_path)
    if chained:  # a tool execs the program: what it would meet is found out before
        command = command.replace(nice=0)
    async with ProcessRegistry() as registry:
        with pytest.raises(SpawnError) as caught:
            await run(command, registry=registry)
        error = caught.value
        assert error.reason is reason
        assert isinstance(error, builtin)
        assert error.command == command
        assert error.path is not None
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.reason, again.command, again.errno) == (type(error), reason, command, error.errno)
        [record] = registry.ended()
        assert (record.state, record.pid, len(registry)) == ("failed", None, 0)
        assert (await run(Command("true"), registry=registry)).ok


async def test_what_is_no_program_is_told(tmp_path):
    path = script(tmp_path / "x", "\0\1\2 no program\n")
    with pytest.raises(SpawnError) as caught:
        await run(Command(path))
    assert caught.value.reason is SpawnFailure.BAD_FORMAT
    assert (await run(Command("true"))).ok


async def test_too_many_words_are_told():
    with pytest.raises(SpawnError) as caught:
        await run(Command("true", "x" * 3_000_000))
    assert caught.value.reason is SpawnFailure.TOO_LONG
    assert len(str(caught.value)) < 400
    with pytest.raises(SpawnError) as caught:
        await run(Command("true", env={"A": "x" * 3_000_000}))
    assert caught.value.reason is SpawnFailure.TOO_LONG
    assert (await run(Command("true"))).ok


async def test_a_program_that_is_being_written_is_told(tmp_path):
    path = tmp_path / "x"
    with path.open("wb") as file:
        with open("/bin/true", "rb") as original:
            file.write(original.read())
        file.flush()
        path.chmod(0o755)
        with pytest.raises(SpawnError) as caught:
            await run(Command(path))
        assert caught.value.reason is SpawnFailure.BUSY
    assert (await run(Command(path))).ok


@pytest.mark.parametrize("field", ["stdin", "stdout", "stderr", "pass_fds"])
async def test_a_descriptor_closed_since_is_told(field):
    fd = os.open("/dev/null", os.O_RDWR)
    command = Command("true", **{field: (fd,) if field == "pass_fds" else fd})
    os.close(fd)
    with pytest.raises(SpawnError) as caught:
        await run(command)
    assert caught.value.reason is SpawnFailure.BAD_DESCRIPTOR
    assert caught.value.command is command
    assert (await run(Command("true"))).ok


@pytest.mark.parametrize("free", range(12))
async def test_the_descriptor_limit_is_told_wherever_it_strikes(free):
    async with ProcessRegistry() as registry:
        with fd_limit(free):
            failure: SpawnError | None = None
            try:
                assert (await run(Command("true", stdin="pipe"), registry=registry)).ok
            except SpawnError as error:
                failure = error
        if failure is None:
            assert free > 3
        else:
            assert (failure.reason, failure.errno) == (SpawnFailure.FD_LIMIT, errno.EMFILE)
            assert free < 11
        assert len(registry) == 0
        assert (await run(Command("true"), registry=registry)).ok


async def test_a_descriptor_limit_reached_by_the_tools_is_told():
    with fd_limit(4):
        with pytest.raises(SpawnError) as caught:
            await run(Command("true", stdin="pipe", pty=True))
        assert caught.value.reason is SpawnFailure.FD_LIMIT
    assert (await run(Command("true"))).ok


@pytest.mark.one_loop
@pytest.mark.allow_leaks("child")
async def test_the_process_limit_is_told():
    """A real limit binds only a program that is not root, so a program of its own meets it."""
    completed = await run(Command(sys.executable, HERE / "owner.py", timeout=30), check=True)
    assert json.loads(completed.stdout) == [0, ["PROCESS_LIMIT", "true"], ["PROCESS_LIMIT", "true"], 0]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EAGAIN, SpawnFailure.PROCESS_LIMIT),
        (errno.ENOMEM, SpawnFailure.OUT_OF_MEMORY),
        (errno.EMFILE, SpawnFailure.FD_LIMIT),
        (errno.ENFILE, SpawnFailure.FD_LIMIT),
        (errno.EPERM, SpawnFailure.PERMISSION),
    ],
)
async def test_what_the_system_refuses_is_told(number, reason):
    with failing_spawn(number, times=1) as fault:
        with pytest.raises(SpawnError) as caught:
            await run(Command("true"))
        assert fault.hits == 1
        assert (caught.value.reason, caught.value.errno) == (reason, number)
        assert (await run(Command("true"))).ok


async def test_a_user_without_an_account_needs_a_group():
    with pytest.raises(ConfigError) as caught:
        await run(Command("true", user=4_000_000))
    assert caught.value.field == "group"
    assert (await run(Command("true"))).ok


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("timeout", {"timeout": -1}),
        ("timeout", {"timeout": float("nan")}),
        ("timeout", {"timeout": True}),
        ("max_output", {"max_output": -1}),
        ("max_output", {"max_output": 1.5}),
        ("input", {"input": 5}),
        ("input", {"input": object()}),
        ("name", {"name": "two words"}),
        ("owner", {"owner": "-x"}),
    ],
)
async def test_bad_options_start_nothing(field, options):
    async with ProcessRegistry() as registry:
        with pytest.raises(ConfigError) as caught:
            await run(Command("true"), registry=registry, **options)
        assert caught.value.field == field
        assert len(registry.ended()) == 0


async def test_only_a_command_can_be_started():
    for wrong in ("ls -l", ["ls", "-l"], None):
        with pytest.raises(ConfigError):
            spawn(wrong)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- what the child then gets


async def status(*words, **options):
    completed = await run(program("status", *words, **options), check=True)
    return json.loads(completed.stdout)


async def test_the_child_gets_the_environment_that_was_described(monkeypatch):
    monkeypatch.setenv("KEPT", "1")
    monkeypatch.setenv("GONE", "1")
    env = (await status(env={"GONE": None, "SET": "ü\n"}))["env"]
    assert (env["KEPT"], env["SET"]) == ("1", "ü\n")
    assert "GONE" not in env
    env = (await status(inherit_env=False, env={"SET": "2"}))["env"]
    assert {name for name in env if not name.startswith(("PROCESSION_", "LC_"))} == {"SET"}
    env = (await status(inherit_env=["KEPT", "NOT_THERE"]))["env"]
    assert {name for name in env if not name.startswith(("PROCESSION_", "LC_"))} == {"KEPT"}


async def test_the_child_runs_where_it_was_told(tmp_path):
    assert (await status(cwd=tmp_path))["cwd"] == str(tmp_path.resolve())


async def test_the_name_is_looked_up_on_our_path_not_on_the_childs(tmp_path):
    script(tmp_path / "true", "#!/bin/sh\nexit 9\n")
    assert (await run(Command("true", env={"PATH": str(tmp_path)}))).returncode == 0


async def test_the_child_sees_no_descriptor_of_ours_but_those_it_was_given(tmp_path):
    reader, writer = os.pipe()
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    try:
        fds = (await status(pass_fds=(writer,)))["fds"]
        assert leak not in fds
        assert reader not in fds
        assert writer in fds
        assert len(fds) == 5  # 0, 1, 2, the one given, and the listing itself
        await run(Command("sh", "-c", f"echo hello >/dev/fd/{writer}", pass_fds=(writer,)), check=True)
        assert os.read(reader, 100) == b"hello\n"
    finally:
        for fd in (reader, writer, leak):
            os.close(fd)


@pytest.mark.parametrize(
    ("options", "leads_session", "leads_group"),
    [
        ({}, True, True),
        ({"new_session": False}, False, True),
        ({"new_session": False, "contain": "none"}, False, False),
    ],
)
async def test_session_and_group(options, leads_session, leads_group):
    seen = await status(**options)
    assert (seen["sid"] == seen["pid"], seen["pgid"] == seen["pid"]) == (leads_session, leads_group)


async def test_streams_to_and_from_files(tmp_path):
    source, out, err = (tmp_path / name for name in ("in", "out", "err"))
    source.write_text("data")
    out.write_text("something longer that was there before")
    completed = await run(Command("sh", "-c", "cat; echo bad >&2", stdin=source, stdout=out, stderr=err))
    assert (completed.stdout, completed.stderr) == (b"", b"")
    assert (out.read_text(), err.read_text()) == ("data", "bad\n")


async def test_streams_to_a_file_object_and_merged(tmp_path):
    with (tmp_path / "out").open("w+") as file:
        await run(Command("sh", "-c", "echo a; echo b >&2", stdout=file, stderr="stdout"))
        file.seek(0)
        assert file.read() == "a\nb\n"
    assert (await run(Command("sh", "-c", "echo a; echo b >&2", stderr="stdout"))).stdout == b"a\nb\n"


async def test_a_fifo_without_a_peer_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SpawnError) as caught:
        await run(Command("true", stdout=tmp_path / "fifo"))
    assert caught.value.reason is SpawnFailure.STREAM
    assert caught.value.errno == errno.ENXIO


async def test_secrets_reach_the_child_but_no_event_and_no_error():
    async with ProcessRegistry() as registry:
        command = Command("sh", "-c", "echo $0 $KEY; exit 3", "--token=hunter2", env={"KEY": "hunter3"})
        completed = await run(command, registry=registry)
        assert completed.stdout == b"--token=hunter2 hunter3\n"
        shown = repr(completed) + repr(registry.history()) + repr(registry.ended())
        assert "hunter" not in shown
        assert "token=***" in shown


@contextmanager
def _umask(value):
    old = os.umask(value)
    try:
        yield
    finally:
        os.umask(old)


async def test_files_for_streams_obey_our_umask(tmp_path):
    with _umask(0o077):
        await run(Command("true", stdout=tmp_path / "out"))
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o600
