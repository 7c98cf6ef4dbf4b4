"""What workers print: read line by line, tagged, handed on; the last lines of stderr are kept for obituaries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from procession._types import Stream

if TYPE_CHECKING:
    from procession.abc import Inlet

_log = logging.getLogger("procession.pool.output")
_TAIL = 4096
_LINE = 1 << 16
_DRAIN = 64  # reads of what is left in a dead worker's pipe


@dataclass(frozen=True, slots=True)
class WorkerOutput:
    """One line that a worker wrote.

    Attributes:
        pool: the pool's name.
        worker: the worker's id.
        pid: its process id.
        stream: ``"stdout"`` or ``"stderr"``.
        text: the line, without its end.
    """

    pool: str
    worker: str
    pid: int
    stream: Stream
    text: str


def to_log(line: WorkerOutput) -> None:
    """Where lines go by default: to the log ``procession.pool.output``, stdout as information, stderr as warnings."""
    level = logging.INFO if line.stream is Stream.STDOUT else logging.WARNING
    if _log.isEnabledFor(level):
        tags = {"pool": line.pool, "worker": line.worker, "worker_pid": line.pid, "stream": line.stream.value}
        _log.log(level, "%s", line.text, extra=tags)


class Tap:
    """Reads one pipe of one worker for as long as there is something to read."""

    __slots__ = ("_inlet", "_make", "_rest", "_sink", "tail")

    def __init__(
        self, inlet: Inlet | None, make: Callable[[str], WorkerOutput], sink: Callable[[WorkerOutput], object]
    ) -> None:
        self._inlet = inlet
        self._make = make
        self._sink = sink
        self._rest = b""
        self.tail = b""
        if inlet is not None:
            inlet.on_readable(self._readable)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Takes what is there; ``False`` when that was nothing."""
        if self._inlet is None:
            return False
        try:
            data = self._inlet.read_nowait(1 << 16)
        except OSError:
            data = b""
        if data is None:
            return False
        if not data:
            self._inlet.on_readable(None)
            self._inlet = None
            return False
        self.tail = (self.tail + data)[-_TAIL:]
        *lines, self._rest = (self._rest + data).split(b"\n")
        while len(self._rest) > _LINE:
            lines.append(self._rest[:_LINE])
            self._rest = self._rest[_LINE:]
        for line in lines:
            self._tell(line)
        return True

    def _tell(self, line: bytes) -> None:
        try:
            self._sink(self._make(line.decode("utf-8", "backslashreplace")))
        except Exception:  # noqa: BLE001 - it is the user's own function
            _log.exception("a line of output could not be handed on")

    def drain(self) -> str:
        """The worker has ended: reads what is left and returns the last lines."""
        for _ in range(_DRAIN):
            if not self._read():
                break
        if self._rest:
            rest, self._rest = self._rest, b""
            self._tell(rest)
        if self._inlet is not None:
            self._inlet.on_readable(None)
            self._inlet = None
        return self.tail.decode("utf-8", "backslashreplace")
