"""The handle of a task: waiting for it, asking it, ending it."""

import asyncio
import contextvars
import functools
from typing import Any

import pytest

from procession import Command
from procession.errors import ProcessionError, StateError, TaskCancelled
from procession.scheduler import Preemption, RetryPolicy, Scheduler, TaskState
from procession.testing import Script, SimulatedLauncher
from tests.scheduler.support import Gate, check_over, check_sums, config, failing, nap, turns, value, virtual

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE", default="nobody's")


class Runnable:
    """Anything that is called and gives something to await."""

    def __call__(self, word):
        future = asyncio.get_running_loop().create_future()
        future.set_result(f"said {word}")
        return future


class Speaker:
    async def say(self, word):
        return word


@pytest.mark.row("SC1")
@virtual
async def test_work_is_a_coroutine_function_a_partial_a_lambda_or_anything_that_gives_an_awaitable():
    async def add(a, b=0, *, c=0):
        return a, b, c

    async with Scheduler(config(4)) as scheduler:
        assert await scheduler.submit(add, 1, 2, kwargs={"c": 3}) == (1, 2, 3)
        assert await scheduler.submit(functools.partial(add, 1, c=2)) == (1, 0, 2)
        assert await scheduler.submit(lambda: add(4)) == (4, 0, 0)
        assert await scheduler.submit(Runnable(), "hello") == "said hello"
        assert await scheduler.submit(Speaker().say, "bound") == "bound"
        check_over(scheduler)


@pytest.mark.row("SC1")
@virtual
async def test_a_command_gives_its_completed_and_shows_its_process_while_it_runs():
    launcher = SimulatedLauncher(Script(duration=5.0, stdout=b"out"))
    async with Scheduler(config(), launcher=launcher) as scheduler:
        task = scheduler.submit(Command("tool"))
        assert task.process is None
        await asyncio.sleep(1)
        process = task.process
        assert process is not None
        assert process.pid == launcher.processes[0].pid
        assert (task.state, task.attempts, task.run_time) == (TaskState.RUNNING, 1, 1.0)
        completed = await task
        assert (completed.stdout, completed.returncode) == (b"out", 0)
        assert (task.process, task.run_time, task.finished_at) == (None, 5.0, 5.0)


@pytest.mark.row("SC1")
@virtual
async def test_any_number_may_await_it_and_one_that_is_cancelled_does_not_end_it():
    gate = Gate()
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(gate)

        async def wait():
            return await task

        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(wait()) for _ in range(5)]
            await turns()
            waiting[2].cancel()
            await turns()
            assert waiting[2].cancelled()
            assert task.state == "running"
            gate.open(value=7)
        assert [one.result() for one in waiting if not one.cancelled()] == [7] * 4
        assert await task == 7
        together: Any = await asyncio.gather(task, task.wait(), wait())
        assert list(together) == [7, "succeeded", 7]


@pytest.mark.row("SC1")
@virtual
async def test_what_it_raised_comes_as_it_was_to_everybody_and_does_not_grow():
    error = KeyError("mine")
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(failing, error)
        lengths = set()
        for _ in range(5):
            with pytest.raises(KeyError) as caught:
                await task
            assert caught.value is error
            trace, length = error.__traceback__, 0
            while trace is not None:
                trace, length = trace.tb_next, length + 1
            lengths.add(length)
        assert len(lengths) == 1, "a traceback that grows with every await keeps every frame that asked"
        assert await task.wait() == "failed"
        assert task.exception() is error
        with pytest.raises(KeyError):
            task.result()


@pytest.mark.row("SC1")
@virtual
async def test_nothing_is_told_before_its_end():
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(nap, 1.0)
        for ask in (task.result, task.exception):
            with pytest.raises(StateError, match="queued"):
                ask()
        assert (task.done(), task.cancelled(), task.finished_at) == (False, False, None)
        assert await task.wait() == "succeeded"
        assert (task.done(), task.cancelled(), task.result(), task.finished_at) == (True, False, None, 1.0)


@pytest.mark.row("SC1")
@virtual
async def test_callbacks_come_soon_after_the_end_and_can_be_taken_back():
    told: list[Any] = []
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(value, 3)
        task.add_done_callback(told.append)
        task.add_done_callback(print)
        task.add_done_callback(print)
        assert task.remove_done_callback(print) == 2
        assert task.remove_done_callback(print) == 0
        await task
        await turns(1)
        assert told == [task]
        task.add_done_callback(told.append)
        assert told == [task]
        await turns(1)
        assert told == [task, task]


