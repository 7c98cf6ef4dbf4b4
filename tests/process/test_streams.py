"""Lines and chunks of real processes: nothing lost, nothing invented, memory flat, the reader free to come and go."""

import asyncio
import hashlib
import sys

import psutil
import pytest

from procession import Chunk, Command, ConfigError, Line, Overflow, StateError, Stream, spawn
from tests.programs import first_line, program, sh

pytestmark = pytest.mark.row("PR6")


async def all_lines(command, **options):
    async with spawn(command) as process:
        return [line async for line in process.lines(**options)]


async def test_lines_say_where_they_come_from():
    lines = await all_lines(sh("echo a; echo b >&2"))
    assert sorted((line, line.stream, line.partial) for line in lines) == [
        ("a", Stream.STDOUT, False),
        ("b", Stream.STDERR, False),
    ]
    assert all(isinstance(line, Line) and line.at > 0 for line in lines)


async def test_both_streams_come_merged_in_order_of_arrival():
    async with spawn(sh("while read x; do echo $x; read x; echo $x >&2; done", stdin="pipe")) as process:
        talk = process.communicator()
        lines = process.lines("both")
        for number in range(50):
            await talk.send_line(str(number))
            line = await anext(lines)
            assert (line, line.stream) == (str(number), Stream.STDERR if number % 2 else Stream.STDOUT)
        talk.close_stdin()
        assert [line async for line in lines] == []


async def test_chunks_of_both_streams_say_where_they_come_from():
    async with spawn(sh("printf abc; printf defg >&2")) as process:
        got = {Stream.STDOUT: b"", Stream.STDERR: b""}
        async for chunk in process.chunks("both"):
            assert isinstance(chunk, Chunk)
            got[chunk.stream] += chunk
        assert got == {Stream.STDOUT: b"abc", Stream.STDERR: b"defg"}


async def test_stderr_merged_by_the_command_is_one_stream():
    assert await all_lines(sh("echo a; echo b >&2; echo c", stderr="stdout")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (r"a\r\nb\r\n", [("a", False), ("b", False)]),
        (r"a\nb", [("a", False), ("b", True)]),
        (r"a\rb\n", [("a\rb", False)]),
        (r"\n\n", [("", False), ("", False)]),
        (r"a\r", [("a\r", True)]),
        (r"a\000b\000\nc\n", [("a\0b\0", False), ("c", False)]),
        (r"\377\376\n\303", [("\\xff\\xfe", False), ("\\xc3", True)]),
        (r"\303\274\n", [("ü", False)]),
        (r"\033[31mred\n", [("\x1b[31mred", False)]),
        (r"a\342\200\250b\n", [("a\u2028b", False)]),
        ("", []),
    ],
    ids=lambda value: None,
)
async def test_what_a_line_is(text, lines):
    got = await all_lines(Command("printf", text))
    assert [(str(line), line.partial) for line in got] == lines


async def test_a_character_split_over_two_writes_is_one_character():
    script = r"printf '\342'; read x; printf '\202'; read x; printf '\254\n'"
    async with spawn(sh(script, stdin="pipe")) as process:
        task = asyncio.create_task(first_line(process))
        for _ in range(2):
            await process.communicator().send_line("")
        assert await task == "€"
        process.communicator().close_stdin()


async def test_another_encoding_and_other_errors():
    assert await all_lines(Command("printf", r"\374\n"), encoding="latin-1") == ["ü"]
    assert await all_lines(Command("printf", r"\374\n"), errors="replace") == ["\ufffd"]
    async with spawn(Command("true")) as process:
        for options in ({"encoding": "klingon"}, {"errors": "nothing"}, {"max_line": 0}):
            with pytest.raises(ConfigError):
                process.lines(**options)


async def test_a_line_longer_than_the_limit_comes_in_pieces():
    lines = await all_lines(sh("head -c 100000 /dev/zero | tr '\\0' x; echo; echo end"), max_line=1000)
    assert [line.partial for line in lines] == [True] * 99 + [False, False]
    assert all(len(line) <= 1000 for line in lines)
    assert "".join(lines) == "x" * 100_000 + "end"


@pytest.mark.parametrize("max_line", [65_536, 1 << 30])
async def test_a_line_of_a_hundred_megabytes(max_line):
    """In pieces with a mark; or, by wish, in one piece."""
    size = 100 * 10**6
    command = sh("head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end")
    total, pieces, last = 0, 0, ""
    async with spawn(command) as process:
        async for line in process.lines("stdout", max_line=max_line):
            total += len(line)
            pieces += line.partial
            last = str(line[:10])
    assert total == size + 3
    assert last == "end"
    assert (pieces == 0) == (max_line > size)


async def test_every_byte_arrives_through_chunks():
    digest = hashlib.sha256()
    script = """
import os, hashlib
data = os.urandom(20_000_000)
os.write(2, hashlib.sha256(data).hexdigest().encode())
open(1, "wb").write(data)
"""
    async with spawn(Command(sys.executable, "-I", "-S", "-c", script)) as process:
        async for chunk in process.chunks("stdout", limit=7777):
            assert 0 < len(chunk) <= 7777
            digest.update(chunk)
        assert process.stderr is not None
        assert (await process.stderr.read()).decode() == digest.hexdigest()


# --------------------------------------------------------------------------------------------------------- the reader


async def test_the_reader_leaves_early_and_comes_back():
    async with spawn(sh("seq 1000")) as process:
        seen = []
        for _ in range(10):
            async for line in process.lines("stdout"):
                seen.append(line)
                if len(seen) % 7 == 0:
                    break
        rest = b"".join([chunk async for chunk in process.chunks("stdout")])
        assert seen == [str(number) for number in range(1, 71)]
        assert rest.decode().split() == [str(number) for number in range(71, 1001)]


async def test_a_cancelled_reader_loses_nothing():
    async with spawn(sh("while read x; do echo $x; done", stdin="pipe")) as process:
        talk, lines = process.communicator(), process.lines("stdout")
        for number in range(30):
            reader = asyncio.ensure_future(anext(lines))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            reader.cancel()
            await asyncio.wait([reader])
            await talk.send_line(str(number))
            if reader.cancelled():
                assert await anext(lines) == str(number)


async def test_two_readers_at_once_are_told():
    async with spawn(Command("sleep", "1000")) as process:
        first = asyncio.ensure_future(anext(process.lines("stdout")))
        await asyncio.sleep(0)
        with pytest.raises(StateError):
            await anext(process.lines("stdout"))
        first.cancel()
        await asyncio.wait([first])


async def test_the_block_may_be_left_while_somebody_reads():
    async with spawn(sh("echo a; exec sleep 1000")) as process:
        lines = process.lines("stdout")
        assert await anext(lines) == "a"
        reader = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
    with pytest.raises(StopAsyncIteration):
        await reader


async def test_output_after_the_end_can_be_read_inside_the_block():
    async with spawn(sh("echo a; echo b; exit 3")) as process:
        assert await process.wait() == 3
        assert [line async for line in process.lines("stdout")] == ["a", "b"]


async def test_what_is_no_pipe_cannot_be_read():
    async with spawn(Command("true", stdout="null", stderr="null")) as process:
        for call in (process.lines, process.chunks):
            with pytest.raises(ConfigError) as caught:
                call()
            assert caught.value.field == "stream"
        with pytest.raises(ConfigError):
            process.lines("stdin")  # type: ignore[arg-type]
        assert process.stdin is None


# ------------------------------------------------------------------------------------------------- memory and pressure


@pytest.mark.parametrize("how", ["chunks", "lines"])
async def test_much_output_through_a_slow_reader_at_flat_memory(how):
    """200 MiB of bytes, 40 MiB of lines: every line is an object of its own, which takes time, not memory."""
    me, size = psutil.Process(), (200 if how == "chunks" else 40) * 2**20
    command = Command("head", "-c", "200M", "/dev/zero") if how == "chunks" else program("flood", str(size // 65))
    total = peak = turns = 0
    async with spawn(command) as process:
        before = me.memory_info().rss
        async for piece in process.chunks() if how == "chunks" else process.lines("stdout"):
            total += len(piece) + (how == "lines")
            turns += 1
            if turns % 500 == 0:
                await asyncio.sleep(0.001)
                peak = max(peak, me.memory_info().rss - before)
    assert total == (size if how == "chunks" else size // 65 * 65)
    assert peak < 16 * 2**20


async def test_a_reader_that_pauses_makes_the_child_wait():
    async with spawn(program("flood", "1000000")) as process:
        assert (await first_line(process)).startswith("00000000")
        # It cannot have ended: 65 MB do not fit into a pipe, and nobody reads.
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout_at(loop.time() + 0.2):
                await process.wait()
        assert process.is_running


async def test_unread_stderr_does_not_block():
    async with spawn(program("flood", "200000", "both")) as process:
        count = 0
        async for _ in process.lines("stdout"):
            count += 1
        assert count == 200_000
        assert await process.wait() == 0
        assert process.stderr is not None
        tail = b"".join([chunk async for chunk in process.chunks("stderr")])
        assert len(tail) == 1 << 20
        assert tail.endswith(b"x\n")
        assert process.stderr.dropped == 200_000 * 65 - len(tail)


async def test_drop_oldest_keeps_the_newest_and_counts():
    async with spawn(program("flood", "100000")) as process:
        assert process.stdout is not None
        process.stdout.set_overflow("drop_oldest", 6500)
        assert await process.wait() == 0
        lines = [line async for line in process.lines("stdout")]
        assert len(lines) == 100
        assert lines[-1].startswith("00099999")
        assert process.stdout.dropped == 6_500_000 - 6500


async def test_spill_keeps_everything_on_disk():
    async with spawn(program("flood", "100000")) as process:
        assert process.stdout is not None
        process.stdout.set_overflow(Overflow.SPILL)
        assert await process.wait() == 0
        count = 0
        async for line in process.lines("stdout"):
            assert int(line[:8]) == count
            count += 1
        assert count == 100_000
        assert process.stdout.dropped == 0


async def test_a_full_spill_file_makes_the_child_wait():
    async with spawn(program("flood", "100000")) as process:
        assert process.stdout is not None
        process.stdout.set_overflow("spill", 100_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await process.wait()
        count = 0
        async for line in process.lines("stdout"):
            assert int(line[:8]) == count
            count += 1
        assert count == 100_000
        assert await process.wait() == 0


async def test_refused_overflow_policies():
    async with spawn(Command("true")) as process:
        assert process.stdout is not None
        with pytest.raises(ConfigError):
            process.stdout.set_overflow("forget")
        with pytest.raises(ConfigError):
            process.stdout.set_overflow("spill", 0)


async def test_a_fast_child_does_not_starve_the_loop():
    """8 children flood; a timer still comes."""
    loop = asyncio.get_running_loop()

    async def read():
        async with spawn(Command("cat", "/dev/zero")) as process:
            async for _ in process.chunks():
                if enough:
                    return

    enough = False
    ticks = []
    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(read())
        for _ in range(20):
            began = loop.time()
            await asyncio.sleep(0.01)
            ticks.append(loop.time() - began)
        enough = True
    assert sorted(ticks)[10] < 0.3
