"""Listeners, and the channels in which the bus keeps them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import TracebackType
from typing import Any, Self

from procession.errors import ConfigError
from procession.events import Event
from procession.registry._filters import Term, has_labels


class Tier(IntEnum):
    """Who hears of an event first; within a tier, who listened first."""

    INDEX = 0
    OWNER = 1
    MODULE = 2
    USER = 3
    QUEUE = 4


def check_callback(callback: Callable[[Event], object]) -> None:
    """Refuses what could not be called as a plain function.

    Raises:
        ConfigError: it is a coroutine function, an async generator function, or not callable.
    """
    if not callable(callback):
        raise ConfigError("callback", callback, "a function of one event is needed")
    for function in (callback, getattr(callback, "__call__", None)):  # noqa: B004 - looked at, not tested for
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            hint = (
                "listeners are plain functions, called while the event is published and never awaited; "
                "use `async for event in registry.subscribe(...)`, or start your own task from a plain function"
            )
            raise ConfigError("callback", callback, hint)


class Listener:
    """A function that hears events, as returned by ``registry.listen``; closes as a context manager.

    Attributes:
        callback: what is called, with the event.
        types: the event classes it hears; subclasses are included.
        id: the only id it hears of, or ``None``.
        owner: the only owner it hears of, or ``None``.
        tier: who is called before and after it.
        active: whether it is still called.
        disabled: whether it was switched off because it failed too often in a row.
        failures: how often it raised.
    """

    __slots__ = (
        "_channel",
        "_close",
        "_order",
        "_streak",
        "_terms",
        "active",
        "callback",
        "disabled",
        "failures",
        "id",
        "owner",
        "tier",
        "types",
    )

    def __init__(
        self,
        callback: Callable[[Event], object],
        types: tuple[type[Event], ...],
        id: str | None,
        owner: str | None,
        terms: tuple[Term, ...],
        tier: Tier,
        serial: int,
        close: Callable[[Listener], None],
    ) -> None:
        self.callback: Callable[[Event], object] = callback
        self.types: tuple[type[Event], ...] = types
        self.id: str | None = id
        self.owner: str | None = owner
        self.tier: Tier = tier
        self.active: bool = True
        self.disabled: bool = False
        self.failures: int = 0
        self._streak = 0
        self._terms = terms
        self._order = (tier << 48) | serial
        self._close = close
        self._channel: Channel | None = None

    def close(self) -> None:
        """Stops listening; from here on it is not called any more, not even for events already published."""
        if self.active:
            self.active = False
            self._close(self)

    def accepts(self, event: Event, labels: Mapping[str, str]) -> bool:
        """Whether the filters other than the type let ``event`` through."""
        return (
            (self.id is None or self.id == event.id)
            and (self.owner is None or self.owner == event.owner)
            and (not self._terms or has_labels(labels, self._terms))
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        how = "disabled" if self.disabled else "active" if self.active else "closed"
        name = getattr(self.callback, "__qualname__", type(self.callback).__name__)
        return f"<Listener {name} for {'|'.join(kind.__name__ for kind in self.types)}: {how}>"


class Channel:
    """The listeners that share one filter (all, an id, an owner, a label), by event class.

    The table is built per event class on first use and forgotten when somebody comes or goes.
    """

    __slots__ = ("_home", "_key", "members", "table")

    def __init__(self, home: dict[Any, Channel] | None = None, key: Any = None) -> None:
        self._home = home
        self._key = key
        self.members: dict[int, Listener] = {}
        self.table: dict[type[Event], tuple[Listener, ...]] = {}

    def add(self, listener: Listener) -> None:
        """Takes ``listener`` in."""
        self.members[listener._order] = listener
        listener._channel = self
        self.table.clear()

    def discard(self, listener: Listener) -> None:
        """Lets ``listener`` go; an empty channel leaves its home."""
        self.members.pop(listener._order, None)
        self.table.clear()
        if not self.members and self._home is not None:
            self._home.pop(self._key, None)

    def build(self, kind: type[Event]) -> tuple[Listener, ...]:
        """The listeners of events of exactly this class, in order."""
        found = [member for _, member in sorted(self.members.items()) if issubclass(kind, member.types)]
        self.table[kind] = result = tuple(found)
        return result
