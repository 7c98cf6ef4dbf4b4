"""The inside of a monitor: one task that has all processes read, round after round, and digests what was found."""

from __future__ import annotations

import asyncio
import logging
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from procession._clock import monotonic
from procession._core.aio import Latch
from procession._types import ProcessState
from procession.errors import Closed, ConfigError, MetricsUnavailable, ProcessUnknown, StateError
from procession.events import (
    ActionTaken,
    Event,
    FailureReported,
    HealthChanged,
    MetricsSampled,
    PoolScaled,
    ProbeChecked,
    ProcessExited,
    ProcessSpawned,
    ProcessVanished,
    SamplingStretched,
    StateChanged,
    TaskFinished,
    TaskStarted,
)
from procession.monitor._alerts import Alert
from procession.monitor._application import HEARD, SILENT, Applications
from procession.monitor._collect import collect
from procession.monitor._config import MonitorConfig
from procession.monitor._files import save
from procession.monitor._host import Capacity, capacity
from procession.monitor._judge import Judge
from procession.monitor._responders import Desk
from procession.monitor._roster import Roster, Which
from procession.monitor._sample import Reading
from procession.monitor._sampler import Round, Source, ThreadSource
from procession.monitor._stream import AlertStream
from procession.monitor._watch import Watch
from procession.monitor.actions import ActionContext
from procession.registry import ProcessRegistry, Tier

if TYPE_CHECKING:
    from procession.registry import Listener

log = logging.getLogger("procession.monitor")

_SLICE = 0.0004
"""Seconds of work on samples after which others on the loop have their turn."""

_LOOK_EVERY = 8
_MOST_FILES = 8192
_SUPERVISORS = (PoolScaled, TaskStarted, TaskFinished)


