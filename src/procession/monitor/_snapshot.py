"""What a process is doing, all of it at one moment: as data, as JSON, as text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadInfo:
    """One thread.

    Attributes:
        id: its thread id.
        name: its name.
        state: ``"running"``, ``"sleeping"``, ``"disk-sleep"`` …
        cpu_seconds: processor time, user and system.
        waits_in: the function of the kernel it waits in, or empty.
    """

    id: int
    name: str
    state: str
    cpu_seconds: float
    waits_in: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """One open descriptor that is no socket.

    Attributes:
        fd: its number.
        target: the path, or what the kernel calls it, for example ``"pipe:[4711]"``.
        mode: ``"r"``, ``"w"`` or ``"rw"``.
        flags: as for open(2), for example ``("O_RDWR", "O_APPEND", "O_CLOEXEC")``.
        offset: where the next read or write takes place.
    """

    fd: int
    target: str
    mode: str = ""
    flags: tuple[str, ...] = ()
    offset: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSocket:
    """One open socket.

    Attributes:
        fd: its number.
        family: ``"IPv4"``, ``"IPv6"``, ``"unix"`` or ``"other"``.
        kind: ``"stream"``, ``"datagram"`` or ``"other"``.
        local: address and port, or the path of a Unix socket.
        peer: address and port at the other end, or empty.
        state: of a TCP connection, for example ``"ESTABLISHED"``.
    """

    fd: int
    family: str
    kind: str
    local: str = ""
    peer: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryMaps:
    """What its memory consists of, in MB of resident memory.

    Attributes:
        count: how many mappings.
        total_mb: virtual memory of all.
        rss_mb: resident memory of all.
        pss_mb: its share of that.
        swap_mb: what is in swap.
        heap_mb: the heap.
        stack_mb: the main stack.
        anonymous_mb: mappings without a file, other than heap and stack.
        files: the largest files and their resident memory.
    """

    count: int = 0
    total_mb: float = 0.0
    rss_mb: float = 0.0
    pss_mb: float = 0.0
    swap_mb: float = 0.0
    heap_mb: float = 0.0
    stack_mb: float = 0.0
    anonymous_mb: float = 0.0
    files: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A process among its relatives.

    Attributes:
        pid: its process id.
        name: its name.
        command: its command line, without what looks like a secret.
        state: ``"running"``, ``"sleeping"`` …
        started: its start, in clock ticks since boot.
        rss_mb: resident memory.
        cpu_seconds: processor time.
        threads: how many.
        children: its children.
    """

    pid: int
    name: str
    command: str = ""
    state: str = ""
    started: int = 0
    rss_mb: float | None = None
    cpu_seconds: float | None = None
    threads: int | None = None
    children: tuple[TreeNode, ...] = ()

    def walk(self) -> Iterator[TreeNode]:
        """It and all its descendants, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, pid: int) -> TreeNode | None:
        """The descendant with this pid, or itself."""
        return next((node for node in self.walk() if node.pid == pid), None)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(map(_one_line, self._lines("")))

    def _lines(self, indent: str) -> Iterator[str]:
        memory = "" if self.rss_mb is None else f"  {self.rss_mb:.1f} MB"
        spent = "" if self.cpu_seconds is None else f"  {self.cpu_seconds:.2f} s"
        yield f"{indent}{self.pid} {self.command or self.name}  {self.state}{memory}{spent}"
        for child in self.children:
            yield from child._lines(indent + "  ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything about one process at one moment, as far as we may know it. Secrets are masked.

    Attributes:
        pid: its process id.
        started: its start, in clock ticks since boot.
        name: its name.
        command: its command line, without what looks like a secret.
        wall: when this was taken, in seconds since the epoch.
        state: ``"running"``, ``"sleeping"`` …
        user: whom it belongs to.
        executable: the program.
        directory: its working directory.
        nice: how nice it is.
        uptime: seconds since its start.
        rss_mb: resident memory.
        vms_mb: virtual memory.
        cpu_seconds: processor time.
        file_descriptors: how many are open.
        threads: its threads.
        files: its open descriptors other than sockets.
        sockets: its sockets.
        maps: what its memory consists of.
        limits: soft and hard limits by name; ``None`` is unlimited.
        cgroup: where it stands in the control groups.
        environment: its variables as it was started, secrets masked.
        parents: its parent, the parent of that, and so on.
        tree: it and its descendants.
        missing: what could not be read, and why; empty when this is complete.
    """

    pid: int
    started: int = 0
    name: str = ""
    command: str = ""
    wall: float = 0.0
    state: str = ""
    user: str = ""
    executable: str = ""
    directory: str = ""
    nice: int | None = None
    uptime: float = 0.0
    rss_mb: float | None = None
    vms_mb: float | None = None
    cpu_seconds: float | None = None
    file_descriptors: int | None = None
    threads: tuple[ThreadInfo, ...] = ()
    files: tuple[OpenFile, ...] = ()
    sockets: tuple[OpenSocket, ...] = ()
    maps: MemoryMaps = field(default_factory=MemoryMaps)
    limits: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    cgroup: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[TreeNode, ...] = ()
    tree: TreeNode | None = None
    missing: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything could be read."""
        return not self.missing

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def to_json(self, indent: int | None = 2) -> str:
        """As JSON."""
        return json.dumps(self.to_dict(), indent=indent)

    def to_text(self) -> str:
        """As text for people."""
        return "".join(f"{_one_line(line)}\n" for line in _text(self))

    def __str__(self) -> str:
        return self.to_text()


def _text(snapshot: Snapshot) -> Iterator[str]:
    yield f"process {snapshot.pid}  {snapshot.command or snapshot.name}"
    yield f"  state {snapshot.state}, user {snapshot.user or '?'}, nice {snapshot.nice}, up {snapshot.uptime:.1f} s"
    yield f"  program {snapshot.executable or '?'}, in {snapshot.directory or '?'}"
    yield f"  memory {_mb(snapshot.rss_mb)} resident, {_mb(snapshot.vms_mb)} virtual; processor {snapshot.cpu_seconds} s"
    for title, rows in _tables(snapshot):
        yield ""
        yield title
        yield from (f"  {row}" for row in rows)


def _tables(snapshot: Snapshot) -> Iterator[tuple[str, list[str]]]:
    if snapshot.missing:
        yield "MISSING", list(snapshot.missing)
    threads = sorted(snapshot.threads, key=lambda thread: -thread.cpu_seconds)
    yield (
        f"threads ({len(threads)})",
        [
            f"{one.id:<8} {one.state:<12} {one.cpu_seconds:9.2f} s  {one.name}"
            + f"  in {one.waits_in}" * bool(one.waits_in)
            for one in threads
        ],
    )
    yield (
        f"files ({len(snapshot.files)})",
        [f"{one.fd:<5} {one.mode:<3} {one.target}  at {one.offset}  {'|'.join(one.flags)}" for one in snapshot.files],
    )
    yield (
        f"sockets ({len(snapshot.sockets)})",
        [
            f"{one.fd:<5} {one.family} {one.kind} {one.local or '-'} → {one.peer or '-'} {one.state}".rstrip()
            for one in snapshot.sockets
        ],
    )
    maps = snapshot.maps
    yield (
        f"memory maps ({maps.count})",
        [
            f"resident {maps.rss_mb:.1f} MB, share {maps.pss_mb:.1f} MB, swap {maps.swap_mb:.1f} MB",
            f"heap {maps.heap_mb:.1f} MB, anonymous {maps.anonymous_mb:.1f} MB, stack {maps.stack_mb:.1f} MB",
            *(f"{size:9.1f} MB  {path}" for path, size in maps.files),
        ],
    )
    limits = {name: [_plain(one) for one in both] for name, both in snapshot.limits.items()}
    yield "limits (soft, hard)", [f"{name:<22} {soft:>16} {hard:>16}" for name, (soft, hard) in limits.items()]
    yield "control groups", list(snapshot.cgroup)
    yield "environment", [f"{name}={value}" for name, value in sorted(snapshot.environment.items())]
    yield "parents", [f"{node.pid} {node.command or node.name}" for node in snapshot.parents]
    if snapshot.tree is not None:
        yield "tree", str(snapshot.tree).splitlines()


def _one_line(text: str) -> str:
    """Names, paths and values belong to others: none of them can begin a line of its own."""
    return text if text.isprintable() else "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def _mb(value: float | None) -> str:
    return "?" if value is None else f"{value:.1f} MB"


def _plain(value: float | None) -> str:
    return "unlimited" if value is None else f"{value:.0f}"
