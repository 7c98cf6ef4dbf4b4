"""One measurement of one Python peer, in a process of its own; the figures go to stdout as one line of JSON.

python -m benchmarks.peers.driver PEER CASE COUNT [AT_ONCE] [--ballast-mb N] [--live N]
python -m benchmarks.peers.driver PEER probe
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, cast

from benchmarks.peers._base import Figures, Live, Peer

PEERS = {
    "asyncio": "benchmarks.peers.standard:Asyncio",
    "asyncio-pidfd": "benchmarks.peers.standard:AsyncioPidfd",
    "threads": "benchmarks.peers.standard:Threads",
    "os-read": "benchmarks.peers.standard:OsRead",
    "uvloop": "benchmarks.peers.thirdparty:Uvloop",
    "anyio": "benchmarks.peers.thirdparty:Anyio",
    "trio": "benchmarks.peers.thirdparty:Trio",
    "procession": "benchmarks.peers.ours:Procession",
    "procession-uvloop": "benchmarks.peers.ours:ProcessionUvloop",
}
TICK = 0.001
PAGE = resource.getpagesize()


def cpu_us() -> float:
    use = resource.getrusage(resource.RUSAGE_SELF)
    return (use.ru_utime + use.ru_stime) * 1e6


def rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * PAGE


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


async def spawns(peer: Peer, one: Callable[[], Coroutine[Any, Any, None]], count: int, at_once: int) -> Figures:
    """Rate and parent CPU of `count` times `at_once` children."""

    async def many() -> None:
        await peer.together([one] * at_once)

    turn = one if at_once == 1 else many
    for _ in range(10 if at_once == 1 else 1):
        await turn()
    used, began = cpu_us(), time.perf_counter()
    for _ in range(count):
        await turn()
    took, total = time.perf_counter() - began, count * at_once
    return {"rate": total / took, "cpu_us": (cpu_us() - used) / total}


async def stalls(peer: Peer, count: int, at_once: int) -> Figures:
    """Lag of a 1 ms ticker while children spawn; a stall counts for every tick it swallowed."""
    lags: list[float] = []

    async def ticker() -> None:
        while True:
            asked = time.perf_counter()
            await peer.sleep(TICK)
            lag = time.perf_counter() - asked - TICK
            while lag > 0:
                lags.append(lag * 1e3)
                lag -= TICK

    await peer.together([peer.once] * at_once)
    async with peer.beside(ticker):
        await peer.sleep(0.02)
        lags.clear()
        for _ in range(count):
            await peer.together([peer.once] * at_once)
        await peer.sleep(2 * TICK)
    return {"stall_p99_ms": percentile(lags, 0.99), "stall_max_ms": max(lags)}


async def kills(peer: Peer, count: int) -> Figures:
    """SIGKILL to the exit event (to the return of wait() where there are no events)."""
    delays: list[float] = []
    for _ in range(count):
        async with peer.live() as child:
            await peer.sleep(0.003)  # past its exec
            peer.exit_seen, began = None, time.perf_counter()
            child.kill()
            await child.wait()
            ended = time.perf_counter()
            seen = cast("float | None", peer.exit_seen)
            delays.append(((ended if seen is None else seen) - began) * 1e3)
    return {"kill_p50_ms": statistics.median(delays), "kill_p99_ms": percentile(delays, 0.99)}


async def streamed(peer: Peer, megabytes: int) -> Figures:
    """Rate of reading a child's output, and how far the parent's memory rose meanwhile."""
    before = peak = rss_bytes()
    total = chunks = 0
    used, began = cpu_us(), time.perf_counter()
    async with aclosing(cast("Any", peer.stream(megabytes))) as sizes:
        async for size in sizes:
            total += size
            chunks += 1
            if chunks % 256 == 0:
                peak = max(peak, rss_bytes())
    took = time.perf_counter() - began
    if total != megabytes << 20:
        raise RuntimeError(f"{total} bytes arrived instead of {megabytes << 20}")
    return {
        "rate": megabytes / took,
        "cpu_us": (cpu_us() - used) / megabytes,
        "rss_rise_mb": (max(peak, rss_bytes()) - before) / 2**20,
        "chunk_kib": total / chunks / 1024,
    }


@asynccontextmanager
async def living(peer: Peer, count: int) -> AsyncIterator[Figures]:
    """Keep `count` sleeping children alive for the block; what memory each costs the parent."""
    if not count:
        yield {}
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    await peer.once()
    before = rss_bytes()
    async with AsyncExitStack() as stack:
        children: list[Live] = [await stack.enter_async_context(peer.live()) for _ in range(count)]
        yield {"live_kib": (rss_bytes() - before) / count / 1024}
        for child in children:
            child.kill()


async def measure(peer: Peer, options: argparse.Namespace) -> Figures:
    async with peer.session(), living(peer, options.live) as beside:
        match options.case:
            case "sequential":
                figures = await spawns(peer, peer.once, options.count, 1)
            case "burst":
                figures = await spawns(peer, peer.once, options.count, options.at_once)
            case "capture":
                figures = await spawns(peer, peer.capture, options.count, 1)
            case "capture-burst":
                figures = await spawns(peer, peer.capture, options.count, options.at_once)
            case "stall":
                figures = await stalls(peer, options.count, options.at_once)
            case "kill":
                figures = await kills(peer, options.count)
            case "stream":
                figures = await streamed(peer, options.count)
            case other:
                raise SystemExit(f"no such case: {other}")
        return beside | figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("case")
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("at_once", type=int, nargs="?", default=1)
    parser.add_argument("--ballast-mb", type=int, default=0)
    parser.add_argument("--live", type=int, default=0)
    options = parser.parse_args()
    module, _, name = PEERS[options.peer].partition(":")
    try:
        peer: Peer = getattr(importlib.import_module(module), name)()
    except ImportError as error:
        if options.case != "probe":
            raise
        print(json.dumps({"missing": str(error)}))
        return
    if options.case == "probe":
        print(json.dumps({"versions": peer.versions()}))
        return
    ballast = bytearray(os.urandom(4096)) * (options.ballast_mb * 256)  # resident: every page is written
    figures = peer.run(lambda: measure(peer, options))
    del ballast
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
