"""Systems that offer less: no lists of children, no /proc, no pidfds, no word of sockets that end."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from procession import Command, ProcessRef, ProcessRegistry, spawn
from procession.errors import AlertNotFound, MetricsUnavailable, MonitorError, NotFound, ProcessUnknown
from procession.monitor import MonitorConfig, ResourceMonitor, Sample, Trend
from procession.monitor import _net as net
from procession.monitor import _pinned as pinned
from procession.monitor._collect import collect
from procession.monitor._reader import Gone, PsutilReader, Setting, open_reader
from procession.monitor._tree import Family, TreeReader
from tests.monitor.support import program, until

pytestmark = pytest.mark.row("MO1")

NO_PROC = SimpleNamespace(has_proc=lambda: False)
FAST = MonitorConfig(interval=0.05, network=False)


@pytest.mark.parametrize("proc", [True, False])
async def test_children_are_found_without_the_lists_of_the_kernel(monkeypatch: pytest.MonkeyPatch, proc: bool) -> None:
    async with spawn(program("children", 2, 1)) as process:
        assert await anext(process.lines()) == "ready"
        family = Family()
        with_lists = sorted(family.children(process.pid))
        assert family.children(2**30) == []
        family._has_lists = False
        if not proc:
            monkeypatch.setattr("procession.monitor._tree._proc", NO_PROC)
        assert sorted(family.children(process.pid)) == with_lists
        assert len(with_lists) == 2
        assert family.children(2**30) == []
        family.new_round()
        tree = TreeReader(open_reader(process.pid, 0, Setting()), Setting(), family)
        assert tree.read().processes == 3
        assert tree.started == process.ref.started
        assert sorted(tree.pids) == sorted([process.pid, *with_lists])
        tree.close()


async def test_where_there_is_no_proc_a_snapshot_has_what_psutil_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procession.monitor._collect._proc", NO_PROC)
    async with spawn(program("threads", 2)) as process:
        assert await anext(process.lines()) == "ready"
        snapshot = collect(process.pid)
        assert len(snapshot.threads) == 3
        assert snapshot.rss_mb is not None
        assert "memory maps: not kept by this system" in snapshot.missing


async def test_without_pidfds_the_start_time_has_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procession.monitor._pinned._pidfd", SimpleNamespace(has_pidfd=lambda: False))
    async with spawn(Command("sleep", "60")) as process:
        pinned.send(process.ref, signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            pinned.send(process.ref, signal.SIGTERM)


async def test_nothing_is_done_to_who_has_the_pid_now() -> None:
    async with spawn(Command("sleep", "60")) as process:
        other = ProcessRef(process.pid, process.ref.started - 1)
        for act in (
            lambda: pinned.send(other, signal.SIGKILL),
            lambda: pinned.renice(other, 5, False),
            lambda: pinned.renice(other, 5, True),
            lambda: pinned.ionice(other, 3, None, False),
            lambda: pinned.members(other),
        ):
            with pytest.raises(ProcessLookupError):
                act()
        assert psutil.Process(process.pid).nice() == 0
        assert process.exit is None


@pytest.mark.one_loop
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")
async def test_what_is_not_ours_cannot_be_changed() -> None:
    async with spawn(program("wait")) as process:
        os.setresuid(65534, 65534, 0)
        try:
            for act in (
                lambda: pinned.renice(process.ref, 5, False),
                lambda: pinned.ionice(process.ref, 3, None, False),
                lambda: pinned.send(process.ref, signal.SIGTERM),
            ):
                with pytest.raises(PermissionError):
                    act()
        finally:
            os.setresuid(0, 0, 0)


@pytest.mark.one_loop
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
async def test_figures_that_may_not_be_read_are_unknown_and_the_others_go_on() -> None:
    async with ResourceMonitor(FAST.replace(max_open_files=0)) as monitor, spawn(program("wait")) as process:
        watch = monitor.watch(process.pid, pss=True)
        os.seteuid(65534)
        try:
            sample = await monitor.sample(watch)
        finally:
            os.seteuid(0)
        assert (sample.disk_read_mb, sample.disk_write_mb, sample.pss_mb) == (None, None, None)
        assert sample.rss_mb is not None
        assert sample.threads == 1


async def test_psutil_names_who_is_gone() -> None:
    async with spawn(Command("sleep", "60")) as process:
        reader = PsutilReader(process.pid, 0, Setting())
        assert (reader.pids, reader.started) == ([process.pid], 0)
        process.kill()
        await process.wait()
        with pytest.raises(Gone):
            reader.read()
        with pytest.raises(Gone):
            PsutilReader(2**30, 0, Setting())
        reader.close()


@pytest.mark.row("MO2")
async def test_where_the_ends_of_sockets_are_not_told_the_last_look_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net.SocketTable, "_listen_to_ends", lambda self: None)
    table = net.SocketTable()
    try:
        table.sockets = {1: net.Tcp(5, 10, 20)}
        table.refresh()
        assert table.closed[1] == net.Tcp(5, 10, 20)
        assert table.limbo == {}
    finally:
        table.close()


@pytest.mark.row("MO2")
async def test_the_end_of_a_socket_is_waited_for_and_then_taken_as_it_was_last_seen() -> None:
    table = net.SocketTable()
    try:
        table.sockets = {2**40: net.Tcp(5, 10, 20)}
        looks = 0
        while 2**40 not in table.closed:
            table.refresh()
            looks += 1
        assert looks == net._LATE + 1
    finally:
        table.close()


async def test_names_that_mean_nobody_or_several() -> None:
    async with ProcessRegistry() as registry:
        config = FAST.replace(watch_registered=False)
        async with ResourceMonitor(config, registry=registry) as monitor:
            async with (
                spawn(Command("sleep", "60"), registry=registry, name="twin") as first,
                spawn(Command("sleep", "60"), registry=registry, name="twin"),
            ):
                with pytest.raises(ProcessUnknown, match="several have that name"):
                    monitor.watch("twin")
                assert monitor.watch(first.pid).id == first.id
                assert monitor.find(psutil.Process(first.pid)).id == first.id
                assert monitor.watch(registry.get(first.id)).record is registry.get(first.id)
                await monitor.sample(first)
            with pytest.raises(ProcessUnknown, match="it is exited"):
                monitor.watch(first.id)
            assert monitor.find(first).id == first.id


async def test_the_same_name_for_another_process_is_another_watch() -> None:
    async with ResourceMonitor(FAST) as monitor:
        async with spawn(program("wait")) as process:
            watch = monitor.watch(process)
            watch.started -= 1  # as if the number had been somebody else's before
            second = monitor.watch(process)
            assert second is not watch
            assert not watch.is_active
            await monitor.sample(second)


async def test_a_waiting_reader_that_is_cancelled_loses_no_alert() -> None:
    from procession.monitor import Rule

    async with ResourceMonitor(FAST) as monitor, spawn(program("wait")) as process:
        monitor.watch(process)
        with monitor.alerts() as stream:
            waiting = [asyncio.create_task(anext(stream)) for _ in range(2)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            monitor.add_rule(Rule("r", lambda s: True))
            assert (await waiting[1]).rule == "r"
            late = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            stream._offer(monitor.active_alerts[0])
            late.cancel()  # it has been woken, and does not take it
            await asyncio.wait([*waiting[:1], late])
            assert (await anext(stream)).rule == "r"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


def test_errors_travel() -> None:
    errors: list[Any] = [
        AlertNotFound("a.1"),
        MetricsUnavailable("web", "it is gone"),
        ProcessUnknown("web"),
    ]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.id) == (type(error), str(error), error.id)
        assert isinstance(error, MonitorError)
    assert str(errors[1]) == "nothing can be measured of web: it is gone"
    assert str(errors[2]) == "nothing can be measured of web: it is not watched"
    assert isinstance(errors[0], NotFound)
    assert isinstance(errors[2], NotFound)


def test_a_sample_travels_without_its_memory() -> None:
    sample = Sample(id="a", pid=1, at=1.0, uptime=1.0, state="running", _look_back=lambda window: Trend("b"))
    again = pickle.loads(pickle.dumps(sample))
    assert again == sample
    assert (sample.trend.id, again.trend.id) == ("b", "a")
    assert "_look_back" not in repr(sample)
    assert sample.figures()["rss_mb"] is None


async def test_until_is_bounded_by_rounds_of_the_monitor_itself() -> None:
    async with ResourceMonitor(FAST) as monitor:
        await until(monitor, lambda: monitor.statistics().rounds >= 2)