@pytest.mark.row("SC1")
async def test_a_callback_that_raises_is_told_to_the_loop_and_hurts_nobody():
    seen: list[str] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: seen.append(repr(context["exception"])))

    def broken(task):
        raise ZeroDivisionError(task.id)

    async with Scheduler(config()) as scheduler:
        task, other = scheduler.submit(value), scheduler.submit(value)
        task.add_done_callback(broken)
        await other
        await turns()
        assert seen == ["ZeroDivisionError('task-1')"]
        check_over(scheduler)
    loop.set_exception_handler(before)


@pytest.mark.row("SC1")
@virtual
async def test_timings_are_those_of_the_loop():
    async with Scheduler(config()) as scheduler:
        first = scheduler.submit(nap, 2.0)
        second = scheduler.submit(nap, 3.0)
        await asyncio.sleep(1.0)
        assert (first.waited, second.waited) == (0.0, 1.0)
        assert (first.run_time, second.run_time) == (1.0, 0.0)
        await second
        assert (second.submitted_at, second.queued_at, second.started_at, second.finished_at) == (0.0, 0.0, 2.0, 5.0)
        assert (second.waited, second.run_time) == (2.0, 3.0)


@pytest.mark.row("SC1")
@virtual
async def test_work_sees_the_context_of_its_submitter_and_keeps_its_own_to_itself():
    seen: list[str] = []

    async def look(name):
        seen.append(VARIABLE.get())
        VARIABLE.set(name)
        await asyncio.sleep(0)
        seen.append(VARIABLE.get())

    async with Scheduler(config()) as scheduler:
        VARIABLE.set("mine")
        first = scheduler.submit(look, "first's")
        VARIABLE.set("mine again")
        second = scheduler.submit(look, "second's")
        await first
        await second
        assert seen == ["mine", "first's", "mine again", "second's"]
        assert VARIABLE.get() == "mine again"


@pytest.mark.row("SC1")
@virtual
async def test_a_runnable_is_called_in_the_context_of_its_submitter_too():
    def call():
        return value(VARIABLE.get())

    async with Scheduler(config()) as scheduler:
        VARIABLE.set("the submitter's")
        assert await scheduler.submit(lambda: call()) == "the submitter's"  # noqa: PLW0108 - a plain function is refused
        assert await scheduler.submit(lambda: call(), tenant="somebody") == "the submitter's"  # noqa: PLW0108


@pytest.mark.row("SC1")
@virtual
async def test_what_gives_nothing_to_await_fails_and_gives_everything_back():
    async with Scheduler(config(resources={"gpu": 1})) as scheduler:
        no_work: Any = functools.partial(int, "3")
        task = scheduler.submit(no_work, resources={"gpu": 1})
        with pytest.raises(TypeError, match="await"):
            await task
        wrong = scheduler.submit(value, 1, 2, 3, resources={"gpu": 1})
        with pytest.raises(TypeError, match="argument"):
            await wrong
        assert (task.state, wrong.state) == ("failed", "failed")
        check_over(scheduler)


@pytest.mark.row("SC1")
@virtual
async def test_work_may_cancel_itself_and_the_cancellation_reaches_nothing_else():
    handles: dict[str, Any] = {}

    async def suicidal(name):
        handles[name].cancel("enough")
        await asyncio.sleep(1)

    async with Scheduler(config()) as scheduler:
        handles["a"] = scheduler.submit(suicidal, "a")
        after = [scheduler.submit(nap, 0.5) for _ in range(3)]
        with pytest.raises(TaskCancelled, match="enough"):
            await handles["a"]
        for task in after:
            await task
        check_over(scheduler)


@pytest.mark.row("SC1")
@virtual
async def test_work_that_cancels_itself_and_returns_at_once_has_succeeded_and_its_runner_is_not_used_again():
    handles: dict[str, Any] = {}

    async def suicidal():
        handles["a"].cancel()
        return "done all the same"

    async with Scheduler(config()) as scheduler:
        handles["a"] = scheduler.submit(suicidal)
        after = [scheduler.submit(nap, 0.5, "unharmed") for _ in range(3)]
        assert await handles["a"] == "done all the same"
        assert [await task for task in after] == ["unharmed"] * 3


@pytest.mark.row("SC1")
@virtual
async def test_work_that_cancels_the_asyncio_task_it_runs_in_is_cancelled_from_within():
    async def suicidal():
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async with Scheduler(config()) as scheduler:
        task, after = scheduler.submit(suicidal), scheduler.submit(nap, 0.5, "unharmed")
        with pytest.raises(TaskCancelled, match="from within"):
            await task
        assert await after == "unharmed"


