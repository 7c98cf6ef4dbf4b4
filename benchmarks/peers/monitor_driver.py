"""One measurement of the monitor, in a process of its own; the figures go to stdout as one line of JSON.

python -m benchmarks.peers.monitor_driver procession|psutil|nobody round PROCESSES [--loop uvloop] [--files N] [--network] [--rules N]
python -m benchmarks.peers.monitor_driver procession memory|rules|calls
python -m benchmarks.peers.monitor_driver procession|psutil probe

`psutil` is a plain loop over `psutil.Process` with `oneshot()`, for the same figures, on the event loop as many programs have it.
`nobody` watches nothing: how late the timer is without us.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib.metadata import version
from typing import Any

import psutil

from benchmarks.peers._base import Figures
from benchmarks.peers.driver import percentile, rss_bytes

ROUNDS = 30
INTERVAL = 0.1  # seconds between rounds, a tenth of the default
TICK = 0.001
Round = Callable[[], Awaitable[object]]


@contextmanager
def children(count: int) -> Iterator[list[int]]:
    """So many processes that do nothing."""
    made: list[subprocess.Popen[bytes]] = []
    try:
        made.extend(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL) for _ in range(count))
        yield [one.pid for one in made]
    finally:
        for one in made:
            one.kill()
        for one in made:
            one.wait()


async def measured(one_round: Round, now: Round, count: int) -> Figures:
    """Processor time per process and round, and how late the loop was at its worst during each round.

    Args:
        one_round: waits for the next round, which comes when it is time for it.
        now: makes a round at once.
        count: how many processes it reads.
    """
    for _ in range(3):
        await now()
    gc.collect()
    costs = []
    for _ in range(ROUNDS):
        began = time.process_time()
        await now()
        costs.append((time.process_time() - began) / count * 1e6)
    cost = statistics.median(costs)
    ticker = Ticker()
    async with asyncio.TaskGroup() as group:
        ticking = group.create_task(ticker.run())
        await one_round()
        ticker.take()
        ticker.lags.clear()
        worst = []
        for _ in range(ROUNDS):
            await one_round()
            worst.append(ticker.take())
        ticking.cancel()
    return {
        "cpu_us": cost,
        "stall_p99_ms": percentile(ticker.lags, 0.99),
        "worst_p50_ms": statistics.median(worst),
        "worst_max_ms": max(worst),
    }


class Ticker:
    """How late a timer of a millisecond is; a stall counts for every tick it swallowed."""

    def __init__(self) -> None:
        self.lags: list[float] = []
        self._worst = 0.0

    async def run(self) -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(TICK)
            lag = time.perf_counter() - asked - TICK
            self._worst = max(self._worst, lag * 1e3)
            while lag > 0:
                self.lags.append(lag * 1e3)
                lag -= TICK

    def take(self) -> float:
        """The worst since one asked last, in milliseconds."""
        worst, self._worst = self._worst, 0.0
        return worst


async def psutil_rounds(pids: list[int]) -> Figures:
    """What a loop of one's own costs."""
    watched = [psutil.Process(pid) for pid in pids]
    before: dict[int, tuple[float, float]] = {}

    async def one_round() -> None:
        await asyncio.sleep(INTERVAL)
        await now()

    async def now() -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for process in watched:
            with process.oneshot():
                times, at = process.cpu_times(), time.monotonic()
                spent = times.user + times.system
                last = before.get(process.pid)
                percent = None if last is None else (spent - last[0]) / (at - last[1]) * 100
                before[process.pid] = spent, at
                memory, io, switches = process.memory_info(), process.io_counters(), process.num_ctx_switches()
                counts = process.num_fds(), process.num_threads(), switches.voluntary + switches.involuntary
                sizes = memory.rss, memory.vms, io.read_bytes, io.write_bytes
                found.append((percent, *sizes, *counts, process.status(), process.create_time()))
        return found

    return await measured(one_round, now, len(pids))


async def no_rounds(pids: list[int]) -> Figures:
    """The noise of the machine."""

    async def now() -> None:
        await asyncio.sleep(0)

    async def one_round() -> None:
        await asyncio.sleep(INTERVAL)

    return await measured(one_round, now, len(pids))


async def our_rounds(pids: list[int], options: argparse.Namespace) -> Figures:
    """Everything on: reading, history, samples, built-in conditions."""
    from procession.monitor import MonitorConfig, ResourceMonitor, Rule

    config = MonitorConfig(interval=INTERVAL, budget=1, network=options.network, max_open_files=options.files)
    async with ResourceMonitor(config) as monitor:
        for number in range(options.rules):
            monitor.add_rule(Rule(f"r{number}", lambda sample: (sample.rss_mb or 0) > 1e9))
        for pid in pids:
            monitor.watch(pid)
        figures = await measured(monitor._next_round, monitor._fresh, len(pids))
        statistics_ = monitor.statistics()
        assert statistics_.watched == len(pids)
        assert statistics_.unread == 0
    return {**figures, "open_files": statistics_.open_files, "thread_us": statistics_.round_cost / len(pids) * 1e6}


