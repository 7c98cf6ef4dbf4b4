"""What a breaker gives: the right to make one call, and figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from procession._core.window import FAILED
from procession.recovery._states import CircuitState

if TYPE_CHECKING:
    from types import TracebackType

    from procession.recovery._breaker_api import CircuitBreaker

IGNORED = -1
"""The mark of a call that counts as nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatistics:
    """Figures of a breaker at one moment.

    Attributes:
        name: the breaker.
        state: where it stands.
        since: seconds it has been there.
        calls: calls in the window it looks at, that of the probes when it is half-open.
        failure_rate: share of those that failed; ``None`` when there are fewer than ``minimum_calls``.
        slow_rate: share of those that were slow, likewise.
        exceeded: which limit these figures reach, in words; empty when none. Of use in the state ``metrics_only``.
        succeeded: calls that were counted as success since it was made.
        failed: calls that were counted as failure.
        slow: calls of either kind that were counted as slow.
        refused: calls that were refused.
        given_back: calls that counted as nothing: cancelled, or ended by an ignored exception.
        stale: calls that came back when the state in which they had begun was over, and were not counted.
        retry_after: seconds until a call may pass; 0 when one may.
    """

    name: str
    state: CircuitState
    since: float
    calls: int
    failure_rate: float | None
    slow_rate: float | None
    exceeded: str
    succeeded: int
    failed: int
    slow: int
    refused: int
    given_back: int
    stale: int
    retry_after: float


class Permit:
    """The right to make one call, from :meth:`CircuitBreaker.acquire`; to be given back with the outcome, once.

    As a context manager it does so by itself: an exception is judged, a cancellation counts as nothing.
    """

    __slots__ = ("_began", "_breaker", "_token")

    def __init__(self, breaker: CircuitBreaker, token: int, began: float) -> None:
        self._breaker = breaker
        self._token = token
        self._began = began

    def _take(self) -> int:
        token, self._token = self._token, 0
        return token

    @property
    def is_open(self) -> bool:
        """Whether it has not been given back yet."""
        return bool(self._token)

    def success(self) -> None:
        """The call succeeded."""
        if token := self._take():
            self._breaker._came_back(token, 0, self._began)

    def failure(self, error: BaseException | None = None) -> None:
        """The call failed; with an ``error``, if the breaker's rules say that this one is a failure."""
        if token := self._take():
            mark = FAILED if error is None else self._breaker._judge(error)
            self._breaker._came_back(token, mark, self._began)

    def release(self) -> None:
        """The call is not to be counted."""
        if token := self._take():
            self._breaker._came_back(token, IGNORED, self._began)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.success()
        else:
            self.failure(error)
