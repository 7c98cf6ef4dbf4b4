"""TCP bytes per process: known numbers of bytes through loopback, against the kernel's own counts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from procession import ProcessRegistry, spawn
from procession.monitor import AlertType, MonitorConfig, ResourceLimits, ResourceMonitor
from procession.monitor import _net as net
from tests.monitor.support import MB, program, until

pytestmark = pytest.mark.row("MO2")

FAST = MonitorConfig(interval=0.05)
NEAR = 0.01
"""MB by which figures may differ from the bytes that were sent: the kernel counts the handshake too."""


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets; its port."""
    writers: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        while writers:
            for writer in list(writers):
                writer.transport.abort()
            await asyncio.sleep(0)


async def test_bytes_sent_and_received_are_those_of_the_process() -> None:
    count = 3 * MB
    async with echo() as port, ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with (
            spawn(program("send", port, count), registry=registry) as talks,
            spawn(program("wait"), registry=registry) as silent,
        ):
            assert await anext(talks.lines()) == "ready"
            sample = await monitor.sample(talks)
            assert monitor.statistics().network == ""
            assert sample.network_sent_mb == pytest.approx(3.0, abs=NEAR)
            assert sample.network_received_mb == pytest.approx(3.0, abs=NEAR)
            quiet = await monitor.sample(silent)
            assert (quiet.network_sent_mb, quiet.network_received_mb) == (0.0, 0.0)


async def test_a_connection_that_was_seen_is_not_lost_when_it_ends() -> None:
    async with echo() as port, ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("brief", port, MB), registry=registry) as process:
            lines = process.lines()
            assert await anext(lines) == "ready"
            assert process.stdin is not None
            for number in range(1, 4):
                await process.stdin.write(b"open\n")
                assert await anext(lines) == "done"
                await monitor.sample(process)  # seen once
                await process.stdin.write(b"close\n")
                assert await anext(lines) == "done"
                sample = await monitor.sample(process)
                assert sample.network_sent_mb == pytest.approx(number, abs=NEAR)
                assert sample.network_received_mb == pytest.approx(number, abs=NEAR)


async def test_what_a_connection_moves_after_it_was_last_seen_is_told_by_the_kernel_at_its_end() -> None:
    async with echo() as port, ResourceMonitor(MonitorConfig(interval=100)) as monitor:
        peer = socket.create_connection(("127.0.0.1", port))
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            watch = monitor.watch(os.getpid())
            before = await monitor.sample(watch)
            await loop.sock_sendall(peer, b"x" * MB)
            left = MB
            while left:
                left -= len(await loop.sock_recv(peer, 1 << 16))
        finally:
            peer.close()
        moved = 0.0
        for _ in range(100):  # the kernel tells of it when the last byte was acknowledged
            after = await monitor.sample(watch)
            moved = (after.network_sent_mb or 0.0) - (before.network_sent_mb or 0.0)
            if moved >= 2.0 - NEAR:  # both ends are ours
                break
            await asyncio.sleep(0.01)
        assert moved == pytest.approx(2.0, abs=NEAR)


async def test_a_tree_counts_a_socket_once() -> None:
    async with echo() as port, ResourceMonitor(FAST) as monitor:
        peer = socket.create_connection(("127.0.0.1", port))
        os.set_inheritable(peer.fileno(), True)
        try:
            async with spawn(program("wait", pass_fds=[peer.fileno()])) as child:
                assert await anext(child.lines()) == "ready"
                loop = asyncio.get_running_loop()
                peer.setblocking(False)
                await loop.sock_sendall(peer, b"x" * MB)
                alone, whole = monitor.watch(child), monitor.watch(os.getpid(), tree=True)
                await until(monitor, lambda: whole.latest and whole.latest.processes >= 2)
                await monitor._next_round()
                await monitor._next_round()
                first, second = await monitor.sample(alone), await monitor.sample(whole)
                assert first.network_sent_mb is not None
                assert second.network_sent_mb is not None
                assert first.network_sent_mb == pytest.approx(1.0, abs=NEAR)
                assert second.network_sent_mb < 3.0  # one end and the other, not the one end twice
        finally:
            peer.close()


async def test_a_limit_on_traffic_is_an_alert() -> None:
    limits = ResourceLimits(max_network_mb=1, max_network_mbps=1e6, for_samples=1)
    async with echo() as port, ProcessRegistry() as registry, ResourceMonitor(FAST, registry=registry) as monitor:
        async with spawn(program("send", port, 2 * MB), registry=registry) as process:
            monitor.watch(process, limits=limits)
            alert = await anext(monitor.alerts())
    assert alert.type is AlertType.NETWORK_HIGH


