"""The words of the monitor: how bad, and of what kind."""

from __future__ import annotations

from enum import StrEnum


class Severity(StrEnum):
    """How bad it is; ``INFO < WARNING < CRITICAL < EMERGENCY``."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"

    @property
    def rank(self) -> int:
        """0 for the mildest, then 1, 2, 3."""
        return _RANKS[self]

    def __lt__(self, other: str) -> bool:
        return self.rank < Severity(other).rank

    def __le__(self, other: str) -> bool:
        return self.rank <= Severity(other).rank

    def __gt__(self, other: str) -> bool:
        return self.rank > Severity(other).rank

    def __ge__(self, other: str) -> bool:
        return self.rank >= Severity(other).rank


_RANKS = {severity: rank for rank, severity in enumerate(Severity)}


class AlertType(StrEnum):
    """What an alert is about.

    ``…_HIGH`` a figure is above its limit; ``MEMORY_LEAK`` memory grows and never comes back; ``IDLE`` nothing was done
    for longer than allowed; ``PROCESS_DOWN`` it ended though nobody had asked for that; ``PROCESS_HUNG`` it lives and
    makes no progress; ``RULE`` a rule of your own.
    """

    CPU_HIGH = "cpu_high"
    MEMORY_HIGH = "memory_high"
    MEMORY_LEAK = "memory_leak"
    DISK_HIGH = "disk_high"
    NETWORK_HIGH = "network_high"
    FILE_DESCRIPTORS_HIGH = "file_descriptors_high"
    THREADS_HIGH = "threads_high"
    RESPONSE_TIME_HIGH = "response_time_high"
    ERROR_RATE_HIGH = "error_rate_high"
    IDLE = "idle"
    PROCESS_DOWN = "process_down"
    PROCESS_HUNG = "process_hung"
    RULE = "rule"


STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk-sleep",
    "T": "stopped",
    "t": "tracing-stop",
    "Z": "zombie",
    "X": "dead",
    "x": "dead",
    "K": "wake-kill",
    "W": "waking",
    "I": "idle",
    "P": "parked",
}
"""State letters of ``/proc/PID/stat`` and the words psutil has for them."""

LETTERS = {word: letter for letter, word in STATES.items()}
"""The other way round; ``"dead"`` is ``x``."""
