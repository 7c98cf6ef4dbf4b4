"""What can be done about a failure: each strategy says what it needs of its target, and does one thing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from procession.abc import Replaceable, Restartable, Scalable, ScalableById, Stoppable
from procession.command import Command
from procession.errors import ConfigError
from procession.recovery._decide import Step
from procession.recovery._strategy import (
    Crew,
    Failure,
    Function,
    Strategy,
    called,
    changed,
    check_command,
    needs,
    size_of,
    told,
)

_log = logging.getLogger("procession.recovery")


@dataclass(frozen=True, kw_only=True)
class Restart(Strategy):
    """Restarts it: by the target's ``restart``, or by the function that is the target."""

    def check(self, target: object) -> None:
        """Sees whether the target can restart it.

        Raises:
            ConfigError: it cannot.
        """
        needs(self, self.on(target), Restartable, "restart(id)")

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Restarts it.

        Cancellation: as in the target.
        """
        target = self.on(crew.target)
        if isinstance(target, Restartable):
            return await called(target.restart, failure.id, reason=failure.reason)
        return await told(target, failure)


@dataclass(frozen=True)
class Replace(Strategy):
    """Brings a new one up and lets the old one go when the new one is ready: by the target's ``replace``.

    Attributes:
        command: what the new one runs. Default: the same as the old one.
    """

    command: Command | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.command is not None:
            check_command(self.command)

    def check(self, target: object) -> None:
        """Sees whether the target can replace it.

        Raises:
            ConfigError: it cannot.
        """
        needs(self, self.on(target), Replaceable, "replace(id, command)")

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Replaces it.

        Cancellation: as in the target.
        """
        target = self.on(crew.target)
        if isinstance(target, Replaceable):
            return await called(target.replace, failure.id, self.command, reason=failure.reason)
        return await told(target, failure)


@dataclass(frozen=True)
class ScaleUp(Strategy):
    """Lets it grow, within the bounds of the target; at its bound, it does not help.

    Attributes:
        n: by how many.
    """

    n: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            raise ConfigError("n", self.n, "a whole number, 1 or more, is needed")

    @property
    def name(self) -> str:
        """What it is called in events and records."""
        return "scale_up"

    def check(self, target: object) -> None:
        """Sees whether the target has a size.

        Raises:
            ConfigError: it has none.
        """
        chosen = self.on(target)
        if not isinstance(chosen, (Scalable, ScalableById)):
            hint = "scaling needs a target with scale_up(n) and scale_down(n), such as a pool, or with scalable(id)"
            raise ConfigError("target", chosen, hint)

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Lets it grow.

        Cancellation: as in the target.
        """
        target = self._scalable(failure, crew)
        before = size_of(target)
        return changed(before, await called(target.scale_up, self.n))

    def _scalable(self, failure: Failure, crew: Crew) -> Scalable:
        target = self.on(crew.target)
        if isinstance(target, ScalableById):
            return target.scalable(failure.id)
        assert isinstance(target, Scalable)
        return target


@dataclass(frozen=True)
class ScaleDown(ScaleUp):
    """Lets it shrink, within the bounds of the target; at its bound, it does not help.

    Attributes:
        n: by how many.
    """

    @property
    def name(self) -> str:
        """What it is called in events and records."""
        return "scale_down"

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Lets it shrink.

        Cancellation: as in the target.
        """
        target = self._scalable(failure, crew)
        before = size_of(target)
        return changed(before, await called(target.scale_down, self.n))


