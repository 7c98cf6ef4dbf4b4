"""Paints a picture of every module of the standard library, and makes thumbnails and a contact sheet of them.

    python examples/thumbnails.py [FOLDER] [--quick] [--out DIR]

Every Python file of FOLDER (default: the standard library of this Python) is read and painted, one pixel per character,
coloured by what it is; then each picture is read again and scaled down. All of that is plain Python that computes, so it is
done by the workers of a ``FunctionPool``, as many as there are processors. Meanwhile

- one worker is killed half-way, by somebody who knows nothing but its pid; its call is done again by another,
- one "file" never ends, a pipe nobody writes to; its call runs out of time, and the worker that hangs is killed.

Exit code 0 means: every file has its picture and its thumbnail, checked here once more, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import keyword
import math
import os
import re
import signal
import struct
import sys
import sysconfig
import tempfile
import zlib
from pathlib import Path

from procession import CallTimeout, Command, FunctionPool, PoolConfig, Priority, ProcessRegistry, run
from procession.events import ProcessExited, ProcessSpawned
from procession.pool import PoolStatistics, WorkerOutput, suggest_size, worker_state
from procession.testing import LeakAudit

SIZE = 48  # of a thumbnail, in pixels each way
COLUMNS = 100  # characters of a line that are painted
INK = {"comment": 0x5C6773, "string": 0xA6CC70, "number": 0xFFCC66, "keyword": 0xFF7733, "word": 0xCBCCC6}
STRING = r'''[rbfuRBFU]{0,2}(?:"""[\s\S]*?"""|\'\'\'[\s\S]*?\'\'\'|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')'''
LEXEMES = rf"(?P<comment>#[^\n]*)|(?P<string>{STRING})|(?P<number>\b\d[\w.]*)|(?P<word>\w+|\S)"

# ------------------------------------------------------------------------------------- what workers do


class Studio:
    """What each worker prepares once, and keeps from one call to the next."""

    def open(self) -> None:
        self.lexemes = re.compile(LEXEMES)
        self.ink = {kind[0]: colour.to_bytes(3, "big") for kind, colour in INK.items()}
        self.pictures = 0

    def close(self) -> None:
        print(f"{self.pictures} pictures")  # which arrives at the pool's `on_output`

    def kinds(self, source: str) -> str:
        """The source, with each character replaced by the first letter of what it is part of."""

        def letter(match: re.Match[str]) -> str:
            kind = "keyword" if keyword.iskeyword(match[0]) else str(match.lastgroup)
            return re.sub(r"\S", kind[0], match[0])

        return self.lexemes.sub(letter, source)


def paint(source: Path, picture: Path) -> Path:
    """Paints one file, in as many columns as make the picture about square."""
    studio: Studio = worker_state()
    text = source.read_text(encoding="utf-8", errors="replace")
    lines = [line[:COLUMNS].ljust(COLUMNS) for line in studio.kinds(text).split("\n")]
    across = max(1, round(math.sqrt(len(lines) / COLUMNS)))
    height = -(-len(lines) // across)
    lines += [" " * COLUMNS] * (across * height - len(lines))
    rows = ("".join(lines[y::height]) for y in range(height))
    black = bytes(3)
    write_png(picture, across * COLUMNS, b"".join(studio.ink.get(kind, black) for row in rows for kind in row))
    return picture


def shrink(picture: Path, thumbnail: Path) -> bytes:
    """Scales one picture down, each pixel the mean of a box, and returns the pixels."""
    width, pixels = read_png(picture)
    height = len(pixels) // width // 3
    out = bytearray()
    for y in range(SIZE):
        top = y * height // SIZE
        rows = [pixels[3 * width * n : 3 * width * (n + 1)] for n in range(top, max(top + 1, (y + 1) * height // SIZE))]
        for x in range(SIZE):
            left = x * width // SIZE
            right = max(left + 1, (x + 1) * width // SIZE)
            for channel in range(3):
                total = sum(sum(row[3 * left + channel : 3 * right : 3]) for row in rows)
                out.append(total // (len(rows) * (right - left)))
    write_png(thumbnail, SIZE, bytes(out))
    return bytes(out)


def arrange(thumbnails: list[bytes], across: int) -> bytes:
    """Puts thumbnails side by side, row by row; some megabytes in, some megabytes out."""
    thumbnails = thumbnails + [bytes(3 * SIZE * SIZE)] * (-len(thumbnails) % across)
    line = 3 * SIZE
    return b"".join(
        tile[line * y : line * (y + 1)]
        for first in range(0, len(thumbnails), across)
        for y in range(SIZE)
        for tile in thumbnails[first : first + across]
    )


def write_png(path: Path, width: int, pixels: bytes) -> None:
    rows = [b"\0" + pixels[at : at + 3 * width] for at in range(0, len(pixels), 3 * width)]
    head = struct.pack(">IIBBBBB", width, len(rows), 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(b"".join(rows), 6)), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def read_png(path: Path) -> tuple[int, bytes]:
    """The width and the pixels of a picture as ``write_png`` writes it."""
    data, at, body = path.read_bytes(), 8, b""
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, (check,) = data[at + 4 : at + 8], struct.unpack_from(">I", data, at + 8 + size)
        if zlib.crc32(data[at + 4 : at + 8 + size]) != check:
            raise ValueError(f"{path.name}: the {kind.decode()} chunk is damaged")
        body += data[at + 8 : at + 8 + size] if kind == b"IDAT" else b""
        at += 12 + size
    (width,) = struct.unpack_from(">I", data, 16)
    raw = zlib.decompress(body)
    return width, b"".join(raw[at + 1 : at + 1 + 3 * width] for at in range(0, len(raw), 1 + 3 * width))


def paint_one(job: tuple[Path, Path]) -> Path:
    worker_state().pictures += 1
    return paint(*job)


def shrink_one(picture: Path) -> bytes:
    worker_state().pictures += 1
    return shrink(picture, picture.with_name(f"{picture.stem}.thumb.png"))


# --------------------------------------------------------------------------------- what this program does


async def work(pool: FunctionPool, registry: ProcessRegistry, sources: list[Path], folder: Path) -> list[bytes]:
    """Everything, in two passes. The order of the first does not matter, that of the second is the order on the sheet."""
    jobs = [(source, folder / f"{number:04}-{source.stem}.png") for number, source in enumerate(sources)]
    done = 0
    async for _ in pool.map(paint_one, jobs, ordered=False, retries=2):
        done += 1
        if done == len(jobs) // 2:
            await asyncio.sleep(0.005)  # in the middle of something
            pid = registry.find(owner=pool.name, name="worker")[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            print(f"  {done} painted; worker {pid} was killed")

    never = folder / "never-ends.py"
    os.mkfifo(never)
    hung = pool.submit(paint, never, folder / "never.png", timeout=1.0, priority=Priority.HIGH)
    thumbnails = [thumbnail async for thumbnail in pool.map(shrink_one, [picture for _, picture in jobs], retries=2)]
    try:
        await hung
    except CallTimeout as error:
        print(f"  {error}")
    return thumbnails


def problems(sources: list[Path], folder: Path, thumbnails: list[bytes], figures: PoolStatistics) -> list[str]:
    """Asks the files. A picture has as many pixels that are not black as the text has characters that are not blank."""
    found = [] if len(thumbnails) == len(sources) else [f"{len(thumbnails)} thumbnails of {len(sources)} files"]
    for number, (source, thumbnail) in enumerate(zip(sources, thumbnails, strict=False)):
        picture = folder / f"{number:04}-{source.stem}.png"
        _, pixels = read_png(picture)
        text = source.read_text(encoding="utf-8", errors="replace")
        wanted = sum(len("".join(line[:COLUMNS].split())) for line in text.split("\n"))
        if len(pixels) // 3 - pixels[::3].count(0) != wanted:
            found.append(f"{picture.name}: does not show {wanted} characters")
        if read_png(picture.with_name(f"{picture.stem}.thumb.png")) != (SIZE, thumbnail):
            found.append(f"{picture.name}: its thumbnail is not what the worker said")
        if number % 20 == 0 and shrink(picture, folder / "check.png") != thumbnail:  # once more, here
            found.append(f"{picture.name}: its thumbnail is wrong")
    if (folder / "never.png").exists() or figures.cancelled != 1:
        found.append("the call that never ends should have run out of time")
    if figures.errors or figures.failed < 2 or figures.ok != 2 * len(sources) + 1:
        found.append(f"not every call was answered: {figures}")
    return found


async def main() -> int:
    parser = argparse.ArgumentParser(description="Paint the modules of a library, and make a contact sheet of them.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sysconfig.get_paths()["stdlib"]))
    parser.add_argument("--quick", action="store_true", default=os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1")
    parser.add_argument("--out", type=Path, help="where the contact sheet goes; default: a new temporary folder")
    options = parser.parse_args()
    skipped = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib"}
    every = (path for path in sorted(options.folder.rglob("*.py")) if not skipped.intersection(path.parts))
    sources = [path for path in every if path.is_file() and 1000 < path.stat().st_size < 200_000]
    sources = sources[: 80 if options.quick else 640]
    if len(sources) < 40:
        parser.error(f"{options.folder} has {len(sources)} Python files of some size; forty are needed")

    out = options.out or Path(tempfile.mkdtemp(prefix="procession-thumbnails-"))
    out.mkdir(parents=True, exist_ok=True)
    said: list[WorkerOutput] = []
    config = PoolConfig(
        min_size=2,
        max_size=max(2, suggest_size("cpu")),
        preload=["__main__"],  # this file: imported once, then every worker has it
        worker_state=Studio,
        max_memory_mb=256,
        on_output=said.append,
    )
    await run(Command("true"))  # what the library keeps for as long as this program runs is there now
    audit = LeakAudit.start()
    registry = ProcessRegistry()
    with tempfile.TemporaryDirectory(prefix="thumbnails-") as name:
        folder = Path(name)
        async with registry, FunctionPool(config, name="thumbnails", registry=registry) as pool:
            began = asyncio.get_running_loop().time()
            print(f"{len(sources)} files, {config.max_size} workers")
            thumbnails = await work(pool, registry, sources, folder)
            across = math.ceil(math.sqrt(len(thumbnails)))
            write_png(out / "contact_sheet.png", across * SIZE, await pool.run(arrange, thumbnails, across))
            seconds = asyncio.get_running_loop().time() - began
            figures = pool.statistics()
        found = problems(sources, folder, thumbnails, figures)
    found += [str(leak) for leak in audit.finish()]
    spawned, exited = len(registry.history(ProcessSpawned)), len(registry.history(ProcessExited))
    if spawned != exited or len(registry):
        found.append(f"{spawned} processes spawned, {exited} exited, {len(registry)} alive")

    print(f"\n{figures.ok} calls in {seconds:.1f} s, {figures.ok / seconds:.0f} a second")
    print(f"  lost       {figures.lost} with its worker, {figures.retried} done again")
    print(f"  workers    {figures.created} made, {figures.failed} of them ended before their time")
    print(f"  answered   p50 {figures.p50 * 1000:.0f} ms, p99 {figures.p99 * 1000:.0f} ms after they were asked")
    for line in said:
        print(f"  {line.pid:<10} {line.text}")
    print(f"\nthe contact sheet: {out / 'contact_sheet.png'}")
    print("every file has its thumbnail, nothing was left behind" if not found else "FAILED:\n  " + "\n  ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
