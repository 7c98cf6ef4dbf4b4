"""Who is told of alerts: callbacks, actions and sinks. Each has a queue of its own, so that none can hold up another."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from procession._clock import monotonic
from procession.monitor._alerts import Alert
from procession.monitor._words import AlertType, Severity
from procession.monitor.actions import Action, ActionContext

log = logging.getLogger("procession.monitor")

_MOST_QUEUED = 1000
_MOST_COOLING = 10_000
_SLOW = 0.1
"""Seconds in a plain function after which the log says who held the loop up."""


@runtime_checkable
class AlertSink(Protocol):
    """Somewhere alerts go: is given each when it is raised, and again when it is over."""

    async def send(self, alert: Alert) -> None:
        """Passes it on.

        Cancellation: safe; it may have arrived or not.
        """


class Responder:
    """Who is told of alerts, as returned by ``monitor.on_alert`` and ``add_sink``; ``close()`` ends that.

    Attributes:
        steps: functions, actions or a sink; for each alert one after the other, in this order.
        calls: how often one of them was called.
        failures: how often one raised, or took too long.
        dropped: alerts that were not told because they did not keep up.
        skipped: how often an action was left out because of its cool-down.
    """

    def __init__(
        self,
        *steps: Any,
        severity: Severity = Severity.INFO,
        kinds: frozenset[AlertType] | None = None,
        rules: frozenset[str] | None = None,
        ids: frozenset[str] | None = None,
        raised: bool = True,
        resolved: bool = False,
        forget: Callable[[Responder], None],
    ) -> None:
        self.steps: tuple[Any, ...] = steps
        self.calls: int = 0
        self.failures: int = 0
        self.dropped: int = 0
        self.skipped: int = 0
        self._severity = severity
        self._kinds = kinds
        self._rules = rules
        self._ids = ids
        self._raised = raised
        self._resolved = resolved
        self._forget = forget
        self._queue: deque[Alert] = deque()
        self._task: asyncio.Task[None] | None = None
        self._cooling: OrderedDict[tuple[int, str], float] = OrderedDict()

    def close(self) -> None:
        """Nothing is told any more. What is being done is finished."""
        self._queue.clear()
        self._forget(self)

    def _wants(self, alert: Alert) -> bool:
        return (
            (self._raised if alert.is_active else self._resolved)
            and alert.severity >= self._severity
            and (self._kinds is None or alert.type in self._kinds)
            and (self._rules is None or alert.rule in self._rules)
            and (self._ids is None or alert.process in self._ids or alert.target in self._ids)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Responder {_all_named(self)}: {self.calls} calls, {self.failures} failures>"


class Desk:
    """Tells everybody, one after the other for each, and all of them at once.

    Args:
        timeout: seconds one call may take.
        context: what actions can find out.
        taken: is told of every action: its name, the alert, whether it went well, and the detail.
    """

    def __init__(self, timeout: float, context: ActionContext, taken: Callable[[str, Alert, bool, str], None]) -> None:
        self.responders: list[Responder] = []
        self.failures = 0
        self.actions = 0
        self.action_failures = 0
        self._timeout = timeout
        self._context = context
        self._taken = taken
        self._tasks: dict[asyncio.Task[None], Responder] = {}
        self._closing = False

    def add(self, *steps: Any, **options: Any) -> Responder:
        """Takes in somebody; ``options`` as for :class:`Responder`."""
        responder = Responder(*steps, forget=self._forget, **options)
        self.responders.append(responder)
        return responder

    def made_for(self, steps: tuple[Any, ...]) -> Responder:
        """Somebody who is told by :meth:`tell` only when named there."""
        return Responder(*steps, forget=self._forget)

    def _forget(self, responder: Responder) -> None:
        if responder in self.responders:
            self.responders.remove(responder)

    def tell(self, alert: Alert, also: tuple[Responder, ...] = ()) -> None:
        """Has everybody who wants to know told of an alert."""
        for responder in (*self.responders, *also):
            if responder._wants(alert) and not self._closing:
                self._push(responder, alert)

    def _push(self, responder: Responder, alert: Alert) -> None:
        if len(responder._queue) >= _MOST_QUEUED:
            responder._queue.popleft()
            responder.dropped += 1
        responder._queue.append(alert)
        if responder._task is None:
            task = asyncio.get_running_loop().create_task(self._work(responder))
            responder._task = task
            self._tasks[task] = responder
            task.add_done_callback(self._tasks.pop)

    async def _work(self, responder: Responder) -> None:
        try:
            while responder._queue:
                await self._call(responder, responder._queue.popleft())
        finally:
            responder._task = None

    async def _call(self, responder: Responder, alert: Alert) -> None:
        for number, step in enumerate(responder.steps):
            if not isinstance(step, Action):
                await self._inform(responder, step, alert)
            elif alert.is_active:  # when it is over there is nothing to be done
                if self._is_cooling(responder, number, step, alert):
                    responder.skipped += 1
                else:
                    await self._act(responder, step, alert)

    async def _inform(self, responder: Responder, what: Any, alert: Alert) -> None:
        responder.calls += 1
        problem = await self._attempt(_answer(what, alert), self._timeout)
        if problem:
            responder.failures += 1
            self.failures += 1
            log.error("%s failed on the alert %s: %s", _named(what), alert.id, problem)

    def _is_cooling(self, responder: Responder, number: int, action: Action, alert: Alert) -> bool:
        now, cooling, key = asyncio.get_running_loop().time(), responder._cooling, (number, alert.target)
        done = cooling.get(key)
        if done is not None and now - done < action.cooldown:
            return True
        cooling[key] = now
        cooling.move_to_end(key)
        if len(cooling) > _MOST_COOLING:
            cooling.popitem(last=False)
        return False

    async def _act(self, responder: Responder, action: Action, alert: Alert) -> None:
        responder.calls += 1
        self.actions += 1
        details: list[str] = []

        async def act() -> None:
            details.append(await action.run(alert, self._context))

        problem = await self._attempt(act(), self._timeout if action.timeout is None else action.timeout)
        if problem:
            responder.failures += 1
            self.action_failures += 1
            log.error("the action %s failed on the alert %s: %s", action.name, alert.id, problem)
        self._taken(action.name, alert, not problem, problem or (details[0] if details else ""))

    async def _attempt(self, work: Coroutine[Any, Any, None], timeout: float) -> str:
        """Does it; what went wrong, or empty."""
        bound = asyncio.timeout(timeout)
        try:
            async with bound:
                await work
        except TimeoutError as error:
            return f"it took longer than {timeout:g} s" if bound.expired() else _told(error)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return _told(error)  # its own affair
        except Exception as error:  # noqa: BLE001 - isolation: logged and counted
            return _told(error)
        return ""

    async def aclose(self, timeout: float) -> None:
        """Lets what is under way finish, for so long, then cancels it; what waits is dropped.

        Cancellation: safe; call it again.
        """
        self._closing = True
        for responder in self._tasks.values():
            responder._queue.clear()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        for responder in self._tasks.values():
            log.error("%s ignores its cancellation and is left behind", _all_named(responder))


async def _answer(what: Any, alert: Alert) -> None:
    if isinstance(what, AlertSink) and not inspect.isroutine(what):
        await what.send(alert)
        return
    began = monotonic()
    answer = what(alert)
    took = monotonic() - began
    if took > _SLOW:
        log.warning("%s held the loop up for %.3f s", _named(what), took)
    if inspect.isawaitable(answer):
        await answer


def _all_named(responder: Responder) -> str:
    return ", ".join(map(_named, responder.steps))


def _named(what: Any) -> str:
    return str(getattr(what, "__qualname__", None) or repr(what))


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - whatever its __str__ stumbles over
        return type(error).__name__
