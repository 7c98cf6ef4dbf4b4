"""The registry over real processes: what it knows, who hears of it, when, and that nobody hears it twice."""

import asyncio
import dataclasses
import itertools
import json
import os
import signal
from collections import Counter
from functools import partial
from typing import Any

import pytest

from procession import (
    Closed,
    Command,
    ConfigError,
    Event,
    Gap,
    InvalidTransition,
    NotFound,
    ProcessExited,
    ProcessRegistry,
    ProcessSpawned,
    ProcessState,
    ProcessStopped,
    SpawnError,
    StateChanged,
    run,
    spawn,
)
from tests.programs import first_line, program, sh

SLEEP = Command("sleep", "1000")


# ---------------------------------------------------------------------------------------------------------- RG1 records


@pytest.mark.row("RG1")
async def test_a_record_says_all_of_a_process():
    async with ProcessRegistry() as registry:
        command = SLEEP.replace(labels={"team": "a", "tier": "web"})
        async with spawn(command, registry=registry, name="sleeper", owner="me", id="one") as process:
            record = registry.get("one")
            assert (record.id, record.name, record.owner, record.command) == ("one", "sleeper", "me", command)
            assert (record.pid, record.started) == (process.pid, process.ref.started)
            assert (record.state, record.exit, record.is_live, record.adopted) == ("running", None, True, False)
            assert record.containment == process.containment
            assert dict(record.labels) == {"team": "a", "tier": "web"}
            assert record.spawned_at is not None
            assert record.created_at <= record.spawned_at
            assert record.exited_at is None
            assert record.uptime >= 0
            assert registry.count("one", "requests", 3) == 3
            assert registry.by_pid(process.pid) is record
            assert list(registry) == [record]
            assert "one" in registry
        assert registry.get("one") is record
        assert (record.state, record.is_live) == ("exited", False)
        assert record.exit == process.exit
        assert record.exited_at is not None
        assert dict(record.counters) == {"requests": 3}
        assert registry.by_pid(process.pid) is None
        assert (len(registry), registry.ended()) == (0, [record])
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.state = ProcessState.RUNNING


@pytest.mark.row("RG1")
async def test_a_process_that_cannot_start_is_known_as_failed():
    async with ProcessRegistry() as registry:
        with pytest.raises(SpawnError):
            await run(Command("no-such-program-anywhere"), registry=registry)
        [record] = registry.find(state="failed")
        assert record.reason == "program not found"
        [event] = registry.history()
        assert isinstance(event, StateChanged)
        assert (event.old, event.new, event.reason) == ("starting", "failed", "program not found")


@pytest.mark.row("RG5")
async def test_finding_by_whatever_is_known():
    async with ProcessRegistry() as registry, asyncio.TaskGroup() as group:
        ready, enough = asyncio.Semaphore(0), asyncio.Event()

        async def one(number):
            labels = {"shard": str(number % 3)} | ({"odd": ""} if number % 2 else {})
            name, owner = f"n{number % 2}", f"o{number % 5}"
            async with spawn(SLEEP.replace(labels=labels), registry=registry, name=name, owner=owner):
                ready.release()
                await enough.wait()

        for number in range(30):
            group.create_task(one(number))
        for _ in range(30):
            await ready.acquire()
        assert len(registry) == 30
        assert len(registry.find(name="n1")) == 15
        assert len(registry.find(owner="o2")) == 6
        assert len(registry.find(label="odd")) == 15
        assert len(registry.find(label=("shard", "1"))) == 10
        assert len(registry.find(label={"shard": "1", "odd": ""}, name="n1")) == 5
        assert len(registry.find(state="running", owner="o0", name="n0")) == 3
        assert registry.find(name="n9") == []
        assert len({record.pid for record in registry}) == 30
        enough.set()


