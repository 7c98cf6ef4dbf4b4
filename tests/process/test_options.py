"""user, group, umask, nice, ionice, affinity, limits, capabilities, no_new_privileges, death signal: the kernel agrees.

Each is read back from inside the child.
"""

import json
import os
import signal
import sys

import pytest

from procession import Command, run, spawn
from tests.programs import HERE, ended, first_line, program, sh

pytestmark = pytest.mark.row("PR1")
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
READS = "grep -E '^(Uid|Gid|Groups|CapBnd|CapEff|CapAmb|NoNewPrivs):' /proc/self/status"


async def status(**options):
    completed = await run(program("status", **options), check=True)
    return json.loads(completed.stdout)


async def as_seen_by_sh(**options):
    """For a child that may not be able to read our Python."""
    completed = await run(Command("/bin/sh", "-c", READS, cwd="/", **options), check=True)
    return {line.split(":")[0]: line.split(":")[1].split() for line in completed.text.splitlines()}


@root
async def test_user_by_name_brings_its_groups():
    seen = await as_seen_by_sh(user="nobody")
    import pwd

    account = pwd.getpwnam("nobody")
    assert seen["Uid"] == [str(account.pw_uid)] * 4
    assert seen["Gid"] == [str(account.pw_gid)] * 4
    assert set(seen["Groups"]) <= {str(account.pw_gid)}
    assert int(seen["CapEff"][0], 16) == 0


@root
async def test_user_group_and_extra_groups_by_number():
    seen = await as_seen_by_sh(user=12345, group=23456, extra_groups=[1, 2])
    assert seen["Uid"] == ["12345"] * 4
    assert seen["Gid"] == ["23456"] * 4
    assert set(seen["Groups"]) == {"1", "2"}
    assert (await as_seen_by_sh(user=12345, group=23456))["Groups"] == []
    assert (await as_seen_by_sh(extra_groups=[]))["Groups"] == []


@root
async def test_group_alone_keeps_the_user():
    seen = await as_seen_by_sh(group="nogroup")
    assert seen["Uid"] == ["0"] * 4
    assert seen["Gid"] != ["0"] * 4


@root
async def test_another_users_child_can_be_stopped():
    async with spawn(sh("trap '' TERM; echo ready; while :; do sleep 1000; done", user="nobody", cwd="/")) as process:
        await first_line(process)
        report = await process.stop(0.05)
    assert report.is_clean
    assert report.forced
    assert process.returncode == -signal.SIGKILL


async def test_umask():
    assert (await status(umask=0o27))["umask"] == 0o27
    assert (await status(umask=0))["umask"] == 0


async def test_nice_is_added_to_ours():
    here = os.getpriority(os.PRIO_PROCESS, 0)
    assert (await status(nice=5))["nice"] == min(19, here + 5)
    if os.geteuid() == 0:
        assert (await status(nice=-3))["nice"] == here - 3


@pytest.mark.parametrize(
    ("given", "told"),
    [("idle", "idle"), ("best-effort:6", "best-effort: prio 6"), ("best-effort", "best-effort: prio 4")],
)
async def test_ionice(given, told):
    assert (await run(Command("ionice", ionice=given), check=True)).text.strip() == told


async def test_cpu_affinity():
    cpu = max(os.sched_getaffinity(0))
    assert (await status(cpu_affinity=[cpu]))["cpus"] == [cpu]


async def test_rlimits():
    seen = await status(rlimits={"nofile": (64, 128), "core": 0})
    assert (seen["nofile"], seen["core"]) == ([64, 128], [0, 0])
    completed = await run(sh("ulimit -t", rlimits={"cpu": 7}))
    assert completed.text.strip() == "7"


@root
async def test_capabilities_are_the_only_ones():
    bit = {"chown": 0, "kill": 5, "net_bind_service": 10}
    seen = await status(capabilities=["kill", "net_bind_service"])
    assert seen["bounding"] == 1 << bit["kill"] | 1 << bit["net_bind_service"]
    assert seen["effective"] & ~seen["bounding"] == 0
    seen = await status(capabilities=[])
    assert (seen["bounding"], seen["effective"]) == (0, 0)
    seen_by = await as_seen_by_sh(user=12345, group=12345, capabilities=["net_bind_service"])
    assert int(seen_by["CapEff"][0], 16) == 1 << bit["net_bind_service"]
    assert int(seen_by["CapAmb"][0], 16) == 1 << bit["net_bind_service"]


async def test_no_new_privileges():
    assert (await status(no_new_privileges=True))["no_new_privileges"] is True
    assert (await status())["no_new_privileges"] is False


async def test_all_at_once_in_one_process():
    cpu = min(os.sched_getaffinity(0))
    options = {"umask": 0o77, "nice": 1, "ionice": "idle", "cpu_affinity": [cpu], "rlimits": {"nofile": 99}}
    async with spawn(program("status", no_new_privileges=True, death_signal="KILL", **options)) as process:
        seen = json.loads(await first_line(process))
        assert await process.wait() == 0
    assert seen["pid"] == process.pid  # the tools became the program: no process stands between
    assert seen["sid"] == process.pid
    assert (seen["umask"], seen["cpus"], seen["nofile"], seen["no_new_privileges"]) == (0o77, [cpu], [99, 99], True)


@pytest.mark.one_loop
@pytest.mark.allow_leaks("child")
async def test_the_death_signal_comes_when_the_program_dies():
    """`detach=True` keeps the guardian out of it, so it is the kernel's signal that ends the child."""
    owner = Command(sys.executable, HERE / "parent_death.py", stdin="pipe", inherit_env=True)
    async with spawn(owner) as process:
        pid = int(await first_line(process))
        process.communicator().close_stdin()
        await process.wait()
        assert process.returncode == -signal.SIGKILL
        await ended(pid, within=5)


@pytest.mark.one_loop
async def test_the_death_signal_does_not_come_while_the_program_lives():
    """It is bound to the thread that made the child, so that thread must never end."""
    async with spawn(program("polite", death_signal="KILL")) as process:
        await first_line(process)
        for _ in range(20):
            await run(Command("true"))
        assert process.is_running
        report = await process.stop(5)
    assert report.exit is not None
    assert report.exit.returncode == 0
