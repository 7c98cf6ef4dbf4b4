"""TCP bytes per process: from the kernel's socket diagnostics, joined to processes by the inodes of their sockets.

See sock_diag(7). pyroute2 (the extra ``net``) knows the layout of the messages; they are sent and taken apart here, because
its own decoding costs 57 µs a socket and this costs 2.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from procession.monitor._reader import breathe
from procession.monitor._sample import MB

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr, see netlink(7)
_ATTRIBUTE = struct.Struct("=HH")
_COUNTS = struct.Struct("=QQ")
_DONE, _ERROR = 3, 2
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_INFO = 2  # INET_DIAG_INFO
_BUFFER = 1 << 18
_SILENT = 1 << 6 | 1 << 10  # TIME_WAIT and LISTEN carry no bytes
_LATE = 3
"""Looks for which the kernel's word of the end of a socket is waited for."""

_LOOKS = 2
"""A socket that belongs to none of ours at so many looks belongs to somebody else."""


class Unavailable(Exception):
    """Socket diagnostics cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where things stand in the messages."""

    by_family: int
    request: Any
    groups: tuple[int, ...]
    fixed: int
    cookie: int
    inode: int
    acked: int


@cache
def _layout() -> _Layout:
    try:
        from pyroute2.netlink import diag
    except ImportError as error:
        raise Unavailable(f"pyroute2 is not there ({error}); install procession[net]") from None
    if not hasattr(socket, "AF_NETLINK"):
        raise Unavailable("this system has no netlink")
    try:
        message = _offsets(diag.inet_diag_msg.fields)
        info = _offsets(diag.inet_diag_msg.tcp_info.fields)
        return _Layout(
            by_family=diag.SOCK_DIAG_BY_FAMILY,
            request=diag.inet_diag_req,
            groups=(diag.SKNLGRP_INET_TCP_DESTROY, diag.SKNLGRP_INET6_TCP_DESTROY),
            fixed=message[""],
            cookie=message["idiag_cookie"],
            inode=message["idiag_inode"],
            acked=info["tcpi_bytes_acked"],  # the bytes received follow
        )
    except (AttributeError, LookupError, TypeError, struct.error) as error:
        raise Unavailable(f"this version of pyroute2 is another one than was expected: {error!r}") from None


def prepare() -> None:
    """Imports what is needed, which takes longer than a round may; should it be missing, the first round says so."""
    with suppress(Unavailable):
        _layout()


