"""Checkpoints on a disk: one folder per name, one file per generation, and the order of system calls that keeps them whole.

Nothing here knows of asyncio or of the rest of the library, and nothing but the standard library is imported: these functions
run in a thread, and a test runs them in bare interpreters that it kills between any two system calls.

A file is a header and a payload. The header tells what the payload is, how long it is, of which name and generation, and
holds a digest over both. A new generation is written to a file of another name, synced, renamed, and the folder synced; a
file under its final name is therefore whole, unless somebody or something has damaged it, which the digest shows.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterable, Sequence

MAGIC = b"\x89PRCKPT\n"
VERSION = 1
HEADER = struct.Struct(">8sHHQQd16s64s32s")
"""Magic, version, length of the header, generation, length of the payload, wall time, codec, name, digest (SHA-256)."""

_BEFORE_DIGEST = HEADER.size - 32
_SUFFIX = ".ckpt"
_DIGITS = 12
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not blocking: a FIFO is refused, not waited for
_FULL_SYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Failed(Exception):
    """A system call failed while ``phase`` was under way, or a folder was refused."""

    def __init__(self, phase: str, reason: str, number: int | None = None, path: str | None = None) -> None:
        super().__init__(phase, reason)
        self.phase = phase
        self.reason = reason
        self.number = number
        self.path = path


class Bad(Exception):
    """A file is not a whole checkpoint; the text says why."""


class Header:
    """What the header of a file says."""

    __slots__ = ("codec", "generation", "length", "saved_at")

    def __init__(self, generation: int, length: int, saved_at: float, codec: str) -> None:
        self.generation = generation
        self.length = length
        self.saved_at = saved_at
        self.codec = codec


def file_name(generation: int) -> str:
    """The name of the file of a generation."""
    return f"{generation:0{_DIGITS}d}{_SUFFIX}"


def generation_of(name: str) -> int | None:
    """The generation a file of this name holds; ``None`` when it is no checkpoint."""
    digits = name.removesuffix(_SUFFIX)
    return int(digits) if digits != name and len(digits) >= _DIGITS and digits.isascii() and digits.isdigit() else None


# --------------------------------------------------------------------------------------------------- folders


def open_root(path: str, *, create: bool) -> int:
    """Opens the folder of a store, making it if it is not there; the caller closes it.

    Raises:
        Failed: it cannot be opened, or is not safe.
    """
    try:
        try:
            return _checked(os.open(path, _FOLDER), path)
        except FileNotFoundError:
            if not create:
                raise
        parent = os.path.dirname(os.path.abspath(path))  # noqa: PTH100,PTH120 - no pathlib in the thread's module
        os.makedirs(parent, exist_ok=True)  # noqa: PTH103
        above = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _made(above, os.path.basename(os.path.abspath(path)), path)  # noqa: PTH100,PTH119
        finally:
            os.close(above)
    except OSError as error:
        raise _failed("directory", error, path) from error


def open_folder(root: int, name: str, path: str, *, create: bool) -> int:
    """Opens the folder of one name below ``root``; the caller closes it.

    Raises:
        FileNotFoundError: it is not there and not to be made.
        Failed: it cannot be opened, or is not safe.
    """
    shown = f"{path}/{name}"
    try:
        try:
            return _checked(os.open(name, _FOLDER, dir_fd=root), shown)
        except FileNotFoundError:
            if not create:
                raise
        return _made(root, name, shown)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _failed("directory", error, shown) from error


def _made(above: int, name: str, shown: str) -> int:
    """Makes a folder for us alone, durably, and opens it."""
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        pass  # somebody was quicker; it is looked at like any other
    folder = _checked(os.open(name, _FOLDER, dir_fd=above), shown)
    _sync(above)
    return folder


def _checked(folder: int, shown: str) -> int:
    """Refuses a folder in which others could put files under our names."""
    found = os.fstat(folder)
    problem = ""
    if found.st_uid != os.geteuid():
        problem = "it belongs to somebody else"
    elif found.st_mode & _OTHERS_WRITE:
        problem = "others may write into it"
    if problem:
        os.close(folder)
        raise Failed("directory", problem, errno.EPERM, shown)
    return folder


def names(root: int) -> list[str]:
    """The folders in that of a store, in order; what is no folder is none of ours.

    Raises:
        Failed: it cannot be read.
    """
    try:
        return sorted(name for name in os.listdir(root) if _is_folder(root, name))
    except OSError as error:
        raise _failed("directory", error, "") from error


def _is_folder(root: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False  # it was deleted meanwhile


def generations(folder: int) -> tuple[list[int], list[str]]:
    """The generations in a folder, oldest first, and the files somebody who was killed has left unfinished."""
    names = os.listdir(folder)
    found = sorted(number for name in names if (number := generation_of(name)) is not None)
    return found, [name for name in names if name.startswith(".") and name.endswith(".tmp")]


# --------------------------------------------------------------------------------------------------- writing


def save(
    path: str,
    name: str,
    pieces: Sequence[bytes],
    *,
    codec: str,
    keep: int,
    saved_at: float,
    durable: bool = True,
) -> tuple[int, int]:
    """Writes the next generation of ``name``; when this returns, it is on the disk. Returns its number and its size.

    Whoever else saves under this name waits meanwhile, in this program and in others. If anything fails, no file under a
    final name has been touched.

    Raises:
        Failed: it could not be written.
    """
    folder = _locked(path, name)
    phase = "list"
    try:
        present, unfinished = generations(folder)
        for stale in unfinished:  # whoever wrote it held the lock, and is gone
            os.unlink(stale, dir_fd=folder)
        generation = present[-1] + 1 if present else 1
        final = file_name(generation)
        temporary = f".{final}.{os.getpid()}.tmp"
        phase = "create"
        file = os.open(temporary, _NEW, 0o600, dir_fd=folder)
        try:
            try:
                phase = "write"
                os.fchmod(file, 0o600)  # whatever the umask has left of it
                size = _write(file, name, generation, pieces, codec, saved_at)
                phase = "sync"
                if durable:
                    _sync(file)
            finally:
                os.close(file)
            phase = "rename"
            os.rename(temporary, final, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            try:
                os.unlink(temporary, dir_fd=folder)
            except OSError:
                pass  # the next save will
            raise
        phase = "sync folder"
        if durable:
            _sync(folder)
        for old in [*present, generation][:-keep]:
            try:
                os.unlink(file_name(old), dir_fd=folder)
            except OSError:
                pass  # the new one is safe; the next save tries again
        return generation, size
    except OSError as error:
        raise _failed(phase, error, f"{path}/{name}") from error
    finally:
        os.close(folder)


def _locked(path: str, name: str) -> int:
    """Opens the folder of a name, making it if it is not there, and waits until nobody else writes into it."""
    while True:
        root = open_root(path, create=True)
        try:
            folder = open_folder(root, name, path, create=True)
        finally:
            os.close(root)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if os.fstat(folder).st_nlink:
                return folder
        except OSError as error:
            os.close(folder)
            raise _failed("lock", error, f"{path}/{name}") from error
        os.close(folder)  # it was deleted while we waited


def _write(file: int, name: str, generation: int, pieces: Iterable[bytes], codec: str, saved_at: float) -> int:
    pieces = list(pieces)
    length = sum(map(len, pieces))
    fields = (MAGIC, VERSION, HEADER.size, generation, length, saved_at, codec.encode(), name.encode())
    digest = hashlib.sha256(HEADER.pack(*fields, b"")[:_BEFORE_DIGEST])
    for piece in pieces:
        digest.update(piece)
    data = b"".join((HEADER.pack(*fields, digest.digest()), *pieces))
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
    return len(data)


def prune(folder: int, name: str, keep: int, is_good: Callable[[int], bool]) -> list[int]:
    """Removes all but the newest ``keep`` generations, and what was left unfinished; returns the numbers that are gone.

    The newest good one is never removed, however many damaged ones are newer.

    Raises:
        Failed: one could not be removed.
    """
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        present, unfinished = generations(folder)
        for stale in unfinished:
            os.unlink(stale, dir_fd=folder)
        kept, old = present[len(present) - keep :] if keep else [], present[: max(0, len(present) - keep)]
        if keep and not any(is_good(number) for number in reversed(kept)):
            spared = next((number for number in reversed(old) if is_good(number)), None)
            old = [number for number in old if number != spared]
        for number in old:
            os.unlink(file_name(number), dir_fd=folder)
        return old
    except OSError as error:
        raise _failed("prune", error, name) from error


def delete(root: int, name: str, path: str) -> bool:
    """Removes all generations of a name, and its folder; returns whether there were any.

    Raises:
        Failed: not all of it could be removed.
    """
    try:
        folder = open_folder(root, name, path, create=False)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        present, unfinished = generations(folder)
        for number in present:
            os.unlink(file_name(number), dir_fd=folder)
        for stale in unfinished:
            os.unlink(stale, dir_fd=folder)
        try:
            os.rmdir(name, dir_fd=root)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # something of somebody else is in it: the folder stays
                raise
        _sync(root)
        return bool(present)
    except OSError as error:
        raise _failed("delete", error, f"{path}/{name}") from error
    finally:
        os.close(folder)


# --------------------------------------------------------------------------------------------------- reading


def read(folder: int, name: str, generation: int, *, most: int, payload: bool = True) -> tuple[Header, bytes]:
    """Reads one generation and checks all of it; with ``payload=False`` its header alone, as far as that can be checked.

    Raises:
        Bad: it is not a whole checkpoint of this name and generation, or not a file of ours.
        FileNotFoundError: it is gone.
    """
    try:
        file = os.open(file_name(generation), _READ, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as error:
        what = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise Bad(what) from error
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise Bad("it is no regular file")
        if found.st_uid != os.geteuid():
            raise Bad("it belongs to somebody else")
        if found.st_mode & _OTHERS_WRITE:
            raise Bad("others may write to it")
        if found.st_nlink != 1:
            raise Bad("it has another name too")
        if found.st_size < HEADER.size:
            raise Bad(f"it ends in its header, after {found.st_size} bytes")
        head = _read(file, HEADER.size)
        header = _parse(head, name, generation)
        if found.st_size != HEADER.size + header.length:
            raise Bad(f"it is {found.st_size:,} bytes long and says {HEADER.size + header.length:,}")
        if header.length > most:
            raise Bad(f"it is larger than {most:,} bytes")
        if not payload:
            return header, b""
        data = _read(file, header.length)
        digest = hashlib.sha256(head[:_BEFORE_DIGEST])
        digest.update(data)
        if digest.digest() != head[_BEFORE_DIGEST:]:
            raise Bad("its digest is wrong: it is damaged")
        return header, data
    except OSError as error:
        raise Bad(error.strerror or str(error)) from error
    finally:
        os.close(file)


def _parse(head: bytes, name: str, generation: int) -> Header:
    if len(head) < HEADER.size:
        raise Bad(f"it ends in its header, after {len(head)} bytes")
    magic, version, size, number, length, saved_at, codec, whose, _ = HEADER.unpack(head)
    if magic != MAGIC:
        raise Bad("it does not begin like a checkpoint")
    if version != VERSION:
        raise Bad(f"its format is version {version}, and this program knows {VERSION}")
    if size != HEADER.size:
        raise Bad(f"its header is {size} bytes long instead of {HEADER.size}")
    if whose.rstrip(b"\0") != name.encode():
        raise Bad("it is a checkpoint of another name")
    if number != generation:
        raise Bad(f"it is generation {number} under the name of {generation}")
    return Header(number, length, saved_at, codec.rstrip(b"\0").decode("ascii", "replace"))


def _read(file: int, length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = os.read(file, min(length, 1 << 30))
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _sync(descriptor: int) -> None:
    """Waits until the disk has it; on macOS that takes more than ``fsync``."""
    if _FULL_SYNC is not None:  # pragma: no cover - macOS
        fcntl.fcntl(descriptor, _FULL_SYNC)
        return
    os.fsync(descriptor)


def _failed(phase: str, error: OSError, path: str) -> Failed:
    return Failed(phase, error.strerror or str(error), error.errno, path)