@pytest.mark.row("SC1")
@virtual
async def test_work_that_swallows_its_cancellation_ends_as_it_likes():
    async def deaf(answer):
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            if isinstance(answer, Exception):
                raise answer from None
            return answer

    async with Scheduler(config(2)) as scheduler:
        stays, raises = scheduler.submit(deaf, 5), scheduler.submit(deaf, KeyError("odd"), retry=RetryPolicy(3))
        after = [scheduler.submit(nap, 0.5, "unharmed") for _ in range(4)]
        await asyncio.sleep(1)
        assert stays.cancel()
        assert raises.cancel()
        assert (str(stays.state), stays.cancel()) == ("stopping", True)
        await asyncio.sleep(0.25)
        assert await stays == 5
        with pytest.raises(KeyError):
            await raises
        assert raises.attempts == 1, "who was cancelled is not tried again"
        assert [await task for task in after] == ["unharmed"] * 4
        check_over(scheduler)


@pytest.mark.row("SC1")
@virtual
async def test_timeouts_and_groups_inside_of_work_work():
    async def grouped():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(10)
        with pytest.raises(ExceptionGroup):  # noqa: PT012 - the end of the block raises
            async with asyncio.TaskGroup() as group:
                group.create_task(failing(KeyError()))
                await asyncio.sleep(10)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with Scheduler(config()) as scheduler:
        assert await scheduler.submit(grouped) == 0
        assert await scheduler.submit(grouped) == 0


@pytest.mark.row("SC1")
@virtual
async def test_what_waits_is_cancelled_at_once_and_never_runs():
    gate = Gate()
    async with Scheduler(config()) as scheduler:
        running = scheduler.submit(gate, "running")
        queued = scheduler.submit(gate, "queued")
        delayed = scheduler.submit(gate, "delayed", delay=5)
        blocked = scheduler.submit(gate, "blocked", after=[running])
        await turns()
        for task in (queued, delayed, blocked):
            assert task.cancel("not wanted")
            assert (task.state, task.cancelled(), task.cancel()) == ("cancelled", True, False)
            with pytest.raises(TaskCancelled) as caught:
                task.result()
            assert (caught.value.id, caught.value.reason, caught.value.completed) == (task.id, "not wanted", None)
            check_sums(scheduler)
        gate.open("running")
        await scheduler.drain()
        assert gate.begun == ["running"]


@pytest.mark.row("SC1")
@virtual
async def test_what_is_cancelled_before_its_runner_has_begun_never_begins():
    gate = Gate()
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(gate)
        await asyncio.sleep(0)
        assert task.state == "running"
        assert gate.begun == []
        task.cancel()
        assert task.state == "stopping"
        assert await task.wait() == "cancelled"
        assert gate.begun == []
        check_over(scheduler)


@pytest.mark.row("SC1")
@virtual
async def test_a_cancelled_command_tells_what_it_had_written():
    launcher = SimulatedLauncher(Script(duration=100.0, stdout=[(0.0, b"begun"), (50.0, b"more")], term_delay=0.5))
    async with Scheduler(config(), launcher=launcher) as scheduler:
        task = scheduler.submit(Command("tool"))
        await asyncio.sleep(1)
        task.cancel("enough")
        with pytest.raises(TaskCancelled) as caught:
            await task
        assert caught.value.completed is not None
        assert caught.value.completed.stdout == b"begun"
        assert task.finished_at == 1.5
        assert launcher.alive == []


@pytest.mark.row("SC1")
@virtual
async def test_a_task_has_no_secrets_from_its_own_representation():
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(nap, 1, id="job", priority=7)
        assert repr(task) == "<Task job queued priority=7>"
        assert scheduler.get("job") is task
        other = scheduler.submit(nap, 1)
        assert other.id == "task-2"
        assert scheduler.get("task-2") is other
        assert repr(scheduler) == "<Scheduler open: 2 wait, 0 run>"
        await scheduler.drain()
        with pytest.raises(ProcessionError):
            scheduler.get("job")


@pytest.mark.row("SC1")
@virtual
async def test_done_tasks_keep_nothing_of_their_work():
    import gc
    import weakref

    class Big:
        pass

    big = Big()
    ref = weakref.ref(big)

    async def hold(thing):
        await asyncio.sleep(1)

    async with Scheduler(config(preemption=Preemption.REQUEUE)) as scheduler:
        task = scheduler.submit(hold, big)
        del big
        await task
        await scheduler.submit(value)
        gc.collect()
        assert ref() is None
