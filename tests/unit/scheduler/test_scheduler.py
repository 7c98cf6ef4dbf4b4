"""The scheduler as a whole, in virtual time: its life, its policies' faults, order, preemption, dependencies, time."""

import asyncio
import itertools
import logging
from typing import Any

import pytest

from procession import Command, ProcessRegistry
from procession.errors import (
    Closed,
    DeadlineMissed,
    DependencyFailed,
    ExecutionTimeout,
    ExitError,
    SchedulerError,
    SpawnError,
    SpawnFailure,
    StateError,
    TaskCancelled,
    TaskTimeout,
)
from procession.events import TaskFinished, TaskPreempted, TaskRetried, TaskStarted, TaskSubmitted
from procession.scheduler import (
    Fifo,
    Job,
    Policy,
    Preemption,
    Priority,
    PriorityAging,
    RetryPolicy,
    Scheduler,
    TaskState,
)
from procession.testing import Script, SimulatedLauncher
from tests.scheduler.support import Gate, Told, check_over, check_sums, config, failing, nap, turns, value, virtual

# ------------------------------------------------------------------------------------------------------- opening, closing


@pytest.mark.row("SC9")
@virtual
async def test_it_is_opened_once_and_closed_as_often_as_one_likes():
    scheduler = Scheduler(config())
    with pytest.raises(StateError, match="async with"):
        scheduler.submit(value)
    with pytest.raises(StateError):
        scheduler.submit_many([value])
    with pytest.raises(StateError):
        await scheduler.submit_when_room(value)
    async with scheduler:
        with pytest.raises(StateError, match="once"):
            await scheduler.__aenter__()
        assert await scheduler.submit(value, 1) == 1
        await scheduler.aclose()
        await scheduler.aclose()
        for late in (scheduler.submit, lambda work: scheduler.submit_many([work])):
            with pytest.raises(Closed):
                late(value)
        with pytest.raises(Closed):
            await scheduler.submit_when_room(value)
    with pytest.raises(StateError):
        await scheduler.__aenter__()


@pytest.mark.row("SC9")
@virtual
async def test_one_that_was_never_opened_can_be_closed_and_then_stays_closed():
    scheduler = Scheduler()
    await scheduler.aclose()
    with pytest.raises(Closed):
        scheduler.submit(value)
    with pytest.raises(StateError):
        await scheduler.__aenter__()


@pytest.mark.row("SC11")
@virtual
async def test_closing_tells_every_handle_wherever_its_task_stands():
    launcher = SimulatedLauncher(Script(duration=100.0))
    gate = Gate()
    options: dict[str, Any] = {"preemption": Preemption.SUSPEND, "resources": {"cpu_cores": 1}}
    async with Scheduler(config(2, **options), launcher=launcher) as scheduler:
        held = scheduler.submit(Command("tool"), priority=4, resources={"cpu_cores": 1})
        await asyncio.sleep(1)
        urgent = scheduler.submit(gate, "urgent", priority=0, resources={"cpu_cores": 1})
        retried = scheduler.submit(failing, KeyError("again"), retry=RetryPolicy(3, 50.0, jitter=False))
        await asyncio.sleep(1)
        running = scheduler.submit(gate, "running")
        await asyncio.sleep(1)
        queued = scheduler.submit(gate, "queued")
        delayed = scheduler.submit(gate, "delayed", delay=50)
        blocked = scheduler.submit(gate, "blocked", after=[queued])
        tasks: list[Any] = [held, urgent, retried, running, queued, delayed, blocked]
        states = ["suspended", "running", "retrying", "running", "queued", "delayed", "blocked"]
        assert [task.state.value for task in tasks] == states
        check_sums(scheduler)
    for task in tasks:
        with pytest.raises(SchedulerError) as caught:
            task.result()
        assert isinstance(caught.value, TaskCancelled)
        assert caught.value.reason == "the scheduler was closed"
    assert gate.begun == ["urgent", "running"]
    assert gate.inside == []
    assert launcher.alive == []
    assert next(signum for _, signum in launcher.processes[0].signals if signum in (18, 19)) == 19
    assert check_over(scheduler).cancelled == 7


@pytest.mark.row("SC9")
@virtual
async def test_draining_waits_for_all_that_was_accepted_and_for_what_comes_meanwhile():
    async with Scheduler(config(2)) as scheduler:
        await scheduler.drain()

        async def more(depth):
            await asyncio.sleep(1)
            if depth:
                scheduler.submit(more, depth - 1)

        scheduler.submit(more, 3)
        scheduler.submit(value, delay=2)
        scheduler.submit(failing, KeyError(), retry=RetryPolicy(1, 1.5, jitter=False))
        await scheduler.drain()
        assert asyncio.get_running_loop().time() == 4.0
        assert check_over(scheduler).submitted == 6


@pytest.mark.row("SC9")
@virtual
async def test_who_waits_for_the_end_is_told_when_the_scheduler_closes():
    for delay in (0.0, 50.0):
        async with Scheduler(config()) as scheduler:
            scheduler.submit(nap, 100, delay=delay)
            async with asyncio.timeout(10), asyncio.TaskGroup() as group:
                group.create_task(scheduler.drain())
                cancelled = group.create_task(scheduler.drain())
                await asyncio.sleep(1)
                cancelled.cancel()
                await scheduler.aclose()


