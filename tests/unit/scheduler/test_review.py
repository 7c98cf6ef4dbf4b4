"""What a hostile look at the scheduler has found, each kept from coming back."""

import asyncio
import functools
import gc
import pickle
import time
import traceback
import weakref
from typing import Any

import pytest

from procession import Command, ProcessRegistry
from procession.errors import Closed, ConfigError, DeadlineMissed, DependencyFailed, StateError, TaskCancelled
from procession.events import TaskFinished, TaskRetried
from procession.process import Process
from procession.scheduler import (
    EarliestDeadline,
    FairShare,
    Job,
    Preemption,
    PriorityAging,
    RetryPolicy,
    Scheduler,
    Task,
)
from procession.testing import Script, SimulatedLauncher
from tests.scheduler.support import check_over, check_sums, config, failing, nap, turns, value, virtual

# ------------------------------------------------------------------------------------------------- one after the other


@pytest.mark.row("SC8")
@virtual
async def test_what_a_task_comes_after_may_be_given_as_an_iterator():
    order = []

    async def note(name, seconds=0.0):
        await asyncio.sleep(seconds)
        order.append(name)

    async with Scheduler(config(9)) as scheduler:
        first = scheduler.submit(note, 1, 1.0)
        one, two = scheduler.submit_many([(note, 2), (note, 2)], after=iter([first]))
        jobs = [Job(note, 4, id="d", after=(name for name in ["c"])), Job(note, 3, 1.0, id="c", after=iter([one, two]))]
        scheduler.submit_many(jobs)
        await scheduler.submit_when_room(note, 5, after=iter(["d"]))
        await scheduler.drain()
    assert order == [1, 2, 2, 3, 4, 5]


@pytest.mark.row("SC8")
@virtual
async def test_the_name_a_task_was_given_by_its_number_is_as_good_as_any_other():
    async with Scheduler(config()) as scheduler:
        first = scheduler.submit(nap, 1.0)
        second = scheduler.submit(value, 2, after=[first.id])
        assert second.explain().after == (first.id,) == ("task-1",)
        assert await second == 2
        with pytest.raises(ConfigError):
            scheduler.submit(value, after=["task-1"])
        with pytest.raises(ConfigError):
            scheduler.submit(value, after=["task-99"])


@pytest.mark.row("SC8")
@virtual
async def test_the_last_of_a_long_chain_can_say_what_it_began_with():
    async with Scheduler(config()) as scheduler:
        last = first = scheduler.submit(failing, ValueError("root"), id="first")
        for _ in range(10_000):
            last = scheduler.submit(value, after=[last])
        with pytest.raises(DependencyFailed) as caught:
            await last
        told = "task-10001: not started, task-10000 did not succeed, because first did not: root"
        assert str(caught.value) == told
        assert "".join(traceback.format_exception(caught.value)).endswith(told + "\n")
        assert first.exception() is not None
    short = DependencyFailed("c", "b", DependencyFailed("b", "a", ValueError("root")))
    assert str(pickle.loads(pickle.dumps(short))) == str(short)


# ------------------------------------------------------------------------------------------------------ waiting for room


@pytest.mark.row("SC9")
@virtual
async def test_what_happens_while_a_task_waits_for_room_is_its_fate_and_no_bad_input():
    loop = asyncio.get_running_loop()
    async with Scheduler(config(max_queued=1)) as scheduler:
        running = scheduler.submit(nap, 1.0)
        await turns()
        failed = scheduler.submit(failing, ValueError("no"), id="failed")

        async def when_room(**options):
            return await (await scheduler.submit_when_room(nap, 1.0, "done", **options))

        deadline = loop.time() + 0.5
        waiting = [
            asyncio.create_task(when_room(after=[running, failed])),
            asyncio.create_task(when_room(deadline=deadline)),
            asyncio.create_task(when_room(after=[running])),
            asyncio.create_task(when_room(delay=2.0, deadline=loop.time() + 4.0, id="later")),
        ]
        await turns()
        begun = loop.time()
        dependent, late, after, delayed = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(dependent, DependencyFailed)
        assert (dependent.dependency, str(dependent.__cause__)) == ("failed", "no")
        assert isinstance(late, DeadlineMissed)
        assert late.deadline == deadline
        assert (after, delayed) == ("done", "done")
        assert loop.time() - begun == pytest.approx(3.0)  # the delay counts from the call
        await scheduler.drain()
        check_over(scheduler)


