"""Collecting a snapshot: each part by itself, so that what may not be read is missing and the rest is there."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from procession._clock import wall
from procession._core.config import MASK
from procession._linux import _proc
from procession.command import mask, masked
from procession.errors import ProcessUnknown
from procession.monitor._sample import MB
from procession.monitor._snapshot import MemoryMaps, OpenFile, OpenSocket, Snapshot, ThreadInfo, TreeNode
from procession.monitor._words import STATES

T = TypeVar("T")

_MOST_NODES = 10_000
_DEEPEST = 100
_LARGEST = 10
_WIDTH = 400
_FLAG_NAMES = (
    *("O_CREAT", "O_EXCL", "O_TRUNC", "O_APPEND", "O_NONBLOCK", "O_DIRECT", "O_DIRECTORY", "O_NOFOLLOW"),
    *("O_CLOEXEC", "O_SYNC", "O_DSYNC", "O_PATH", "O_NOATIME", "O_TMPFILE"),
)
_FLAGS = {getattr(os, name): name for name in _FLAG_NAMES if hasattr(os, name)}
_ACCESS = {os.O_RDONLY: ("r", "O_RDONLY"), os.O_WRONLY: ("w", "O_WRONLY"), os.O_RDWR: ("rw", "O_RDWR")}
_FAMILIES = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6", socket.AF_UNIX: "unix"}
_KINDS = {socket.SOCK_STREAM: "stream", socket.SOCK_DGRAM: "datagram"}
_PRIVATE_NAME = re.compile(r"(^|_)(KEY|KEYS|AUTH|DSN|CREDS?|SALT|COOKIE|SESSION|SIGNATURE|PIN)(_|$)", re.IGNORECASE)
_PRIVATE_SHAPE = re.compile(r"(?=[^\s/]*\d)(?=[^\s/]*[A-Za-z])([0-9a-fA-F]{32,}|[A-Za-z0-9_-]{40,}={0,2})")
"""Names of variables, and shapes of values, that are taken for secrets in addition to those that hide in commands."""


def hidden(name: str, value: str) -> str:
    """The value of a variable, or a mask when its name or its shape says that it is a secret."""
    shown = mask(f"{name}={value}")
    if not shown.startswith(f"{name}=") or shown.endswith(f"={MASK}") or _PRIVATE_NAME.search(name):
        return MASK
    return MASK if _PRIVATE_SHAPE.fullmatch(value) else value


class Collector:
    """Collects a snapshot of one process. What cannot be read is noted in ``missing``.

    Args:
        pid: the process.

    Raises:
        ProcessUnknown: there is none.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.missing: list[str] = []
        try:
            self._process = psutil.Process(pid)
        except (psutil.NoSuchProcess, ValueError, OverflowError):
            raise ProcessUnknown(f"pid-{pid}", "there is no such process") from None

    def collect(self) -> Snapshot:
        """Reads it all.

        Raises:
            ProcessUnknown: it has ended meanwhile.
        """
        process = self._process
        try:
            state = process.status()
            memory = self._part("memory", process.memory_info)
            times = self._part("processor time", process.cpu_times)
            files, sockets = self._descriptors()
            stat = _proc.stat(self.pid) if _proc.has_proc() else None
            snapshot = Snapshot(
                pid=self.pid,
                started=0 if stat is None else stat.started,
                name=process.name(),
                command=self._command(process),
                wall=wall(),
                state=state,
                user=self._part("user", process.username) or "",
                executable=self._part("executable", process.exe) or "",
                directory=self._part("directory", process.cwd) or "",
                nice=self._part("nice", process.nice),
                uptime=max(0.0, wall() - process.create_time()),
                rss_mb=None if memory is None else memory.rss / MB,
                vms_mb=None if memory is None else memory.vms / MB,
                cpu_seconds=None if times is None else times.user + times.system,
                file_descriptors=self._part("file descriptors", process.num_fds),
                threads=self._part("threads", self._threads) or (),
                files=files,
                sockets=sockets,
                maps=self._part("memory maps", self._maps) or MemoryMaps(),
                limits=self._part("limits", self._limits) or {},
                cgroup=self._part("control groups", self._cgroup) or (),
                environment=self._part("environment", self._environment) or {},
                parents=tuple(node_of(parent) for parent in self._part("parents", process.parents) or ()),
                tree=tree_of(process),
            )
        except psutil.NoSuchProcess:
            raise ProcessUnknown(f"pid-{self.pid}", "it has ended") from None
        object.__setattr__(snapshot, "missing", tuple(self.missing))
        return snapshot

    def _part(self, what: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (psutil.AccessDenied, PermissionError):
            self.missing.append(f"{what}: permission denied")
        except psutil.NoSuchProcess:
            raise
        except (FileNotFoundError, ProcessLookupError):
            if not self._process.is_running():
                raise psutil.NoSuchProcess(self.pid) from None
            self.missing.append(f"{what}: not kept by this system")
        except (OSError, AttributeError, ValueError) as error:
            self.missing.append(f"{what}: {error}")
        return None

    def _command(self, process: psutil.Process) -> str:
        words = self._part("command line", process.cmdline)
        return " ".join(masked(words))[:_WIDTH] if words else ""

    def _threads(self) -> tuple[ThreadInfo, ...]:
        if not _proc.has_proc():
            return tuple(
                ThreadInfo(id=one.id, name="", state="", cpu_seconds=one.user_time + one.system_time)
                for one in self._process.threads()
            )
        found = []
        for name in sorted(os.listdir(f"/proc/{self.pid}/task"), key=int):
            base = f"/proc/{self.pid}/task/{name}/"
            try:
                stat = _text(base + "stat")
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            left, right = stat.index("("), stat.rindex(")")
            fields = stat[right + 2 :].split()
            found.append(
                ThreadInfo(
                    id=int(name),
                    name=stat[left + 1 : right],
                    state=STATES.get(fields[0], fields[0]),
                    cpu_seconds=(int(fields[11]) + int(fields[12])) / _proc.TICKS,
                    waits_in=_waits_in(base),
                )
            )
        return tuple(found)

    def _descriptors(self) -> tuple[tuple[OpenFile, ...], tuple[OpenSocket, ...]]:
        sockets = {one.fd: one for one in self._part("sockets", self._sockets) or ()}
        files = []
        for one in self._part("files", self._files) or ():
            if one.target.startswith("socket:"):  # one that is not connected, or of a family nobody lists
                sockets.setdefault(one.fd, OpenSocket(fd=one.fd, family="other", kind="other"))
            else:
                files.append(one)
        return tuple(files), tuple(sockets[fd] for fd in sorted(sockets))

    def _files(self) -> list[OpenFile]:
        if not _proc.has_proc():
            return [OpenFile(fd=one.fd, target=one.path) for one in self._process.open_files()]
        found = []
        for name in sorted(os.listdir(f"/proc/{self.pid}/fd"), key=int):
            try:
                target = os.readlink(f"/proc/{self.pid}/fd/{name}")
                info = dict(
                    line.split(":", 1) for line in _text(f"/proc/{self.pid}/fdinfo/{name}").splitlines() if ":" in line
                )
            except (FileNotFoundError, ProcessLookupError):
                continue  # closed meanwhile
            flags = int(info.get("flags", "0"), 8)
            mode, access = _ACCESS.get(flags & os.O_ACCMODE, ("", ""))
            names = (access, *(word for bit, word in _FLAGS.items() if bit and flags & bit == bit))
            target = target.replace("\n", "\\n")
            found.append(
                OpenFile(fd=int(name), target=target, mode=mode, flags=names, offset=int(info.get("pos", "0")))
            )
        return found

    def _sockets(self) -> list[OpenSocket]:
        process: Any = self._process
        connections = getattr(process, "net_connections", None) or process.connections
        return [
            OpenSocket(
                fd=one.fd,
                family=_FAMILIES.get(one.family, "other"),
                kind=_KINDS.get(one.type, "other"),
                local=_address(one.laddr),
                peer=_address(one.raddr),
                state="" if one.status == psutil.CONN_NONE else one.status,
            )
            for one in connections(kind="all")
            if one.fd >= 0
        ]

    def _maps(self) -> MemoryMaps:
        if not _proc.has_proc():
            raise FileNotFoundError
        kb = {"Size": 0, "Rss": 0, "Pss": 0, "Swap": 0}
        by_place: dict[str, int] = {}
        place, count = "", 0
        for line in _text(f"/proc/{self.pid}/smaps").splitlines():
            words = line.split(None, 5)
            key = words[0].rstrip(":")
            if words[0].endswith(":"):
                if key in kb:
                    kb[key] += int(words[1])
                    if key == "Rss":
                        by_place[place] = by_place.get(place, 0) + int(words[1])
            else:
                place = words[5] if len(words) > 5 else ""
                count += 1
        files = sorted(
            ((path, size) for path, size in by_place.items() if path.startswith("/")), key=lambda one: -one[1]
        )
        anonymous = sum(size for path, size in by_place.items() if not path or path.startswith("[anon"))
        return MemoryMaps(
            count=count,
            total_mb=kb["Size"] / 1024,
            rss_mb=kb["Rss"] / 1024,
            pss_mb=kb["Pss"] / 1024,
            swap_mb=kb["Swap"] / 1024,
            heap_mb=by_place.get("[heap]", 0) / 1024,
            stack_mb=by_place.get("[stack]", 0) / 1024,
            anonymous_mb=anonymous / 1024,
            files=tuple((path, size / 1024) for path, size in files[:_LARGEST]),
        )

    def _limits(self) -> dict[str, tuple[float | None, float | None]]:
        found = {}
        for line in _text(f"/proc/{self.pid}/limits").splitlines()[1:]:
            name, soft, hard = line[:26].strip(), *line[26:].split()[:2]
            key = name.removeprefix("Max ").replace(" ", "_")
            found[key] = _limit(soft), _limit(hard)
        return found

    def _cgroup(self) -> tuple[str, ...]:
        return tuple(_text(f"/proc/{self.pid}/cgroup").splitlines())

    def _environment(self) -> dict[str, str]:
        return {name: hidden(name, value) for name, value in self._process.environ().items()}


def node_of(process: psutil.Process, children: tuple[TreeNode, ...] = ()) -> TreeNode:
    """One process as a node; what may not be read is left out.

    Raises:
        NoSuchProcess: it has ended.
    """

    def known(read: Callable[[], T]) -> T | None:
        try:
            return read()
        except (psutil.AccessDenied, psutil.ZombieProcess):
            return None

    stat = _proc.stat(process.pid) if _proc.has_proc() else None
    words = known(process.cmdline)
    memory, times = known(process.memory_info), known(process.cpu_times)
    return TreeNode(
        pid=process.pid,
        name=known(process.name) or "",
        command=" ".join(masked(words))[:_WIDTH] if words else "",
        state=known(process.status) or "",
        started=0 if stat is None else stat.started,
        rss_mb=None if memory is None else memory.rss / MB,
        cpu_seconds=None if times is None else times.user + times.system,
        threads=known(process.num_threads),
        children=children,
    )


def tree_of(process: psutil.Process) -> TreeNode:
    """A process and its descendants, at most 10,000 of them, 100 generations deep.

    Raises:
        NoSuchProcess: it has ended.
    """
    try:
        below = process.children(recursive=True)[:_MOST_NODES]
    except psutil.AccessDenied:
        below = []
    by_parent: dict[int, list[psutil.Process]] = {}
    for one in below:
        try:
            by_parent.setdefault(one.ppid(), []).append(one)
        except psutil.NoSuchProcess:
            continue

    def grown(one: psutil.Process, depth: int = 0) -> TreeNode | None:
        below = by_parent.pop(one.pid, []) if depth < _DEEPEST else []
        children = [node for node in (grown(child, depth + 1) for child in below) if node is not None]
        try:
            return node_of(one, tuple(children))
        except psutil.NoSuchProcess:
            return None

    root = grown(process)
    if root is None:
        raise psutil.NoSuchProcess(process.pid)
    return root


def collect(pid: int) -> Snapshot:
    """A snapshot of a process; takes milliseconds, and longer for one with many mappings.

    Raises:
        ProcessUnknown: there is no such process.
    """
    return Collector(pid).collect()


def collect_tree(pid: int) -> TreeNode:
    """A process and its descendants.

    Raises:
        ProcessUnknown: there is no such process.
    """
    try:
        return tree_of(psutil.Process(pid))
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        raise ProcessUnknown(f"pid-{pid}", "there is no such process") from None


def _text(path: str) -> str:
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "backslashreplace")


def _waits_in(base: str) -> str:
    try:
        name = _text(base + "wchan").strip()
    except OSError:
        return ""
    return "" if name == "0" else name


def _address(address: Any) -> str:
    if not address:
        return ""
    if isinstance(address, str):
        return address
    host = f"[{address.ip}]" if ":" in address.ip else address.ip
    return f"{host}:{address.port}"


def _limit(text: str) -> float | None:
    return None if text == "unlimited" else float(text)
