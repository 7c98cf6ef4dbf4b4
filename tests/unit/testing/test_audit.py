from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from procession._launch._owner import owner
from procession.testing.audit import Leak, LeakAudit, LeakKind


def kinds(leaks: list[Leak]) -> list[LeakKind]:
    return [leak.kind for leak in leaks]


def test_clean_code_leaves_nothing() -> None:
    audit = LeakAudit.start()
    with socket.socket():
        pass
    subprocess.run(["true"], check=True)
    assert audit.finish() == []


def test_open_descriptor_is_named() -> None:
    audit = LeakAudit.start()
    reader, writer = os.pipe()
    leaks = audit.finish(settle=0)
    os.close(reader)
    os.close(writer)
    assert kinds(leaks) == [LeakKind.FD, LeakKind.FD]
    assert leaks[0].what == str(reader)
    assert leaks[0].detail.startswith("pipe:")
    assert audit.finish() == []


def test_descriptor_that_replaced_one_of_its_kind_is_no_leak() -> None:
    old = os.pipe()
    audit = LeakAudit.start()
    new = os.pipe()
    for fd in old:
        os.close(fd)
    leaks = audit.finish()
    for fd in new:
        os.close(fd)
    assert leaks == []


def test_living_child_and_its_zombie_are_told_apart() -> None:
    audit = LeakAudit.start()
    child = subprocess.Popen(["sleep", "60"])
    while not psutil.Process(child.pid).cmdline():  # the kernel fills it in a moment after exec
        pass
    living = audit.finish(settle=0)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    dead = audit.finish(settle=0)
    child.wait()
    assert kinds(living) == [LeakKind.CHILD]
    assert "sleep 60" in str(living[0])
    assert kinds(dead) == [LeakKind.ZOMBIE]
    assert audit.finish() == []


def test_grandchild_is_found() -> None:
    audit = LeakAudit.start()
    program = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, process_group=0) as child:
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        leaks = audit.finish(settle=0)
        os.killpg(child.pid, signal.SIGKILL)
    assert str(grandchild) in {leak.what for leak in leaks if leak.kind is LeakKind.CHILD}


def test_guardian_and_library_threads_are_allowed() -> None:
    audit = LeakAudit.start()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="procession-spawner")
    thread.start()
    guardian = subprocess.Popen(["sh", "-c", "kill -STOP $$", "procession-guardian"])
    os.waitid(os.P_PID, guardian.pid, os.WSTOPPED)
    leaks = audit.finish(settle=0)
    done.set()
    thread.join()
    guardian.kill()
    guardian.wait()
    assert leaks == []


@pytest.mark.skipif(sys.platform != "linux", reason="another process's environment is read from /proc")
def test_escaped_process_is_found_by_its_cookie() -> None:
    audit = LeakAudit.start()
    program = "setsid sh -c 'echo $$; exec sleep 60' & wait"
    env = {**os.environb, **owner().cookies("escaped")}
    parent = subprocess.Popen(["sh", "-c", program], env=env, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    escaped = int(parent.stdout.readline())
    parent.kill()
    parent.stdout.close()
    parent.wait()
    leaks = audit.finish(settle=0)
    os.kill(escaped, signal.SIGKILL)
    assert [(leak.kind, leak.what) for leak in leaks] == [(LeakKind.CHILD, str(escaped))]
    assert leaks[0].detail.startswith("escaped: ")
    assert audit.finish() == []


def test_thread_is_named_with_its_place() -> None:
    audit = LeakAudit.start()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten")
    thread.start()
    leaks = audit.finish(settle=0)
    done.set()
    thread.join()
    assert [leak.what for leak in leaks] == ["forgotten"]
    assert "wait" in leaks[0].detail


def test_thread_that_is_about_to_end_gets_its_time() -> None:
    audit = LeakAudit.start()
    thread = threading.Thread(target=threading.Event().wait, args=(0.05,))
    thread.start()
    assert audit.finish() == []


def test_file_left_in_the_folder_is_named_and_cleared(tmp_path: Path) -> None:
    audit = LeakAudit.start(tempdir=tmp_path)
    (tmp_path / "left").write_text("x")
    assert kinds(audit.finish(settle=0)) == [LeakKind.FILE]
    audit.clear_files()
    assert audit.finish() == []


def test_unraisable_exception_is_recorded() -> None:
    class Noisy:
        def __del__(self) -> None:
            raise RuntimeError("too late")

    audit = LeakAudit.start()
    cycle = [Noisy()]
    cycle.append(cycle)  # type: ignore[arg-type]
    del cycle
    leaks = audit.finish()
    assert kinds(leaks) == [LeakKind.UNRAISABLE]
    assert "too late" in leaks[0].detail


def test_allowed_kinds_are_left_out(tmp_path: Path) -> None:
    audit = LeakAudit.start(tempdir=tmp_path)
    audit.allow("file")
    (tmp_path / "left").write_text("x")
    assert audit.finish(settle=0) == []
    with pytest.raises(ValueError, match="nonsense"):
        audit.allow("nonsense")


@pytest.mark.both_loops
async def test_pending_task_and_lost_exception_are_recorded() -> None:
    audit = LeakAudit.start()

    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    async def fails() -> None:
        raise RuntimeError("nobody looks")

    task = asyncio.create_task(forever(), name="forgotten")
    lost = asyncio.create_task(fails())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del lost
    await audit.settle_tasks()
    leaks = audit.finish()
    task.cancel()
    assert [(leak.kind, leak.what) for leak in leaks if leak.kind is LeakKind.TASK] == [(LeakKind.TASK, "forgotten")]
    assert any("nobody looks" in leak.detail for leak in leaks if leak.kind is LeakKind.LOOP_ERROR)
