"""How many tasks have gone which way."""

from __future__ import annotations

from dataclasses import dataclass

from procession.scheduler._states import CANCELLED, FAILED, SUCCEEDED, TaskState


@dataclass(slots=True)
class Tally:
    """Counters since the scheduler was opened; each is counted in one place only."""

    submitted: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    missed: int = 0
    retried: int = 0
    preempted: int = 0

    def count(self, state: TaskState) -> None:
        """A task has reached its fate."""
        if state is SUCCEEDED:
            self.succeeded += 1
        elif state is FAILED:
            self.failed += 1
        elif state is CANCELLED:
            self.cancelled += 1
        else:
            self.missed += 1