# ------------------------------------------------------------------------------------------------- faults of others


class Mute(Exception):
    def __str__(self):
        raise AttributeError("nothing to say")


@pytest.mark.row("SC11")
@virtual
async def test_an_error_that_cannot_be_shown_harms_nobody_else():
    async with ProcessRegistry() as registry:
        async with Scheduler(config(), registry=registry) as scheduler:
            tasks = [scheduler.submit(failing, Mute(), retry=RetryPolicy(1)), scheduler.submit(value, 3)]
            with pytest.raises(Mute):
                await tasks[0]
            assert await tasks[1] == 3
            assert tasks[0].attempts == 2
            check_over(scheduler)
        assert [getattr(event, "error", None) for event in registry.history(TaskRetried)] == ["Mute"]
        assert len(registry.history(TaskFinished)) == 2


@pytest.mark.row("SC9")
@virtual
async def test_a_deed_that_fails_keeps_no_other_task_from_its_fate(monkeypatch):
    async with Scheduler(config(4)) as scheduler:
        tasks = [scheduler.submit(nap, 5.0) for _ in range(3)]
        blocked = scheduler.submit(value, after=[tasks[0]])
        await turns()
        carry_out, faults = scheduler._outlet.carry_out, [OSError("EPERM")]

        def fails_once(effect):
            if faults:
                raise faults.pop()
            return carry_out(effect)

        monkeypatch.setattr(scheduler._outlet, "carry_out", fails_once)
        with pytest.raises(OSError, match="EPERM"):
            scheduler.submit(value, deadline=asyncio.get_running_loop().time() + 1).cancel()
    assert {task.state.value for task in (*tasks, blocked)} == {"cancelled"}


@pytest.mark.row("SC7")
@virtual
async def test_a_process_that_may_not_be_suspended_goes_on(monkeypatch):
    def refuse(_process):
        raise PermissionError("it is another user's by now")

    monkeypatch.setattr(Process, "suspend", refuse)
    launcher = SimulatedLauncher(Script(duration=1.0))
    async with Scheduler(config(preemption=Preemption.SUSPEND), launcher=launcher) as scheduler:
        low = scheduler.submit(Command("low"), priority=4)
        await asyncio.sleep(0.5)
        high = scheduler.submit(Command("high"), priority=0)
        assert (await high).ok
        assert (await low).ok
        check_over(scheduler)


@pytest.mark.row("SC4")
@pytest.mark.parametrize("policy", [FairShare(), EarliestDeadline(), EarliestDeadline(admission=True)], ids=repr)
@virtual
async def test_an_estimate_beyond_all_measure_is_no_fault_of_the_policy(policy):
    async with Scheduler(config(policy=policy)) as scheduler:
        task = scheduler.submit(value, 1, estimated_duration=1e305)
        assert await task == 1
        if policy.__class__ is EarliestDeadline and policy.admission:
            with pytest.raises(DeadlineMissed):
                scheduler.submit(value, estimated_duration=1e305, deadline=asyncio.get_running_loop().time() + 9)
        check_over(scheduler)


# ------------------------------------------------------------------------------------------------------------ bad input


async def _nobody(_task):
    raise AssertionError("never called")


@pytest.mark.row("SC1")
@virtual
async def test_what_is_empty_but_of_the_wrong_kind_is_refused_and_nothing_has_changed():
    async with Scheduler(config(resources={"gpu": 1})) as scheduler:
        refused: Any = (
            {"resources": []},
            {"resources": 0},
            {"resources": ""},
            {"resources": {"gpu": -1}},
            {"priority": None},
            {"kwargs": []},
            {"kwargs": 0},
            {"input": b""},
            {"max_output": 0},
        )
        for options in refused:
            with pytest.raises(ConfigError):
                scheduler.submit(value, **options)
        works: Any
        for works in (5, None, value):
            with pytest.raises(ConfigError, match="works"):
                scheduler.submit_many(works)
        assert check_sums(scheduler).submitted == 0
        task = scheduler.submit(value, 1, resources={}, kwargs={})
        assert task.id == "task-1"  # what was refused uses up no number
        callback: Any
        for callback in (None, 5, _nobody):
            with pytest.raises(ConfigError, match="callback"):
                task.add_done_callback(callback)
        given = {"of": 5}
        later = scheduler.submit(value, kwargs=given)
        given["of"] = 6
        assert (await task, await later) == (1, 5)