def default_files() -> int:
    """Descriptors that may be kept open: a quarter of what this program may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_FILES if soft == resource.RLIM_INFINITY else min(_MOST_FILES, soft // 4)


class Engine:
    """What :class:`ResourceMonitor` stands on.

    Args:
        config: how it works.
        registry: whose processes it watches, and where it publishes.
        name: the ``id`` and ``owner`` of events about itself.
        source: where readings come from.
    """

    def __init__(
        self, config: MonitorConfig, *, registry: ProcessRegistry | None, name: str, source: Source | None
    ) -> None:
        if not isinstance(config, MonitorConfig):
            raise ConfigError("config", config, "a MonitorConfig is needed")
        if registry is not None and not isinstance(registry, ProcessRegistry):
            raise ConfigError("registry", registry, "a ProcessRegistry is needed")
        self.config: MonitorConfig = config
        self.name: str = name
        self._registry = registry
        files = default_files() if config.max_open_files is None else config.max_open_files
        self._source: Source = source or ThreadSource(files, config.close_timeout, config.network)
        self._capacity: Capacity = capacity()
        self._desk = Desk(config.callback_timeout, _Context(self), self._acted)
        self._judge = Judge(config, registry, self._capacity.memory_mb, self._desk, self._alert_changed, self._now)
        self._streams: list[AlertStream] = []
        self._listeners: list[Listener] = []
        self._owners: dict[str, Watch] = {}
        self._task: asyncio.Task[None] | None = None
        self._opened = False
        self._closed: Latch | None = None
        self._last = Round()
        self._rounds = self._stretched = 0
        self._interval = config.interval
        self._is_stretched = False
        self._failure_told = False

    def _now(self) -> float:
        return self._loop.time()

    # ------------------------------------------------------------------------------------- its life

    async def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._roster = Roster(self.config, self._registry, self._loop)
        self._applications = Applications(self.config.application_window, self._loop.time())
        self._due = Latch(loop=self._loop)
        self._waiting: list[Latch] = []
        await self._source.open()
        self._shift = self._loop.time() - self._source.clock()
        try:
            if self._registry is not None:
                self._listen(self._registry)
        except BaseException:  # the registry is closed
            for listener in self._listeners:
                listener.close()
            await self._source.aclose()
            raise
        self._opened = True
        self._task = self._loop.create_task(self._run(), name=f"procession {self.name}")

    def _listen(self, registry: ProcessRegistry) -> None:
        def listen(callback: object, *types: type[Event]) -> None:
            self._listeners.append(registry.listen(callback, types=types, tier=Tier.MODULE))  # type: ignore[arg-type]

        listen(self._on_exited, ProcessExited)
        listen(self._on_state, StateChanged)
        listen(self._on_failure, FailureReported)
        listen(self._applications.hear, *HEARD)
        listen(self._on_healthy, ProbeChecked)
        listen(self._on_health, HealthChanged)
        listen(self._on_supervisor, *_SUPERVISORS)
        if self.config.watch_registered:
            listen(self._on_spawned, ProcessSpawned)
            for record in registry:
                if record.state is not ProcessState.STARTING:
                    self._judge.came(self._roster.take_record(record))

    async def _close(self) -> None:
        if self._closed is not None:
            await asyncio.wait((self._closed,))
            return
        self._closed = Latch(loop=self._loop)
        try:
            for listener in self._listeners:
                listener.close()
            if self._task is not None:
                self._task.cancel()
                await asyncio.wait((self._task,))
            await self._desk.aclose(self.config.close_timeout)
            await self._source.aclose()
        finally:
            for watch in [*self._roster, *self._owners.values()]:
                watch._end()
            for stream in list(self._streams):
                stream.close()
            self._let_go_on()
            self._closed.open()

    def _find(self, process: Which) -> Watch:
        """A watch, active or ended, of a process or of an owner."""
        if not self._opened:
            self._inside()
        if isinstance(process, str) and process in self._owners:
            return self._owners[process]
        return self._roster.find(process)

    def _inside(self) -> None:
        """Makes sure that it is open.

        Raises:
            StateError: it was not opened yet.
            Closed: it was closed.
        """
        if self._closed is not None:
            raise Closed("monitor")
        if not self._opened:
            raise StateError(
                'a ResourceMonitor is used inside of its block: "async with ResourceMonitor(...) as monitor"'
            )

    # --------------------------------------------------------------------------------------- rounds

    async def _run(self) -> None:
        loop = self._loop
        next_at = loop.time()
        while True:
            timer = loop.call_at(next_at, self._due.open)
            try:
                await self._due
            finally:
                timer.cancel()
            began = loop.time()
            self._due = Latch(loop=loop)
            waiting, self._waiting = self._waiting, []
            try:
                added, removed = self._roster.changes()
                found = await self._source.round(added, removed)
                await self._digest(found)
                self._failure_told = False
            except Exception:
                if not self._failure_told:  # once, not at every round
                    log.exception("a round of sampling failed")
                self._failure_told = True
                found = Round()
            finally:
                for latch in waiting:
                    latch.open()
            self._adapt(found)
            next_at = max(began + self._interval, loop.time())

    def _adapt(self, found: Round) -> None:
        """Makes rounds rarer while they cost more than they may."""
        self._rounds += 1
        self._last = found
        wanted, budget = self.config.interval, self.config.budget
        self._interval = max(wanted, found.cost / budget)
        if self._interval <= wanted:
            self._is_stretched = False
            return
        self._stretched += 1
        if self._is_stretched:
            return
        self._is_stretched = True
        log.warning(
            "a round over %d processes took %.1f ms of processor time: the next ones come every %.2f s instead of %.2f s",
            len(found.readings),
            found.cost * 1e3,
            self._interval,
            wanted,
        )
        registry = self._registry
        if registry is not None and registry.wants(SamplingStretched):
            registry.publish(SamplingStretched(id=self.name, owner=self.name, cost=found.cost, interval=self._interval))

    async def _digest(self, found: Round) -> None:
        """Takes in what a round found, in slices, so that nobody on the loop waits long."""
        until = monotonic() + _SLICE
        by_key, shift = self._roster.by_key, self._shift
        publishes = self._publishes_samples()
        for key, reason in found.gone:
            watch = by_key.get(key)
            if watch is not None:
                self._vanished(watch, reason)
        for index, (key, reading) in enumerate(found.readings):
            watch = by_key.get(key)
            if watch is not None:
                self._take(watch, reading, shift, publishes)
            if index % _LOOK_EVERY == 0 and monotonic() > until:
                await asyncio.sleep(0)
                until = monotonic() + _SLICE
        now = self._loop.time()
        for watch in self._owners.values():
            reading = Reading(now, "?", None, None, None, None, None, None, None, None, now - watch._active_at)
            self._take(watch, reading, 0.0, publishes)

    def _take(self, watch: Watch, reading: Reading, shift: float, publishes: bool) -> None:
        at = reading.taken + shift
        told = self._applications.told(watch._names, at) if len(self._applications) else SILENT
        watch._take(at, reading, told)
        self._judge.see(watch)
        if publishes and self._registry is not None and (sample := watch.latest) is not None:
            figures = sample.figures()
            self._registry.publish(MetricsSampled(id=watch.id, owner=watch.owner, pid=watch.pid, figures=figures))

    def _publishes_samples(self) -> bool:
        registry, wanted = self._registry, self.config.publish_samples
        if registry is None:
            return False
        return registry.heard(MetricsSampled, by_name=True) if wanted is None else wanted

    async def _fresh(self) -> None:
        """Makes a round now, and waits for it.

        Cancellation: safe.
        """
        self._inside()
        self._due.open()
        await self._next_round()

    async def _next_round(self) -> None:
        """Waits for the end of the next round that begins.

        Raises:
            Closed: the monitor was closed.

        Cancellation: safe.
        """
        self._inside()
        latch = Latch(loop=self._loop)
        self._waiting.append(latch)
        await latch
        self._inside()

    def _let_go_on(self) -> None:
        for latch in self._waiting:
            latch.open()

    # --------------------------------------------------------------------------------------- events

    def _on_spawned(self, event: ProcessSpawned) -> None:
        registry = self._registry
        assert registry is not None
        if event.id in registry and event.id not in self._roster.active:
            record = registry.get(event.id)
            if record.is_live and record.pid is not None:
                self._judge.came(self._roster.take_record(record))

    def _on_exited(self, event: ProcessExited) -> None:
        watch = self._roster.active.get(event.id)
        if watch is not None and watch.pid == event.pid:
            self._roster.drop(watch)
            self._judge.went(watch, event.exit, "")

    def _on_state(self, event: StateChanged) -> None:
        watch = self._roster.active.get(event.id)
        if watch is not None:
            if event.new == ProcessState.STOPPING:
                watch.stopping = True
        elif event.new == ProcessState.RUNNING:
            self._judge.recovered(event.id)

    def _on_failure(self, event: FailureReported) -> None:
        self._judge.failed(event.id, event.owner, event.kind, event.error)

    def _on_healthy(self, event: ProbeChecked) -> None:
        if event.healthy:
            for watch in self._roster:
                if event.id in (watch.id, watch.target, watch.name):
                    watch.heartbeat_at = event.at

    def _on_health(self, event: HealthChanged) -> None:
        if event.probe == "liveness":  # one that is not ready, or has not come up yet, is not hung
            watch = next((watch for watch in self._roster if event.id in watch._names), None)
            self._judge.health(event.id, watch, event.healthy, event.detail)

    def _on_supervisor(self, event: Event) -> None:
        self._judge.supervises(event.owner)

    def _vanished(self, watch: Watch, reason: str) -> None:
        """The source does not find it any more."""
        if watch.record is not None and watch.record.is_live and watch.record.handle is not None:
            return  # its owner is about to tell how it ended
        self._roster.drop(watch)
        registry = self._registry
        if registry is not None and registry.wants(ProcessVanished):
            registry.publish(ProcessVanished(id=watch.id, owner=watch.owner, pid=watch.pid, reason=reason))
        self._judge.went(watch, None if watch.process is None else watch.process.exit, reason)

    def _alert_changed(self, alert: Alert) -> None:
        for stream in list(self._streams):
            stream._offer(alert)

    def _acted(self, action: str, alert: Alert, ok: bool, detail: str) -> None:
        registry = self._registry
        if registry is not None and registry.wants(ActionTaken):
            registry.publish(
                ActionTaken(id=alert.process, owner=alert.owner, action=action, alert=alert.id, ok=ok, detail=detail)
            )


class _Context(ActionContext):
    """What actions can find out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def watched(self, alert: Alert) -> Watch:
        try:
            return self._engine._roster.find(alert.process, ended=False)
        except ProcessUnknown:
            raise MetricsUnavailable(alert.process, "it has ended") from None

    async def save_snapshot(self, alert: Alert, directory: Path, keep: int) -> Path:
        watch = self.watched(alert)

        def write() -> Path:
            return save(collect(watch.pid), directory, alert.id, keep)

        return await asyncio.get_running_loop().run_in_executor(None, write)
