"""Writing snapshots: readable by their owner alone, whole or not at all, the newest only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from procession.monitor._snapshot import Snapshot

_OURS = re.compile(r".+\.snapshot\.(json|txt)")


def save(snapshot: Snapshot, directory: Path, name: str, keep: int) -> Path:
    """Writes ``name.snapshot.json`` and ``name.snapshot.txt``; returns the first.

    Args:
        snapshot: what to write.
        directory: where to; made with mode 0700 if it is not there.
        name: of the files.
        keep: how many snapshots stay in the directory, the newest.

    Raises:
        OSError: it could not be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    path = directory / f"{name}.snapshot.json"
    _write(path, snapshot.to_json())
    _write(directory / f"{name}.snapshot.txt", snapshot.to_text())
    _prune(directory, keep)
    return path


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0)
    fd = os.open(draft, flags, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _prune(directory: Path, keep: int) -> None:
    ages: dict[str, float] = {}
    for path in directory.iterdir():
        if _OURS.fullmatch(path.name):
            try:
                ages[path.name.rpartition(".snapshot.")[0]] = path.stat(follow_symlinks=False).st_mtime_ns
            except FileNotFoundError:
                continue
    for name in sorted(ages, key=lambda name: ages[name], reverse=True)[keep:]:
        for kind in ("json", "txt"):
            directory.joinpath(f"{name}.snapshot.{kind}").unlink(missing_ok=True)