@pytest.mark.row("SC8")
@virtual
async def test_input_that_can_be_read_once_does_not_go_with_a_second_run():
    launcher = SimulatedLauncher(Script(duration=1.0))
    async with Scheduler(config(preemption=Preemption.REQUEUE), launcher=launcher) as scheduler:
        options: Any
        for options in ({"retry": RetryPolicy(1)}, {"preemption": "requeue"}):
            with pytest.raises(ConfigError, match="once"):
                scheduler.submit(Command("cat"), input=iter([b"once"]), **options)
        once = scheduler.submit(Command("cat"), input=iter([b"once"]), retry=RetryPolicy(0), priority=4)
        await asyncio.sleep(0.5)
        await scheduler.submit(Command("cat"), input=b"again", retry=RetryPolicy(1), priority=0)
        assert (once.state, once.preemptions) == ("succeeded", 0)


# ----------------------------------------------------------------------------------------------------- waiting for what


@pytest.mark.row("SC1")
@virtual
async def test_a_task_cannot_wait_for_itself_nor_be_waited_for_in_another_loop():
    async with Scheduler(config()) as scheduler:
        handles: list[Any] = []

        async def itself():
            return await handles[0]

        handles.append(scheduler.submit(itself))
        with pytest.raises(StateError, match="itself"):
            await handles[0]

        async def elsewhere(task):
            return await task

        running = scheduler.submit(nap, 1.0, "done")
        with pytest.raises(StateError, match="another loop"):
            await asyncio.to_thread(lambda: asyncio.run(elsewhere(running)))
        assert await running == "done"
        assert await asyncio.to_thread(lambda: asyncio.run(elsewhere(running))) == "done"  # its fate is known


# ------------------------------------------------------------------------------------------------------- leaving no trace


@pytest.mark.row("SC4")
@virtual
async def test_what_the_policy_refuses_uses_up_no_number():
    loop = asyncio.get_running_loop()
    late: Any = {"estimated_duration": 5.0, "deadline": loop.time() + 1.0}
    async with Scheduler(config(policy=EarliestDeadline(admission=True))) as scheduler:
        with pytest.raises(DeadlineMissed):
            scheduler.submit(value, **late)
        with pytest.raises(DeadlineMissed):
            scheduler.submit_many([value, Job(value, **late)])
        with pytest.raises(ConfigError):
            scheduler.submit_many([value, Job(value, priority="high")])  # type: ignore[arg-type]
        assert scheduler.submit(value).id == "task-1"
        await scheduler.drain()
        check_over(scheduler)


@pytest.mark.row("SC8")
@virtual
async def test_neither_a_chain_nor_a_long_one_keeps_what_is_over():
    async with Scheduler(config(2)) as scheduler:
        long = scheduler.submit(nap, 1000.0)
        gone: list[weakref.ref[Mute]] = []

        async def result():
            await asyncio.sleep(1.0)
            gone.append(weakref.ref(made := Mute()))
            return made

        last: Task[Any] = scheduler.submit(result)
        for _ in range(3):
            given = Mute()
            gone.append(weakref.ref(given))
            scheduler.submit(value, after=[long], kwargs={"of": given}).cancel()
            following = scheduler.submit(result, after=[last])
            await last
            last = following
        del following, given  # type: ignore[possibly-undefined]
        last = scheduler.submit(value, after=[last, long])
        await asyncio.sleep(5.0)
        gc.collect()
        assert [one() for one in gone[:-1]] == [None] * 6  # the last is known to who comes after it
        long.cancel()
        with pytest.raises(DependencyFailed):
            await last


# --------------------------------------------------------------------------------------------------- nobody starves