def memory() -> Figures:
    """Resident memory per process with 600 samples of everything."""
    from procession.monitor._sample import Reading
    from procession.monitor._series import Series

    def filled(shares: float | None) -> Series:
        series = Series(600)
        for number in range(600):
            at = float(number)
            shown = (at, "S", at, 10.0, 20.0, 0.5, 0.5, 3, 1, number, at, shares, shares, shares, shares, 1)
            series.append(at, Reading(*shown))
        return series

    filled(1.0)
    found = {}
    for name, shares in (("plain_kb", None), ("all_kb", 1.0)):
        gc.collect()
        before = rss_bytes()
        kept = [filled(shares) for _ in range(300)]
        found[name] = (rss_bytes() - before) / len(kept) / 1024
    return found


def rules() -> Figures:
    """What one condition costs for one sample that it does not hold for."""
    from procession.monitor import ResourceLimits, Rule, Trend
    from procession.monitor._limits import Cell, RuleCondition, conditions
    from procession.monitor._sample import Reading, sample_of
    from procession.monitor._series import Series

    series = Series(600)
    for number in range(600):
        at = float(number)
        series.append(at, Reading(at, "S", at, 10.0, 20.0, 0.5, 0.5, 3, 1, number, at))
    now = series.readings(1)[0]
    sample = sample_of("a", 1, *now, series.readings(2)[0], look_back=lambda _: Trend("a", series.column, 300))

    def per_call(cells: list[Cell], calls: int = 20_000) -> float:
        turns = []
        for _ in range(9):
            began = time.perf_counter()
            for _ in range(calls // len(cells)):
                for cell in cells:
                    cell.see(sample)
            turns.append((time.perf_counter() - began) / (calls // len(cells) * len(cells)) * 1e6)
        return statistics.median(turns)

    limits = ResourceLimits(max_cpu_percent=1e6, max_memory_mb=1e6, max_file_descriptors=1e6, max_threads=1e6)
    plain = Rule("plain", lambda s: (s.rss_mb or 0) > 1e6 and (s.cpu_percent or 0) > 50)
    leak = Rule("leak", lambda s: s.trend.memory_slope_mb_per_hour > 50)
    return {
        "limit_us": per_call([Cell(condition) for condition in conditions(limits, 1e6)]),
        "rule_us": per_call([Cell(RuleCondition(plain))]),
        "trend_rule_us": per_call([Cell(RuleCondition(leak))], 4000),
    }


async def calls() -> Figures:
    """What a pool's call costs without a registry, with one that nobody listens to, and with a monitor."""
    from procession import FunctionPool, PoolConfig, ProcessRegistry
    from procession.monitor import MonitorConfig, ResourceMonitor

    async def cost(pool: FunctionPool, count: int = 20_000) -> float:
        async def some(number: int) -> None:
            for _ in range(number):
                await pool.run(abs, -1)

        await asyncio.gather(*(some(20) for _ in range(100)))
        began = time.process_time()
        await asyncio.gather(*(some(count // 100) for _ in range(100)))
        return (time.process_time() - began) / count * 1e6

    found: dict[str, list[float]] = {"alone_us": [], "registry_us": [], "monitor_us": []}
    config = PoolConfig(min_size=2, max_size=2)
    async with AsyncExitStack() as stack:
        quiet, loud = ProcessRegistry(), ProcessRegistry()
        for part in (quiet, loud, ResourceMonitor(MonitorConfig(network=False), registry=loud)):
            await stack.enter_async_context(part)
        pools = [FunctionPool(config, registry=registry) for registry in (None, quiet, loud)]
        for pool in pools:
            await stack.enter_async_context(pool)
        for _ in range(3):
            for name, pool in zip(found, pools, strict=True):
                found[name].append(await cost(pool))
    return {name: statistics.median(values) for name, values in found.items()}


def probe(peer: str) -> dict[str, object]:
    """Whether it is there, in which version."""
    if peer == "psutil":
        return {"versions": {"psutil": version("psutil")}}
    import procession

    return {"versions": {"procession": procession.__version__}}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=("procession", "psutil", "nobody"))
    parser.add_argument("what", choices=("round", "memory", "rules", "calls", "probe"))
    parser.add_argument("count", type=int, nargs="?", default=10)
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--files", type=int)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--rules", type=int, default=0)
    options = parser.parse_args()
    figures: object
    if options.what == "probe":
        figures = probe(options.peer)
    elif options.what == "memory":
        figures = memory()
    elif options.what == "rules":
        figures = rules()
    else:
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
        if options.loop == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with (
            children(options.count if options.what == "round" else 0) as pids,
            asyncio.Runner(loop_factory=factory) as runner,
        ):
            work: Any
            if options.what == "calls":
                work = calls()
            else:
                rounds = {"psutil": psutil_rounds, "nobody": no_rounds}.get(options.peer)
                work = our_rounds(pids, options) if rounds is None else rounds(pids)
            figures = runner.run(work)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
