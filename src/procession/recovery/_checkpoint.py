"""``CheckpointStore``: states that survive the program, kept whole whatever kills it."""

from __future__ import annotations

import asyncio
import builtins
import errno
import functools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from procession._clock import monotonic
from procession._clock import wall as wall_time
from procession._core.aio import settle
from procession._core.backoff import duration
from procession._types import NAME_PATTERN
from procession.errors import CheckpointCorrupt, CheckpointError, ConfigError
from procession.recovery import _disk, _snapshot

T = TypeVar("T")
_log = logging.getLogger("procession.recovery")
_SLICE = 0.0005
"""Seconds of encoding after which the loop has its turn."""

_UNSAFE = frozenset({"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"})
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Codec:
    """How states become bytes and back, for states that are not made of what JSON knows.

    Attributes:
        name: at most 16 ASCII characters; kept in each file, so that nobody decodes what another codec has made.
        encode: gets a state and returns bytes; called at once by ``save``, on the loop.
        decode: gets these bytes and returns the state; called in a thread by ``restore``. It must not run code that
            the bytes bring along, so those of pickle and its relatives are refused.

    Raises:
        ConfigError: a value was refused.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name) or len(name) > 16:
            raise ConfigError("codec", name, "a name of at most 16 letters, digits, '.', '_' or '-' is needed")
        for function in (self.encode, self.decode):
            if not callable(function):
                raise ConfigError("codec", function, "functions to encode and to decode are needed")
            home = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
            if str(home).partition(".")[0] in _UNSAFE:
                raise ConfigError("codec", name, "what unpickles runs any code that it finds; use a format of data")


BYTES = Codec("bytes", bytes, bytes)
"""For states that are bytes already."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that was passed over.

    Attributes:
        path: which one.
        generation: the generation it should have held.
        reason: what is wrong with it.
    """

    path: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What ``save`` has written; it is on the disk.

    Attributes:
        name: of what.
        generation: 1, 2, 3 …
        saved_at: seconds since the epoch.
        size: bytes of the file.
        path: the file.
    """

    name: str
    generation: int
    saved_at: float
    size: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restored:
    """What ``restore`` has found. It can be compared, subscripted and iterated like the state itself.

    Attributes:
        name: of what.
        state: the state that was saved.
        generation: which generation it is.
        saved_at: when it was saved, in seconds since the epoch.
        age: how many seconds ago that was by the wall clock, at least 0.
        path: the file.
        skipped: newer files that were passed over because they are damaged, the newest first.
    """

    name: str
    state: Any
    generation: int
    saved_at: float
    age: float
    path: str
    skipped: tuple[Damaged, ...] = ()

    @property
    def is_latest(self) -> bool:
        """Whether nothing newer had to be passed over."""
        return not self.skipped

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Restored):
            return (self.name, self.generation, self.state) == (other.name, other.generation, other.state)
        return bool(self.state == other)

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, key: Any) -> Any:
        return self.state[key]

    def __contains__(self, key: object) -> bool:
        return key in self.state

    def __iter__(self) -> Iterator[Any]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One file of a store, as ``list`` finds it.

    Attributes:
        name: of what.
        generation: which generation.
        saved_at: when it was saved, in seconds since the epoch; ``None`` when that cannot be read.
        size: bytes of its state; 0 when that cannot be read.
        path: the file.
        problem: what is wrong with it; empty when nothing is known to be.
    """

    name: str
    generation: int
    saved_at: float | None
    size: int
    path: str
    problem: str = ""


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
        self._codec_name = "json" if self._codec is None else self._codec.name
        self._durable = durable
        self._most = max_mb << 20
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
                functools.partial(
                    _disk.save,
                    self.directory,
                    name,
                    pieces,
                    codec=self._codec_name,
                    keep=self.keep,
                    saved_at=saved_at,
                    durable=self._durable,
                ),
            )
        path = self._path(name, generation)
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
        found = await self._off_loop(name, functools.partial(self._newest, name))
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
            path=self._path(name, header.generation),
            skipped=skipped,
        )

    def _newest(self, name: str) -> tuple[_disk.Header | None, Any, tuple[Damaged, ...]] | None:
        folder = self._folder(name)
        if folder is None:
            return None
        try:
            for _ in range(_TRIES):
                present, _unfinished = _disk.generations(folder)
                skipped: builtins.list[Damaged] = []
                for generation in reversed(present):
                    try:
                        header, state = self._read(folder, name, generation)
                    except FileNotFoundError:
                        break  # pruned meanwhile, so there are newer ones
                    except _disk.Bad as error:
                        skipped.append(Damaged(self._path(name, generation), generation, str(error)))
                    else:
                        return header, state, tuple(skipped)
                else:
                    return (None, None, tuple(skipped)) if skipped else None
            return None, None, (Damaged(self._path(name, 0), 0, "files vanish as fast as they are read"),)
        finally:
            os.close(folder)

    def _read(self, folder: int, name: str, generation: int) -> tuple[_disk.Header, Any]:
        header, data = _disk.read(folder, name, generation, most=self._most)
        if header.codec != self._codec_name:
            raise _disk.Bad(f"it was made by the codec {header.codec!r}, not {self._codec_name!r}")
        try:
            return header, _snapshot.decode(data) if self._codec is None else self._codec.decode(data)
        except Exception as error:
            raise _disk.Bad(f"it cannot be decoded: {type(error).__name__}: {error}") from error

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
        return await self._off_loop(name or "*", functools.partial(self._list, name, verify))

    def _list(self, name: str | None, verify: bool) -> builtins.list[Checkpoint]:
        found: builtins.list[Checkpoint] = []
        for one in self._names() if name is None else [name]:
            folder = self._folder(one)
            if folder is None:
                continue
            try:
                for generation in _disk.generations(folder)[0]:
                    found += self._look_at(folder, one, generation, verify)
            finally:
                os.close(folder)
        return found

    def _look_at(self, folder: int, name: str, generation: int, verify: bool) -> builtins.list[Checkpoint]:
        path = self._path(name, generation)
        try:
            if verify:
                header, _ = self._read(folder, name, generation)
            else:
                header, _ = _disk.read(folder, name, generation, most=self._most, payload=False)
        except FileNotFoundError:
            return []
        except _disk.Bad as error:
            return [Checkpoint(name=name, generation=generation, saved_at=None, size=0, path=path, problem=str(error))]
        return [Checkpoint(name=name, generation=generation, saved_at=header.saved_at, size=header.length, path=path)]

    async def names(self) -> builtins.list[str]:
        """The names under which something was saved, in order.

        Raises:
            CheckpointError: the folder cannot be read, or is not safe.

        Cancellation: absorbed until the reading is over, then raised.
        """
        return await self._off_loop("*", self._names)

    def _names(self) -> builtins.list[str]:
        try:
            root = _disk.open_root(self.directory, create=False)
        except _disk.Failed as error:
            if error.number == errno.ENOENT:
                return []
            raise
        try:
            return _disk.names(root)
        finally:
            os.close(root)

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
        return await self._off_loop(name or "*", functools.partial(self._prune, name, least))

    def _prune(self, name: str | None, keep: int) -> int:
        gone = 0
        for one in self._names() if name is None else [name]:
            folder = self._folder(one)
            if folder is None:
                continue
            try:
                good = functools.partial(self._is_good, folder, one)
                gone += len(_disk.prune(folder, one, keep, good))
            finally:
                os.close(folder)
        return gone

    def _is_good(self, folder: int, name: str, generation: int) -> bool:
        try:
            self._read(folder, name, generation)
        except (_disk.Bad, FileNotFoundError):
            return False
        return True

    async def delete(self, name: str) -> bool:
        """Removes all that was saved under ``name``, and returns whether that was anything.

        Raises:
            ConfigError: the name is not acceptable.
            CheckpointError: it could not be removed, or a folder is not safe.

        Cancellation: before its turn has come, nothing is removed; after that, absorbed until it is, then raised.
        """
        _check_name(name)
        async with self._turn(name):
            return await self._off_loop(name, functools.partial(self._delete, name))

    def _delete(self, name: str) -> bool:
        try:
            root = _disk.open_root(self.directory, create=False)
        except _disk.Failed as error:
            if error.number == errno.ENOENT:
                return False
            raise
        try:
            return _disk.delete(root, name, self.directory)
        finally:
            os.close(root)

    # ------------------------------------------------------------------------------------------- helpers

    def _folder(self, name: str) -> int | None:
        """The folder of a name, to be closed by the caller; ``None`` when there is none."""
        try:
            root = _disk.open_root(self.directory, create=False)
        except _disk.Failed as error:
            if error.number == errno.ENOENT:
                return None
            raise
        try:
            return _disk.open_folder(root, name, self.directory, create=False)
        except FileNotFoundError:
            return None
        finally:
            os.close(root)

    def _path(self, name: str, generation: int) -> str:
        return f"{self.directory}/{name}/{_disk.file_name(generation)}"

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
    until = monotonic() + _SLICE
    for part in parts:
        try:
            pieces.append(_snapshot.encode(part))
        except _snapshot.Unserialisable as error:
            raise _refused(part, error) from error
        if monotonic() > until:
            await asyncio.sleep(0)
            until = monotonic() + _SLICE
    return pieces


def _refused(state: object, error: Exception) -> ConfigError:
    """The state itself is not shown: it may be large, and private."""
    return ConfigError("state", type(state).__name__, f"it could not be restored as it is: {error}")


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        hint = "1 to 64 letters, digits, '.', '_' or '-' are needed, the first a letter or digit"
        raise ConfigError("name", name, hint)
