"""CPython's own cases for `ProcessPoolExecutor`, taken from the running Python, against our drop-in for it.

Cases are found, not listed: one that a newer Python brings runs by itself. What cannot hold for ours stands in
`NOT_APPLICABLE`, each with its reason; where ours answers a mishap with another error, `OTHER_ERROR` says which and why.
Every case must have called our executor, so green cannot be empty.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import threading
import unittest
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from procession.errors import RemoteTraceback
from procession.pool import BrokenWorker, Executor, NotPicklable
from procession.pool._slots import SlotState

pytestmark = pytest.mark.row("PO2")

upstream: Any = pytest.importorskip(
    "test.test_concurrent_futures.util",
    reason="this Python came without CPython's cases for executors, or with those of before 3.12",
)
support: Any = importlib.import_module("test.support")
shutdown: Any = importlib.import_module("test.test_concurrent_futures.test_shutdown")

FOREIGN = concurrent.futures.ProcessPoolExecutor
"""What the cases are written for. Where CPython runs them for a start method that makes its workers clean, so do we."""

# Nothing in these depends on how workers are started, and they mostly sleep.
ONE_METHOD = {"WaitTests", "AsCompletedTests", "test_map_timeout"}

MODULES = ("process_pool", "shutdown", "wait", "as_completed", "deadlock", "init")

NOT_APPLICABLE = {
    "AsCompletedTests.test_free_reference_yielded_future": "makes its futures by hand, uses no executor",
    "AsCompletedTests.test_correct_timeout_exception_msg": "makes its futures by hand, uses no executor",
    "ProcessPoolExecutorTest.test_max_workers_too_large": "Windows only",
    "ProcessPoolExecutorTest.test_killed_child": "a lost worker is one call's affair and does not break ours; "
    "tests/pool/test_executor.py has test_errors_arrive_in_the_future",
    "ProcessPoolExecutorTest.test_saturation": "counts the workers right after submit(), ours are started by the "
    "loop's thread; its calls cannot be pickled in either, and nobody looks at them",
    "ProcessPoolExecutorTest.test_max_tasks_per_child_defaults_to_spawn_context": "reads _mp_context; ours are "
    "never forked from this program, so that no method has to be avoided",
    "ProcessPoolExecutorTest.test_python_finalization_error": "lets the second thread that ProcessPoolExecutor starts "
    "fail; ours starts one",
    "ProcessPoolShutdownTest.test_processes_terminate": "counts the workers right after submit(), as test_saturation",
    "ExecutorDeadlockTest.test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "replaces classes inside "
    "ProcessPoolExecutor",
}
OTHER_ERROR: dict[str, tuple[type[BaseException], str]] = {
    "test_error_at_task_unpickle": (NotPicklable, "the call's own affair: the worker lives on"),
    "test_error_during_result_unpickle_in_result_handler": (NotPicklable, "the call's own affair: the worker lives on"),
    "test_exit_during_result_unpickle_in_result_handler": (NotPicklable, "the call's own affair: the worker lives on"),
    "test_exit_during_func_exec_on_worker": (BrokenWorker, "sys.exit() in a worker ends the worker"),
    "test_exit_during_result_pickle_on_worker": (BrokenWorker, "sys.exit() in a worker ends the worker"),
}


def _classes() -> Iterator[type[unittest.TestCase]]:
    for name in MODULES:
        for cls in vars(importlib.import_module(f"test.test_concurrent_futures.test_{name}")).values():
            if getattr(cls, "executor_type", None) is FOREIGN and issubclass(cls, unittest.TestCase):
                yield cls


def _mixin(cls: type) -> str:
    """CPython composes each class from the cases, first, and what says for which executor and start method."""
    return cls.__mro__[1].__name__


def _cases() -> Iterator[tuple[type[unittest.TestCase], str]]:
    for cls in _classes():
        method = cls.ctx  # type: ignore[attr-defined]
        if method == "fork":
            continue  # a fork of this program is what ours never are
        for name in unittest.TestLoader().getTestCaseNames(cls):
            if method == "forkserver" or not {_mixin(cls), name} & ONE_METHOD:
                yield cls, name


ALL = list(_cases())
CASES = [(cls, name) for cls, name in ALL if f"{_mixin(cls)}.{name}" not in NOT_APPLICABLE]


class Worker:
    """One worker in the words of `multiprocessing.Process`: it has ended when its executor's thread has."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread

    def join(self) -> None:
        self._thread.join()


class Ours(Executor):
    """Ours, counted, and with what the cases look at inside theirs."""

    calls = 0

    def __init__(self, *args: Any, **kwds: Any) -> None:
        Ours.calls += 1
        super().__init__(*args, **kwds)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwds: Any) -> concurrent.futures.Future[Any]:
        Ours.calls += 1
        return super().submit(fn, *args, **kwds)

    @property
    def _processes(self) -> dict[str, Worker]:
        engine = self._engine
        if engine is None:
            return {}
        alive = (SlotState.STARTING, SlotState.IDLE, SlotState.BUSY)
        slots = list(engine.started.result().fleet.roster.slots.values())
        return {slot.id: Worker(engine.thread) for slot in slots if slot.state in alive}

    @property
    def _broken(self) -> bool:
        return self._engine is not None and self._engine.broken is not None

    @property
    def _executor_manager_thread(self) -> threading.Thread:
        assert self._engine is not None
        return self._engine.thread

    @property
    def _call_queue(self) -> SimpleNamespace:
        return SimpleNamespace(join_thread=self._executor_manager_thread.join)


