"""Figures of real processes made for the purpose, against /proc, psutil and what the processes say they do."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from procession import Command, ProcessRegistry, spawn
from procession.errors import ProcessUnknown
from procession.events import ProcessVanished
from procession.monitor import MonitorConfig, ResourceMonitor, Sample
from procession.monitor._reader import Gone, ProcReader, PsutilReader, Setting
from tests.monitor.support import MB, program, until

pytestmark = pytest.mark.row("MO1")

FAST = MonitorConfig(interval=0.05, network=False)


def close(a: float | None, b: float | None, share: float = 0.02, least: float = 0.3) -> bool:
    assert a is not None
    assert b is not None
    return abs(a - b) <= max(least, share * abs(b))


def matches_psutil(sample: Sample) -> bool:
    """Within 2 %, and 0.3 MB for memory; counts of a process at rest exactly."""
    process = psutil.Process(sample.pid)
    with process.oneshot():
        times, memory, spent = process.cpu_times(), process.memory_info(), process.num_ctx_switches()
        io, fds, threads = process.io_counters(), process.num_fds(), process.num_threads()
    assert close(sample.cpu_seconds, times.user + times.system, least=0.03)
    assert close(sample.rss_mb, memory.rss / MB)
    assert close(sample.vms_mb, memory.vms / MB)
    assert close(sample.disk_read_mb, io.read_bytes / MB)
    assert close(sample.disk_write_mb, io.write_bytes / MB)
    assert (sample.file_descriptors, sample.threads) == (fds, threads)
    assert close(sample.context_switches, spent.voluntary + spent.involuntary, least=3)
    return True


def size(monitor: ResourceMonitor, process: Any) -> int:
    """Of how many processes its last sample was."""
    sample = monitor.latest(process)
    return 0 if sample is None else sample.processes


async def at_rest(monitor: ResourceMonitor, process: Any) -> Sample:
    """A sample of a process that has said it is ready, once it really waits."""
    while True:
        sample = await monitor.sample(process)
        if sample.state == "sleeping":
            return sample


@pytest.mark.parametrize("what", [("wait",), ("grow", 40, 0), ("files", 150), ("threads", 20)])
async def test_figures_agree_with_psutil(what: tuple[object, ...]) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program(*what), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            sample = await at_rest(monitor, process)
            assert matches_psutil(sample)
            assert sample.state == psutil.Process(process.pid).status()
            assert close(sample.uptime, process.uptime, least=2.0)
            assert sample.pss_mb is None
            match what:
                case ("grow", size, _):
                    assert sample.rss_mb is not None
                    assert sample.rss_mb > int(str(size))
                case ("files", count):
                    assert sample.file_descriptors is not None
                    assert sample.file_descriptors >= int(str(count))
                case ("threads", count):
                    assert sample.threads == int(str(count)) + 1


async def test_a_busy_process_uses_about_a_core_from_the_second_sample_on() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("burn"), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            first = await monitor.sample(process)
            await until(monitor, lambda: monitor.trend(process).seconds > 1.0)
            trend, last = monitor.trend(process), await monitor.sample(process)
            samples = monitor.samples(process)
            times = psutil.Process(process.pid).cpu_times()
        assert samples[0].cpu_percent is None
        assert all(sample.cpu_percent is not None and sample.cpu_percent >= 0 for sample in samples[1:])
        # Over the real time that has passed, whatever the machine gave it meanwhile:
        assert last.cpu_seconds is not None
        assert first.cpu_seconds is not None
        spent = (last.cpu_seconds - first.cpu_seconds) / (last.at - first.at) * 100
        assert spent == pytest.approx(trend.cpu.mean, rel=0.5)
        assert 5 < spent <= 115
        assert close(last.cpu_seconds, times.user + times.system, least=0.2)


async def test_the_processor_is_right_after_a_suspension() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("burn"), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            await until(monitor, lambda: any(one.cpu_percent for one in monitor.samples(process)))
            process.suspend()
            await monitor.sample(process)
            await asyncio.sleep(0.3)
            still = await monitor.sample(process)
            assert still.state == "stopped"
            assert still.cpu_percent is not None
            assert still.cpu_percent < 50  # the tick it was stopped in may count to this sample
            process.resume()
            await asyncio.sleep(0.3)
            on = await monitor.sample(process)
            assert on.cpu_percent is not None
            assert 0 <= on.cpu_percent <= 130


async def test_bytes_written_to_disk_are_counted(tmp_path: Path) -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("write", tmp_path / "file", 8), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            sample = await monitor.sample(process)
            io = psutil.Process(process.pid).io_counters()
    assert sample.disk_write_mb == pytest.approx(io.write_bytes / MB)
    assert sample.disk_write_mb == pytest.approx(8.0, abs=0.2)


async def test_context_switches_are_counted() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("switch", 200), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            before = await monitor.sample(process)
            assert process.stdin is not None
            await process.stdin.write(b"go\n")
            assert await anext(process.lines()) == "done"
            after = await monitor.sample(process)
    assert before.context_switches is not None
    assert after.context_switches is not None
    assert 200 <= after.context_switches - before.context_switches <= 1000


async def test_shares_of_memory_on_request() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("grow", 30, 0), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            assert (await monitor.sample(process)).pss_mb is None
            monitor.watch(process, pss=True)
            sample = await monitor.sample(process)
            full = psutil.Process(process.pid).memory_full_info()
    assert sample.pss_mb == pytest.approx(full.pss / MB, abs=0.5)
    assert sample.uss_mb == pytest.approx(full.uss / MB, abs=0.5)
    assert sample.rss_mb is not None
    assert sample.uss_mb is not None
    assert 30 < sample.uss_mb <= sample.rss_mb


async def test_a_tree_is_read_as_one() -> None:
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("children", 3, 10), registry=registry) as process:
            assert await anext(process.lines()) == "ready"
            alone = await monitor.sample(process)
            monitor.watch(process, tree=True, pss=True)
            await monitor.sample(process)
            whole = await monitor.sample(process)
            children = psutil.Process(process.pid).children(recursive=True)
            everybody = [psutil.Process(process.pid), *children]
            assert (alone.processes, whole.processes) == (1, 4)
            assert whole.rss_mb == pytest.approx(sum(one.memory_info().rss for one in everybody) / MB, rel=0.05)
            assert whole.pss_mb == pytest.approx(sum(one.memory_full_info().pss for one in everybody) / MB, rel=0.05)
            assert whole.threads == sum(one.num_threads() for one in everybody)
            assert whole.file_descriptors == sum(one.num_fds() for one in everybody)
            assert whole.rss_mb is not None
            assert whole.rss_mb > 30
            children[0].kill()
            await until(monitor, lambda: size(monitor, process) == 3)
            fewer = await monitor.sample(process)
            assert fewer.cpu_seconds is not None
            assert whole.cpu_seconds is not None
            assert fewer.cpu_seconds >= whole.cpu_seconds  # counters do not run backwards
            assert fewer.cpu_percent is not None


async def test_an_orphan_stays_in_the_tree_it_was_seen_in() -> None:
    script = "sh -c 'sleep 60 & echo $!; wait' & wait $! 2>/dev/null; echo orphaned; exec cat"
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(Command("sh", "-c", script, stdin="pipe"), registry=registry) as process:
            lines = process.lines("stdout")
            orphan = int((await anext(lines)).strip())
            monitor.watch(process, tree=True)
            await until(monitor, lambda: size(monitor, process) == 3)
            parent = psutil.Process(orphan).ppid()
            os.kill(parent, signal.SIGKILL)
            assert await anext(lines) == "orphaned"
            assert psutil.Process(orphan).ppid() != parent
            sample = await monitor.sample(process)
            assert sample.processes == 2
            assert orphan not in {node.pid for node in (await monitor.tree(process)).walk()}


async def test_a_process_that_nobody_here_owns_can_be_watched_and_vanishes_as_an_event() -> None:
    async with ProcessRegistry() as registry, spawn(program("wait")) as process:  # not in the registry
        assert await anext(process.lines()) == "ready"
        async with ResourceMonitor(FAST, registry=registry) as monitor:
            watch = monitor.watch(process.pid, name="stranger")
            assert watch.id == f"pid-{process.pid}"
            assert monitor.watch(psutil.Process(process.pid)) is watch
            sample = await at_rest(monitor, watch)
            assert matches_psutil(sample)
            async with registry.subscribe(ProcessVanished) as events:
                process.kill()
                event = await anext(events)
            assert (event.id, getattr(event, "pid", None)) == (watch.id, process.pid)
            assert not watch.is_active
            assert monitor.latest(watch.id) == watch.latest
            (alert,) = monitor.active_alerts
            assert (alert.type, alert.severity, alert.target) == ("process_down", "critical", "stranger")
            with pytest.raises(ProcessUnknown):
                monitor.watch(process.pid)
            with pytest.raises(ProcessUnknown):
                await monitor.sample(watch.id)


async def test_a_process_object_without_a_registry_can_be_watched() -> None:
    async with ResourceMonitor(FAST) as monitor, spawn(program("wait"), name="alone") as process:
        assert await anext(process.lines()) == "ready"
        watch = monitor.watch(process)
        assert (watch.id, watch.name, watch.process) == (process.id, "alone", process)
        assert (await monitor.sample(process)).pid == process.pid
        assert monitor.watch(process) is watch
        assert process.stdin is not None
        process.stdin.close()
        await watch.ended
        assert monitor.active_alerts == ()  # it exited with 0
    async with ResourceMonitor(FAST) as monitor:
        with pytest.raises(ProcessUnknown):
            monitor.watch(process)


async def test_this_program_itself_can_be_watched() -> None:
    async with ResourceMonitor(FAST) as monitor:
        watch = monitor.watch(os.getpid())
        sample = await monitor.sample(watch)
        assert sample.rss_mb == pytest.approx(psutil.Process().memory_info().rss / MB, rel=0.1)
        assert (await monitor.tree(os.getpid())).pid == os.getpid()


def test_a_reused_pid_is_another_process() -> None:
    mine = ProcReader(os.getpid(), 0, Setting(files_left=0))
    with pytest.raises(Gone, match="another process"):
        ProcReader(os.getpid(), mine.started - 1, Setting(files_left=0))
    with pytest.raises(Gone, match="another process"):
        ProcReader(os.getpid(), mine.started - 1, Setting(files_left=100))
    mine._started = b"1"
    with pytest.raises(Gone, match="another process"):
        mine.read()


@pytest.mark.parametrize("files", [0, 100])
def test_both_ways_of_reading_agree(files: int) -> None:
    setting = Setting(files_left=files)
    reader = ProcReader(os.getpid(), 0, setting)
    ours, theirs = reader.read(), PsutilReader(os.getpid(), 0, setting).read()
    assert setting.files_left == (95 if files else 0)
    reader.close()
    reader.close()
    assert setting.files_left == files
    for name in ("rss_mb", "vms_mb", "cpu_seconds", "disk_read_mb", "disk_write_mb"):
        assert close(getattr(ours, name), getattr(theirs, name), 0.05)
    assert (ours.threads, ours.letter) == (theirs.threads, theirs.letter)
    assert ours.file_descriptors in (
        theirs.file_descriptors,
        (theirs.file_descriptors or 0) + 1,
        (theirs.file_descriptors or 0) - 1,
    )
    assert close(ours.uptime, theirs.uptime, least=2.0)


def test_kernels_that_keep_less(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(files_left=0, counts_fds=False)
    reader = ProcReader(os.getpid(), 0, setting)
    whole = reader.read()
    monkeypatch.setattr("procession.monitor._reader.FILES", ("stat", "statm", "no-io", "no-schedstat", "fd"))
    less = reader.read()
    assert (less.disk_read_mb, less.disk_write_mb) == (None, None)
    assert less.context_switches == pytest.approx(whole.context_switches, abs=20)
    assert less.file_descriptors == pytest.approx(len(list(Path("/proc/self/fd").iterdir())), abs=2)


async def test_without_proc_psutil_is_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("reader", "roster", "tree"):
        monkeypatch.setattr(f"procession.monitor._{place}._proc", SimpleNamespace(has_proc=lambda: False))
    async with spawn(program("files", 50)) as process:
        assert await anext(process.lines()) == "ready"
        async with ResourceMonitor(FAST) as monitor:
            watch = monitor.watch(process.pid, pss=True)
            sample = await at_rest(monitor, watch)
            assert matches_psutil(sample)
            assert sample.pss_mb is not None
            assert sample.state == "sleeping"
            process.kill()
            await watch.ended
            with pytest.raises(ProcessUnknown):
                monitor.watch(process.pid)


async def test_python_programs_are_not_the_only_ones() -> None:
    command = Command("sleep", "60")
    async with ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(command, registry=registry) as process:
            assert matches_psutil(await at_rest(monitor, process))
    assert sys.platform == "linux"
