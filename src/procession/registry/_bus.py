"""The event bus: numbered facts, handed out synchronously, in order, to isolated listeners."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from procession._clock import monotonic, wall
from procession.errors import Closed, ConfigError
from procession.events import Event
from procession.registry._filters import Label, Types, event_types, label_terms
from procession.registry._listener import Channel, Listener, Tier, check_callback

log = logging.getLogger("procession.registry")

SLOW = 0.1
"""Seconds in one listener beyond which the loop was held up and the log says by whom."""

_WALL_STEP = 0.1
"""Seconds for which one reading of the wall clock serves; it is for display, and costs as much as all else."""

_NO_LABELS: Mapping[str, str] = {}

_set_seq: Callable[[Event, int], None] = Event.__dict__["seq"].__set__
_set_at: Callable[[Event, float], None] = Event.__dict__["at"].__set__
_set_wall: Callable[[Event, float], None] = Event.__dict__["wall"].__set__
_set_cause: Callable[[Event, int], None] = Event.__dict__["cause"].__set__


class EventBus:
    """Publishes events to listeners; the innermost part of :class:`ProcessRegistry`.

    Args:
        keep: called with every event before anybody hears it (the journal's ``append``).
        keeps: whether ``keep`` has a use for events.
        max_listener_failures: failures in a row after which a listener is disabled.
    """

    def __init__(self, *, keep: Callable[[Event], None], keeps: bool, max_listener_failures: int) -> None:
        self._keep = keep
        self._keeps = keeps
        self._max_failures = max_listener_failures
        self._time: Callable[[], float] = self._first_time
        self._wall_until = -math.inf
        self._wall_offset = 0.0
        self._seq = 0
        self._handling = 0
        self._busy = False
        self._pending: deque[tuple[Event, Mapping[str, str]]] = deque()
        self._serial = 0
        self._everybody: dict[int, Listener] = {}
        self._all = Channel()
        self._by_id: dict[str, Channel] = {}
        self._by_owner: dict[str, Channel] = {}
        self._by_label: dict[Any, Channel] = {}
        self._labelled = 0  # listeners with a label among their filters, also those found by id or owner
        self._heard: dict[type[Event], int] = {}
        self._wanted: dict[type[Event], bool] = {}
        self._listened: dict[type[Event], bool] = {}
        self._closed = False
        self._failures = self._disabled = self._slow = 0

    def _first_time(self) -> float:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return monotonic()
        self._time = loop.time
        self._wall_until = -math.inf
        return loop.time()

    def _now(self) -> float:
        return self._time()

    def _labels_of(self, id: str) -> Mapping[str, str]:  # noqa: ARG002 - the registry knows labels
        return _NO_LABELS

    # -------------------------------------------------------------------------------- publishing

    def publish(self, event: Event) -> int:
        """Stamps ``event``, keeps it in the journal, and calls every listener that wants it.

        Listeners are called before this returns, in the order of their tiers, unless a listener is the one
        who publishes: then the event waits its turn, so that everybody hears all events in the same order.
        Call it on the loop's thread.

        Args:
            event: a new event. ``seq``, ``at`` and ``wall`` are filled in, and ``cause``, when it is 0, with the
                number of the event being handled.

        Returns:
            The event's ``seq``.

        Raises:
            ConfigError: the event was published before.
        """
        if event.seq:
            raise ConfigError("event", event, "it was published before; a new fact is a new event")
        self._seq = seq = self._seq + 1
        _set_seq(event, seq)
        at = self._time()
        if at >= self._wall_until:
            self._wall_until = at + _WALL_STEP
            self._wall_offset = wall() - at
        _set_at(event, at)
        _set_wall(event, at + self._wall_offset)
        if self._handling and not event.cause:
            _set_cause(event, self._handling)
        self._keep(event)
        if self._everybody:
            self._pending.append((event, self._labels_of(event.id) if self._labelled else _NO_LABELS))
            if not self._busy:
                self._drain()
        return seq

    def _drain(self) -> None:
        pending = self._pending
        stop: BaseException | None = None
        self._busy = True
        try:
            while pending:
                event, labels = pending.popleft()
                self._handling = event.seq
                began = monotonic()
                for listener in self._chosen(event, labels):
                    if not listener.active:
                        continue
                    try:
                        answer = listener.callback(event)
                        if answer is not None and inspect.iscoroutine(answer):
                            answer.close()
                            raise TypeError(f"{listener!r} returned a coroutine, which nobody awaits")
                        listener._streak = 0
                    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - isolation: logged and counted
                        self._failed(listener, event, error)
                    except BaseException as error:  # noqa: BLE001 - raised once everybody has heard
                        stop = stop or error
                    ended = monotonic()
                    if ended - began > SLOW:
                        self._slow += 1
                        log.warning("%r held the loop up for %.3f s", listener, ended - began)
                    began = ended
        finally:
            self._busy = False
            self._handling = 0
        if stop is not None:
            raise stop

    def _chosen(self, event: Event, labels: Mapping[str, str]) -> tuple[Listener, ...] | list[Listener]:
        kind = event.__class__
        chosen = self._all.table.get(kind)
        if chosen is None:
            chosen = self._all.build(kind)
        if len(self._everybody) == len(self._all.members):
            return chosen
        channels = [self._by_id.get(event.id), self._by_owner.get(event.owner)]
        if self._by_label:
            for term in labels.items():
                channels += (self._by_label.get(term), self._by_label.get(term[0]))
        narrow: list[Listener] = []
        for channel in channels:
            if channel is not None:
                found = channel.table.get(kind)
                found = channel.build(kind) if found is None else found
                narrow += [listener for listener in found if listener.accepts(event, labels)]
        return sorted([*chosen, *narrow], key=_order) if narrow else chosen

    def _failed(self, listener: Listener, event: Event, error: BaseException) -> None:
        self._failures += 1
        listener.failures += 1
        listener._streak += 1
        kind = type(event).__name__
        log.error("%r failed on %s %d of %s", listener, kind, event.seq, event.id, exc_info=error)
        if listener._streak >= self._max_failures and listener.active:
            self._disabled += 1
            listener.disabled = True
            listener.close()
            log.error("%r was disabled after %d failures in a row", listener, listener._streak)

    # --------------------------------------------------------------------------------- listening

    def listen(
        self,
        callback: Callable[[Event], object],
        *,
        types: Types = (),
        id: str | None = None,
        owner: str | None = None,
        label: Label | None = None,
        tier: Tier = Tier.USER,
    ) -> Listener:
        """Calls ``callback`` with every event that passes all filters, while it is published.

        A callback must return quickly; whatever takes time belongs behind ``subscribe``. When it raises, that
        is logged and counted, and nobody else notices; after ``max_listener_failures`` failures in a row it is
        disabled. It may publish, listen and close listeners.

        Args:
            callback: a plain function of one event; its return value is ignored.
            types: an event class or several; subclasses are included. Default: all.
            id: only events about this id.
            owner: only events of this owner.
            label: only events about processes with this label: ``"key"``, ``("key", "value")`` or a mapping.
            tier: when it is called among the others; leave it for applications.

        Returns:
            The listener; ``close()`` it, or use it as a context manager.

        Raises:
            ConfigError: the callback is a coroutine function, or a filter is none.
            Closed: the registry is closed.
        """
        check_callback(callback)
        if self._closed:
            raise Closed("registry")
        terms = label_terms(label)
        self._serial += 1
        made = Listener(callback, event_types(types), id, owner, terms, Tier(tier), self._serial, self._forget)
        channel = self._all
        if id is not None:
            channel = _channel(self._by_id, id)
        elif terms:
            channel = _channel(self._by_label, terms[0])
        elif owner is not None:
            channel = _channel(self._by_owner, owner)
        channel.add(made)
        self._everybody[self._serial] = made
        self._labelled += bool(terms)
        for kind in made.types:
            self._heard[kind] = self._heard.get(kind, 0) + 1
        self._forget_answers()
        return made

    def _forget(self, listener: Listener) -> None:
        if listener._channel is not None:
            listener._channel.discard(listener)
        del self._everybody[listener._order & 0xFFFFFFFFFFFF]
        self._labelled -= bool(listener._terms)
        for kind in listener.types:
            self._heard[kind] -= 1
            if not self._heard[kind]:
                del self._heard[kind]
        self._forget_answers()

    def _forget_answers(self) -> None:
        self._wanted.clear()
        self._listened.clear()

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody – journal, listener, queue or sink – would see an event of this class.

        Ask before building an event on a hot path. Filters other than the type are not looked at.
        """
        answer = self._wanted.get(kind)
        if answer is None:
            self._wanted[kind] = answer = self._keeps or any(base in self._heard for base in kind.__mro__)
        return answer

    def heard(self, kind: type[Event], *, by_name: bool = False) -> bool:
        """Whether a listener, a queue or a sink would see an event of this class; the journal alone does not count.

        Ask this instead of ``wants`` where there are so many events that they would only push others out of the
        journal. With ``by_name`` those who hear everything do not count either, only those who asked for this class.
        """
        if by_name:
            return kind in self._heard
        answer = self._listened.get(kind)
        if answer is None:
            self._listened[kind] = answer = any(base in self._heard for base in kind.__mro__)
        return answer


def _order(listener: Listener) -> int:
    return listener._order


def _channel(home: dict[Any, Channel], key: Any) -> Channel:
    channel = home.get(key)
    if channel is None:
        home[key] = channel = Channel(home, key)
    return channel
