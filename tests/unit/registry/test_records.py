"""RG1, RG5, RG6, RG7: what the registry knows, how it is asked, and which moves it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from procession._types import Containment, Exit, ProcessState
from procession.abc import PROCESS_MOVES, Entry, Registrar
from procession.command import Command
from procession.errors import Closed, ConfigError, InvalidTransition, NotFound
from procession.events import ProcessExited, ProcessSpawned, StateChanged
from procession.registry import ProcessRegistry

S = ProcessState


def test_a_record_tells_everything_from_registration_to_the_end(registry, handle):
    command = Command("server", "--port", "0", labels={"tier": "web"})
    entry = registry.register(command, id="api-1", name="api", owner="units")
    record = registry.get("api-1")
    assert entry.record is record
    assert entry.id == "api-1"
    assert (record.id, record.name, record.owner, record.command) == ("api-1", "api", "units", command)
    assert (record.pid, record.handle, record.exit, record.spawned_at, record.uptime) == (None, None, None, None, 0.0)
    assert record.labels == {"tier": "web"}
    assert record.state == entry.state == "starting"

    child = handle(42, started=99)
    entry.spawned(child, 0.5)
    assert (record.pid, record.started, record.containment) == (42, 99, Containment.GROUP)
    assert record.handle is child
    assert record.state is S.RUNNING
    assert record.is_live
    assert record.created_at <= record.spawned_at
    assert 0 <= record.uptime < 5

    entry.exited(Exit(3))
    assert (record.state, record.exit, record.handle) == (S.EXITED, Exit(3), None)
    assert not record.is_live
    assert record.uptime == record.exited_at - record.spawned_at
    assert record.story() == ["running", "exited: exit 3"]
    assert registry.get("api-1") is record


def test_it_is_what_the_process_floor_asks_for(registry):
    registrar: Registrar = registry
    entry: Entry = ProcessRegistry().register(Command("x"))
    assert registrar.register(Command("x"), id="a", name="b", owner="c").state is entry.state is S.STARTING


async def test_stays_true_when_empty(registry):
    assert registry
    assert len(registry) == 0


def test_dropping_the_oldest_of_many_ended_records_is_cheap(handle):
    registry = ProcessRegistry(journal_size=0, ended_size=20_000)
    command = Command("x")
    for number in range(30_000):
        registry.register(command, id=f"p{number}").failed("for the test")
    begin = time.perf_counter()
    for number in range(1000):
        registry.register(command, id=f"q{number}").failed("for the test")
    assert (time.perf_counter() - begin) / 1000 < 100e-6
    assert registry.statistics().ended == 20_000
    assert registry.ended(limit=1)[0].id == "q999"


def test_records_are_read_only(start):
    record = start("a").record
    with pytest.raises(AttributeError):
        record.state = S.EXITED
    with pytest.raises((AttributeError, TypeError)):
        record.anything = 1
    with pytest.raises(TypeError):
        record.counters["restarts"] = 1


def test_a_repr_and_an_event_hide_secrets(registry, handle, heard):
    entry = registry.register(Command("server", "--password", "hunter2", "--token=abc123"), id="a")
    entry.spawned(handle(1), 0.0)
    shown = repr(entry) + repr(registry.get("a")) + repr(registry) + repr(heard)
    assert "hunter2" not in shown
    assert "abc123" not in shown
    assert "***" in heard[0].command


def test_defaults_for_id_name_and_owner(registry):
    first, second = (registry.register(Command("/usr/bin/server")) for _ in range(2))
    assert (first.record.name, first.record.owner, first.record.adopted) == ("server", "", False)
    assert (first.id, second.id) == ("server-1", "server-2")
    registry.register(Command("x"), id="server-3")
    assert registry.register(Command("/usr/bin/server")).id == "server-4"


@pytest.mark.parametrize("field", ["id", "name", "owner"])
@pytest.mark.parametrize("value", ["-rf", "a b", "a\nb", "../a", "x" * 65, 7])
def test_names_that_could_inject_are_refused(registry, field, value):
    with pytest.raises(ConfigError) as caught:
        registry.register(Command("x"), **{field: value})
    assert caught.value.field == field
    assert len(registry) == 0


def test_an_id_is_taken_while_its_process_lives_only(registry, start):
    old = start("a")
    with pytest.raises(ConfigError) as caught:
        start("a")
    assert caught.value.field == "id"
    old.exited(Exit(0))
    new = start("a")
    assert registry.get("a") is new.record
    assert registry.ended() == []
    new.exited(Exit(1))
    assert registry.ended() == [new.record]


def test_unknown_ids_and_pids(registry):
    with pytest.raises(NotFound):
        registry.get("nobody")
    with pytest.raises(NotFound):
        registry.count("nobody", "restarts")
    assert registry.by_pid(4) is None
    assert "nobody" not in registry
    assert 5 not in registry


def test_counters_are_open_to_every_module(registry, start):
    record = start("a").record
    assert record.counters == {}
    assert registry.count("a", "restarts") == 1
    assert registry.count("a", "restarts", 2) == 3
    registry.count("a", "signals")
    assert record.counters == {"restarts": 3, "signals": 1}


# ---------------------------------------------------------------------------------------------- find


def test_find_by_everything_and_by_combinations(registry, start):
    a = start("a", name="web", owner="pool", labels={"zone": "eu", "app": "shop"}).record
    b = start("b", name="web", owner="units", labels={"zone": "us"}).record
    c = start("c", name="job", owner="pool", spawned=False).record
    assert len(registry) == 3
    assert set(registry) == {a, b, c}
    assert "a" in registry

    def found(**filters: Any) -> set[Any]:
        return set(registry.find(**filters))

    assert found() == {a, b, c}
    assert found(name="web") == {a, b}
    assert found(owner="pool") == {a, c}
    assert found(state="starting") == found(state=S.STARTING) == {c}
    assert found(label="zone") == {a, b}
    assert found(label=("zone", "eu")) == {a}
    assert found(label={"zone": "eu", "app": "shop"}) == {a}
    assert found(label={"zone": "us", "app": "shop"}) == set()
    assert found(name="web", owner="pool", state=S.RUNNING, label="app") == {a}
    assert found(name="web", owner="nobody") == set()


@pytest.mark.parametrize("label", [{}, ("a",), ("a", 1), 5, ["a", "b"]])
def test_labels_of_no_known_form_are_refused(registry, label):
    with pytest.raises(ConfigError):
        registry.find(label=label)


def test_an_unknown_state_is_refused(registry, start):
    with pytest.raises(ConfigError):
        registry.find(state="dead")
    with pytest.raises(ConfigError):
        start("a").to("dead")


def test_the_ended_leave_the_indexes_but_stay_known(registry, start):
    gone = start("a", pid=5, name="web", labels={"k": "v"})
    never = start("b", name="web", spawned=False)
    gone.exited(Exit(0))
    never.failed("program not found")
    assert len(registry) == 0
    assert list(registry) == registry.find(name="web") == registry.find(label="k") == []
    assert registry.by_pid(5) is None
    assert registry.ended() == [gone.record, never.record]
    assert registry.ended(label=("k", "v")) == [gone.record]
    assert registry.ended(name="web", limit=1) == [never.record]
    assert registry.ended(limit=0) == []
    assert registry.ended(owner="x") == []
    assert registry.find(state=S.EXITED) == [gone.record]
    assert registry.find(state=S.FAILED, name="web") == [never.record]
    assert never.record.reason == "program not found"
    assert never.record.exited_at is not None
    assert never.record.uptime == 0.0
    with pytest.raises(ConfigError):
        registry.ended(limit=-1)


def test_the_store_of_ended_processes_is_bounded(handle):
    registry = ProcessRegistry(ended_size=3)
    for number in range(10):
        entry = registry.register(Command("x"), id=f"p{number}")
        entry.spawned(handle(100 + number), 0.0)
        entry.exited(Exit(0))
    assert [record.id for record in registry.ended()] == ["p7", "p8", "p9"]
    with pytest.raises(NotFound):
        registry.get("p6")


def test_without_a_store_listeners_still_see_the_record_at_its_end(handle):
    registry = ProcessRegistry(ended_size=0)
    seen = []
    registry.listen(lambda event: seen.append(registry.get(event.id).state), types=ProcessExited)
    entry = registry.register(Command("x"), id="a")
    entry.spawned(handle(1), 0.0)
    entry.exited(Exit(0))
    assert seen == [S.EXITED]
    assert "a" not in registry


def test_a_recycled_pid_belongs_to_the_newer_process(registry, start):
    old = start("old", pid=7)
    new = start("new", pid=7)  # the old one was reaped, but its exit is not announced yet
    assert registry.by_pid(7) is new.record
    old.exited(Exit(0))
    assert registry.by_pid(7) is new.record
    new.exited(Exit(0))
    assert registry.by_pid(7) is None


def test_100_000_records_stay_cheap(handle):
    registry = ProcessRegistry(journal_size=0)
    commands = [Command("worker", labels={"shard": str(number)}) for number in range(1000)]
    entries = []
    for number in range(100_000):
        entry = registry.register(
            commands[number % 1000], id=f"p{number}", name=f"n{number % 100}", owner=f"o{number % 7}"
        )
        entry.spawned(handle(number + 1), 0.0)
        entries.append(entry)
    entries[-1].to(S.SUSPENDED)

    def cost(**filters: Any) -> float:
        best = 1.0
        for _ in range(20):
            begin = time.perf_counter()
            registry.find(**filters)
            best = min(best, time.perf_counter() - begin)
        return best

    assert len(registry.find(name="n5", label=("shard", "5"))) == 100
    assert cost(name="n99", state=S.SUSPENDED, owner="o4") < 100e-6  # one candidate
    assert cost(name="n5", label=("shard", "6")) < 1e-3  # 100 candidates, none fits
    assert cost(name="nobody", state=S.RUNNING) < 100e-6
    assert registry.by_pid(50_001) is registry.get("p50000")
    assert registry.statistics().by_state == {S.RUNNING: 99_999, S.SUSPENDED: 1}


# --------------------------------------------------------------------------------------------- moves


def test_one_event_per_move(registry, start, heard):
    entry = start("a", pid=9, name="web", owner="pool")
    entry.to(S.SUSPENDED, "asked")
    entry.to(S.RUNNING)
    entry.to("stopping", "block ended")
    entry.to(S.UNKILLABLE)
    entry.exited(Exit(-9))
    assert [type(event) for event in heard] == [ProcessSpawned, *[StateChanged] * 4, ProcessExited]
    spawned, suspended, *_, exited = heard
    assert (spawned.id, spawned.owner, spawned.pid, spawned.name, spawned.command) == ("a", "pool", 9, "web", "server")
    assert (spawned.duration, spawned.containment, spawned.adopted) == (0.01, Containment.GROUP, False)
    assert (suspended.old, suspended.new, suspended.reason) == ("running", "suspended", "asked")
    assert (exited.pid, exited.exit, exited.owner) == (9, Exit(-9), "pool")
    assert exited.uptime == entry.record.uptime


def test_a_failed_start_is_a_state_change(start, heard):
    start("a", spawned=False).failed("fd limit")
    (event,) = heard
    assert (event.old, event.new, event.reason) == ("starting", "failed", "fd limit")


def test_adopted_processes_say_so(registry, handle, heard):
    registry.register(Command("x"), adopted=True).spawned(handle(3), 0.0)
    assert heard[0].adopted


def test_listeners_see_the_new_state(registry, start):
    seen = []
    registry.listen(lambda event: seen.append((registry.get(event.id).state, registry.by_pid(5) is not None)))
    entry = start("a", pid=5)
    entry.to(S.STOPPING)
    entry.exited(Exit(0))
    assert seen == [(S.RUNNING, True), (S.STOPPING, True), (S.EXITED, False)]


@pytest.mark.parametrize("new", list(S))
@pytest.mark.parametrize("path", [(), (S.RUNNING,), (S.SUSPENDED,), (S.STOPPING,), (S.STOPPING, S.UNKILLABLE)])
def test_moves_outside_the_table_raise_with_the_story(registry, handle, path, new):
    entry = registry.register(Command("x"), id="a")
    if path:
        entry.spawned(handle(1), 0.0)
    for state in path:
        if state is not S.RUNNING:
            entry.to(state, "for the test")
    before, published = entry.state, registry.statistics().published
    if PROCESS_MOVES.allows(before, new):
        return
    with pytest.raises(InvalidTransition) as caught:
        entry.exited(Exit(0)) if new is S.EXITED else entry.to(new)
    assert (caught.value.id, caught.value.old, caught.value.new) == ("a", before, new)
    assert len(caught.value.story) == (1 if path == (S.RUNNING,) else len(path) + 1 if path else 0)
    assert entry.state is before
    assert registry.statistics().published == published
    assert registry.find(state=before) == [entry.record]


def test_the_end_is_announced_once(start, heard):
    entry = start("a")
    entry.exited(Exit(0))
    again: list[Callable[[], None]] = [
        lambda: entry.exited(Exit(0)),
        lambda: entry.failed("x"),
        lambda: entry.to(S.RUNNING),
        lambda: entry.spawned(entry, 0.0),
    ]
    for move in again:
        with pytest.raises(InvalidTransition) as caught:
            move()
        assert caught.value.story == ("running", "exited: exit 0")
    assert len(heard) == 2


def test_moves_with_a_method_of_their_own_are_refused_in_to(start):
    with pytest.raises(ConfigError):
        start("a").to(S.EXITED)
    for state in (S.RUNNING, S.FAILED):
        with pytest.raises(ConfigError):
            start("b" + state, spawned=False).to(state)


def test_spawned_twice_is_refused(start, handle):
    entry = start("a", pid=3)
    with pytest.raises(InvalidTransition):
        entry.spawned(handle(4), 0.0)
    assert entry.record.pid == 3


async def test_a_closed_registry_takes_late_ends_but_nothing_new(registry, start):
    entry = start("a")
    async with registry:
        pass
    with pytest.raises(Closed):
        registry.register(Command("x"))
    with pytest.raises(Closed):
        await registry.__aenter__()
    entry.exited(Exit(0))
    assert registry.get("a").state is S.EXITED
    assert [type(event) for event in registry.history(id="a")] == [ProcessSpawned, ProcessExited]
    assert "closed" in repr(registry)
    await registry.aclose()


@pytest.mark.parametrize("options", [{"journal_size": -1}, {"ended_size": 1.5}, {"max_listener_failures": 0}])
def test_sizes_are_checked(options):
    with pytest.raises(ConfigError) as caught:
        ProcessRegistry(**options)
    assert caught.value.field in options
