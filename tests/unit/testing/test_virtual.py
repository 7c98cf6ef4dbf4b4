"""The virtual loop: it jumps, it never hangs, and it never jumps over anything real."""

import asyncio
import math
import os
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from procession.testing._virtual import VirtualDeadlock, VirtualLivelock, VirtualLoop, run_virtual

LIVE = "procession._launch._live"


def now() -> float:
    return asyncio.get_running_loop().time()


def virtual() -> VirtualLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return loop


def test_sleeping_a_week_takes_no_time():
    async def main():
        await asyncio.sleep(7 * 86400)
        return now()

    began = time.monotonic()
    assert run_virtual(main) == 7 * 86400
    assert time.monotonic() - began < 1.0


def test_timers_fire_in_order_and_at_their_time():
    async def main():
        seen: list[tuple[str, float]] = []

        async def wait(name: str, seconds: float) -> None:
            await asyncio.sleep(seconds)
            seen.append((name, now()))

        async with asyncio.TaskGroup() as group:
            for name, seconds in (("c", 3600.0), ("a", 0.5), ("b", 60.0)):
                group.create_task(wait(name, seconds))
        return seen

    assert run_virtual(main) == [("a", 0.5), ("b", 60.0), ("c", 3600.0)]


def test_time_stands_still_while_code_runs():
    async def main():
        before = now()
        end = time.monotonic() + 0.01
        while time.monotonic() < end:
            await asyncio.sleep(0)
        return now() - before

    assert run_virtual(main) == 0.0


@pytest.mark.parametrize("start", [0.0, 1e7, 1e9, 1e12])
def test_timers_far_from_zero_are_not_lost(start):
    async def main():
        await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_at(now(), (due := asyncio.Event()).set)
        await due.wait()
        for _ in range(100):
            await asyncio.sleep(0.1)
        return now()

    assert run_virtual(main, start=start, max_jumps=300) == pytest.approx(start + 10.001, abs=start * 1e-14 + 1e-6)


def test_timeouts_strike_in_virtual_time():
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return now()

    assert run_virtual(main) == 3600


# ------------------------------------------------------------------------------------------------ dead ends


def test_a_deadlock_is_an_error_that_names_the_tasks_and_where_they_wait():
    async def stuck() -> None:
        await asyncio.Event().wait()

    async def main():
        async with asyncio.TaskGroup() as group:
            group.create_task(stuck(), name="left")
            await asyncio.sleep(5)

    with pytest.raises(VirtualDeadlock) as caught:
        run_virtual(main)
    error = caught.value
    assert error.at == 5
    left = next(task for task in error.waiting if task.name == "left")
    assert left.where.endswith("in stuck")
    assert "test_virtual.py" in left.where
    assert "left waits at" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_is_due_at_infinity_hides_no_deadlock():
    async def main():
        async with asyncio.timeout_at(math.inf):
            await asyncio.Event().wait()

    with pytest.raises(VirtualDeadlock):
        run_virtual(main)


def test_something_that_ticks_for_ever_is_a_livelock():
    async def main():
        while True:
            await asyncio.sleep(1)

    with pytest.raises(VirtualLivelock) as caught:
        run_virtual(main, max_jumps=50)
    assert caught.value.jumps == 50
    with pytest.raises(VirtualLivelock) as caught:
        run_virtual(main, limit=10)
    assert caught.value.at == 10
    assert "still not done at 10 s" in str(caught.value)


def test_the_clean_up_after_a_dead_end_can_use_time():
    seen: list[float] = []

    async def main():
        try:
            while True:
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(5)
            seen.append(now())

    with pytest.raises(VirtualLivelock):
        run_virtual(main, limit=10)
    assert seen == [15]


def test_a_clean_up_that_never_ends_is_a_note_on_the_first_error():
    with pytest.raises(KeyError) as caught:
        run_virtual(_raise_beside_a_stubborn_task)
    assert "could not be ended" in caught.value.__notes__[0]


async def _raise_beside_a_stubborn_task() -> None:
    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if len(tries) > 1:
                    raise
                tries.append(1)

    tries: list[int] = []
    task = asyncio.get_running_loop().create_task(stubborn())
    task.add_done_callback(lambda _: None)
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_exception_handler = lambda context: None  # the task is given up on purpose
    raise KeyError("first")


# ------------------------------------------------------------------------------------------- what is real


def test_ready_input_comes_before_any_jump():
    async def main():
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        got: asyncio.Future[float] = loop.create_future()
        loop.add_reader(reader, lambda: got.done() or got.set_result(loop.time()))
        loop.call_later(10, os.write, writer, b"x")
        try:
            return await got
        finally:
            loop.remove_reader(reader)
            os.close(reader)
            os.close(writer)

    assert run_virtual(main) == 10


