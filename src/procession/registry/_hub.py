"""The bus with its edges: journal, queues and sinks."""

from __future__ import annotations

from procession.abc import Sink
from procession.errors import ConfigError
from procession.events import Event
from procession.registry._bus import EventBus, log
from procession.registry._filters import Label, event_types
from procession.registry._journal import Journal
from procession.registry._listener import Listener, Tier
from procession.registry._subscription import Overflow, Subscription


class EventHub(EventBus):
    """Events with a memory and with readers; the half of :class:`ProcessRegistry` that knows no processes.

    Args:
        journal_size: how many past events are kept.
        max_listener_failures: failures in a row after which a listener is disabled.
    """

    def __init__(self, *, journal_size: int, max_listener_failures: int) -> None:
        self._journal = Journal(whole("journal_size", journal_size, 0))
        super().__init__(
            keep=self._journal.append,
            keeps=journal_size > 0,
            max_listener_failures=whole("max_listener_failures", max_listener_failures, 1),
        )
        self._sinks: list[Sink] = []
        self._subscriptions: dict[Subscription, Listener] = {}
        self._dropped = 0

    def subscribe(
        self,
        *types: type[Event],
        id: str | None = None,
        owner: str | None = None,
        label: Label | None = None,
        max_queued: int = 1000,
        overflow: Overflow = "drop_oldest",
    ) -> Subscription:
        """Events from now on as an async iterator over a bounded queue. The publisher never waits.

        Args:
            types: event classes; subclasses are included. Default: all.
            id: only events about this id.
            owner: only events of this owner.
            label: only events about processes with this label, as in ``find``.
            max_queued: how many events wait at most. Default 1,000.
            overflow: ``"drop_oldest"`` drops the oldest event for each one too many, and the reader gets a
                ``Gap`` in their place; ``"disconnect"`` ends the iteration with ``SubscriptionLost``.

        Raises:
            ConfigError: a filter, ``max_queued`` or ``overflow`` is none.
            Closed: the registry is closed.
        """
        if overflow not in ("drop_oldest", "disconnect"):
            raise ConfigError("overflow", overflow, '"drop_oldest" or "disconnect" is needed')
        subscription = Subscription(whole("max_queued", max_queued, 1), overflow, id, self._leave)
        self._subscriptions[subscription] = self.listen(
            subscription._offer, types=types, id=id, owner=owner, label=label, tier=Tier.QUEUE
        )
        return subscription

    def _leave(self, subscription: Subscription) -> None:
        self._dropped += subscription.dropped
        self._subscriptions.pop(subscription).close()

    def add_sink(self, sink: Sink) -> Listener:
        """Hands every event to ``sink``, after all listeners, and closes the sink with the registry.

        A sink that raises is treated like a listener that does.

        Returns:
            The listener that feeds it; closing that stops the feeding.

        Raises:
            ConfigError: its ``write`` is a coroutine function.
            Closed: the registry is closed.
        """
        listener = self.listen(sink.write, tier=Tier.QUEUE)
        self._sinks.append(sink)
        return listener

    def history(
        self,
        *types: type[Event],
        id: str | None = None,
        owner: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Past events that pass all filters, oldest first, as far as the journal reaches.

        Args:
            types: event classes; subclasses are included. Default: all.
            id: only events about this id.
            owner: only events of this owner.
            since: loop time of the earliest, inclusive.
            until: loop time of the latest, inclusive.
            limit: only the newest so many.

        Raises:
            ConfigError: a type or the limit is none.
        """
        return self._journal.history(event_types(types), id, owner, since, until, whole_or_none("limit", limit))

    def story(self, id: str) -> list[Event]:
        """The events about ``id`` and, transitively, those that caused them, oldest first.

        Reaches as far as the journal does; an id nobody published about has an empty story.
        """
        return self._journal.story(id)

    def _hush(self) -> None:
        """Ends queues once they are read, closes listeners, then sinks."""
        for subscription in list(self._subscriptions):
            subscription._end()
        for listener in list(self._everybody.values()):
            listener.close()
        for sink in self._sinks:
            try:
                sink.close()
            except Exception:  # noqa: BLE001 - isolation: logged and counted
                self._failures += 1
                log.exception("%r could not be closed", sink)


def whole(field: str, value: object, least: int) -> int:
    """Checks a size."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(field, value, f"a whole number, {least} or more, is needed")
    return value


def whole_or_none(field: str, value: object) -> int | None:
    """Checks a limit."""
    return None if value is None else whole(field, value, 0)
