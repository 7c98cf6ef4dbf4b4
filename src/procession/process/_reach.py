"""A signal to a tree: to the group at once, to those who left it when awaited."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from procession._types import ProcessRef

if TYPE_CHECKING:
    from procession.abc import ProcessHandle

_PASSES = 10


class Reach:
    """A signal that is on its way; awaiting it is optional.

    The process group was signalled when this object was made. ``await`` looks through the tree for
    what has left the group, signals that too, and returns those it found.
    """

    __slots__ = ("_handle", "_signum")

    def __init__(self, handle: ProcessHandle, signum: int) -> None:
        self._handle = handle
        self._signum = signum
        if not handle.signal_group(signum) and handle.exit is not None:
            raise ProcessLookupError(f"process {handle.pid} has ended")

    def __await__(self) -> Generator[Any, None, tuple[ProcessRef, ...]]:
        """Reaches the descendants outside the group too.

        Cancellation: safe; some of them may not have been reached.
        """
        return self._rest().__await__()

    async def _rest(self) -> tuple[ProcessRef, ...]:
        reached: dict[tuple[int, int], ProcessRef] = {}
        for _ in range(_PASSES):
            news = False
            for member in await self._handle.members():
                key = (member.ref.pid, member.ref.started)
                if key not in reached and member.escaped:
                    news = True
                    member.send_signal(self._signum)
                    reached[key] = member.ref
                member.close()
            if not news:
                break
        return tuple(reached.values())
