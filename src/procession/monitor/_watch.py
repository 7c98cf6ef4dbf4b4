"""One watched process: who it is, what was read of it, and where its conditions stand."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from procession._core.aio import Latch
from procession.monitor._config import MonitorConfig, ResourceLimits
from procession.monitor._limits import Cell
from procession.monitor._sample import Before, Reading, Sample, Told, sample_of
from procession.monitor._series import Series
from procession.monitor._trend import Trend
from procession.monitor._words import STATES

if TYPE_CHECKING:
    from procession.process import Process
    from procession.registry import ProcessRecord

_STUCK = "D"
_STOPPED = "Tt"


class Watch:
    """A watched process, as returned by ``monitor.watch``. Made by the monitor only.

    Attributes:
        id: under which it is watched.
        pid: its process id.
        started: its start time in clock ticks since boot; 0 when unknown.
        name: what people call it.
        owner: who owns it; empty when nobody does.
        target: what to name to whoever can restart or stop it.
        tree: whether its descendants are read with it.
        shares: whether shares of memory are read.
        limits: what it may use.
        asked: whether somebody asked for it, rather than that it was found in the registry.
        record: what the registry knows of it, or ``None``.
        process: the process itself, if the monitor was given it.
        held: whether an action has suspended it.
        stopping: whether somebody is stopping it on purpose.
        ended: opens when it is not watched any more, because it has ended or nobody wants it.
    """

    def __init__(
        self,
        id: str,
        pid: int,
        started: int,
        *,
        key: int,
        name: str,
        owner: str,
        target: str,
        now: float,
        config: MonitorConfig,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.id: str = id
        self.pid: int = pid
        self.started: int = started
        self.name: str = name
        self.owner: str = owner
        self.target: str = target
        self.tree: bool = config.tree
        self.shares: bool = config.pss
        self.limits: ResourceLimits | None = config.limits
        self.asked: bool = False
        self.record: ProcessRecord | None = None
        self.process: Process | None = None
        self.held: bool = False
        self.stopping: bool = False
        self.ended: asyncio.Future[None] = Latch(loop=loop)
        self.heartbeat_at: float | None = None
        self._key = key
        self._config = config
        self._series: Series | None = None
        self._taken: tuple[Before, Before | None, float, Told] | None = None
        self._made: tuple[object, Sample] | None = None
        self._active_at = now
        self._standing_still_since: float | None = None
        self._cells: list[Cell] = []
        self._hung: Cell | None = None

    @property
    def latest(self) -> Sample | None:
        """The last sample, or ``None``; made from the last reading when it is first asked for."""
        taken = self._taken
        if taken is None:
            return None
        made = self._made
        if made is None or made[0] is not taken:  # somebody may ask on another thread: the newer one stays
            (at, reading), before, idle, told = taken
            self._made = made = (taken, sample_of(self.id, self.pid, at, reading, before, idle, told, self._trend))
        return made[1]

    @property
    def is_active(self) -> bool:
        """Whether it is still watched."""
        return not self.ended.done()

    @property
    def _names(self) -> tuple[str, ...]:
        """The names under which answers of it may be told."""
        return self.id, self.target, self.name

    def _end(self) -> None:
        if isinstance(self.ended, Latch):
            self.ended.open()

    def _take(self, at: float, reading: Reading, told: Told) -> None:
        """Takes in one reading."""
        series = self._series
        if series is None:
            self._series = series = Series(self._config.history, at - reading.uptime)
        before = None if self._taken is None else self._taken[0]
        if before is None or self._is_busy(before, at, reading):
            self._active_at = at
        if self._stands_still(before, reading):
            if self._standing_still_since is None:
                self._standing_still_since = at
        else:
            self._standing_still_since = None
        series.append(at, reading)
        self._taken = (at, reading), before, at - self._active_at, told

    def _is_busy(self, before: Before, at: float, reading: Reading) -> bool:
        old = before[1]
        if reading.cpu_seconds is not None and old.cpu_seconds is not None:
            percent = (reading.cpu_seconds - old.cpu_seconds) / max(at - before[0], 1e-9) * 100.0
            if percent > self._config.idle_below_percent:
                return True
        return (
            old.disk_write_mb != reading.disk_write_mb
            or old.disk_read_mb != reading.disk_read_mb
            or old.network_received_mb != reading.network_received_mb
            or old.network_sent_mb != reading.network_sent_mb
        )

    def _stands_still(self, before: Before | None, reading: Reading) -> bool:
        """Whether it cannot go on. Who reads a slow disk is in that state at every look too, but moves in between."""
        if reading.letter in _STOPPED:
            return not self._is_suspended()
        if reading.letter != _STUCK:
            return False
        return before is None or before[1].context_switches == reading.context_switches

    def _is_suspended(self) -> bool:
        return self.held or (self.record is not None and self.record.state == "suspended")

    @property
    def _conditions(self) -> list[Cell]:
        """All of them."""
        return self._cells if self._hung is None else [self._hung, *self._cells]

    @property
    def _may_be_hung(self) -> bool:
        """Whether it is worth asking: hardly ever."""
        return self._standing_still_since is not None or (
            self.limits is not None and self.limits.heartbeat_timeout is not None
        )

    def _why_hung(self, now: float) -> str | None:
        """Why it counts as hung; ``None`` when it does not."""
        after = self._config.hung_after
        since = self._standing_still_since
        if after is not None and since is not None and now - since >= after and self._taken is not None:
            state = STATES[self._taken[0][1].letter]
            return f"in state {state} for {now - since:.0f} s"
        timeout = None if self.limits is None else self.limits.heartbeat_timeout
        if timeout is not None:
            silent = now - (self.heartbeat_at if self.heartbeat_at is not None else self._first_at(now))
            if silent > timeout and not self._is_suspended():
                return f"no heartbeat for {silent:.1f} s"
        return None

    def _first_at(self, now: float) -> float:
        """Heartbeats are expected from when it was first read, or from when limits were set."""
        if self.heartbeat_at is None:
            self.heartbeat_at = now
        return self.heartbeat_at

    def _trend(self, window: float | None) -> Trend:
        """A trend that reads the series when it is asked; for rules, which ask at once."""
        series = self._series
        if series is None or not len(series):
            return Trend(self.id)
        wide = self._config.trend_window if window is None else window
        return Trend(self.id, series.column, series.since(float(series.column("at", 1)[0]) - wide), wide)

    def _frozen_trend(self, window: float | None) -> Trend:
        """A trend of now, for keeping."""
        trend, series = self._trend(window), self._series
        if series is None or not trend.samples:
            return trend
        return Trend(self.id, series.frozen(trend.samples), trend.samples, trend.window)

    def __repr__(self) -> str:
        how = "active" if self.is_active else "ended"
        return f"<Watch {self.id} pid {self.pid}: {how}, {0 if self._series is None else len(self._series)} samples>"
