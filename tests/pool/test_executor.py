"""The executors: a real `concurrent.futures.Executor` over a pool, and the drop-in with a loop of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading
from concurrent.futures.process import BrokenProcessPool

import pytest

from procession.pool import (
    BrokenStart,
    BrokenWorker,
    Executor,
    FunctionPool,
    NotPicklable,
    PoolConfig,
    RemoteError,
    WorkerLost,
)
from tests.programs import pool_functions as work

pytestmark = pytest.mark.row("PO2")

TWO = PoolConfig(min_size=2, max_size=2)


@pytest.mark.both_loops
async def test_a_pool_can_be_an_executor():
    loop = asyncio.get_running_loop()
    async with FunctionPool(TWO) as pool:
        executor = pool.executor()
        assert isinstance(executor, concurrent.futures.Executor)
        assert await loop.run_in_executor(executor, work.add, 1) == 2
        assert await asyncio.to_thread(lambda: list(executor.map(work.echo, range(50)))) == list(range(50))
        with pytest.raises(ValueError, match="bad"):
            await loop.run_in_executor(executor, work.fail, "bad")
        with pytest.raises(BrokenProcessPool) as caught:
            await loop.run_in_executor(executor, work.die, "kill")
        assert isinstance(caught.value, WorkerLost)
        assert await loop.run_in_executor(executor, work.add, 1) == 2
        executor.shutdown()
        with pytest.raises(RuntimeError):
            executor.submit(work.add, 1)
        assert await pool.run(work.add, 1) == 2


def test_the_drop_in_needs_no_loop():
    with Executor(2) as executor:
        assert executor.submit(pow, 2, 5).result() == 32
        assert executor.submit(work.add, 2, b=5).result() == 7
        assert list(executor.map(work.add, range(5), range(5))) == [0, 2, 4, 6, 8]
        assert executor.submit(os.getpid).result() != os.getpid()
        futures = [executor.submit(work.echo, n) for n in range(100)]
        assert {future.result() for future in concurrent.futures.as_completed(futures, 10)} == set(range(100))
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(pow, 2, 5)


def test_errors_arrive_in_the_future():
    with Executor(1) as executor:
        error = executor.submit(work.fail, "bad").exception()
        assert isinstance(error, ValueError)
        assert "raise ValueError(text)" in str(error.__cause__)
        assert isinstance(executor.submit(work.echo, lambda: 1).exception(), NotPicklable)
        lost = executor.submit(work.die, "_exit").exception()
        assert isinstance(lost, BrokenWorker)
        assert isinstance(lost, BrokenProcessPool)
        assert executor.submit(work.echo, 1).result() == 1


def test_what_waits_can_be_cancelled_what_runs_cannot():
    with Executor(1) as executor:
        running = executor.submit(work.sleep, 0.5)
        while not running.running():
            threading.Event().wait(0.005)
        waiting = [executor.submit(work.echo, n) for n in range(3)]
        assert waiting[1].cancel()
        assert not running.cancel()
        done, _ = concurrent.futures.wait(waiting, 10)
        assert done == set(waiting)
        assert [waiting[0].result(), waiting[2].result()] == [0, 2]


def test_shutdown_waits_or_cancels():
    executor = Executor(1)
    futures = [executor.submit(work.sleep, 0.1) for _ in range(4)]
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    assert futures[-1].cancelled()
    executor = Executor(1)
    future = executor.submit(work.sleep, 0.2)
    executor.shutdown(wait=False)
    assert future.result() == 0.2
    assert executor._engine is not None
    executor._engine.thread.join()


def test_workers_are_replaced_after_so_many_tasks():
    with Executor(1, max_tasks_per_child=3) as executor:
        pids = [executor.submit(work.pid).result() for _ in range(9)]
    assert [len(set(pids[n : n + 3])) for n in (0, 3, 6)] == [1, 1, 1]
    assert len(set(pids)) == 3


def test_an_initializer_runs_in_each_worker_and_its_failure_is_told():
    with Executor(1, initializer=work.begin, initargs=(7,)) as executor:
        assert executor.submit(work.started).result() == [7]
    with Executor(1, initializer=work.begin_badly) as executor:
        error = executor.submit(work.echo, 1).exception(timeout=20)
        assert isinstance(error, BrokenStart)
        assert "no begin" in str(error)


def test_bad_arguments_are_refused_as_the_standard_library_does():
    for wrong, kind in (
        (lambda: Executor(0), ValueError),
        (lambda: Executor(initializer=3), TypeError),  # type: ignore[arg-type]
        (lambda: Executor(max_tasks_per_child=0), ValueError),
        (lambda: Executor(max_tasks_per_child="3"), TypeError),  # type: ignore[arg-type]
    ):
        with pytest.raises(kind):
            wrong()
    with Executor(1) as executor, pytest.raises(ValueError, match="chunksize"):
        executor.map(work.echo, [1], chunksize=0)


SCRIPT = """
import sys
from procession.pool import Executor