@pytest.mark.row("RG1")
async def test_what_is_not_known_is_told():
    async with ProcessRegistry() as registry:
        for call in (registry.get, lambda id: registry.count(id, "x")):
            with pytest.raises(NotFound) as caught:
                call("nobody")
            assert caught.value.id == "nobody"
        with pytest.raises(NotFound):
            await registry.wait_for("nobody", "exited")
        assert registry.by_pid(1) is None
        assert registry.story("nobody") == []
        with pytest.raises(ConfigError):
            registry.find(state="asleep")


# ----------------------------------------------------------------------------------------------------------- RG2 one exit


@pytest.mark.row("RG2")
async def test_one_exit_is_one_event_for_everybody_within_one_turn_of_the_loop():
    """Listeners hear it in the turn in which it is reaped; whoever awaits goes on in the next."""
    loop = asyncio.get_running_loop()
    turn, turning = 0, True
    heard: dict[str, int] = {}

    def tick():
        nonlocal turn
        turn += 1
        if turning:
            loop.call_soon(tick)

    def hears(name):
        return lambda _: heard.setdefault(name, turn)

    tick()
    async with ProcessRegistry() as registry:
        for number in range(5):
            registry.listen(hears(f"listener {number}"), types=ProcessExited)
        async with spawn(sh("read x; exit 3", stdin="pipe"), registry=registry) as process:

            async def subscriber():
                with registry.subscribe(ProcessExited) as events:
                    await anext(events)
                    heard["subscriber"] = turn

            async def waiter():
                assert await process.wait() == 3
                heard["waiter"] = turn

            async def wait_for():
                await registry.wait_for(process.id, "exited")
                heard["wait_for"] = turn

            async with asyncio.TaskGroup() as group:
                for act in (subscriber, waiter, wait_for):
                    group.create_task(act())
                await asyncio.sleep(0)
                process.communicator().close_stdin()
        turning = False
        assert len(registry.history(ProcessExited)) == 1
    first = heard["listener 0"]
    assert {heard[f"listener {n}"] for n in range(5)} == {first}
    assert max(heard[name] for name in ("subscriber", "waiter", "wait_for")) <= first + 1


@pytest.mark.row("RG2")
async def test_two_hundred_killed_at_once_are_two_hundred_exits_none_twice():
    async with ProcessRegistry() as registry, asyncio.TaskGroup() as group:
        counts: Counter[str] = Counter()
        all_gone, ready = asyncio.Event(), asyncio.Semaphore(0)

        def heard(event):
            counts[event.id] += 1
            assert registry.get(event.id).state == "exited"
            if len(counts) == 200:
                all_gone.set()

        registry.listen(heard, types=ProcessExited)

        async def one():
            async with spawn(SLEEP, registry=registry) as process:
                ready.release()
                assert await process.wait() == -signal.SIGKILL

        for _ in range(200):
            group.create_task(one())
        for _ in range(200):
            await ready.acquire()
        for record in registry:
            assert record.pid is not None
            os.kill(record.pid, signal.SIGKILL)
        await all_gone.wait()
        assert set(counts.values()) == {1}
        assert len(registry) == 0
        assert len(registry.history(ProcessExited)) == 200


@pytest.mark.row("RG2")
async def test_an_exit_comes_without_polling():
    """While a process lives, the loop has nothing to do: no timer is about to ring."""
    loop: Any = asyncio.get_running_loop()
    async with ProcessRegistry() as registry, spawn(sh("read x", stdin="pipe"), registry=registry) as process:
        await asyncio.sleep(0.05)
        if hasattr(loop, "_scheduled"):
            soon = loop.time() + 5  # the watch over spawn deadlines rings once in half a minute
            assert [timer for timer in loop._scheduled if not timer.cancelled() and timer.when() < soon] == []
        process.communicator().close_stdin()
        await registry.wait_for(process.id, "exited")


# -------------------------------------------------------------------------------------------------------------- RG3 events


