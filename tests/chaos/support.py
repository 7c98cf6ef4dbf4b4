"""What the tests of this folder share: pidfds to watch with, children with bad manners, an owner to kill."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from procession import Command

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
CHILD = str(PROGRAMS / "chaos_child.py")
OWNER = str(PROGRAMS / "chaos_owner.py")


def child(kind: str, *words: str, **options: Any) -> Command:
    """A command for one of the children of ``chaos_child.py``."""
    return Command(sys.executable, "-I", "-S", CHILD, kind, *words, **({"grace": 0.2} | options))


def python(code: str, *words: str, **options: Any) -> Command:
    """A command that runs ``code`` on the bare interpreter."""
    return Command(sys.executable, "-I", "-S", "-c", code, *words, **options)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


class Watch:
    """Pidfds of processes by name: says who has ended, without asking again and again."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._fds: dict[str, int] = {}
        self.add(pids)

    def add(self, pids: Mapping[str, int]) -> None:
        """Watches these too."""
        for name, pid in pids.items():
            self._fds[name] = os.pidfd_open(pid)

    def left(self, within: float = 0.0, *, but: Collection[str] = ()) -> set[str]:
        """Who still lives after at most so many seconds, or as soon as all have ended but those named."""
        gone = self.wait(within, set(self._fds) - set(but))
        return {name for name in self._fds if name not in gone and self.wait(0.0, {name}) == set()}

    def wait(self, within: float, whom: set[str]) -> set[str]:
        """Waits for the end of all of them; returns who has ended."""
        poll = select.poll()
        names = {fd: name for name, fd in self._fds.items() if name in whom}
        for fd in names:
            poll.register(fd, select.POLLIN)
        end = time.monotonic() + within
        while names:
            ready = poll.poll(max(0.0, end - time.monotonic()) * 1000)
            if not ready:
                break
            for fd, _ in ready:
                poll.unregister(fd)
                del names[fd]
        return whom - set(names.values())

    def close(self) -> None:
        for fd in self._fds.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            os.close(fd)


@contextmanager
def watching(pids: Mapping[str, int]) -> Iterator[Watch]:
    """Watches, and in the end kills whoever is left, so that a failing test leaves nothing."""
    watch = Watch(pids)
    try:
        yield watch
    finally:
        watch.close()


class OwnerProgram:
    """A running ``chaos_owner.py``."""

    def __init__(self, loop: str, *kinds: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, OWNER, loop, ",".join(kinds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.facts = self.answer()
        self.token: str = self.facts.pop("token")
        self.pids: dict[str, int] = self.facts

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read().decode())
        facts: dict[str, Any] = json.loads(line)
        return facts

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n".encode())
        self.process.stdin.flush()

    def ask(self, word: str) -> dict[str, Any]:
        self.tell(word)
        return self.answer()

    def errors(self) -> str:
        """What it wrote to stderr; only after its end."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextmanager
def owner_program(loop: str, *kinds: str) -> Iterator[OwnerProgram]:
    """Starts the owner; kills it in the end, if the test has not."""
    program = OwnerProgram(loop, *kinds)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()
        for pipe in (program.process.stdin, program.process.stdout, program.process.stderr):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
