"""What every strategy is: the failure it is told of, what it may use, and how others are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from procession._core.backoff import duration
from procession._types import FailureKind
from procession.command import Command
from procession.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a function of yours is told: as a strategy, as a target, or to notify somebody.

    Attributes:
        id: who failed.
        kind: how.
        error: what it was: an exception, a text, or ``None``.
        attempt: which attempt this is, 1, 2, 3 …; 0 when none was made.
        strategy: the name of the strategy.
        failures: how many failures were noted since it was last healthy.
        began: loop time of the first of them.
        exhausted: which bound was reached, when it is about to be given up; else empty.
    """

    id: str
    kind: FailureKind
    error: BaseException | str | None = None
    attempt: int = 0
    strategy: str = ""
    failures: int = 1
    began: float = 0.0
    exhausted: str = ""

    @property
    def reason(self) -> str:
        """All of it in one line, for the ``reason`` of whom is asked to act."""
        return f"recovery from {self.kind}, attempt {self.attempt}"


Function = Callable[..., Any]
"""A function of one :class:`Failure`, or of nothing; usually asynchronous."""


class Crew(Protocol):
    """What a strategy may use while it acts."""

    @property
    def target(self) -> object:
        """What was registered as the target."""

    async def stand_in(self, command: Command, *, to_the_end: bool) -> bool:
        """Runs a command in place of what failed, on behalf of the manager.

        Cancellation: the command is stopped before the cancellation goes on.
        """


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """The base of all strategies.

    Attributes:
        attempts: how often it is tried before the next one of a :class:`Chain` has its turn. Default: once in a chain;
            alone, as often as the bounds allow.
        timeout: seconds one attempt may take. Default: what is left of ``recovery_timeout``.
        target: on what it acts. Default: the registered target.
    """

    attempts: int | None = None
    timeout: float | None = None
    target: object | None = None

    heals: ClassVar[bool] = True

    def __post_init__(self) -> None:
        attempts: object = self.attempts
        if attempts is not None and (isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1):
            raise ConfigError("attempts", attempts, "a whole number, 1 or more, is needed")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", duration("timeout", self.timeout))

    @property
    def name(self) -> str:
        """What it is called in events and records."""
        return type(self).__name__.lower()

    def check(self, target: object) -> None:
        """Sees whether it can act on ``target``.

        Raises:
            ConfigError: it cannot.
        """

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Does it; ``False`` means that it did not help, and so does an exception.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """
        raise NotImplementedError

    def on(self, target: object) -> object:
        """What it acts on."""
        return target if self.target is None else self.target


# ------------------------------------------------------------------------------------------- calling others


async def called(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Calls a method of a target, without the options it does not know, and awaits what it returns.

    Cancellation: as in the method.
    """
    known = _parameters(method)
    if known is not None and not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known):
        names = {one.name for one in known}
        options = {name: value for name, value in options.items() if name in names}
    made = method(*args, **options)
    return await made if inspect.isawaitable(made) else made


async def told(function: Any, failure: Failure) -> Any:
    """Calls a function with the failure, or with nothing if it takes nothing, and awaits what it returns.

    Cancellation: as in the function.
    """
    known = _parameters(function)
    takes_one = known is None or any(one.kind in _POSITIONAL for one in known)
    made = function(failure) if takes_one else function()
    return await made if inspect.isawaitable(made) else made


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
)


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in ones do not say
        return None


def needs(strategy: Strategy, target: object, protocol: type, method: str) -> None:
    """Refuses a target that has no such method and is no function either."""
    if isinstance(target, protocol):
        return
    if callable(target) and not isinstance(target, type):
        return
    hint = f"{strategy.name} needs a target with {method}, or an async function"
    raise ConfigError("target", target, hint)


def check_command(value: object) -> None:
    """Refuses what is no command."""
    if not isinstance(value, Command):
        raise ConfigError("command", value, 'a Command is needed: Command("api", "--safe-mode")')


def size_of(target: object) -> int | None:
    """How large a target says it is to be, before it is scaled; ``None`` when it does not say."""
    figures = getattr(target, "statistics", None)
    found = figures() if callable(figures) else target
    for name in ("target", "size"):
        size = getattr(found, name, None)
        if isinstance(size, int) and not isinstance(size, bool) and size:
            return size
    return None


def changed(before: int | None, after: object) -> object:
    """Whether scaling has changed the size, as far as that can be told."""
    return False if before is not None and after == before else after is not False
