"""Checkpoints whose writer is killed between any two system calls, and whose disk forgets what was not synced."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import procession.recovery._disk as disk
from procession import Command, CommandPool
from procession.recovery import CheckpointStore
from tests.programs import program

pytestmark = [pytest.mark.row("RE7"), pytest.mark.one_loop]

KILLS = 520


async def one_kill(pool: CommandPool, folder: Path, count: int, *, keep: int) -> tuple[int, int]:
    """Lets a writer run until it is killed; returns what it has acknowledged last, and what is restored."""
    store = CheckpointStore(folder, keep=keep)
    before = await store.restore("job")
    first = 1 if before is None else before["number"] + 1
    writer: Command = program("saver", disk.__file__, str(folder), str(keep), str(first), str(count))
    done = await pool.execute(writer)
    assert done.returncode == -9, done.error_text
    acknowledged = [int(line) for line in done.text.split()]
    last = acknowledged[-1] if acknowledged else first - 1
    restored = await store.restore("job")
    if restored is None:
        assert last == 0
        return 0, 0
    number = restored["number"]
    assert restored == {"number": number, "filling": "x" * (number * 37 % 500)}
    assert restored.skipped == ()  # no torn file has ever got a final name
    assert last <= number <= last + 1, (count, last, number)
    return last, number


@pytest.mark.timeout(180)
async def test_whenever_the_writer_is_killed_nothing_acknowledged_is_lost(tmp_path: Path):
    kills = 0
    ahead = 0

    async def series(start: int) -> None:
        nonlocal kills, ahead
        folder = tmp_path / f"series-{start}"
        while kills < KILLS:
            kills += 1
            # Every boundary of the first save, which makes the folders, and of later ones, which prune: in turn.
            count = start + (kills * 7) % 95
            last, number = await one_kill(pool, folder, count, keep=3)
            ahead += number > last
            if kills % 5 == 0:
                shutil.rmtree(folder, ignore_errors=True)

    async with CommandPool(2) as pool, asyncio.TaskGroup() as group:
        for start in (1, 2):
            group.create_task(series(start))
    print(f"{kills} writers killed, {ahead} of them after the last state was safe and before they could say so")
    assert kills >= 500
    assert ahead > 0
    for folder in tmp_path.glob("series-*"):
        store = CheckpointStore(folder, keep=3)
        await store.save("job", "tidied up")
        assert not [path for path in Path(folder, "job").iterdir() if path.suffix != ".ckpt"]
        assert len(list(Path(folder, "job").iterdir())) <= 3


# ------------------------------------------------------------------------------- a disk that loses its power


class Disk:
    """Stands in for ``os`` in the module that writes, and keeps what a power failure could leave after each call.

    What was written to a file is certain after the file was synced; a name in a folder after the folder was. Before that
    anything may be there: the old, the new, or of data a part.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: dict[str, int] = {}  # as everybody sees them: name -> file
        self.safe_names: dict[str, int] = {}  # as they are on the disk
        self.data: dict[int, bytes] = {}
        self.safe_data: dict[int, bytes] = {}
        self.files: dict[int, int] = {}  # by descriptor
        self.made = itertools.count(1)
        self.outcomes: list[tuple[int, dict[str, bytes]]] = []  # with how much had been acknowledged by then
        self.acknowledged = 0
        self.folder = -1

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # Only the folder of one name is modelled; those above it are real.

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        descriptor = os.open(path, flags, mode, dir_fd=dir_fd)
        if path == "job":
            self.folder = descriptor
        elif dir_fd == self.folder and flags & os.O_CREAT:
            file = next(self.made)
            self.names[path] = file
            self.data[file] = self.safe_data[file] = b""
            self.files[descriptor] = file
            self.happened()
        return descriptor

    def write(self, descriptor: int, data: Any) -> int:
        written = os.write(descriptor, data[: max(1, len(data) // 2)])
        if descriptor in self.files:
            self.data[self.files[descriptor]] += bytes(data[:written])
            self.happened()
        return written

    def fsync(self, descriptor: int) -> None:
        if descriptor in self.files:
            file = self.files[descriptor]
            self.safe_data[file] = self.data[file]
        elif descriptor == self.folder:
            self.safe_names = dict(self.names)
        self.happened()

    def close(self, descriptor: int) -> None:
        self.files.pop(descriptor, None)
        os.close(descriptor)

    def rename(self, old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self.names[new] = self.names.pop(old)
        self.happened()

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)
        del self.names[name]
        self.happened()

    def happened(self) -> None:
        """The power may fail now: every mixture of old and new is possible."""
        for names in self.mixtures():
            for data in self.remains({names[name] for name in names}):
                self.outcomes.append((self.acknowledged, {name: data[file] for name, file in names.items()}))

    def mixtures(self) -> Iterator[dict[str, int]]:
        changed = sorted({*self.names, *self.safe_names})
        changed = [name for name in changed if self.names.get(name) != self.safe_names.get(name)]
        for choice in itertools.product((self.safe_names, self.names), repeat=len(changed)):
            mixed = {name: file for name, file in self.safe_names.items() if name not in changed}
            for name, source in zip(changed, choice, strict=True):
                if name in source:
                    mixed[name] = source[name]
            yield mixed

    def remains(self, files: set[int]) -> Iterator[dict[int, bytes]]:
        unsafe = sorted(file for file in files if self.data[file] != self.safe_data[file])
        for kind in range(3 if unsafe else 1):
            found = {file: self.data[file] for file in files}
            for file in unsafe:
                whole = self.data[file]
                found[file] = (self.safe_data[file], whole[: len(whole) // 2], bytes(len(whole)))[kind]
            yield found


def replay(tmp_path: Path, disk_of: type[Disk], saves: int = 5) -> tuple[int, list[str]]:
    """Saves on a disk whose power may fail after each call; returns how many outcomes there are, and which are wrong."""
    stand_in = disk_of(tmp_path)
    real, disk.os = disk.os, stand_in  # type: ignore[attr-defined,assignment]
    try:
        for number in range(1, saves + 1):
            disk.save(str(tmp_path / "store"), "job", [str(number).encode()], codec="json", keep=2, saved_at=0.0)
            stand_in.acknowledged = number
    finally:
        disk.os = real  # type: ignore[attr-defined]
    wrong: list[str] = []
    seen = {(acknowledged, tuple(sorted(files.items()))) for acknowledged, files in stand_in.outcomes}
    for index, (acknowledged, files) in enumerate(sorted(seen)):
        folder = tmp_path / f"outcome-{index}" / "job"
        folder.mkdir(parents=True)
        for name, content in files:
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o600)
        found = newest(folder)
        if not acknowledged <= found <= acknowledged + 1:
            wrong.append(f"{acknowledged} were safe, {found} was found among {[name for name, _ in files]}")
    return len(seen), wrong


def newest(folder: Path) -> int:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for generation in reversed(disk.generations(descriptor)[0]):
            try:
                return int(disk.read(descriptor, "job", generation, most=100)[1])
            except disk.Bad:
                continue
    finally:
        os.close(descriptor)
    return 0


def test_whenever_the_power_fails_nothing_acknowledged_is_lost(tmp_path: Path):
    outcomes, wrong = replay(tmp_path, Disk)
    print(f"{outcomes} ways to find the disk")
    assert outcomes > 100
    assert wrong == []


class Forgetful(Disk):
    """A disk on which syncing a folder does nothing."""

    def fsync(self, descriptor: int) -> None:
        if descriptor != self.folder:
            super().fsync(descriptor)


class Hasty(Disk):
    """A disk on which syncing a file does nothing."""

    def fsync(self, descriptor: int) -> None:
        if descriptor not in self.files:
            super().fsync(descriptor)


@pytest.mark.parametrize("kind", [Forgetful, Hasty])
def test_the_model_sees_what_a_missing_sync_would_do(tmp_path: Path, kind: type[Disk]):
    assert replay(tmp_path, kind)[1] != []
