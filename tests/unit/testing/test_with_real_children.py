"""The tools of `procession.testing` beside real children: nothing is jumped over, faults hit the real seam."""

import asyncio
import errno
import signal
import time

import pytest
import uvloop

from procession import Command, Containment, SpawnError, SpawnFailure, run, spawn
from procession.testing import (
    Script,
    SimulatedLauncher,
    VirtualLoop,
    cancel_everywhere,
    failing_spawn,
    fd_limit,
    run_virtual,
    slow_spawn,
)


def test_a_real_child_runs_at_real_speed_and_then_time_jumps():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(3600, lambda: None)
        completed = await run(Command("sh", "-c", "sleep 0.05; echo hi"))
        assert completed.text == "hi\n"
        assert 0.05 <= completed.duration < 30
        assert loop.time() < 30
        await asyncio.sleep(3600)

    began = time.monotonic()
    run_virtual(main)
    assert time.monotonic() - began < 30


def test_real_and_simulated_processes_live_side_by_side():
    async def main():
        launcher = SimulatedLauncher(Script(duration=0.2, stdout=b"simulated"))
        async with asyncio.TaskGroup() as group:
            real = group.create_task(run(Command("echo", "real")))
            simulated = group.create_task(run(Command("it"), launcher=launcher))
        return real.result().text, simulated.result().text

    assert run_virtual(main) == ("real\n", "simulated")


def test_a_stop_with_a_long_grace_takes_no_time_when_simulated():
    tree = Script(hangs=True, ignores_term=True, children=[Script(hangs=True, escaped=True)])

    async def main():
        launcher = SimulatedLauncher(tree)
        async with spawn(Command("api", grace=600), launcher=launcher) as process:
            await asyncio.sleep(86_400)
            report = await process.stop()
        assert launcher.alive == []
        return report

    report = run_virtual(main)
    assert report.duration >= 600
    assert report.forced
    assert report.is_clean
    assert report.rung is Containment.TREE
    assert report.exit is not None
    assert report.exit.signal == signal.SIGKILL


@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, uvloop.new_event_loop, VirtualLoop])
def test_running_a_real_child_can_be_cancelled_everywhere(factory):
    report = cancel_everywhere(lambda: run(Command("sh", "-c", "echo x; sleep 0.01")), loop_factory=factory)
    assert report.points >= 2
    assert set(report.outcomes) <= {"cancelled", "completed"}


def test_faults_hit_the_launchers():
    async def reason() -> SpawnFailure | None:
        try:
            await run(Command("true"))
        except SpawnError as error:
            return error.reason
        return None

    async def main() -> None:
        with failing_spawn(errno.EAGAIN) as fault:
            assert await reason() is SpawnFailure.PROCESS_LIMIT
        assert fault.hits == 1
        with slow_spawn(0.02, times=1) as fault:
            assert await reason() is None
        assert fault.hits == 1
        with fd_limit(1):
            assert await reason() is SpawnFailure.FD_LIMIT
        assert await reason() is None

    asyncio.run(main())
