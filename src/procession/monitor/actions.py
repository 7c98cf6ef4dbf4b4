"""What can be done about an alert. Each function here makes an :class:`Action` for ``monitor.on_alert``.

::

    monitor.on_alert(Severity.CRITICAL, actions.snapshot("/var/tmp/snapshots"), actions.restart(via=units))

Whatever an action does is published as ``ActionTaken``. One that fails is logged and counted, and its event says what
went wrong; it is not tried again before its cool-down is over.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from procession._core.aio import wait_until
from procession._core.backoff import duration
from procession._types import ProcessRef
from procession.abc import Restartable, Scalable, Stoppable
from procession.errors import ConfigError, MetricsUnavailable
from procession.monitor import _pinned
from procession.monitor._alerts import Alert
from procession.monitor._rules import name_of

if TYPE_CHECKING:
    from procession.monitor._watch import Watch

__all__ = [
    "Action",
    "ActionContext",
    "Naming",
    "call",
    "ionice",
    "notify",
    "renice",
    "restart",
    "resume",
    "scale",
    "snapshot",
    "stop",
    "suspend",
]

Naming = str | Callable[[Alert], str] | None
"""Whom to name to whoever acts: an id, a function of the alert, or by default ``alert.target``."""


class ActionContext(ABC):
    """What an action can find out about the process its alert is about; the monitor gives it."""

    @abstractmethod
    def watched(self, alert: Alert) -> Watch:
        """The process the alert is about.

        Raises:
            MetricsUnavailable: it is not watched any more.
        """

    @abstractmethod
    async def save_snapshot(self, alert: Alert, directory: Path, keep: int) -> Path:
        """Writes a snapshot of the process into a directory.

        Raises:
            MetricsUnavailable: there is nothing left to look at.

        Cancellation: safe; a file that is being written is finished.
        """


class Action(ABC):
    """Something that is done about an alert; derive from it for your own, or use :func:`call`.

    Attributes:
        name: what events call it.
        cooldown: seconds after it was done, or tried, for one process, during which it is not done for that one again.
        timeout: seconds it may take; default: the monitor's ``callback_timeout``.
    """

    def __init__(self, name: str, cooldown: float = 60.0, timeout: float | None = None) -> None:
        self.name: str = name_of("name", name)
        self.cooldown: float = duration("cooldown", cooldown)
        self.timeout: float | None = None if timeout is None else duration("timeout", timeout)

    @abstractmethod
    async def run(self, alert: Alert, context: ActionContext) -> str:
        """Does it.

        Args:
            alert: what it is about.
            context: what else can be found out.

        Returns:
            What was done, for people.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """

    def __repr__(self) -> str:
        return f"<Action {self.name}, cool-down {self.cooldown:g} s>"


class _Doing(Action):
    """An action made of a function."""

    def __init__(
        self, name: str, function: Callable[[Alert, ActionContext], Any], cooldown: float, timeout: float | None = None
    ) -> None:
        super().__init__(name, cooldown, timeout)
        self._function = function

    async def run(self, alert: Alert, context: ActionContext) -> str:
        result = self._function(alert, context)
        if inspect.isawaitable(result):
            result = await result
        return result if isinstance(result, str) else ""


def call(
    name: str, function: Callable[[Alert], Any], *, cooldown: float = 60.0, timeout: float | None = None
) -> Action:
    """A function of your own, sync or async, as an action.

    Args:
        name: what events call it.
        function: is given the alert; text it returns is kept as the detail.
        cooldown: seconds between two calls for one process. Default 60.
        timeout: seconds it may take.

    Raises:
        ConfigError: a value was refused.
    """
    if not callable(function):
        raise ConfigError("function", function, "a function of one alert is needed")
    return _Doing(name, lambda alert, _: function(alert), cooldown, timeout)


def notify(function: Callable[[Alert], Any], *, cooldown: float = 0.0, timeout: float | None = None) -> Action:
    """Tells somebody: calls a function, sync or async, with the alert.

    Args:
        function: is given the alert.
        cooldown: seconds between two notifications about one process. Default 0.
        timeout: seconds it may take.

    Raises:
        ConfigError: a value was refused.
    """
    return call("notify", function, cooldown=cooldown, timeout=timeout)


def restart(via: Restartable, *, id: Naming = None, cooldown: float = 60.0, timeout: float | None = None) -> Action:
    """Restarts it.

    Args:
        via: who can restart it, for example a ``LifecycleManager``.
        id: whom to name; default: ``alert.target``, which is the unit of the process, or its name.
        cooldown: seconds between two restarts of one process. Default 60.
        timeout: seconds it may take.

    Raises:
        ConfigError: a value was refused.
    """
    _needs("via", via, Restartable)

    async def act(alert: Alert, _: ActionContext) -> str:
        named = _named(id, alert)
        await via.restart(named, reason=_reason(alert))
        return f"restarted {named}"

    return _Doing("restart", act, cooldown, timeout)


def stop(
    via: Stoppable | None = None,
    *,
    id: Naming = None,
    grace: float = 5.0,
    cooldown: float = 60.0,
    timeout: float | None = None,
) -> Action:
    """Stops it.

    Without ``via``: if the monitor was given the ``Process`` itself, that is stopped with its whole tree. Otherwise its
    process group (a stranger: the process alone) gets SIGTERM and SIGCONT, and SIGKILL after the grace period.

    Args:
        via: who can stop it, for example a ``LifecycleManager``.
        id: whom to name; default: ``alert.target``.
        grace: seconds until SIGKILL, without ``via``. Default 5.
        cooldown: seconds between two stops of one process. Default 60.
        timeout: seconds it may take. Default, without ``via``: the grace period and five seconds more.

    Raises:
        ConfigError: a value was refused.
    """
    patience = duration("grace", grace)
    if via is not None:
        _needs("via", via, Stoppable)

    async def act(alert: Alert, context: ActionContext) -> str:
        if via is not None:
            named = _named(id, alert)
            await via.stop(named, reason=_reason(alert))
            return f"stopped {named}"
        return await _stop(context.watched(alert), patience)

    if timeout is None and via is None:
        timeout = patience + 5.0
    return _Doing("stop", act, cooldown, timeout)


async def _stop(watch: Watch, grace: float) -> str:
    if watch.process is not None:
        return str(await watch.process.stop(grace))
    watch.stopping = True
    loop = asyncio.get_running_loop()
    _signal(watch, signal.SIGTERM)
    with suppress(ProcessLookupError):
        _signal(watch, signal.SIGCONT)  # so that one that is held can take leave
    if await wait_until(watch.ended, loop.time() + grace):
        return "ended after SIGTERM"
    with suppress(ProcessLookupError):
        _signal(watch, signal.SIGKILL)
    if await wait_until(watch.ended, loop.time() + 3.0):
        return "ended after SIGKILL"
    raise MetricsUnavailable(watch.id, "it is still there after SIGKILL")


def scale(via: Scalable, by: int = 1, *, cooldown: float = 60.0, timeout: float | None = None) -> Action:
    """Changes the size of something, for example of a pool.

    Args:
        via: what has a size.
        by: by how much it grows; negative shrinks it. Default 1.
        cooldown: seconds between two changes. Default 60.
        timeout: seconds it may take.

    Raises:
        ConfigError: a value was refused.
    """
    _needs("via", via, Scalable)
    if isinstance(by, bool) or not isinstance(by, int) or not by:
        raise ConfigError("by", by, "a whole number other than 0 is needed")

    async def act(_: Alert, __: ActionContext) -> str:
        size = await (via.scale_up(by) if by > 0 else via.scale_down(-by))
        return f"size {size}"

    return _Doing("scale", act, cooldown, timeout)


def renice(nice: int = 10, *, tree: bool = False, cooldown: float = 60.0) -> Action:
    """Lowers its priority for the processor: sets how nice it is, with all its threads.

    Args:
        nice: −20 to 19; less than it was needs privileges. Default 10.
        tree: with its descendants. Default no.
        cooldown: seconds between two changes of one process. Default 60.

    Raises:
        ConfigError: a value was refused.
    """
    if isinstance(nice, bool) or not isinstance(nice, int) or not -20 <= nice <= 19:
        raise ConfigError("nice", nice, "a whole number from -20 to 19 is needed")

    def act(alert: Alert, context: ActionContext) -> str:
        count = _pinned.renice(_ref(context.watched(alert)), nice, tree)
        return f"nice {nice} for {count} process{'es' * (count > 1)}"

    return _Doing("renice", act, cooldown)


def ionice(
    ioclass: Literal["idle", "best_effort", "realtime"] = "idle",
    level: int | None = None,
    *,
    tree: bool = False,
    cooldown: float = 60.0,
) -> Action:
    """Lowers its priority for the disk, on Linux. See the manual page ``ionice(1)``.

    Args:
        ioclass: ``"idle"`` (default), ``"best_effort"`` or ``"realtime"``.
        level: 0 to 7, the smaller number goes first; none for ``"idle"``.
        tree: with its descendants. Default no.
        cooldown: seconds between two changes of one process. Default 60.

    Raises:
        ConfigError: a value was refused.
    """
    classes = {"realtime": 1, "best_effort": 2, "idle": 3}
    if ioclass not in classes:
        raise ConfigError("ioclass", ioclass, '"idle", "best_effort" or "realtime" is needed')
    if level is not None and (ioclass == "idle" or isinstance(level, bool) or level not in range(8)):
        raise ConfigError("level", level, '0 to 7 is needed, and none for "idle"')
    if not hasattr(psutil.Process, "ionice"):
        raise ConfigError("ioclass", ioclass, "this system has no priorities for the disk")

    def act(alert: Alert, context: ActionContext) -> str:
        count = _pinned.ionice(_ref(context.watched(alert)), classes[ioclass], level, tree)
        return f"{ioclass} for {count} process{'es' * (count > 1)}"

    return _Doing("ionice", act, cooldown)


def suspend(*, cooldown: float = 60.0) -> Action:
    """Holds it with SIGSTOP: with its group if it is one of ours, else alone. It does not count as hung then.

    Args:
        cooldown: seconds between two suspensions of one process. Default 60.

    Raises:
        ConfigError: a value was refused.
    """
    return _Doing("suspend", lambda alert, context: _hold(context.watched(alert), True), cooldown)


def resume(*, cooldown: float = 0.0) -> Action:
    """Lets go on what was suspended.

    Args:
        cooldown: seconds between two calls for one process. Default 0.

    Raises:
        ConfigError: a value was refused.
    """
    return _Doing("resume", lambda alert, context: _hold(context.watched(alert), False), cooldown)


def _hold(watch: Watch, hold: bool) -> str:
    if watch.process is not None and watch.process.is_running:
        if hold:
            watch.process.suspend()
        else:
            watch.process.resume()
    else:
        _signal(watch, signal.SIGSTOP if hold else signal.SIGCONT)
    watch.held = hold
    return "suspended" if hold else "resumed"


def snapshot(
    directory: str | os.PathLike[str], *, keep: int = 20, cooldown: float = 60.0, timeout: float | None = None
) -> Action:
    """Writes down what it is doing: a snapshot as JSON and as text, readable by its owner alone.

    Args:
        directory: where to; made if need be, with mode 0700.
        keep: how many snapshots are kept there, the newest. Default 20.
        cooldown: seconds between two snapshots of one process. Default 60.
        timeout: seconds it may take.

    Raises:
        ConfigError: a value was refused.
    """
    path = Path(os.fspath(directory))
    if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
        raise ConfigError("keep", keep, "a whole number, 1 or more, is needed")

    async def act(alert: Alert, context: ActionContext) -> str:
        return str(await context.save_snapshot(alert, path, keep))

    return _Doing("snapshot", act, cooldown, timeout)


def _needs(field: str, value: object, protocol: Any) -> None:
    if isinstance(value, type) or not isinstance(value, protocol):
        methods = ", ".join(f"{name}()" for name in vars(protocol) if not name.startswith("_"))
        raise ConfigError(field, value, f"something with {methods} is needed")


def _named(naming: Naming, alert: Alert) -> str:
    if callable(naming):
        return naming(alert)
    return alert.target if naming is None else naming


def _reason(alert: Alert) -> str:
    return f"{alert.severity} alert {alert.rule}: {alert.message}"


def _ref(watch: Watch) -> ProcessRef:
    return ProcessRef(watch.pid, watch.started)


def _signal(watch: Watch, signum: int) -> None:
    handle = None if watch.record is None else watch.record.handle
    if handle is None:
        _pinned.send(_ref(watch), signum)
    elif not handle.signal_group(signum):
        raise ProcessLookupError(f"{watch.id} has ended")
