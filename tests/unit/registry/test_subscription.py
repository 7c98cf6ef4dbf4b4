"""RG4: the bounded async iterator."""

from __future__ import annotations

import asyncio

import pytest

from procession._types import Exit
from procession.errors import ConfigError, SubscriptionLost
from procession.events import Event, FailureReported, Gap, ProcessExited, ProcessSpawned
from procession.registry import Subscription

pytestmark = pytest.mark.both_loops


def note(id: str = "x", kind: str = "k") -> FailureReported:
    return FailureReported(id=id, kind=kind)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_events_arrive_in_order_as_an_async_iterator(registry, start):
    async with registry, registry.subscribe(ProcessSpawned, ProcessExited, owner="pool") as events:
        start("a", owner="pool").exited(Exit(0))
        start("b", owner="other")
        start("c", owner="pool")
        seen = []
        async for event in events:
            seen.append((type(event), event.id))
            if len(seen) == 3:
                break
        assert seen == [(ProcessSpawned, "a"), (ProcessExited, "a"), (ProcessSpawned, "c")]
        assert len(events) == 0
    assert registry.statistics().subscriptions == 0


async def test_a_slow_reader_gets_a_gap_in_place_of_what_was_dropped(registry):
    with registry.subscribe(id="x", max_queued=3) as events:
        for _ in range(8):
            registry.publish(note())
        gap = await anext(events)
        assert isinstance(gap, Gap)
        assert (gap.missed, gap.seq, gap.id) == (5, 5, "x")
        assert [(await anext(events)).seq for _ in range(2)] == [6, 7]
        for _ in range(3):
            registry.publish(note())
        gap = await anext(events)
        assert (gap.missed, gap.seq) == (1, 8)
        assert [(await anext(events)).seq for _ in range(3)] == [9, 10, 11]
        assert events.next_nowait() is None
        assert events.dropped == registry.statistics().dropped == 6
    assert registry.statistics().dropped == 6  # closed queues included
    assert registry.statistics().queued == 0


async def test_disconnect_ends_with_a_typed_error_after_what_was_queued(registry, heard):
    events = registry.subscribe(max_queued=2, overflow="disconnect")
    for _ in range(5):
        registry.publish(note())
    assert [(await anext(events)).seq for _ in range(2)] == [1, 2]
    for _ in range(2):
        with pytest.raises(SubscriptionLost) as caught:
            await anext(events)
        assert caught.value.max_queued == 2
    assert len(heard) == 5
    assert "lost" in repr(events)
    assert registry.statistics().subscriptions == 0


async def test_a_slow_reader_harms_neither_publisher_nor_others(registry):
    slow, fast = registry.subscribe(max_queued=1), registry.subscribe()
    for number in range(100):
        registry.publish(note())
        assert (await anext(fast)).seq == number + 1
    assert (await anext(slow)).missed == 99
    slow.close()
    fast.close()


async def test_a_waiting_reader_is_woken(registry):
    events = registry.subscribe()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(anext(events))
        await settle()
        registry.publish(note())
    assert reader.result().seq == 1
    events.close()


async def test_closing_the_registry_ends_the_iteration_after_what_is_queued(registry):
    events = registry.subscribe()
    waiting = registry.subscribe(id="never")
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(_all(waiting)) for _ in range(3)]
        await settle()
        registry.publish(note())
        registry.publish(note())
        await registry.aclose()
    assert [reader.result() for reader in readers] == [[], [], []]
    assert [event.seq for event in await _all(events)] == [1, 2]
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def _all(events: Subscription) -> list[Event]:
    return [event async for event in events]


async def test_closing_the_subscription_forgets_what_is_queued(registry):
    events = registry.subscribe(max_queued=1)
    registry.publish(note())
    registry.publish(note())
    events.close()
    events.close()
    assert await _all(events) == []
    assert bool(events)
    assert "closed" in repr(events)


async def test_readers_share_a_subscription_and_cancelled_ones_lose_nothing(registry):
    events = registry.subscribe()
    async with asyncio.TaskGroup() as group:
        readers = [group.create_task(anext(events)) for _ in range(4)]
        await settle()
        registry.publish(note())  # wakes the first reader,
        readers[0].cancel()  # which is cancelled before it runs
        readers[2].cancel()  # and one that still waits
        await settle()
        registry.publish(note())
        await settle()
    assert readers[0].cancelled()
    assert readers[2].cancelled()
    assert sorted((readers[1].result().seq, readers[3].result().seq)) == [1, 2]
    events.close()


async def test_one_event_goes_to_one_reader_even_if_another_takes_it_first(registry):
    events = registry.subscribe()
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(anext(events))
        await settle()
        registry.publish(note())
        assert events.next_nowait().seq == 1
        await settle()
        assert not reader.done()
        registry.publish(note())
    assert reader.result().seq == 2
    events.close()


async def test_10_000_subscribers_each_on_its_own_id(registry):
    queues = [registry.subscribe(id=f"p{number}") for number in range(10_000)]
    for number in range(10_000):
        registry.publish(note(f"p{number}"))
    assert [queue.next_nowait().seq for queue in queues] == list(range(1, 10_001))
    for queue in queues:
        queue.close()


@pytest.mark.parametrize("options", [{"max_queued": 0}, {"max_queued": True}, {"overflow": "block"}, {"label": {}}])
def test_bad_options_are_refused_and_leave_nothing(registry, options):
    with pytest.raises(ConfigError):
        registry.subscribe(**options)
    with pytest.raises(ConfigError):
        registry.subscribe(int)
    assert registry.statistics().listeners == registry.statistics().subscriptions == 0
