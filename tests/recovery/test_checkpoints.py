"""Checkpoints on a real disk: what was saved is found again, and what is damaged is passed over and named."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import struct
from collections import OrderedDict
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from procession.errors import CheckpointCorrupt, CheckpointError, ConfigError
from procession.recovery import BYTES, CheckpointStore, Codec, Restored, _disk
from procession.testing import fd_limit

pytestmark = pytest.mark.row("RE7")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep=3, wall=Clock())


def files(store: CheckpointStore, name: str = "job-17") -> list[Path]:
    return sorted(Path(store.directory, name).iterdir())


async def test_what_was_saved_is_restored(store: CheckpointStore):
    assert await store.restore("job-17") is None
    assert await store.names() == []
    assert await store.list() == []
    state = {"done": [1, 2.5, "three", None, True], "left": {"ä": "\udc80\n", "": []}}
    saved = await store.save("job-17", state)
    assert (saved.name, saved.generation, saved.saved_at) == ("job-17", 1, 1_000_000.0)
    restored = await store.restore("job-17")
    assert isinstance(restored, Restored)
    assert restored.state == state
    assert (restored.generation, restored.age, restored.is_latest, restored.skipped) == (1, 0.0, True, ())
    assert restored.path == saved.path == str(files(store)[0])
    assert saved.size == files(store)[0].stat().st_size
    assert restored == state  # like the state itself
    assert restored["done"][2] == "three"
    assert "left" in restored
    assert (list(restored), len(restored), bool(restored)) == (["done", "left"], 2, True)
    assert {**restored} == dict(restored.items()) == state
    assert (restored.get("done"), restored.get("x", 3), list(restored.values())) == (
        state["done"],
        3,
        [*state.values()],
    )
    assert restored == await store.restore("job-17")
    with pytest.raises(TypeError, match="cannot be hashed"):
        hash(restored)
    assert await store.names() == ["job-17"]


@pytest.mark.parametrize("state", [None, 0, "", [], {}, False, 1e300, "x" * 100_000, [[]] * 40, {"a": [{"b": [1]}]}])
async def test_any_value_of_json_is_a_state(store: CheckpointStore, state: Any):
    await store.save("x", state)
    restored = await store.restore("x")
    assert restored is not None
    assert restored.state == state
    assert type(restored.state) is type(state)
    assert restored


async def test_so_many_generations_are_kept_and_the_newest_is_found(store: CheckpointStore):
    generations = [(await store.save("job-17", number)).generation for number in range(6)]
    assert generations == [1, 2, 3, 4, 5, 6]
    assert [path.name for path in files(store)] == [f"{number:012}.ckpt" for number in (4, 5, 6)]
    listed = await store.list("job-17")
    assert [(one.name, one.generation, one.problem, one.size) for one in listed] == [
        ("job-17", number, "", 1) for number in (4, 5, 6)
    ]
    assert await store.prune("job-17", keep=2) == 1
    assert await store.prune(keep=1) == 1
    assert await store.prune("nothing") == 0
    assert await store.restore("job-17") == 5
    assert (await store.save("job-17", "next")).generation == 7
    assert await store.delete("job-17")
    assert not await store.delete("job-17")
    assert await store.names() == []


async def test_files_are_private_whatever_the_umask_is(store: CheckpointStore, tmp_path: Path):
    for mask in (0o000, 0o777, 0o022):
        before = os.umask(mask)
        try:
            await CheckpointStore(tmp_path / f"umask-{mask}").save("x", 1)
        finally:
            os.umask(before)
    for folder in (tmp_path / "umask-0", tmp_path / "umask-18"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "x").stat().st_mode) == 0o700
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder / "x").iterdir()] == [0o600]


async def test_age_is_counted_by_the_wall_clock(tmp_path: Path):
    clock = Clock()
    store = CheckpointStore(tmp_path, wall=clock)
    await store.save("x", 1)
    clock.now += 60
    restored = await store.restore("x", max_age="1m")  # type: ignore[arg-type]
    assert restored is not None
    assert restored.age == 60
    clock.now += 1
    assert await store.restore("x", max_age=60) is None
    clock.now -= 86_400  # the clock was set back by a day
    restored = await store.restore("x", max_age=60)
    assert restored is not None
    assert restored.age == 0


# ------------------------------------------------------------------------------------------------ damage


async def test_every_flipped_bit_is_noticed(store: CheckpointStore):
    await store.save("job-17", {"good": 1})
    await store.save("job-17", {"good": 2})
    newer = files(store)[-1]
    whole = newer.read_bytes()
    folder = os.open(newer.parent, os.O_RDONLY)
    try:
        for position in range(len(whole) * 8):
            damaged = bytearray(whole)
            damaged[position // 8] ^= 1 << position % 8
            newer.write_bytes(damaged)
            with pytest.raises(_disk.Bad):
                _disk.read(folder, "job-17", 2, most=1 << 20)
        for length in range(len(whole)):
            newer.write_bytes(whole[:length])
            with pytest.raises(_disk.Bad):
                _disk.read(folder, "job-17", 2, most=1 << 20)
        newer.write_bytes(whole + b"\0")
        with pytest.raises(_disk.Bad, match="bytes long and says"):
            _disk.read(folder, "job-17", 2, most=1 << 20)
    finally:
        os.close(folder)
    restored = await store.restore("job-17")
    assert restored == {"good": 1}
    newer.write_bytes(whole)
    assert await store.restore("job-17") == {"good": 2}


def header(**changes: Any) -> bytes:
    fields = {
        "magic": _disk.MAGIC,
        "version": _disk.VERSION,
        "size": _disk.HEADER.size,
        "generation": 2,
        "length": 1,
        "saved_at": 0.0,
        "codec": b"json",
        "name": b"job-17",
        "digest": b"",
    }
    return _disk.HEADER.pack(*{**fields, **changes}.values()) + b"1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "ends in its header"),
        (b"\x80\x04K\x01.", "ends in its header"),
        (b"x" * 500, "does not begin like"),
        (header(version=2), "format is version 2"),
        (header(size=99), "header is 99 bytes"),
        (header(name=b"job-18"), "another name"),
        (header(generation=7), "generation 7 under the name of 2"),
        (header(length=1 << 40), "bytes long and says"),
        (header(), "digest is wrong"),
    ],
)
async def test_what_is_wrong_with_a_file_is_told(store: CheckpointStore, content: bytes, reason: str):
    await store.save("job-17", "good")
    path = files(store)[0].with_name(_disk.file_name(2))
    path.write_bytes(content)
    path.chmod(0o600)
    restored = await store.restore("job-17")
    assert restored == "good"
    assert restored is not None
    (damaged,) = restored.skipped
    assert (damaged.path, damaged.generation) == (str(path), 2)
    assert reason in damaged.reason
    assert not restored.is_latest
    listed = {one.generation: one.problem for one in await store.list("job-17", verify=True)}
    assert listed == {1: "", 2: damaged.reason}
    assert await store.prune("job-17", keep=1) == 0  # the only good one is never removed
    assert (await store.save("job-17", "newer")).generation == 3
    assert await store.prune("job-17", keep=1) == 2


async def test_when_nothing_is_whole_that_is_an_error_with_all_reasons(store: CheckpointStore):
    for number in range(2):
        await store.save("job-17", number)
    for path in files(store):
        path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointCorrupt) as caught:
        await store.restore("job-17")
    assert caught.value.name == "job-17"
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "000000000002.ckpt",
        "000000000001.ckpt",
    ]
    assert await store.prune("job-17", keep=1) == 1


async def test_what_is_no_file_of_ours_is_not_read(store: CheckpointStore, tmp_path: Path):
    await store.save("job-17", "good")
    good = files(store)[0]
    secret = tmp_path / "secret"
    secret.write_bytes(good.read_bytes())
    newest = good.with_name(_disk.file_name(2))

    async def passed_over() -> str:
        restored = await store.restore("job-17")
        assert restored is not None
        assert restored == "good"
        newest.unlink()
        return restored.skipped[0].reason

    newest.symlink_to(secret)
    assert await passed_over() == "it is a symbolic link"
    os.mkfifo(newest, 0o600)
    assert await passed_over() == "it is no regular file"
    os.link(secret, newest)
    assert await passed_over() == "it has another name too"
    shutil.copy(secret, newest)
    newest.chmod(0o622)
    assert await passed_over() == "others may write to it"
    if os.geteuid() == 0:
        shutil.copy(secret, newest)
        newest.chmod(0o600)
        os.chown(newest, 12345, -1)
        assert await passed_over() == "it belongs to somebody else"
    (good.parent / "notes.txt").write_text("not a checkpoint")
    (good.parent / "7.ckpt").write_text("nor this")
    assert [one.generation for one in await store.list()] == [1]
    assert not await store.delete("other")
    assert await store.delete("job-17")
    assert sorted(path.name for path in good.parent.iterdir()) == ["7.ckpt", "notes.txt"]


async def test_folders_that_others_control_are_refused(tmp_path: Path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    link = tmp_path / "link"
    link.symlink_to(real)
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    file = tmp_path / "file"
    file.write_text("")
    for place, reason in (
        (link, "Not a directory"),
        (open_to_all, "others may write into it"),
        (file, "Not a directory"),
    ):
        store = CheckpointStore(place)
        for call in (
            store.save("x", 1),
            store.restore("x"),
            store.list(),
            store.names(),
            store.prune(),
            store.delete("x"),
        ):
            with pytest.raises(CheckpointError) as caught:
                await call
            assert (caught.value.phase, caught.value.reason) == ("directory", reason)
            assert isinstance(caught.value, OSError)
    assert list(real.iterdir()) == list(open_to_all.iterdir()) == []
    store = CheckpointStore(real)
    (real / "x").symlink_to(tmp_path)
    for again in (store.save("x", 1), store.restore("x"), store.list("x"), store.prune("x"), store.delete("x")):
        with pytest.raises(CheckpointError):
            await again
    (real / "notes.txt").write_text("no folder")
    (real / "lost+found").mkdir()
    assert await store.names() == []
    assert await store.list() == []
    assert await store.prune() == 0
    if os.geteuid() == 0:
        os.chown(real, 12345, -1)
        with pytest.raises(CheckpointError, match="somebody else"):
            await store.save("y", 1)


# -------------------------------------------------------------------------------------------- faults of the disk


class Faulty:
    """Stands in for ``os`` in the module that writes: one call of one kind fails."""

    def __init__(self, name: str, number: int, times: int = 1) -> None:
        self.name = name
        self.number = number
        self.times = times

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name != self.name or not self.times:
            return real

        def fail(*args: Any, **kwargs: Any) -> Any:
            self.times -= 1
            raise OSError(self.number, os.strerror(self.number))

        return fail


@pytest.mark.parametrize(
    ("call", "number", "phase"),
    [
        ("write", errno.ENOSPC, "write"),
        ("write", errno.EIO, "write"),
        ("fsync", errno.EIO, "sync"),
        ("rename", errno.EROFS, "rename"),
        ("fchmod", errno.EPERM, "write"),
        ("listdir", errno.EIO, "list"),
    ],
)
async def test_a_disk_that_fails_leaves_what_was_saved_before(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, call: str, number: int, phase: str
):
    await store.save("job-17", "good")
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "os", Faulty(call, number))
        with pytest.raises(CheckpointError) as caught:
            await store.save("job-17", "lost")
    error = caught.value
    assert (error.name, error.phase, error.errno) == ("job-17", phase, number)
    assert error.reason == os.strerror(number)
    assert [path.name for path in files(store)] == ["000000000001.ckpt"]  # nothing else is left either
    assert await store.restore("job-17") == "good"
    assert (await store.save("job-17", "next")).generation == 2


async def test_what_cannot_be_tidied_up_is_left_for_the_next(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch):
    for number in range(3):
        await store.save("job-17", number)
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "os", Faulty("unlink", errno.EIO))
        await store.save("job-17", 3)
    assert len(files(store)) == 4
    with monkeypatch.context() as patch:
        faulty = Faulty("write", errno.ENOSPC)
        patch.setattr(_disk, "os", faulty)
        patch.setattr(faulty, "unlink", Faulty("unlink", errno.EIO).unlink, raising=False)
        with pytest.raises(CheckpointError):
            await store.save("job-17", 4)
    assert len(files(store)) == 5  # with an unfinished one
    await store.prune("job-17")
    assert [path.name for path in files(store)] == [f"{number:012}.ckpt" for number in (2, 3, 4)]
    await store.save("job-17", 5)
    assert [path.name for path in files(store)] == [f"{number:012}.ckpt" for number in (3, 4, 5)]
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "os", Faulty("unlink", errno.EIO, times=9))
        with pytest.raises(CheckpointError) as caught:
            await store.prune("job-17", keep=1)
        assert caught.value.phase == "prune"
        with pytest.raises(CheckpointError) as caught:
            await store.delete("job-17")
        assert caught.value.phase == "delete"
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "os", Faulty("read", errno.EIO, times=9))
        with pytest.raises(CheckpointCorrupt, match="Input/output error"):
            await store.restore("job-17")
    with monkeypatch.context() as patch:
        patch.setattr(_disk, "os", Faulty("listdir", errno.EIO, times=9))
        for call in (store.list(), store.list("job-17"), store.restore("job-17")):
            with pytest.raises(CheckpointError, match="Input/output error"):
                await call


async def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=256k,mode=700 tmpfs {disk} 2>/dev/null"):
        pytest.skip("a small disk cannot be mounted here")
    try:
        store = CheckpointStore(disk, keep=2, codec="bytes")
        saved: list[bytes] = []

        async def fill() -> None:
            while True:
                data = os.urandom(100_000)
                await store.save("x", data)
                saved.append(data)

        with pytest.raises(CheckpointError) as caught:
            await fill()
        assert caught.value.errno == errno.ENOSPC
        assert await store.restore("x") == saved[-1]
        assert [path.suffix for path in (disk / "x").iterdir()] == [".ckpt"] * 2
    finally:
        os.system(f"umount {disk}")


async def test_too_few_descriptors(store: CheckpointStore):
    await store.save("job-17", "good")
    for free in range(2):
        with fd_limit(free):
            with pytest.raises(CheckpointError) as caught:
                await store.save("job-17", "lost")
            assert caught.value.errno == errno.EMFILE
    assert await store.restore("job-17") == "good"


# ------------------------------------------------------------------------------------------------ at the same time


async def test_saves_of_one_name_are_done_in_the_order_they_were_called(store: CheckpointStore):
    other = CheckpointStore(store.directory, keep=3)
    group = [store.save("job-17", {"number": number}) for number in range(20)]
    group += [store.save("other", number) for number in range(5)]
    saved = await asyncio.gather(*group, *(other.save("third", number) for number in range(5)))
    assert [one.generation for one in saved] == [*range(1, 21), *range(1, 6), *range(1, 6)]
    assert await store.restore("job-17") == {"number": 19}
    assert store._line == {}


async def test_several_stores_of_one_folder_lose_nothing(store: CheckpointStore):
    stores = [CheckpointStore(store.directory, keep=100) for _ in range(4)]
    saved = await asyncio.gather(*(one.save("job-17", number) for number in range(5) for one in stores))
    assert sorted(one.generation for one in saved) == list(range(1, 21))
    last = max(saved, key=lambda one: one.generation)
    restored = await store.restore("job-17")
    assert restored is not None
    assert restored.generation == last.generation == 20


async def test_the_state_is_that_of_the_moment_of_the_call(store: CheckpointStore):
    state: dict[str, Any] = {"numbers": list(range(50_000)), "mark": "before"}
    saving = asyncio.gather(store.save("job-17", state))
    await asyncio.sleep(0)
    state["numbers"].clear()
    state["mark"] = "after"
    await saving
    restored = await store.restore("job-17")
    assert restored is not None
    assert (len(restored["numbers"]), restored["mark"]) == (50_000, "before")


async def test_a_cancelled_save_is_done_or_was_never_begun(store: CheckpointStore):
    loop = asyncio.get_running_loop()
    first = loop.create_task(store.save("job-17", "first"))
    second = loop.create_task(store.save("job-17", "second"))
    third = loop.create_task(store.save("job-17", "third"))
    await asyncio.sleep(0)
    first.cancel()
    second.cancel()
    await asyncio.wait([first, second, third])
    assert first.cancelled()
    assert second.cancelled()
    assert await store.restore("job-17") == "third"
    assert [one.generation for one in await store.list()] == [1, 2]
    assert store._line == {}


async def test_a_name_may_be_deleted_while_others_save_it(store: CheckpointStore):
    other = CheckpointStore(store.directory)
    for _ in range(10):
        await asyncio.gather(*(store.save("job-17", number) for number in range(3)), other.delete("job-17"))
        await store.save("job-17", "last")
        assert await other.restore("job-17") == "last"


async def test_files_may_vanish_while_they_are_read(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch):
    for number in range(3):
        await store.save("job-17", number)
    real, calls = _disk.read, 0

    def vanishing(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            files(store)[-1].unlink()
        return real(*args, **kwargs)

    monkeypatch.setattr(_disk, "read", vanishing)
    assert await store.restore("job-17") == 1

    def gone(*args: Any, **kwargs: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(_disk, "read", gone)
    with pytest.raises(CheckpointCorrupt, match="vanish"):
        await store.restore("job-17")
    assert await store.list() == []


# --------------------------------------------------------------------------------------------------- codecs, bad input


async def test_other_codecs(tmp_path: Path):
    data = CheckpointStore(tmp_path, codec="bytes")
    await data.save("x", b"\0\xff")
    assert await data.restore("x") == b"\0\xff"
    await data.save("x", bytearray(b"more"))
    assert await data.restore("x") == b"more"
    numbers = Codec(
        "doubles", lambda state: struct.pack(f"{len(state)}d", *state), lambda raw: [*memoryview(raw).cast("d")]
    )
    own = CheckpointStore(tmp_path, codec=numbers)
    await own.save("y", [1.5, 2.5])
    assert await own.restore("y") == [1.5, 2.5]
    with pytest.raises(CheckpointCorrupt, match="made by the codec 'bytes'"):
        await own.restore("x")
    broken = CheckpointStore(tmp_path, codec=Codec("doubles", numbers.encode, lambda raw: 1 / 0))
    with pytest.raises(CheckpointCorrupt, match="ZeroDivisionError"):
        await broken.restore("y")
    for store, state in ((data, "text"), (own, ["text"]), (CheckpointStore(tmp_path, codec=Codec("t", str, bytes)), 1)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError) as caught:
            await store.save("z", state)
        assert caught.value.field == "state"
    assert BYTES.name == "bytes"
    assert await data.names() == ["x", "y"]


class Color(IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: tuple[int, ...]


Circular: list[Any] = []
Circular.append(Circular)
Deep: list[Any] = []
for _ in range(100_000):
    Deep = [Deep]


@pytest.mark.parametrize(
    "state",
    [
        {1: "a"},
        {"a": [{None: 1}]},
        {"a": {number: number for number in range(100)}},
        {1: list(range(100))},
        [float("nan")],
        float("inf"),
        {1, 2},
        b"bytes",
        {"a": object()},
        {"a": [object()] * 100},
        OrderedDict({1: 2}),
        Circular,
        Deep,
        {"deep": Deep},
        1j,
    ],
    ids=range(15),
)
async def test_a_state_that_would_not_come_back_as_it_is_is_refused(store: CheckpointStore, state: Any):
    with pytest.raises(ConfigError) as caught:
        await store.save("x", state)
    assert (caught.value.field, caught.value.value) in [("state", type(state).__name__), ("state", "tuple")]
    assert not Path(store.directory).exists()


async def test_tuples_and_relatives_of_plain_types_come_back_plain(store: CheckpointStore):
    state = OrderedDict(color=Color.RED, point=Point(1, (2, 3)), plain={"t": (1, [2])})
    await store.save("x", state)
    assert await store.restore("x") == {"color": 1, "point": [1, [2, 3]], "plain": {"t": [1, [2]]}}
    await store.save("x", {"many": [(number, str(number)) for number in range(5_000)]})
    restored = await store.restore("x")
    assert restored is not None
    assert restored["many"][4_999] == [4_999, "4999"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a\0b", "a\nb", "x" * 65, 3, None, "-x"])
async def test_names_that_could_be_paths_are_refused(store: CheckpointStore, name: Any):
    calls: list[Any] = [store.save(name, 1), store.restore(name), store.delete(name)]
    if name is not None:
        calls += [store.list(name), store.prune(name)]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            await call
        assert caught.value.field == "name"
    assert not Path(store.directory).exists()


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("directory", {"directory": ""}),
        ("directory", {"directory": 3}),
        ("directory", {"directory": "a\0b"}),
        ("keep", {"keep": 0}),
        ("keep", {"keep": True}),
        ("max_mb", {"max_mb": 0}),
        ("durable", {"durable": 1}),
        ("codec", {"codec": "pickle"}),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, field: str, options: dict[str, Any]):
    with pytest.raises(ConfigError) as caught:
        CheckpointStore(**{"directory": tmp_path, **options})
    assert caught.value.field == field


def test_what_unpickles_is_refused():
    import marshal
    import pickle

    for name, encode, decode in (
        ("p", pickle.dumps, pickle.loads),
        ("m", marshal.dumps, marshal.loads),
        ("x" * 17, bytes, bytes),
        ("a/b", bytes, bytes),
        ("c", bytes, 3),
    ):
        with pytest.raises(ConfigError) as caught:
            Codec(name, encode, decode)  # type: ignore[arg-type]
        assert caught.value.field == "codec"


async def test_bounds_of_single_calls(store: CheckpointStore):
    await store.save("x", 1)
    for call in (store.restore("x", max_age=-1), store.prune("x", keep=0), store.prune("x", keep=True)):
        with pytest.raises(ConfigError):
            await call
    small = CheckpointStore(store.directory, max_mb=1)
    with pytest.raises(ConfigError, match="more than 1 MiB"):
        await small.save("x", "y" * (1 << 20))
    await CheckpointStore(store.directory, max_mb=2).save("x", "y" * (1 << 20))
    with pytest.raises(ConfigError):
        await small.save("y", "y" * (1 << 21))
    restored = await small.restore("x")
    assert restored is not None
    assert restored.skipped[0].reason == "it is larger than 1,048,576 bytes"
    assert repr(store) == f"<CheckpointStore {store.directory}, keeps 3>"
    assert (await CheckpointStore(store.directory, durable=False).save("x", 2)).generation == 3