def _offsets(fields: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Where each field of a packed structure begins; under ``""`` its size."""
    found, at = {}, 0
    for name, code in fields:
        found[name] = at
        at += struct.calcsize("=" + code.lstrip("<>="))
    found[""] = at
    return found


@dataclass(slots=True)
class Tcp:
    """One socket as last seen: its inode, bytes acknowledged and received."""

    inode: int
    sent: int
    received: int


class SocketTable:
    """All TCP sockets of our network namespace, as of the last :meth:`refresh`.

    Attributes:
        sockets: by cookie.
        closed: those that have ended since the refresh before, with what they had moved in all.
        limbo: those that are gone and of whose end the kernel has not told yet, which it does a little later.

    Raises:
        Unavailable: pyroute2 is missing, or the kernel refuses.
    """

    def __init__(self) -> None:
        self._layout = _layout()
        self.sockets: dict[int, Tcp] = {}
        self.closed: dict[int, Tcp] = {}
        self.limbo: dict[int, tuple[Tcp, int]] = {}
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
        except OSError as error:
            raise Unavailable(f"no socket diagnostics: {error}") from None
        self._ends: socket.socket | None = None
        try:
            self._socket.settimeout(1.0)
            self._ends = self._listen_to_ends()
            self.refresh()
        except OSError as error:
            self.close()
            raise Unavailable(f"no socket diagnostics: {error}") from None

    def _listen_to_ends(self) -> socket.socket | None:
        """The kernel tells of every TCP socket that ends, with its final counts, to whoever joins these groups."""
        listener = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, _NETLINK_SOCK_DIAG
        )
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            listener.bind((0, sum(1 << (group - 1) for group in self._layout.groups)))
        except OSError:  # then what a socket moves after the last round is not seen
            listener.close()
            return None
        return listener

    def close(self) -> None:
        """Closes both sockets; may be called twice."""
        self._socket.close()
        if self._ends is not None:
            self._ends.close()

    def refresh(self) -> None:
        """Reads all sockets, and which ended since the last time.

        Raises:
            OSError: the kernel does not answer.
        """
        fresh: dict[int, Tcp] = {}
        for family in (socket.AF_INET, socket.AF_INET6):
            self._socket.send(self._ask(family))
            self._take(self._socket, fresh)
        self.closed = {}
        if self._ends is not None:
            self._take(self._ends, self.closed)
        for cookie in self.closed:
            fresh.pop(cookie, None)
            self.limbo.pop(cookie, None)
        for cookie, (last, looks) in list(self.limbo.items()):
            self.limbo[cookie] = last, looks - 1
            if looks <= 1:  # it ended unheard: what was last seen of it has to do
                del self.limbo[cookie]
                self.closed[cookie] = last
        for cookie, last in self.sockets.items():
            if cookie not in fresh and cookie not in self.closed:
                if self._ends is None:
                    self.closed[cookie] = last
                else:
                    self.limbo[cookie] = last, _LATE
        self.sockets = fresh

    def _ask(self, family: int) -> bytes:
        request = self._layout.request()
        request["sdiag_family"] = family
        request["sdiag_protocol"] = socket.IPPROTO_TCP
        request["idiag_ext"] = 1 << (_INFO - 1)
        request["idiag_states"] = 0xFFF & ~_SILENT
        request["header"]["type"] = self._layout.by_family
        request["header"]["flags"] = _DUMP
        request.encode()
        return bytes(request.data)

    def _take(self, source: socket.socket, found: dict[int, Tcp]) -> None:
        while True:
            try:
                data = source.recv(_BUFFER)
            except BlockingIOError:
                return
            except OSError:
                if source is self._ends:  # more ended than the queue holds: their last seen counts have to do
                    return
                raise
            if self._read(data, found):
                return
            breathe()

    def _read(self, data: bytes, found: dict[int, Tcp]) -> bool:
        """Takes messages apart; whether the last one was among them."""
        layout, at, whole = self._layout, 0, len(data)
        while at < whole:
            length, kind, *_ = _HEADER.unpack_from(data, at)
            if kind == _DONE:
                return True
            if kind == _ERROR:
                code = -struct.unpack_from("=i", data, at + _HEADER.size)[0]
                raise OSError(code, os.strerror(code))
            body, end = at + _HEADER.size, at + length
            cookie = int.from_bytes(data[body + layout.cookie : body + layout.cookie + 8], sys.byteorder)
            inode = int.from_bytes(data[body + layout.inode : body + layout.inode + 4], sys.byteorder)
            place = body + layout.fixed
            while place + 4 <= end:
                size, attribute = _ATTRIBUTE.unpack_from(data, place)
                if attribute == _INFO and size >= 4 + layout.acked + _COUNTS.size:
                    sent, received = _COUNTS.unpack_from(data, place + 4 + layout.acked)
                    found[cookie] = Tcp(inode, sent, received)
                place += (size + 3) & ~3 or 4
            at += (length + 3) & ~3
        return False


_NETLINK_SOCK_DIAG = 4


@dataclass(slots=True)
class Account:
    """The traffic of one watched process or tree.

    Attributes:
        pids: whose sockets they are.
        mine: the sockets that were seen with it, by cookie, with what they have moved.
        inodes: the inodes of its sockets when it was last looked at.
        gone: bytes sent and received by sockets that have ended.
        denied: whether its descriptors may not be read, or its network is another one than ours.
        fresh: whether it has never been looked at.
    """

    pids: list[int]
    mine: dict[int, Tcp] = field(default_factory=dict)
    inodes: frozenset[int] = frozenset()
    gone: tuple[int, int] = (0, 0)
    denied: bool = False
    fresh: bool = True

    def totals(self) -> tuple[float | None, float | None]:
        """MB received and sent so far; ``None`` when that cannot be known."""
        if self.denied:
            return None, None
        sent = self.gone[0] + sum(tcp.sent for tcp in self.mine.values())
        received = self.gone[1] + sum(tcp.received for tcp in self.mine.values())
        return received / MB, sent / MB


class Ledger:
    """Who moved how many bytes.

    Processes are searched for their sockets only when there are sockets that nobody has been seen with.

    Raises:
        Unavailable: socket diagnostics cannot be had.
    """

    def __init__(self) -> None:
        self._table = SocketTable()
        self._strangers: dict[int, int] = {}
        self._namespace = _namespace("self")

    def close(self) -> None:
        """Lets go of the kernel; may be called twice."""
        self._table.close()

    def refresh(self, accounts: Iterable[Account]) -> None:
        """Brings all accounts up to date.

        Raises:
            OSError: the kernel does not answer.
        """
        accounts = list(accounts)
        table = self._table
        table.refresh()
        present = {tcp.inode for tcp in table.sockets.values() if tcp.inode}
        known = frozenset().union(*(account.inodes for account in accounts))
        new = {inode for inode in present - known if self._strangers.get(inode, 0) < _LOOKS}
        for account in accounts:
            if new or account.fresh:
                self._search(account)
        found = frozenset().union(*(account.inodes for account in accounts))
        self._strangers = {
            inode: self._strangers.get(inode, 0) + (inode in new) for inode in present if inode not in found
        }
        by_inode: dict[int, list[int]] = {}
        for cookie, tcp in table.sockets.items():
            if tcp.inode:
                by_inode.setdefault(tcp.inode, []).append(cookie)
        for account in accounts:
            self._bring_up_to_date(account, by_inode)

    def _bring_up_to_date(self, account: Account, by_inode: dict[int, list[int]]) -> None:
        table = self._table
        for inode in account.inodes:
            for cookie in by_inode.get(inode, ()):
                account.mine.setdefault(cookie, table.sockets[cookie])
        sent, received = account.gone
        for cookie in list(account.mine):
            live = table.sockets.get(cookie)
            if live is not None and (live.inode in account.inodes or not live.inode):
                account.mine[cookie] = live
                continue
            if live is None and cookie in table.limbo:
                continue
            last = account.mine.pop(cookie)
            final = live or table.closed.get(cookie, last)  # ended, or left to another process
            sent += max(final.sent, last.sent)
            received += max(final.received, last.received)
        account.gone = sent, received

    def _search(self, account: Account) -> None:
        account.fresh = False
        found: set[int] = set()
        for pid in account.pids:
            try:
                found |= _inodes(pid)
            except FileNotFoundError:
                continue  # it has ended
            except OSError:
                account.denied = True
                return
        if _namespace(str(account.pids[0])) not in (None, self._namespace):
            account.denied = True
        account.inodes = frozenset(found)


def _inodes(pid: int) -> set[int]:
    """The inodes of the sockets a process has open."""
    folder, found = f"/proc/{pid}/fd", set()
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return found


def _namespace(pid: str) -> str | None:
    """The network a process is in."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None
