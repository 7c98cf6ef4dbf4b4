"""From the keywords of ``subprocess.Popen``, which asyncio's functions take, to a command."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from procession._launch._diagnose import resolve
from procession._launch._popen import PopenCommand
from procession.errors import ConfigError

_WORDS = {None: "inherit", subprocess.PIPE: "pipe", subprocess.DEVNULL: "null"}
_UNCHANGED = {
    "universal_newlines": (False, "universal_newlines must be False"),
    "bufsize": (0, "bufsize must be 0"),
    "text": (False, "text must be False"),
    "encoding": (None, "encoding must be None"),
    "errors": (None, "errors must be None"),
    "startupinfo": (None, "startupinfo is only supported on Windows platforms"),
    "creationflags": (0, "creationflags is only supported on Windows platforms"),
}
"""Keywords that exist but cannot be used, with their only value and asyncio's words of refusal."""


def exec_command(argv: Sequence[Any], streams: tuple[Any, Any, Any], options: dict[str, Any]) -> PopenCommand:
    """The command for ``create_subprocess_exec``; ``options`` are used up.

    Raises:
        ValueError: text mode, buffering or a shell was asked for; ``ConfigError`` for any other value refused.
        TypeError: a keyword is unknown.
        SpawnError: the program is not on the ``PATH`` of ``env``.
    """
    if options.pop("shell", False):
        raise ValueError("shell must be False")
    return _command(argv, streams, options)


def shell_command(cmd: Any, streams: tuple[Any, Any, Any], options: dict[str, Any]) -> PopenCommand:
    """The command for ``create_subprocess_shell``; ``options`` are used up.

    Raises:
        ValueError: text mode, buffering or no shell was asked for, or ``cmd`` is no text; ``ConfigError`` for any
            other value refused.
        TypeError: a keyword is unknown.
    """
    if not isinstance(cmd, bytes | str):
        raise ValueError("cmd must be a string")
    if not options.pop("shell", True):
        raise ValueError("shell must be True")
    shell = options.get("executable") or "/bin/sh"
    return _command((shell, "-c", cmd), streams, options)


def _command(argv: Sequence[Any], streams: tuple[Any, Any, Any], options: dict[str, Any]) -> PopenCommand:
    for name, (only, words) in _UNCHANGED.items():
        if options.pop(name, None) not in (None, only):
            raise ValueError(words)
    if options.pop("preexec_fn", None) is not None:
        raise ConfigError(
            "preexec_fn", "a function", "it is not safe in a program with threads: see the options of Command"
        )
    stdin, stdout, stderr = streams
    env: Mapping[Any, Any] | None = options.pop("env", None)
    executable = options.pop("executable", None)
    given = _given(options)
    fields: dict[str, Any] = {
        "stdin": _stdio(stdin),
        "stdout": _stdio(stdout),
        "stderr": "stdout" if stderr == subprocess.STDOUT else _stdio(stderr),
        "cwd": _text(options.pop("cwd", None)),
        "pass_fds": tuple(options.pop("pass_fds", ())),
        "new_session": bool(options.pop("start_new_session", False)),
        "contain": "none",
    }
    umask = options.pop("umask", -1)
    if umask != -1:
        fields["umask"] = umask
    fields |= _identity(options.pop("user", None), options.pop("group", None), options.pop("extra_groups", None))
    if options:
        raise TypeError(f"unexpected keyword argument {min(options)!r}")
    if env is not None:
        fields |= {"inherit_env": False, "env": {_text(name): _text(value) for name, value in env.items()}}
    if fields["pass_fds"] and not given["close_fds"]:
        warnings.warn("pass_fds overriding close_fds.", RuntimeWarning, stacklevel=4)
        given["close_fds"] = True
    command = PopenCommand(*map(_text, argv), **fields)
    if executable is not None:
        given["executable"] = _text(executable)
    elif env is not None and "/" not in command.program:
        # Popen looks on the PATH the child will have.
        given["executable"] = resolve(command, os.pathsep.join(map(os.fsdecode, os.get_exec_path(env))))
    command.given.update(given)
    return command


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """What goes to ``Popen`` as it is."""
    given: dict[str, Any] = {
        "close_fds": bool(options.pop("close_fds", True)),
        "restore_signals": bool(options.pop("restore_signals", True)),
    }
    process_group = options.pop("process_group", None)
    if process_group is not None and process_group != -1:
        if not isinstance(process_group, int) or process_group < 0:
            raise ConfigError("process_group", process_group, "a process group is a number, 0 (a new one) or more")
        given["process_group"] = process_group
    return given


def _text(value: Any) -> Any:
    """``Popen`` takes bytes wherever it takes text."""
    if isinstance(value, bytes | os.PathLike):
        return os.fsdecode(value)
    return value


def _stdio(value: Any) -> Any:
    if value is None or (isinstance(value, int) and value in _WORDS):
        return _WORDS[value]
    if isinstance(value, int) and value < 0:
        raise ConfigError("stdio", value, "PIPE, DEVNULL, None, an open descriptor or file; STDOUT for stderr only")
    return value


def _identity(user: Any, group: Any, extra_groups: Iterable[Any] | None) -> dict[str, Any]:
    """``Popen`` changes what it is told to and nothing else; a command would take the user's own groups."""
    fields: dict[str, Any] = {}
    if extra_groups is not None:
        fields["extra_groups"] = tuple(extra_groups)
    if group is not None:
        fields["group"] = _number(group, "group")
    if user is not None and _number(user, "user") != os.getuid():
        fields["user"] = _number(user, "user")
        fields.setdefault("group", os.getgid())
        fields.setdefault("extra_groups", tuple(os.getgroups()))
    elif "extra_groups" not in fields and fields.get("group") == os.getgid():
        del fields["group"]  # nothing changes, so nobody needs the right to change it
    return fields


def _number(account: Any, what: str) -> Any:
    """An account's number; what is wrong with a value the command says."""
    try:
        if isinstance(account, str):
            return pwd.getpwnam(account).pw_uid if what == "user" else grp.getgrnam(account).gr_gid
    except KeyError:
        raise ConfigError(what, account, f"there is no {what} of that name") from None
    return account
