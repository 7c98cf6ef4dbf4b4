"""A cgroup (v2) per process, where the system lets us make one: the strongest rung of containment.

See cgroups(7) and the kernel's Documentation/admin-guide/cgroup-v2.rst; ``cgroup.kill`` came with Linux 5.14.
"""

from __future__ import annotations

import os
from functools import cache


@cache
def _home() -> str | None:
    """The directory of our own cgroup in the v2 hierarchy, when there is one."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            own = next((line[3:].strip() for line in file if line.startswith("0::")), None)
        with open("/proc/self/mountinfo", encoding="utf-8") as file:
            mounts = [line.split(" ") for line in file if " - cgroup2 " in line]
    except OSError:
        return None
    if own is None or not mounts:
        return None
    root, mount = mounts[0][3], mounts[0][4]
    inside = os.path.relpath(own, root) if root != "/" else own.lstrip("/")
    if inside.startswith(".."):
        return None
    return os.path.normpath(os.path.join(mount, inside))


@cache
def available(token: str) -> str | None:
    """The directory in which cgroups for our children are made; ``None`` where that is not allowed."""
    home = _home()
    if home is None:
        return None
    base = os.path.join(home, f"procession-{token}")
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
    except OSError:
        return None
    if not os.access(os.path.join(base, "cgroup.kill"), os.W_OK):
        remove(base)
        return None
    return base


@cache
def allowed() -> bool:
    """Whether we may make cgroups for our children here."""
    probe = f"probe-{os.getpid()}"
    base = available(probe)
    return base is not None and remove(base)


class Cgroup:
    """One child's cgroup. The child joins it before its program starts, so nothing can be missed."""

    __slots__ = ("path",)

    def __init__(self, base: str, id: str) -> None:
        self.path = os.path.join(base, id)
        os.mkdir(self.path, 0o700)

    @property
    def procs(self) -> str:
        """The file through which a process joins."""
        return os.path.join(self.path, "cgroup.procs")

    def kill(self) -> bool:
        """SIGKILL to all that is in it, at once and without a race; ``False`` when that failed."""
        try:
            with open(os.path.join(self.path, "cgroup.kill"), "w", encoding="ascii") as file:
                file.write("1")
        except OSError:
            return False
        return True

    def pids(self) -> list[int]:
        """Who is in it now."""
        try:
            with open(self.procs, encoding="ascii") as file:
                return [int(line) for line in file]
        except (OSError, ValueError):
            return []

    def remove(self) -> bool:
        """Removes the directory; ``False`` while somebody is still in it."""
        return remove(self.path)


def remove(path: str) -> bool:
    """Removes an empty cgroup; ``True`` when it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
