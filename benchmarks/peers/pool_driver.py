"""One measurement of one pool, in a process of its own; the figures go to stdout as one line of JSON.

python -m benchmarks.peers.pool_driver PEER calls SECONDS         round trips, throughput, large payloads
python -m benchmarks.peers.pool_driver PEER cold WORKERS          from nothing to so many that have imported a lot
python -m benchmarks.peers.pool_driver PEER scale SECONDS SIZES   throughput by size; memory at the largest
python -m benchmarks.peers.pool_driver PEER lease COUNT           acquire and release of an idle process
python -m benchmarks.peers.pool_driver PEER kills SECONDS         one of four workers killed every 200 ms
python -m benchmarks.peers.pool_driver PEER sequential COUNT      as many calls, one after the other or --in-flight
python -m benchmarks.peers.pool_driver PEER probe 0               what is missing, if anything is

A figure's name is `case/metric`.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Coroutine
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from benchmarks.peers._base import Figures, expect
from benchmarks.peers.driver import TICK, cpu_us, percentile
from benchmarks.peers.pool_functions import HEAVY, echo, meet, square
from benchmarks.peers.pool_peers import PEERS, Ours, PoolPeer, Wish
from benchmarks.peers.thirdparty import Uvloop

SMALL, LARGE = os.urandom(100), os.urandom(1 << 20)
IN_FLIGHT, LARGE_IN_FLIGHT = 100, 4
WARM = 0.1  # seconds
KILL_EVERY, KILLED_OF, KILL_IN_FLIGHT, KILL_CALL = 0.2, 4, 16, 0.005
CALM = 0.5  # seconds of load before the first kill
PATIENCE = 4.0  # seconds after which a call will never be answered
REFUSALS = 50  # calls refused at once, one after the other: a pool that is broken for good


def named(case: str, figures: Figures) -> Figures:
    return {f"{case}/{metric}": value for metric, value in figures.items()}


# --------------------------------------------------------------------------------------------- calls


async def load(peer: PoolPeer, payload: bytes, in_flight: int, seconds: float) -> Figures:
    """Calls per second and the parent's CPU per call with so many under way all the time."""
    done = 0
    until = time.perf_counter() + seconds

    async def slot() -> None:
        nonlocal done
        while time.perf_counter() < until:
            answer = await peer.call(echo, payload)
            if len(answer) != len(payload) or answer[-8:] != payload[-8:]:
                raise RuntimeError("an answer is not the payload")
            done += 1

    used, began = cpu_us(), time.perf_counter()
    await asyncio.gather(*(slot() for _ in range(in_flight)))
    took = time.perf_counter() - began
    return {"rate": done / took, "cpu_us": (cpu_us() - used) / done}


async def trips(peer: PoolPeer, seconds: float) -> Figures:
    """One call after the other."""
    took: list[float] = []
    used, until = cpu_us(), time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        answer = await peer.call(echo, SMALL)
        took.append((time.perf_counter() - began) * 1e6)
        expect(answer, SMALL)
    return {
        "p50_us": statistics.median(took),
        "p99_us": percentile(took, 0.99),
        "cpu_us": (cpu_us() - used) / len(took),
    }


async def stalls(peer: PoolPeer, seconds: float) -> Figures:
    """Lag of a 1 ms ticker beside large payloads; a stall counts for every tick it swallowed."""
    lags: list[float] = []

    async def ticker() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(TICK)
            lag = time.perf_counter() - asked - TICK
            while lag > 0:
                lags.append(lag * 1e3)
                lag -= TICK

    task = asyncio.create_task(ticker())
    await load(peer, LARGE, LARGE_IN_FLIGHT, seconds)
    task.cancel()
    await asyncio.wait([task])
    return {"stall_p99_ms": percentile(lags, 0.99), "stall_max_ms": max(lags)}


async def calls(peer: PoolPeer, seconds: float) -> Figures:
    async with peer.open(Wish()):
        await warm_up(peer, 2)
        figures = named("trip", await trips(peer, seconds))
        await load(peer, SMALL, IN_FLIGHT, WARM)
        figures |= named("many", await load(peer, SMALL, IN_FLIGHT, seconds))
        await load(peer, LARGE, LARGE_IN_FLIGHT, WARM)
        figures |= named("large", await load(peer, LARGE, LARGE_IN_FLIGHT, seconds))
        figures |= named("large", await stalls(peer, seconds))
    if peer.has_prefetch:
        async with peer.open(Wish(prefetch=False)):
            await load(peer, SMALL, IN_FLIGHT, WARM)
            figures |= named("single", await load(peer, SMALL, IN_FLIGHT, seconds))
    return figures


