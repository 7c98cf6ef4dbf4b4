"""The root of the tree, and what is raised for bad input and bad use."""

from __future__ import annotations

import pickle as _pickle
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Sequence


class ProcessionError(Exception):
    """The root of the tree. ``_fields`` names the data that makes up one error."""

    _fields: ClassVar[tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by fields, so that data survives a process boundary whatever ``args`` holds."""
        data = {name: getattr(self, name) for name in self._fields}
        return _rebuild, (type(self), data, self.args, getattr(self, "__notes__", None))


def _rebuild(
    cls: type[ProcessionError], data: dict[str, Any], args: tuple[Any, ...], notes: list[str] | None
) -> ProcessionError:
    error = cls.__new__(cls, *args)
    error.args = args
    for name, value in data.items():
        setattr(error, name, value)
    for note in notes or ():
        error.add_note(note)
    return error


class ConfigError(ProcessionError, ValueError):
    """A value was refused before anything happened.

    Attributes:
        field: dotted name of the field, for example ``"rlimits.nofile"``.
        value: what was given (masked when the field may hold a secret).
        hint: what would be accepted.
    """

    _fields: ClassVar[tuple[str, ...]] = ("field", "value", "hint")

    def __init__(self, field: str, value: object, hint: str) -> None:
        super().__init__(field, value, hint)
        self.field = field
        self.value = value
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        """A refused value may be anything; one that cannot be pickled travels as its text."""
        try:
            _pickle.dumps(self.value)
        except Exception:  # noqa: BLE001 - whatever its own __reduce__ raises
            self = ConfigError(self.field, repr(self.value), self.hint)  # noqa: PLW0642 - a copy that can
        return super().__reduce__()

    def __str__(self) -> str:
        shown = repr(self.value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        return f"{self.field}: {shown} was refused: {self.hint}"


class StateError(ProcessionError, RuntimeError):
    """The call does not fit the state the object is in."""


class InvalidTransition(StateError):
    """A move that the transition table does not allow.

    Attributes:
        id: whose state it is.
        old: the present state.
        new: the refused state.
        story: how the present state was reached, oldest first, one line per move.
    """

    _fields = ("id", "old", "new", "story")

    def __init__(self, id: str, old: str, new: str, story: Sequence[str] = ()) -> None:
        super().__init__(id, old, new)
        self.id = id
        self.old = old
        self.new = new
        self.story: tuple[str, ...] = tuple(story)

    def __str__(self) -> str:
        told = "".join(f"\n  {line}" for line in self.story)
        return f"{self.id}: no way from {self.old} to {self.new}{told}"


class Closed(StateError):
    """The object was closed before the call.

    Attributes:
        what: the closed object, for example ``"registry"``.
    """

    _fields = ("what",)

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what

    def __str__(self) -> str:
        return f"{self.what} is closed"


class SubscriptionLost(StateError):
    """A subscriber fell behind and had asked to be disconnected rather than to miss events unawares.

    Attributes:
        max_queued: how many events its queue held.
    """

    _fields = ("max_queued",)

    def __init__(self, max_queued: int) -> None:
        super().__init__(max_queued)
        self.max_queued = max_queued

    def __str__(self) -> str:
        return f"the subscription fell more than {self.max_queued} events behind and was disconnected"


class NotFound(StateError, LookupError):
    """Nothing is known under that id.

    Attributes:
        id: what was asked for.
        what: the kind of thing, for example ``"process"``.
    """

    _fields: ClassVar[tuple[str, ...]] = ("id", "what")

    def __init__(self, id: str, what: str = "process") -> None:
        super().__init__(id, what)
        self.id = id
        self.what = what

    def __str__(self) -> str:
        return f"no {self.what} is known as {self.id!r}"
