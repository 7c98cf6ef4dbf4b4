"""Carrying out one step of a recovery: the strategy, the check, and commands that stand in for what failed."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any

from procession._core.aio import finish
from procession._types import Exit, FailureKind
from procession.command import Command
from procession.process import run, spawn
from procession.recovery._decide import Act, Episode
from procession.recovery._item import Item
from procession.recovery._strategies import Fallback
from procession.recovery._strategy import Failure, Strategy, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession.abc import Launcher
    from procession.registry import ProcessRegistry

log = logging.getLogger("procession.recovery")

callers: ContextVar[tuple[asyncio.Task[Any], ...]] = ContextVar("procession_recoveries_calling", default=())
"""The tasks of recoveries whose strategies or checks this code is called by."""

under_way: ContextVar[tuple[Episode, ...]] = ContextVar("procession_recoveries_under_way", default=())
"""The recoveries whose strategies this code is called by: whoever waited for one of them would wait for ever."""


class Actor:
    """Carries out strategies on behalf of one manager.

    Args:
        name: the owner of the processes it starts.
        registry: is told of them.
        launcher: starts them.
        ended: is told when a command that stood in has ended and nobody else says so.
    """

    def __init__(
        self,
        name: str,
        registry: ProcessRegistry | None,
        launcher: Launcher | None,
        ended: Callable[[Item, FailureKind, str], None],
    ) -> None:
        self.name = name
        self.registry = registry
        self.launcher = launcher
        self.ended = ended

    async def act(self, item: Item, act: Act, episode: Episode) -> tuple[bool, BaseException | str | None]:
        """Carries out a step; returns whether it has done its work, and what went wrong.

        Cancellation: goes to the strategy.
        """
        loop = asyncio.get_running_loop()
        strategy: Strategy = act.step.strategy
        until = act.until if strategy.timeout is None else min(act.until, loop.time() + strategy.timeout)
        failure = Failure(
            id=item.id,
            kind=episode.kind,
            error=episode.error,
            attempt=act.attempt,
            strategy=act.step.name,
            failures=episode.failures,
            began=episode.began,
            exhausted=episode.verdict,
        )
        token, mark = under_way.set((*under_way.get(), episode)), _calling()
        item.busy += 1
        bound = asyncio.timeout_at(until)
        try:
            async with bound:
                if await strategy.act(failure, _Hands(self, item)) is False:
                    return False, f"{act.step.name} said that it did not help"
                if not act.step.heals:
                    return True, None
                problem = await self.check(item)
                if problem is not None:
                    return False, problem
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return False, error  # something the strategy waited for was cancelled, not we
        except TimeoutError as error:
            if not bound.expired():
                return False, error
            return False, f"{act.step.name} was not done in time"
        except Exception as error:  # noqa: BLE001 - whatever a strategy can fail with, the recovery goes on
            log.warning("%s: %s failed: %r", item.id, act.step.name, error)
            return False, error
        finally:
            under_way.reset(token)
            callers.reset(mark)
            item.busy -= 1
        if not isinstance(strategy, Fallback):
            await self.dismiss(item)
        return True, None

    async def check(self, item: Item) -> BaseException | str | None:
        """Asks whether it works; returns what is wrong.

        Cancellation: goes to the check.
        """
        if item.check is None:
            return None
        episode = item.case.episode
        assert episode is not None
        failure = Failure(id=item.id, kind=episode.kind, error=episode.error, attempt=episode.attempts)
        item.busy += 1
        token, mark = under_way.set((*under_way.get(), episode)), _calling()
        try:
            async with asyncio.timeout(item.case.bounds.check_timeout):
                answer = await told(item.check, failure)
        except Exception as error:  # noqa: BLE001 - a check that fails says no
            return error
        finally:
            under_way.reset(token)
            callers.reset(mark)
            item.busy -= 1
        return None if answer else "the check says that it does not work"

    # -------------------------------------------------------------------------------------- standing in

    async def stand_in(self, item: Item, command: Command, *, to_the_end: bool) -> bool:
        """Runs ``command`` in place of what failed; see ``Fallback``.

        Cancellation: the command is stopped before the cancellation goes on.
        """
        if to_the_end:
            completed = await run(
                command, registry=self.registry, launcher=self.launcher, name=item.id, owner=self.name
            )
            return completed.ok
        await self.dismiss(item)
        loop = asyncio.get_running_loop()
        started: asyncio.Future[None] = loop.create_future()
        item.stand_in = task = loop.create_task(self._stand(item, command, started))
        try:
            await asyncio.wait((started, task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.dismiss(item)
            raise
        if not started.done():
            item.stand_in = None
            task.result()  # raises why it could not be started
        return True

    async def _stand(self, item: Item, command: Command, started: asyncio.Future[None]) -> None:
        under_way.set(())
        callers.set(())
        exit: Exit | None = None
        try:
            async with spawn(
                command, registry=self.registry, launcher=self.launcher, name=item.id, owner=self.name
            ) as process:
                started.set_result(None)
                if process.stdout is not None or process.stderr is not None:
                    async for line in process.lines():  # nobody else reads it, and a full pipe would stop it
                        log.info("%s: %s", item.id, line)
                await process.wait()
                exit = process.exit
        except Exception as error:
            if not started.done():
                raise
            log.warning("%s: what stood in for it failed: %r", item.id, error)
        if exit is not None and (self.registry is None or exit.is_success):  # of others the registry tells
            self.ended(item, FailureKind.CRASH, f"what stood in for it ended: {exit}")

    async def dismiss(self, item: Item) -> None:
        """Stops the command that stands in, if one does.

        Cancellation: absorbed until it is gone, then raised.
        """
        task, item.stand_in = item.stand_in, None
        if task is not None:
            await finish(_gone(task))


class _Hands:
    """What a strategy may use while it acts on one id."""

    def __init__(self, actor: Actor, item: Item) -> None:
        self._actor = actor
        self._item = item

    @property
    def target(self) -> object:
        """What was registered as the target."""
        return self._item.target

    async def stand_in(self, command: Command, *, to_the_end: bool) -> bool:
        """Runs a command in place of what failed.

        Cancellation: the command is stopped before the cancellation goes on.
        """
        return await self._actor.stand_in(self._item, command, to_the_end=to_the_end)


def _calling() -> Token[tuple[asyncio.Task[Any], ...]]:
    """From here on, code of others is called on behalf of the running task."""
    task = asyncio.current_task()
    assert task is not None
    return callers.set((*callers.get(), task))


async def _gone(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%r", error, exc_info=error)
