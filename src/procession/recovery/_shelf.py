"""The store as its thread sees it: plain functions over :mod:`procession.recovery._disk` that may take their time."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Sequence
from typing import Any

from procession._types import NAME_PATTERN
from procession.recovery import _disk, _snapshot
from procession.recovery._saved import Checkpoint, Codec, Damaged

_TRIES = 3


class Shelf:
    """One folder of checkpoints. All methods may raise ``_disk.Failed``.

    Args:
        directory: the folder.
        codec: how states become bytes; ``None`` for JSON.
        most: bytes a state may have.
    """

    def __init__(self, directory: str, codec: Codec | None, most: int) -> None:
        self.directory = directory
        self.codec_name = "json" if codec is None else codec.name
        self._codec = codec
        self._most = most

    def save(self, name: str, pieces: Sequence[bytes], keep: int, saved_at: float, durable: bool) -> tuple[int, int]:
        """Writes the next generation, and returns its number and its size."""
        return _disk.save(
            self.directory, name, pieces, codec=self.codec_name, keep=keep, saved_at=saved_at, durable=durable
        )

    def newest(self, name: str) -> tuple[_disk.Header | None, Any, tuple[Damaged, ...]] | None:
        """The newest whole state with its header; no header when all are damaged, and ``None`` when there are none."""
        folder = self._folder(name)
        if folder is None:
            return None
        try:
            for _ in range(_TRIES):
                present, _unfinished = _disk.generations(folder)
                skipped: list[Damaged] = []
                for generation in reversed(present):
                    try:
                        header, state = self._read(folder, name, generation)
                    except FileNotFoundError:
                        break  # pruned meanwhile, so there are newer ones
                    except _disk.Bad as error:
                        skipped.append(Damaged(self.path(name, generation), generation, str(error)))
                    else:
                        return header, state, tuple(skipped)
                else:
                    return (None, None, tuple(skipped)) if skipped else None
            return None, None, (Damaged(self.path(name, 0), 0, "files vanish as fast as they are read"),)
        finally:
            os.close(folder)

    def _read(self, folder: int, name: str, generation: int) -> tuple[_disk.Header, Any]:
        header, data = _disk.read(folder, name, generation, most=self._most)
        if header.codec != self.codec_name:
            raise _disk.Bad(f"it was made by the codec {header.codec!r}, not {self.codec_name!r}")
        try:
            return header, _snapshot.decode(data) if self._codec is None else self._codec.decode(data)
        except Exception as error:
            raise _disk.Bad(f"it cannot be decoded: {type(error).__name__}: {error}") from error

    def files(self, name: str | None, verify: bool) -> list[Checkpoint]:
        """The files of a name, or of all."""
        found: list[Checkpoint] = []
        for one in self.names() if name is None else [name]:
            folder = self._folder(one)
            if folder is None:
                continue
            try:
                for generation in _disk.generations(folder)[0]:
                    found += self._look_at(folder, one, generation, verify)
            finally:
                os.close(folder)
        return found

    def _look_at(self, folder: int, name: str, generation: int, verify: bool) -> list[Checkpoint]:
        path = self.path(name, generation)
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

    def names(self) -> list[str]:
        """The names there are."""
        try:
            root = _disk.open_root(self.directory, create=False)
        except _disk.Failed as error:
            if error.number == errno.ENOENT:
                return []
            raise
        try:
            return [name for name in _disk.names(root) if NAME_PATTERN.fullmatch(name)]
        finally:
            os.close(root)

    def prune(self, name: str | None, keep: int) -> int:
        """Removes all but the newest, and returns how many files are gone."""
        gone = 0
        for one in self.names() if name is None else [name]:
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

    def delete(self, name: str) -> bool:
        """Removes all of a name."""
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

    def path(self, name: str, generation: int) -> str:
        """Where a generation is kept."""
        return f"{self.directory}/{name}/{_disk.file_name(generation)}"
