"""A child as asyncio's ``SubprocessTransport``, on our engines: what asyncio's own ``Process`` asks of one."""

from __future__ import annotations

import asyncio
import signal
import warnings
import weakref
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, ClassVar

from procession.process._compat_pipes import Protocol, ReadPipe, WritePipe

if TYPE_CHECKING:
    from procession._launch._handle import RealHandle
    from procession._types import Exit

_REAP_BOUND = 2.0
"""Seconds that children killed at the shutdown of their loop get to be reaped by it."""


class ChildTransport(asyncio.SubprocessTransport):
    """One child; tells ``protocol`` what becomes of it."""

    def __init__(self, handle: RealHandle, protocol: Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._closed = False
        self._handle = handle
        self._protocol = protocol
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []
        self._pipes: dict[int, ReadPipe | WritePipe] = {}
        self._open: set[int] = set()
        if handle.stdin is not None:
            self._pipes[0] = WritePipe(handle.stdin, loop, protocol, self._pipe_lost)
        for number, inlet in ((1, handle.stdout), (2, handle.stderr)):
            if inlet is not None:
                self._pipes[number] = ReadPipe(number, inlet, loop, protocol, self._pipe_lost)
        self._open.update(self._pipes)
        self._keeper: Keeper | None = None

    async def begin(self) -> None:
        """Connects the protocol, and only then reads and watches; never suspends.

        Cancellation: cannot happen.
        """
        self._protocol.connection_made(self)
        for pipe in self._pipes.values():
            if isinstance(pipe, ReadPipe):
                pipe.resume_reading()
            else:
                pipe.watch()
        self._keeper = await Keeper.of(self._loop)
        self._keeper.children.add(self)
        self._handle.on_exit(self._exited)

    def __repr__(self) -> str:
        info = [type(self).__name__]
        if self._closed:
            info.append("closed")
        info.append(f"pid={self._handle.pid}")
        code = self.get_returncode()
        info.append("running" if self._handle.exit is None else f"returncode={code}")
        info += [f"{('stdin', 'stdout', 'stderr')[number]}={pipe!r}" for number, pipe in self._pipes.items()]
        return f"<{' '.join(info)}>"

    def __del__(self) -> None:
        if not self._closed:
            warnings.warn(f"unclosed transport {self!r}", ResourceWarning, source=self, stacklevel=2)
        self.abandon()

    # ---------------------------------------------------------------------------- what Process asks

    def get_pid(self) -> int:
        """Its process id."""
        return self._handle.pid

    def get_returncode(self) -> int | None:
        """How it ended, as ``subprocess`` writes it."""
        exit = self._handle.exit
        return None if exit is None else exit.returncode

    def get_pipe_transport(self, fd: int) -> ReadPipe | WritePipe | None:
        """Our end of its stdin (0), stdout (1) or stderr (2), when that is a pipe."""
        return self._pipes.get(fd)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who is told."""
        return self._protocol

    def send_signal(self, signal: int) -> None:
        """Signals exactly this child.

        Raises:
            ProcessLookupError: it has ended.
        """
        self._handle.send_signal(signal)

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._handle.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._handle.send_signal(signal.SIGKILL)

    def is_closing(self) -> bool:
        """Whether it was closed, or has ended with all its pipes."""
        return self._closed

    def close(self) -> None:
        """Closes the pipes and kills a child that still lives."""
        if self._closed:
            return
        self._closed = True
        for pipe in self._pipes.values():
            pipe.close()
        self._kill()

    async def wait_exit(self) -> int | None:
        """Waits for the end of the child, whoever holds its pipes.

        Cancellation: safe; only the waiting ends.
        """
        if self._handle.exit is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.get_returncode()

    _wait = wait_exit  # asyncio's name for it

    # ------------------------------------------------------------------------------------ its end

    def _kill(self) -> None:
        try:
            self._handle.send_signal(signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # it has ended, or has become somebody we may not signal

    def _exited(self, exit: Exit) -> None:  # noqa: ARG002 - the handle keeps it
        self._protocol.process_exited()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._settle()

    def _pipe_lost(self, pipe: ReadPipe | WritePipe, error: Exception | None) -> None:
        self._protocol.pipe_connection_lost(pipe.number, error)
        self._open.discard(pipe.number)
        self._settle()

    def _settle(self) -> None:
        if self._handle.exit is not None and not self._open:
            self._let_go()

    def _let_go(self) -> None:
        self._handle.close()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.forget(self)

    def abandon(self) -> None:
        """Kills what still lives and leaves the reaping to the spawner: the loop cannot do it any more."""
        self._closed = True
        if self._handle.exit is None:
            self._kill()
        self._let_go()


class Keeper:
    """Ends the children of one loop when that is shut down, as ``asyncio.run`` does in the end.

    An asynchronous generator is what a loop finalises before it closes, without a task that anybody could see or
    cancel. A loop that is closed without any shutdown leaves its children to the garbage collector, as asyncio does.
    """

    __slots__ = ("__weakref__", "_generator", "children")

    _of_loop: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Keeper]]] = (
        weakref.WeakKeyDictionary()
    )

    def __init__(self) -> None:
        self.children: weakref.WeakSet[ChildTransport] = weakref.WeakSet()
        self._generator = _until_shutdown(self.children)

    @classmethod
    async def of(cls, loop: asyncio.AbstractEventLoop) -> Keeper:
        """The keeper of ``loop``; it lives as long as one of the children. Never suspends.

        Cancellation: cannot happen.
        """
        known = cls._of_loop.get(loop)
        keeper = known() if known is not None else None
        if keeper is None:
            keeper = cls()
            await anext(keeper._generator)
            cls._of_loop[loop] = weakref.ref(keeper)
        return keeper

    def forget(self, child: ChildTransport) -> None:
        """It is gone; after the last one the loop has nothing to finalise."""
        self.children.discard(child)
        if not self.children:
            for loop, known in tuple(self._of_loop.items()):
                if known() is self:
                    del self._of_loop[loop]
            try:
                self._generator.aclose().send(None)
            except (StopIteration, RuntimeError):
                pass  # over; or the loop is finalising it just now


async def _until_shutdown(children: weakref.WeakSet[ChildTransport]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        left = [child for child in children if child._handle.exit is None]
        for child in tuple(children):
            child.close()
        try:
            async with asyncio.timeout(_REAP_BOUND):
                for child in left:
                    await child.wait_exit()
        except TimeoutError:
            pass  # uninterruptible sleep
        for child in left:
            child.abandon()
