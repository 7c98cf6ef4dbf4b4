"""`cancel_everywhere` finds what ends badly, and lets pass what ends well."""

import asyncio
import subprocess

import pytest
import uvloop

from procession._core.aio import finish
from procession.testing import (
    CancelFailure,
    CancelMode,
    LeakAudit,
    LeakKind,
    VirtualDeadlock,
    VirtualLoop,
    cancel_everywhere,
)

LOOPS = [asyncio.SelectorEventLoop, uvloop.new_event_loop, VirtualLoop]


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("factory", LOOPS)
def test_every_suspension_is_tried_in_every_mode(factory):
    report = cancel_everywhere(lambda: turns(4), loop_factory=factory)
    assert report.points == 4
    assert [run.point for run in report.runs] == [0] + [1, 2, 3, 4] * 3
    assert report.outcomes["cancelled"] + report.outcomes["completed"] == 12
    assert all(run.where.endswith("in turns") for run in report.runs if run.point)
    assert str(report).startswith("4 suspension points, 13 runs: ")


def test_a_scenario_that_never_waits_is_run_once():
    report = cancel_everywhere(lambda: turns(0))
    assert (report.points, len(report.runs), report.runs[0].outcome) == (0, 1, "completed")


def test_the_cancellation_comes_at_exactly_that_suspension():
    seen: list[int] = []

    async def scenario() -> None:
        for step in range(3):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                seen.append(step)
                raise

    cancel_everywhere(scenario, modes=(CancelMode.ONCE,))
    assert seen == [0, 1, 2]


def test_twice_strikes_the_clean_up():
    ended: list[str] = []

    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            ended.append("clean")

    cancel_everywhere(scenario, modes=(CancelMode.ONCE,))
    assert ended == ["clean"] * 3  # as it is; cancelled at 1; when 3 is not reached; at 2 the clean-up is struck
    ended.clear()
    cancel_everywhere(scenario, modes=(CancelMode.TWICE,))
    assert ended == ["clean"] * 2  # as it is; when 3 is not reached


def test_late_strikes_when_the_result_is_there_already():
    seen: list[bool] = []

    async def scenario() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(lambda: future.done() or future.set_result(None))
        try:
            await future
        except asyncio.CancelledError:
            seen.append(future.cancelled())
            raise

    cancel_everywhere(scenario, modes=(CancelMode.ONCE,))
    cancel_everywhere(scenario, modes=(CancelMode.LATE,))
    assert seen == [True, False]


@pytest.mark.parametrize("factory", LOOPS)
def test_clean_up_through_finish_always_ends(factory):
    ended: list[bool] = []

    async def clean() -> None:
        await turns(2)
        ended.append(True)

    async def scenario() -> None:
        ended.clear()
        try:
            await asyncio.sleep(0)
        finally:
            await finish(clean())

    def check() -> None:
        assert ended == [True]

    report = cancel_everywhere(scenario, check=check, loop_factory=factory)
    assert report.points == 2


# --------------------------------------------------------------------------------------------- what is found


def test_a_swallowed_cancellation_that_hangs_is_found_and_located():
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    with pytest.raises(CancelFailure) as caught:
        cancel_everywhere(scenario, limit=0.05)
    assert caught.value.run.outcome == "hung"
    assert caught.value.run.point == 1
    assert "in scenario" in str(caught.value)


def test_on_a_virtual_loop_a_hang_is_found_at_once():
    async def scenario() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    with pytest.raises(CancelFailure, match="hung"):
        cancel_everywhere(scenario, loop_factory=VirtualLoop)


def test_a_scenario_that_hangs_by_itself_says_so():
    async def scenario() -> None:
        await asyncio.Event().wait()

    with pytest.raises(VirtualDeadlock):
        cancel_everywhere(scenario, loop_factory=VirtualLoop)
    with pytest.raises(CancelFailure, match="not cancelled"):
        cancel_everywhere(scenario, limit=0.02)


def test_another_exception_is_a_failure_unless_allowed():
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise LookupError("lost") from None

    with pytest.raises(CancelFailure, match="LookupError: lost") as caught:
        cancel_everywhere(scenario)
    assert isinstance(caught.value.__cause__, LookupError)
    assert cancel_everywhere(scenario, allow=(LookupError,)).outcomes["LookupError"] == 3


def test_an_error_of_the_scenario_itself_comes_out_as_it_is():
    async def scenario() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cancel_everywhere(scenario)


def test_a_task_left_behind_is_found():
    async def forever() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        task = asyncio.get_running_loop().create_task(forever(), name="orphan")
        await asyncio.sleep(0)
        task.cancel()

    with pytest.raises(CancelFailure, match="orphan") as caught:
        cancel_everywhere(scenario)
    assert caught.value.run.outcome == "leaked"


def test_a_child_left_behind_is_found():
    children: list[subprocess.Popen[bytes]] = []

    async def scenario() -> None:
        child = subprocess.Popen(["sleep", "60"])
        children.append(child)
        await asyncio.sleep(0)
        child.kill()
        child.wait()

    try:
        with pytest.raises(CancelFailure, match="child"):
            cancel_everywhere(scenario)
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_failing_check_is_a_failure():
    left: list[int] = []

    async def scenario() -> None:
        left.append(1)
        await asyncio.sleep(0)
        left.pop()

    def check() -> None:
        assert not left

    with pytest.raises(CancelFailure, match="check") as caught:
        cancel_everywhere(scenario, check=check)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_an_async_check_runs_inside_the_loop():
    loops: list[asyncio.AbstractEventLoop] = []

    async def check() -> None:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())

    cancel_everywhere(lambda: turns(1), check=check)
    assert len(loops) == 7  # as it is, and in each mode: cancelled at 1, and 2 that is not reached


def test_endless_suspensions_are_bounded():
    with pytest.raises(CancelFailure, match="more than 3"):
        cancel_everywhere(lambda: turns(10), max_points=3)


def test_audits_leave_the_hooks_as_they_were():
    audit = LeakAudit.start()
    cancel_everywhere(lambda: turns(1))
    assert [leak for leak in audit.finish() if leak.kind is not LeakKind.FD] == []


def test_a_cancellation_out_of_nowhere_is_told_apart():
    async def scenario() -> None:
        await asyncio.sleep(0)
        raise asyncio.CancelledError

    with pytest.raises(RuntimeError, match="nobody had cancelled it"):
        cancel_everywhere(scenario)


def test_what_is_allowed_is_allowed_to_the_cancelled_only():
    async def scenario() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        cancel_everywhere(scenario, allow=(LookupError,))


def test_a_check_that_fails_without_a_cancellation_comes_out_as_it_is():
    def check() -> None:
        raise AssertionError("mine")

    with pytest.raises(AssertionError, match=r"^mine$"):
        cancel_everywhere(lambda: turns(1), check=check)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_the_wish_to_end_the_program_is_no_outcome(error):
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise error from None

    with pytest.raises(error):
        cancel_everywhere(scenario)


def test_it_works_without_the_audit():
    report = cancel_everywhere(lambda: turns(2), audit=False)
    assert report.points == 2
