"""One measurement of the scheduler or of a peer, in a process of its own; the figures go to stdout as a line of JSON.

python -m benchmarks.peers.scheduler_driver queue WAY COUNT...
python -m benchmarks.peers.scheduler_driver noop|programs|submit|memory WAY COUNT [--uvloop]
python -m benchmarks.peers.scheduler_driver blocked all FEW MANY
python -m benchmarks.peers.scheduler_driver preempt|start procession COUNT [--uvloop]
python -m benchmarks.peers.scheduler_driver counts all COUNT

A figure's name is `metric`, or `case/metric` where one process measures several cases.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from benchmarks.peers import scheduler_core, scheduler_queues, scheduler_work
from benchmarks.peers._base import Figures
from benchmarks.peers.thirdparty import Uvloop


async def calls(name: str, count: int) -> Figures:
    """Calls of Python and of C functions per task, end to end."""
    way = scheduler_work.WAYS[name]
    await way(scheduler_work.WARM)
    seen = {"call": 0, "c_call": 0}

    def profile(_frame: FrameType, event: str, _argument: object) -> None:
        if event in seen:
            seen[event] += 1

    sys.setprofile(profile)
    try:
        await way(count)
    finally:
        sys.setprofile(None)
    return {"python_calls": seen["call"] / count, "c_calls": seen["c_call"] / count}


def counts(count: int) -> Figures:
    """What depends on nothing but the code, for every way that can run; so one process is enough."""
    figures: Figures = {}
    for name in ("procession", "heapq"):
        figures |= {f"count {name}/{metric}": value for metric, value in scheduler_queues.counts(name, count).items()}
    for name in scheduler_work.WAYS:
        try:
            found = asyncio.run(calls(name, count))
        except ImportError:
            continue
        figures |= {f"calls {name}/{metric}": value for metric, value in found.items()}
    return figures


def plain(case: str, way: str, sizes: list[int]) -> Figures | None:
    """What brings its own loop or needs none; ``None`` for the rest."""
    match case:
        case "queue":
            return scheduler_queues.measure(way, sizes)
        case "blocked":
            return scheduler_core.all_blocked(*sizes) | scheduler_core.scan(sizes[-1])
        case "preempt":
            return scheduler_core.preempt(sizes[0])
        case "counts":
            return counts(sizes[0])
    return None


def on_loop(case: str, way: str, count: int) -> Coroutine[Any, Any, Figures]:
    """What runs on a loop."""
    match case:
        case "noop":
            return scheduler_work.measure(way, count)
        case "programs":
            return scheduler_work.programs(way, count)
        case "submit":
            return scheduler_core.submit(count) if way == "procession" else scheduler_core.put_get(count)
        case "memory":
            return scheduler_core.memory(way, count)
        case "start":
            return scheduler_core.start(count)
    raise SystemExit(f"no such case: {case}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case")
    parser.add_argument("way")
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--uvloop", action="store_true")
    options = parser.parse_args()
    figures = plain(options.case, options.way, options.sizes)
    if figures is None:

        async def whole() -> Figures:
            return await on_loop(options.case, options.way, options.sizes[0])

        figures = Uvloop().run(whole) if options.uvloop else asyncio.run(whole())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
