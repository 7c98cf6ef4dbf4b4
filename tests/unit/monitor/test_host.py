"""What there is to be used, in containers and outside."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from procession.monitor import capacity

pytestmark = pytest.mark.row("MO1")

CORES = len(os.sched_getaffinity(0))
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 20)
V2 = "31 24 0:27 {root} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
V1 = "40 32 0:35 {root} /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"


def machine(tmp_path: Path, groups: str, mounts: str, **files: str) -> str:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups)
    (tmp_path / "proc/self/mountinfo").write_text("20 1 0:1 / / rw - ext4 /dev/x rw\nshort\n" + mounts)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path)


def test_without_limits_it_is_the_machine(tmp_path):
    root = machine(
        tmp_path, "0::/a/b\n", V2.format(root="/"), **{"a/b/memory.max": "max\n", "a/b/cpu.max": "max 100000\n"}
    )
    found = capacity(root)
    assert (found.cores, found.memory_mb, found.limited) == (CORES, MEMORY, False)


def test_the_tightest_limit_upwards_counts(tmp_path):
    root = machine(
        tmp_path,
        "0::/a/b\n",
        V2.format(root="/"),
        **{
            "a/b/memory.max": f"{64 << 20}\n",
            "a/memory.max": f"{32 << 20}\n",
            "memory.max": "max",
            "a/cpu.max": "50000 100000\n",
        },
    )
    found = capacity(root)
    assert (found.cores, found.memory_mb, found.limited) == (0.5, 32.0, True)


def test_a_container_sees_its_own_group_as_the_top(tmp_path):
    root = machine(tmp_path, "0::/\n", V2.format(root="/docker/x"), **{"memory.max": f"{16 << 20}\n"})
    assert capacity(root).memory_mb == 16.0


def test_version_1(tmp_path):
    root = machine(
        tmp_path,
        "5:memory:/app\n4:cpu,cpuacct:/app\n0::/\n",
        V1.format(root="/", name="memory") + V1.format(root="/", name="cpu").replace("rw,cpu", "rw,cpu,cpuacct"),
        **{
            "memory/app/memory.limit_in_bytes": f"{8 << 20}\n",
            "memory/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",
            "cpu/app/cpu.cfs_quota_us": "20000\n",
            "cpu/app/cpu.cfs_period_us": "100000\n",
            "cpu/cpu.cfs_quota_us": "-1\n",
            "cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    found = capacity(root)
    assert (found.cores, found.memory_mb) == (0.2, 8.0)


@pytest.mark.parametrize("text", ["", "garbage", "100 0", "-5 100"])
def test_what_makes_no_sense_is_no_limit(tmp_path, text):
    root = machine(tmp_path, "0::/\nnonsense\n", V2.format(root="/"), **{"cpu.max": text, "memory.max": text})
    assert capacity(root).cores == CORES


def test_a_machine_without_any_of_it(tmp_path):
    assert capacity(str(tmp_path)).memory_mb == MEMORY


def test_this_machine():
    found = capacity()
    assert 0 < found.cores <= CORES
    assert 0 < found.memory_mb <= MEMORY
