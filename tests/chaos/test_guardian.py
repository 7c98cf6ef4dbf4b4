"""Whatever becomes of the program, its children end with it – unless they were told to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from procession._linux import _cgroup
from tests.chaos.support import alive, owner_program, watching

KINDS = ("plain", "stubborn", "setsid", "daemon", "stopped", "detached")
BUSY = ("plain", "stubborn", "setsid", "daemon", "run", "pipeline")
ENDINGS = {
    "return": 0,
    "raise": 1,
    "sys.exit": 7,
    "os._exit": 8,
    "abandon and end": 0,
    "abandon and raise": 1,
    "abandon and sys.exit": 7,
}

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guardian needs /proc")


@pytest.fixture
def has_cgroups() -> Iterator[bool]:
    base = _cgroup.available("test-probe")
    yield base is not None
    if base is not None:
        _cgroup.remove(base)
    _cgroup.available.cache_clear()


@pytest.fixture
def bystanders() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes of the same user that carry no cookie, or almost one."""
    started = [
        subprocess.Popen(["sleep", "1000"], env={**os.environ, **extra})
        for extra in ({}, {"PROCESSION_OWNER": "somebody-else"}, {"NOT_PROCESSION_OWNER": "x"})
    ]
    yield started
    for process in started:
        process.kill()
        process.wait()


def wait_until_deaf(pid: int, signum: int) -> None:
    """Until the guardian, which has just been started, ignores the signal."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if int(lines["SigIgn"], 16) & 1 << (signum - 1):
            return
    raise AssertionError("the guardian never came up")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_killed_owner_takes_everything_with_it_but_the_detached(loop: str, has_cgroups: bool, bystanders) -> None:
    kinds = (*KINDS, "cgroup") if has_cgroups else KINDS
    with owner_program(loop, *kinds) as owner:
        near_miss = subprocess.Popen(["sleep", "1000"], env={"PROCESSION_OWNER": owner.token + "0", "PATH": os.defpath})
        bystanders.append(near_miss)
        assert set(owner.pids) >= {*kinds, "guardian", "setsid_parent"}
        with watching(owner.pids) as watch:
            os.kill(owner.process.pid, signal.SIGKILL)
            assert watch.left(within=2.0, but={"detached"}) == {"detached"}
            assert [process.poll() for process in bystanders] == [None] * 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_however_the_owner_ends_nothing_is_left(ending: str) -> None:
    with owner_program("asyncio", *BUSY) as owner, watching(owner.pids) as watch:
        owner.tell(ending)
        assert watch.left(within=10.0) == set()
        assert owner.process.wait(10) == ENDINGS[ending]
        noise = owner.errors()
        assert "Exception ignored" not in noise
        assert "never awaited" not in noise
        assert ("Traceback" in noise) == (ENDINGS[ending] == 1)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_loop_closed_over_live_children_leaves_them_to_the_end_of_the_program(loop: str) -> None:
    with owner_program(loop, *BUSY) as owner, watching(owner.pids) as watch:
        assert owner.ask("abandon and close") == {"closed": True}
        owner.tell("end")
        assert watch.left(within=10.0) == set()
        assert owner.process.wait(10) == 0
        assert "Exception ignored" not in owner.errors()


def test_a_killed_guardian_is_replaced_without_another_spawn_and_the_new_one_works() -> None:
    with owner_program("asyncio", "plain", "stubborn", "daemon") as owner, watching(owner.pids) as watch:
        os.kill(owner.pids["guardian"], signal.SIGKILL)
        assert watch.wait(5.0, {"guardian"}) == {"guardian"}
        new = owner.ask("guardian")["guardian"]
        assert new != owner.pids["guardian"]
        assert alive(new)
        late = owner.ask("spawn")["plain"]
        with watching({"new guardian": new, "late": late}) as news:
            assert watch.left() == {"owner", "plain", "stubborn", "daemon"}
            os.kill(owner.process.pid, signal.SIGKILL)
            assert watch.left(within=2.0) == set()
            assert news.left(within=2.0) == set()


@pytest.mark.parametrize("stubborn", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_the_guardian_does_not_end_by_signals_meant_for_the_program(stubborn: str) -> None:
    with owner_program("asyncio", "plain") as owner, watching(owner.pids) as watch:
        wait_until_deaf(owner.pids["guardian"], signal.Signals[stubborn])
        os.kill(owner.pids["guardian"], signal.Signals[stubborn])
        owner.ask("spawn")
        assert watch.left() == {"owner", "plain", "guardian"}
        os.kill(owner.process.pid, signal.SIGKILL)
        assert watch.left(within=2.0) == set()


@pytest.mark.parametrize("how", ["multiprocessing", "fork"])
def test_a_forked_worker_that_inherits_every_descriptor_does_not_blind_the_guardian(how: str) -> None:
    with owner_program("asyncio", "plain", "setsid") as owner:
        worker = owner.ask(how)
        with watching({**owner.pids, **worker}) as watch:
            os.kill(owner.process.pid, signal.SIGKILL)
            # The worker is not a process of ours: it carries no cookie, and nobody touches it.
            assert watch.left(within=2.0, but=worker) == set(worker)


def test_an_owner_without_children_has_no_guardian() -> None:
    with owner_program("asyncio") as owner:
        assert owner.facts["guardian"] is None


def test_the_guardian_ends_when_the_owner_was_stopped_and_killed() -> None:
    with owner_program("asyncio", "plain", "stubborn") as owner, watching(owner.pids) as watch:
        os.kill(owner.process.pid, signal.SIGSTOP)
        os.kill(owner.process.pid, signal.SIGKILL)
        assert watch.left(within=2.0) == set()
