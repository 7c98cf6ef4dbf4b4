"""Telling apart why a child could not be started, after the fact and from the outside."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from procession.errors import SpawnError, SpawnFailure

if TYPE_CHECKING:
    from procession.command import Command

_PLAIN = {
    errno.EPERM: SpawnFailure.PERMISSION,
    errno.EAGAIN: SpawnFailure.PROCESS_LIMIT,
    errno.EMFILE: SpawnFailure.FD_LIMIT,
    errno.ENFILE: SpawnFailure.FD_LIMIT,
    errno.ENOMEM: SpawnFailure.OUT_OF_MEMORY,
    errno.E2BIG: SpawnFailure.TOO_LONG,
    errno.ENOEXEC: SpawnFailure.BAD_FORMAT,
    errno.ETXTBSY: SpawnFailure.BUSY,
    errno.EBADF: SpawnFailure.BAD_DESCRIPTOR,
    errno.ENAMETOOLONG: SpawnFailure.NOT_FOUND,
    errno.ELOOP: SpawnFailure.NOT_FOUND,
    errno.EISDIR: SpawnFailure.IS_DIRECTORY,
}


def spawn_error(error: OSError, command: Command, program: str) -> SpawnError:
    """The typed error for what the system said when ``command`` was started as ``program``."""
    number = error.errno
    reason = _PLAIN.get(number) if number is not None else None
    path: str | None = program
    if reason is None:
        reason, path = _look(number, command, program)
    elif reason in (SpawnFailure.PROCESS_LIMIT, SpawnFailure.FD_LIMIT, SpawnFailure.OUT_OF_MEMORY):
        path = None
    return SpawnError.of(reason, command, number, path)


def check_program(command: Command, program: str) -> None:
    """Finds out beforehand what a chained tool could not tell us.

    Raises:
        SpawnError: ``program`` is missing or cannot be executed.
    """
    path = _under(command.cwd, program)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise spawn_error(error, command, program) from None
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        raise spawn_error(OSError(errno.EACCES, ""), command, program)
    missing = _interpreter(path)
    if missing is not None and not os.path.exists(missing):
        raise SpawnError.of(SpawnFailure.INTERPRETER_MISSING, command, errno.ENOENT, missing)


def resolve(command: Command, search: str) -> str:
    """Where the program is: as given when it has a slash, else the first executable on ``search``.

    Raises:
        SpawnError: it is nowhere, or only as something that cannot be executed.
    """
    name = command.argv[0]
    if "/" in name:
        return name
    found: str | None = None
    for folder in search.split(os.pathsep):
        path = os.path.join(folder or os.curdir, name)
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode):
            if os.access(path, os.X_OK):
                return os.path.abspath(path) if command.cwd is not None else path
            found = found or path
    if found is not None:
        raise SpawnError.of(SpawnFailure.NOT_EXECUTABLE, command, errno.EACCES, found)
    raise SpawnError.of(SpawnFailure.NOT_FOUND, command, errno.ENOENT, name)


def _under(cwd: str | None, path: str) -> str:
    return os.path.join(cwd, path) if cwd is not None else path


def _look(number: int | None, command: Command, program: str) -> tuple[SpawnFailure, str | None]:
    """ENOENT, ENOTDIR, EACCES and the rest mean different things; the file system knows which."""
    cwd = command.cwd
    if cwd is not None:
        if not os.path.lexists(cwd):
            return SpawnFailure.CWD_MISSING, cwd
        if not os.path.isdir(cwd):
            return (SpawnFailure.CWD_MISSING if os.path.islink(cwd) else SpawnFailure.CWD_NOT_DIRECTORY), cwd
        if not os.access(cwd, os.X_OK):
            return SpawnFailure.PERMISSION, cwd
    path = _under(cwd, program)
    if os.path.isdir(path):
        return SpawnFailure.IS_DIRECTORY, program
    if not os.path.exists(path):
        denied = number == errno.EACCES
        return (SpawnFailure.PERMISSION if denied else SpawnFailure.NOT_FOUND), program
    interpreter = _interpreter(path)
    if number in (errno.ENOENT, errno.ENOTDIR):
        return SpawnFailure.INTERPRETER_MISSING, interpreter or program
    if number == errno.EACCES:
        if not os.access(path, os.X_OK):
            return SpawnFailure.NOT_EXECUTABLE, program
        if interpreter is not None and not os.access(interpreter, os.X_OK):
            return SpawnFailure.NOT_EXECUTABLE, interpreter
        return SpawnFailure.PERMISSION, program
    return SpawnFailure.OTHER, program


def _interpreter(path: str) -> str | None:
    """What the first line of a script names, see execve(2); ``None`` for anything else."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None
    words = line[2:].split() if line.startswith(b"#!") else ()
    return os.fsdecode(words[0]) if words else None
