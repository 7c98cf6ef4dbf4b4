"""``ResourceMonitor``: what every process costs, what is wrong with it, and what is done about it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from procession._core.aio import finish
from procession._core.backoff import duration
from procession.errors import ConfigError, ProcessUnknown, StateError
from procession.monitor._alarms import Alarms
from procession.monitor._application import ApplicationFigures
from procession.monitor._collect import collect, collect_tree
from procession.monitor._config import MonitorConfig, ResourceLimits
from procession.monitor._host import Capacity
from procession.monitor._roster import Which
from procession.monitor._rules import name_of
from procession.monitor._sample import Sample
from procession.monitor._sampler import Source
from procession.monitor._snapshot import Snapshot, TreeNode
from procession.monitor._statistics import MonitorStatistics
from procession.monitor._trend import Trend
from procession.monitor._watch import Watch

if TYPE_CHECKING:
    from procession.registry import ProcessRegistry

T = TypeVar("T")


class ResourceMonitor(Alarms):
    """Watches processes: figures, history, alerts and what is done about them. Use it as an async context manager.

    ::

        async with ResourceMonitor(MonitorConfig(interval=1.0), registry=registry) as monitor:
            monitor.watch(process, limits=ResourceLimits(max_memory_mb=512))
            monitor.on_alert(Severity.CRITICAL, actions.restart(via=units))
            async for alert in monitor.alerts():
                print(alert)

    Every process of the registry is watched by itself. Reading is done in a thread that ends with the monitor; everything
    else, also rules and plain callbacks, on the loop. All calls belong on the thread of that loop.

    A process is named by its id, its name or unit, its pid, or the ``Process``, ``ProcessRecord``, ``Watch`` or
    ``psutil.Process`` itself.

    Args:
        config: how it works. Default: ``MonitorConfig()``.
        registry: whose processes are watched, and where samples and alerts are published. Default: none; then only what
            :meth:`watch` is given is watched.
        name: how it is called in events about itself.
        source: where readings come from; for tests.

    Raises:
        ConfigError: a value was refused.
    """

    def __init__(
        self,
        config: MonitorConfig | None = None,
        *,
        registry: ProcessRegistry | None = None,
        name: str = "monitor",
        source: Source | None = None,
    ) -> None:
        super().__init__(
            MonitorConfig() if config is None else config,
            registry=registry,
            name=name_of("name", name),
            source=source,
        )

    # ------------------------------------------------------------------------------------- its life

    async def __aenter__(self) -> Self:
        """Starts watching.

        Raises:
            StateError: it was opened before.

        Cancellation: nothing is left of it.
        """
        if self._opened or self._closed is not None:
            raise StateError("a ResourceMonitor is opened once")
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends watching; may be called twice. Samples and alerts can still be asked for.

        Callbacks and actions that are under way get ``close_timeout`` seconds to end, then they are cancelled.

        Cancellation: absorbed until everything has ended, then raised.
        """
        if self._opened:
            await finish(self._close())

    # ------------------------------------------------------------------------------------- watching

    def watch(
        self,
        process: Which,
        *,
        name: str = "",
        tree: bool | None = None,
        pss: bool | None = None,
        limits: ResourceLimits | None = None,
    ) -> Watch:
        """Watches a process, or changes how one is watched.

        Args:
            process: which; a pid may be that of any process of this machine.
            name: what to call it, if it is not in the registry. Default: what the kernel calls it.
            tree: with all its descendants. Default: as before, or as configured.
            pss: with its shares of memory. Default: as before, or as configured.
            limits: what it may use. Default: as before, or as configured.

        Returns:
            The watch; its ``id`` names it in all other calls, ``"pid-4711"`` for a process that is not in the registry.

        Raises:
            ProcessUnknown: there is no such process.
            ConfigError: a value was refused.
            StateError: the monitor is not open.
        """
        self._inside()
        if limits is not None and not isinstance(limits, ResourceLimits):
            raise ConfigError("limits", limits, "ResourceLimits are needed")
        for field, flag in (("tree", tree), ("pss", pss)):
            if flag is not None and not isinstance(flag, bool):
                raise ConfigError(field, flag, "True or False is needed")
        watch, new = self._roster.take(process, name and name_of("name", name))
        watch.asked = True
        if tree is not None or pss is not None:
            before = watch.tree, watch.shares
            watch.tree = watch.tree if tree is None else tree
            watch.shares = watch.shares if pss is None else pss
            if (watch.tree, watch.shares) != before or new:
                self._roster.announce(watch)
        watch.limits = watch.limits if limits is None else limits
        if new:
            self._judge.came(watch)
        else:
            self._judge.outfit(watch)
        return watch

    def watch_owner(self, owner: str, *, limits: ResourceLimits) -> Watch:
        """Watches how a pool or a scheduler answers as a whole: response time and share of errors.

        Args:
            owner: its name.
            limits: of these, ``max_response_time`` and ``max_error_rate`` have a meaning here.

        Returns:
            The watch; its pid is 0, and all figures of a process are ``None``.

        Raises:
            ConfigError: a value was refused.
            StateError: the monitor is not open.
        """
        self._inside()
        if not isinstance(limits, ResourceLimits):
            raise ConfigError("limits", limits, "ResourceLimits are needed")
        watch = self._owners.get(owner)
        if watch is None:
            watch = self._owners[owner] = Watch(
                owner,
                0,
                0,
                key=0,
                name=name_of("owner", owner),
                owner=owner,
                target=owner,
                now=self._now(),
                config=self.config,
                loop=self._loop,
            )
        watch.asked, watch.limits = True, limits
        self._judge.outfit(watch)
        return watch

    def unwatch(self, process: Which) -> None:
        """Watches it no more; its alerts are over, and its samples are still known for a while.

        Raises:
            ProcessUnknown: it is not watched.
        """
        watch = self._owners.pop(process, None) if isinstance(process, str) else None
        if watch is None:
            watch = self._roster.find(process, ended=False)
            self._roster.drop(watch)
        watch.stopping = True
        watch._end()
        self._judge.went(watch, None, "")

    @property
    def watched(self) -> tuple[Watch, ...]:
        """All processes that are watched now."""
        return tuple(self._roster) if self._opened else ()

    def find(self, process: Which) -> Watch:
        """The watch of a process: an active one, else that of one that has ended and is still known.

        Raises:
            ProcessUnknown: it is not watched, and was not lately.
            StateError: the monitor was never opened.
        """
        return self._find(process)

    def heartbeat(self, process: Which) -> None:
        """Says that a process makes progress, see ``ResourceLimits.heartbeat_timeout``.

        Raises:
            ProcessUnknown: it is not watched.
        """
        self._inside()
        self._roster.find(process, ended=False).heartbeat_at = self._now()

    # -------------------------------------------------------------------------------------- figures

    def latest(self, process: Which) -> Sample | None:
        """The last sample of a process; ``None`` before the first.

        Raises:
            ProcessUnknown: it is not watched, and was not lately.
        """
        return self._find(process).latest

    async def sample(self, process: Which) -> Sample:
        """Reads a process now, and returns the new sample.

        Raises:
            ProcessUnknown: it is not watched, or has ended.
            StateError: the monitor is not open.

        Cancellation: safe.
        """
        watch = self._roster.find(process, ended=False) if self._opened else self._find(process)
        asked = watch.latest
        await self._fresh()
        if watch.latest is asked or watch.latest is None:  # the round under way had been too early for it
            await self._fresh()
        if watch.latest is None or not watch.is_active:
            raise ProcessUnknown(watch.id, "it has ended")
        return watch.latest

    def samples(self, process: Which, window: float | None = None) -> list[Sample]:
        """Past samples of a process, oldest first, as far as its history reaches.

        Args:
            process: which.
            window: only the last so many seconds. Default: all.

        Raises:
            ProcessUnknown: it is not watched, and was not lately.
            ConfigError: the window is none.
        """
        watch = self._find(process)
        seconds = None if window is None else duration("window", window)
        series = watch._series
        if series is None or not len(series):
            return []
        last = None if seconds is None else series.since(float(series.column("at", 1)[0]) - seconds)
        return series.samples(watch.id, watch.pid, last)

    def trend(self, process: Which, window: float | None = None) -> Trend:
        """How the figures of a process have developed.

        Args:
            process: which.
            window: over the last so many seconds. Default: ``config.trend_window``.

        Raises:
            ProcessUnknown: it is not watched, and was not lately.
            ConfigError: the window is none.
        """
        return self._find(process)._frozen_trend(None if window is None else duration("window", window))

    def application(self, id: Which) -> ApplicationFigures:
        """How a process, a unit, a pool or a scheduler answers: response time, errors, throughput.

        Args:
            id: its id or name. Of what never answered all figures are 0 or ``None``.

        Raises:
            StateError: the monitor was never opened.
        """
        if not self._opened:
            self._inside()
        names: tuple[str, ...] = (id,) if isinstance(id, str) else ()
        try:
            names += self._roster.find(id)._names
        except ProcessUnknown:
            if not names:
                raise
        known = next((name for name in names if name in self._applications), names[0])
        return self._applications.figures(known, self._now())

    async def snapshot(self, process: Which) -> Snapshot:
        """Everything about a process at this moment: threads, files, sockets, memory, limits, environment, relatives.

        Collected in a thread of the loop's executor. What may not be read is named in ``missing``.

        Args:
            process: which; also one that is not watched, by its pid.

        Raises:
            ProcessUnknown: there is no such process.

        Cancellation: safe; the thread finishes for itself.
        """
        return await self._in_thread(collect, self._pid(process))

    async def tree(self, process: Which) -> TreeNode:
        """A process and its descendants, with what they use.

        Args:
            process: which; also one that is not watched, by its pid.

        Raises:
            ProcessUnknown: there is no such process.

        Cancellation: safe; the thread finishes for itself.
        """
        return await self._in_thread(collect_tree, self._pid(process))

    async def _in_thread(self, function: Callable[[int], T], pid: int) -> T:
        return await asyncio.get_running_loop().run_in_executor(None, function, pid)

    def _pid(self, process: Which) -> int:
        if isinstance(process, int) and not isinstance(process, bool) and process > 0:
            return process
        watch = self._find(process)
        if not watch.is_active:
            raise ProcessUnknown(watch.id, "it has ended")
        return watch.pid

    # -------------------------------------------------------------------------------------- overall

    @property
    def capacity(self) -> Capacity:
        """What there is to be used: cores and memory, of the machine or of the container we are in."""
        return self._capacity

    def statistics(self) -> MonitorStatistics:
        """Figures of this moment, of the monitor and of all watched processes together."""
        watches = self.watched
        samples = [watch.latest for watch in watches if watch.latest is not None]
        book, desk = self._judge.book, self._desk
        rss = sum(sample.rss_mb or 0.0 for sample in samples)
        dropped = [responder.dropped for responder in desk.responders] + [stream.dropped for stream in self._streams]
        return MonitorStatistics(
            watched=len(watches),
            ended=len(self._roster.ended) if self._opened else 0,
            cpu_percent=sum(sample.cpu_percent or 0.0 for sample in samples),
            cpu_seconds=sum(sample.cpu_seconds or 0.0 for sample in samples),
            rss_mb=rss,
            file_descriptors=sum(sample.file_descriptors or 0 for sample in samples),
            threads=sum(sample.threads or 0 for sample in samples),
            by_state=Counter(sample.state for sample in samples),
            cores=self._capacity.cores,
            memory_mb=self._capacity.memory_mb,
            memory_percent=rss / self._capacity.memory_mb * 100.0,
            rounds=self._rounds,
            interval=self._interval,
            round_cost=self._last.cost,
            stretched=self._stretched,
            open_files=self._last.open_files,
            unread=self._last.failures,
            network=self._last.network,
            active_alerts=Counter(alert.severity for alert in book.active.values()),
            alerts_raised=dict(book.by_severity),
            rule_errors=self._judge.rule_errors,
            callback_failures=desk.failures,
            actions=desk.actions,
            action_failures=desk.action_failures,
            dropped=sum(dropped),
        )

    def __repr__(self) -> str:
        how = "closed" if self._closed is not None else "open" if self._opened else "not open"
        alerts = len(self._judge.book.active)
        return f"<ResourceMonitor {self.name} {how}: {len(self.watched)} watched, {alerts} alerts>"