async def sequential(peer: PoolPeer, count: int, in_flight: int) -> Figures:
    """A number of calls, for whoever counts from outside what they cost."""
    left = itertools.repeat(None, count)

    async def slot() -> None:
        for _ in left:
            await peer.call(echo, SMALL)

    async with peer.open(Wish()):
        await warm_up(peer, 2)
        await asyncio.gather(*(slot() for _ in range(in_flight)))
    return {"count": count}


# ------------------------------------------------------------------------------- starting, sizes, memory


async def gathered(peer: PoolPeer, workers: int, modules: tuple[str, ...]) -> set[int]:
    """The ids of so many workers, each of which has the modules."""
    with tempfile.NamedTemporaryFile() as file:
        pids = await asyncio.gather(*(peer.call(meet, file.name, workers, modules) for _ in range(workers)))
    if len(set(pids)) != workers:
        raise RuntimeError(f"{len(set(pids))} workers instead of {workers}")
    return set(pids)


async def warm_up(peer: PoolPeer, workers: int) -> None:
    """Workers may start on demand, and some only while others are busy."""
    await asyncio.gather(*(peer.call(square, 1, 0.05) for _ in range(2 * workers)))


async def cold(peer: PoolPeer, workers: int) -> Figures:
    """From no pool at all to so many workers that have imported what is heavy and have answered."""
    began = time.perf_counter()
    async with peer.open(Wish(workers, preload=HEAVY, one_each=True)):
        await gathered(peer, workers, HEAVY)
        took = time.perf_counter() - began
    return named(f"cold {workers}", {"ms": took * 1e3})


