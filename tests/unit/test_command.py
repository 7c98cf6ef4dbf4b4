"""A command is checked as a whole before anything happens, cannot be changed, and keeps secrets to itself."""

import copy
import math
import os
import pickle
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from procession import PIPE, STDOUT, Command, ConfigError, Containment

pytestmark = pytest.mark.row("PR1")

NO_FD = 1_000_000  # above any limit: never open

BAD = [
    ("argv", (), {}),
    ("argv", ("",), {}),
    ("argv", ("a\0b",), {}),
    ("argv", ("echo", "a\0b"), {}),
    ("argv", (b"echo",), {}),
    ("argv", ("echo", 1), {}),
    ("argv", ("echo", None), {}),
    ("argv", (["echo", "x"],), {}),
    ("argv", (), {"argv": "echo hello"}),
    ("argv", ("echo",), {"argv": ("echo",)}),
    ("cwd", ("x",), {"cwd": ""}),
    ("cwd", ("x",), {"cwd": "a\0b"}),
    ("cwd", ("x",), {"cwd": 3}),
    ("cwd", ("x",), {"cwd": b"/tmp"}),
    ("env", ("x",), {"env": {"A": 1}}),
    ("env", ("x",), {"env": {1: "A"}}),
    ("env", ("x",), {"env": {"A=B": "C"}}),
    ("env", ("x",), {"env": {"": "C"}}),
    ("env", ("x",), {"env": {"A": "B\0C"}}),
    ("env", ("x",), {"env": {"A\0B": "C"}}),
    ("env", ("x",), {"env": {"A": b"B"}}),
    ("env", ("x",), {"env": ["A=B"]}),
    ("env", ("x",), {"env": "A=B"}),
    ("inherit_env", ("x",), {"inherit_env": "PATH"}),
    ("inherit_env", ("x",), {"inherit_env": (1,)}),
    ("inherit_env", ("x",), {"inherit_env": None}),
    ("stdin", ("x",), {"stdin": "nowhere"}),
    ("stdin", ("x",), {"stdin": "stdout"}),
    ("stdin", ("x",), {"stdin": None}),
    ("stdin", ("x",), {"stdin": True}),
    ("stdin", ("x",), {"stdin": NO_FD}),
    ("stdin", ("x",), {"stdin": -7}),
    ("stdin", ("x",), {"stdin": 1.5}),
    ("stdout", ("x",), {"stdout": "stdout"}),
    ("stdout", ("x",), {"stdout": "/tmp/file"}),
    ("stdout", ("x",), {"stdout": NO_FD}),
    ("stderr", ("x",), {"stderr": "file"}),
    ("stderr", ("x",), {"stderr": NO_FD}),
    ("stderr", ("x",), {"stderr": 2.5}),
    ("timeout", ("x",), {"timeout": -1}),
    ("timeout", ("x",), {"timeout": math.nan}),
    ("timeout", ("x",), {"timeout": math.inf}),
    ("timeout", ("x",), {"timeout": "soon"}),
    ("timeout", ("x",), {"timeout": "1m30"}),
    ("timeout", ("x",), {"timeout": True}),
    ("grace", ("x",), {"grace": -0.1}),
    ("grace", ("x",), {"grace": math.nan}),
    ("grace", ("x",), {"grace": None}),
    ("grace", ("x",), {"grace": False}),
    ("stop_signal", ("x",), {"stop_signal": "SIGNOTHING"}),
    ("stop_signal", ("x",), {"stop_signal": 0}),
    ("stop_signal", ("x",), {"stop_signal": 999}),
    ("stop_signal", ("x",), {"stop_signal": True}),
    ("user", ("x",), {"user": "nobody-of-that-name"}),
    ("user", ("x",), {"user": -1}),
    ("user", ("x",), {"user": 2**32 - 1}),
    ("user", ("x",), {"user": 1.0}),
    ("user", ("x",), {"user": True}),
    ("group", ("x",), {"group": "no-group-of-that-name"}),
    ("group", ("x",), {"group": -1}),
    ("extra_groups", ("x",), {"extra_groups": "root"}),
    ("extra_groups", ("x",), {"extra_groups": ["no-group-of-that-name"]}),
    ("umask", ("x",), {"umask": -1}),
    ("umask", ("x",), {"umask": 0o1000}),
    ("umask", ("x",), {"umask": "022"}),
    ("nice", ("x",), {"nice": 20}),
    ("nice", ("x",), {"nice": -21}),
    ("nice", ("x",), {"nice": 1.5}),
    ("nice", ("x",), {"nice": True}),
    ("ionice", ("x",), {"ionice": "fast"}),
    ("ionice", ("x",), {"ionice": "best-effort:8"}),
    ("ionice", ("x",), {"ionice": 3}),
    ("cpu_affinity", ("x",), {"cpu_affinity": []}),
    ("cpu_affinity", ("x",), {"cpu_affinity": [-1]}),
    ("cpu_affinity", ("x",), {"cpu_affinity": [60_000]}),
    ("cpu_affinity", ("x",), {"cpu_affinity": "0"}),
    ("cpu_affinity", ("x",), {"cpu_affinity": [0.5]}),
    ("rlimits", ("x",), {"rlimits": {"files": 10}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": -5}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": "many"}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": (10, 5)}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": (None, 5)}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": (1, 2, 3)}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": True}}),
    ("rlimits", ("x",), {"rlimits": {"nofile": 1.5}}),
    ("rlimits", ("x",), {"rlimits": 5}),
    ("new_session", ("x",), {"new_session": "perhaps"}),
    ("detach", ("x",), {"detach": None}),
    ("detach", ("x",), {"detach": True, "contain": "tree"}),
    ("detach", ("x",), {"detach": True, "contain": Containment.CGROUP}),
    ("contain", ("x",), {"contain": "jail"}),
    ("contain", ("x",), {"contain": None}),
    ("capabilities", ("x",), {"capabilities": ["fly"]}),
    ("capabilities", ("x",), {"capabilities": "kill"}),
    ("death_signal", ("x",), {"death_signal": "SIGNOTHING"}),
    ("death_signal", ("x",), {"death_signal": 0}),
    ("pty", ("x",), {"pty": True, "new_session": False}),
    ("pty_size", ("x",), {"pty_size": (0, 80)}),
    ("pty_size", ("x",), {"pty_size": (24, 70_000)}),
    ("pty_size", ("x",), {"pty_size": (24,)}),
    ("pty_size", ("x",), {"pty_size": "24x80"}),
    ("pass_fds", ("x",), {"pass_fds": (NO_FD,)}),
    ("pass_fds", ("x",), {"pass_fds": ("0",)}),
    ("pass_fds", ("x",), {"pass_fds": 1}),
    ("labels", ("x",), {"labels": {"a b": "c"}}),
    ("labels", ("x",), {"labels": {"a": "two\nlines"}}),
    ("labels", ("x",), {"labels": {"a": 1}}),
    ("labels", ("x",), {"labels": ["a"]}),
    ("colour", ("x",), {"colour": "red"}),
]


