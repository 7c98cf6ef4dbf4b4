"""Events as lines of JSON in a file."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import logging
import math
import os
import stat
from collections import deque
from collections.abc import Mapping
from typing import Any

from procession.errors import ConfigError
from procession.events import Event

log = logging.getLogger("procession.registry")

_TURN = 256
"""Events written per turn of the loop, about 2 ms of work."""

_BUFFER = 8192
"""Events that may wait; beyond, ``write`` itself writes, so that memory stays bounded."""


class JsonLines:
    """A sink that appends one line of JSON per event to a file. Made by :meth:`open`.

    Events are collected, then encoded and written with one ``write(2)`` per turn of the loop, at most 256 a turn.
    Nothing is synced to the disk, so a crash of the machine may lose the last seconds. A write that fails (disk
    full) loses the events of that turn, is counted in ``errors`` and logged once until writing succeeds again. A line
    cut short by that is ended before the next one, so exactly that line is unreadable.
    """

    def __init__(self, fd: int, path: str, *, torn: bool = False) -> None:
        self.path = path
        self.errors: int = 0
        self.lost: int = 0
        self._fd = fd
        self._torn = torn
        self._failing = False
        self._waiting: deque[Event] = deque()
        self._turn: asyncio.Handle | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> JsonLines:
        """Opens ``path`` for appending; a new file gets mode 0600, the mode of an old one stays.

        Raises:
            ConfigError: it cannot be opened; or it is a symbolic link, a pipe, a socket, a device that is no
                character device, a file of another user, or one with several hard links.
        """
        name = os.fspath(path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            fd = os.open(name, flags, 0o600)
        except OSError as error:
            hint = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror or str(error)
            raise ConfigError("journal_file", name, hint) from None
        try:
            torn = _check(fd, name)
        except BaseException:
            os.close(fd)
            raise
        return cls(fd, name, torn=torn)

    def write(self, event: Event) -> None:
        """Takes one event; it reaches the file at the end of this turn of the loop or soon after."""
        self._waiting.append(event)
        if self._turn is None:
            try:
                self._turn = asyncio.get_running_loop().call_soon(self._write_turn)
            except RuntimeError:
                self._write_some()
        elif len(self._waiting) >= _BUFFER:
            self._write_some()

    def close(self) -> None:
        """Writes what is left and closes the file; may be called twice."""
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._fd >= 0:
            while self._waiting:
                self._write_some()
            os.close(self._fd)
            self._fd = -1

    def _write_turn(self) -> None:
        self._turn = None
        self._write_some()
        if self._waiting:
            self._turn = asyncio.get_running_loop().call_soon(self._write_turn)

    def _write_some(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(_TURN, len(self._waiting)))]
        if self._fd < 0 or not batch:
            return
        data = "".join(map(line, batch)).encode("ascii")
        rest = memoryview(b"\n" + data if self._torn else data)
        try:
            while rest:
                done = os.write(self._fd, rest)
                self._torn = rest[done - 1] != 10 if done else self._torn
                rest = rest[done:]
        except OSError as error:
            self.errors += 1
            self.lost += max(1, bytes(rest).count(b"\n"))
            if not self._failing:
                log.error(  # noqa: TRY400 - a full disk needs no stack
                    "%s: events are lost until it can be written again: %s", self.path, error
                )
            self._failing = True
        else:
            if self._failing:
                log.warning("%s: can be written again; %d events were lost", self.path, self.lost)
            self._failing = False


def _check(fd: int, name: str) -> bool:
    """Refuses files that are not ours alone; returns whether the last line lacks its end."""
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode):
        return False
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError("journal_file", name, "a regular file is needed")
    if status.st_uid != os.geteuid():
        raise ConfigError("journal_file", name, "it belongs to another user")
    if status.st_nlink > 1:
        raise ConfigError("journal_file", name, "it has several hard links")
    if status.st_size == 0:
        return False
    try:
        with open(f"/dev/fd/{fd}", "rb") as file:  # the same file, opened for reading
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return True


def line(event: Event) -> str:
    """One event as one line of ASCII JSON, line end included. Control characters are escaped."""
    data: dict[str, Any] = {"event": type(event).__name__}
    for field in dataclasses.fields(event):
        data[field.name] = getattr(event, field.name)
    try:
        return json.dumps(data, default=_plain, allow_nan=False, separators=(",", ":")) + "\n"
    except (ValueError, TypeError, RecursionError):
        return json.dumps(_tame(data), separators=(",", ":")) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, deque)):
        return list(value)
    return str(value)


def _tame(value: Any, depth: int = 8) -> Any:
    """The same without what JSON cannot say: NaN and infinities become ``null``, strange keys and objects text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth == 0:
        return "..."
    if isinstance(value, Mapping):
        return {str(key): _tame(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return [_tame(item, depth - 1) for item in value]
    plain = _plain(value)
    return plain if isinstance(plain, str) else _tame(plain, depth - 1)
