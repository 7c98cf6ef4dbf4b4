from __future__ import annotations

import asyncio
import os
import pickle
import time
from typing import Any, Self

import pytest

from procession._launch._fds import FdInlet
from procession._types import Stream
from procession.errors import ConfigError
from procession.process._lines import Line, Lines, LineSplitter, lines
from procession.process._source import Source


def split(data: bytes, step: int = 0, **options) -> list[Line]:
    splitter = LineSplitter(Stream.STDERR, **options)
    found = []
    for start in range(0, len(data), step or len(data) or 1):
        found += splitter.feed(data[start : start + step] if step else data, 1.5)
    return found + splitter.end(2.5)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 5])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [("", False)]),
        (b"a\nb\n", [("a", False), ("b", False)]),
        (b"a\n\nb", [("a", False), ("", False), ("b", True)]),
        (b"a\r\nb\r\n", [("a", False), ("b", False)]),
        (b"a\rb\r\r\nc\r", [("a\rb\r", False), ("c\r", True)]),
        ("grüße\n日本\n".encode(), [("grüße", False), ("日本", False)]),
        (b"bad \xff\xe2\x82\nok \xe2\x82", [("bad \\xff\\xe2\\x82", False), ("ok \\xe2\\x82", True)]),
        (b"nul \0 \x1c \x85 here\n", [("nul \0 \x1c \\x85 here", False)]),
        (b"0123456789abcdef\n", [("0123456789abcdef", False)]),
        (b"0123456789abcdef\r\n", [("0123456789abcdef", False)]),
        (b"0123456789abcdefg\n", [("0123456789abcdef", True), ("g", False)]),
        (b"0123456789abcde\r\r\n", [("0123456789abcde\r", False)]),
        (b"0123456789abcdef\r", [("0123456789abcdef", True), ("\r", True)]),
        (
            ("x" * 15 + "é" + "y" * 14 + "日" + "\nz").encode(),
            [("x" * 15, True), ("é" + "y" * 14, True), ("日", False), ("z", True)],
        ),
    ],
)
def test_lines_and_pieces(data: bytes, expected: list[tuple[str, bool]], step: int):
    found = split(data, step, max_line=16)
    assert [(str(line), line.partial) for line in found] == expected
    assert all(line.stream is Stream.STDERR for line in found)


def test_the_time_is_that_of_the_chunk_which_completed_the_line():
    assert [line.at for line in split(b"a\nb")] == [1.5, 2.5]


def test_a_codec_without_an_incremental_decoder(monkeypatch: pytest.MonkeyPatch):
    splitter = LineSplitter(encoding="latin-1", max_line=16)
    monkeypatch.setattr(splitter, "_codec", None)
    assert [str(line) for line in splitter.feed(b"x" * 20 + b"\n", 0)] == ["x" * 16, "xxxx"]


@pytest.mark.parametrize("encoding", ["latin-1", "shift_jis", "gb18030", "euc-jp", "cp1252", "ascii"])
def test_other_encodings(encoding: str):
    text = "日本語の行" if encoding in ("shift_jis", "gb18030", "euc-jp") else "naive plain"
    data = (text * 20 + "\n" + text).encode(encoding)
    for step in (1, 7, 0):
        found = split(data, step, encoding=encoding, max_line=17)
        assert "".join(line + ("" if line.partial else "\n") for line in found) == text * 20 + "\n" + text


def test_what_cannot_work_is_refused():
    cases: list[tuple[dict[str, Any], str]] = [
        ({"encoding": "utf-16"}, "encoding"),
        ({"encoding": "utf-32-le"}, "encoding"),
        ({"encoding": "no such"}, "encoding"),
        ({"encoding": "base64"}, "encoding"),
        ({"errors": "no such"}, "errors"),
        ({"max_line": 15}, "max_line"),
    ]
    for options, field in cases:
        with pytest.raises(ConfigError) as caught:
            LineSplitter(**options)
        assert caught.value.field == field


def test_strict_decoding_raises_and_keeps_the_bytes():
    splitter = LineSplitter(errors="strict")
    splitter.feed(b"be", 0)
    with pytest.raises(UnicodeDecodeError):
        splitter.feed(b"fore\n\xff\n", 0)
    assert splitter.rest() == b"before\n\xff\n"


def test_a_line_is_a_str_and_can_be_pickled():
    line = Line("text", Stream.STDERR, True, 3.0)
    copy = pickle.loads(pickle.dumps(line))
    assert (copy, copy.stream, copy.partial, copy.at) == ("text", Stream.STDERR, True, 3.0)
    assert isinstance(line, str)


