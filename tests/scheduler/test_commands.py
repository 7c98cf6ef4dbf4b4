"""Commands under a scheduler, as real processes: results, resources, time, dependencies, and their end."""

import asyncio
import sys

import pytest

from procession import Command, ProcessRegistry
from procession.errors import (
    DependencyFailed,
    ExecutionTimeout,
    ExitError,
    QueueFull,
    SignaledError,
    SpawnError,
    SpawnFailure,
    TaskCancelled,
    TaskTimeout,
)
from procession.events import ProcessExited, ProcessSpawned, TaskFinished, TaskStarted
from procession.scheduler import Job, Preemption, PriorityAging, RetryPolicy, Scheduler, SchedulerConfig
from tests.programs import program, sh
from tests.scheduler.support import Told, check_over, check_sums, config, nap

SLEEP = Command("sleep", "1000", grace=0.5)


@pytest.mark.row("SC1")
async def test_a_command_gives_what_run_would_give():
    async with Scheduler(config(2)) as scheduler:
        task = scheduler.submit(sh("cat; echo err >&2; exit 3"), input=b"hello", id="talker")
        completed = await task
        assert (completed.stdout, completed.stderr, completed.returncode) == (b"hello", b"err\n", 3)
        assert (task.state, task.attempts, task.exception(), task.result()) == ("failed", 1, None, completed)
        few = await scheduler.submit(Command("head", "-c", "1000", "/dev/zero"), max_output=10)
        assert (len(few.stdout), few.stdout_dropped) == (10, 990)
        checked = scheduler.submit(sh("echo why >&2; exit 3"), check=True)
        with pytest.raises(ExitError, match="3") as caught:
            await checked
        assert caught.value.stderr_tail == "why\n"
        shot = scheduler.submit(sh("kill -9 $$"), check=True)
        with pytest.raises(SignaledError):
            await shot
        check_over(scheduler)


@pytest.mark.row("SC1")
async def test_many_await_one_command_and_its_process_is_there_meanwhile():
    up: asyncio.Queue[int] = asyncio.Queue()
    async with Scheduler(config()) as scheduler:
        task = scheduler.submit(SLEEP, on_spawn=lambda process: up.put_nowait(process.pid))
        assert (task.process, task.started_at) == (None, 0.0)

        async def wait():
            return await task

        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(task.wait()) for _ in range(3)]
            impatient = group.create_task(wait())
            pid = await up.get()
            assert task.process is not None
            assert task.process.pid == pid
            impatient.cancel()
            await asyncio.sleep(0)
            assert task.state == "running"
            task.process.send_signal("SIGTERM")
        assert [one.result() for one in waiting] == ["failed"] * 3
        assert impatient.cancelled()
        assert (await task).returncode == -15
        assert task.process is None


@pytest.mark.row("SC5")
@pytest.mark.row("SC10")
async def test_however_it_ends_what_it_had_is_given_back_once_and_never_too_much_is_taken(tmp_path):
    loop = asyncio.get_running_loop()
    troubles: list[str] = []
    before = loop.get_exception_handler()
    loop.set_exception_handler(lambda _loop, context: troubles.append(type(context["exception"]).__name__))
    settings = SchedulerConfig(
        max_concurrent_tasks=6,
        resources={"cpu_cores": 3, "memory_mb": 100, "gpu": 1},
        policy=PriorityAging(aging_factor=0),
        preemption=Preemption.SUSPEND,
    )
    needs = {"cpu_cores": 1, "memory_mb": 20, "gpu": 0.25}

    def raising(*_args):
        raise ZeroDivisionError

    async with ProcessRegistry() as registry:
        told = Told(registry)
        async with Scheduler(settings, registry=registry) as scheduler:
            samples: list[float] = []

            def sample(event):
                found = check_sums(scheduler)
                samples.append(found.allocated["cpu_cores"])

            registry.listen(sample, types=(TaskStarted, TaskFinished))
            registry.listen(raising, types=(TaskStarted, TaskFinished, ProcessSpawned, ProcessExited))
            up = asyncio.Event()
            whole = {"cpu_cores": 3, "memory_mb": 50}
            low = Command("sleep", "0.2")
            scheduler.submit(low, resources=whole, priority=9, on_spawn=lambda _process: up.set())
            await up.wait()
            tasks = []
            for _ in range(6):
                tasks += [
                    scheduler.submit(Command("true"), resources=needs),
                    scheduler.submit(Command("false"), resources=needs),
                    scheduler.submit(SLEEP, resources=needs, timeout=0.05),
                    scheduler.submit(Command("no-such-program-anywhere"), resources=needs),
                    scheduler.submit(Command("true"), resources=needs, on_spawn=raising),
                    scheduler.submit(Command("sleep", "0.1"), resources=needs, priority=4),
                    scheduler.submit(Command("true"), resources={"cpu_cores": 3}, priority=0),
                    scheduler.submit(sh("kill -9 $$"), resources=needs, priority=1),
                ]
                tasks[-1].add_done_callback(raising)
                cancelled = scheduler.submit(SLEEP, resources=needs, priority=4)
                tasks.append(cancelled)
                loop.call_later(0.1, cancelled.cancel)
                await asyncio.sleep(0)
            await scheduler.drain()
            found = check_over(scheduler)
            assert found.submitted - 1 == len(tasks) == 54
            assert (found.cancelled, found.missed) == (6, 0)
            assert max(samples) == 3
            assert found.preempted >= 1
            assert troubles == ["ZeroDivisionError"] * 6
            states = [task.state.value for task in tasks[:9]]
            assert states[:5] == ["succeeded", "failed", "failed", "failed", "failed"]
            assert isinstance(tasks[2].exception(), ExecutionTimeout)
            assert isinstance(tasks[3].exception(), SpawnError)
            assert isinstance(tasks[4].exception(), ZeroDivisionError)
        told.check()
        assert not list(registry), "no process is left"
    loop.set_exception_handler(before)


