"""RG7: journal, stories, and the file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from procession._types import Exit
from procession.command import Command
from procession.errors import ConfigError
from procession.events import Event, FailureReported, MetricsSampled, ProcessExited, ProcessSpawned
from procession.registry import JsonLines, ProcessRegistry
from procession.registry import _sink as sink_module


def note(id: str = "x", kind: str = "k", **fields: Any) -> FailureReported:
    return FailureReported(id=id, kind=kind, **fields)


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ------------------------------------------------------------------------------------------- history


def test_the_journal_is_bounded():
    registry = ProcessRegistry(journal_size=3)
    for _ in range(10):
        registry.publish(note())
    assert [event.seq for event in registry.history()] == [8, 9, 10]
    assert registry.statistics().journal == 3
    assert ProcessRegistry(journal_size=0).history() == []


def test_history_is_queried_by_every_filter(registry, start):
    ticks = iter(range(100))
    registry._time = lambda: float(next(ticks))
    registry.publish(note("a", owner="p"))  # at 0
    registry.publish(note("b", owner="p"))
    registry.publish(MetricsSampled(id="a", pid=1))
    registry.publish(note("a", owner="q"))

    def seqs(*types: Any, **filters: Any) -> list[int]:
        return [event.seq for event in registry.history(*types, **filters)]

    assert seqs() == [1, 2, 3, 4]
    assert seqs(FailureReported) == [1, 2, 4]
    assert seqs(FailureReported, MetricsSampled, id="a") == [1, 3, 4]
    assert seqs(owner="p") == [1, 2]
    assert seqs(since=1.0) == [2, 3, 4]
    assert seqs(until=1.0) == [1, 2]
    assert seqs(since=1.0, until=2.0) == [2, 3]
    assert seqs(limit=2) == [3, 4]
    assert seqs(id="a", limit=1) == [4]
    assert seqs(limit=0) == []
    with pytest.raises(ConfigError):
        registry.history(int)
    with pytest.raises(ConfigError):
        registry.history(limit=-1)


def test_a_story_follows_causes_transitively(registry):
    def react(event):
        follow = {"load": ("scale", "pool"), "scale": ("spawn", "worker")}.get(event.kind)
        if follow:
            registry.publish(note(follow[1], follow[0]))

    registry.listen(react)
    registry.publish(note("noise", "noise"))
    registry.publish(note("host", "load"))
    registry.publish(note("noise", "noise"))
    registry.publish(note("worker", "own"))
    assert [(event.id, event.kind) for event in registry.story("worker")] == [
        ("host", "load"), ("pool", "scale"), ("worker", "spawn"), ("worker", "own"),
    ]  # fmt: skip
    assert [event.kind for event in registry.story("host")] == ["load"]
    assert registry.story("nobody") == []


def test_a_story_reaches_as_far_as_the_journal():
    registry = ProcessRegistry(journal_size=2)
    registry.publish(note("cause"))
    registry.publish(note("noise"))
    registry.publish(note("a", cause=1))
    assert [event.id for event in registry.story("a")] == ["a"]
    registry.publish(note("a", cause=99))  # a number nobody has given yet
    assert len(registry.story("a")) == 2
    assert ProcessRegistry().story("a") == []


# -------------------------------------------------------------------------------------------- JSON lines


async def test_every_event_becomes_one_line(tmp_path, handle):
    path = tmp_path / "journal.jsonl"
    registry = ProcessRegistry(journal_file=path)
    early = registry.register(Command("server", "--password", "hunter2"), id="a", owner="pool")
    early.spawned(handle(5), 0.25)  # before it is entered
    async with registry:
        early.exited(Exit(-9, core_dumped=True))
        registry.publish(MetricsSampled(id="a", pid=5, figures={"rss": 1.5, "cpu": None}))
        await asyncio.sleep(0)
        assert len(lines(path)) == 3  # at the end of this turn of the loop
        registry.publish(note())
    first, second, third, fourth = lines(path)
    assert (first["event"], first["seq"], first["pid"], first["containment"]) == ("ProcessSpawned", 1, 5, "group")
    assert "***" in first["command"]
    assert "hunter2" not in path.read_text()
    assert (second["event"], second["exit"]) == ("ProcessExited", {"returncode": -9, "core_dumped": True})
    assert third["figures"] == {"rss": 1.5, "cpu": None}
    assert fourth["id"] == "x"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert registry.statistics().journal_errors == 0


async def test_nothing_can_inject_a_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    odd: Any = {("odd", "key"): {1, 2}, "o": object(), "e": Exit(0)}
    async with ProcessRegistry(journal_file=path) as registry:
        registry.publish(note(error='"}\n{"event": "forged"}\r\x00\x1b\u2028\u2029\x85\udc80'))
        registry.publish(MetricsSampled(id="a\nb", pid=1, figures={"nan": float("nan"), "inf": float("inf")}))
        registry.publish(MetricsSampled(id="a", pid=1, figures=odd))
    assert path.read_bytes().count(b"\n") == 3
    first, second, third = lines(path)
    assert first["error"].startswith('"}\n{"event"')
    assert second["figures"] == {"nan": None, "inf": None}
    assert third["figures"]["e"] == {"returncode": 0, "core_dumped": False}


def test_odd_values_end_somewhere():
    endless: dict = {}
    endless["self"] = endless
    assert "..." in sink_module.line(MetricsSampled(id="a", pid=1, figures=endless))
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert "..." in sink_module.line(MetricsSampled(id="a", pid=1, figures=deep))
    while deep:  # taken apart from outside, as freeing it recurses
        deep = deep[0]


async def test_a_burst_is_written_in_bounded_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(sink_module, "_BUFFER", 600)
    path = tmp_path / "journal.jsonl"
    async with ProcessRegistry(journal_file=path) as registry:
        for _ in range(500):
            registry.publish(note())
        await asyncio.sleep(0)
        assert len(lines(path)) == 256
        await asyncio.sleep(0)
        assert len(lines(path)) == 500
        for _ in range(2000):  # never giving the loop a turn
            registry.publish(note())
        assert registry._file is not None
        assert len(registry._file._waiting) < 600
    assert [line["seq"] for line in lines(path)] == list(range(1, 2501))


def test_without_a_loop_it_writes_at_once(tmp_path):
    sink = JsonLines.open(tmp_path / "j")
    registry = ProcessRegistry()
    registry.add_sink(sink)
    registry.publish(note())
    assert len(lines(tmp_path / "j")) == 1
    sink.close()
    sink.close()
    registry.publish(note())
    assert registry.statistics().failures == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_counted_and_logged_once_and_harms_nobody(heard, caplog):
    async with ProcessRegistry(journal_file="/dev/full") as registry:
        for _ in range(3):
            registry.publish(note())
            await asyncio.sleep(0)
        assert registry.statistics().journal_errors == 3
        assert registry.statistics().failures == 0
        assert registry._file is not None
        assert registry._file.lost == 3
    assert len([record for record in caplog.records if record.name == "procession.registry"]) == 1
    assert "No space left" in caplog.text


async def test_after_a_torn_line_the_next_one_is_whole(tmp_path, monkeypatch, caplog):
    path = tmp_path / "journal.jsonl"
    real = os.write
    async with ProcessRegistry(journal_file=path) as registry:
        registry.publish(note("one"))
        await asyncio.sleep(0)
        monkeypatch.setattr(os, "write", _ten_then_full(real))
        registry.publish(note("two"))
        await asyncio.sleep(0)
        monkeypatch.setattr(os, "write", real)
        registry.publish(note("three"))
        await asyncio.sleep(0)
    first, torn, last = path.read_text().splitlines()
    assert json.loads(first)["id"] == "one"
    assert len(torn) == 10
    assert json.loads(last)["id"] == "three"
    assert "1 events were lost" in caplog.text


def _ten_then_full(real: Callable[..., int]) -> Callable[..., int]:
    calls = []

    def write(fd: int, data: Any) -> int:
        calls.append(1)
        if len(calls) == 1:
            return real(fd, data[:10])
        raise OSError(28, "No space left on device")

    return write


async def test_an_old_file_is_continued_and_its_torn_line_ended(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"event": "To')
    path.chmod(0o640)
    for _ in range(2):
        async with ProcessRegistry(journal_file=path) as registry:
            registry.publish(note())
    torn, *whole = path.read_text().splitlines()
    assert torn == '{"event": "To'
    assert [json.loads(line)["seq"] for line in whole] == [1, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_files_that_are_not_ours_alone_are_refused(tmp_path):
    target = tmp_path / "target"
    target.write_text("precious\n")
    link = tmp_path / "link"
    link.symlink_to(target)
    hard = tmp_path / "hard"
    hard.hardlink_to(target)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    for path in (link, hard, fifo, tmp_path, tmp_path / "missing" / "file"):
        registry = ProcessRegistry(journal_file=path)
        with pytest.raises(ConfigError) as caught:
            async with registry:
                pytest.fail("entered")
        assert caught.value.field == "journal_file"
    os.close(reader)
    assert target.read_text() == "precious\n"


async def test_a_file_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "j"
    path.touch()
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(ConfigError, match="another user"):
        JsonLines.open(path)


# --------------------------------------------------------------------------------------------- sinks


async def test_sinks_hear_last_and_are_closed_with_the_registry(registry, heard):
    class Memory:
        def __init__(self) -> None:
            self.events: list[Event] = []
            self.closed = 0

        def write(self, event):
            assert heard[-1] is event
            self.events.append(event)

        def close(self):
            self.closed += 1

    sink = Memory()
    async with registry:
        listener = registry.add_sink(sink)
        registry.publish(note())
        listener.close()
        registry.publish(note())
    assert [event.seq for event in sink.events] == [1]
    await registry.aclose()
    assert sink.closed == 1


async def test_a_sink_that_raises_is_isolated(registry, heard, caplog):
    class Broken:
        def write(self, event):
            raise OSError

        def close(self):
            raise OSError

    async with registry:
        registry.add_sink(Broken())
        for _ in range(20):
            registry.publish(note())
        assert len(heard) == 20
        assert registry.statistics().disabled == 1
    assert registry.statistics().failures == 11
    assert "could not be closed" in caplog.text


def test_statistics_are_derived(registry, start, heard):
    start("a")
    start("b").exited(Exit(0))
    start("c", spawned=False)
    events = registry.subscribe()
    registry.publish(note())
    statistics = registry.statistics()
    assert (statistics.live, statistics.ended, statistics.by_state) == (2, 1, {"running": 1, "starting": 1})
    assert (statistics.published, statistics.journal, statistics.queued) == (4, 4, 1)
    assert (statistics.listeners, statistics.subscriptions) == (2, 1)
    assert [type(event) for event in heard[:3]] == [ProcessSpawned, ProcessSpawned, ProcessExited]
    events.close()
    with pytest.raises(AttributeError):
        statistics.live = 5