async def test_without_the_extra_figures_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    net._layout.cache_clear()
    monkeypatch.setitem(sys.modules, "pyroute2", None)
    monkeypatch.setitem(sys.modules, "pyroute2.netlink", None)
    try:
        async with ResourceMonitor(FAST) as monitor:
            sample = await monitor.sample(monitor.watch(os.getpid()))
            assert (sample.network_sent_mb, sample.network_received_mb, sample.network_mbps) == (None, None, None)
            assert "procession[net]" in monitor.statistics().network
            assert sample.rss_mb is not None
    finally:
        net._layout.cache_clear()


async def test_another_version_of_the_extra_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyroute2.netlink import diag

    net._layout.cache_clear()
    monkeypatch.setattr(diag.inet_diag_msg, "fields", (("idiag_family", "B"),))
    try:
        async with ResourceMonitor(FAST) as monitor:
            assert (await monitor.sample(monitor.watch(os.getpid()))).network_sent_mb is None
            assert "another one than was expected" in monitor.statistics().network
    finally:
        net._layout.cache_clear()


async def test_where_the_kernel_refuses_figures_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "_NETLINK_SOCK_DIAG", 63)  # a protocol that no kernel has
    async with ResourceMonitor(FAST) as monitor:
        sample = await monitor.sample(monitor.watch(os.getpid()))
        assert sample.network_sent_mb is None
        assert "no socket diagnostics" in monitor.statistics().network


async def test_whose_descriptors_may_not_be_read_has_unknown_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> set[int]:
        raise PermissionError

    monkeypatch.setattr(net, "_inodes", refuse)
    async with ResourceMonitor(FAST) as monitor:
        sample = await monitor.sample(monitor.watch(os.getpid()))
        assert sample.network_sent_mb is None
        assert monitor.statistics().network == ""


async def test_who_lives_in_another_network_has_unknown_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "_namespace", lambda pid: f"net:[{pid}]")
    async with ResourceMonitor(FAST) as monitor:
        sample = await monitor.sample(monitor.watch(os.getpid()))
        assert sample.network_sent_mb is None


async def test_it_can_be_switched_off() -> None:
    async with ResourceMonitor(MonitorConfig(interval=0.05, network=False)) as monitor:
        assert (await monitor.sample(monitor.watch(os.getpid()))).network_sent_mb is None


def test_processes_are_searched_only_when_there_is_something_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, searched = {7}, 0

    def inodes(pid: int) -> set[int]:
        nonlocal searched
        searched += 1
        return mine

    monkeypatch.setattr(net, "_inodes", inodes)
    ledger = net.Ledger()
    ledger._table.close()
    table: Any = SimpleNamespace(sockets={}, closed={}, limbo={}, refresh=lambda: None, close=lambda: None)
    ledger._table = table
    account = net.Account([os.getpid()])

    def searches() -> int:
        before = searched
        ledger.refresh([account])
        return searched - before

    assert [searches() for _ in range(3)] == [1, 0, 0]  # once, because it is new
    table.sockets[1] = net.Tcp(7, 10, 20)
    assert [searches() for _ in range(3)] == [0, 0, 0]  # its own, known
    assert account.totals() == (20 / MB, 10 / MB)
    table.sockets[2] = net.Tcp(8, 1, 1)
    assert [searches() for _ in range(4)] == [1, 1, 0, 0]  # nobody's: after two looks it is a stranger's
    mine = {7, 9}
    table.sockets[3] = net.Tcp(9, 5, 5)
    assert searches() == 1
    assert account.totals() == (25 / MB, 15 / MB)
    mine = {9}
    table.sockets[4] = net.Tcp(11, 0, 0)
    assert searches() == 1  # and 7 is left to another process: what it had moved stays
    table.sockets[1] = net.Tcp(7, 1000, 1000)
    ledger.refresh([account])
    assert account.totals() == (25 / MB, 15 / MB)
    ledger.close()


def test_a_message_of_refusal_is_an_error() -> None:
    import struct

    table = net.SocketTable()
    try:
        refusal = struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -13)
        with pytest.raises(PermissionError):
            table._read(refusal, {})
    finally:
        table.close()
