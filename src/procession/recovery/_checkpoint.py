"""``CheckpointStore``: states that survive the program, kept whole whatever kills it."""

from __future__ import annotations

import asyncio
import builtins
import functools
import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

from procession._clock import monotonic
from procession._clock import wall as wall_time
from procession._core.aio import settle
from procession._core.backoff import duration
from procession._types import NAME_PATTERN
from procession.errors import CheckpointCorrupt, CheckpointError, ConfigError
from procession.recovery import _disk, _snapshot
from procession.recovery._saved import BYTES, Checkpoint, Codec, Restored, Saved
from procession.recovery._shelf import Shelf

T = TypeVar("T")
_log = logging.getLogger("procession.recovery")
_SLICE = 0.0005
"""Seconds of encoding after which the loop has its turn."""


class CheckpointStore:
    """Keeps the last few states of each of many things, whole and private, in a folder of its own.

    ::

        store = CheckpointStore("/var/lib/app/checkpoints", keep=5)
        await store.save("job-17", {"done": done, "left": left})
        restored = await store.restore("job-17")

    When ``save`` returns, the state is on the disk: written to a temporary file, synced, renamed, and the folder synced. A
    program that is killed meanwhile leaves the state before. Saves of one name are done in the order they were called, also
    by several programs, one after the other. Files are for their owner only (0600), in folders that others cannot
    write to; nothing that is a symbolic link, has a second name or belongs to somebody else is read.

    A store has no connections and no tasks of its own; it needs not be closed.

    Args:
        directory: the folder; it is made when the first state is saved.
        keep: how many generations of each name are kept. Default 5.
        codec: ``"json"``, ``"bytes"`` for states that are bytes, or a :class:`Codec` of your own. Default: JSON.
        durable: whether it waits until the disk has it. Without, states survive the program but not the machine. Default yes.
        max_mb: MiB a state may have. Default 1,024.
        wall: tells seconds since the epoch, for tests. Default: the system's clock.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        keep: int = 5,
        *,
        codec: str | Codec = "json",
        durable: bool = True,
        max_mb: int = 1024,
        wall: Callable[[], float] = wall_time,
    ) -> None:
        if not isinstance(directory, (str, os.PathLike)) or not (path := os.fspath(directory)) or "\0" in path:
            raise ConfigError("directory", directory, "the path of a folder is needed")
        for field, value in (("keep", keep), ("max_mb", max_mb)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(field, value, "a whole number, 1 or more, is needed")
        if not isinstance(durable, bool):
            raise ConfigError("durable", durable, "True or False is needed")
        if codec == "bytes":
            codec = BYTES
        if codec != "json" and not isinstance(codec, Codec):
            raise ConfigError("codec", codec, '"json", "bytes" or a Codec is needed')
        self.directory: str = os.path.abspath(path)  # noqa: PTH100 - as it was given, links unresolved
        self.keep: int = keep
        self._codec = codec if isinstance(codec, Codec) else None
        self._durable = durable
        self._most = max_mb << 20
        self._shelf = Shelf(self.directory, self._codec, self._most)
        self._wall = wall
        self._line: dict[str, _Line] = {}

    # ------------------------------------------------------------------------------------------ saving

    async def save(self, name: str, state: Any) -> Saved:
        """Saves ``state`` as it is at this moment, and returns when it is on the disk.

        Large states of plain values are encoded in slices of half a millisecond, between which the loop has its turn; the
        disk is written to in a thread.

        Args:
            name: 1 to 64 letters, digits, ``.``, ``_`` or ``-``.
            state: what JSON knows: dictionaries with text as keys, lists, text, numbers other than NaN and the infinities,
                booleans, ``None``. Tuples come back as lists. With another codec: what that knows.

        Raises:
            ConfigError: the name is not acceptable, or the state could not be restored as it is; nothing was written.
            CheckpointError: it could not be written; what was saved before is still there.

        Cancellation: before its turn has come, nothing is written; after that, absorbed until it is, then raised.
        """
        _check_name(name)
        parts = self._parts(state)
        async with self._turn(name):
            pieces = await _encoded(parts)
            if sum(map(len, pieces)) > self._most:
                raise ConfigError("state", type(state).__name__, f"it takes more than {self._most >> 20} MiB")
            saved_at = self._wall()
            generation, size = await self._off_loop(
                name,
                functools.partial(self._shelf.save, name, pieces, self.keep, saved_at, self._durable),
            )
        path = self._shelf.path(name, generation)
        return Saved(name=name, generation=generation, saved_at=saved_at, size=size, path=path)

    def _parts(self, state: Any) -> builtins.list[_snapshot.Part]:
        codec = self._codec
        try:
            if codec is None:
                return _snapshot.snapshot(state)
            if codec is BYTES and not isinstance(state, (bytes, bytearray, memoryview)):
                raise TypeError("bytes are needed")
            data = codec.encode(state)
            if not isinstance(data, bytes):
                raise TypeError(f"the codec returned {type(data).__name__} instead of bytes")
            return [data]
        except Exception as error:
            raise _refused(state, error) from error

    # ---------------------------------------------------------------------------------------- restoring

    async def restore(self, name: str, *, max_age: float | None = None) -> Restored | None:
        """Finds the newest whole state of ``name``.

        Args:
            name: of what.
            max_age: seconds; an older state is none. Default: any age will do. By the wall clock, so a clock that was set
                makes states older or younger than they are.

        Returns:
            The state, and what had to be passed over; ``None`` when nothing was ever saved, or nothing young enough.

        Raises:
            ConfigError: the name or the age is not acceptable.
            CheckpointCorrupt: there are files, and none of them is whole.
            CheckpointError: the folder cannot be read, or is not safe.

        Cancellation: absorbed until the reading is over, then raised.
        """
        _check_name(name)
        oldest = None if max_age is None else duration("max_age", max_age)
        found = await self._off_loop(name, functools.partial(self._shelf.newest, name))
        if found is None:
            return None
        header, state, skipped = found
        if header is None:
            raise CheckpointCorrupt(name, [f"{os.path.basename(one.path)}: {one.reason}" for one in skipped])  # noqa: PTH119
        if skipped:
            _log.warning("%s: %d damaged checkpoints were passed over; %s", name, len(skipped), skipped[0].reason)
        age = max(0.0, self._wall() - header.saved_at)
        if oldest is not None and age > oldest:
            return None
        return Restored(
            name=name,
            state=state,
            generation=header.generation,
            saved_at=header.saved_at,
            age=age,
            path=self._shelf.path(name, header.generation),
            skipped=skipped,
        )

    # ------------------------------------------------------------------------------------ what there is

    async def list(self, name: str | None = None, *, verify: bool = False) -> builtins.list[Checkpoint]:
        """The files of a name, or of all names, by name and generation, the newest last.

        Args:
            name: of what. Default: of all.
            verify: read all of each file, and not its header alone.

        Raises:
            ConfigError: the name is not acceptable.
            CheckpointError: a folder cannot be read, or is not safe.

        Cancellation: absorbed until the reading is over, then raised.
        """
        if name is not None:
            _check_name(name)
        return await self._off_loop(name or "*", functools.partial(self._shelf.files, name, verify))

    async def names(self) -> builtins.list[str]:
        """The names under which something was saved, in order.

        Raises:
            CheckpointError: the folder cannot be read, or is not safe.

        Cancellation: absorbed until the reading is over, then raised.
        """
        return await self._off_loop("*", self._shelf.names)

    async def prune(self, name: str | None = None, *, keep: int | None = None) -> int:
        """Removes all but the newest generations, and returns how many files are gone.

        The newest whole one is never removed.

        Args:
            name: of what. Default: of all names.
            keep: how many are kept, 1 or more. Default: as many as the store keeps.

        Raises:
            ConfigError: a value was refused.
            CheckpointError: a file could not be removed, or a folder is not safe.

        Cancellation: absorbed until it is done, then raised.
        """
        if name is not None:
            _check_name(name)
        least: object = self.keep if keep is None else keep
        if isinstance(least, bool) or not isinstance(least, int) or least < 1:
            raise ConfigError("keep", least, "a whole number, 1 or more, is needed; see delete() for removing all")
        return await self._off_loop(name or "*", functools.partial(self._shelf.prune, name, least))

    async def delete(self, name: str) -> bool:
        """Removes all that was saved under ``name``, and returns whether that was anything.

        Raises:
            ConfigError: the name is not acceptable.
            CheckpointError: it could not be removed, or a folder is not safe.

        Cancellation: before its turn has come, nothing is removed; after that, absorbed until it is, then raised.
        """
        _check_name(name)
        async with self._turn(name):
            return await self._off_loop(name, functools.partial(self._shelf.delete, name))

    # ------------------------------------------------------------------------------------------- helpers

    def _turn(self, name: str) -> _Turn:
        return _Turn(self._line, name)

    async def _off_loop(self, name: str, work: Callable[[], T]) -> T:
        future = asyncio.get_running_loop().run_in_executor(None, _told, work)
        (value, error), cancelled = await settle(future)
        if cancelled is not None:
            raise cancelled
        if error is not None:
            raise CheckpointError(name, error.phase, error.reason, error.number, error.path) from error
        return value  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"<CheckpointStore {self.directory}, keeps {self.keep}>"


class _Line:
    """Those who want to write under one name, in the order they came."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Turn:
    """``async with``: one's turn among them; the line is forgotten when nobody stands in it."""

    __slots__ = ("_lines", "_name")

    def __init__(self, lines: dict[str, _Line], name: str) -> None:
        self._lines = lines
        self._name = name

    async def __aenter__(self) -> None:
        line = self._lines.setdefault(self._name, _Line())
        line.users += 1
        try:
            await line.lock.acquire()
        except BaseException:
            self._leave(line)
            raise

    async def __aexit__(self, *_: object) -> None:
        line = self._lines[self._name]
        line.lock.release()
        self._leave(line)

    def _leave(self, line: _Line) -> None:
        line.users -= 1
        if not line.users:
            del self._lines[self._name]