@pytest.mark.row("SC9")
@virtual
async def test_work_may_close_its_own_scheduler():
    async with Scheduler(config(2)) as scheduler:
        other = scheduler.submit(nap, 100)
        task = scheduler.submit(scheduler.aclose)
        assert await task.wait() == "cancelled"
        assert await other.wait() == "cancelled"
        assert asyncio.get_running_loop().time() == 0


@pytest.mark.row("SC11")
@virtual
async def test_closing_is_cancelled_but_ends_what_it_has_begun():
    launcher = SimulatedLauncher(Script(duration=100.0, term_delay=1.0))
    async with Scheduler(config(), launcher=launcher) as scheduler:
        task = scheduler.submit(Command("tool", grace=5))
        await asyncio.sleep(1)
        closing = asyncio.get_running_loop().create_task(scheduler.aclose())
        for _ in range(3):
            await asyncio.sleep(0.1)
            closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert (task.state, launcher.alive) == (TaskState.CANCELLED, [])


@pytest.mark.row("SC11")
@virtual
async def test_work_that_ignores_its_cancellation_is_left_behind_and_its_late_end_changes_nothing(caplog):
    async def deaf():
        for _ in range(5):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                continue
        return "late"

    told: list[Any] = []
    async with ProcessRegistry() as registry:
        heard = Told(registry)
        async with Scheduler(config(close_timeout=1.0), registry=registry) as scheduler:
            task = scheduler.submit(deaf)
            task.add_done_callback(told.append)
            await asyncio.sleep(1)
        assert asyncio.get_running_loop().time() == 2.0
        with pytest.raises(TaskCancelled, match="left behind"):
            task.result()
        assert "1 task(s) ignored their cancellation" in caplog.text
        caplog.clear()
        await asyncio.sleep(100)
        assert told == [task]
        assert caplog.text == ""
        assert check_over(scheduler).cancelled == 1
        heard.check()


@pytest.mark.row("SC11")
def test_a_program_that_is_interrupted_by_its_own_work_ends_with_every_handle_told():
    tasks: list[Any] = []

    async def program(error):
        async with Scheduler(config(2)) as scheduler:
            tasks.append(scheduler.submit(nap, 100))
            tasks.append(scheduler.submit(failing, error))
            tasks.append(scheduler.submit(nap, 100))
            await scheduler.drain()

    for error in (KeyboardInterrupt("now"), SystemExit(3)):
        tasks.clear()
        with pytest.raises(type(error)):
            asyncio.run(program(error))
        assert [task.state for task in tasks] == ["cancelled", "failed", "cancelled"]
        assert tasks[1].exception() is error


@pytest.mark.row("SC11")
def test_a_loop_that_stops_while_everything_runs_leaves_no_handle_without_a_fate():
    tasks: list[Any] = []

    async def program():
        async with Scheduler(config(2)) as scheduler:
            tasks.extend(scheduler.submit(nap, 100) for _ in range(5))
            tasks.append(scheduler.submit(nap, 100, delay=50))
            await turns()
            loop = asyncio.get_running_loop()
            for task in asyncio.all_tasks():
                loop.call_soon(task.cancel)
            await tasks[-1]

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(program())
    assert {task.state for task in tasks} == {TaskState.CANCELLED}


# --------------------------------------------------------------------------------------------------- policies that raise

HOOKS = ("group", "rank", "again", "offset", "queued", "started", "stopped", "left", "settled", "quantum", "used_up")


def _raising(name):
    default = getattr(Policy, name)

    def hook(self, *args):
        if self.is_broken and name == self.hook:
            self.calls += 1
            raise ZeroDivisionError(name)
        if name == "quantum":
            return 1.0
        if name == "next_tick":
            return 1.0 if not args else None
        return default(self, *args)

    return hook


def moody(hook: str) -> Any:
    """A policy that raises in ``hook`` once ``is_broken``."""
    names = (*HOOKS, "tick") if hook != "tick" else ("next_tick", "tick")
    made = {name: _raising(name) for name in names if name != "tick" or hook == "tick"}
    policy = type("Moody", (Policy,), made)()
    policy.is_broken, policy.calls, policy.hook = False, 0, hook
    return policy