@pytest.mark.parametrize(("field", "argv", "options"), BAD, ids=lambda value: None)
def test_a_bad_value_is_one_error_that_names_its_field(field, argv, options):
    with pytest.raises(ConfigError) as caught:
        Command(*argv, **options)
    assert caught.value.field == field
    assert caught.value.hint
    assert field in str(caught.value)
    assert isinstance(caught.value, ValueError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.field, again.hint, str(again)) == (field, caught.value.hint, str(caught.value))


def test_a_descriptor_that_was_closed_is_refused():
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    for field in ("stdin", "stdout", "stderr"):
        with pytest.raises(ConfigError, match="not open") as caught:
            Command("x", **{field: reader})
        assert caught.value.field == field
    with pytest.raises(ConfigError, match="not open"):
        Command("x", pass_fds=(writer,))


def test_a_file_object_that_was_closed_is_refused(tmp_path):
    file = (tmp_path / "file").open("w")
    file.close()
    with pytest.raises(ConfigError) as caught:
        Command("x", stdout=file)
    assert caught.value.field == "stdout"


GOOD = [
    ("cwd", Path("/tmp"), "/tmp"),
    ("timeout", "1m30s", 90.0),
    ("timeout", 0, 0.0),
    ("grace", "250ms", 0.25),
    ("stop_signal", "int", signal.SIGINT),
    ("stop_signal", signal.SIGHUP, signal.SIGHUP),
    ("stdin", subprocess.DEVNULL, "null"),
    ("stdin", PIPE, "pipe"),
    ("stdout", Path("/tmp/x"), Path("/tmp/x")),
    ("stderr", subprocess.STDOUT, STDOUT),
    ("umask", 0o27, 0o27),
    ("user", "root", "root"),
    ("nice", 19, 19),
    ("ionice", "best-effort:3", "best-effort:3"),
    ("rlimits", {"RLIMIT_NOFILE": 10, "core": (0, None)}, {"nofile": (10, 10), "core": (0, -1)}),
    ("contain", "group", Containment.GROUP),
    ("capabilities", ["CAP_KILL", "chown"], ("kill", "chown")),
    ("pty_size", [50, 132], (50, 132)),
    ("labels", {"team": "a b"}, {"team": "a b"}),
    ("inherit_env", ["PATH"], ("PATH",)),
]


