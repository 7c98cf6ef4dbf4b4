"""What a stop proves, and what ends with the process though a descendant would go on."""

from __future__ import annotations

import asyncio
import errno
import sys

import pytest

from procession import (
    Command,
    ExecutionTimeout,
    InvalidTransition,
    ProcessRegistry,
    ProcessState,
    ProcessStopped,
    spawn,
)

HOLDER = "setsid sleep 30 & echo $!; exit 3"


@pytest.mark.row("RG3")
async def test_the_proof_of_a_stop_is_an_event_and_stays_in_the_record() -> None:
    heard: list[ProcessStopped] = []
    async with ProcessRegistry() as registry:
        registry.listen(heard.append, types=(ProcessStopped,))  # type: ignore[arg-type]
        async with spawn(Command("sleep", "30"), registry=registry) as process:
            report = await process.stop()
        assert [event.report for event in heard] == [report]
        assert registry.get(process.id).report == report
        assert report.is_clean
        assert report.verified


@pytest.mark.row("PR6")
async def test_lines_end_soon_after_the_process_though_a_descendant_holds_its_pipe() -> None:
    async with spawn(Command.shell(HOLDER)) as process:
        async with asyncio.timeout(5):
            lines = [line async for line in process.lines()]
        assert len(lines) == 1
        assert process.stdout is not None
        assert process.stdout.truncated
        assert await process.wait() == 3
        report = await process.stop()
        assert [ref.name for ref in report.escaped] == ["sleep"]


@pytest.mark.row("PR4")
async def test_nothing_freezes_what_is_being_stopped() -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    async with spawn(Command.shell(script, grace=20)) as process:
        lines = process.lines()
        assert await anext(lines) == "ready"
        stopping = asyncio.get_running_loop().create_task(process.stop())
        await asyncio.sleep(0)
        assert process.state is ProcessState.STOPPING
        with pytest.raises(InvalidTransition):
            process.suspend()
        report = await stopping
        assert not report.forced
        assert process.returncode == 7


@pytest.mark.row("PR8")
async def test_the_results_of_a_pipeline_carry_the_commands_as_they_were_written() -> None:
    first, second = Command("echo", "x"), Command("cat")
    completed = await (first | second).run()
    assert [stage.command for stage in completed.stages] == [first, second]
    with pytest.raises(ExecutionTimeout) as caught:
        await (Command("sleep", "30") | second).run(timeout=0.1)
    assert caught.value.command == Command("sleep", "30")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the tree is found through /proc")
async def test_a_tree_that_cannot_be_looked_through_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    from procession._launch import _scanner

    def refuse(_: object) -> None:
        raise OSError(errno.EIO, "no /proc today")

    async with spawn(Command("sleep", "30")) as process:
        with monkeypatch.context() as patch:
            patch.setattr(_scanner, "scan", refuse)
            report = await process.stop()
        assert report.exit is not None
        assert not report.verified
        assert not report.is_clean
        assert "NOT VERIFIED" in str(report)
