"""Single decisions of the scheduler: blocked heads, making room, memory, and the way to a free slot."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.peers._base import Figures, expect
from benchmarks.peers.driver import percentile, rss_bytes
from benchmarks.peers.scheduler_work import LEVELS, noop
from procession.scheduler import Preemption, PriorityAging, Scheduler, SchedulerConfig
from procession.scheduler._decide import Dispatcher, Preempt
from procession.scheduler._entry import Entry
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec
from procession.scheduler._states import TaskState, move

Needs = Mapping[str, float]

# --------------------------------------------------------------------------------- submit and decide


def some_needs(kinds: int) -> list[dict[str, float]]:
    """Different amounts of two resources."""
    return [{"cpu_cores": 1.0 + kind % 4, "memory_mb": 64.0 * (1 + kind)} for kind in range(kinds)]


async def open_scheduler(count: int) -> Scheduler:
    """One in which everything could run at once, so that each decision starts a task."""
    totals = {"cpu_cores": 4.0 * count, "memory_mb": 2048.0 * count}
    return await Scheduler(SchedulerConfig(max_concurrent_tasks=count, resources=totals)).__aenter__()


async def submit(count: int, kinds: int = 20) -> Figures:
    """`submit()` with priorities and resources, then the decisions: what a runner asks for each time it is free.

    Nothing is begun: the loop gets no turn before this process has printed its figures.
    """
    scheduler, needs = await open_scheduler(count), some_needs(kinds)
    now, decide = asyncio.get_running_loop().time, scheduler._lives.next
    gc.collect()
    began = time.process_time()
    for index in range(count):
        scheduler.submit(noop, index, priority=index % LEVELS, resources=needs[index % kinds])
    submitted = time.process_time()
    while decide(now()) is not None:
        pass
    ended = time.process_time()
    expect((scheduler.statistics().running, len(scheduler)), (count, count))
    return {
        "rate": count / (ended - began),
        "us": (ended - began) / count * 1e6,
        "submit_us": (submitted - began) / count * 1e6,
        "decide_us": (ended - submitted) / count * 1e6,
    }


async def put_get(count: int) -> Figures:
    """`asyncio.PriorityQueue`, `await put()` and `await get()`; and, for scale, without waiting."""
    figures: Figures = {}
    queue: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue()
    gc.collect()
    began = time.process_time()
    for index in range(count):
        await queue.put((index % LEVELS, index, noop, index))
    for _ in range(count):
        await queue.get()
    took = time.process_time() - began
    figures |= {"rate": count / took, "us": took / count * 1e6}
    gc.collect()
    began = time.process_time()
    for index in range(count):
        queue.put_nowait((index % LEVELS, index, noop, index))
    for _ in range(count):
        queue.get_nowait()
    return figures | {"nowait_us": (time.process_time() - began) / count * 1e6}


# -------------------------------------------------------------------------------------- blocked head

TOTALS = {"cpu_cores": 128.0, "memory_mb": 262_144.0, "disk_mb": 1_048_576.0, "network_mbps": 10_000.0}
FREE = 0.25  # so much of everything is free
RUN = 100
DECISIONS = 400


def entry_of(numbers: Iterator[int], priority: int, shape: Any, spec: Spec, estimate: float | None = None) -> Entry:
    """A task as the core sees it, ready to be queued."""
    made = Entry(next(numbers), priority, shape, spec, estimate)
    move(made, TaskState.QUEUED)
    return made


def fair(count: int) -> Iterator[Needs]:
    """Bundles of four needs, each by itself as often too much as not; one in sixteen fits."""
    rng = random.Random(count)
    for _ in range(count):
        yield {name: round(total * rng.uniform(0.0, 2.0) * FREE, 3) for name, total in TOTALS.items()}


def hostile(count: int, one_in: int = 0) -> Iterator[Needs]:
    """Bundles with little of three needs and too much of the fourth, so that no need by itself tells anything.

    One in ``one_in`` has little of all and fits.
    """
    rng, names = random.Random(count), list(TOTALS)
    for index in range(count):
        needs = {name: round(total * rng.uniform(0.02, 0.9) * FREE, 3) for name, total in TOTALS.items()}
        if not one_in or index % one_in:
            scarce = rng.choice(names)
            needs[scarce] = round(TOTALS[scarce] * rng.uniform(1.2, 2.0) * FREE, 3)
        yield needs


def blocked(waiting: int, bundles: Sequence[Needs], *, passes: bool, estimates: bool = False) -> Figures:
    """One decision while the head of the queue does not fit: who may pass it?"""
    resources, spec, numbers = Resources(2 * RUN, TOTALS), Spec(), itertools.count(1)
    dispatcher = Dispatcher(resources, PriorityAging(0.1), max_overtakes=1 << 60)
    taken = resources.shape({name: total * (1 - FREE) / RUN for name, total in TOTALS.items()})
    for index in range(RUN):
        dispatcher.enqueue(entry_of(numbers, 0, taken, spec, 100.0 + index if estimates else None), 0.0)
    for _ in range(RUN):
        dispatcher.next(0.0)
    rng, estimate = random.Random(waiting), 5.0 if estimates else None
    dispatcher.enqueue(entry_of(numbers, 0, resources.shape({"cpu_cores": TOTALS["cpu_cores"]}), spec), 0.0)
    shapes = [resources.shape(needs) for needs in bundles]
    for index in range(waiting):
        entry = entry_of(numbers, 1 + rng.randrange(LEVELS), shapes[index % len(shapes)], spec, estimate)
        dispatcher.enqueue(entry, index * 1e-6)
    now, passed, took = 1.0, 0, []
    gc.collect()
    for _ in range(DECISIONS):
        now += 1e-6
        began = time.perf_counter_ns()
        started = dispatcher.next(now)
        took.append((time.perf_counter_ns() - began) / 1e3)
        if isinstance(started, Entry):
            passed += 1
            dispatcher.release(started, now)  # and another one of its kind comes
            dispatcher.enqueue(entry_of(numbers, started.priority, started.whole, spec, estimate), now)
    expect(passed > 0, passes)
    return {"us": statistics.median(took), "p99_us": percentile(took, 0.99), "passed": passed / DECISIONS}


def all_blocked(*lengths: int) -> Figures:
    """Twenty shapes and every shape distinct, in short and in long queues."""
    figures: Figures = {}
    for waiting in lengths:
        for case, found in (
            ("20 shapes, some fit", blocked(waiting, list(hostile(20, 20)), passes=True)),
            (
                "20 shapes, some fit, by reservation",
                blocked(waiting, list(hostile(20, 20)), passes=True, estimates=True),
            ),
            ("20 shapes, none fits", blocked(waiting, list(hostile(20)), passes=False)),
            ("distinct shapes, some fit", blocked(waiting, list(fair(waiting)), passes=True)),
            ("distinct shapes, none fits", blocked(waiting, list(hostile(waiting)), passes=False)),
        ):
            figures |= {f"{case}, {waiting}/{metric}": value for metric, value in found.items()}
    return figures


def scan(waiting: int, turns: int = 3) -> Figures:
    """What a plain list of waiting tasks costs: each one is looked at, until one fits; none does."""
    free = {name: total * FREE for name, total in TOTALS.items()}
    tasks = [tuple(needs.items()) for needs in hostile(waiting)]
    took = []
    for _ in range(turns):
        began = time.perf_counter()
        found = next((task for task in tasks if all(free[name] >= amount for name, amount in task)), None)
        took.append((time.perf_counter() - began) * 1e6)
        expect(found, None)
    return {f"distinct shapes, none fits, {waiting}/scan_us": statistics.median(took)}


# ----------------------------------------------------------------------------------------- making room


def preempt(running: int, turns: int = 2_000) -> Figures:
    """An urgent task comes and all slots are taken: who makes room, and the change of places."""
    resources, numbers, rng = Resources(running, {}), itertools.count(1), random.Random(running)
    dispatcher = Dispatcher(resources, PriorityAging(0.1))
    spec = Spec(preemption=Preemption.SUSPEND)
    for index in range(running):
        dispatcher.enqueue(entry_of(numbers, 1 + rng.randrange(LEVELS), resources.plain, spec), 0.0)
        started = dispatcher.next(index * 1e-6)
        assert isinstance(started, Entry)
        dispatcher.preemptible(started)
    now, decided, replaced, exchanged = 1.0, [], [], []
    gc.collect()
    for _ in range(turns):
        now += 1e-6
        head = entry_of(numbers, 0, resources.plain, spec)
        dispatcher.enqueue(head, now)
        began = time.perf_counter_ns()
        decision = dispatcher.next(now)
        chosen = time.perf_counter_ns()
        assert isinstance(decision, Preempt)
        for victim in decision.victims:
            dispatcher.suspend(victim, now)
        following = dispatcher.next(now)
        dispatcher.preemptible(head)
        ended = time.perf_counter_ns()
        expect((following, len(decision.victims)), (head, 1))
        decided.append((chosen - began) / 1e3)
        replaced.append((ended - chosen) / 1e3)
        dispatcher.release(head, now)  # the urgent one is done, and the other goes on
        resumed = dispatcher.next(now)
        expect(resumed, decision.victims[0])
        dispatcher.preemptible(decision.victims[0])
    victims = dispatcher.victims
    for _ in range(turns):
        head = Entry(next(numbers), 0, resources.plain, spec)
        head.started_at = now
        began = time.perf_counter_ns()
        victim = victims.plan(head)[0]
        victims.discard(victim)
        victims.add(head)
        exchanged.append((time.perf_counter_ns() - began) / 1e3)
        victims.discard(head)
        victims.add(victim)
    return {
        "decide_us": statistics.median(decided),
        "exchange_us": statistics.median(exchanged),
        "whole_us": statistics.median(map(sum, zip(decided, replaced, strict=True))),
    }


# --------------------------------------------------------------------------------------------- memory


async def idle() -> None:
    """Work without arguments: it is its own payload."""


async def queued(count: int) -> Callable[[], object]:
    """Makes what queues one task more."""
    scheduler = await open_scheduler(count)
    return lambda: scheduler.submit(idle)


async def queued_by_hand(_count: int) -> Callable[[], object]:
    """The same for a priority queue of (priority, number, future, work)."""
    queue: asyncio.PriorityQueue[Any] = asyncio.PriorityQueue()
    loop, numbers = asyncio.get_running_loop(), itertools.count()

    def put() -> object:
        future = loop.create_future()
        queue.put_nowait((2, next(numbers), future, idle))
        return future

    return put


async def memory(name: str, count: int) -> Figures:
    """Bytes one queued task takes beyond its payload: from the system, and as the allocator has counted them."""
    make = queued if name == "procession" else queued_by_hand
    one = await make(count)
    kept: list[object] = [None] * count
    gc.collect()
    before = rss_bytes()
    for index in range(count):
        kept[index] = one()
    resident = (rss_bytes() - before) / count
    another, others = await make(count), [None] * count
    gc.collect()
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    for index in range(count):
        others[index] = another()  # type: ignore[call-overload]
    counted = (tracemalloc.get_traced_memory()[0] - start) / count
    tracemalloc.stop()
    return {"bytes": counted, "rss_bytes": resident}


# --------------------------------------------------------------------------------- the way to a free slot


async def start(waiting: int, probes: int = 1_000) -> Figures:
    """Submission to the first line of the work, with slots free, while ``waiting`` tasks need what is taken."""
    config = SchedulerConfig(max_concurrent_tasks=10, resources={"gpu": 1})
    async with Scheduler(config) as scheduler:
        ended = asyncio.Event()
        scheduler.submit(ended.wait, resources={"gpu": 1}, estimated_duration=3600)
        await asyncio.sleep(0)
        for _ in range(waiting):
            scheduler.submit(idle, resources={"gpu": 1})
        for _ in range(3):
            await asyncio.sleep(0.01)
        figures: Figures = {}
        for title, options in (
            ("urgent", {"priority": 0}),
            ("passes", {"priority": 2, "estimated_duration": 1.0}),  # done before the other one is expected to be
        ):
            took = [await _started_after(scheduler, options) for _ in range(probes)]
            figures |= {
                f"start, {title}/p50_ms": statistics.median(took),
                f"start, {title}/p99_ms": percentile(took, 0.99),
                f"start, {title}/max_ms": max(took),
            }
        expect(scheduler.statistics().running, 1)
    return figures


async def _started_after(scheduler: Scheduler, options: Mapping[str, Any]) -> float:
    began = 0.0

    async def work() -> float:
        return (time.perf_counter() - began) * 1e3

    began = time.perf_counter()
    return await scheduler.submit(work, **options)