@pytest.mark.row("SC8")
async def test_a_timeout_gives_the_output_until_then_and_leaves_no_process():
    async with Scheduler(config(2)) as scheduler:
        task = scheduler.submit(sh("echo begun; sleep 1000 & sleep 1000", grace=0.2), timeout=0.3)
        with pytest.raises(ExecutionTimeout) as caught:
            await task
        assert not isinstance(caught.value, TaskTimeout)
        assert caught.value.completed is not None
        assert (caught.value.completed.stdout, caught.value.timeout) == (b"begun\n", 0.3)
        assert caught.value.report is not None
        assert caught.value.report.is_clean
        slow = scheduler.submit(nap, 1000, timeout=0.05)
        with pytest.raises(TaskTimeout):
            await slow


@pytest.mark.row("SC8")
async def test_what_fails_is_tried_again_until_it_works(tmp_path):
    script = 'n=$(cat "$1" 2>/dev/null || echo 0); n=$((n+1)); echo $n > "$1"; test $n -ge 3'
    async with Scheduler(config(), seed=1) as scheduler:
        task = scheduler.submit(sh(script, str(tmp_path / "tries")), retry=RetryPolicy(5, 0.01))
        after = scheduler.submit(Command("cat", str(tmp_path / "tries")), after=[task])
        assert (await after).text == "3\n"
        assert (task.attempts, task.state) == (3, "succeeded")
        missing = scheduler.submit(Command("/nowhere/at/all"), retry=RetryPolicy(2, 0.01))
        follower = scheduler.submit(Command("true"), after=[missing])
        with pytest.raises(SpawnError) as caught:
            await missing
        assert (caught.value.reason, missing.attempts) == (SpawnFailure.NOT_FOUND, 3)
        with pytest.raises(DependencyFailed):
            await follower
        assert check_over(scheduler).retried == 4


@pytest.mark.row("SC9")
async def test_a_batch_of_commands_drains_in_dependency_order(tmp_path):
    log = str(tmp_path / "log")

    def write(word: str, after: list[str]) -> Job:
        return Job(sh('echo "$1" >> "$2"', word, log), id=word, after=after)

    async with Scheduler(config(4, max_queued=5)) as scheduler:
        jobs = [write("d", ["b", "c"]), write("a", []), write("b", ["a"]), write("c", ["b"])]
        with pytest.raises(QueueFull):
            scheduler.submit_many([*jobs, Command("true"), Command("true")])
        scheduler.submit_many(jobs)
        await scheduler.drain()
        check_over(scheduler)
    assert (tmp_path / "log").read_text().split() == ["a", "b", "c", "d"]


@pytest.mark.row("SC9")
async def test_who_waits_for_room_comes_in_as_commands_begin():
    async with Scheduler(config(2, max_queued=1)) as scheduler:
        async with asyncio.TaskGroup() as group:
            handles = [group.create_task(scheduler.submit_when_room(sh("exit $1", str(n)))) for n in range(8)]
        results = [await handle.result() for handle in handles]
        assert [result.returncode for result in results] == list(range(8))
        check_over(scheduler)


@pytest.mark.row("SC11")
async def test_closing_ends_everything_that_runs_and_tells_everybody():
    async with ProcessRegistry() as registry:
        told = Told(registry)
        async with Scheduler(config(8), registry=registry) as scheduler:
            spawned: asyncio.Queue[None] = asyncio.Queue()
            registry.listen(lambda event: spawned.put_nowait(None), types=ProcessSpawned)
            polite = program("polite", "0")
            tasks = [scheduler.submit(polite if n % 2 else sh("sleep 1000 & wait")) for n in range(20)]
            for _ in range(8):
                await spawned.get()
        for task in tasks:
            with pytest.raises(TaskCancelled, match="was closed"):
                task.result()
        assert check_over(scheduler).cancelled == 20
        told.check()
        assert not list(registry)


@pytest.mark.row("SC11")
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13, 30])
async def test_cancelled_at_any_time_of_its_start_it_is_gone_and_told(turns):
    async with Scheduler(config(20, resources={"gpu": 20})) as scheduler:
        tasks = [scheduler.submit(SLEEP, resources={"gpu": 1}) for _ in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        for task in tasks:
            assert await task.wait() == "cancelled"
        check_over(scheduler)


@pytest.mark.row("SC1")
async def test_python_work_and_commands_share_one_queue():
    async with Scheduler(config(3)) as scheduler:

        async def nested(depth: int) -> int:
            completed = await scheduler.submit(Command(sys.executable, "-I", "-S", "-c", f"print({depth})"))
            return int(completed.text) + (await scheduler.submit(nested, depth - 1) if depth else 0)

        async with asyncio.timeout(30):
            assert await scheduler.submit(nested, 1) == 1
        check_over(scheduler)
