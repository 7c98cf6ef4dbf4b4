"""A selector that asks before it waits: the one place where a virtual loop touches asyncio's machinery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from selectors import BaseSelector, SelectorKey
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_SLICE = 0.005
"""Seconds of a real wait, after which it is asked again whether something real is still under way."""

Ready = list[tuple[SelectorKey, int]]


class JumpingSelector(BaseSelector):
    """Wraps a real selector; instead of waiting it calls ``idle``.

    Args:
        inner: the real selector.
        idle: told the time-out; returns ``True`` when there is no need to wait, ``False`` to wait for real.
    """

    def __init__(self, inner: BaseSelector, idle: Callable[[float | None], bool]) -> None:
        self._inner = inner
        self._idle = idle

    def select(self, timeout: float | None = None) -> Ready:
        """What is ready; otherwise ``idle`` decides whether to wait, a slice at a time."""
        ready = self._inner.select(0)
        if ready or (timeout is not None and timeout <= 0) or self._idle(timeout):
            return ready
        return self._inner.select(_SLICE if timeout is None else min(timeout, _SLICE))

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        """As the real one."""
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """As the real one."""
        return self._inner.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> SelectorKey:
        """As the real one."""
        return self._inner.modify(fileobj, events, data)

    def close(self) -> None:
        """As the real one."""
        self._inner.close()

    def get_map(self) -> Mapping[FileDescriptorLike, SelectorKey]:
        """As the real one."""
        return self._inner.get_map()

    def get_key(self, fileobj: FileDescriptorLike) -> SelectorKey:
        """As the real one."""
        return self._inner.get_key(fileobj)
