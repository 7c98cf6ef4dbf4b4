"""What recovery raises: breakers, strategies and checkpoints."""

from __future__ import annotations

import os
import pickle as _pickle
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from procession.errors._base import ProcessionError

if TYPE_CHECKING:
    from procession._types import FailureKind


class RecoveryError(ProcessionError):
    """A recovery, a breaker or a checkpoint could not do what it was asked for."""


class CircuitOpen(RecoveryError):
    """A breaker did not let a call pass.

    Attributes:
        retry_after: seconds until one may pass, as far as can be told; infinite when the breaker is held open.
        name: the breaker.
        state: where it stands: ``"open"``, ``"half_open"`` with all probes under way, or ``"forced_open"``.
    """

    # Refusing a call has to be quick: the data are read from `args`, so that making one runs no Python code.

    if TYPE_CHECKING:

        def __init__(self, retry_after: float, name: str = "breaker", state: str = "open") -> None: ...

    @property
    def retry_after(self) -> float:
        """Seconds until a call may pass."""
        seconds: float = self.args[0]
        return seconds

    @property
    def name(self) -> str:
        """The breaker."""
        return str(self.args[1]) if len(self.args) > 1 else "breaker"

    @property
    def state(self) -> str:
        """Where it stands."""
        return str(self.args[2]) if len(self.args) > 2 else "open"

    def __str__(self) -> str:
        if self.retry_after == float("inf"):
            return f"{self.name} is {self.state} until somebody changes that"
        return f"{self.name} is {self.state}; try again in {self.retry_after:.3f} s"


class RecoveryExhausted(RecoveryError):
    """A recovery was given up.

    Attributes:
        id: whom it was about.
        kind: what kind of failure it was.
        attempts: how many attempts were made.
        reason: which bound was reached: ``"attempts"``, ``"window"``, ``"time"``, ``"strategies"`` or ``"breaker"``.
        error: what the last failure was; also the ``__cause__`` when it is an exception.
    """

    _fields = ("id", "kind", "attempts", "reason", "error")

    def __init__(
        self, id: str, kind: FailureKind, attempts: int, reason: str, error: BaseException | str | None = None
    ) -> None:
        super().__init__(id, kind, attempts, reason)
        self.id = id
        self.kind = kind
        self.attempts = attempts
        self.reason = reason
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        """An error of somebody else may be anything; one that cannot be pickled travels as its text."""
        try:
            _pickle.dumps(self.error)
        except Exception:  # noqa: BLE001 - whatever its own __reduce__ raises
            text = f"{type(self.error).__name__}: {self.error}"
            return RecoveryExhausted(self.id, self.kind, self.attempts, self.reason, text).__reduce__()
        return super().__reduce__()

    def __str__(self) -> str:
        why = {
            "attempts": "no more are allowed in a row",
            "window": "there were too many within the window",
            "time": "the time is over",
            "strategies": "no strategy is left",
            "breaker": "its breaker stays open",
        }.get(self.reason, self.reason)
        last = f": {self.error}" if self.error is not None and str(self.error) else ""
        return f"{self.id} ({self.kind}) was given up after {self.attempts} attempts, {why}{last}"


class CheckpointError(RecoveryError, OSError):
    """A checkpoint could not be written or read; what was saved before is still there.

    Attributes:
        name: the checkpoint.
        phase: what was under way, for example ``"write"``, ``"sync"``, ``"rename"`` or ``"directory"``.
        reason: what the system said, or why it was refused.
        errno: the number the system gave, or ``None``.
        filename: the file or folder it is about, or ``None``.
    """

    _fields: ClassVar[tuple[str, ...]] = ("name", "phase", "reason", "errno", "filename")

    def __init__(
        self, name: str, phase: str, reason: str, errno: int | None = None, filename: str | None = None
    ) -> None:
        super().__init__(errno, reason)
        self.errno = errno
        self.strerror: str = reason
        self.filename = filename
        self.name = name
        self.phase = phase
        self.reason = reason

    @classmethod
    def of(cls, name: str, phase: str, error: OSError) -> CheckpointError:
        """The same for an error of the system."""
        path = error.filename
        shown = os.fsdecode(path) if isinstance(path, (str, bytes)) else None
        return cls(name, phase, error.strerror or str(error), error.errno, shown)

    def __str__(self) -> str:
        where = f": {self.filename}" if self.filename else ""
        return f"checkpoint {self.name} ({self.phase}): {self.reason}{where}"


class CheckpointCorrupt(RecoveryError):
    """There are files of a checkpoint, and none of them is whole.

    Attributes:
        name: the checkpoint.
        problems: what is wrong with each file, the newest first, as ``"file: why"``.
    """

    _fields = ("name", "problems")

    def __init__(self, name: str, problems: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.name = name
        self.problems: tuple[str, ...] = tuple(problems)

    def __str__(self) -> str:
        return f"no good checkpoint of {self.name} is left: {'; '.join(self.problems)}"
