"""The leak audit: what did a piece of code leave behind?

`LeakAudit` compares the state of this program before and after: child processes and zombies, open file descriptors,
threads, asyncio tasks, temporary files, calls of the event loop's exception handler and exceptions nobody could catch.
The pytest plugin runs it around tests; it works anywhere else too:

    audit = LeakAudit.start()
    ...
    assert audit.finish() == []

What procession itself keeps for the life of the program is not a leak: threads whose names begin with ``procession-``
and the guardian process. Their file descriptors are there before the first audit once any process was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from procession._launch._owner import owner

__all__ = ["Leak", "LeakAudit", "LeakKind"]

GUARDIAN_MARK = "procession-guardian"
THREAD_PREFIX = "procession-"

_RECHECK = 0.01  # seconds between two looks while something still seems left behind
_SETTLE_TURNS = 20  # turns of the loop that cancelled tasks get to end
_IGNORED_FILES = ("pymp-",)  # multiprocessing's own folder, removed when the interpreter ends


class LeakKind(StrEnum):
    """What can be left behind."""

    CHILD = "child"
    ZOMBIE = "zombie"
    FD = "fd"
    THREAD = "thread"
    TASK = "task"
    FILE = "file"
    LOOP_ERROR = "loop error"
    UNRAISABLE = "unraisable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """One thing that was left behind.

    Attributes:
        kind: The sort of thing.
        what: Its short name: a pid, a descriptor number, a thread's or a task's name, a path.
        detail: What else is known: the command line, the target of the descriptor, where a task waits.
    """

    kind: LeakKind
    what: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.what}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class _Snapshot:
    children: frozenset[tuple[int, float]]
    pids: frozenset[int]  # of the whole machine
    fds: Mapping[int, str]
    threads: frozenset[int]


class LeakAudit:
    """Remember what is there now, and tell later what was added and not taken away.

    Args:
        tempdir: A folder that has to be empty at the end. None leaves files out.
        allow: Kinds of leak that are not reported.
    """

    def __init__(self, *, tempdir: Path | None = None, allow: Collection[LeakKind] = ()) -> None:
        self._tempdir = tempdir
        self._allow = frozenset(LeakKind(kind) for kind in allow)
        self._recorded: list[Leak] = []
        self._tasks_before: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        self._previous_hook = sys.unraisablehook
        self._hooked = False
        self._before = _look()

    @classmethod
    def start(cls, *, tempdir: Path | None = None, allow: Collection[LeakKind] = ()) -> LeakAudit:
        """Take the snapshot that `finish` compares with.

        Args:
            tempdir: A folder that has to be empty at the end. None leaves files out.
            allow: Kinds of leak that are not reported.

        Returns:
            The running audit. Inside a running event loop its tasks and its exception handler are watched as well.
        """
        audit = cls(tempdir=tempdir, allow=allow)
        audit._record_unraisable()
        with contextlib.suppress(RuntimeError):
            audit.watch_loop(asyncio.get_running_loop())
        return audit

    def allow(self, *kinds: LeakKind | str) -> None:
        """Leave out further kinds of leak.

        Args:
            kinds: What the code under audit leaves behind on purpose.
        """
        self._allow |= {LeakKind(kind) for kind in kinds}

    def watch_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """Record every call of the loop's exception handler, and remember the tasks that are there already.

        Args:
            loop: A loop of this thread. Its exception handler is replaced.
        """
        loop.set_exception_handler(self._on_loop_error)
        self._tasks_before.update(asyncio.all_tasks(loop))

    async def settle_tasks(self) -> None:
        """Give cancelled tasks a few turns of the running loop to end, and record those that are still there.

        Cancellation: safe; nothing is recorded then.
        """
        pending: set[asyncio.Task[Any]] = set()
        for _ in range(_SETTLE_TURNS):
            pending = self._pending_tasks()
            if not pending:
                return
            await asyncio.sleep(0)
        self._recorded.extend(_describe_task(task) for task in pending)
        self._tasks_before.update(pending)

    def finish(self, *, settle: float = 1.0) -> list[Leak]:
        """Compare with the snapshot.

        When something seems left behind, garbage is collected, threads are joined, and the comparison repeated until
        nothing is left or the time is over; a clean program never waits.

        Args:
            settle: Seconds after which what is still there counts as left behind.

        Returns:
            What was left behind, empty when all is clean. A second call compares again.
        """
        gc.collect()
        leaks = self._compare()
        deadline = time.monotonic() + settle
        while leaks and time.monotonic() < deadline:
            self._join_threads()
            threading.Event().wait(_RECHECK)
            gc.collect()
            leaks = self._compare()
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            leaks += [_describe_task(task) for task in self._pending_tasks()]
        if self._hooked:
            sys.unraisablehook = self._previous_hook
            self._hooked = False
        return [leak for leak in [*self._recorded, *leaks] if leak.kind not in self._allow]

    def clear_files(self) -> None:
        """Empty the temporary folder, so that the next audit starts clean."""
        if self._tempdir is not None:
            for path in self._tempdir.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------- recording

    def _on_loop_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        parts = [f"{key}={value!r}" for key, value in context.items() if key not in {"message", "exception"}]
        if isinstance(error, BaseException):
            parts.append("".join(traceback.format_exception(error)).rstrip())
        leak = Leak(kind=LeakKind.LOOP_ERROR, what=str(context.get("message", "?")), detail="\n".join(parts))
        self._recorded.append(leak)

    def _record_unraisable(self) -> None:
        self._previous_hook = sys.unraisablehook
        sys.unraisablehook = self._on_unraisable
        self._hooked = True

    def _on_unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        error = unraisable.exc_value
        text = "".join(traceback.format_exception(error)).rstrip() if error is not None else ""
        what = unraisable.err_msg or "Exception ignored in"
        # Only the text is kept: a reference to the object would bring it back to life.
        self._recorded.append(Leak(kind=LeakKind.UNRAISABLE, what=f"{what} {unraisable.object!r}", detail=text))

    # ------------------------------------------------------------------------------------------------------- comparing

    def _compare(self) -> list[Leak]:
        now = _look()
        return [
            *_new_children(now.children - self._before.children),
            *_escaped(now, now.pids - self._before.pids),
            *_new_fds(self._before.fds, now.fds),
            *(_describe_thread(thread) for thread in self._new_threads()),
            *self._files(),
        ]

    def _new_threads(self) -> list[threading.Thread]:
        in_loop = asyncio._get_running_loop() is not None
        return [
            thread
            for thread in threading.enumerate()
            if thread.ident not in self._before.threads
            and not thread.name.startswith(THREAD_PREFIX)
            # The default executor's threads end with the loop, which still runs.
            and not (in_loop and thread.name.startswith("asyncio_"))
        ]

    def _join_threads(self) -> None:
        for thread in self._new_threads():
            if thread is not threading.current_thread():
                thread.join(_RECHECK)

    def _files(self) -> Iterator[Leak]:
        if self._tempdir is None or not self._tempdir.is_dir():
            return
        for path in sorted(self._tempdir.iterdir()):
            if not path.name.startswith(_IGNORED_FILES):
                yield Leak(kind=LeakKind.FILE, what=path.name, detail=str(path))

    def _pending_tasks(self) -> set[asyncio.Task[Any]]:
        current = asyncio.current_task()
        return {task for task in asyncio.all_tasks() if task is not current and task not in self._tasks_before}


# ------------------------------------------------------------------------------------------------------- what is there


def _look() -> _Snapshot:
    return _Snapshot(
        children=frozenset(_descendants()),
        pids=frozenset(psutil.pids()),
        fds=_open_fds(),
        threads=frozenset(thread.ident for thread in threading.enumerate() if thread.ident is not None),
    )


def _descendants() -> Iterator[tuple[int, float]]:
    """All processes below this one, as pid and start time; zombies too."""
    seen: set[int] = set()
    pids = list(_children_of(os.getpid()))
    while pids:
        pid = pids.pop()
        if pid in seen:
            continue
        seen.add(pid)
        pids.extend(_children_of(pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            yield pid, psutil.Process(pid).create_time()


def _children_of(pid: int) -> Iterable[int]:
    """The kernel's own list of children; a walk over all processes where it has none."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        lists = [(task / "children").read_text() for task in tasks.iterdir()]
    except (ProcessLookupError, PermissionError):
        return []
    except FileNotFoundError:
        if Path("/proc/self/task").is_dir() and Path(f"/proc/self/task/{os.getpid()}/children").exists():
            return []  # this one is gone; the list of children exists elsewhere
        try:
            return [child.pid for child in psutil.Process(pid).children()]
        except psutil.NoSuchProcess:
            return []
    return [int(child) for text in lists for child in text.split()]