@pytest.mark.parametrize(("field", "given", "kept"), GOOD, ids=lambda value: None)
def test_what_is_accepted_is_kept_in_one_form(field, given, kept):
    assert getattr(Command("x", **{field: given}), field) == kept


def test_it_cannot_be_changed():
    command = Command("x", env={"A": "1"}, labels={"a": "1"}, rlimits={"nofile": 10})
    with pytest.raises(ValueError, match="frozen"):
        command.cwd = "/"  # type: ignore[misc]
    mapping: Any
    for mapping in (command.env, command.labels, command.rlimits, Command("x").env):
        with pytest.raises((TypeError, AttributeError)):
            mapping["B"] = "2"
        with pytest.raises((TypeError, AttributeError)):
            mapping.clear()
        with pytest.raises((TypeError, AttributeError)):
            mapping.update({"B": "2"})
    assert command == Command("x", env={"A": "1"}, labels={"a": "1"}, rlimits={"nofile": 10})


def test_what_it_was_made_from_may_change_later():
    env = {"A": "1"}
    command = Command("x", env=env)
    env["A"] = "2"
    assert command.env == {"A": "1"}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_it_can_be_pickled(protocol):
    command = Command("a", "b", env={"A": "1"}, rlimits={"nofile": 10}, timeout=3, contain="group", stdout=Path("/x"))
    again = pickle.loads(pickle.dumps(command, protocol))
    assert again == command
    assert hash(again) == hash(command)
    assert again.replace(cwd="/") == command.replace(cwd="/")
    assert copy.copy(command) == command
    assert copy.deepcopy(command) == command


def test_equal_commands_are_one_in_a_set():
    assert len({Command("a", cwd="/"), Command("a", cwd="/"), Command("a"), Command("a", "b")}) == 3
    assert Command("a") != Command("a", env={"A": "1"})
    assert Command("a", "b") == Command(argv=("a", "b"))
    other: object = "a"
    assert Command("a") != other


def test_replace_gives_a_checked_copy():
    command = Command("a", cwd="/")
    other = command.replace(argv=("b", "c"), env={"A": "1"})
    assert (other.argv, other.cwd, other.env) == (("b", "c"), "/", {"A": "1"})
    assert (command.argv, dict(command.env)) == (("a",), {})
    with pytest.raises(ConfigError) as caught:
        command.replace(nice=99)
    assert caught.value.field == "nice"
    with pytest.raises(ConfigError) as caught:
        command.replace(colour="red")
    assert caught.value.field == "colour"
    with pytest.raises(ConfigError) as caught:
        command.replace(pty=True, new_session=False)
    assert caught.value.field == "pty"


SECRETS = [
    ("curl", "--password", "hunter2"),
    ("curl", "--password=hunter2"),
    ("env", "API_TOKEN=hunter2", "x"),
    ("psql", "postgres://me:hunter2@host/db"),
    ("tool", "--api-key", "hunter2", "--verbose"),
    ("tool", "ghp_hunter2hunter2hunter2"),
    ("tool", "-----BEGIN PRIVATE KEY-----hunter2"),
]


@pytest.mark.parametrize("argv", SECRETS, ids=lambda argv: argv[1][:12])
def test_secrets_are_not_shown(argv):
    command = Command(*argv, env={"X": "hunter2"})
    for shown in (repr(command), str(command), command.display(), f"{command}"):
        assert "hunter2" not in shown
        assert argv[0] in shown
    assert "***" in command.display()
    assert "hunter2" in " ".join(command.argv)


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (("x",), {"env": {"A": "hunter2\0"}}),
        (("tool", "--password=hunter2", "a\0"), {}),
        (("tool", "--password", "hunter2", "a\0"), {}),
        (("tool", "--password", "hunter2\0"), {}),
    ],
    ids=lambda value: None,
)
def test_a_refused_value_does_not_tell_secrets(argv, options):
    with pytest.raises(ConfigError) as caught:
        Command(*argv, **options)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)
    assert "hunter2" not in str(caught.value.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_what_is_shown_is_one_line_of_bounded_length():
    shown = Command("echo", "a\nb\x1b[31m", "x" * 500).display()
    assert "\n" not in shown
    assert "\x1b" not in shown
    assert len(shown) == 120


def test_a_shell_is_asked_for_by_name():
    assert Command.shell("a | b", cwd="/").argv == ("/bin/sh", "-c", "a | b")


def test_its_name_is_fit_for_records():
    assert Command("/usr/bin/python3.11", "x").name == "python3.11"
    assert Command("./-odd name\n").name == "odd_name_"
    assert Command("..").name == "process"
