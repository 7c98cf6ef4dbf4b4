"""CPython's own cases for asyncio's subprocesses, taken from the running Python, against the drop-in on both loops.

Cases are found, not listed: one that a newer Python brings runs by itself. What tests asyncio's insides stands in
`NOT_APPLICABLE`, each with its reason. Every case must have called our functions, so green cannot be empty.
"""

from __future__ import annotations

import asyncio
import asyncio.subprocess
import subprocess
import unittest
from collections.abc import Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import uvloop

import procession
from procession._launch import _spawner
from procession.process import DropInProcess

upstream: Any = pytest.importorskip(
    "test.test_asyncio.test_subprocess",
    reason="this Python came without its `test` package (on Debian and Ubuntu: apt install libpython3-testsuite)",
)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}
NOT_APPLICABLE = {
    "SubprocessMixin.test_pause_reading": "replaces what loop.connect_read_pipe returns, which we never call; "
    "tests/process/test_compat.py has the same case on our own pipes",
    "SubprocessMixin.test_cancel_post_init": "calls loop.subprocess_exec, asyncio's own transport",
    "SubprocessMixin.test_close_kill_running": "calls loop.subprocess_exec, asyncio's own transport",
    "SubprocessMixin.test_close_dont_kill_finished": "calls loop.subprocess_exec, asyncio's own transport",
    "SubprocessMixin.test_subprocess_protocol_events": "calls loop.subprocess_exec, asyncio's own transport",
    "SubprocessTransportTests.test_proc_exited": "subclasses asyncio's own transport",
    "SubprocessTransportTests.test_subprocess_repr": "subclasses asyncio's own transport",
    "GenericWatcherTests.test_create_subprocess_fails_with_inactive_watcher": "we use no child watcher",
    "MultiLoopChildWatcherTests.test_warns": "we use no child watcher",
}
MIXIN: type = upstream.SubprocessMixin


def _names(cls: type) -> list[str]:
    return list(unittest.TestLoader().getTestCaseNames(cls))


def _others() -> Iterator[tuple[type, str]]:
    """Cases of classes that bring their own loop."""
    for cls in vars(upstream).values():
        if isinstance(cls, type) and issubclass(cls, unittest.TestCase) and not issubclass(cls, MIXIN):
            for name in _names(cls):
                yield cls, name


MIXED = [name for name in _names(MIXIN) if f"SubprocessMixin.{name}" not in NOT_APPLICABLE]
OTHERS = [(cls, name) for cls, name in _others() if f"{cls.__name__}.{name}" not in NOT_APPLICABLE]


class Calls:
    """Stands in for asyncio's functions, counts, and remembers what they gave."""

    def __init__(self) -> None:
        self.count = 0
        self.processes: list[DropInProcess] = []

    def wrap(self, function: Callable[..., Awaitable[DropInProcess]]) -> Callable[..., Awaitable[DropInProcess]]:
        async def counted(*args: Any, **kwds: Any) -> DropInProcess:
            self.count += 1
            process = await function(*args, **kwds)
            self.processes.append(process)
            return process

        return counted

    async def settle(self) -> None:
        """Unlike asyncio's `wait()` ours does not wait for grandchildren that hold a pipe; the audit must."""
        for process in self.processes:
            for _ in range(300):
                if process._transport.is_closing():
                    break
                await asyncio.sleep(0.01)


def _late_bound_popen(*args: Any, **kwds: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(*args, **kwds)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()
    for name in ("create_subprocess_exec", "create_subprocess_shell"):
        function = calls.wrap(getattr(procession, name))
        monkeypatch.setattr(asyncio, name, function)
        monkeypatch.setattr(asyncio.subprocess, name, function)
    # Two cases replace subprocess.Popen; ours is bound once, at import.
    monkeypatch.setattr(_spawner, "popen", _late_bound_popen)
    return calls


def run_case(case: unittest.TestCase, calls: Calls) -> None:
    with (  # a loop made or closed by anything but our functions would hide behind them
        mock.patch.object(asyncio.SelectorEventLoop, "subprocess_exec", side_effect=AssertionError("not ours")),
        mock.patch.object(asyncio.SelectorEventLoop, "subprocess_shell", side_effect=AssertionError("not ours")),
    ):
        result = case.run()
    assert result is not None
    assert result.testsRun == 1
    for _, reason in result.skipped:
        pytest.skip(reason)
    for _, trace in [*result.failures, *result.errors]:
        pytest.fail(trace, pytrace=False)
    assert calls.count >= 1


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", MIXED)
def test_case(name: str, loop: str, calls: Calls) -> None:
    class Case(MIXIN, upstream.test_utils.TestCase):
        def setUp(self) -> None:
            super().setUp()
            self.loop = LOOPS[loop]()
            self.set_event_loop(self.loop, cleanup=False)
            self.addCleanup(self.loop.close)

        def tearDown(self) -> None:
            self.loop.run_until_complete(calls.settle())
            super().tearDown()

    run_case(Case(name), calls)


@pytest.mark.parametrize(("cls", "name"), OTHERS)
def test_case_with_its_own_loop(cls: type[unittest.TestCase], name: str, calls: Calls) -> None:
    run_case(cls(name), calls)


def test_there_are_enough_cases() -> None:
    assert len(MIXED) >= 25  # Python 3.11 has 25, later ones more


def test_every_exclusion_is_still_needed_somewhere() -> None:
    # Python 3.11 lacks the last two.
    newer = {"SubprocessMixin.test_subprocess_protocol_events", "MultiLoopChildWatcherTests.test_warns"}
    there = {f"SubprocessMixin.{name}" for name in _names(MIXIN)} | {
        f"{cls.__name__}.{name}" for cls, name in _others()
    }
    assert set(NOT_APPLICABLE) - there <= newer
