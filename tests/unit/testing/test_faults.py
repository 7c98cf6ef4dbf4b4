"""Faults on purpose come when they should, and are undone."""

import errno
import os
import resource
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from procession.testing import failing_spawn, fd_limit, process_limit, slow_spawn

SEAM = "a_spawner:popen"


@pytest.fixture
def spawner(monkeypatch):
    module = SimpleNamespace(popen=subprocess.Popen)
    monkeypatch.setitem(sys.modules, "a_spawner", module)
    return module


@pytest.mark.parametrize("n_free", [0, 1, 5])
def test_exactly_so_many_descriptors_fit(n_free):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hole = os.open("/dev/null", os.O_RDONLY)
    other = os.open("/dev/null", os.O_RDONLY)
    os.close(hole)  # a hole below the highest descriptor counts as room
    opened: list[int] = []
    try:
        with fd_limit(n_free):
            opened.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(n_free))
            with pytest.raises(OSError, match=os.strerror(errno.EMFILE)) as caught:
                os.open("/dev/null", os.O_RDONLY)
            assert caught.value.errno == errno.EMFILE
            assert os.read(other, 1) == b""
    finally:
        for fd in (*opened, other):
            os.close(fd)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_the_process_limit_says_whether_it_binds():
    before = resource.getrlimit(resource.RLIMIT_NPROC)
    with process_limit() as binds:
        if binds:
            with pytest.raises(BlockingIOError):
                subprocess.run(["true"], check=False)
        else:
            assert subprocess.run(["true"], check=False).returncode == 0
    assert resource.getrlimit(resource.RLIMIT_NPROC) == before


def test_root_is_not_bound():
    with process_limit() as binds:
        if os.getuid() == 0:
            assert not binds


def test_spawns_fail_with_the_number_given(spawner):
    with failing_spawn(errno.EAGAIN, seam=SEAM) as fault:
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                spawner.popen(["true"])
    assert (fault.calls, fault.hits) == (2, 2)
    assert spawner.popen is subprocess.Popen


def test_only_some_spawns_fail(spawner):
    outcomes: list[object] = []
    with failing_spawn(errno.ENOMEM, after=1, times=1, seam=SEAM) as fault:
        for _ in range(3):
            try:
                outcomes.append(spawner.popen(["true"]).wait())
            except OSError as error:
                outcomes.append(error.errno)
    assert outcomes == [0, errno.ENOMEM, 0]
    assert (fault.calls, fault.hits) == (3, 1)


def test_slow_spawns_take_their_time_but_not_beyond_the_block(spawner):
    with slow_spawn(0.02, seam=SEAM):
        began = time.monotonic()
        assert spawner.popen(["true"]).wait() == 0
        assert time.monotonic() - began >= 0.02
    codes: list[int] = []
    began = time.monotonic()
    with slow_spawn(60, seam=SEAM) as fault:
        thread = threading.Thread(target=lambda: codes.append(spawner.popen(["true"]).wait()))
        thread.start()
        while not fault.hits:
            thread.join(0.001)
    thread.join()
    assert codes == [0]
    assert time.monotonic() - began < 30
