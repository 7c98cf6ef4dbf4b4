"""RG2, RG3, RG4: order, tiers, re-entrancy, isolation, filters, cost."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import Any
from unittest.mock import AsyncMock

import pytest

from procession._types import Exit, ProcessState
from procession.command import Command
from procession.errors import Closed, ConfigError
from procession.events import (
    Event,
    FailureReported,
    ProcessExited,
    ProcessSpawned,
    StateChanged,
    TaskFinished,
    TaskStarted,
)
from procession.registry import ProcessRegistry, Tier, _bus


def note(id: str = "x", kind: str = "k", **fields: Any) -> FailureReported:
    return FailureReported(id=id, kind=kind, **fields)


# -------------------------------------------------------------------------------------------- stamps


async def test_an_event_gets_a_number_and_two_clocks(registry):
    loop = asyncio.get_running_loop()
    before = loop.time(), time.time()
    first, second = note(), note()
    assert (registry.publish(first), registry.publish(second)) == (first.seq, second.seq) == (1, 2)
    assert before[0] <= first.at <= second.at <= loop.time()
    assert abs(first.wall - before[1]) < 5
    assert first.cause == 0


async def test_loop_time_is_bound_on_first_use(registry, monkeypatch):
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 123.5)
    event = note()
    registry.publish(event)
    assert event.at == 123.5


def test_it_works_without_a_loop(registry, heard):
    registry.publish(note())
    assert heard[0].at > 0


def test_an_event_is_published_once(registry):
    event = note()
    registry.publish(event)
    with pytest.raises(ConfigError):
        registry.publish(event)
    assert registry.statistics().published == 1


# --------------------------------------------------------------------------------------------- order


def test_tiers_then_order_of_listening_across_all_filters(registry, start):
    start("x", owner="o", labels={"k": "v"})
    order = []
    for tier in reversed(Tier):
        registry.listen(lambda event, tier=tier: order.append((tier, "all")), tier=tier)
        registry.listen(lambda event, tier=tier: order.append((tier, "id")), tier=tier, id="x")
        registry.listen(lambda event, tier=tier: order.append((tier, "owner")), tier=tier, owner="o")
        registry.listen(lambda event, tier=tier: order.append((tier, "label")), tier=tier, label="k")
    registry.publish(note(owner="o"))
    assert order == [(tier, how) for tier in Tier for how in ("all", "id", "owner", "label")]
    assert list(Tier) == [Tier.INDEX, Tier.OWNER, Tier.MODULE, Tier.USER, Tier.QUEUE]


def test_everybody_hears_all_events_in_order_though_listeners_publish(registry):
    first, second, depth = [], [], []

    def echo(event):
        depth.append(1)
        assert len(depth) == 1  # run to completion: never nested
        first.append(event.seq)
        if event.kind == "root":
            assert registry.publish(note(kind="child")) == 2
            registry.publish(note(kind="child"))
        elif event.seq == 2:
            registry.publish(note(kind="grandchild"))
        depth.pop()

    registry.listen(echo)
    registry.listen(lambda event: second.append(event.seq))
    registry.publish(note(kind="root"))
    assert first == second == [1, 2, 3, 4]
    assert [event.cause for event in registry.history()] == [0, 1, 1, 2]


def test_a_cause_given_by_the_publisher_stays(registry):
    registry.publish(note())
    registry.listen(lambda event: event.kind == "a" and registry.publish(note(kind="b", cause=1)) and None)
    registry.publish(note(kind="a"))
    assert registry.history()[-1].cause == 1


def test_an_exit_is_one_event_heard_by_every_module_before_the_call_returns(registry, start):
    heard: dict[int, list[Event]] = {module: [] for module in range(5)}
    for module, events in heard.items():
        registry.listen(events.append, types=ProcessExited, tier=Tier.MODULE if module else Tier.OWNER)
    start("a").exited(Exit(0))
    assert all([event.id for event in events] == ["a"] for events in heard.values())


# ------------------------------------------------------------------------------------------- filters


def test_types_include_subclasses_and_nothing_else(registry, start):
    class Special(StateChanged):
        pass

    changed: list[Event] = []
    both: list[Event] = []
    everything: list[Event] = []
    registry.listen(changed.append, types=StateChanged)
    registry.listen(both.append, types=(StateChanged, FailureReported))
    registry.listen(everything.append)
    registry.publish(note())
    registry.publish(Special(id="a", old="x", new="y"))
    registry.publish(TaskFinished(id="a", outcome="ok", duration=0.0))
    assert [event.seq for event in changed] == [2]
    assert [event.seq for event in both] == [1, 2]
    assert [event.seq for event in everything] == [1, 2, 3]


@pytest.mark.parametrize("types", [int, (Event, "x"), 3])
def test_types_that_are_none_are_refused(registry, types):
    with pytest.raises((ConfigError, TypeError)):
        registry.listen(print, types=types)


def test_id_owner_and_label_filters_and_their_combinations(registry, start):
    start("a", owner="pool", labels={"zone": "eu", "app": "shop"})
    start("b", owner="pool", labels={"zone": "us"})
    wanted: dict[str, dict[str, Any]] = {
        "a": {"id": "a"},
        "pool": {"owner": "pool"},
        "zone": {"label": "zone"},
        "eu": {"label": ("zone", "eu")},
        "shop": {"label": {"zone": "us", "app": "shop"}},
        "both": {"label": {"zone": "eu", "app": "shop"}},
        "a-pool": {"id": "a", "owner": "pool"},
        "a-us": {"id": "a", "label": ("zone", "us")},
        "eu-other": {"owner": "other", "label": "zone"},
        "spawned": {"id": "a", "types": ProcessSpawned},
    }
    heard: dict[str, list[Event]] = {key: [] for key in wanted}
    for key, filters in wanted.items():
        registry.listen(heard[key].append, **filters)
    registry.publish(note("a", owner="pool"))  # 3: after two spawns
    registry.publish(note("b", owner="pool"))
    registry.publish(note("task", owner="other"))
    assert {key: [event.seq for event in events] for key, events in heard.items()} == {
        "a": [3], "pool": [3, 4], "zone": [3, 4], "eu": [3], "shop": [], "both": [3],
        "a-pool": [3], "a-us": [], "eu-other": [], "spawned": [],
    }  # fmt: skip


def test_label_listeners_hear_the_end_though_the_record_is_dropped_at_once(handle):
    from procession.command import Command

    registry = ProcessRegistry(ended_size=0)
    heard: list[Event] = []
    registry.listen(heard.append, label=("k", "v"))
    entry = registry.register(Command("x", labels={"k": "v"}), id="a")

    def end(event):
        if event.id == "trigger":  # re-entrant: handed out only after the record was dropped
            entry.exited(Exit(0))

    registry.listen(end)
    entry.spawned(handle(1), 0.0)
    registry.publish(note("trigger"))
    assert [type(event) for event in heard] == [ProcessSpawned, ProcessExited]


def test_wants_knows_listeners_queues_sinks_and_the_journal():
    assert ProcessRegistry().wants(TaskStarted)
    registry = ProcessRegistry(journal_size=0)
    assert not registry.wants(TaskStarted)
    with registry.listen(print, types=TaskStarted, id="x"):
        assert registry.wants(TaskStarted)
        assert not registry.wants(TaskFinished)
        with registry.listen(print, types=TaskStarted):
            pass
        assert registry.wants(TaskStarted)
    assert not registry.wants(TaskStarted)
    with registry.listen(print):
        assert registry.wants(TaskStarted)
    with registry.subscribe(TaskFinished):
        assert registry.wants(TaskFinished)
        assert not registry.wants(TaskStarted)
    assert not registry.wants(TaskFinished)


def test_an_event_nobody_wants_is_not_built(handle):
    from procession.command import Command

    registry = ProcessRegistry(journal_size=0)
    entry = registry.register(Command("x"))
    entry.spawned(handle(1), 0.0)
    entry.to(ProcessState.SUSPENDED)
    entry.exited(Exit(0))
    assert registry.statistics().published == 0


# ----------------------------------------------------------------------------------------- isolation


async def coroutine(event: Event) -> None:
    pass


async def generator(event):
    yield


class Awaitable:
    async def __call__(self, event):
        pass


@pytest.mark.parametrize("callback", [coroutine, generator, functools.partial(coroutine), Awaitable(), AsyncMock()])
def test_coroutine_functions_are_refused_with_an_explanation(registry, callback):
    with pytest.raises(ConfigError, match="subscribe"):
        registry.listen(callback)
    with pytest.raises(ConfigError):
        registry.listen("no function")


def test_a_returned_coroutine_is_a_failure_and_leaves_no_warning(registry, caplog):
    listener = registry.listen(lambda event: coroutine(event))  # noqa: PLW0108 - it looks like a plain function
    registry.publish(note())
    assert listener.failures == 1
    assert "nobody awaits" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError(), StopIteration()])
def test_a_raising_listener_is_noticed_by_nobody_else(registry, heard, caplog, error):
    def fail(event):
        raise error

    listener = registry.listen(fail, tier=Tier.INDEX)
    assert registry.publish(note()) == 1
    assert [event.seq for event in heard] == [1]
    assert listener.failures == registry.statistics().failures == 1
    assert caplog.records[0].name == "procession.registry"
    assert caplog.records[0].levelno == logging.ERROR
    assert caplog.records[0].exc_info[1] is error


def test_a_listener_is_disabled_after_failures_in_a_row_only(heard):
    registry = ProcessRegistry(max_listener_failures=3)
    calls = []

    def flaky(event):
        calls.append(event.seq)
        if event.kind == "bad":
            raise ValueError

    listener = registry.listen(flaky)
    for kind in ("bad", "bad", "good", "bad", "bad"):
        registry.publish(note(kind=kind))
    assert listener.active
    registry.publish(note(kind="bad"))
    assert not listener.active
    assert listener.disabled
    assert "disabled" in repr(listener)
    registry.publish(note(kind="good"))
    assert calls == [1, 2, 3, 4, 5, 6]
    statistics = registry.statistics()
    assert (statistics.failures, statistics.disabled, statistics.listeners) == (5, 1, 0)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_a_wish_to_end_the_program_is_raised_after_everybody_has_heard(registry, stop):
    def interrupt(event):
        if event.kind == "a":
            registry.publish(note(kind="b"))
            raise stop

    heard: list[Any] = []
    registry.listen(interrupt)
    registry.listen(heard.append)
    with pytest.raises(stop):
        registry.publish(note(kind="a"))
    assert [event.kind for event in heard] == ["a", "b"]
    registry.publish(note(kind="c"))
    assert heard[-1].cause == 0
    assert len(heard) == 3


def test_a_listener_that_holds_the_loop_up_is_named(registry, monkeypatch, caplog):
    clock = iter([0.0, 0.0, 0.5, 0.5])
    monkeypatch.setattr(_bus, "monotonic", lambda: next(clock))
    registry.listen(lambda event: None, types=FailureReported)

    def slow(event):
        pass

    registry.listen(slow)
    with_time = note()
    registry._time = lambda: 1.0
    registry.publish(with_time)
    assert registry.statistics().slow == 1
    assert "slow" in caplog.text
    assert "0.500 s" in caplog.text


def test_closing_and_listening_while_an_event_is_handed_out(registry):
    heard = []

    def first(event):
        second.close()
        if event.seq == 1:
            registry.listen(lambda event: heard.append(("new", event.seq)))

    registry.listen(first)
    second = registry.listen(lambda event: heard.append(("second", event.seq)))
    registry.publish(note())
    assert heard == []
    registry.publish(note())
    assert heard == [("new", 2)]
    second.close()


async def test_a_closed_registry_hands_nothing_out(registry, heard):
    await registry.aclose()
    registry.publish(note())
    assert heard == []
    with pytest.raises(Closed):
        registry.listen(print)
    with pytest.raises(Closed):
        registry.subscribe()


# ---------------------------------------------------------------------------------------------- cost


def test_10_000_listeners_of_one_id_each_do_not_slow_publishing_down(registry):
    counts = [0] * 10_000

    def hear(number, event):
        counts[number] += 1

    listeners = [registry.listen(functools.partial(hear, number), id=f"p{number}") for number in range(10_000)]
    best = 1.0
    for _ in range(20):
        begin = time.perf_counter()
        for number in range(100):
            registry.publish(note(f"p{number}"))
        best = min(best, (time.perf_counter() - begin) / 100)
    assert counts[:100] == [20] * 100
    assert sum(counts) == 2000
    assert best < 50e-6  # a walk over all of them takes far more than that
    begin = time.perf_counter()
    for listener in listeners:
        listener.close()
    assert time.perf_counter() - begin < 1.0
    assert registry.statistics().listeners == 0
    assert not registry._by_id


def test_listeners_of_other_types_cost_nothing(registry):
    for _ in range(10_000):
        registry.listen(print, types=TaskStarted)
        registry.listen(print, types=TaskStarted, owner="o")
    registry.publish(note(owner="o"))
    begin = time.perf_counter()
    for _ in range(100):
        registry.publish(note(owner="o"))
    assert (time.perf_counter() - begin) / 100 < 50e-6


async def test_a_label_filter_beside_an_id_is_asked_for_its_labels() -> None:
    heard: list[Event] = []
    async with ProcessRegistry() as registry:
        entry = registry.register(Command("web", labels={"zone": "x"}), id="b", name="web", owner="")
        with registry.listen(heard.append, id="b", label="zone"):
            entry.failed("refused")
    assert [event.id for event in heard] == ["b"]