@dataclass(frozen=True)
class Fallback(Strategy):
    """Runs another command in its place, for example the same program in a safe mode.

    A target that can ``replace`` does so. Else the command is run by the recovery manager itself, after the target was
    asked to ``stop`` if it can, until another strategy succeeds or the manager closes.

    Attributes:
        command: what is run.
        wait: it is a command that repairs something and ends; it helped when its exit code is 0. Default: it stays.
    """

    command: Command
    wait: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_command(self.command)
        if not isinstance(self.wait, bool):
            raise ConfigError("wait", self.wait, "True or False is needed")

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Runs it.

        Cancellation: the command is stopped before the cancellation goes on.
        """
        target = self.on(crew.target)
        if not self.wait and isinstance(target, Replaceable):
            return await called(target.replace, failure.id, self.command, reason=failure.reason)
        if not self.wait and isinstance(target, Stoppable):
            await called(target.stop, failure.id, reason=failure.reason)
        return await crew.stand_in(self.command, to_the_end=self.wait)


@dataclass(frozen=True, kw_only=True)
class Stop(Strategy):
    """Stops it for good, by the target's ``stop``; of use as the last step of a chain."""

    heals: ClassVar[bool] = False

    def check(self, target: object) -> None:
        """Sees whether the target can stop it.

        Raises:
            ConfigError: it cannot.
        """
        chosen = self.on(target)
        if not isinstance(chosen, Stoppable):
            raise ConfigError("target", chosen, "stop needs a target with stop(id)")

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Stops it.

        Cancellation: as in the target.
        """
        target = self.on(crew.target)
        assert isinstance(target, Stoppable)
        return await called(target.stop, failure.id, reason=failure.reason)


@dataclass(frozen=True)
class Notify(Strategy):
    """Tells somebody, and heals nothing. In a chain, those that follow are told in any case before it is given up.

    Attributes:
        callback: a function of one :class:`Failure`, asynchronous or not. Default: the log.
    """

    callback: Function | None = None

    heals: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.callback is not None and not callable(self.callback):
            raise ConfigError("callback", self.callback, "a function of one Failure is needed")

    async def act(self, failure: Failure, crew: Crew) -> object:  # noqa: ARG002 - as for all strategies
        """Tells them.

        Cancellation: as in the callback.
        """
        if self.callback is not None:
            return await told(self.callback, failure)
        _log.error("%s failed (%s): %s", failure.id, failure.kind, failure.error)
        return None


@dataclass(frozen=True, kw_only=True)
class Nothing(Strategy):
    """Does nothing: the failure is counted, and that is all."""

    heals: ClassVar[bool] = False

    async def act(self, failure: Failure, crew: Crew) -> object:
        """Does nothing.

        Cancellation: never waits.
        """


@dataclass(frozen=True)
class Custom(Strategy):
    """A strategy of your own: one asynchronous function. Given as it is, a function becomes this by itself.

    Attributes:
        function: gets the :class:`Failure`, or nothing; that it did not help it says by an exception or by ``False``.
        title: what it is called in events and records. Default: the name of the function.
    """

    function: Function
    title: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.function) or isinstance(self.function, type):
            raise ConfigError("function", self.function, "an async function of one Failure is needed")

    @property
    def name(self) -> str:
        """What it is called in events and records."""
        return self.title or getattr(self.function, "__name__", type(self.function).__name__)

    async def act(self, failure: Failure, crew: Crew) -> object:  # noqa: ARG002 - as for all strategies
        """Calls it.

        Cancellation: as in the function.
        """
        return await told(self.function, failure)


class Chain:
    """One strategy after the other: the next has its turn when one did not help, or not for long.

    ``Chain(Restart(attempts=3), Replace(), Fallback(Command("api", "--safe-mode")), Notify(callback))``

    Attributes:
        steps: the strategies, those of chains among them in their place.

    Raises:
        ConfigError: one of them is none, or there are none.
    """

    __slots__ = ("steps",)

    def __init__(self, *steps: Strategy | Chain | Function) -> None:
        if not steps:
            raise ConfigError("strategy", steps, "a chain needs at least one strategy")
        self.steps: tuple[Strategy, ...] = tuple(leaf for step in steps for leaf in leaves(step))

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.steps))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chain) and self.steps == other.steps

    def __hash__(self) -> int:
        return hash(self.steps)


AnyStrategy = Strategy | Chain | Function


def leaves(strategy: AnyStrategy) -> Iterable[Strategy]:
    """The single strategies of one.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(strategy, Chain):
        return strategy.steps
    if isinstance(strategy, Strategy):
        return (strategy,)
    if isinstance(strategy, type) or not callable(strategy):
        hint = "a strategy is needed: Restart(), Replace(), Chain(...), or an async function of one Failure"
        raise ConfigError("strategy", strategy, hint)
    return (Custom(strategy),)


def plan_of(strategy: AnyStrategy) -> tuple[Step, ...]:
    """The steps of a strategy, in their order.

    Raises:
        ConfigError: it is none.
    """
    once = 1 if isinstance(strategy, Chain) else None
    return tuple(Step(leaf.name, leaf.heals, leaf.attempts or once, leaf) for leaf in leaves(strategy))
