"""Bytes into lines: :class:`LineSplitter`, which knows nothing of asyncio, and :func:`lines`, which feeds it."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import length_hint
from typing import Self

from procession._types import Stream
from procession.errors import ConfigError
from procession.process._merge import Merge
from procession.process._source import Source

_CR = 13
_WHOLE_BLOCKS = ("utf-8", "ascii", "iso8859-1")  # decoding many lines at once is the same as one by one


class Line(str):
    """One line of output without its end.

    Attributes:
        stream: where it was written.
        partial: no line end follows: it is a piece of a line longer than ``max_line``, or the last, unfinished line.
        at: loop time of its arrival.
    """

    __slots__ = ("at", "partial", "stream")
    stream: Stream
    partial: bool
    at: float

    def __new__(cls, text: str = "", stream: Stream = Stream.STDOUT, partial: bool = False, at: float = 0.0) -> Self:
        """Makes a line, for example for a test."""
        line = super().__new__(cls, text)
        line.stream = stream
        line.partial = partial
        line.at = at
        return line


class LineSplitter:
    r"""Cuts what it is fed into lines; where the chunks begin and end makes no difference.

    A line ends with ``\n`` or ``\r\n``; a lone ``\r`` is text. A line of more than ``max_line`` bytes comes in pieces of
    at most that many, no character cut in two. So ``"".join(line + ("" if line.partial else "\n") for line in lines)``
    is the text.

    Args:
        stream: what the lines are marked with.
        encoding: any in which a line feed is the byte 10; not UTF-16 or UTF-32. Stateful ones begin anew in each line.
        errors: what becomes of bytes that are no text, as in :meth:`bytes.decode`.
        max_line: bytes after which a line is delivered in pieces, at least 16.

    Raises:
        ConfigError: a value was refused.
    """

    __slots__ = (
        "_codec",
        "_count",
        "_encoding",
        "_errors",
        "_final",
        "_max",
        "_pending",
        "_pieces",
        "_raw",
        "_size",
        "_stream",
    )

    def __init__(
        self,
        stream: Stream = Stream.STDOUT,
        encoding: str = "utf-8",
        errors: str = "backslashreplace",
        max_line: int = 65536,
    ) -> None:
        self._codec = _codec(encoding)
        try:
            codecs.lookup_error(errors)
        except LookupError:
            raise ConfigError("errors", errors, "the name of an error handler, as for bytes.decode()") from None
        if max_line < 16:
            raise ConfigError("max_line", max_line, "at least 16 bytes")
        self._stream = stream
        self._encoding = self._codec.name
        self._errors = errors
        self._max = max_line
        self._pending: list[bytes] = []  # the unfinished line
        self._size = 0
        self._raw = b""  # what the lines of the last call were made of
        self._count = 0  # how many lines that were
        self._pieces = False
        self._final = False

    def feed(self, data: bytes, at: float) -> list[Line]:
        """Takes the next bytes and returns the lines, and pieces of lines, that are complete with them."""
        if not data:
            return []
        pending = self._pending
        if pending:
            pending.append(data)
            if self._size + len(data) <= self._max and b"\n" not in data:
                self._size += len(data)
                self._count = 0
                return []
            data = b"".join(pending)
        return self._split(data, at)

    def end(self, at: float) -> list[Line]:
        """Says that nothing follows, and returns the last line if it had no end."""
        raw = b"".join(self._pending)
        found = [self._piece(raw[start:stop], at) for start, stop, _, _ in self._spans(raw, final=True)]
        self._commit(raw, b"", len(found), pieces=True, final=True)
        return found

    def rest(self, undelivered: int = 0) -> bytes:
        """The bytes that were fed and are not in any line returned so far.

        Args:
            undelivered: so many of the lines returned last are to be counted as not returned.
        """
        if not undelivered:
            return b"".join(self._pending)
        raw = self._raw
        delivered = self._count - undelivered
        offset = 0
        if self._pieces:
            for _, _, after, _ in islice(self._spans(raw, final=self._final), delivered):
                offset = after
        else:
            for _ in range(delivered):
                offset = raw.index(b"\n", offset) + 1
        return raw[offset:]

    def _commit(self, raw: bytes, left: bytes, count: int, *, pieces: bool, final: bool = False) -> None:
        self._raw = raw
        self._pending = [left] if left else []
        self._size = len(left)
        self._count = count
        self._pieces = pieces
        self._final = final

    def _split(self, raw: bytes, at: float) -> list[Line]:
        self._commit(b"", raw, 0, pieces=False)  # nothing is lost should decoding raise
        if len(raw) > self._max and max(map(len, raw.split(b"\n"))) > self._max:
            return self._split_long(raw, at)
        end = raw.rfind(b"\n")
        if end < 0:
            return []
        if self._encoding in _WHOLE_BLOCKS:
            texts = raw[:end].decode(self._encoding, self._errors).split("\n")
        else:
            texts = [part.decode(self._encoding, self._errors) for part in raw[:end].split(b"\n")]
        if b"\r\n" in raw:
            texts = [text.removesuffix("\r") for text in texts]
        found: list[Line] = []
        append, new, stream = found.append, str.__new__, self._stream
        for text in texts:
            line = new(Line, text)
            line.stream = stream
            line.partial = False
            line.at = at
            append(line)
        self._commit(raw, raw[end + 1 :], len(found), pieces=False)
        return found

    def _split_long(self, raw: bytes, at: float) -> list[Line]:
        found: list[Line] = []
        offset = 0
        for start, stop, after, partial in self._spans(raw):
            line = self._piece(raw[start:stop], at)
            line.partial = partial
            found.append(line)
            offset = after
        self._commit(raw, raw[offset:], len(found), pieces=True)
        return found

    def _piece(self, raw: bytes, at: float) -> Line:
        return Line(raw.decode(self._encoding, self._errors), self._stream, True, at)

    def _spans(self, raw: bytes, final: bool = False) -> Iterator[tuple[int, int, int, bool]]:
        """Start, stop, start of the next one, and whether it is a piece, of everything complete in ``raw``."""
        start, size, top = 0, len(raw), self._max
        while start < size:
            found = raw.find(b"\n", start, start + top + 2)
            if found >= 0:
                stop = found - 1 if found > start and raw[found - 1] == _CR else found
                if stop - start <= top:
                    yield start, stop, found + 1, False
                    start = found + 1
                    continue
            else:
                certain = size - start
                if not final and raw[-1] == _CR:
                    certain -= 1  # the line end may be about to follow
                if certain <= top:
                    if final:
                        yield start, size, size, True
                    return
            stop = start + self._whole_characters(raw[start : start + top])
            yield start, stop, stop, True
            start = stop

    def _whole_characters(self, piece: bytes) -> int:
        """How many bytes of ``piece`` there are before a character that it cuts in two."""
        tail = piece
        if self._encoding == "utf-8":
            for back in (1, 2, 3):
                if piece[-back] >= 0xC0:
                    tail = piece[-back:]
                    break
            else:
                return len(piece)
        make = getattr(self._codec, "incrementaldecoder", None)
        if make is None:  # a codec that somebody registered without one
            return len(piece)
        decoder = make("replace")
        decoder.decode(tail)
        return len(piece) - len(decoder.getstate()[0]) or len(piece)


def _codec(encoding: str) -> codecs.CodecInfo:
    hint = "a text encoding in which a line feed is the byte 10; read bytes and decode them for any other"
    try:
        codec = codecs.lookup(encoding)
        plain = "a\nb".encode(encoding) == b"a\nb"
    except (LookupError, UnicodeError):
        raise ConfigError("encoding", encoding, hint) from None
    if not plain:
        raise ConfigError("encoding", encoding, hint)
    return codec


class Lines:
    """The lines of one or several sources in order of arrival, until all have ended; see :func:`lines`."""

    __slots__ = ("_batch", "_encoding", "_errors", "_from", "_max", "_merge", "_splitters")

    def __init__(self, sources: Iterable[Source], encoding: str, errors: str, max_line: int) -> None:
        self._encoding = encoding
        self._errors = errors
        self._max = max_line
        self._splitters = {source: self._splitter(source) for source in sources}
        self._merge = Merge(self._splitters, self)
        self._batch: Iterator[Line] = iter(())
        self._from: Source | None = None

    def _splitter(self, source: Source) -> LineSplitter:
        return LineSplitter(source.stream, self._encoding, self._errors, self._max)

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> Line:
        """The next line.

        Cancellation: safe; nothing is lost.
        """
        for line in self._batch:
            return line
        while (arrival := await self._merge.next()) is not None:
            source, data = arrival
            splitter = self._splitters[source]
            source._holder = self
            self._from = source
            found = splitter.feed(data, source._loop.time()) if data else splitter.end(source._loop.time())
            self._batch = batch = iter(found)
            for line in batch:
                return line
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leaves early; what is not in a line handed out stays in the sources, as bytes.

        Cancellation: never suspends.
        """
        for source in self._splitters:
            if source._holder is self:
                source._recall()
        self._merge.close()

    # ------------------------------------------------------------ somebody else reads a source on

    def holds(self, source: Source) -> bool:
        """Whether something of ``source`` was read and is in no line handed out so far."""
        return bool(self._undelivered(source))

    def give_back(self, source: Source) -> bytes:
        """Hands the bytes over that :meth:`holds` tells of; if this iterator goes on, it reads them again."""
        data = self._undelivered(source)
        self._splitters[source] = self._splitter(source)
        if self._from is source:
            self._batch = iter(())
        return data

    def _undelivered(self, source: Source) -> bytes:
        left = length_hint(self._batch) if self._from is source else 0
        return self._splitters[source].rest(left)


def lines(
    sources: Iterable[Source], *, encoding: str = "utf-8", errors: str = "backslashreplace", max_line: int = 65536
) -> Lines:
    """Reads sources by lines; :class:`LineSplitter` says what a line is.

    One may leave the loop at any time: whoever reads a source next, by lines or by bytes, gets what follows the last
    line handed out.

    Raises:
        ConfigError: an option was refused.

    Example:
        ``async for line in lines((process.stdout, process.stderr)): ...``
    """
    return Lines(sources, encoding, errors, max_line)
