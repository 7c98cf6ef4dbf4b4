"""What there is to be used: cores and memory of the machine, or of the container we are in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from procession.monitor._sample import MB

_NO_LIMIT = 1 << 60
"""cgroups of version 1 say "no limit" by a number beyond any memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What this program and its children can use together.

    Attributes:
        cores: processors: those we may run on, or fewer where a control group allows less time.
        memory_mb: memory: that of the machine, or less where a control group allows less.
        limited: whether a control group is what decides.
    """

    cores: float
    memory_mb: float
    limited: bool = False


def capacity(root: str = "/") -> Capacity:
    """Looks it up, in control groups of version 2 and 1, from ours upwards: the tightest limit counts.

    Args:
        root: where ``proc`` is, for tests.
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / MB
    quotas = [quota for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    bounds = [bound for group in _groups(root, "memory") if (bound := _bound(group)) is not None]
    least, most = min([cores, *quotas]), min([memory, *bounds])
    return Capacity(cores=least, memory_mb=most, limited=least < cores or most < memory)


def _groups(root: str, controller: str) -> Iterator[str]:
    """The directories of our control group for one controller, and of those above it."""
    homes = _homes(root)
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        key = controller if controller in names.split(",") else "" if not names else None
        for top, mount in homes.get(key, ()) if key is not None and path else ():
            inside = os.path.relpath(path, top)
            folder = mount if inside.startswith("..") else os.path.normpath(os.path.join(mount, inside))
            while folder.startswith(mount):
                yield folder
                if folder == mount:
                    break
                folder = os.path.dirname(folder)


def _homes(root: str) -> dict[str, list[tuple[str, str]]]:
    """Where control groups are mounted: by controller, and version 2 under the empty name."""
    homes: dict[str, list[tuple[str, str]]] = {}
    for line in _lines(os.path.join(root, "proc/self/mountinfo")):
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        place = fields[3], os.path.normpath(os.path.join(root, fields[4].lstrip("/")))
        for name in [""] if kind[0] == "cgroup2" else kind[2].split(","):
            homes.setdefault(name, []).append(place)
    return homes


def _quota(group: str) -> float | None:
    """Cores' worth of time a control group allows."""
    words = _first(group, "cpu.max").split()
    if not words:
        words = [*_first(group, "cpu.cfs_quota_us").split(), *_first(group, "cpu.cfs_period_us").split()]
    if len(words) < 2 or not words[0].isdecimal() or not words[1].isdecimal() or words[1] == "0":
        return None  # "max", or -1
    return int(words[0]) / int(words[1])


def _bound(group: str) -> float | None:
    """MB of memory a control group allows."""
    text = _first(group, "memory.max") or _first(group, "memory.limit_in_bytes")
    return int(text) / MB if text.isdecimal() and int(text) < _NO_LIMIT else None


def _first(group: str, name: str) -> str:
    lines = _lines(os.path.join(group, name))
    return lines[0].strip() if lines else ""


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []
