"""The hot path that is written out does what the long way does, to the last figure."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession.scheduler import Scheduler, SchedulerConfig, Task
from procession.testing import run_virtual

pytestmark = pytest.mark.row("SC2")

WORKS = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 4),
        "cores": st.sampled_from((0, 0, 0, 1, 2)),
        "seconds": st.sampled_from((0.0, 0.0, 0.0, 0.5, 1.0)),
        "fails": st.booleans(),
        "more": st.integers(0, 2),
        "cancels": st.none() | st.integers(0, 9),
        "timed": st.sampled_from((None, None, None, "delay", "timeout", "after", "estimate")),
        "at": st.sampled_from((0.0, 0.0, 0.5, 2.0)),
    }
)


async def outcome(plan, slots, *, long):
    """What happened when, in which order, and what the scheduler counted."""
    story: list[Any] = []
    tasks: list[Task[Any]] = []
    config = SchedulerConfig(max_concurrent_tasks=slots, resources={"cpu_cores": 2})
    async with Scheduler(config) as scheduler:
        if long:
            scheduler._short = scheduler._runners._short = None
        assert long or scheduler._short is not None
        loop = asyncio.get_running_loop()

        async def work(name, one, depth):
            story.append(("begins", name, loop.time()))
            for number in range(one["more"] if depth < 2 else 0):
                submit(f"{name}.{number}", {**one, "more": 1, "timed": None, "cancels": None}, depth + 1)
            if one["cancels"] is not None and one["cancels"] < len(tasks):
                tasks[one["cancels"]].cancel("by another")
            if one["seconds"]:
                await asyncio.sleep(one["seconds"])
            story.append(("ends", name, loop.time()))
            if one["fails"]:
                raise ValueError(name)
            return name

        def submit(name, one, depth=0):
            options: dict[str, Any] = {}
            if one["timed"] == "after":
                after = [task for task in tasks[-1:] if not task.done()]
                options = {"after": after}
            elif one["timed"] is not None:
                option = {"delay": "delay", "timeout": "timeout", "estimate": "estimated_duration"}[one["timed"]]
                options = {option: 0.75}
            resources = {"cpu_cores": one["cores"]} if one["cores"] else None
            tasks.append(
                scheduler.submit(work, name, one, depth, priority=one["priority"], resources=resources, **options)
            )

        for index, one in enumerate(sorted(plan, key=lambda one: one["at"])):
            if loop.time() < one["at"]:
                await asyncio.sleep(one["at"] - loop.time())
            submit(str(index), one)
        await scheduler.drain()
        figures = scheduler.statistics()
    assert all(task.done() for task in tasks)
    fates = [(task.state, repr(task._value), repr(task._error), task.waited, task.run_time) for task in tasks]
    return story, fates, figures


@settings(max_examples=500, deadline=None)
@given(plan=st.lists(WORKS, max_size=10), slots=st.integers(1, 4))
def test_both_ways_lead_to_the_same(plan, slots):
    short = run_virtual(lambda: outcome(plan, slots, long=False))
    long = run_virtual(lambda: outcome(plan, slots, long=True))
    assert short == long


def test_the_short_way_is_really_taken(monkeypatch):
    from procession.scheduler._short_way import ShortWay

    taken = []
    turn = ShortWay.turn

    def counted(self, task, value, now):
        following = turn(self, task, value, now)
        taken.append(following is not None)
        return following

    monkeypatch.setattr(ShortWay, "turn", counted)

    async def main():
        async with Scheduler(SchedulerConfig(max_concurrent_tasks=2)) as scheduler:

            async def work():
                return 1

            tasks: list[Task[int]] = [scheduler.submit(work) for _ in range(100)]
            assert sum([await task for task in tasks]) == 100

    run_virtual(main)
    assert sum(taken) >= 95
