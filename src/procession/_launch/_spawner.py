"""The spawner: one never-ending thread in which children are made.

``Popen`` waits for the child's ``execve``; in a thread of its own that wait costs the loop nothing. The
thread never ends, because a parent-death signal is sent when the *thread* that made the child ends
(prctl(2), PR_SET_PDEATHSIG). It also reaps what nobody else waits for any more: detached children
whose block was left, and the guardian, whose death it notices.
"""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from procession._launch import _live
from procession._linux import _reserve

if TYPE_CHECKING:
    from procession.command import Command

T = TypeVar("T")


popen: Callable[..., subprocess.Popen[bytes]] = subprocess.Popen
"""How children are made; fault injection replaces it."""


_LOOK_AGAIN = 200  # milliseconds


class Job(Generic[T]):
    """One piece of work for the thread, and the future in which its loop waits for it."""

    __slots__ = (
        "__weakref__",
        "command",
        "dispose",
        "error",
        "future",
        "late",
        "loop",
        "result",
        "state",
        "unwanted",
        "work",
    )

    def __init__(
        self,
        command: Command,
        work: Callable[[], T],
        dispose: Callable[[T | None], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.command = command
        self.work = work
        self.dispose = dispose
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.late: asyncio.Future[T] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.state = "queued"
        self.unwanted = False

    def answer(self) -> None:
        """Hands the outcome to whoever still waits; on the loop's thread."""
        _live.count_in_flight(-1)
        future = self.future
        if future.cancelled():
            # Who waited may not have woken up yet to ask for it; the child is theirs all the same.
            future = self.late = self.late or self.loop.create_future()
        if future.done() or self.unwanted:
            self.dispose(self.result)
        elif self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.result)  # type: ignore[arg-type]


class _Inbox:
    """Answers on their way to one loop; one wake-up of the loop serves all that came meanwhile."""

    __slots__ = ("__weakref__", "_jobs", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._jobs: deque[Job[Any]] = deque()
        self._woken = False

    def put(self, job: Job[Any]) -> None:
        self._jobs.append(job)
        if self._woken:
            return
        self._woken = True
        loop = self._loop()
        try:
            if loop is None:
                raise RuntimeError
            loop.call_soon_threadsafe(self._drain)
        except RuntimeError:  # the loop is closed: nobody will ever ask
            self._throw_away()

    def is_settled(self) -> bool:
        """Whether nothing waits here; answers to a loop that was closed before it took them are thrown away."""
        loop = self._loop()
        if self._jobs and (loop is None or loop.is_closed()):
            self._throw_away()
        return not self._jobs

    def _throw_away(self) -> None:
        self._woken = False
        while True:
            try:
                late = self._jobs.popleft()
            except IndexError:
                return  # all are gone; another thread may have helped
            _live.count_in_flight(-1)
            late.dispose(late.result)

    def _drain(self) -> None:
        self._woken = False
        while self._jobs:
            self._jobs.popleft().answer()


class Spawner:
    """The thread, its queue, and the pidfds it watches. One per program; see :func:`spawner`."""

    def __init__(self) -> None:
        self._jobs: deque[Job[Any]] = deque()
        self._inboxes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Inbox] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._threads = 0
        self._sleeping = False
        self._unsettled: set[_Inbox] = set()
        self._wake_r, self._wake_w = os.pipe()
        _reserve.fill()
        os.set_blocking(self._wake_r, False)
        os.set_blocking(self._wake_w, False)
        self._watched: dict[int, Callable[[int], None]] = {}
        self._changes = 0  # of what is watched: threads that poll something else look at it anew

    # ------------------------------------------------------------------------------- from the loops

    def submit(self, job: Job[Any]) -> None:
        """Queues ``job``; its future is resolved on its own loop."""
        self._start()
        if job.loop not in self._inboxes:
            self._inboxes[job.loop] = _Inbox(job.loop)
        _reserve.fill()  # it may have been spent
        _live.count_in_flight(1)
        self._jobs.append(job)
        self._wake()  # last: the two threads would only wait for each other

    def withdraw(self, job: Job[Any]) -> bool:
        """Takes back a job that has not begun; ``False`` when it is too late."""
        try:
            self._jobs.remove(job)
        except ValueError:
            return False
        _live.count_in_flight(-1)
        return True

    def _start(self) -> None:
        if not self._threads:
            self.add_thread(first=True)

    def add_thread(self, *, first: bool = False) -> None:
        """Starts another thread on the same queue: the first one, or because one hangs in the kernel."""
        with self._lock:
            if first and self._threads:
                return  # the loop of another thread was faster
            number = self._threads + 1
            name = f"procession-spawner-{number}"
            threading.Thread(target=self._run, args=(number == 1,), name=name, daemon=True).start()
            self._threads = number

    def relieve(self) -> None:
        """A thread hangs in the kernel: lets another go on with the queue, if one more can be had."""
        try:
            self.add_thread()
        except RuntimeError:
            pass  # the limit of threads: the others wait, each until its own deadline

    def watch(self, pidfd: int, ended: Callable[[int], None]) -> None:
        """Calls ``ended(pidfd)`` in the thread once the process has ended, whatever becomes of any loop."""
        self._start()
        with self._lock:
            self._watched[pidfd] = ended
            self._changes += 1
        self._sleeping = True  # the polls under way do not know of it yet; whoever is woken will
        self._wake()

    def unwatch(self, pidfd: int) -> bool:
        """Takes a pidfd back; ``False`` when its process has been seen to end already."""
        with self._lock:
            self._changes += 1
            return self._watched.pop(pidfd, None) is not None

    # ------------------------------------------------------------------------------- in the thread

    def _wake(self) -> None:
        if self._sleeping or self._threads > 1:
            self._sleeping = False
            try:
                os.write(self._wake_w, b"\0")
            except BlockingIOError:
                pass  # it has enough reasons to wake up already

    def _poll(self) -> select.poll:
        """All that any thread waits for: each of them watches everything, so that any of them may hang."""
        poll = select.poll()
        for fd in (self._wake_r, *self._watched.copy()):
            poll.register(fd, select.POLLIN)
        return poll

    def _run(self, _primary: bool) -> None:
        poll, seen = select.poll(), -1
        while True:
            while self._jobs:
                try:
                    job = self._jobs.popleft()
                except IndexError:
                    break  # another thread was faster
                if self._jobs and self._threads > 1:
                    self._wake()  # what follows must not wait for this one
                self._do(job)
                del job
            self._sleeping = True
            if self._jobs:
                continue
            # A loop closed before it took its answers tells nobody: only while some are under way, look again.
            if seen != self._changes:
                seen = self._changes
                poll = self._poll()
            self._serve(poll.poll(_LOOK_AGAIN if self._unsettled else None))
            self._unsettled -= {inbox for inbox in self._unsettled.copy() if inbox.is_settled()}

    def _do(self, job: Job[Any]) -> None:
        job.state = "running"
        try:
            job.result = job.work()
        except BaseException as error:  # noqa: BLE001 - it is the answer
            job.error = error
        job.state = "done"
        inbox = self._inboxes.get(job.loop)
        if inbox is None:
            job.dispose(job.result)  # the loop is gone altogether
        else:
            self._unsettled.add(inbox)
            inbox.put(job)  # last, as above

    def _serve(self, ready: list[tuple[int, int]]) -> None:
        for fd, _ in ready:
            if fd == self._wake_r:
                try:
                    os.read(self._wake_r, 4096)
                except BlockingIOError:
                    pass  # another thread has read it
                continue
            with self._lock:  # another thread may have served it, and the number may be another process's by now
                ended = self._watched.pop(fd, None) if _is_ready(fd) else None
                self._changes += ended is not None
            if ended is not None:
                ended(fd)


def _is_ready(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


_spawner: Spawner | None = None
_making = threading.Lock()  # loops of several threads may come at once


def spawner() -> Spawner:
    """This program's spawner; made at first use, and afresh in a child made by ``os.fork``."""
    global _spawner
    if _spawner is None:
        with _making:
            if _spawner is None:
                _spawner = Spawner()
    return _spawner


def _forget() -> None:
    global _making, _spawner
    old, _spawner = _spawner, None
    _making = threading.Lock()
    if old is not None:  # a forked child has the descriptors but not the thread
        os.close(old._wake_r)
        os.close(old._wake_w)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
