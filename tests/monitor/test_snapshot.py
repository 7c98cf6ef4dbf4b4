"""Snapshots of real processes."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import psutil
import pytest

from procession import Command, spawn
from procession.errors import ProcessUnknown
from procession.monitor import MonitorConfig, ResourceMonitor
from procession.monitor._collect import collect, hidden
from tests.monitor.support import program

pytestmark = pytest.mark.row("MO8")

FAST = MonitorConfig(interval=0.05, network=False)

BUSY = """
import os, socket, sys, threading
file = open(sys.argv[1], "ab+"); file.write(b"12345"); file.flush(); file.seek(2)
read = open(sys.argv[1], "rb"); read.read(1); os.lseek(read.fileno(), 3, 0)
server = socket.create_server(("127.0.0.1", 0))
peer = socket.create_connection(server.getsockname())
plain = socket.socket(socket.AF_UNIX); plain.bind(sys.argv[2])
gram = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); gram.bind(("::1", 0))
threading.Thread(target=threading.Event().wait, name="waits", daemon=True).start()
held = bytearray(b"x" * (20 << 20))
print(file.fileno(), read.fileno(), server.fileno(), peer.fileno(), plain.fileno(), gram.fileno(), server.getsockname()[1], flush=True)
sys.stdin.read()
"""


async def test_everything_about_a_process(tmp_path: Path) -> None:
    command = Command(
        *(sys.executable, "-c", BUSY, tmp_path / "data", tmp_path / "socket", "--password", "hunter2"),
        stdin="pipe",
        cwd=tmp_path,
        env={
            "API_TOKEN": "hush",
            "DATABASE_URL": "postgres://me:secret@db/x",
            "GREETING": "hello",
            "CI_JOB": "0123456789abcdef0123456789abcdef01234567",
        },
        rlimits={"nofile": (200, 300)},
        nice=3,
    )
    async with ResourceMonitor(FAST) as monitor, spawn(command) as process:
        said = str(await anext(process.lines()))
        file, read, server, peer, plain, gram, port = map(int, said.split())
        snapshot = await monitor.snapshot(process.pid)

        assert (snapshot.pid, snapshot.missing, snapshot.is_complete) == (process.pid, (), True)
        assert snapshot.started == process.ref.started
        assert snapshot.executable == os.path.realpath(sys.executable)
        assert (snapshot.directory, snapshot.nice) == (str(tmp_path), 3)
        assert snapshot.user == psutil.Process().username()
        assert snapshot.rss_mb is not None
        assert snapshot.rss_mb > 20
        assert snapshot.file_descriptors == psutil.Process(process.pid).num_fds()

        assert len(snapshot.threads) == 2
        main = next(thread for thread in snapshot.threads if thread.id == process.pid)
        assert main.state in ("sleeping", "running")
        assert main.cpu_seconds > 0

        files = {one.fd: one for one in snapshot.files}
        assert files[file].target == str(tmp_path / "data")
        assert (files[file].mode, files[file].offset) == ("rw", 2)
        assert {"O_RDWR", "O_APPEND", "O_CLOEXEC"} <= set(files[file].flags)
        assert (files[read].mode, files[read].offset, files[read].flags[0]) == ("r", 3, "O_RDONLY")
        assert files[0].target.startswith("pipe:")

        sockets = {one.fd: one for one in snapshot.sockets}
        assert (sockets[server].local, sockets[server].state) == (f"127.0.0.1:{port}", "LISTEN")
        assert (sockets[peer].peer, sockets[peer].state) == (f"127.0.0.1:{port}", "ESTABLISHED")
        assert (sockets[peer].family, sockets[peer].kind) == ("IPv4", "stream")
        assert (sockets[plain].family, sockets[plain].local) == ("unix", str(tmp_path / "socket"))
        assert (sockets[gram].family, sockets[gram].kind) == ("IPv6", "datagram")
        assert sockets[gram].local.startswith("[::1]:")
        assert not set(files) & set(sockets)

        assert snapshot.maps.count > 10
        assert snapshot.maps.rss_mb == pytest.approx(snapshot.rss_mb, rel=0.1)
        assert snapshot.maps.anonymous_mb + snapshot.maps.heap_mb > 20
        assert any("python" in path for path, _ in snapshot.maps.files)
        assert snapshot.limits["open_files"] == (200, 300)
        assert snapshot.limits["cpu_time"] == (None, None)
        assert snapshot.cgroup

        assert snapshot.environment["GREETING"] == "hello"
        assert {snapshot.environment[name] for name in ("API_TOKEN", "DATABASE_URL", "CI_JOB")} == {"***"}
        assert "hunter2" not in snapshot.command
        assert snapshot.parents[0].pid == os.getpid()
        assert snapshot.tree is not None
        assert snapshot.tree.pid == process.pid

        for text in (snapshot.to_json(), snapshot.to_text(), str(snapshot), repr(snapshot)):
            assert not any(secret in text for secret in ("hush", "hunter2", "me:secret", "0123456789abcdef"))
        told = json.loads(snapshot.to_json())
        assert told["sockets"][0]["fd"] == min(sockets)
        text = snapshot.to_text()
        assert f"process {process.pid}" in text
        assert str(tmp_path / "data") in text
        assert "threads (2)" in text


async def test_a_tree_and_relatives() -> None:
    async with ResourceMonitor(FAST) as monitor, spawn(program("children", 2, 5)) as process:
        assert await anext(process.lines()) == "ready"
        tree = await monitor.tree(process.pid)
        assert len(tree.children) == 2
        assert {node.pid for node in tree.walk()} == {
            process.pid,
            *(child.pid for child in psutil.Process(process.pid).children()),
        }
        child = tree.children[0]
        assert tree.find(child.pid) is child
        assert tree.find(1) is None
        assert child.rss_mb is not None
        assert child.rss_mb > 5
        assert child.threads == 1
        assert json.loads(json.dumps(tree.to_dict()))["children"][0]["pid"] == child.pid
        assert len(str(tree).splitlines()) == 3
        snapshot = await monitor.snapshot(monitor.watch(process))
        assert snapshot.tree is not None
        assert len(list(snapshot.tree.walk())) == 3
        assert (await monitor.snapshot(child.pid)).parents[0].pid == process.pid


async def test_there_is_no_such_process() -> None:
    async with ResourceMonitor(FAST) as monitor:
        for ask in (monitor.snapshot, monitor.tree):
            with pytest.raises(ProcessUnknown):
                await ask(2**30 + 11)
            with pytest.raises(ProcessUnknown):
                await ask(10**30)
            with pytest.raises(ProcessUnknown):
                await ask("nobody")
        async with spawn(program("wait")) as process:
            watch = monitor.watch(process)
        for ask in (monitor.snapshot, monitor.tree):
            with pytest.raises(ProcessUnknown):
                await ask(watch)


@pytest.mark.one_loop
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
async def test_what_may_not_be_read_is_named_and_the_rest_is_there() -> None:
    async with spawn(program("files", 3)) as process:
        assert await anext(process.lines()) == "ready"
        os.seteuid(65534)
        try:
            snapshot = collect(process.pid)
        finally:
            os.seteuid(0)
        assert snapshot.pid == process.pid
        assert snapshot.rss_mb is not None
        assert snapshot.threads
        assert {line.split(":")[0] for line in snapshot.missing} >= {"environment", "files", "memory maps"}
        assert all(line.endswith("permission denied") for line in snapshot.missing)
        assert "MISSING" in snapshot.to_text()
        assert (snapshot.environment, snapshot.files) == ({}, ())


async def test_names_of_others_begin_no_line_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a\nprocess 1  innocent"
    script = "import sys; f = open(sys.argv[1], 'w'); print('ready', flush=True); sys.stdin.read()"
    command = Command(sys.executable, "-c", script, path, stdin="pipe", env={"EVIL": "x\ny"})
    async with ResourceMonitor(FAST) as monitor, spawn(command) as process:
        assert await anext(process.lines()) == "ready"
        text = (await monitor.snapshot(process.pid)).to_text()
        assert "\nprocess 1" not in text
        assert "EVIL=x\\ny" in text


@pytest.mark.parametrize(
    ("name", "value", "is_hidden"),
    [
        ("PATH", "/usr/bin:/bin", False),
        ("HOME", "/" + "x" * 60, False),
        ("LANG", "C.UTF-8", False),
        ("MONKEY", "banana", False),
        ("PASSWORD", "x", True),
        ("DB_PASS", "x", True),
        ("GITHUB_TOKEN", "x", True),
        ("AWS_SECRET_ACCESS_KEY", "x", True),
        ("SSH_KEY", "x", True),
        ("SESSION", "x", True),
        ("SENTRY_DSN", "x", True),
        ("HARMLESS", "ghp_abcdefghijklmnop1234", True),
        ("HARMLESS", "https://user:pw@host/", True),
        ("HARMLESS", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", True),
        ("HARMLESS", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b", True),
        ("HARMLESS", "a sentence that is longer than forty characters in all", False),
        ("EMPTY", "", False),
    ],
)
def test_secrets_are_known_by_name_and_by_shape(name: str, value: str, is_hidden: bool) -> None:
    assert hidden(name, value) == ("***" if is_hidden else value)


def test_this_program_can_look_at_itself() -> None:
    with socket.socket() as one:
        snapshot = collect(os.getpid())
        assert one.fileno() in {found.fd for found in snapshot.sockets}
