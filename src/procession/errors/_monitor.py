"""What a monitor raises."""

from __future__ import annotations

from typing import ClassVar

from procession.errors._base import NotFound, ProcessionError


class MonitorError(ProcessionError):
    """A monitor could not do what it was asked for."""


class AlertNotFound(MonitorError, NotFound):
    """No active alert has that id: it was never raised, or is resolved already.

    Attributes:
        id: what was asked for.
        what: always ``"alert"``.
    """

    def __init__(self, id: str) -> None:
        NotFound.__init__(self, id, "alert")


class MetricsUnavailable(MonitorError):
    """Nothing can be measured there.

    Attributes:
        id: the process that was asked about.
        reason: why not, in words.
    """

    _fields: ClassVar[tuple[str, ...]] = ("id", "reason")

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(id, reason)
        self.id = id
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing can be measured of {self.id}: {self.reason}"


class ProcessUnknown(MetricsUnavailable, NotFound):
    """The monitor does not watch such a process, or there is none.

    Attributes:
        id: what was asked for.
        reason: why it is not known, in words.
        what: always ``"process"``.
    """

    _fields: ClassVar[tuple[str, ...]] = ("id", "reason", "what")

    def __init__(self, id: str, reason: str = "it is not watched") -> None:
        MetricsUnavailable.__init__(self, id, reason)
        self.what = "process"

    def __str__(self) -> str:
        return MetricsUnavailable.__str__(self)


class WebhookFailed(MonitorError):
    """An address did not take an alert.

    Attributes:
        url: the address, without name and password.
        status: what it answered; 0 when it did not.
        reason: what went wrong, in words.
    """

    _fields = ("url", "status", "reason")

    def __init__(self, url: str, status: int, reason: str) -> None:
        super().__init__(url, status, reason)
        self.url = url
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        answered = f"answered {self.status} {self.reason}" if self.status else f"could not be reached: {self.reason}"
        return f"{self.url} {answered}"
