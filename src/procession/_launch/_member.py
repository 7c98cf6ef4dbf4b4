"""A process of a child's tree that is not the child itself, held by its own pidfd."""

from __future__ import annotations

import os
from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable

from procession._linux import _pidfd, _proc
from procession._types import ProcessRef

_LOOK_AGAIN = 0.01


class PidMember:
    """A member found by a scan; signals go to exactly that process or to nobody."""

    __slots__ = ("_loop", "_pidfd", "_timer", "_watching", "escaped", "ref")

    def __init__(self, found: _proc.Found, loop: AbstractEventLoop) -> None:
        self.ref: ProcessRef = found.ref
        self.escaped: bool = found.escaped
        self._pidfd = found.pidfd
        self._loop = loop
        self._watching = False
        self._timer: TimerHandle | None = None

    def send_signal(self, signum: int) -> bool:
        """Signals exactly this process; ``False`` when it has ended."""
        try:
            if self._pidfd is not None:
                _pidfd.send(self._pidfd, signum)
            else:
                seen = _proc.stat(self.ref.pid)
                if seen is None or seen.started != self.ref.started:
                    return False
                os.kill(self.ref.pid, signum)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True  # it lives, and is not ours to signal
        except OSError:
            return True  # no descriptor to verify it by: it may live, and cannot be signalled safely
        return True

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once when it has ended; without a pidfd that is found out by looking now and then."""
        if self._pidfd is None:
            self._look_again(callback)
            return

        def ended() -> None:
            self._unwatch()
            callback()

        self._watching = True
        self._loop.add_reader(self._pidfd, ended)

    def _look_again(self, callback: Callable[[], None]) -> None:
        try:
            seen = _proc.stat(self.ref.pid)
            over = seen is None or seen.started != self.ref.started or seen.state in "ZX"
        except OSError:
            over = False  # no descriptor to look with
        if over:
            callback()
        else:
            self._timer = self._loop.call_later(_LOOK_AGAIN, self._look_again, callback)

    def _unwatch(self) -> None:
        if self._watching and self._pidfd is not None:
            self._watching = False
            self._loop.remove_reader(self._pidfd)

    def close(self) -> None:
        """Lets go of the pidfd; may be called twice."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pidfd is not None:
            self._unwatch()
            pidfd, self._pidfd = self._pidfd, None
            os.close(pidfd)