def double(x):
    return 2 * x

if __name__ == "__main__":
    executor = Executor(2)
    print(list(executor.map(double, range(5))))
    {end}
"""


@pytest.mark.parametrize("end", ["executor.shutdown()", "pass", "executor.submit(double, 1)", "del executor"])
def test_functions_of_the_main_program_work_and_the_program_ends(tmp_path, end):
    script = tmp_path / "main.py"
    script.write_text(SCRIPT.format(end=end))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 2, 4, 6, 8]\n", "")


@pytest.mark.row("PO8")
def test_a_program_that_starts_without_being_asked_is_told_why_that_does_not_work(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\n"
        "from procession.pool import Executor, NotPicklable\n"
        "def double(n): return 2 * n\n"
        "if __name__ != '__main__': sys.exit(3)\n"
        "with Executor(1) as executor:\n"
        "    for _ in range(2): print(executor.submit(double, 4).exception())\n"
        "    print(executor.submit(pow, 2, 3).result())\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    first, second, third = done.stdout.splitlines()
    assert first == second
    assert "SystemExit: 3" in first
    assert 'if __name__ == "__main__"' in first
    assert (third, done.stderr) == ("8", "")


def test_an_initializer_that_raises_breaks_it_before_anybody_is_told():
    executor = Executor(1, initializer=work.begin_badly)
    with executor:
        assert isinstance(executor.submit(work.echo, 1).exception(timeout=20), BrokenStart)
        with pytest.raises(BrokenStart, match="no begin") as caught:
            executor.submit(work.echo, 1)
        assert caught.value.__cause__ is not None


def test_a_result_that_exits_when_it_is_unpickled_ends_nothing_here():
    with Executor(1) as executor:
        error = executor.submit(work.made_by_exit).exception(timeout=20)
        assert isinstance(error, NotPicklable)
        assert isinstance(executor.submit(work.fail_with_exit).exception(timeout=20), RemoteError)
        assert executor.submit(work.echo, 1).result() == 1


def test_proxies_of_a_manager_work_in_workers(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(MANAGED)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0, 1, 2] [0, 1, 2]\n", "")


MANAGED = """
import multiprocessing
from procession.pool import Executor

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        lists = manager.list(), manager.list()
        for proxy, method in zip(lists, (None, context)):
            with Executor(1, method) as executor:
                for n in range(3):
                    executor.submit(proxy.append, n).result()
        print(*map(list, lists))
"""


def test_nothing_is_accepted_when_the_program_ends(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(LATE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=30)
    text = "cannot schedule new futures after interpreter shutdown\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, 2 * text, "")


LATE = """
import atexit
from procession.pool import Executor

def late():
    for executor in (used, unused):
        try:
            executor.submit(id, None)
        except RuntimeError as error:
            print(error)

if __name__ == "__main__":
    atexit.register(late)
    used, unused = Executor(1), Executor(1)
    used.submit(id, None).result()
"""