class OursByTheirName(Ours):
    """For cases that take the executor from `concurrent.futures`; one skips itself when that is the one under test."""


class OursOnceItRuns(Ours):
    """Cancels when a call has begun: theirs has begun one by the time submit() returns, ours may be told to cancel all."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        while cancel_futures and not any(future.running() for future in list(self._open)):
            threading.Event().wait(0.005)
        super().shutdown(wait, cancel_futures=cancel_futures)


class Context:
    """A context of `multiprocessing` that has no queues: those cannot be pickled, so ours cannot send any."""

    def __init__(self, method: str) -> None:
        self._method = method

    def get_start_method(self, allow_none: bool = False) -> str:
        return self._method

    def Queue(self) -> None:  # noqa: N802 - its name
        return None


# What workers print goes to a log, of which this makes what CPython's scripts expect. One of them forgets an import.
SCRIPT_HEAD = """
import logging, multiprocessing, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("procession.pool.output").setLevel("INFO")
"""


def _run_script(run: Callable[..., Any]) -> Callable[..., Any]:
    def replaced(*args: str, **kwds: Any) -> Any:
        option, script = args
        assert option == "-c"
        line = f"from concurrent.futures import {Ours.__name__}"
        assert line in script
        script = script.replace(line, f"from procession.pool import Executor as {Ours.__name__}")
        Ours.calls += 1
        return run("-c", SCRIPT_HEAD + script, **kwds)

    return replaced


def _adapted(cls: type[Any], name: str) -> unittest.TestCase:
    """The case with our executor in it."""

    class Case(cls):
        executor_type = OursOnceItRuns if name == "test_cancel_futures" else Ours
        # A worker can import the class it comes from, not this one.
        _test_traceback = getattr(cls, "_test_traceback", None)

        def setUp(self) -> None:
            super().setUp()
            Ours.calls = 0  # what is made for every case proves nothing

    if _mixin(cls) == "FailingInitializerMixin":

        class Failing(Case):
            def get_context(self) -> Context:
                return Context(self.ctx)

            @contextlib.contextmanager
            def _assert_logged(self, text: str) -> Iterator[None]:
                with self.assertLogs("procession.pool", "WARNING") as caught:
                    yield
                assert any(text in line for line in caught.output), caught.output

        return Failing(name)
    if name in OTHER_ERROR:

        class Otherwise(Case):
            def _check_crash(self, error: type[BaseException], *args: Any, **kwds: Any) -> None:
                super()._check_crash(OTHER_ERROR[name][0], *args, **kwds)

        return Otherwise(name)
    return Case(name)


@pytest.fixture(scope="module", autouse=True)
def _what_stays() -> Iterator[None]:
    """Starts what multiprocessing and we keep for the life of a program, before anybody counts what a case leaves."""
    with Executor(1) as executor:
        executor.submit(int).result()
    multiprocessing.util.get_temp_dir()
    multiprocessing.resource_tracker.ensure_running()
    multiprocessing.forkserver.ensure_running()
    yield
    multiprocessing.forkserver._forkserver._stop()  # type: ignore[attr-defined]
    multiprocessing.resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("cls", "name"), CASES, ids=[f"{cls.__name__}-{name}" for cls, name in CASES])
def test_case(cls: type[unittest.TestCase], name: str) -> None:
    case = _adapted(cls, name)
    with (
        mock.patch.object(concurrent.futures, "ProcessPoolExecutor", OursByTheirName),
        mock.patch.object(FOREIGN, "__init__", side_effect=AssertionError("not ours")),
        mock.patch.object(concurrent.futures.process, "_RemoteTraceback", RemoteTraceback),
        mock.patch.object(RemoteTraceback, "tb", property(lambda self: self.traceback), create=True),
        mock.patch.object(shutdown, "assert_python_ok", _run_script(shutdown.assert_python_ok)),
        mock.patch.object(support, "environment_altered", False),
    ):
        result = case.run()
        altered = support.environment_altered
    assert result is not None
    assert result.testsRun == 1
    for _, reason in result.skipped:
        pytest.skip(reason)
    for _, trace in [*result.failures, *result.errors]:
        pytest.fail(trace, pytrace=False)
    assert Ours.calls >= 1
    assert not altered, "a thread or a child was left behind"


def test_there_are_enough_cases() -> None:
    assert len({f"{_mixin(cls)}.{name}" for cls, name in CASES}) >= 50


def test_every_exclusion_is_still_needed_somewhere() -> None:
    there = {f"{_mixin(cls)}.{name}" for cls, name in ALL}
    assert set(NOT_APPLICABLE) <= there
    assert set(OTHER_ERROR) <= {name for _, name in ALL}
