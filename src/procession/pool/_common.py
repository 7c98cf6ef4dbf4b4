"""What all pools answer to, besides what each of them does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, Literal

from procession.pool._statistics import PoolStatistics, suggest_size


class Pool(ABC):
    """Words that every pool understands."""

    @abstractmethod
    async def aclose(self, *, cancel: bool = False) -> None:
        """Closes the pool.

        Cancellation: what is left is cancelled too; the cancellation goes on when nothing is left.
        """

    async def close(self, *, cancel: bool = False) -> None:
        """The same as ``aclose()``.

        Cancellation: what is left is cancelled too; the cancellation goes on when nothing is left.
        """
        await self.aclose(cancel=cancel)

    @abstractmethod
    def statistics(self) -> PoolStatistics:
        """Figures of this moment."""

    def stats(self) -> PoolStatistics:
        """The same as ``statistics()``."""
        return self.statistics()

    @staticmethod
    def suggest_size(kind: Literal["cpu", "io", "mixed"] = "cpu", *, wait_ratio: float | None = None) -> int:
        """How many workers would keep this machine busy; see :func:`procession.pool.suggest_size`.

        Raises:
            ConfigError: there is no such kind, or the ratio is negative or not finite.
        """
        return suggest_size(kind, wait_ratio=wait_ratio)


class Done:
    """What is done already: who awaits it, as other pools ask for, does not wait."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


DONE = Done()