def _told(work: Callable[[], T]) -> tuple[T | None, _disk.Failed | None]:
    """Runs in a thread; what goes wrong comes back as a value, so that a cancelled caller leaves no error unseen."""
    try:
        return work(), None
    except _disk.Failed as error:
        return None, error
    except OSError as error:
        return None, _disk.Failed("read", error.strerror or str(error), error.errno, None)


async def _encoded(parts: list[_snapshot.Part]) -> list[bytes]:
    """The parts as JSON, with a turn for the loop now and then."""
    pieces: list[bytes] = []
    if len(parts) > 1:
        await asyncio.sleep(0)  # taking the copy was this turn's work
    until = monotonic() + _SLICE
    for part in parts:
        try:
            for piece in _snapshot.encode(part):
                pieces.append(piece)
                if monotonic() > until:
                    await asyncio.sleep(0)
                    until = monotonic() + _SLICE
        except _snapshot.Unserialisable as error:
            raise _refused(part, error) from error
    return pieces


def _refused(state: object, error: Exception) -> ConfigError:
    """The state itself is not shown: it may be large, and private."""
    return ConfigError("state", type(state).__name__, f"it could not be restored as it is: {error}")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        hint = "1 to 64 letters, digits, '.', '_' or '-' are needed, the first a letter or digit"
        raise ConfigError("name", name, hint)
