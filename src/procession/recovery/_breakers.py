"""``Fleet``: a breaker per key, made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from zlib import crc32

from procession._types import NAME_PATTERN
from procession.errors import ConfigError
from procession.recovery._breaker_api import CircuitBreaker
from procession.recovery._config import BreakerConfig
from procession.recovery._permit import BreakerStatistics
from procession.recovery._states import CircuitState

if TYPE_CHECKING:
    from procession.registry import ProcessRegistry


class Fleet:
    """Breakers of one kind, one per key: per process, host or tenant. What all share is one key.

    ::

        breakers = Fleet(BreakerConfig(open_for=5.0), registry=registry)

        async with breakers["10.0.0.7"]:
            ...

    Args:
        config: the limits of each. Default: ``BreakerConfig()``.
        registry: is told of their moves. The id is the key; where that is no acceptable name, one made from it.
        owner: the ``owner`` in those events.
        max_size: how many are kept; when there are more, the ones unused for longest that are closed go first.
            Default 10,000.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        config: BreakerConfig | None = None,
        *,
        registry: ProcessRegistry | None = None,
        owner: str = "",
        max_size: int = 10_000,
    ) -> None:
        config = BreakerConfig() if config is None else config
        if not isinstance(config, BreakerConfig):
            raise ConfigError("config", config, "a BreakerConfig is needed")
        if isinstance(max_size, bool) or not isinstance(max_size, int) or max_size < 1:
            raise ConfigError("max_size", max_size, "a whole number, 1 or more, is needed")
        self.config: BreakerConfig = config
        self._registry = registry
        self._owner = owner
        self._max_size = max_size
        self._breakers: dict[str, CircuitBreaker] = {}

    def __getitem__(self, key: str) -> CircuitBreaker:
        """The breaker of ``key``; a new one is closed.

        Raises:
            ConfigError: the key is no text.
        """
        breakers = self._breakers
        found = breakers.get(key)
        if found is None:
            if not isinstance(key, str):
                raise ConfigError("key", key, "a text is needed")
            found = CircuitBreaker(self.config, name=name_of(key), registry=self._registry, owner=self._owner)
            self._make_room()
        elif next(reversed(breakers)) != key:
            del breakers[key]
        else:
            return found
        breakers[key] = found  # the one used last stands last
        return found

    def get(self, key: str) -> CircuitBreaker:
        """The same as ``fleet[key]``.

        Raises:
            ConfigError: the key is no text.
        """
        return self[key]

    def _make_room(self) -> None:
        while len(self._breakers) >= self._max_size:
            closed = (key for key, breaker in self._breakers.items() if breaker.state is CircuitState.CLOSED)
            del self._breakers[next(closed, next(iter(self._breakers)))]

    def remove(self, key: str) -> None:
        """Forgets the breaker of ``key``, if there is one; whoever still has it may go on using it."""
        self._breakers.pop(key, None)

    def statistics(self) -> dict[str, BreakerStatistics]:
        """Figures of each, by key."""
        return {key: breaker.statistics() for key, breaker in self._breakers.items()}

    def __contains__(self, key: object) -> bool:
        return key in self._breakers

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._breakers))

    def __len__(self) -> int:
        return len(self._breakers)

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Fleet of {len(self)} breakers>"


def name_of(key: str) -> str:
    """The key itself where it can stand as a name, else one made from it, the same every time."""
    if NAME_PATTERN.fullmatch(key):
        return key
    plain = "".join(char if char.isascii() and (char.isalnum() or char in "._-") else "-" for char in key)
    return f"k{plain[:50]}-{crc32(key.encode('utf-8', 'surrogatepass')):08x}"


BreakerRegistry = Fleet
"""Another name of :class:`Fleet`, for those who look for it under this one."""
