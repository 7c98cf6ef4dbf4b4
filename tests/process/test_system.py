"""What the system offers, and what a program that asks for it does with orphans."""

from __future__ import annotations

import os
import sys

import pytest

from procession import Command, Containment, run, system_report
from procession.errors import SpawnError, SpawnFailure

ORPHANS = """
import asyncio, os
from procession import Command, reap_orphans, spawn

async def main():
    reap_orphans()
    # The grandchild leaves group and session, outlives its parent, and tells its pid first.
    script = "exec 3<&0; setsid sh -c 'echo $$; read line; exit 7' <&3 & exit 0"
    async with spawn(Command("sh", "-c", script, stdin="pipe")) as process:
        orphan = int([line async for line in first(process.lines())][0])
        pidfd = os.pidfd_open(orphan)
        await process.wait()
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        await process.stdin.write(b"go\\n")
        loop.add_reader(pidfd, lambda: ended.done() or ended.set_result(None))
        await ended
        loop.remove_reader(pidfd)
        # Whoever reaps it, does so soon: a reaped process can no longer be signalled.
        for _ in range(400):
            try:
                os.kill(orphan, 0)
            except ProcessLookupError:
                print("reaped")
                break
            await asyncio.sleep(0.01)
        else:
            print(open(f"/proc/{orphan}/stat").read())

async def first(lines):
    async for line in lines:
        yield line
        return

asyncio.run(main())
"""


@pytest.mark.row("PR10")
def test_a_report_tells_what_the_system_can_do() -> None:
    report = system_report()
    assert report.launcher in ("pidfd", "asyncio")
    assert Containment.GROUP in report.rungs
    assert report.tools["setpriv"][0].startswith("user")
    assert "containment" in str(report)


async def test_the_report_is_printed_by_the_module() -> None:
    completed = await run(Command(sys.executable, "-m", "procession", "check"))
    assert completed.text.startswith("launcher"), completed
    completed = await run(Command(sys.executable, "-m", "procession", "nonsense"))
    assert completed.returncode == 1
    assert "usage" in completed.error_text


async def test_a_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from procession._linux import _tools

    monkeypatch.setattr(_tools, "tool", lambda name: None)
    with pytest.raises(SpawnError) as caught:
        await run(Command("true", nice=5))
    assert caught.value.reason is SpawnFailure.UNSUPPORTED
    assert "nice" in str(caught.value)


@pytest.mark.one_loop
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfds")
async def test_orphans_are_reaped_where_a_program_asks_for_it() -> None:
    completed = await run(Command(sys.executable, "-c", ORPHANS), timeout=30)
    assert completed.text.strip() == "reaped", completed.error_text


@pytest.mark.one_loop
async def test_children_of_others_are_left_to_them() -> None:
    script = """
import subprocess
from procession import reap_orphans
reap_orphans()
child = subprocess.Popen(["sh", "-c", "exit 3"])
print(child.wait())
"""
    completed = await run(Command(sys.executable, "-c", script), timeout=30)
    assert completed.text.strip() == "3", completed.error_text
