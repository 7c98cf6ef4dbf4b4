"""One measurement of the registry, in a process of its own; the figures go to stdout as one line of JSON.

python -m benchmarks.peers.registry_driver procession|plain publish LISTENERS [--subscribers N]
python -m benchmarks.peers.registry_driver procession records|find RECORDS
python -m benchmarks.peers.registry_driver procession|plain probe

`plain` is the limit: a list of listeners by event type, called one after the other, and nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from benchmarks.peers._base import Figures
from benchmarks.peers.driver import rss_bytes

TURNS, CALLS = 9, 20_000
SAME_NAME = 10  # so many records share a name
NEEDED = ("Command", "ProcessRegistry")


def ignore(_event: object) -> None:
    """A listener that does nothing."""


def per_call_us(call: Callable[[], object], calls: int = CALLS) -> float:
    """Median over turns of the time of one call; the empty loop around it is included."""
    turns: list[float] = []
    for _ in range(TURNS):
        began = time.perf_counter()
        for _ in range(calls):
            call()
        turns.append((time.perf_counter() - began) / calls * 1e6)
    return statistics.median(turns)


def plain(listeners: int) -> Figures:
    """Direct calls."""
    by_type: dict[type, list[Callable[[object], None]]] = {SimpleNamespace: [ignore] * listeners}
    event = SimpleNamespace(id="a")

    def publish() -> None:
        for listener in by_type.get(type(event), ()):
            listener(event)

    return {"publish_us": per_call_us(publish)}


def program(api: Any, index: int) -> Any:
    """A command whose name is shared by a few records."""
    return api.Command(f"/opt/tool-{index // SAME_NAME}", stdin="null", stdout="null", stderr="null")


def handle(index: int) -> Any:
    """As much of a `ProcessHandle` as a registry reads; there is no process."""
    types = import_module("procession._types")
    pid = 5_000_000 + index
    return SimpleNamespace(
        pid=pid,
        pidfd=None,
        ref=types.ProcessRef(pid, index),
        containment=types.Containment.GROUP,
        exit=None,
        stdin=None,
        stdout=None,
        stderr=None,
        on_exit=lambda _callback: None,
    )


def fill(api: Any, registry: Any, count: int) -> None:
    """Register `count` running processes that do not exist."""
    for index in range(count):
        command = program(api, index)
        entry = registry.register(command, id=f"p{index}", name=command.name, owner=f"owner-{index % 7}")
        entry.spawned(handle(index), 0.0)


def _publish_next(publish: Callable[[Any], int], made: Iterator[Any]) -> None:
    publish(next(made))


async def publish(api: Any, registry: Any, listeners: int, subscribers: int) -> Figures:
    """A ready-made event; the subscribers ask for another type, so they must cost nothing."""
    events = import_module("procession.events")
    for _ in range(listeners):
        registry.listen(lambda _event: None, types=(events.HealthChanged,))
    async with AsyncExitStack() as stack:
        for _ in range(subscribers):
            subscription = registry.subscribe(events.LeaderChanged)
            if hasattr(subscription, "__aenter__"):
                await stack.enter_async_context(subscription)
            elif hasattr(subscription, "__enter__"):
                stack.enter_context(subscription)
        # Ready-made, and each only once: an event is stamped when it is published.
        made = [events.HealthChanged(id="p0", probe="ready", healthy=True) for _ in range(TURNS * CALLS)]
        fill(api, registry, 1)
        figures = {"publish_us": per_call_us(partial(_publish_next, registry.publish, iter(made)))}
        if not listeners:
            figures["wants_us"] = per_call_us(lambda: registry.wants(events.HealthChanged))
    return figures


def records(api: Any, registry: Any, count: int) -> Figures:
    """Memory and time of a record, its command included, when all of them are kept."""
    fill(api, registry, 10)
    commands = [program(api, index) for index in range(10, count)]
    gc.collect()
    before, began = rss_bytes(), time.perf_counter()
    entries = [
        registry.register(command, id=f"p{index}", name=command.name, owner=f"owner-{index % 7}")
        for index, command in enumerate(commands, 10)
    ]
    for index, entry in enumerate(entries, 10):
        entry.spawned(handle(index), 0.0)
    took = time.perf_counter() - began
    gc.collect()
    return {"record_bytes": (rss_bytes() - before) / len(entries), "register_us": took / len(entries) * 1e6}


def find(api: Any, registry: Any, count: int) -> Figures:
    """Look-ups that the index must answer without a scan."""
    fill(api, registry, count)
    name = program(api, count // 2).name
    if (found := len(list(registry.find(name=name)))) != SAME_NAME:
        raise RuntimeError(f"{found} records of {SAME_NAME} found")
    middle = f"p{count // 2}"
    return {
        "find_us": per_call_us(lambda: list(registry.find(name=name)), 2_000),
        "get_us": per_call_us(lambda: registry.get(middle), 2_000),
        "by_pid_us": per_call_us(lambda: registry.by_pid(5_000_000 + count // 2), 2_000),
    }


async def measure(options: argparse.Namespace) -> Figures:
    api: Any = import_module("procession")
    async with api.ProcessRegistry() as registry:
        match options.case:
            case "publish":
                return await publish(api, registry, options.count, options.subscribers)
            case "records":
                return records(api, registry, options.count)
            case "find":
                return find(api, registry, options.count)
            case other:
                raise SystemExit(f"no such case: {other}")


def probe(peer: str) -> dict[str, object]:
    """Version, or what is missing."""
    if peer == "plain":
        return {"versions": {"limit": "direct calls"}}
    try:
        api: Any = import_module("procession")
    except ImportError as error:
        return {"missing": str(error)}
    if lacking := [name for name in NEEDED if not hasattr(api, name)]:
        return {"missing": f"procession has no {', '.join(lacking)} yet"}
    return {"versions": {"procession": api.__version__}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=("procession", "plain"))
    parser.add_argument("case")
    parser.add_argument("count", type=int, nargs="?", default=0)
    parser.add_argument("--subscribers", type=int, default=0)
    options = parser.parse_args()
    if options.case == "probe":
        print(json.dumps(probe(options.peer)))
    elif options.peer == "plain":
        print(json.dumps(plain(options.count)))
    else:
        print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
