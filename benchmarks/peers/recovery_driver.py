"""One measurement of recovery or of a peer, in a process of its own; the figures go to stdout as a line of JSON.

python -m benchmarks.peers.recovery_driver breaker WAY CALLS
python -m benchmarks.peers.recovery_driver recover WAY COUNT [--uvloop]
python -m benchmarks.peers.recovery_driver save WAY COUNT [--uvloop]

A figure's name is `metric`, or `case/metric` where one process measures several cases.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.peers._base import Figures, expect
from benchmarks.peers.thirdparty import Uvloop

Loop = Callable[[int], Awaitable[None]]


async def nothing() -> None:
    """What is called through breakers."""


def plain_nothing() -> None:
    """The same for breakers of plain functions."""


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


# ----------------------------------------------------------------------------------- calls through breakers


async def timed(loop: Loop, calls: int) -> float:
    """µs per call: the best of five, which is what the code costs when nobody else runs."""
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        await loop(calls)
        best = min(best, time.perf_counter() - began)
    return best * 1e6 / calls


async def bare_calls(calls: int) -> None:
    for _ in range(calls):
        await nothing()


async def bare_blocks(calls: int) -> None:
    for _ in range(calls):
        pass


async def bare_plain(calls: int) -> None:
    for _ in range(calls):
        plain_nothing()


async def ours(way: str, calls: int) -> Figures:
    from procession.recovery import BreakerConfig, CircuitBreaker, CircuitOpen, Count, Time

    config = {
        "procession": BreakerConfig(window=Count(50)),
        "procession-slow": BreakerConfig(window=Count(50), slow_call=2.0),
        "procession-time": BreakerConfig(window=Time(30), slow_call=2.0),
    }[way]
    breaker = CircuitBreaker(config)
    decorated = breaker(nothing)

    async def by_call(calls: int) -> None:
        for _ in range(calls):
            await breaker.call(nothing)

    async def by_decorator(calls: int) -> None:
        for _ in range(calls):
            await decorated()

    async def by_block(calls: int) -> None:
        for _ in range(calls):
            async with breaker:
                pass

    async def refused(calls: int) -> None:
        for _ in range(calls):
            try:
                async with breaker:
                    pass
            except CircuitOpen:
                pass

    base, block = await timed(bare_calls, calls), await timed(bare_blocks, calls)
    figures = {
        "call_us": await timed(by_call, calls) - base,
        "decorated_us": await timed(by_decorator, calls) - base,
        "block_us": await timed(by_block, calls) - block,
    }
    expect(breaker.statistics().succeeded, 15 * calls)
    breaker.open()
    figures["refused_us"] = await timed(refused, calls) - block
    expect(breaker.statistics().refused, 5 * calls)
    return figures


async def purgatory(calls: int) -> Figures:
    from purgatory import AsyncCircuitBreakerFactory  # type: ignore[import-untyped,unused-ignore]
    from purgatory.domain.model import OpenedState  # type: ignore[import-untyped,unused-ignore]

    factory = AsyncCircuitBreakerFactory(default_threshold=5, default_ttl=3600)
    decorated = factory("decorated")(nothing)
    breaker = await factory.get_breaker("block")

    async def by_decorator(calls: int) -> None:
        for _ in range(calls):
            await decorated()

    async def by_block(calls: int) -> None:
        for _ in range(calls):
            async with breaker:
                pass

    async def refused(calls: int) -> None:
        for _ in range(calls):
            try:
                async with breaker:
                    pass
            except OpenedState:
                pass

    base, block = await timed(bare_calls, calls), await timed(bare_blocks, calls)
    figures = {
        "decorated_us": await timed(by_decorator, calls) - base,
        "block_us": await timed(by_block, calls) - block,
    }
    for _ in range(5):
        try:
            async with breaker:
                raise OSError
        except OSError:
            pass
    return figures | {"refused_us": await timed(refused, calls) - block}


async def aiobreaker(calls: int) -> Figures:
    from aiobreaker import CircuitBreaker, CircuitBreakerError  # type: ignore[import-untyped,unused-ignore]

    breaker = CircuitBreaker(fail_max=5, timeout_duration=timedelta(hours=1))

    async def by_call(calls: int) -> None:
        for _ in range(calls):
            await breaker.call_async(nothing)

    async def refused(calls: int) -> None:
        for _ in range(calls):
            try:
                await breaker.call_async(nothing)
            except CircuitBreakerError:
                pass

    base, block = await timed(bare_calls, calls), await timed(bare_blocks, calls)
    figures = {"call_us": await timed(by_call, calls) - base}
    breaker.open()
    return figures | {"refused_us": await timed(refused, calls) - block}


async def pybreaker(calls: int) -> Figures:
    """It knows coroutines of tornado only, so it is given plain functions."""
    from pybreaker import CircuitBreaker, CircuitBreakerError  # type: ignore[import-untyped,unused-ignore]

    breaker = CircuitBreaker(fail_max=5, reset_timeout=3600)

    async def by_call(calls: int) -> None:
        for _ in range(calls):
            breaker.call(plain_nothing)

    async def refused(calls: int) -> None:
        for _ in range(calls):
            try:
                breaker.call(plain_nothing)
            except CircuitBreakerError:
                pass

    base, block = await timed(bare_plain, calls), await timed(bare_blocks, calls)
    figures = {"call_us": await timed(by_call, calls) - base}
    breaker.open()
    return figures | {"refused_us": await timed(refused, calls) - block}


PEERS = {"purgatory": purgatory, "aiobreaker": aiobreaker, "pybreaker": pybreaker}


# ----------------------------------------------------------------------------------------------- recoveries


async def recover(count: int) -> Figures:
    """A process is killed, noticed, and another is running: from the kill to the end of the attempt."""
    from procession import Command, ProcessRegistry, RecoveryConfig, RecoveryManager, spawn
    from procession.events import RecoveryAttempted

    config = RecoveryConfig(stable_after=0.0, max_in_window=10 * count)
    pids: list[int] = []
    alone: list[float] = []

    async with ProcessRegistry(journal_size=0) as registry, asyncio.TaskGroup() as group:
        command = Command("sleep", "3600")

        async def live(up: asyncio.Future[None]) -> None:
            async with spawn(command, registry=registry, name="unit", owner="bench") as process:
                pids.append(process.pid)
                up.set_result(None)
                await process.wait()

        async def start() -> asyncio.Task[None]:
            up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            life = group.create_task(live(up))
            await up
            return life

        async with RecoveryManager(config, registry=registry) as recovery:
            for _ in range(count):
                began = time.perf_counter()
                life = await start()
                alone.append((time.perf_counter() - began) * 1e3)
                os.kill(pids[-1], signal.SIGKILL)  # nobody has registered it: this one is not missed
                await life
            recovery.register("unit", target=start)
            done = asyncio.Event()
            registry.listen(lambda _event: done.set(), types=RecoveryAttempted)
            await start()
            times: list[float] = []
            for _ in range(count):
                done.clear()
                killed, began = pids[-1], time.perf_counter()
                os.kill(killed, signal.SIGKILL)
                await done.wait()
                times.append((time.perf_counter() - began) * 1e3)
                expect(pids[-1] != killed, True)
            figures = recovery.statistics("unit")
            expect((figures.recovered + figures.under_way, figures.exhausted), (count, 0))
        os.kill(pids[-1], signal.SIGKILL)
    return {
        "recover_p50_ms": percentile(times, 0.5),
        "recover_p99_ms": percentile(times, 0.99),
        "spawn_p50_ms": percentile(alone, 0.5),
    }


# ----------------------------------------------------------------------------------------------- checkpoints


def states() -> dict[str, Any]:
    """States of about 1 kB and 1 MB as JSON, as a program would keep them: records of a few fields."""
    rng = random.Random(1)

    def records(count: int) -> list[dict[str, Any]]:
        return [
            {"id": n, "name": f"job-{n}", "progress": rng.random(), "tags": ["a", "b"], "done": n % 2 == 0}
            for n in range(count)
        ]

    return {"1 kB": {"jobs": records(10)}, "1 MB": {"jobs": records(10_500)}}


async def turns(save: Callable[[], Awaitable[None]], count: int) -> Figures:
    """How long a save takes, and the longest the loop stood still meanwhile; the loop turns as fast as it can."""
    loop = asyncio.get_running_loop()
    gaps: list[float] = []
    last = time.perf_counter()
    on = True

    def turn() -> None:
        nonlocal last
        now = time.perf_counter()
        gaps.append((now - last) * 1e3)
        last = now
        if on:
            loop.call_soon(turn)

    await save()
    took: list[float] = []
    longest: list[float] = []
    last = time.perf_counter()
    loop.call_soon(turn)
    for _ in range(count):
        gaps.clear()
        began = time.perf_counter()
        await save()
        took.append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(0)
        longest.append(max(gaps))
    on = False
    return {"save_p50_ms": percentile(took, 0.5), "stall_p50_ms": percentile(longest, 0.5)}


async def checkpoints(way: str, count: int) -> Figures:
    figures: Figures = {}
    for size, state in states().items():
        times = count if size == "1 kB" else max(5, count // 5)
        with tempfile.TemporaryDirectory(dir=Path.cwd() / "benchmarks") as folder:
            found = await turns(await saver(way, Path(folder), state), times)
            # The same in a quiet loop, for the time alone: a loop that turns without pause takes half of a core.
            quiet = await saver(way, Path(folder) / "quiet", state)
            await quiet()
            took = []
            for _ in range(times):
                began = time.perf_counter()
                await quiet()
                took.append((time.perf_counter() - began) * 1e3)
            found["save_p50_ms"] = percentile(took, 0.5)
        figures |= {f"{size}/{metric}": value for metric, value in found.items()}
    return figures


async def saver(way: str, folder: Path, state: Any) -> Callable[[], Awaitable[None]]:
    """A function that saves ``state`` in one of the ways."""
    folder.mkdir(exist_ok=True)
    if way in ("procession", "procession-fast"):
        from procession.recovery import CheckpointStore

        store = CheckpointStore(folder / "store", durable=way == "procession")

        async def ours() -> None:
            await store.save("job", state)

        return ours
    if way == "replace":
        path = folder / "state.json"

        def replace() -> None:
            with open(f"{path}.tmp", "w") as file:
                json.dump(state, file)
            os.replace(f"{path}.tmp", path)  # noqa: PTH105 - as it is commonly written

        async def on_the_loop() -> None:
            replace()

        return on_the_loop
    database = sqlite3.connect(folder / "state.db", check_same_thread=False, isolation_level=None)
    database.execute("pragma synchronous = full")
    if way == "sqlite-wal":
        database.execute("pragma journal_mode = wal")
    database.execute("create table state (name text primary key, value text)")

    def insert() -> None:
        database.execute("insert or replace into state values ('job', ?)", (json.dumps(state),))

    async def in_a_thread() -> None:
        await asyncio.to_thread(insert)

    return in_a_thread


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=("breaker", "recover", "save"))
    parser.add_argument("way")
    parser.add_argument("count", type=int)
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()

    async def measure() -> Figures:
        if options.case == "recover":
            return await recover(options.count)
        if options.case == "save":
            return await checkpoints(options.way, options.count)
        peer = PEERS.get(options.way)
        return await (ours(options.way, options.count) if peer is None else peer(options.count))

    figures = Uvloop().run(measure) if options.uvloop else asyncio.run(measure())
    json.dump(figures, sys.stdout)
    print()


if __name__ == "__main__":
    main()
