"""A detached child that outlives its block is still heard of when it ends."""

from __future__ import annotations

import pytest

from procession import Command, ProcessRegistry, ProcessState, spawn


@pytest.mark.row("RG1")
async def test_the_end_of_a_detached_child_reaches_the_registry_after_its_block() -> None:
    async with ProcessRegistry() as registry:
        command = Command("sh", "-c", "read line; exit 5", stdin="pipe", stdout="null", stderr="null", detach=True)
        async with spawn(command, registry=registry) as process:
            assert process.is_running
        # Leaving the block closed its stdin, so it reads the end of the file and exits by itself.
        record = await registry.wait_for(process.id, ProcessState.EXITED)
        assert record.exit is not None
        assert record.exit.returncode == 5
        assert await process.wait() == 5
