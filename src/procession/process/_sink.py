"""What a process reads, written on demand: :class:`Writer`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from procession._types import Stream
from procession.errors import ConfigError, StreamClosed

if TYPE_CHECKING:
    from procession.abc import Outlet
    from procession.command import Command

_BLOCK = 262_144  # bytes read from a file at once
_TURNS = 32  # writes in a row without suspension before the loop gets its turn
_BURST = 8  # writes in one callback

Bytes: TypeAlias = bytes | bytearray | memoryview
Input: TypeAlias = Bytes | str | os.PathLike[str] | BinaryIO | Iterable[Bytes] | AsyncIterable[Bytes]
"""What :meth:`Writer.feed` takes."""


class Turns:
    """First come, first served, one at a time; a turn given to somebody who was cancelled goes to the next."""

    __slots__ = ("_busy", "_loop", "_queue")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy = False
        self._queue: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Waits for the turn; :meth:`give` must follow.

        Cancellation: safe; the place in the queue is given up.
        """
        if not self._busy:
            self._busy = True
            return
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.append(future)
        try:
            await future
        except BaseException:
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give()
            else:
                with contextlib.suppress(ValueError):
                    self._queue.remove(future)
            raise

    def give(self) -> None:
        """Ends the turn; the next in the queue has it at once."""
        while self._queue:
            future = self._queue.popleft()
            if not future.done():
                future.set_result(None)
                return
        self._busy = False


class Transfer:
    """The bytes of one write and how many of them the kernel has taken.

    Args:
        data: what is to be written.
        whole: once the first byte was taken all others follow, also when the writer was cancelled.
    """

    __slots__ = ("future", "left", "size", "whole")

    def __init__(self, data: Bytes, *, whole: bool = False) -> None:
        self.left: memoryview = memoryview(data).cast("B")
        self.size: int = len(self.left)
        self.whole: bool = whole
        self.future: asyncio.Future[None] | None = None

    @property
    def taken(self) -> int:
        """Bytes that the kernel has taken."""
        return self.size - len(self.left)