def test_a_line_of_100_mb_takes_linear_time():
    def seconds(chunks: int) -> float:
        splitter = LineSplitter(max_line=1 << 20)
        chunk = "ä".encode() * 32768
        began = time.perf_counter()
        total = sum(len(line) for _ in range(chunks) for line in splitter.feed(chunk, 0.0))
        total += sum(map(len, splitter.end(0.0)))
        assert total == chunks * 32768
        return time.perf_counter() - began

    seconds(100)
    assert seconds(1600) < 40 * max(seconds(160), 0.01)
    one = LineSplitter()
    assert len(one.feed(b"x" * 50_000_000, 0.0)) == 762


# ------------------------------------------------------------------------------- lines of sources


class Pipe:
    def __init__(self, stream: Stream = Stream.STDOUT) -> None:
        reader, self.fd = os.pipe()
        os.set_blocking(reader, False)
        loop = asyncio.get_running_loop()
        self.source = Source(FdInlet(reader, loop), stream, loop)

    def write(self, data: bytes) -> None:
        os.write(self.fd, data)

    def end(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        self.source.close()


async def take(reader: Lines, n: int) -> list[str]:
    return [str(await anext(reader)) for _ in range(n)]


@pytest.mark.both_loops
async def test_lines_of_a_pipe():
    with Pipe() as pipe:
        pipe.write(b"one\ntwo\nthr")
        reader = lines((pipe.source,))
        assert await take(reader, 2) == ["one", "two"]
        task = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        pipe.write(b"ee\nfour")
        assert await task == "three"
        pipe.end()
        last = [line async for line in reader]
        assert last == ["four"]
        assert last[0].partial
        assert pipe.source.at_end


@pytest.mark.both_loops
async def test_leaving_early_loses_nothing_whoever_reads_on():
    with Pipe() as pipe:
        pipe.write(b"1\r\n2\n3\n4\n5\nunfin")
        async for line in lines((pipe.source,)):
            assert line == "1"
            break
        assert not pipe.source.at_end
        assert await pipe.source.read(4) == b"2\n3\n"
        first, second = lines((pipe.source,)), lines((pipe.source,))
        assert await take(first, 1) == ["4"]
        assert await take(second, 1) == ["5"]
        pipe.write(b"ished\nlast")
        assert await take(first, 1) == ["unfinished"]
        pipe.end()
        assert not pipe.source.at_end
        await first.aclose()
        await first.aclose()
        assert [str(line) async for line in second] == ["last"]
        assert pipe.source.at_end


async def test_leaving_at_every_line_of_long_ones():
    data = "".join("é" * i + "\r\n" for i in (0, 5, 40, 7, 33)).encode() + b"\xff" * 20 + b"\ntail without end"
    whole = split(data, max_line=16)
    for leave in range(len(whole) + 1):
        with Pipe() as pipe:
            pipe.write(data)
            pipe.end()
            found: list[Line] = []
            async for line in lines((pipe.source,), max_line=16):
                if not found and leave == 0:
                    pipe.source.push_back(b"")  # calls back all but this line
                found.append(line)
                if len(found) >= leave:
                    break
            found += [line async for line in lines((pipe.source,), max_line=16)]
            assert [(str(line), line.partial) for line in found] == [(str(line), line.partial) for line in whole]


async def test_the_last_line_is_not_lost_when_one_leaves_at_the_end():
    with Pipe() as pipe:
        pipe.write(b"x" * 16 + b"\r")
        pipe.end()
        reader = lines((pipe.source,), max_line=16)
        assert await take(reader, 1) == ["x" * 16]
        assert not pipe.source.at_end
        await reader.aclose()
        assert await pipe.source.read() == b"\r"
        assert pipe.source.at_end


@pytest.mark.both_loops
async def test_lines_of_two_streams_never_mix_within_a_line():
    with Pipe() as out, Pipe(Stream.STDERR) as err:
        reader = lines((out.source, err.source))
        task = asyncio.create_task(anext(reader))
        for pipe, data in [(out, b"ou"), (err, b"er"), (out, b"t 1"), (err, b"r 1\n"), (out, b"\nout 2\n")]:
            await asyncio.sleep(0.002)
            pipe.write(data)
        first = await task
        assert (first, first.stream) == ("err 1", "stderr")
        err.write(b"err 2\nrest of err")
        rest = [await anext(reader) for _ in range(3)]
        assert {(str(line), line.stream.value) for line in rest} == {
            ("out 1", "stdout"),
            ("out 2", "stdout"),
            ("err 2", "stderr"),
        }
        await reader.aclose()
        assert await err.source.read() == b"rest of err"


@pytest.mark.both_loops
async def test_a_cancelled_reader_of_lines_goes_on():
    with Pipe() as pipe:
        reader = lines((pipe.source,))
        pipe.write(b"a\nhal")
        assert await anext(reader) == "a"
        task = asyncio.create_task(anext(reader))
        await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        pipe.write(b"f\n")
        assert await anext(reader) == "half"