def _open_fds() -> dict[int, str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        folder = Path("/dev/fd")
    found: dict[int, str] = {}
    # A list first: the descriptor of the listing itself must be closed before the others are looked at.
    for path in list(folder.iterdir()):
        fd = int(path.name)
        try:
            os.fstat(fd)
        except OSError:
            continue
        try:
            found[fd] = str(path.readlink())
        except OSError:
            found[fd] = "?"
    return found


def _new_children(added: Collection[tuple[int, float]]) -> Iterator[Leak]:
    for pid, started in sorted(added):
        try:
            process = psutil.Process(pid)
            if process.create_time() != started:
                continue
            zombie = process.status() == psutil.STATUS_ZOMBIE
            words = [] if zombie else process.cmdline()
            name = process.name()
        except psutil.NoSuchProcess:
            continue
        if not any(GUARDIAN_MARK in word for word in words):
            kind = LeakKind.ZOMBIE if zombie else LeakKind.CHILD
            yield Leak(kind=kind, what=str(pid), detail=" ".join(words or [name])[:200])


def _escaped(now: _Snapshot, added: Collection[int]) -> Iterator[Leak]:
    """Processes that are no longer below this one, but carry its cookie in their environment."""
    token = owner().token.encode()
    below = {pid for pid, _ in now.children}
    for pid in sorted(added):
        if pid in below:
            continue
        try:
            ours = token in Path(f"/proc/{pid}/environ").read_bytes()
            words = psutil.Process(pid).cmdline()
        except (OSError, psutil.Error):
            continue
        if ours and not any(GUARDIAN_MARK in word for word in words):
            yield Leak(kind=LeakKind.CHILD, what=str(pid), detail=f"escaped: {' '.join(words)[:200]}")


def _new_fds(before: Mapping[int, str], now: Mapping[int, str]) -> Iterator[Leak]:
    """Descriptors added, by kind: one that took the place of another of its kind is no leak."""
    added = {fd: target for fd, target in now.items() if before.get(fd) != target}
    gone = Counter(_fd_kind(target) for fd, target in before.items() if now.get(fd) != target)
    for fd, target in sorted(added.items()):
        kind = _fd_kind(target)
        if gone[kind] > 0:
            gone[kind] -= 1
        else:
            yield Leak(kind=LeakKind.FD, what=str(fd), detail=target)


def _fd_kind(target: str) -> str:
    """`pipe:[4711]` is a pipe like any other; a path is itself."""
    return target if target.startswith("/") else target.partition(":[")[0]


def _describe_thread(thread: threading.Thread) -> Leak:
    frame = sys._current_frames().get(thread.ident or 0)
    where = traceback.extract_stack(frame)[-1] if frame is not None else None
    detail = f"in {where.name} ({where.filename}:{where.lineno})" if where is not None else ""
    return Leak(kind=LeakKind.THREAD, what=thread.name, detail=detail)


def _describe_task(task: asyncio.Task[Any]) -> Leak:
    stack = task.get_stack(limit=1)
    where = f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else "not started"
    return Leak(kind=LeakKind.TASK, what=task.get_name(), detail=f"{task.get_coro()!r} at {where}")