class Writer:
    """The stdin of a process.

    Args:
        outlet: our end of the pipe; the writer writes to it from now on and closes it in :meth:`close`.
        loop: the loop it is written on.
        command: whose stdin it is, for errors.
    """

    __slots__ = ("_armed", "_closed", "_command", "_loop", "_outlet", "_streak", "_transfer", "_turns")

    def __init__(self, outlet: Outlet, loop: asyncio.AbstractEventLoop, command: Command | None = None) -> None:
        self._outlet = outlet
        self._loop = loop
        self._command = command
        self._turns = Turns(loop)
        self._transfer: Transfer | None = None  # the one the callback works on
        self._armed = False
        self._closed = False
        self._streak = 0

    async def write(self, data: Bytes) -> None:
        """Writes ``data`` and returns when the kernel has taken all of it.

        A full pipe makes it wait, so the process sets the pace. Writes by several tasks come one after the other in the
        order of the calls, each as a whole.

        Raises:
            StreamClosed: nobody reads any more, or :meth:`close` was called, also meanwhile.

        Cancellation: bytes already taken are taken; the others are not written. How many that were is not told: a
            protocol that must not be cut in two closes stdin then, or uses a ``Communicator``.
        """
        await self.perform(Transfer(data))

    async def perform(self, transfer: Transfer) -> None:
        """Does what :meth:`write` does, and lets the caller see how far it went.

        Raises:
            StreamClosed: nobody reads any more, or :meth:`close` was called, also meanwhile.

        Cancellation: ``transfer`` says what was taken; the rest follows when it is a ``whole`` one that was begun.
        """
        if self._closed:
            raise self._gone()
        await self._turns.take()
        try:
            self._streak += 1
            if self._streak > _TURNS:
                self._streak = 0
                await asyncio.sleep(0)
            if self._closed:
                raise self._gone()
            self._push(transfer)
            if transfer.left:
                self._streak = 0
                transfer.future = self._loop.create_future()
                self._transfer = transfer
                self._arm()
                await transfer.future
        except BrokenPipeError:
            self.close()
            self._leave(transfer)
            raise self._gone() from None
        except asyncio.CancelledError:
            if transfer.whole and transfer.taken and transfer.left and not self._closed:
                transfer.future = None  # the callback goes on and ends the turn
                raise
            self._leave(transfer)
            raise
        except BaseException:
            self._leave(transfer)
            raise
        self._turns.give()

    async def feed(self, source: Input) -> None:
        r"""Writes all of ``source`` and closes stdin, so that the process meets the end of its input.

        Args:
            source: bytes; text (written as UTF-8); the path of a regular file, or a binary file object (read in blocks
                of 256 KiB on the loop's thread: fine for local files and for what is in memory, while a slow or
                remote one is better given to ``Command(stdin=path)``, where nothing passes through us); or an
                iterable or async iterable of any of bytes.

        Raises:
            StreamClosed: nobody reads any more.
            ConfigError: it is none of these; nothing more was written.

        Cancellation: what was taken is taken. stdin stays open then, and when ``source`` raises: the process must not
            mistake a part for the whole. Whoever owns it stops it, or closes stdin after all.
        """
        if isinstance(source, str):
            await self.write(source.encode())
        elif isinstance(source, bytes | bytearray | memoryview):
            await self.write(_checked(source))
        elif isinstance(source, os.PathLike):
            with _opened(Path(source)) as file:
                await self._copy(file)
        elif isinstance(source, AsyncIterable):
            await self._drain(source)
        elif callable(getattr(source, "read", None)):
            await self._copy(cast("BinaryIO", source))
        elif isinstance(source, Iterable):
            for item in source:
                await self.write(_checked(item))
        else:
            raise ConfigError("input", source, "bytes, text, a path, a binary file or an (async) iterable of bytes")
        self.close()

    async def _copy(self, file: BinaryIO) -> None:
        while block := file.read(_BLOCK):
            await self.write(_checked(block))

    async def _drain(self, source: AsyncIterable[Bytes]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(source, AsyncGenerator):  # ended here and now, not when it is collected
                await stack.enter_async_context(contextlib.aclosing(source))
            async for item in source:
                await self.write(_checked(item))

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be written any more: it was closed, or a write found nobody reading."""
        return self._closed

    def close(self) -> None:
        """Closes stdin: the process meets the end of its input. May be called twice.

        A write that waits fails with ``StreamClosed``, and so do those that queue behind it.
        """
        if self._closed:
            return
        self._closed = True
        self._pause()
        self._outlet.close()
        transfer, self._transfer = self._transfer, None
        if transfer is not None:
            self._settle(transfer, self._gone())

    # -------------------------------------------------------------------------------- the inside

    def _push(self, transfer: Transfer) -> bool:
        """Writes until all is taken (``True``), nothing fits, or the others should have their turn."""
        for _ in range(_BURST):
            if not transfer.left:
                return True
            taken = self._outlet.write_nowait(transfer.left)
            if taken is None:
                return False
            transfer.left = transfer.left[taken:]
        return not transfer.left

    def _ready(self) -> None:
        """The loop says that something fits."""
        transfer = self._transfer
        if transfer is None:
            self._pause()
            return
        try:
            if self._push(transfer):
                self._transfer = None
                self._settle(transfer, None)
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                self.close()
                return
            self._pause()
            self._transfer = None
            self._settle(transfer, error)

    def _settle(self, transfer: Transfer, error: Exception | None) -> None:
        future = transfer.future
        if future is None:
            self._turns.give()
        elif not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _leave(self, transfer: Transfer) -> None:
        if self._transfer is transfer:
            self._transfer = None
        future = transfer.future
        if future is not None and future.done() and not future.cancelled():
            future.exception()  # seen
        self._turns.give()

    def _arm(self) -> None:
        if not self._armed:
            self._outlet.on_writable(self._ready)
            self._armed = True

    def _pause(self) -> None:
        if self._armed:
            self._armed = False
            self._outlet.on_writable(None)

    def _gone(self) -> StreamClosed:
        return StreamClosed(Stream.STDIN.value, self._command)

    def __repr__(self) -> str:
        return f"<Writer {'closed' if self._closed else 'open'}>"


def check_input(source: object) -> None:
    """Refuses beforehand what :meth:`Writer.feed` could not write.

    Raises:
        ConfigError: it is neither bytes, text, a regular file, a binary file object nor an iterable.
    """
    if isinstance(source, os.PathLike):
        try:
            _opened(Path(source)).close()
        except OSError as error:
            raise ConfigError("input", str(source), f"it cannot be read: {error.strerror}") from None
    elif not isinstance(source, str | bytes | bytearray | memoryview | AsyncIterable | Iterable) and not callable(
        getattr(source, "read", None)
    ):
        raise ConfigError("input", source, "bytes, text, a path, a binary file or an (async) iterable of bytes")


def _opened(path: Path) -> BinaryIO:
    if not stat.S_ISREG(path.stat().st_mode):  # opening or reading anything else may block the loop for good
        raise ConfigError("input", str(path), "a regular file; Command(stdin=path) takes any other")
    return path.open("rb")


def _checked(item: object) -> Bytes:
    if isinstance(item, bytes | bytearray | memoryview):
        return item
    raise ConfigError("input", item, "bytes in every item, and a file opened in binary mode")
