"""The state of a process that no registry knows of: the same table, nobody to tell."""

from __future__ import annotations

from procession._core.machine import Machine
from procession._types import Exit, ProcessState, StopReport
from procession.abc import PROCESS_MOVES, ProcessHandle


class SoloEntry:
    """Stands in for a registry's entry."""

    __slots__ = ("_machine",)

    def __init__(self, id: str) -> None:
        self._machine: Machine[ProcessState] = Machine(id, PROCESS_MOVES)

    @property
    def state(self) -> ProcessState:
        """The present state."""
        return self._machine.state

    def spawned(self, handle: ProcessHandle, duration: float) -> None:  # noqa: ARG002 - nobody to tell
        """Starting → running."""
        self._machine.to(ProcessState.RUNNING)

    def failed(self, reason: str) -> None:
        """Starting → failed."""
        self._machine.to(ProcessState.FAILED, reason)

    def to(self, state: ProcessState, reason: str = "") -> None:
        """Any other move."""
        self._machine.to(state, reason)

    def stopped(self, report: StopReport) -> None:
        """Nobody to tell."""

    def exited(self, exit: Exit) -> None:
        """→ exited."""
        self._machine.to(ProcessState.EXITED, str(exit))
