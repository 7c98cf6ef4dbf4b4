"""The core of a circuit breaker: told what happens and when, it says who may pass. No clock, no loop, no exceptions of users.

The rules are those resilience4j documents, with two additions: a call belongs to the state it began in, and a probe that
does not come back counts as failed after a while.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from procession._core.machine import Machine
from procession._core.window import FAILED, SLOW, CountWindow, TimeWindow
from procession.recovery._config import BreakerConfig
from procession.recovery._states import CIRCUIT_MOVES, HELD, CircuitState
from procession.recovery._windows import windows_of

_CLOSED, _OPEN, _HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN
_PASSING = frozenset({_CLOSED, CircuitState.FORCED_CLOSED, CircuitState.METRICS_ONLY, CircuitState.DISABLED})

REFUSED = 0
"""What ``acquire`` says to a call that may not pass."""


@dataclass(frozen=True, slots=True)
class CircuitChange:
    """One move of a breaker.

    Attributes:
        old: the state it left.
        new: the state it is in.
        reason: why.
        at: when, as the time it was told.
    """

    old: CircuitState
    new: CircuitState
    reason: str
    at: float


class Circuit:
    """The state of one breaker.

    A call that may pass gets a *token*, a number above 0, and gives it back with its outcome. In a state that lets all
    pass, all calls of that state share one token, ``epoch``; a probe has one of its own. Tokens are never used again, so
    what comes back with an old one is known to be stale.

    Attributes:
        name: for the errors of wrong moves.
        state: where it stands, as of the last time it was told something.
        epoch: the token of calls that began in this state.
        passing: whether calls pass without being asked for.
        since: when it came into this state.
        refuses_until: until when every call is refused, whoever asks; the past when that is not so.
        changes: its moves that nobody has taken note of yet; whoever takes note clears the list.
        succeeded: calls that were counted as success, since it was made.
        failed: calls that were counted as failure.
        slow: calls that were counted as slow, of either kind.
        refused: calls that were refused.
        given_back: calls that counted as nothing.
        stale: calls that came back after the state in which they had begun.
    """

    __slots__ = (
        "_granted",
        "_half",
        "_machine",
        "_probes",
        "_serial",
        "_short",
        "_single",
        "_windows",
        "changes",
        "config",
        "epoch",
        "failed",
        "given_back",
        "name",
        "passing",
        "refused",
        "refuses_until",
        "since",
        "slow",
        "stale",
        "state",
        "succeeded",
    )

    def __init__(self, config: BreakerConfig, name: str = "breaker", now: float = 0.0) -> None:
        self.config = config
        self.name = name
        self._machine = Machine(name, CIRCUIT_MOVES)
        windows = windows_of(config.looks_at)
        self._windows: list[tuple[CountWindow | TimeWindow, int]] = [
            (window.make(), window.enough(config.minimum_calls)) for window in windows
        ]
        self._half = CountWindow(config.half_open_permits)
        self._probes: dict[int, float] = {}
        self._granted = 0
        self._serial = 1
        self.state: CircuitState = self._machine.state
        self.epoch = 1
        self.passing = True
        self.since = now
        self.refuses_until = -math.inf
        self.changes: list[CircuitChange] = []
        self.succeeded = self.failed = self.slow = self.refused = self.given_back = self.stale = 0
        # The one window nearly all breakers have, without a loop around it.
        self._single: CountWindow | TimeWindow | None = self._windows[0][0] if len(self._windows) == 1 else None
        self._short = self._single if isinstance(self._single, CountWindow) else None

    # ------------------------------------------------------------------------------------- coming and going

    def acquire(self, now: float) -> int:
        """A token for a call that may pass, else ``REFUSED``."""
        if self.passing:
            return self.epoch
        self.settle(now)
        if self.state is _OPEN and now >= self.refuses_until:
            self.move(_HALF_OPEN, now, f"open for {self.config.open_for:g} s")
        if self.state is _HALF_OPEN and self._granted < self.config.half_open_permits:
            self._granted += 1
            self._serial += 1
            self._probes[self._serial] = now
            return self._serial
        self.refused += 1
        return REFUSED

    def succeed(self, token: int) -> bool:
        """A call succeeded quickly: the short way, which needs no time; ``False`` when it is not open."""
        window = self._short
        if window is None or window.failed or window.slow or token != self.epoch or self.state is not _CLOSED:
            return False
        self.succeeded += 1
        window.add(0)
        return True

    def finish(self, token: int, mark: int, now: float) -> None:
        """A call came back; ``mark`` tells whether it failed, was slow, both, or neither."""
        if self.state is not _CLOSED or token != self.epoch:
            self._finish_elsewhere(token, mark, now)
            return
        if mark:
            self._tally(mark)
        else:
            self.succeeded += 1
        single = self._single
        if single is not None:
            single.add(mark, now)
            if not single.failed and not single.slow:
                return
        else:
            for window, _ in self._windows:
                window.add(mark, now)
        if reason := self.exceeded(now):
            self.move(_OPEN, now, reason)

    def _finish_elsewhere(self, token: int, mark: int, now: float) -> None:
        if self.passing and token == self.epoch:
            if self.state is not CircuitState.DISABLED:
                self._tally(mark)
                for window, _ in self._windows:
                    window.add(mark, now)
            return
        self.settle(now)
        if self._probes.pop(token, None) is None:
            self.stale += 1
            return
        self._tally(mark)
        self._probed(mark, now)

    def give_back(self, token: int, now: float) -> None:
        """A call came back that counts as nothing, for example because it was cancelled."""
        self.given_back += 1
        if self._probes:
            self.settle(now)
            if self._probes.pop(token, None) is not None:
                self._granted -= 1

    def _tally(self, mark: int) -> None:
        if mark & FAILED:
            self.failed += 1
        else:
            self.succeeded += 1
        if mark & SLOW:
            self.slow += 1

    def _probed(self, mark: int, now: float) -> None:
        """A probe has its outcome; when all have, they are judged."""
        self._half.add(mark)
        if self._half.calls < self.config.half_open_permits:
            return
        reason = self._over(self._half, self._half.calls)
        if reason:
            self.move(_OPEN, now, f"probes: {reason}")
        else:
            self.move(_CLOSED, now, "probes succeeded")

    # ------------------------------------------------------------------------------------------ judging

    def exceeded(self, now: float) -> str:
        """Which limit the figures of this moment reach, in words; empty when none."""
        for window, enough in self._windows:
            window.settle(now)
            if reason := self._over(window, enough):
                return reason
        return ""

    def _over(self, window: CountWindow | TimeWindow, enough: int) -> str:
        config, calls, failed, slow = self.config, window.calls, window.failed, window.slow
        if config.failure_count is not None:
            least = config.failure_count
            if window is self._half:
                least = min(least, config.half_open_permits)
            if failed >= least:
                return f"{failed} of {calls} calls failed"
        if calls < enough:
            return ""
        if config.failure_rate is not None and failed and failed / calls >= config.failure_rate:
            return f"{failed} of {calls} calls failed"
        if config.slow_rate is not None and slow and slow / calls >= config.slow_rate:
            return f"{slow} of {calls} calls were slow"
        return ""

    @property
    def enough(self) -> int:
        """How many calls are needed before rates mean something."""
        return self.config.half_open_permits if self.state is _HALF_OPEN else min(enough for _, enough in self._windows)

    def oldest(self) -> int:
        """The token of the probe that has been out longest; where there is none, that of the present state."""
        return next(iter(self._probes), self.epoch)

    def figures(self, now: float) -> tuple[int, int, int]:
        """Calls, failed and slow ones, of the window that is looked at now; of the fuller one, if there are several."""
        if self.state is _HALF_OPEN:
            return self._half.calls, self._half.failed, self._half.slow
        for window, _ in self._windows:
            window.settle(now)
        fullest = max((window for window, _ in self._windows), key=lambda window: window.calls)
        return fullest.calls, fullest.failed, fullest.slow

    # --------------------------------------------------------------------------------------- what is due

    def settle(self, now: float) -> None:
        """Makes the moves that have become due by ``now`` although nobody called."""
        config = self.config
        if self.state is _OPEN and config.auto_half_open and now >= self.refuses_until:
            self.move(_HALF_OPEN, now, f"open for {config.open_for:g} s")
        while self.state is _HALF_OPEN:
            until = math.inf if config.half_open_wait is None else self.since + config.half_open_wait
            token, began = next(iter(self._probes.items()), (REFUSED, math.inf))
            lapse = began + config.probe_timeout
            if now < min(until, lapse):
                return
            if until <= lapse:
                self.move(_OPEN, until, f"half-open for {config.half_open_wait:g} s")
                return
            del self._probes[token]
            self._tally(FAILED)
            self._probed(FAILED, lapse)

    def next_due(self) -> float | None:
        """When ``settle`` should be called next although nobody calls; ``None`` when it need not."""
        config = self.config
        if self.state is _OPEN:
            return self.refuses_until if config.auto_half_open else None
        if self.state is not _HALF_OPEN:
            return None
        due = [] if config.half_open_wait is None else [self.since + config.half_open_wait]
        due += [began + config.probe_timeout for began in list(self._probes.values())[:1]]
        return min(due, default=None)

    def retry_after(self, now: float) -> float:
        """Seconds until a call may pass, as far as can be told: at the latest, when half-open; infinite when held open."""
        if self.passing:
            return 0.0
        if self.state is not _HALF_OPEN:
            return max(0.0, self.refuses_until - now)
        if self._granted < self.config.half_open_permits:
            return 0.0
        due = self.next_due()
        return self.config.open_for if due is None else max(0.0, due - now)

    # ------------------------------------------------------------------------------------------- moving

    def move(self, new: CircuitState, now: float, reason: str) -> None:
        """Moves to another state, with clean figures; calls that are under way have nothing to say any more.

        Raises:
            InvalidTransition: the table does not allow the move.
        """
        old = self._machine.to(new, reason)
        self.state = new
        self.passing = new in _PASSING
        self.since = now
        self.refuses_until = self._refuses_until()
        self._serial += 1
        self.epoch = self._serial
        self._probes.clear()
        self._granted = 0
        self._half.clear()
        if new is not _OPEN or old in HELD:  # an open breaker still shows the figures that opened it
            self._forget()
        self.changes.append(CircuitChange(old, new, reason, now))

    def reset(self, now: float, reason: str) -> None:
        """Closes it with clean figures, also when it is closed."""
        if self.state is not _CLOSED:
            self.move(_CLOSED, now, reason)
            return
        self._serial += 1
        self.epoch = self._serial
        self._forget()

    def _refuses_until(self) -> float:
        if self.state is _OPEN:
            return self.since + self.config.open_for
        return math.inf if self.state is CircuitState.FORCED_OPEN else -math.inf

    def _forget(self) -> None:
        for window, _ in self._windows:
            window.clear()

    def hasten(self, by: float) -> None:
        """Takes ``by`` seconds off every time it remembers: for a clock that began anew."""
        self.since -= by
        self.refuses_until = self._refuses_until()
        self._probes = {token: began - by for token, began in self._probes.items()}
        self._forget()

    def story(self) -> list[str]:
        """Its last moves, oldest first."""
        return self._machine.story()
