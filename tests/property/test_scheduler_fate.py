"""Whatever happens, and in whatever order: every handle gets its fate once, nothing runs twice, nothing is kept.

Work that is told in advance (coroutines and simulated processes) is submitted, cancelled, preempted, timed out, retried and
closed upon at random, in virtual time. After every step the figures have to add up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from procession import Command, ProcessRegistry
from procession.errors import QueueFull, SpawnFailure
from procession.events import TaskPreempted, TaskRetried, TaskStarted
from procession.scheduler import (
    Fifo,
    Policy,
    Preemption,
    PriorityAging,
    RetryPolicy,
    Scheduler,
    SchedulerConfig,
    Task,
    TaskState,
)
from procession.scheduler._policies._deadline import EarliestDeadline
from procession.scheduler._policies._fair import FairShare
from procession.scheduler._policies._feedback import MultiLevelFeedback
from procession.scheduler._policies._slice import TimeSlice
from procession.testing import Script, SimulatedLauncher, run_virtual
from tests.scheduler.support import Told, check_over, check_sums

POLICIES: dict[str, Any] = {
    "fifo": Fifo,
    "ageing": lambda: PriorityAging(aging_factor=0.5),
    "feedback": lambda: MultiLevelFeedback(levels=3, quantum=0.5, boost=5.0),
    "fair": FairShare,
    "deadline": EarliestDeadline,
    "slices": lambda: TimeSlice(quantum=0.5),
}
SCRIPTS = {
    "quick": Script(),
    "long": Script(duration=3.0),
    "bad": Script(duration=0.5, exit=3),
    "missing": Script(refuses=SpawnFailure.NOT_FOUND),
    "deaf": Script(duration=50.0, ignores_term=True),
    "polite": Script(duration=50.0, term_delay=0.25),
    "shot": Script(duration=50.0, dies_at=1.0),
    "slow": Script(duration=1.0, start_delay=0.75),
    "tree": Script(duration=2.0, children=(Script(duration=50.0),)),
}


class Broken(Exception):
    """What work raises."""


@dataclass
class Counts:
    """How often each work was inside, and is."""

    begun: Counter[int]
    inside: Counter[int]
    most: Counter[int]


async def work(counts: Counts, number: int, kind: str, seconds: float) -> int:
    counts.begun[number] += 1
    counts.inside[number] += 1
    counts.most[number] = max(counts.most[number], counts.inside[number])
    try:
        if kind == "stubborn":  # it heeds its cancellation late, and then says what it likes
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)
                return number
        elif kind == "spiteful":
            try:
                await asyncio.sleep(seconds)
            except asyncio.CancelledError:
                raise Broken(number) from None
        elif seconds:
            await asyncio.sleep(seconds)
        if kind == "fails":
            raise Broken(number)
        return number
    finally:
        counts.inside[number] -= 1


lengths = st.sampled_from([0.0, 0.25, 1.0, 4.0])
submits = st.fixed_dictionaries(
    {
        "what": st.sampled_from(["plain", "fails", "stubborn", "spiteful", *SCRIPTS]),
        "seconds": lengths,
        "priority": st.integers(0, 4),
        "cpu": st.sampled_from([0, 0, 1, 2]),
        "memory": st.sampled_from([0, 0, 5, 10]),
        "estimate": st.sampled_from([None, None, 0.5, 3.0]),
        "timeout": st.sampled_from([None, None, 0.0, 0.5, 2.0]),
        "deadline": st.sampled_from([None, None, None, 1.0, 5.0]),
        "delay": st.sampled_from([0, 0, 0, 0.5, 2.0]),
        "retries": st.sampled_from([0, 0, 1, 3]),
        "after": st.lists(st.integers(0, 30), max_size=2),
        "preemption": st.sampled_from([None, None, "requeue", "never"]),
        "tenant": st.sampled_from(["", "a", "b"]),
        "many": st.booleans(),
    }
)
LAX: dict[str, Any] = {
    "what": "plain", "seconds": 0.0, "priority": 2, "cpu": 1, "memory": 0, "estimate": None, "timeout": None,
    "deadline": None, "delay": 0, "retries": 0, "after": [], "preemption": None, "tenant": "", "many": False,
}  # fmt: skip
steps = st.one_of(
    submits.map(lambda options: ("submit", options)),
    submits.map(lambda options: ("submit", options)),
    st.sampled_from(["long", "polite", "tree"]).map(lambda what: ("submit", LAX | {"what": what, "priority": 4})),
    st.sampled_from([0, 1]).map(lambda priority: ("submit", LAX | {"seconds": 1.0, "priority": priority})),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("kill"), st.integers(0, 30)),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0, 3.0])),
    st.tuples(st.just("turn"), st.integers(1, 4)),
    st.tuples(st.just("look"), st.integers(0, 30)),
)


class Story:
    """One scheduler, and everything that was submitted to it."""

    def __init__(self, scheduler: Scheduler, launcher: SimulatedLauncher) -> None:
        self.scheduler = scheduler
        self.launcher = launcher
        self.counts = Counts(Counter(), Counter(), Counter())
        self.tasks: list[Task[Any]] = []
        self.fates: Counter[Task[Any]] = Counter()
        self.refused = 0

    def submit(self, options: dict[str, Any]) -> None:
        now = asyncio.get_running_loop().time()
        what, number = options["what"], len(self.tasks)
        is_command = what in SCRIPTS
        more: dict[str, Any] = {
            "resources": {"cpu": options["cpu"], "memory": options["memory"]},
            "estimated_duration": options["estimate"],
            "timeout": options["timeout"],
            "delay": options["delay"],
            "tenant": options["tenant"],
            "preemption": options["preemption"],
            "retry": RetryPolicy(options["retries"], 0.25) if options["retries"] else None,
            "after": [self.tasks[i] for i in set(options["after"]) if i < number and not self.tasks[i].done()],
        }
        if options["deadline"] is not None and options["deadline"] > options["delay"]:
            more["deadline"] = now + options["deadline"]
        before = self.scheduler.statistics()
        try:
            if is_command:
                command = Command(what, grace=0.5)
                if options["many"]:
                    [task] = self.scheduler.submit_many([command], priority=options["priority"], **more)
                else:
                    task = self.scheduler.submit(command, priority=options["priority"], **more)
            else:
                args = (work, self.counts, number, what, options["seconds"])
                task = self.scheduler.submit(*args, priority=options["priority"], **more)
        except QueueFull:
            self.refused += 1
            assert self.scheduler.statistics() == before
            return
        self.tasks.append(task)
        task.add_done_callback(lambda task: self.fates.update([task]))

    async def step(self, kind: str, what: Any) -> None:
        if kind == "submit":
            self.submit(what)
        elif kind == "wait":
            await asyncio.sleep(what)
        elif kind == "turn":
            for _ in range(what):
                await asyncio.sleep(0)
        elif what < len(self.tasks):
            task = self.tasks[what]
            if kind == "cancel":
                was = task.done()
                assert task.cancel("by chance") is not was
            elif kind == "kill" and task.process is not None and task.process.id in self.launcher.handles:
                handle = self.launcher.handles[task.process.id]
                if handle.exit is None:
                    handle.send_signal(9)
            elif kind == "look":
                assert task.explain().id == task.id
                assert str(task.explain())
        check_sums(self.scheduler)

    def check(self, told: Told) -> None:
        """After the end."""
        assert len(self.fates) == len(self.tasks)
        assert set(self.fates.values()) <= {1}
        assert self.launcher.alive == []
        assert not +self.counts.inside
        assert all(most == 1 for most in self.counts.most.values()), "it ran beside itself"
        told.check()
        for task in self.tasks:
            assert task.state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.MISSED)
            if task.state is TaskState.MISSED:
                assert task.exception() is not None
            if task.state is TaskState.SUCCEEDED:
                assert task.exception() is None
                task.result()
            if task.state is TaskState.CANCELLED:
                assert type(task.exception()).__name__ == "TaskCancelled"
        for number, begun in self.counts.begun.items():
            assert begun <= self.tasks[number].attempts + self.tasks[number].preemptions + 1
        statistics = check_over(self.scheduler)
        assert statistics.submitted == len(self.tasks)
        event(f"fates: {sorted({task.state.value for task in self.tasks})}")
        if statistics.preempted:
            event("preempted")


async def happens(policy: Policy, mode: Preemption, todo: list[tuple[str, Any]], ending: str, slots: int) -> None:
    errors: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    launcher = SimulatedLauncher(SCRIPTS)
    config = SchedulerConfig(
        max_concurrent_tasks=slots,
        resources={"cpu": 2, "memory": 15},
        kept_when_suspended=frozenset({"memory"}),
        policy=policy,
        preemption=mode,
        max_queued=12,
        close_timeout=20.0,
    )
    async with ProcessRegistry() as registry:
        told = Told(registry)
        async with Scheduler(config, registry=registry, launcher=launcher, seed=1) as scheduler:
            registry.listen(lambda _event: check_sums(scheduler), types=(TaskStarted, TaskPreempted, TaskRetried))
            story = Story(scheduler, launcher)
            for step in todo:
                await story.step(*step)
            if ending == "drain":
                await scheduler.drain()
                check_over(scheduler)
            elif ending == "half":
                await asyncio.sleep(1.0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        story.check(told)
        assert registry.statistics().failures == 0
    assert errors == []


@pytest.mark.row("SC11")
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    mode=st.sampled_from(list(Preemption)),
    todo=st.lists(steps, min_size=10, max_size=40),
    ending=st.sampled_from(["drain", "close", "half"]),
    slots=st.integers(1, 3),
)
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_handle_gets_its_fate_once_and_everything_comes_back(policy, mode, todo, ending, slots):
    run_virtual(lambda: happens(POLICIES[policy](), mode, todo, ending, slots), limit=1e5, max_jumps=100_000)
