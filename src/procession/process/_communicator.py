"""Talking with a process: :class:`Communicator`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from procession._types import Exit, Stream
from procession.errors import ConfigError, StreamClosed
from procession.process._collect import READ
from procession.process._lines import Line, Lines, lines
from procession.process._sink import Bytes, Transfer, Turns, Writer
from procession.process._source import Source

if TYPE_CHECKING:
    from procession.command import Command


class Talker(Protocol):
    """What a communicator needs of a process."""

    @property
    def command(self) -> Command:
        """What is run."""

    @property
    def exit(self) -> Exit | None:
        """How it ended, if it has."""

    @property
    def stdin(self) -> Writer | None:
        """Its stdin, when that is a pipe."""

    @property
    def stdout(self) -> Source | None:
        """Its stdout, when that is a pipe."""

    @property
    def stderr(self) -> Source | None:
        """Its stderr, when that is a pipe."""


class Communicator:
    """A conversation with a process over its pipes.

    A stream that is not a pipe is a closed one: its first use raises ``StreamClosed``.

    Args:
        process: whom to talk with; its command needs ``stdin="pipe"`` for anything to be sent.
        encoding: of lines, both ways; see ``lines()`` for which are possible.
        errors: what becomes of bytes received that are no text.
        max_line: bytes after which a line received is delivered in pieces.

    Raises:
        ConfigError: an option was refused (when the first line is received).
    """

    __slots__ = ("_encoding", "_errors", "_inside", "_lines", "_max", "_owed", "_process", "_turns")

    def __init__(
        self,
        process: Talker,
        *,
        encoding: str = "utf-8",
        errors: str = "backslashreplace",
        max_line: int = 1 << 20,
    ) -> None:
        self._process = process
        self._encoding = encoding
        self._errors = errors
        self._max = max_line
        self._lines: Lines | None = None
        self._turns: Turns | None = None
        self._owed = 0  # answers to cancelled requests, to be thrown away
        self._inside = False  # the last piece received was not the end of its line

    async def send(self, data: Bytes) -> None:
        """Writes ``data`` and returns when the kernel has taken all of it.

        Raises:
            StreamClosed: stdin is closed, is no pipe, or nobody reads it any more.

        Cancellation: either nothing was sent, or all of it will have been before anything else is.
        """
        await self._transfer(Transfer(data, whole=True))

    async def send_line(self, text: str) -> None:
        """Writes ``text`` and a line end.

        Raises:
            ConfigError: ``text`` has a line end in it.
            StreamClosed: stdin is closed, is no pipe, or nobody reads it any more.

        Cancellation: either nothing was sent, or all of it will have been before anything else is.
        """
        await self._transfer(self._one_line(text))

    async def receive(self, limit: int = READ) -> bytes:
        """Up to ``limit`` bytes of stdout, as soon as there are any; ``b""`` at the end.

        Bytes as they come: after a cancelled request its late answer is among them.

        Raises:
            StreamClosed: stdout is no pipe.

        Cancellation: safe; nothing is lost.
        """
        return await self._source(Stream.STDOUT).read(limit)

    async def receive_error(self, limit: int = READ) -> bytes:
        """Up to ``limit`` bytes of stderr, as soon as there are any; ``b""`` at the end.

        Raises:
            StreamClosed: stderr is no pipe.

        Cancellation: safe; nothing is lost.
        """
        return await self._source(Stream.STDERR).read(limit)

    async def receive_line(self) -> Line:
        """The next line of stdout that is not the late answer to a cancelled request.

        Raises:
            StreamClosed: stdout has ended, or is no pipe.

        Cancellation: safe; nothing is lost.
        """
        while self._owed:
            if not (await self._next()).partial:
                self._owed -= 1
            self._inside = False
        return await self._next()

    async def request(self, line: str) -> Line:
        """Sends one line and returns the next line received: its answer.

        Requests by several tasks are made one after the other, in the order of the calls. Of an answer longer than
        ``max_line`` it returns the first piece (``partial`` is true); :meth:`receive_line` gives the others, and the next
        request skips what is left of them.

        Raises:
            ConfigError: ``line`` has a line end in it.
            StreamClosed: stdin is closed or stdout has ended (``stream`` says which), or one is no pipe.

        Cancellation: safe. If it was sent, its answer is thrown away when it comes; nobody else gets it.
        """
        transfer = self._one_line(line)
        self._source(Stream.STDOUT)
        if self._turns is None:
            self._turns = Turns(asyncio.get_running_loop())
        turns = self._turns
        await turns.take()
        try:
            if self._inside:
                self._owed += 1
                self._inside = False
            try:
                await self._transfer(transfer)
                return await self.receive_line()
            except BaseException:
                if transfer.taken:
                    self._owed += 1
                raise
        finally:
            turns.give()

    def close_stdin(self) -> None:
        """Closes stdin, so that the process meets the end of its input; may be called twice."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    # -------------------------------------------------------------------------------- the inside

    def _one_line(self, text: str) -> Transfer:
        if "\n" in text:
            raise ConfigError("line", text, "one line without its end; send() takes anything")
        return Transfer((text + "\n").encode(self._encoding), whole=True)

    async def _transfer(self, transfer: Transfer) -> None:
        stdin = self._process.stdin
        if stdin is None:
            raise self._closed(Stream.STDIN)
        try:
            await stdin.perform(transfer)
        except StreamClosed:
            raise self._closed(Stream.STDIN) from None

    async def _next(self) -> Line:
        stdout = self._source(Stream.STDOUT)
        while True:
            if self._lines is None:
                self._lines = lines((stdout,), encoding=self._encoding, errors=self._errors, max_line=self._max)
            async for line in self._lines:
                self._inside = line.partial
                return line
            self._lines = None
            if stdout.at_end:
                raise self._closed(Stream.STDOUT)

    def _source(self, stream: Stream) -> Source:
        source = self._process.stdout if stream is Stream.STDOUT else self._process.stderr
        if source is None:
            raise self._closed(stream)
        return source

    def _closed(self, stream: Stream) -> StreamClosed:
        return StreamClosed(stream.value, self._process.command, self._process.exit)

    def __repr__(self) -> str:
        return f"<Communicator with {self._process.command.display()}>"