def test_a_deadlock_counts_the_descriptors_that_are_watched():
    async def main():
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        loop.add_reader(reader, lambda: None)
        try:
            await asyncio.Event().wait()
        finally:
            loop.remove_reader(reader)
            os.close(reader)
            os.close(writer)

    with pytest.raises(VirtualDeadlock) as caught:
        run_virtual(main)
    assert caught.value.watched == 1
    assert "real_time()" in str(caught.value)


def test_a_thread_of_the_executor_is_waited_for():
    async def main():
        go = threading.Event()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(None, go.wait, 5)
        loop.call_later(0.02, go.set)
        sleeping = asyncio.ensure_future(asyncio.sleep(3600))
        assert await work
        assert 0.02 <= now() < 5
        assert not sleeping.done()
        await sleeping
        return now()

    assert 3600 <= run_virtual(main) < 3605


def test_a_cancelled_call_still_counts_while_its_thread_works():
    async def main():
        go, begun = threading.Event(), threading.Event()
        loop = virtual()
        work = asyncio.ensure_future(asyncio.to_thread(lambda: (begun.set(), go.wait(5))))
        await asyncio.sleep(0)
        begun.wait(5)
        work.cancel()
        await asyncio.wait((work,))
        assert loop.is_real
        loop.call_later(0.02, go.set)
        await asyncio.sleep(0.01)
        assert now() < 1

    run_virtual(main)


@pytest.mark.parametrize("counter", ["live", "in_flight"])
def test_a_child_of_a_launcher_is_not_jumped_over(monkeypatch, counter):
    counts = {"live": 0, "in_flight": 0}
    live = SimpleNamespace(live=lambda: counts["live"], in_flight=lambda: counts["in_flight"])
    monkeypatch.setitem(sys.modules, LIVE, live)

    async def main():
        counts[counter] = 1
        gone = threading.Timer(0.03, counts.__setitem__, (counter, 0))
        gone.start()
        began = time.monotonic()
        try:
            await asyncio.sleep(1000)
        finally:
            gone.join()
        assert 0.02 < time.monotonic() - began < 5
        return now()

    assert run_virtual(main) >= 1000


def test_a_child_of_the_loop_itself_is_not_jumped_over():
    async def main():
        loop = virtual()
        ended: asyncio.Future[None] = loop.create_future()

        class Protocol(asyncio.SubprocessProtocol):
            def process_exited(self) -> None:
                ended.set_result(None)

        transport, _ = await loop.subprocess_exec(Protocol, "sleep", "0.05", stdin=None, stdout=None, stderr=None)
        assert loop.is_real
        await ended
        spent = now()
        transport.close()
        await asyncio.sleep(100)
        return spent

    assert 0.02 < run_virtual(main) < 20


def test_inside_real_time_nothing_is_jumped_over():
    async def main():
        loop = virtual()
        began = time.monotonic()
        with loop.real_time():
            await asyncio.sleep(0.02)
        return time.monotonic() - began, loop.jumps

    spent, jumps = run_virtual(main)
    assert spent >= 0.019
    assert jumps == 0


def test_the_class_is_a_loop_factory():
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(asyncio.sleep(1e6))
        assert runner.get_loop().time() == 1e6


def test_run_virtual_takes_a_coroutine_and_passes_the_error_through():
    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        run_virtual(fail())


def test_executors_may_be_given_or_set():
    async def main():
        loop = virtual()
        with ThreadPoolExecutor(1) as pool:
            given = await loop.run_in_executor(pool, threading.get_ident)
            assert given != threading.get_ident()
        loop.set_default_executor(ThreadPoolExecutor(1, thread_name_prefix="mine"))
        name = await loop.run_in_executor(None, lambda: threading.current_thread().name)
        assert name.startswith("mine")

    run_virtual(main, debug=True)


def test_a_closed_loop_runs_nothing_in_a_thread():
    loop = VirtualLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_in_executor(None, print)


def test_a_shell_child_of_the_loop_counts_too():
    async def main():
        loop = virtual()
        ended: asyncio.Future[None] = loop.create_future()

        class Protocol(asyncio.SubprocessProtocol):
            def process_exited(self) -> None:
                ended.set_result(None)

        transport, _ = await loop.subprocess_shell(Protocol, "exit 3", stdin=None, stdout=None, stderr=None)
        await ended
        transport.close()
        return transport.get_returncode()

    assert run_virtual(main) == 3


def test_a_livelock_tells_its_jumps_after_pickling():
    error = VirtualLivelock(3.0, (), 0, 7)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "after 7 jumps" in str(error)
    assert "no task waits" in str(error)