@pytest.mark.row("SC11")
@pytest.mark.parametrize("hook", [*HOOKS, "tick"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_policy_that_raises_ends_the_scheduler_and_every_handle_is_told(hook, caplog):
    caplog.set_level(logging.CRITICAL)

    @virtual
    async def scenario():
        policy, launcher = moody(hook), SimulatedLauncher(Script(duration=1.5))
        told: list[SchedulerError] = []
        tasks: list[Any] = []
        scheduler = Scheduler(config(2, policy=policy, preemption=Preemption.SUSPEND), launcher=launcher)
        async with asyncio.timeout(200):
            try:
                async with scheduler:
                    tasks += [scheduler.submit(Command("tool"), priority=4) for _ in range(3)]
                    tasks += [scheduler.submit(nap, 1.0) for _ in range(3)]
                    tasks.append(scheduler.submit(failing, KeyError(), retry=RetryPolicy(5, 0.5)))
                    tasks.append(scheduler.submit(nap, 1.0, delay=1.0, deadline=50.0))
                    last = scheduler.submit(nap, 1.0, deadline=40.0, delay=30.0, after=[tasks[0]])
                    tasks.append(last)
                    await asyncio.sleep(0.25)
                    policy.is_broken = True
                    before = scheduler.statistics()
                    try:
                        tasks.append(scheduler.submit(nap, 0.5, priority=0))
                    except SchedulerError:  # then nothing has been submitted
                        assert scheduler.statistics().submitted == before.submitted
                    tasks[5].cancel()
                    last.cancel()
                    for task in tasks:
                        await task.wait()
                    check_over(scheduler)
            except SchedulerError as error:
                told.append(error)
                with pytest.raises(Closed):
                    scheduler.submit(value)
            assert isinstance(told[0].__cause__, ZeroDivisionError)
            assert policy.calls, "the hook was never called"
            assert all(task.done() for task in tasks), [task for task in tasks if not task.done()]
            assert launcher.alive == []
            check_over(scheduler)

    scenario()


@pytest.mark.row("SC11")
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("hook", ["queued", "rank", "group", "offset"])
def test_a_policy_that_breaks_at_a_submission_ends_the_scheduler_as_if_that_had_not_been_submitted(hook, many, caplog):
    caplog.set_level(logging.CRITICAL)

    @virtual
    async def scenario():
        policy = moody(hook)
        async with ProcessRegistry() as registry:
            told = Told(registry)
            with pytest.raises(SchedulerError, match="raised ZeroDivisionError"):  # noqa: PT012 - the block's end raises
                async with Scheduler(config(policy=policy), registry=registry) as scheduler:
                    first = scheduler.submit(nap, 5)
                    await asyncio.sleep(1)
                    policy.is_broken = True
                    jobs = [Job(value, priority=1, id="x"), Job(value, priority=7, after=["x"])]
                    with pytest.raises(SchedulerError) as caught:
                        scheduler.submit_many(jobs) if many else scheduler.submit(value, priority=1, id="x")
                    assert isinstance(caught.value.__cause__, ZeroDivisionError)
                    with pytest.raises(TaskCancelled, match="the policy raised"):
                        await first
                    assert check_over(scheduler).submitted == 1
            told.check()
            assert len(told.of(TaskSubmitted)) == 1

    scenario()


class Picky(Policy):
    """Refuses what is called so, and remembers what it accepted until that has its fate."""

    def __init__(self):
        self.accepted = set()

    def admit(self, task, now):
        if "refused" in task.id:
            raise DeadlineMissed(task.id, 1.0, 2.0, "admission")
        self.accepted.add(task.id)

    def settled(self, task, now):
        self.accepted.remove(task.id)


@pytest.mark.row("SC9")
@virtual
async def test_what_a_policy_refuses_leaves_no_trace_alone_or_in_a_batch():
    policy = Picky()
    async with ProcessRegistry() as registry:
        for told in (Told(registry), None):
            more: dict[str, Any] = {} if told is None else {"registry": registry}
            async with Scheduler(config(policy=policy), **more) as scheduler:
                first = scheduler.submit(nap, 5, id="first")
                waits = scheduler.submit(nap, 5, id="waits")
                await asyncio.sleep(1)
                before = scheduler.statistics()
                with pytest.raises(DeadlineMissed):
                    scheduler.submit(value, id="refused")
                jobs = [
                    Job(value, id="a", deadline=asyncio.get_running_loop().time() + 50),
                    Job(value, id="b", delay=3),
                    Job(value, id="c", after=["waits", "a"]),
                    Job(value, id="refused"),
                ]
                with pytest.raises(DeadlineMissed):
                    scheduler.submit_many(jobs)
                assert scheduler.statistics() == before
                assert policy.accepted == {"first", "waits"}
                again = scheduler.submit_many([Job(value, number, id=id) for number, id in enumerate("abc")])
                assert [await task for task in again] == [0, 1, 2]
                assert (await first.wait(), await waits.wait()) == ("succeeded", "succeeded")
                assert policy.accepted == set()
            if told is not None:
                told.check()


@pytest.mark.row("SC11")
@pytest.mark.parametrize(
    ("hook", "answer"),
    [
        ("rank", 1.5), ("rank", None), ("offset", "x"), ("group", []), ("queued", None), ("started", None),
        ("stopped", 7), ("quantum", 0), ("quantum", -1.0), ("quantum", float("nan")), ("next_tick", float("nan")),
        ("next_tick", 0.5),
    ],
)  # fmt: skip
def test_a_policy_that_gives_no_sensible_answer_is_told_apart_from_one_that_does(hook, answer, caplog):
    caplog.set_level(logging.CRITICAL)

    @virtual
    async def scenario():
        hooks = {"tick": lambda self, now: (), hook: lambda self, *args: answer}  # next_tick is asked where tick is
        policy = type("Odd", (Policy,), hooks)()
        with pytest.raises(SchedulerError, match="raised"):  # noqa: PT012 - the end of the block raises
            async with asyncio.timeout(100), Scheduler(config(policy=policy)) as scheduler:
                tasks = [scheduler.submit(nap, 2), scheduler.submit(nap, 2)]
                with pytest.raises(TaskCancelled):
                    await tasks[1]
                await tasks[0].wait()
                check_over(scheduler)

    scenario()


# ----------------------------------------------------------------------------------------------------------------- order


@pytest.mark.row("SC2")
@virtual
async def test_the_most_urgent_goes_first_and_equals_in_the_order_they_came():
    order: list[str] = []

    async def note(name):
        order.append(name)

    async with Scheduler(config(policy=PriorityAging(aging_factor=0))) as scheduler:
        for level in (*reversed(Priority), 7, -5, 2):
            for number in range(3):
                scheduler.submit(note, f"{int(level)}.{number}", priority=level)
        await scheduler.drain()
    levels = [-5, 0, 1, 2, 2, 3, 4, 7]
    assert [int(name.split(".")[0]) for name in order] == [level for level in levels for _ in range(3)]
    assert order[:6] == ["-5.0", "-5.1", "-5.2", "0.0", "0.1", "0.2"]
    assert order[9:15] == ["2.0", "2.1", "2.2", "2.0", "2.1", "2.2"]


@pytest.mark.row("SC3")
@virtual
async def test_what_has_waited_long_enough_passes_what_is_more_urgent():
    order: list[str] = []

    async def note(name):
        order.append(name)

    async with Scheduler(config(policy=PriorityAging(aging_factor=0.5))) as scheduler:
        blocker = scheduler.submit(nap, 10)
        scheduler.submit(note, "old and idle", priority=4)  # 4 - 0.5 * 10 = -1 when its turn comes
        await asyncio.sleep(7)
        scheduler.submit(note, "urgent", priority=0)  # 0 - 0.5 * 3 = -1.5
        await asyncio.sleep(2)
        scheduler.submit(note, "urgent, too late", priority=0)  # 0 - 0.5 * 1 = -0.5
        await blocker
        await scheduler.drain()
    assert order == ["urgent", "old and idle", "urgent, too late"]


@pytest.mark.row("SC3")
@virtual
async def test_under_a_stream_of_urgent_work_nothing_starves():
    async with Scheduler(config(policy=PriorityAging(aging_factor=0.1))) as scheduler:
        idle = scheduler.submit(value, priority=Priority.BACKGROUND)

        async def stream():
            while not idle.done():
                scheduler.submit(nap, 1.0, priority=Priority.CRITICAL)
                scheduler.submit(nap, 1.0, priority=Priority.CRITICAL)
                await asyncio.sleep(1.0)

        async with asyncio.timeout(1000):
            await stream()
        assert idle.waited <= 85  # 4 levels at 0.1 a second, while twice as much comes as is done


# ------------------------------------------------------------------------------------------------------------- resources


@pytest.mark.row("SC5")
@virtual
async def test_never_more_is_taken_than_there_is_and_all_of_it_comes_back():
    async with ProcessRegistry() as registry:
        told = Told(registry)
        options: dict[str, Any] = {"resources": {"cpu_cores": 4, "gpu": 1}}
        async with Scheduler(config(8, **options), registry=registry) as scheduler:
            most = []
            registry.listen(lambda event: most.append(check_sums(scheduler).allocated["cpu_cores"]), types=TaskStarted)
            registry.listen(lambda event: check_sums(scheduler), types=TaskFinished)
            for number in range(60):
                needs = {"cpu_cores": (number % 4) + 0.1, "gpu": number % 2}
                needs["cpu_cores"] = min(4, needs["cpu_cores"])
                scheduler.submit(nap, number % 3 + 0.5, resources=needs, timeout=2.0 if number % 5 == 0 else None)
            await scheduler.drain()
            assert 3 < max(most) <= 4
            check_over(scheduler)
        told.check()


@pytest.mark.row("SC5")
@virtual
async def test_amounts_are_exact_however_small_they_are():
    async with Scheduler(config(100, resources={"cpu_cores": 1})) as scheduler:
        tasks = [scheduler.submit(nap, 1, resources={"cpu_cores": 0.1}) for _ in range(30)]
        await asyncio.sleep(0.5)
        assert [task.state.value for task in tasks].count("running") == 10
        assert scheduler.statistics().allocated == {"cpu_cores": 1.0}
        await scheduler.drain()
        check_over(scheduler)


# ------------------------------------------------------------------------------------------------------------ preemption


def preempting(slots: int = 1, **options: Any):
    more = {"policy": PriorityAging(aging_factor=0), "preemption": Preemption.SUSPEND}
    return config(slots, **(more | options))


@pytest.mark.row("SC7")
@virtual
async def test_a_suspended_command_keeps_memory_frees_cores_and_goes_on_where_it_was():
    launcher = SimulatedLauncher({"long": Script(duration=10.0), "short": Script(duration=3.0)})
    async with ProcessRegistry() as registry:
        told = Told(registry)
        settings = preempting(4, resources={"cpu_cores": 1, "memory_mb": 100})
        async with Scheduler(settings, registry=registry, launcher=launcher) as scheduler:
            low = scheduler.submit(
                Command("long"), priority=4, resources={"cpu_cores": 1, "memory_mb": 60}, timeout=10.5
            )
            await asyncio.sleep(2)
            high = scheduler.submit(Command("short"), priority=0, resources={"cpu_cores": 1, "memory_mb": 40})
            await asyncio.sleep(1)
            assert (low.state, high.state, low.preemptions) == (TaskState.SUSPENDED, TaskState.RUNNING, 1)
            assert launcher.processes[0].is_stopped
            assert check_sums(scheduler).allocated == {"cpu_cores": 1.0, "memory_mb": 100.0}
            assert str(low.explain()).startswith("task-1 is suspended and waits to go on as number 1 in the queue")
            assert low.run_time == 2.0
            await high
            assert (await low).ok, "its clock stands still while it is suspended, or it would have timed out"
            assert (low.finished_at, low.run_time, low.attempts) == (13.0, 10.0, 1)
            check_over(scheduler)
        [preempted] = told.of(TaskPreempted)
        assert (preempted.id, preempted.by, preempted.mode) == (low.id, high.id, "suspend")
        assert [event.id for event in told.of(TaskStarted)] == [low.id, high.id]


@pytest.mark.row("SC7")
@virtual
async def test_a_requeued_task_begins_again_and_that_is_no_failure():
    async with ProcessRegistry() as registry:
        told = Told(registry)
        settings = preempting(preemption=Preemption.REQUEUE)
        async with Scheduler(settings, registry=registry) as scheduler:
            gate = Gate()
            low = scheduler.submit(gate, "low", priority=4, retry=RetryPolicy(1, 0.5, jitter=False))
            await asyncio.sleep(1)
            high = scheduler.submit(nap, 2, priority=0)
            await asyncio.sleep(1)
            assert (low.state, low.preemptions, low.queued_at) == (TaskState.QUEUED, 1, 0.0)
            await high
            await asyncio.sleep(0.25)
            assert (low.state, low.attempts, gate.begun) == (TaskState.RUNNING, 1, ["low", "low"])
            gate.fail(KeyError(), "low")
            await asyncio.sleep(1)
            assert (low.state, low.attempts) == (TaskState.RUNNING, 2)
            gate.open("low", "well")
            assert await low == "well"
            assert check_over(scheduler).waited.count == 2, "each task begins to run for the first time once"
        assert [event.mode for event in told.of(TaskPreempted)] == ["requeue"]
        assert len(told.of(TaskRetried)) == 1


@pytest.mark.row("SC7")
@virtual
async def test_a_task_makes_room_only_so_often_and_not_at_all_when_it_says_so():
    launcher = SimulatedLauncher(Script(duration=10.0))
    async with Scheduler(preempting(max_preemptions=2), launcher=launcher) as scheduler:
        low = scheduler.submit(Command("tool"), priority=4)
        await asyncio.sleep(0.5)
        for _ in range(2):
            high = scheduler.submit(nap, 1, priority=0)
            await asyncio.sleep(0.5)
            assert low.state == "suspended"
            await high
            await asyncio.sleep(0.5)
            assert low.state == "running"
        high = scheduler.submit(nap, 1, priority=0)
        await asyncio.sleep(0.5)
        assert (low.state, low.preemptions) == (TaskState.RUNNING, 2)
        await scheduler.drain()

        firm = scheduler.submit(Command("tool"), priority=4, preemptible=False)
        await asyncio.sleep(0.5)
        high = scheduler.submit(nap, 1, priority=0)
        await asyncio.sleep(0.5)
        assert (firm.state, high.state) == (TaskState.RUNNING, TaskState.QUEUED)
        await scheduler.drain()
        assert scheduler.statistics().preempted == 2


@pytest.mark.row("SC7")
@virtual
async def test_one_that_is_still_being_started_makes_room_as_soon_as_it_runs():
    launcher = SimulatedLauncher({"slow": Script(duration=100.0, start_delay=2.0)})
    async with Scheduler(preempting(), launcher=launcher) as scheduler:
        low = scheduler.submit(Command("slow"), priority=4)
        await asyncio.sleep(1)
        high = scheduler.submit(nap, 1, priority=0)
        await high
        assert high.started_at == 2.0
        low.cancel()
        await low.wait()


@pytest.mark.row("SC7")
@virtual
async def test_a_suspended_task_that_is_cancelled_goes_on_so_that_it_can_clean_up():
    launcher = SimulatedLauncher(Script(duration=100.0, term_delay=0.5, term_exit=9))
    async with Scheduler(preempting(), launcher=launcher) as scheduler:
        low = scheduler.submit(Command("tool", grace=5), priority=4)
        await asyncio.sleep(1)
        gate = Gate()
        scheduler.submit(gate, priority=0)
        await asyncio.sleep(1)
        assert low.state == "suspended"
        low.cancel()
        check_sums(scheduler)
        with pytest.raises(TaskCancelled) as caught:
            await low
        assert caught.value.completed is not None
        assert caught.value.completed.returncode == 9, "its own handler ended it, not SIGKILL"
        assert low.finished_at == 2.5
        gate.open()


@pytest.mark.row("SC7")
@virtual
async def test_a_suspended_task_that_is_killed_from_outside_fails_and_gives_everything_back():
    launcher = SimulatedLauncher(Script(duration=100.0, dies_at=3.0))
    settings = preempting(2, resources={"cpu_cores": 1, "memory_mb": 10})
    async with Scheduler(settings, launcher=launcher) as scheduler:
        needs = {"cpu_cores": 1, "memory_mb": 5}
        low = scheduler.submit(Command("tool"), priority=4, resources=needs, check=True)
        await asyncio.sleep(1)
        gate = Gate()
        scheduler.submit(gate, priority=0, resources={"cpu_cores": 1})
        await asyncio.sleep(1)
        assert low.state == "suspended"
        await low.wait()
        assert low.state == "failed"
        assert check_sums(scheduler).allocated == {"cpu_cores": 1.0, "memory_mb": 0.0}
        gate.open()


# ------------------------------------------------------------------------------------------------------------- backfill


@pytest.mark.row("SC6")
@virtual
async def test_small_work_passes_a_blocked_one_without_delaying_it():
    async with Scheduler(config(8, resources={"cpu_cores": 4})) as scheduler:
        scheduler.submit(nap, 10, resources={"cpu_cores": 3}, estimated_duration=10)
        await asyncio.sleep(1)
        head = scheduler.submit(nap, 5, resources={"cpu_cores": 4}, estimated_duration=5)
        fits = scheduler.submit(nap, 8, resources={"cpu_cores": 1}, estimated_duration=8)
        late = scheduler.submit(nap, 10, resources={"cpu_cores": 1}, estimated_duration=10)
        await asyncio.sleep(1)
        why = head.explain()
        assert (why.position, why.reserved_start, why.lacking) == (0, 10.0, {"cpu_cores": (4.0, 0.0)})
        assert (fits.state, late.state) == (TaskState.RUNNING, TaskState.QUEUED)
        assert scheduler.statistics().next_start == 10.0
        await scheduler.drain()
        assert (fits.started_at, head.started_at, late.started_at) == (1.0, 10.0, 15.0)


@pytest.mark.row("SC6")
@virtual
async def test_without_backfill_nobody_passes_and_without_estimates_only_so_many_do():
    for options, passed in (({"backfill": False}, 0), ({"max_overtakes": 3}, 3)):
        async with Scheduler(config(8, resources={"cpu_cores": 4}, **options)) as scheduler:
            scheduler.submit(nap, 10, resources={"cpu_cores": 3})
            head = scheduler.submit(nap, 1, resources={"cpu_cores": 4})
            small = [scheduler.submit(nap, 1, resources={"cpu_cores": 1}) for _ in range(6)]
            await asyncio.sleep(9.5)
            assert sum(task.done() for task in small) == passed
            assert head.explain().overtaken == passed
            await scheduler.drain()


# ------------------------------------------------------------------------------------------------------------------ time


@pytest.mark.row("SC8")
@virtual
async def test_a_coroutine_that_takes_too_long_is_told_so_by_both_names():
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(nap, 10, timeout=1.5, id="slow")
        with pytest.raises(ExecutionTimeout) as caught:
            await task
        assert isinstance(caught.value, TaskTimeout)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.id, caught.value.timeout, task.finished_at) == ("slow", 1.5, 1.5)
        at_once = scheduler.submit(nap, 10, timeout=0)
        assert await at_once.wait() == "failed"
        in_time = scheduler.submit(nap, 1, timeout=1.5)
        await in_time
        check_over(scheduler)


@pytest.mark.row("SC8")
@virtual
async def test_a_command_that_takes_too_long_gives_its_output_until_then():
    launcher = SimulatedLauncher(Script(duration=100.0, stdout=[(0.5, b"a"), (2.0, b"b")]))
    async with Scheduler(config(), launcher=launcher) as scheduler:
        for task in (
            scheduler.submit(Command("tool"), timeout=1.0),
            scheduler.submit(Command("tool", timeout=1.0)),
            scheduler.submit(Command("tool", timeout=50.0), timeout="1s"),
        ):
            with pytest.raises(ExecutionTimeout) as caught:
                await task
            assert caught.value.completed is not None
            assert (caught.value.completed.stdout, caught.value.timeout) == (b"a", 1.0)
        assert launcher.alive == []


@pytest.mark.row("SC8")
@virtual
async def test_what_fails_is_tried_again_after_growing_delays_drawn_from_the_seed():
    async def starts(seed):
        async with ProcessRegistry() as registry:
            told = Told(registry)
            begun = []

            async def bad():
                begun.append(asyncio.get_running_loop().time())
                raise KeyError("bad")

            async with Scheduler(config(), registry=registry, seed=seed) as scheduler:
                origin = asyncio.get_running_loop().time()
                task = scheduler.submit(bad, retry=RetryPolicy(3, 1.0, multiplier=2.0))
                with pytest.raises(KeyError):
                    await task
                assert task.attempts == 4
                assert (task.state, check_over(scheduler).retried) == (TaskState.FAILED, 3)
            retries = told.of(TaskRetried)
            assert [event.attempt for event in retries] == [1, 2, 3]
            assert "KeyError" in retries[0].error
            told.check()
            gaps = [later - before for before, later in itertools.pairwise(begun)]
            assert gaps == pytest.approx([event.delay for event in retries])
            assert all(0 <= gap <= most for gap, most in zip(gaps, (1, 2, 4), strict=True))
            return [round(at - origin, 6) for at in begun]

    assert await starts(7) == await starts(7)
    assert await starts(7) != await starts(8)


@pytest.mark.row("SC8")
@virtual
async def test_an_exit_code_is_a_failure_for_retries_and_dependents_and_raised_only_when_asked_for():
    launcher = SimulatedLauncher({"bad": Script(exit=3), "twice": [Script(exit=1), Script(exit=1), Script()]})
    async with Scheduler(config(), launcher=launcher) as scheduler:
        task = scheduler.submit(Command("bad"))
        after = scheduler.submit(value, after=[task])
        assert (await task).returncode == 3
        assert (task.state, task.exception()) == (TaskState.FAILED, None)
        with pytest.raises(DependencyFailed) as caught:
            await after
        assert isinstance(caught.value.cause, ExitError)
        assert caught.value.__cause__ is caught.value.cause
        checked = scheduler.submit(Command("bad"), check=True)
        with pytest.raises(ExitError) as raised:
            await checked
        assert raised.value.returncode == 3
        again = scheduler.submit(Command("twice"), retry=RetryPolicy(5, 1.0, jitter=False))
        assert (await again).ok
        assert (again.attempts, again.state) == (3, TaskState.SUCCEEDED)


@pytest.mark.row("SC5")
@pytest.mark.row("SC8")
@virtual
async def test_what_cannot_be_started_is_retried_and_then_told():
    launcher = SimulatedLauncher({"none": Script(refuses=SpawnFailure.NOT_FOUND)})
    async with Scheduler(config(resources={"gpu": 1}), launcher=launcher) as scheduler:
        task = scheduler.submit(Command("none"), resources={"gpu": 1}, retry=RetryPolicy(2, 1.0, jitter=False))
        with pytest.raises(SpawnError) as caught:
            await task
        assert caught.value.reason is SpawnFailure.NOT_FOUND
        assert (task.attempts, task.finished_at) == (3, 3.0)
        check_over(scheduler)


@pytest.mark.row("SC8")
@virtual
async def test_a_deadline_that_passes_in_the_queue_is_told_and_the_work_never_runs():
    gate = Gate()
    async with Scheduler(config()) as scheduler:
        scheduler.submit(nap, 10)
        late = scheduler.submit(gate, deadline=5.0)
        in_time = scheduler.submit(value, deadline=10.5)
        follower = scheduler.submit(value, after=[late])
        with pytest.raises(DeadlineMissed) as caught:
            await late
        assert (caught.value.deadline, late.finished_at, late.state) == (5.0, 5.0, TaskState.MISSED)
        assert await in_time is None
        assert isinstance(follower.exception(), DependencyFailed)
        assert gate.begun == []
        assert check_over(scheduler).missed == 1


# ---------------------------------------------------------------------------------------------------------- dependencies


@pytest.mark.row("SC8")
@virtual
async def test_a_chain_of_ten_thousand_runs_in_order_and_fails_as_one():
    order: list[int] = []

    async def note(number):
        order.append(number)
        if number == 5000:
            raise KeyError(number)

    async with Scheduler(config(4)) as scheduler:
        tasks = [scheduler.submit(note, 0)]
        for number in range(1, 10_000):
            tasks.append(scheduler.submit(note, number, after=[tasks[-1]]))
        await scheduler.drain()
        assert order == list(range(5001))
        last = tasks[-1].exception()
        assert isinstance(last, DependencyFailed)
        assert (last.id, last.dependency) == ("task-10000", "task-9999")
        statistics = check_over(scheduler)
        assert (statistics.succeeded, statistics.failed) == (5000, 5000)


@pytest.mark.row("SC8")
@virtual
async def test_what_comes_after_several_waits_for_all_and_what_is_cancelled_counts_as_failed():
    async with Scheduler(config(3)) as scheduler:
        slow, quick, gone = scheduler.submit(nap, 3, id="slow"), scheduler.submit(nap, 1), scheduler.submit(nap, 9)
        both = scheduler.submit(value, "both", after=["slow", quick, slow])
        none = scheduler.submit(value, "none", after=[gone, slow])
        assert both.explain().after == ("slow", "task-2")
        assert str(both.explain()) == "task-4 comes after slow, task-2."
        await asyncio.sleep(2)
        assert both.explain().after == ("slow",)
        gone.cancel("no more")
        with pytest.raises(DependencyFailed, match="no more"):
            await none
        assert await both == "both"
        assert both.started_at == 3.0


@pytest.mark.row("SC8")
@virtual
async def test_what_urgent_work_waits_for_becomes_urgent_too():
    order: list[str] = []

    async def note(name):
        order.append(name)

    async with Scheduler(config(policy=PriorityAging(aging_factor=0))) as scheduler:
        blocker = scheduler.submit(nap, 1)
        await asyncio.sleep(0.5)
        first = scheduler.submit(note, "first", priority=4)
        second = scheduler.submit(note, "second", priority=4, after=[first])
        for number in range(3):
            scheduler.submit(note, f"other {number}", priority=2)
        scheduler.submit(note, "urgent", priority=0, after=[second])
        assert (first.priority, second.priority) == (0, 0)
        await blocker
        await scheduler.drain()
    assert order[:3] == ["first", "second", "urgent"]


# ---------------------------------------------------------------------------------------------------------------- events


@pytest.mark.row("SC1")
@virtual
async def test_a_registry_is_told_the_whole_story_in_order():
    async with ProcessRegistry() as registry:
        told = Told(registry)
        async with Scheduler(config(), registry=registry, name="renderer") as scheduler:
            task = scheduler.submit(nap, 2, id="job", priority=1, delay=1)
            await task
        kinds = [type(event) for event in told.events if event.id == "job"]
        assert kinds == [TaskSubmitted, TaskStarted, TaskFinished]
        assert {event.owner for event in told.events} == {"renderer"}
        submitted, started, finished = (told.of(kind)[0] for kind in kinds)
        assert submitted.priority == 1
        assert (started.attempt, started.waited) == (1, 0.0)
        assert (finished.outcome, finished.duration) == ("succeeded", 3.0)


@pytest.mark.row("SC11")
@pytest.mark.parametrize("kind", [TaskSubmitted, TaskStarted, TaskFinished, TaskRetried, TaskPreempted])
@pytest.mark.parametrize("deed", ["raise", "cancel", "cancel all", "submit", "close"])
def test_listeners_may_do_what_they_like(kind, deed, caplog):
    caplog.set_level(logging.CRITICAL)

    @virtual
    async def scenario():
        async with ProcessRegistry() as registry:
            told = Told(registry)
            launcher = SimulatedLauncher(Script(duration=2.0))
            settings = preempting(2, resources={"gpu": 2}, policy=Fifo())
            async with Scheduler(settings, registry=registry, launcher=launcher) as scheduler:
                tasks: list[Any] = []
                closing: list[asyncio.Task[None]] = []

                def act(event):
                    if deed == "raise":
                        raise ZeroDivisionError
                    if deed == "cancel":
                        scheduler.get(event.id).cancel() if kind is not TaskFinished else None
                    elif deed == "cancel all":
                        for task in tasks:
                            task.cancel()
                    elif deed == "submit" and len(tasks) < 30:
                        tasks.append(scheduler.submit(nap, 0.5, resources={"gpu": 1}, priority=2))
                    elif deed == "close" and not closing:
                        closing.append(asyncio.get_running_loop().create_task(scheduler.aclose()))
                    check_sums(scheduler)

                registry.listen(act, types=kind)
                for number in range(3):
                    needs = {"gpu": 1}
                    tasks.append(scheduler.submit(Command("tool"), priority=4, resources=needs))
                    retry = RetryPolicy(1, 0.5)
                    tasks.append(scheduler.submit(failing, KeyError(), retry=retry, resources=needs, priority=3))
                    await asyncio.sleep(0.5)
                    if number != 2 and not closing:
                        tasks.append(scheduler.submit(nap, 0.5, priority=0, resources=needs))
                    if closing:
                        break
                async with asyncio.timeout(1000):
                    for task in tasks:
                        await task.wait()
                    if closing:
                        await closing[0]
                    check_over(scheduler)
            assert launcher.alive == []
            told.check()

    scenario()


# -------------------------------------------------------------------------------------------------------------- batches


@pytest.mark.row("SC9")
@virtual
async def test_a_circle_is_shown():
    from procession.errors import ConfigError

    async with Scheduler(config()) as scheduler:
        before = scheduler.statistics()
        jobs = [Job(value, id="a", after=["c"]), Job(value, id="b", after=["a"]), Job(value, id="c", after=["b"])]
        with pytest.raises(ConfigError, match="a after c after b after a"):
            scheduler.submit_many(jobs)
        with pytest.raises(ConfigError, match="a after a"):
            scheduler.submit_many([Job(value, id="a", after=["a"])])
        assert scheduler.statistics() == before
        tasks = scheduler.submit_many([Job(value, 1, id="a", after=["b"]), Job(value, 2, id="b"), (value, 3), value])
        assert [task.id for task in tasks] == ["a", "b", tasks[2].id, tasks[3].id]
        assert [await task for task in tasks] == [1, 2, 3, None]