@pytest.mark.row("RG3")
async def test_the_events_of_one_life():
    async with ProcessRegistry() as registry:
        async with spawn(program("polite"), registry=registry, owner="me") as process:
            await first_line(process)
            process.suspend()
            process.resume()
            await process.stop()
        events: list[Any] = registry.history(id=process.id)
        assert [type(event) for event in events] == [ProcessSpawned, *[StateChanged] * 3, ProcessExited, ProcessStopped]
        spawned, suspended, resumed, stopping, exited, stopped = events
        assert (spawned.pid, spawned.name, spawned.owner) == (process.pid, process.name, "me")
        assert spawned.containment == process.containment
        assert [(event.old, event.new) for event in (suspended, resumed, stopping)] == [
            ("running", "suspended"), ("suspended", "running"), ("running", "stopping"),
        ]  # fmt: skip
        assert exited.exit == process.exit
        assert exited.uptime > 0
        assert stopped.report == process.report
        assert [event.seq for event in events] == sorted({event.seq for event in events})
        assert all(one.at <= other.at for one, other in itertools.pairwise(events))
        assert all(event.wall > 1.6e9 for event in events)
        with pytest.raises(dataclasses.FrozenInstanceError):
            exited.pid = 1
        assert [event for event in registry.story(process.id) if event in events] == events
        assert registry.get(process.id).story()[-1].startswith("exited")


def _note(numbers, event):
    numbers.append(event.seq)


@pytest.mark.row("RG3")
async def test_every_listener_sees_every_event_in_the_same_order():
    async with ProcessRegistry() as registry:
        seen: list[list[int]] = [[] for _ in range(3)]
        for number in range(3):
            registry.listen(partial(_note, seen[number]))
        await asyncio.gather(*(run(Command("true"), registry=registry) for _ in range(30)))
        assert seen[0] == seen[1] == seen[2] == list(range(1, 61))


@pytest.mark.row("RG3")
async def test_a_listener_finds_the_state_already_assigned():
    async with ProcessRegistry() as registry:
        states = []
        registry.listen(lambda event: states.append((type(event).__name__, registry.get(event.id).state.value)))
        await run(Command("true"), registry=registry)
        assert states == [("ProcessSpawned", "running"), ("ProcessExited", "exited")]


# ------------------------------------------------------------------------------------------------------- RG4 subscribers


@pytest.mark.row("RG4")
async def test_filters_by_type_id_owner_and_label():
    async with ProcessRegistry() as registry:
        heard: dict[str, list[Event]] = {name: [] for name in ("all", "type", "id", "owner", "label", "value")}
        registry.listen(heard["all"].append)
        registry.listen(heard["type"].append, types=ProcessSpawned)
        registry.listen(heard["id"].append, id="one")
        registry.listen(heard["owner"].append, owner="me")
        registry.listen(heard["label"].append, label="team")
        registry.listen(heard["value"].append, label=("team", "b"))
        for id, owner, labels in (("one", "me", {"team": "a"}), ("two", "you", {"team": "b"}), ("three", "", {})):
            async with spawn(Command("true", labels=labels), registry=registry, id=id, owner=owner) as process:
                await process.wait()
        counts = {name: len(events) for name, events in heard.items()}
        assert counts == {"all": 6, "type": 3, "id": 2, "owner": 2, "label": 4, "value": 2}


@pytest.mark.row("RG4")
async def test_a_failing_listener_harms_nobody():
    async with ProcessRegistry(max_listener_failures=2) as registry:
        heard: list[Event] = []

        def failing(event):
            raise RuntimeError("of the user")

        broken = registry.listen(failing)
        registry.listen(heard.append)
        for _ in range(3):
            assert (await run(Command("true"), registry=registry)).ok
        assert len(heard) == 6
        assert broken.disabled