@pytest.mark.row("SC7")
@pytest.mark.parametrize("estimate", [None, 10.0])
@virtual
async def test_who_waits_for_what_a_suspended_one_holds_is_not_made_to_wait_for_ever_by_others_that_pass(estimate):
    launcher = SimulatedLauncher(Script(duration=10.0))
    what = {"estimated_duration": estimate}
    there = {"cpu_cores": 4, "memory_mb": 10}
    settings = config(8, resources=there, policy=PriorityAging(), preemption=Preemption.SUSPEND)
    async with Scheduler(settings, launcher=launcher) as scheduler:
        low = scheduler.submit(Command("low"), priority=4, resources={"cpu_cores": 4, "memory_mb": 8}, **what)
        await asyncio.sleep(1.0)
        scheduler.submit(Command("urgent"), priority=0, resources={"cpu_cores": 2}, preemptible=False, **what)
        await asyncio.sleep(1.0)
        assert low.state == "suspended"
        wide = scheduler.submit(Command("wide"), priority=1, resources={"memory_mb": 4}, **what)
        small: list[Task[Any]] = []
        for _ in range(500):
            while len([task for task in small if not task.done()]) < 8:
                small.append(scheduler.submit(Command("small"), resources={"cpu_cores": 1}, preemptible=False, **what))
            await asyncio.sleep(1.3)  # they would never leave four cores free at the same time
            if wide.done():
                break
        assert wide.state == low.state == "succeeded", (str(wide.explain()), str(low.explain()))


# ------------------------------------------------------------------------------------------------------ the end of it


@pytest.mark.row("SC11")
@pytest.mark.parametrize("how", ["cancel", "timeout", "requeue"])
@virtual
async def test_closing_does_not_interrupt_the_clean_up_of_what_is_being_stopped_already(how):
    seen = []

    async def careful():
        try:
            await asyncio.sleep(60.0)
        finally:
            await asyncio.sleep(1.0)
            seen.append("clean")

    async with Scheduler(config(policy=PriorityAging(), preemption=Preemption.REQUEUE)) as scheduler:
        task = scheduler.submit(careful, priority=4, timeout=5.0 if how == "timeout" else None)
        await asyncio.sleep(4.9)
        if how == "cancel":
            task.cancel("enough")
        elif how == "requeue":
            scheduler.submit(nap, 1.0, priority=0)
        await asyncio.sleep(0.2)
        assert task.state == "stopping"
    assert seen == ["clean"]
    assert task.state == "cancelled"
    with pytest.raises(TaskCancelled) as caught:
        task.result()
    assert caught.value.reason == ("enough" if how == "cancel" else "the scheduler was closed")
    check_over(scheduler)


@pytest.mark.row("SC11")
@virtual
async def test_who_cancels_twice_insists_and_the_first_reason_is_told():
    seen = []

    async def careless():
        for _ in range(3):
            try:
                await asyncio.sleep(60.0)
            except asyncio.CancelledError:
                seen.append("again")
        raise asyncio.CancelledError

    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(careless)
        for number in range(3):
            await asyncio.sleep(1.0)
            assert task.cancel(f"reason {number}")
        assert await task.wait() == "cancelled"
    assert len(seen) == 3
    assert isinstance(error := task.exception(), TaskCancelled)
    assert error.reason == "reason 0"


# ------------------------------------------------------------------------------------------------- words, and bad input


@pytest.mark.row("SC9")
@pytest.mark.row("SC10")
@virtual
async def test_short_names_do_the_same():
    scheduler = await Scheduler(config()).__aenter__()
    task = scheduler.submit(nap, 60.0)
    await asyncio.sleep(1.0)
    assert scheduler.stats() == scheduler.statistics()
    assert scheduler.stats().running == 1
    await scheduler.close()
    assert task.state == "cancelled"
    await scheduler.close()
    with pytest.raises(Closed):
        scheduler.submit(nap)


