"""What a store of checkpoints takes and gives: codecs, what was saved, what was found, and what was damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from procession._types import NAME_PATTERN
from procession.errors import ConfigError

_UNSAFE = frozenset({"pickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve"})


@dataclass(frozen=True, slots=True)
class Codec:
    """How states become bytes and back, for states that are not made of what JSON knows.

    Attributes:
        name: at most 16 ASCII characters; kept in each file, so that nobody decodes what another codec has made.
        encode: gets a state and returns bytes; called at once by ``save``, on the loop.
        decode: gets these bytes and returns the state; called in a thread by ``restore``. It must not run code that
            the bytes bring along, so those of pickle and its relatives are refused.

    Raises:
        ConfigError: a value was refused.
    """

    name: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]

    def __post_init__(self) -> None:
        name: object = self.name
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name) or len(name) > 16:
            raise ConfigError("codec", name, "a name of at most 16 letters, digits, '.', '_' or '-' is needed")
        for function in (self.encode, self.decode):
            if not callable(function):
                raise ConfigError("codec", function, "functions to encode and to decode are needed")
            home = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
            if str(home).partition(".")[0] in _UNSAFE:
                raise ConfigError("codec", name, "what unpickles runs any code that it finds; use a format of data")


BYTES = Codec("bytes", bytes, bytes)
"""For states that are bytes already."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A file that was passed over.

    Attributes:
        path: which one.
        generation: the generation it should have held.
        reason: what is wrong with it.
    """

    path: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What ``save`` has written; it is on the disk.

    Attributes:
        name: of what.
        generation: 1, 2, 3 …
        saved_at: seconds since the epoch.
        size: bytes of the file.
        path: the file.
    """

    name: str
    generation: int
    saved_at: float
    size: int
    path: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Restored:
    """What ``restore`` has found. It can be compared, subscripted and iterated like the state itself.

    Attributes:
        name: of what.
        state: the state that was saved.
        generation: which generation it is.
        saved_at: when it was saved, in seconds since the epoch.
        age: how many seconds ago that was by the wall clock, at least 0.
        path: the file.
        skipped: newer files that were passed over because they are damaged, the newest first.
    """

    name: str
    state: Any
    generation: int
    saved_at: float
    age: float
    path: str
    skipped: tuple[Damaged, ...] = ()

    @property
    def is_latest(self) -> bool:
        """Whether nothing newer had to be passed over."""
        return not self.skipped

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Restored):
            return (self.name, self.generation, self.state) == (other.name, other.generation, other.state)
        return bool(self.state == other)

    def __hash__(self) -> int:
        raise TypeError("what was restored cannot be hashed: it is equal to its state")

    def __getitem__(self, key: Any) -> Any:
        return self.state[key]

    def get(self, key: Any, default: Any = None) -> Any:
        """As of a state that is a dictionary."""
        return self.state.get(key, default)

    def keys(self) -> Any:
        """As of a state that is a dictionary."""
        return self.state.keys()

    def values(self) -> Any:
        """As of a state that is a dictionary."""
        return self.state.values()

    def items(self) -> Any:
        """As of a state that is a dictionary."""
        return self.state.items()

    def __contains__(self, key: object) -> bool:
        return key in self.state

    def __iter__(self) -> Iterator[Any]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One file of a store, as ``list`` finds it.

    Attributes:
        name: of what.
        generation: which generation.
        saved_at: when it was saved, in seconds since the epoch; ``None`` when that cannot be read.
        size: bytes of its state; 0 when that cannot be read.
        path: the file.
        problem: what is wrong with it; empty when nothing is known to be.
    """

    name: str
    generation: int
    saved_at: float | None
    size: int
    path: str
    problem: str = ""
