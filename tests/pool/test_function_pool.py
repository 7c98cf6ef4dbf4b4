"""`FunctionPool` with real workers, on both loops: calls, errors, payloads, output."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import os
import socket
import sys

import pytest

from procession import ConfigError, Priority, ProcessRegistry, ProcessState
from procession.errors import PoolError, SpawnError, SpawnFailure
from procession.pool import (
    FunctionPool,
    MessageTooLarge,
    NotPicklable,
    PoolClosed,
    PoolConfig,
    PoolExhausted,
    RemoteError,
    RemoteTraceback,
    WorkerOutput,
    WorkerStartError,
)
from tests.programs import pool_functions as work

pytestmark = [pytest.mark.both_loops, pytest.mark.row("PO2")]

ONE = PoolConfig(min_size=1, max_size=1)
TWO = PoolConfig(min_size=2, max_size=2)
METHODS = pytest.mark.parametrize("method", ["template", "spawn"])


@METHODS
async def test_a_function_runs_elsewhere(method):
    async with FunctionPool(PoolConfig(min_size=1, max_size=1, start_method=method)) as pool:
        assert await pool.run(work.add, 2, kwargs={"b": 3}) == 5
        assert await pool.run(work.pid) != os.getpid()
        assert await pool.run(functools.partial(work.add, 5), 6) == 11
        assert await pool.run("abc".upper) == "ABC"
        assert await pool.run(len, [1, 2, 3]) == 3
        assert await pool.run(int, "12") == 12


@METHODS
async def test_workers_are_processes_of_the_registry(method):
    config = PoolConfig(min_size=2, max_size=2, start_method=method)
    async with ProcessRegistry() as registry:
        async with FunctionPool(config, registry=registry, name="calls") as pool:
            workers = registry.find(owner="calls", name="worker")
            assert len(workers) == 2
            assert {await pool.run(work.pid) for _ in range(8)} <= {record.pid for record in workers}
            assert all(record.state is ProcessState.RUNNING for record in workers)
            named, seen = await pool.run(work.cookies)
            assert any(named.endswith(record.id) for record in workers)
            assert f"PROCESSION_ID={named}".encode() in seen.split(b"\0")
        assert len(registry) == 0
        ends = [str(record.exit) for record in registry.ended(owner="calls", name="worker")]
        assert ends == ["exit 0", "exit 0"]


async def test_many_calls_at_once_all_come_back():
    async with FunctionPool(TWO) as pool:
        values = await asyncio.gather(*(pool.run(work.echo, n) for n in range(500)))
        assert values == list(range(500))
        assert pool.statistics().ok == 500


async def test_map_keeps_the_order_or_not_and_takes_items_as_it_goes():
    async with FunctionPool(TWO) as pool:
        assert [n async for n in pool.map(work.echo, range(100))] == list(range(100))
        assert {n async for n in pool.map(work.echo, range(100), ordered=False)} == set(range(100))
        taken = []

        async def endless():
            n = 0
            while True:
                taken.append(n)
                yield n
                n += 1

        values = pool.map(work.echo, endless(), max_in_flight=4)
        assert [await anext(values) for _ in range(10)] == list(range(10))
        assert len(taken) <= 10 + 2 * 4
        await values.aclose()


async def test_map_hands_out_results_while_its_source_lets_it_wait():
    async with FunctionPool(TWO) as pool:
        questions: asyncio.Queue[int] = asyncio.Queue()
        questions.put_nowait(1)

        async def follow_ups():
            while (question := await questions.get()) < 5:
                yield question

        answers = []
        async with asyncio.timeout(20):
            async for answer in pool.map(work.echo, follow_ups()):
                answers.append(answer)
                questions.put_nowait(answer + 1)
        assert answers == [1, 2, 3, 4]


async def test_what_ends_map_ends_its_source_too():
    ended = []

    async def stuck():
        yield 1
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async with FunctionPool(TWO) as pool:
        values = pool.map(work.echo, stuck())
        assert await anext(values) == 1
        await values.aclose()
        assert ended

        async def broken():
            yield 1
            raise KeyError("the source")

        with pytest.raises(KeyError, match="the source"):
            [value async for value in pool.map(work.echo, broken())]


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
async def test_map_keeps_to_the_bound_of_the_queue(ordered, waiting):
    async def slowly():
        for number in range(40):
            await asyncio.sleep(0)
            yield number

    async with FunctionPool(PoolConfig(min_size=1, max_size=1, max_waiting=2)) as pool:
        values = []
        async for value in pool.map(work.echo, slowly() if waiting else range(40), ordered=ordered):
            assert pool.statistics().waiting <= 2
            values.append(value)
            if value % 8 == 0:
                await asyncio.sleep(0.001)  # takes its time now and then
        assert sorted(values) == list(range(40))


async def test_map_ends_with_the_first_error():
    async with FunctionPool(TWO) as pool:
        seen = []
        with pytest.raises(ValueError, match="bad"):  # noqa: PT012
            async for value in pool.map(work.echo, [1, 2]):
                seen.append(value)  # noqa: PERF401
            async for value in pool.map(work.fail, ["bad"]):
                seen.append(value)  # noqa: PERF401
        assert seen == [1, 2]


async def test_submit_gives_a_future():
    async with FunctionPool(ONE) as pool:
        future = pool.submit(work.add, 1)
        assert isinstance(future, asyncio.Future)
        assert await future == 2


async def test_a_call_can_be_described_and_made_later():
    async with FunctionPool(ONE) as pool:
        call = pool.call(work.add, 1, kwargs={"b": 5}, timeout=5)
        assert await call() == 6
        assert await call() == 6
        with pytest.raises(ConfigError):
            pool.call(work.add, bogus=1)


@pytest.mark.row("PO7")
async def test_urgent_calls_go_first():
    async with FunctionPool(ONE) as pool:
        order = []

        async def call(name, priority):
            await pool.run(work.echo, name, priority=priority)
            order.append(name)

        blocker = asyncio.create_task(pool.run(work.sleep, 0.2))
        await asyncio.sleep(0)
        calls = [("low", Priority.LOW), ("normal", Priority.NORMAL), ("high", Priority.HIGH), ("high2", Priority.HIGH)]
        await asyncio.gather(blocker, *(call(*one) for one in calls))
        assert order == ["high", "high2", "normal", "low"]


@pytest.mark.row("PO7")
async def test_no_more_wait_than_may():
    async with FunctionPool(ONE.replace(max_waiting=1)) as pool:
        running = pool.submit(work.sleep, 0.2)
        waiting = pool.submit(work.echo, 1)
        with pytest.raises(PoolExhausted) as caught:
            await pool.run(work.echo, 2)
        assert caught.value.limit == 1
        await asyncio.gather(running, waiting)


# ------------------------------------------------------------------------------------------- what fails


@pytest.mark.row("PO8")
async def test_an_exception_comes_back_as_it_is_with_where_it_was_raised():
    async with FunctionPool(ONE) as pool:
        with pytest.raises(ValueError, match="no good") as caught:
            await pool.run(work.fail, "no good")
        assert isinstance(caught.value.__cause__, RemoteTraceback)
        assert "raise ValueError(text)" in str(caught.value.__cause__)
        assert pool.statistics().errors == 1


@pytest.mark.row("PO8")
@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (work.fail_oddly, "tests.programs.pool_functions.Odd"),
        (work.fail_closed, "tests.programs.pool_functions.Closed"),
        (work.fail_base, "KeyboardInterrupt"),
        (work.fail_stop, "StopIteration"),
    ],
)
async def test_what_cannot_be_raised_here_is_told_of(function, kind):
    async with FunctionPool(ONE) as pool:
        who = await pool.run(work.pid)
        with pytest.raises(RemoteError) as caught:
            await pool.run(function)
        assert caught.value.kind == kind
        assert "raise " in caught.value.traceback
        assert await pool.run(work.pid) == who


@pytest.mark.row("PO8")
async def test_what_cannot_travel_costs_no_worker(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)  # as where it is not installed
    async with FunctionPool(ONE) as pool:
        who = await pool.run(work.pid)
        with pytest.raises(NotPicklable) as caught:
            await pool.run(lambda: 1)
        assert caught.value.what == "function"
        with pytest.raises(NotPicklable) as caught:
            await pool.run(work.echo, lambda: 1)
        assert (caught.value.what, caught.value.kind) == ("arguments", "function")
        with pytest.raises(NotPicklable) as caught:
            await pool.run(functools.partial(work.echo, lambda: 1))
        with pytest.raises(NotPicklable) as caught:
            await pool.run(work.lambda_result)
        assert caught.value.what == "result"
        with pytest.raises(NotPicklable) as caught:
            await pool.run(work.bad_result)
        assert caught.value.what == "result"
        with pytest.raises(NotPicklable) as caught:
            await pool.run(work.echo, work.BadState())
        assert caught.value.what == "arguments"
        assert await pool.run(work.pid) == who


@pytest.mark.row("PO8")
async def test_with_cloudpickle_anything_travels():
    pytest.importorskip("cloudpickle")
    async with FunctionPool(ONE) as pool:
        factor = 3
        assert await pool.run(lambda x: x * factor, 5) == 15
        assert await pool.run(map_with, lambda x: x + 1, [1, 2]) == [2, 3]
        assert await pool.run(functools.partial(lambda a, b: a - b, 5), 2) == 3
        with pytest.raises(NotPicklable):
            await pool.run(work.echo, asyncio.get_running_loop())


def map_with(function, items):
    return list(map(function, items))


@pytest.mark.row("PO8")
async def test_what_is_too_large_costs_no_worker():
    async with FunctionPool(ONE.replace(max_message_mb=1)) as pool:
        who = await pool.run(work.pid)
        with pytest.raises(MessageTooLarge) as caught:
            await pool.run(work.length, bytes(1 << 21))
        assert (caught.value.what, caught.value.limit) == ("arguments", 1 << 20)
        with pytest.raises(MessageTooLarge) as caught:
            await pool.run(work.blob, 1 << 21)
        assert caught.value.what == "result"
        assert await pool.run(work.pid) == who


async def test_bad_options_are_refused_before_anything_happens():
    async with FunctionPool(ONE) as pool:
        for options in (
            {"timeout": -1},
            {"timeout": float("nan")},
            {"retries": -1},
            {"retries": True},
            {"retries": "x"},
            {"priority": "high"},
            {"priority": 1.5},
            {"kwargs": 5},
            {"kwargs": ["b"]},
        ):
            with pytest.raises(ConfigError):
                await pool.run(work.echo, 1, **options)
        with pytest.raises(ConfigError):
            await pool.run(3)  # type: ignore[arg-type]
        for n in (0, -1, True, 1.5):
            with pytest.raises(ConfigError):
                await pool.scale_up(n)  # type: ignore[arg-type]
        assert pool.statistics().ok == 0
    for config in (3, {"min_size": 1}):
        with pytest.raises(ConfigError):
            FunctionPool(config)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        FunctionPool(name="no name")


async def test_a_closed_pool_says_so():
    pool = FunctionPool(ONE)
    with pytest.raises(PoolClosed):
        await pool.run(work.echo, 1)
    async with pool:
        pass
    for _ in range(2):
        with pytest.raises(PoolClosed):
            await pool.run(work.echo, 1)
        with pytest.raises(PoolClosed):
            pool.submit(work.echo, 1)
        await pool.aclose()
    with pytest.raises(PoolError):
        await pool.__aenter__()


# ---------------------------------------------------------------------------------------- what is begun


@METHODS
async def test_each_worker_begins_as_it_was_told(method):
    config = PoolConfig(min_size=1, max_size=1, start_method=method, initializer=work.begin, initargs=(5,))
    async with FunctionPool(config) as pool:
        assert await pool.run(work.started) == [5]


@METHODS
async def test_state_lives_as_long_as_its_worker(method):
    lines: list[WorkerOutput] = []
    config = PoolConfig(max_size=1, start_method=method, worker_state=work.Model, on_output=lines.append)
    async with FunctionPool(config) as pool:
        assert await pool.run(work.use_model) == (True, 1)
        assert await pool.run(work.use_model) == (True, 2)
    assert [line.text for line in lines] == ["model closed after 2"]


@METHODS
@pytest.mark.parametrize(
    ("initializer", "says"), [(work.begin_badly, "no begin"), (work.begin_and_die, "ended before it was ready")]
)
async def test_a_pool_that_cannot_begin_says_why_and_leaves_nothing(method, initializer, says):
    with pytest.raises(WorkerStartError, match=says) as caught:
        async with FunctionPool(PoolConfig(max_size=2, start_method=method, initializer=initializer)):
            pass
    if initializer is work.begin_and_die:
        assert caught.value.exit is not None
        assert caught.value.exit.returncode == 9
        assert "cannot" in caught.value.stderr_tail


async def test_a_worker_that_never_becomes_ready_is_given_up():
    with pytest.raises(WorkerStartError, match=r"not ready after 0\.5 s"):
        async with FunctionPool(PoolConfig(initializer=work.begin_slowly, start_timeout=0.5)):
            pass


async def test_who_calls_a_pool_that_fails_to_begin_is_told():
    pool = FunctionPool(PoolConfig(min_size=1, max_size=1, initializer=work.fail, initargs=("no",)))
    entering = asyncio.create_task(pool.__aenter__())
    await asyncio.sleep(0)
    calling = asyncio.create_task(pool.run(work.echo, 1))
    with pytest.raises(WorkerStartError):
        await entering
    with pytest.raises(PoolClosed):
        async with asyncio.timeout(10):
            await calling


async def test_a_lack_of_descriptors_is_told_as_such(monkeypatch):
    def exhausted(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    async with FunctionPool(PoolConfig(min_size=0, max_size=1, start_failures=1)) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(socket, "socketpair", exhausted)
            with pytest.raises(SpawnError) as caught:
                await pool.run(work.echo, 1)
        assert caught.value.reason is SpawnFailure.FD_LIMIT
        assert await pool.run(work.echo, 1) == 1


async def test_what_is_preloaded_is_there_in_every_worker():
    async with FunctionPool(TWO.replace(preload=["decimal"])) as pool:
        assert "decimal" in await pool.run(loaded)
    with pytest.raises(WorkerStartError, match="no_such_module"):
        async with FunctionPool(TWO.replace(preload=["no_such_module"])):
            pass


loaded = functools.partial(eval, "set(__import__('sys').modules)")


# --------------------------------------------------------------------------------------------- payloads


@pytest.mark.row("PO9")
async def test_large_payloads_arrive_as_what_they_were():
    async with FunctionPool(ONE) as pool:
        data = os.urandom(3 << 20)
        assert await pool.run(work.echo, data) == data
        assert await pool.run(work.echo, bytearray(data)) == bytearray(data)
        assert await pool.run(work.echo, [data, data]) == [data, data]
        sizes = (0, 1, 32767, 32768, 32769, 65511, 65512, 65535, 65536, 65537, 200_000)
        for size in sizes:
            value = os.urandom(size)
            assert await pool.run(work.echo, value) == value
            assert await pool.run(work.echo, (size, value)) == (size, value)
        assert await pool.run(work.kind_of, data, bytearray(data), [data]) == ["bytes", "bytearray", "list"]
        assert isinstance(await pool.run(work.echo, data), bytes)
        assert isinstance(await pool.run(work.echo, bytearray(data)), bytearray)
        assert isinstance(await pool.run(work.echo, bytearray(40_000)), bytearray)
        mine = bytearray(data)
        theirs = await pool.run(work.flip, mine)
        assert theirs[0] == data[0] ^ 0xFF
        assert mine == data


@pytest.mark.row("PO9")
async def test_large_payloads_do_not_stop_the_loop():
    async with FunctionPool(TWO) as pool:
        data = bytes(8 << 20)
        await pool.run(work.length, data)
        loop = asyncio.get_running_loop()
        worst, stop = 0.0, False

        async def watch():
            nonlocal worst
            last = loop.time()
            while not stop:
                await asyncio.sleep(0)
                now = loop.time()
                worst, last = max(worst, now - last), now

        watching = asyncio.create_task(watch())
        await asyncio.gather(*(pool.run(work.echo, data) for _ in range(8)))
        stop = True
        await watching
        print(f"longest turn of the loop: {worst * 1000:.1f} ms")
        assert worst < 0.2  # a gross bound: the benchmark has the fine one


# ----------------------------------------------------------------------------------------------- output


@pytest.mark.row("PO8")
@METHODS
async def test_what_workers_say_arrives_and_says_from_whom(method, caplog):
    lines: list[WorkerOutput] = []
    config = PoolConfig(max_size=1, start_method=method, on_output=lines.append)
    with caplog.at_level(logging.INFO):
        async with FunctionPool(config, name="talkers") as pool:
            who = await pool.run(work.pid)
            assert await pool.run(work.speak, "hello") == "hello"
    assert {(line.stream, line.text) for line in lines} == {
        ("stdout", "hello"),
        ("stderr", "HELLO"),
        ("stdout", "raw"),
    }
    assert {(line.pool, line.pid) for line in lines} == {("talkers", who)}
    logged = {record.name: record for record in caplog.records if record.name in ("tests.pool", "py.warnings")}
    assert logged["tests.pool"].getMessage() == "logged hello"
    assert logged["tests.pool"].worker_pid == who
    assert "UserWarning: warned hello" in logged["py.warnings"].getMessage()


@pytest.mark.row("PO8")
async def test_by_default_output_goes_to_the_log(caplog):
    with caplog.at_level(logging.INFO, "procession.pool.output"):
        async with FunctionPool(ONE, name="talkers") as pool:
            await pool.run(work.speak, "hello")
    said = [(record.levelname, record.getMessage(), record.pool) for record in caplog.records
            if record.name == "procession.pool.output"]  # fmt: skip
    assert ("INFO", "hello", "talkers") in said
    assert ("WARNING", "HELLO", "talkers") in said


# ---------------------------------------------------------------------------------------------- closing


@pytest.mark.row("PO11")
async def test_leaving_the_block_finishes_what_was_accepted():
    async with FunctionPool(TWO) as pool:
        futures = [pool.submit(work.sleep, 0.05) for _ in range(8)]
    assert [future.result() for future in futures] == [0.05] * 8


@pytest.mark.row("PO11")
async def test_closing_at_once_fails_what_is_left():
    loop = asyncio.get_running_loop()
    pool = await FunctionPool(TWO).__aenter__()
    futures = [pool.submit(work.sleep, 100) for _ in range(8)]
    began = loop.time()
    await pool.aclose(cancel=True)
    assert loop.time() - began < 3
    for future in futures:
        with pytest.raises(PoolClosed):
            future.result()


@pytest.mark.row("PO11")
async def test_an_exception_in_the_block_closes_at_once():
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with FunctionPool(TWO) as pool:
            future = pool.submit(work.sleep, 100)
            raise ZeroDivisionError
    assert isinstance(future.exception(), PoolClosed)