@pytest.mark.row("SC1")
@virtual
async def test_what_would_never_be_awaited_or_would_block_is_refused():
    async def late(process):
        raise AssertionError

    async with Scheduler(config()) as scheduler:
        with pytest.raises(ConfigError) as caught:
            scheduler.submit(Command("true"), on_spawn=late)
        assert caught.value.field == "on_spawn"
        with pytest.raises(ConfigError) as caught:
            scheduler.submit(functools.partial(time.sleep, 1))  # type: ignore[arg-type]
        assert caught.value.field == "work"
        assert not len(scheduler)
        assert await scheduler.submit(functools.partial(value, 3)) == 3


# -------------------------------------------------------------------------------------- a place for the more urgent


@pytest.mark.row("SC7")
@pytest.mark.parametrize("mode", [Preemption.SUSPEND, Preemption.REQUEUE])
@virtual
async def test_an_urgent_task_takes_the_place_of_a_less_urgent_one_whoever_else_has_waited_for_long(mode):
    launcher = SimulatedLauncher(Script(duration=3600.0))
    settings = config(2, resources={"cpu_cores": 2}, policy=PriorityAging(0.1), preemption=mode)
    one, two = {"cpu_cores": 1}, {"cpu_cores": 2}
    async with Scheduler(settings, launcher=launcher) as scheduler:
        low = scheduler.submit(Command("low"), priority=3, resources=one)
        await asyncio.sleep(1.0)
        lower = scheduler.submit(Command("lower"), priority=4, resources=one, preemptible=False)
        await asyncio.sleep(1.0)
        old = scheduler.submit(Command("old"), priority=4, resources=two)
        await asyncio.sleep(60.0)
        urgent = scheduler.submit(Command("urgent"), priority=0, resources=one)
        wide = scheduler.submit(Command("wide"), priority=1, resources=two)
        await asyncio.sleep(10.0)
        assert (urgent.state, lower.state, old.state, wide.state) == ("running", "running", "queued", "queued")
        assert low.state == ("suspended" if mode is Preemption.SUSPEND else "queued")
        assert urgent.waited < 6.0
        check_sums(scheduler)


@pytest.mark.row("SC5")
@virtual
async def test_a_resource_may_have_any_name_that_a_process_may_have():
    async with Scheduler(config(9, resources={"gpu-a100": 1, "license.matlab": 2, "3d": 1})) as scheduler:
        first, second = (scheduler.submit(nap, 1.0, resources={"gpu-a100": 1, "3d": 0.5}) for _ in range(2))
        await asyncio.sleep(0.5)
        assert (first.state, second.state) == ("running", "queued")
        assert second.explain().lacking == {"gpu-a100": (1.0, 0.0)}
        assert scheduler.statistics().utilisation["3d"] == 0.5
    for name in ("a b", "", "a/b", "-a", "a\nb", 3):
        with pytest.raises(ConfigError) as caught:
            config(resources={name: 1})
        assert caught.value.field == "resources"


@pytest.mark.row("SC3")
@pytest.mark.row("SC7")
@virtual
async def test_who_is_next_by_its_age_is_passed_by_urgent_ones_for_a_while_and_not_for_ever():
    settings = config(8, resources={"cpu_cores": 4}, policy=PriorityAging(0.1), preemption=Preemption.REQUEUE)
    one = {"cpu_cores": 1}
    async with Scheduler(settings) as scheduler:
        first = [
            scheduler.submit(nap, seconds, priority=0, resources=one, estimated_duration=seconds, preemptible=False)
            for seconds in (10.0, 7.0, 4.0)
        ]
        urgent, small = list(first), list[Task[Any]]()
        await asyncio.sleep(0.1)
        wide = scheduler.submit(
            nap, 1.0, priority=4, resources={"cpu_cores": 4}, estimated_duration=1.0, preemptible=False
        )
        for _ in range(10_000):  # small ones may pass it, and urgent ones take their places again and again
            while len([task for task in urgent if not task.done()]) < 5:
                urgent.append(
                    scheduler.submit(nap, 10.3, priority=0, resources=one, estimated_duration=10.3, preemptible=False)
                )
            while len([task for task in small if not task.done()]) < 6:
                small.append(scheduler.submit(nap, 1.0, priority=3, resources=one, estimated_duration=1.0))
            await asyncio.sleep(0.1)
            if wide.done():
                break
        assert wide.state == "succeeded", str(wide.explain())
        assert scheduler.statistics().preempted >= 16