@pytest.mark.row("RG4")
async def test_a_slow_subscriber_gets_a_gap_and_harms_nobody():
    async with ProcessRegistry() as registry:
        with registry.subscribe(max_queued=4) as slow, registry.subscribe() as quick:
            for _ in range(5):
                await run(Command("true"), registry=registry)
            assert len(quick) == 10
            gap = await anext(slow)
            assert isinstance(gap, Gap)
            assert (gap.missed, gap.seq) == (6, 6)
            assert [(await anext(slow)).seq for _ in range(4)] == [7, 8, 9, 10]


@pytest.mark.row("RG4")
async def test_a_subscription_ends_with_the_registry():
    async def collect(events):
        return [event async for event in events]

    async with ProcessRegistry() as registry:
        task = asyncio.create_task(collect(registry.subscribe(ProcessExited)))
        await asyncio.sleep(0)
        await run(Command("true"), registry=registry)
    assert len(await task) == 1


# ---------------------------------------------------------------------------------------------- wait_for, RG6 transitions


@pytest.mark.row("RG2")
async def test_wait_for_a_state():
    async with ProcessRegistry() as registry, spawn(SLEEP, registry=registry) as process:
        assert (await registry.wait_for(process.id, "running")).pid == process.pid
        waiting = asyncio.create_task(registry.wait_for(process.id, ProcessState.SUSPENDED, "stopping"))
        await asyncio.sleep(0)
        process.suspend()
        assert (await waiting).state == "suspended"
        cancelled = asyncio.create_task(registry.wait_for(process.id, "exited"))
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        await process.stop()
        assert (await registry.wait_for(process.id, "exited")).exit == process.exit
        with pytest.raises(InvalidTransition):
            await registry.wait_for(process.id, "running")


@pytest.mark.row("RG2")
async def test_whoever_waits_is_told_when_the_registry_closes():
    registry = ProcessRegistry()
    async with spawn(SLEEP, registry=registry) as process:
        waiting = asyncio.create_task(registry.wait_for(process.id, "exited"))
        await asyncio.sleep(0)
        await registry.aclose()
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed):
            await run(Command("true"), registry=registry)
    assert registry.get(process.id).state == "exited"  # a late end still reaches its record


@pytest.mark.row("RG6")
async def test_an_illegal_move_raises_with_the_story():
    async with ProcessRegistry() as registry:
        async with spawn(program("ignore_term"), registry=registry) as process:
            await first_line(process)
            stop = asyncio.create_task(process.stop(0.1))
            await asyncio.sleep(0)
            with pytest.raises(InvalidTransition) as caught:
                process.suspend()
            await stop
        error = caught.value
        assert (error.id, error.old, error.new) == (process.id, "stopping", "suspended")
        assert error.story == ("running", "stopping: stop")
        assert [event.new for event in registry.history(StateChanged) if isinstance(event, StateChanged)] == [
            "stopping"
        ]


# ------------------------------------------------------------------------------------------------------------ RG7 history


@pytest.mark.row("RG7")
async def test_history_is_bounded_and_can_be_asked():
    async with ProcessRegistry(journal_size=10, ended_size=3) as registry:
        for number in range(20):
            await run(Command("true"), registry=registry, owner=f"o{number % 2}")
        assert len(registry.history()) == 10
        assert [event.seq for event in registry.history()] == list(range(31, 41))
        assert len(registry.history(ProcessExited)) == 5
        assert len(registry.history(ProcessExited, owner="o1")) == 3
        assert [event.seq for event in registry.history(limit=2)] == [39, 40]
        middle = registry.history()[4].at
        assert all(event.at >= middle for event in registry.history(since=middle))
        assert len(registry.ended()) == 3


@pytest.mark.row("RG7")
async def test_a_file_of_json_lines(tmp_path):
    path = tmp_path / "journal.jsonl"
    async with ProcessRegistry(journal_file=path) as registry:
        await run(Command("echo", "--token=hunter2", "two\nlines"), registry=registry, owner="me")
    lines = path.read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) == 2
    assert [record["seq"] for record in told] == [1, 2]
    assert "hunter2" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
