"""A process that SIGKILL does not end: nobody can, so this is played by a simulated one."""

from __future__ import annotations

import pytest

from procession import Command, ProcessRegistry, ProcessState, spawn
from procession.testing import Script, SimulatedLauncher, run_virtual


@pytest.mark.row("PR4")
def test_a_stop_of_what_cannot_be_killed_ends_names_it_and_hears_of_its_late_end() -> None:
    async def main() -> None:
        launcher = SimulatedLauncher(Script(hangs=True, unkillable=True))
        async with ProcessRegistry() as registry:
            async with spawn(Command("stuck", grace=1), registry=registry, launcher=launcher) as process:
                report = await process.stop()
                assert [ref.pid for ref in report.survived] == [process.pid]
                assert report.exit is None
                assert not report.is_clean
                assert process.state is ProcessState.UNKILLABLE
                assert report.duration <= 1 + 2 + 0.1
                launcher.processes[0].release()
                record = await registry.wait_for(process.id, ProcessState.EXITED)
                assert record.exit is not None
                assert record.exit.signal == 9

    run_virtual(main)