def pss_mb(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def memory(workers: set[int]) -> Figures:
    """Of a worker, and of everything else that the pool has started."""
    shares = [pss_mb(pid) for pid in workers]
    others = 0.0
    for child in import_module("psutil").Process().children(recursive=True):
        if child.pid not in workers:
            with suppress(OSError):
                others += pss_mb(child.pid)
    return {"pss_mb": statistics.mean(shares), "helpers_mb": others}


async def scale(peer: PoolPeer, seconds: float, sizes: list[int]) -> Figures:
    """Throughput by number of workers; memory of idle ones at the largest."""
    figures: Figures = {}
    for size in sizes:
        async with peer.open(Wish(size, one_each=True)):
            pids = await gathered(peer, size, ())
            if size == max(sizes):
                await asyncio.sleep(0.2)
                figures |= named("idle", memory(pids))
            await load(peer, SMALL, IN_FLIGHT, WARM)
            figures |= named(f"size {size}", await load(peer, SMALL, IN_FLIGHT, seconds))
    return figures


# --------------------------------------------------------------------------------------------- leases


async def lease(count: int) -> Figures:
    """Acquire and release of an idle process, as `async with` and by hand."""
    api, pools = import_module("procession"), import_module("procession.pool")
    config = pools.PoolConfig(min_size=2, max_size=2)
    async with (
        api.ProcessRegistry() as registry,
        pools.ProcessPool(api.Command("cat", grace=1), config, registry=registry) as pool,
    ):
        figures: Figures = {}
        for _ in range(count // 10):
            async with pool.acquire():
                pass
        began = time.perf_counter()
        for _ in range(count):
            async with pool.acquire():
                pass
        figures["us"] = (time.perf_counter() - began) / count * 1e6
        began = time.perf_counter()
        for _ in range(count):
            (await pool.acquire()).release()
        figures["by_hand_us"] = (time.perf_counter() - began) / count * 1e6
        async with pool.acquire() as worker:
            expect(await worker.request("well"), "well")
    return named("lease", figures)


# ----------------------------------------------------------------------------------------- resilience


class Storm:
    """Load on a pool whose workers are killed one after the other, and what becomes of each call."""

    def __init__(self, peer: PoolPeer) -> None:
        self.peer = peer
        self.numbers = itertools.count(1)
        self.running = True
        self.ok = self.lost = self.wrong = self.hung = self.kills = 0
        self.refused = 0  # in a row
        self.broken = False
        self.calm: list[float] = []
        self.storm: list[float] = []
        self.heard: dict[int, float] = {}  # living workers, and when each answered last
        self.killed: set[int] = set()
        self.short_since: float | None = None  # since when the pool is not whole
        self.back: set[int] = set()  # who has answered since
        self.whole_after: list[float] = []

    async def slot(self) -> None:
        """Calls one after the other; a call that is never answered is given up."""
        while self.running:
            number, began = next(self.numbers), time.perf_counter()
            try:
                async with asyncio.timeout(PATIENCE):
                    answer, pid = await self.peer.call(square, number, KILL_CALL)
            except TimeoutError:
                self.hung += 1
            except (Exception, asyncio.CancelledError):  # each library has its own for a lost call
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                await self.failed(time.perf_counter() - began)
            else:
                self.answered(answer == number * number, pid, began)

    async def failed(self, took: float) -> None:
        """A call lost with a worker, or one that was not even accepted."""
        if took > KILL_CALL / 5:
            self.lost += 1
            return
        self.refused += 1
        if await self.peer.revive():
            return
        if self.refused >= REFUSALS:
            self.broken, self.running = True, False
        await asyncio.sleep(KILL_CALL)

    def answered(self, right: bool, pid: int, began: float) -> None:
        now = time.perf_counter()
        self.refused = 0
        self.ok += 1
        self.wrong += not right
        (self.storm if self.kills else self.calm).append((now - began) * 1e3)
        if pid in self.killed:
            return  # it had answered before
        self.heard[pid] = now
        if self.short_since is not None:
            self.back.add(pid)
            if len(self.back) == KILLED_OF:
                self.whole_after.append((now - self.short_since) * 1e3)
                self.short_since = None

    def kill(self, pid: int, now: float) -> bool:
        """Kills one; ``False`` when its pool had done so already."""
        del self.heard[pid]
        self.killed.add(pid)
        self.back.discard(pid)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.kills += 1
        if self.short_since is None:
            self.short_since, self.back = now, set()
        return True

    async def killer(self, seconds: float) -> None:
        """SIGKILL to one of those who have answered lately."""
        rng = random.Random(4)
        until = time.perf_counter() + seconds
        while self.running and (now := time.perf_counter()) < until:
            there = [pid for pid, heard in self.heard.items() if now - heard < 2 * KILL_EVERY]
            rng.shuffle(there)
            for pid in there:
                if self.kill(pid, now):
                    break
            await asyncio.sleep(KILL_EVERY)
        self.running = False

    async def measure(self, seconds: float) -> Figures:
        slots = [asyncio.create_task(self.slot()) for _ in range(KILL_IN_FLIGHT)]
        await asyncio.sleep(CALM)
        await self.killer(seconds)
        await asyncio.gather(*slots)
        usual = statistics.median(self.calm)
        figures: Figures = {
            "kills": self.kills,
            "ok": self.ok,
            "lost": self.lost + self.hung,
            "hung": self.hung,
            "wrong": self.wrong,
            "broken": float(self.broken),
            "short": float(self.short_since is not None),
            "usual_ms": usual,
        }
        if self.storm:
            figures["delay_ms"] = max(self.storm) - usual
            figures["delay_p99_ms"] = percentile(self.storm, 0.99) - usual
        if self.whole_after:
            figures["whole_ms"] = statistics.median(self.whole_after)
            figures["whole_max_ms"] = max(self.whole_after)
        if self.storm and self.whole_after and not self.broken:
            figures["delay_of_spawn"] = figures["delay_ms"] / figures["whole_max_ms"]
        return named("kills", figures)


async def kills(peer: PoolPeer, seconds: float) -> Figures:
    """Ours has to end in order too; of the others only the figures are wanted, for a broken pool may never close."""
    async with asyncio.timeout(CALM + seconds + 4 * PATIENCE), peer.open(Wish(KILLED_OF, retries=1, one_each=True)):
        await gathered(peer, KILLED_OF, ())
        figures = await Storm(peer).measure(seconds)
        if not isinstance(peer, Ours):
            leave(figures)
    return figures


def leave(figures: Figures) -> NoReturn:
    """Says the figures and goes, without the clean-up that a broken pool would wait in for ever."""
    print(json.dumps(figures), flush=True)
    for child in import_module("psutil").Process().children(recursive=True):
        with suppress(Exception):
            child.kill()
    os._exit(0)


# ----------------------------------------------------------------------------------------------- main


def on_loop(peer: PoolPeer, options: argparse.Namespace) -> Coroutine[Any, Any, Figures]:
    match options.case:
        case "calls":
            return calls(peer, options.amount)
        case "cold":
            return cold(peer, int(options.amount))
        case "scale":
            return scale(peer, options.amount, options.sizes)
        case "lease":
            return lease(int(options.amount))
        case "kills":
            return kills(peer, options.amount)
        case "sequential":
            return sequential(peer, int(options.amount), options.in_flight)
    raise SystemExit(f"no such case: {options.case}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("case")
    parser.add_argument("amount", type=float)
    parser.add_argument("sizes", type=int, nargs="*")
    parser.add_argument("--in-flight", type=int, default=1)
    options = parser.parse_args()
    try:
        peer = PEERS[options.peer]()
        if peer.uvloop:
            import_module("uvloop")
    except ImportError as error:
        if options.case != "probe":
            raise
        print(json.dumps({"missing": str(error)}))
        return
    if options.case == "probe":
        print(json.dumps({}))
        return

    async def measure() -> Figures:
        return await on_loop(peer, options)

    print(json.dumps(Uvloop().run(measure) if peer.uvloop else asyncio.run(measure())))


if __name__ == "__main__":
    main()
