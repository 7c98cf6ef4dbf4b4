"""Alerts over HTTP, to servers that behave and to servers that do not."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from procession import ProcessRegistry, spawn
from procession.errors import ConfigError
from procession.monitor import (
    Alert,
    MonitorConfig,
    ResourceLimits,
    ResourceMonitor,
    Severity,
    WebhookFailed,
    WebhookSink,
)
from procession.monitor._alerts import AlertBook
from procession.monitor._words import AlertType
from tests.monitor.support import program, until

pytestmark = pytest.mark.row("MO5")

Reply = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def an_alert() -> Alert:
    return AlertBook(1).add(
        ("web", "cpu_high"),
        process="web",
        target="web",
        pid=1,
        owner="",
        type=AlertType.CPU_HIGH,
        severity=Severity.WARNING,
        message="höher",
    )


def answering(*statuses: int) -> Reply:
    async def reply(number: int, writer: asyncio.StreamWriter) -> None:
        status = statuses[min(number, len(statuses) - 1)]
        writer.write(f"HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n".encode())

    return reply


class Server:
    """Takes POSTs, and answers as it is told."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.strip().split("\r\n")
            headers = dict(part.split(": ", 1) for part in rest)
            body = await reader.readexactly(int(headers["Content-Length"]))
            self.requests.append((line, headers, body))
            await self.reply(len(self.requests) - 1, writer)
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)


@asynccontextmanager
async def served(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    one = Server(reply)
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0, ssl=tls)
    one.port = server.sockets[0].getsockname()[1]
    try:
        yield one
    finally:
        server.close()
        while one.tasks:
            await asyncio.wait(set(one.tasks))


async def test_an_alert_and_its_end_arrive() -> None:
    async with served(answering(204)) as server, ProcessRegistry() as registry:
        config = MonitorConfig(interval=0.05, network=False)
        async with ResourceMonitor(config, registry=registry) as monitor:
            sink = WebhookSink(f"http://127.0.0.1:{server.port}/alerts?key=1", headers={"X-Key": "abc"})
            monitor.add_sink(sink)
            async with spawn(program("threads", 5), registry=registry, name="web") as process:
                monitor.watch(process, limits=ResourceLimits(max_threads=3, for_samples=1))
                await until(monitor, lambda: sink.sent == 1)
            await until(monitor, lambda: sink.sent == 2)
        (line, headers, body), (_, _, last) = server.requests
        assert line == "POST /alerts?key=1 HTTP/1.1"
        assert headers["Host"] == f"127.0.0.1:{server.port}"
        assert (headers["Content-Type"], headers["X-Key"]) == ("application/json", "abc")
        told = json.loads(body)
        assert (told["event"], told["alert"]["type"], told["alert"]["target"]) == (
            "alert_raised",
            "threads_high",
            "web",
        )
        assert json.loads(last)["event"] == "alert_resolved"


async def test_errors_of_the_server_are_tried_again() -> None:
    async with served(answering(500, 429, 200)) as server:
        sink = WebhookSink(f"http://127.0.0.1:{server.port}", retries=2)
        await sink.send(an_alert())
        assert (len(server.requests), sink.sent) == (3, 1)
        assert server.requests[0][0] == "POST / HTTP/1.1"
        assert json.loads(server.requests[0][2])["alert"]["message"] == "höher"


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (301, 1), (503, 2)])
async def test_refusals_are_told(status: int, tries: int) -> None:
    async with served(answering(status)) as server:
        sink = WebhookSink(f"http://127.0.0.1:{server.port}/x", retries=1)
        with pytest.raises(WebhookFailed) as error:
            await sink.send(an_alert())
        assert (error.value.status, len(server.requests), sink.sent) == (status, tries, 0)
        assert str(error.value) == f"http://127.0.0.1:{server.port}/x answered {status} Whatever"


async def test_a_server_that_says_nothing_times_out() -> None:
    async def silent(number: int, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)

    async with served(silent) as server:
        with pytest.raises(WebhookFailed, match=r"no answer within 0\.05 s"):
            await WebhookSink(f"http://127.0.0.1:{server.port}", timeout=0.05, retries=0).send(an_alert())


@pytest.mark.parametrize("said", [b"", b"220 smtp ready\r\n", b"HTTP/1.1\r\n", b"x" * (1 << 18)])
async def test_a_server_that_speaks_something_else_is_a_failure(said: bytes) -> None:
    async def babbling(number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with served(babbling) as server:
        with pytest.raises(WebhookFailed) as error:
            await WebhookSink(f"http://127.0.0.1:{server.port}", retries=0).send(an_alert())
        assert error.value.status == 0


async def test_nobody_there_is_a_failure_that_harms_nobody() -> None:
    async with served(answering(200)) as server:
        port = server.port
    with pytest.raises(WebhookFailed, match="could not be reached"):
        await WebhookSink(f"http://127.0.0.1:{port}", retries=0).send(an_alert())
    seen: list[Alert] = []
    async with ProcessRegistry() as registry:
        config = MonitorConfig(interval=0.05, network=False)
        async with ResourceMonitor(config, registry=registry) as monitor:
            responder = monitor.add_sink(WebhookSink(f"http://127.0.0.1:{port}", retries=0))
            monitor.on_alert("info", seen.append)
            async with spawn(program("threads", 5), registry=registry) as process:
                monitor.watch(process, limits=ResourceLimits(max_threads=3, for_samples=1))
                await until(monitor, lambda: seen and responder.failures)
                assert monitor.statistics().callback_failures == 1


async def test_it_speaks_tls(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    made = subprocess.run(["openssl", "req", *kind, "-keyout", key, "-out", certificate, *subject], capture_output=True)
    assert made.returncode == 0, made.stderr
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    async with served(answering(200), theirs) as server:
        address = f"https://localhost:{server.port}/"
        with pytest.raises(WebhookFailed, match="certificate"):
            await WebhookSink(address, retries=0).send(an_alert())
        sink = WebhookSink(address, tls=ssl.create_default_context(cafile=certificate))
        await sink.send(an_alert())
        assert sink.sent == 1


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org/", "http://", "http://host:0/", "http://host:99999/", "http://a b/"),
        *("http://host/\r\nX: y", "http://höst/", "http://me:secret@host/", 5, None),
    ],
)
def test_addresses_that_are_none_are_refused(url: Any) -> None:
    with pytest.raises(ConfigError) as error:
        WebhookSink(url)
    assert error.value.field == "url"
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("timeout", {"timeout": -1}),
        ("retries", {"retries": -1}),
        ("retries", {"retries": True}),
        ("headers", {"headers": 5}),
        ("headers", {"headers": {"X": "a\r\nY: b"}}),
        ("headers", {"headers": {"": "a"}}),
        ("headers", {"headers": {"X": 5}}),
    ],
)
def test_options_are_checked(field: str, options: Any) -> None:
    with pytest.raises(ConfigError) as error:
        WebhookSink("http://host/", **options)
    assert error.value.field == field


def test_its_name_shows_no_secrets() -> None:
    sink = WebhookSink("https://[::1]:8443/hook?token=hush", headers={"Authorization": "hush"})
    assert repr(sink) == "<WebhookSink https://[::1]:8443/hook: 0 sent>"
