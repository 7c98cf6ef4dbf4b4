"""Alerts to an HTTP address: one POST of JSON each."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, urlsplit

from procession._core.backoff import Backoff, duration
from procession.errors import ConfigError, WebhookFailed
from procession.monitor._alerts import Alert

_HEAD_LIMIT = 1 << 16
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class WebhookSink:
    """Posts each alert as JSON when it is raised, and again when it is over.

    The body is ``{"event": "alert_raised" | "alert_resolved", "alert": {…}}`` with the fields of the alert. An answer from
    200 to 299 is success. Anything from 500 on, 429, and a connection that fails are tried again; redirections are not
    followed. The connection is closed after each alert.

    Args:
        url: ``http://…`` or ``https://…``.
        timeout: seconds one attempt may take. Default 3.
        retries: attempts after the first. Default 2.
        headers: sent along, for example ``{"Authorization": …}``; never shown.
        tls: for ``https``; default: the system's certificates.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 3.0,
        retries: int = 2,
        headers: Mapping[str, str] = _NO_HEADERS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._url = _address(url)
        self.timeout: float = duration("timeout", timeout)
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigError("retries", retries, "a whole number, 0 or more, is needed")
        self.retries: int = retries
        self.sent: int = 0
        self._headers = _checked(headers)
        self._tls = tls
        self._backoff = Backoff.exponential(0.1, cap=2.0, jitter=False)

    @property
    def url(self) -> str:
        """The address, without what may be secret in it."""
        host = f"[{self._url.hostname}]" if ":" in (self._url.hostname or "") else self._url.hostname
        port = f":{self._url.port}" if self._url.port else ""
        return f"{self._url.scheme}://{host}{port}{self._url.path}"

    async def send(self, alert: Alert) -> None:
        """Posts one alert.

        Raises:
            WebhookFailed: it was refused, or could not be delivered.

        Cancellation: safe; it may have arrived or not.
        """
        event = "alert_raised" if alert.is_active else "alert_resolved"
        body = json.dumps({"event": event, "alert": alert.to_dict()}).encode()
        attempt = 0
        while True:
            try:
                await self._post(body)
            except WebhookFailed as error:
                attempt += 1
                final = 0 < error.status < 500 and error.status != 429
                if final or attempt > self.retries:
                    raise
                await asyncio.sleep(self._backoff.ceiling(attempt))
            else:
                self.sent += 1
                return

    async def _post(self, body: bytes) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                status, reason = await self._exchange(body)
        except TimeoutError:
            raise WebhookFailed(self.url, 0, f"no answer within {self.timeout:g} s") from None
        except (OSError, ValueError, EOFError, asyncio.LimitOverrunError) as error:
            raise WebhookFailed(self.url, 0, f"{type(error).__name__}: {error}") from error
        if not 200 <= status < 300:
            raise WebhookFailed(self.url, status, reason)

    async def _exchange(self, body: bytes) -> tuple[int, str]:
        url, secure = self._url, self._url.scheme == "https"
        if secure and self._tls is None:
            loop = asyncio.get_running_loop()
            self._tls = await loop.run_in_executor(None, ssl.create_default_context)  # reads many files
        port = url.port or (443 if secure else 80)
        reader, writer = await asyncio.open_connection(
            url.hostname, port, ssl=self._tls if secure else None, limit=_HEAD_LIMIT
        )
        try:
            writer.write(self._head(len(body)) + body)
            await writer.drain()
            line = await reader.readuntil(b"\n")
        finally:
            writer.transport.abort()  # what was to be said has been said
        parts = line.decode("latin-1").split(None, 2)
        if len(parts) < 2 or not parts[0].startswith("HTTP/") or not parts[1].isdecimal():
            raise ValueError("what answers there does not speak HTTP")
        return int(parts[1]), parts[2].strip() if len(parts) > 2 else ""

    def _head(self, length: int) -> bytes:
        url = self._url
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        headers = {
            "Host": url.netloc.rpartition("@")[2],
            "User-Agent": "procession",
            "Content-Type": "application/json",
            "Content-Length": str(length),
            "Connection": "close",
            **self._headers,
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def __repr__(self) -> str:
        return f"<WebhookSink {self.url}: {self.sent} sent>"


def _address(url: object) -> SplitResult:
    hint = "an address such as https://example.org/alerts is needed"
    if not isinstance(url, str) or any(char.isspace() or not char.isprintable() for char in url) or not url.isascii():
        raise ConfigError("url", "***", hint)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("url", "***", hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError("url", f"{parts.scheme}://{parts.hostname or ''}", hint)
    if parts.username or parts.password:
        raise ConfigError("url", "***", "put name and password into headers, not into the address")
    return parts


def _checked(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        raise ConfigError("headers", "***", "a mapping of names to text is needed")
    found: dict[str, Any] = dict(headers)
    for name, value in found.items():
        clean = isinstance(name, str) and isinstance(value, str) and (name + value).isascii() and name
        if not clean or any(char in name + value for char in "\r\n\0"):
            raise ConfigError("headers", name, "names and values of one line of ASCII are needed")
    return found
