"""Bad input: one typed error at once, which names the field, and nothing has changed."""

import asyncio
import functools
import math
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from procession import Command
from procession._clock import wall
from procession.errors import Closed, ConfigError, InsufficientResources, QueueFull, SchedulerError
from procession.scheduler import (
    Fifo,
    Job,
    Preemption,
    Priority,
    PriorityAging,
    RetryPolicy,
    Scheduler,
    SchedulerConfig,
    TaskState,
)
from tests.scheduler.support import Gate, check_over, config, nap, turns, value, virtual


def blocking():
    """A plain function."""


async def stream():
    yield 1


NAN, HUGE = math.nan, 10**400
COMMAND = Command("true")
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - the bad input itself
PAST = datetime(2000, 1, 1, tzinfo=UTC)

BAD: list[tuple[str, Any, dict[str, Any], str]] = [
    # what it is about, the work, the options, the field
    ("a number", 7, {}, "work"),
    ("nothing", None, {}, "work"),
    ("a class", Gate, {}, "work"),
    ("a function that blocks", blocking, {}, "work"),
    ("a builtin", print, {}, "work"),
    ("an async generator function", stream, {}, "work"),
    ("a string", "ls -l", {}, "work"),
    ("a future", "future", {}, "work"),
    ("a coroutine", "coroutine", {}, "work"),
    ("priority as text", value, {"priority": "high"}, "priority"),
    ("priority as a fraction", value, {"priority": 1.5}, "priority"),
    ("priority as truth", value, {"priority": True}, "priority"),
    ("priority out of range", value, {"priority": 1 << 40}, "priority"),
    ("priority far out of range", value, {"priority": -HUGE}, "priority"),
    ("resources as a list", value, {"resources": ["gpu"]}, "resources"),
    ("resources as a number", value, {"resources": 3}, "resources"),
    ("an unknown resource", value, {"resources": {"tpu": 1}}, "resources.tpu"),
    ("slots as a resource", value, {"resources": {"slots": 1}}, "resources.slots"),
    ("a resource without a name", value, {"resources": {3: 1}}, "resources.3"),
    ("less than nothing", value, {"resources": {"gpu": -1}}, "resources.gpu"),
    ("less than nothing, a little", value, {"resources": {"gpu": -1e-12}}, "resources.gpu"),
    ("not a number", value, {"resources": {"gpu": NAN}}, "resources.gpu"),
    ("infinite", value, {"resources": {"gpu": math.inf}}, "resources.gpu"),
    ("too fine", value, {"resources": {"gpu": 1e-9}}, "resources.gpu"),
    ("amount as text", value, {"resources": {"gpu": "1"}}, "resources.gpu"),
    ("amount as truth", value, {"resources": {"gpu": True}}, "resources.gpu"),
    ("amount as a decimal", value, {"resources": {"gpu": Decimal(1)}}, "resources.gpu"),
    ("amount nothing", value, {"resources": {"gpu": None}}, "resources.gpu"),
    ("an unknown option", value, {"colour": "red"}, "colour"),
    ("timeout below 0", value, {"timeout": -1}, "timeout"),
    ("timeout not a number", value, {"timeout": NAN}, "timeout"),
    ("timeout infinite", value, {"timeout": math.inf}, "timeout"),
    ("timeout as any text", value, {"timeout": "soon"}, "timeout"),
    ("timeout as truth", value, {"timeout": True}, "timeout"),
    ("an estimate below 0", value, {"estimated_duration": -0.1}, "estimated_duration"),
    ("an estimate not a number", value, {"estimated_duration": NAN}, "estimated_duration"),
    ("delay below 0", value, {"delay": -1}, "delay"),
    ("delay not a number", value, {"delay": NAN}, "delay"),
    ("delay and a time", value, {"delay": 1, "not_before": 50.0}, "delay"),
    ("not before a naive time", value, {"not_before": NAIVE}, "not_before"),
    ("not before never", value, {"not_before": math.inf}, "not_before"),
    ("not before a text", value, {"not_before": "noon"}, "not_before"),
    ("a deadline in the past", value, {"deadline": 4.0}, "deadline"),
    ("a deadline that is now", value, {"deadline": 5.0}, "deadline"),
    ("a date in the past", value, {"deadline": PAST}, "deadline"),
    ("a naive deadline", value, {"deadline": NAIVE}, "deadline"),
    ("a deadline not a number", value, {"deadline": NAN}, "deadline"),
    ("a deadline before the beginning", value, {"deadline": 8.0, "delay": 5}, "deadline"),
    ("a deadline at the beginning", value, {"deadline": 10.0, "not_before": 10.0}, "deadline"),
    ("retry as a number", value, {"retry": 3}, "retry"),
    ("after a text", value, {"after": "running"}, "after"),
    ("after an unknown id", value, {"after": ["nobody"]}, "after"),
    ("after no task", value, {"after": [7]}, "after"),
    ("after nothing iterable", value, {"after": 7}, "after"),
    ("after a finished task", value, {"after": ["finished"]}, "after"),
    ("after a task of somebody else", value, {"after": ["foreign"]}, "after"),
    ("an id in use", value, {"id": "running"}, "id"),
    ("an id like our own", value, {"id": "task-7"}, "id"),
    ("an id with a space", value, {"id": "a b"}, "id"),
    ("an id with a line break", value, {"id": "a\nb"}, "id"),
    ("an id as a number", value, {"id": 7}, "id"),
    ("a long id", value, {"id": "x" * 65}, "id"),
    ("a tenant with a slash", value, {"tenant": "a/b"}, "tenant"),
    ("an unknown way to make room", COMMAND, {"preemption": "kill"}, "preemption"),
    ("suspending a coroutine", value, {"preemption": "suspend"}, "preemption"),
    ("preemptible as text", COMMAND, {"preemptible": "yes"}, "preemptible"),
    ("check as a number", COMMAND, {"check": 1}, "check"),
    ("check without a command", value, {"check": True}, "check"),
    ("input without a command", value, {"input": b"x"}, "input"),
    ("max_output without a command", value, {"max_output": 5}, "max_output"),
    ("on_spawn without a command", value, {"on_spawn": print}, "on_spawn"),
    ("on_spawn is no function", COMMAND, {"on_spawn": 7}, "on_spawn"),
    ("max_output below 0", COMMAND, {"max_output": -1}, "max_output"),
    ("input is a number", COMMAND, {"input": 7}, "input"),
    ("kwargs with a command", COMMAND, {"kwargs": {"a": 1}}, "kwargs"),
    ("kwargs as a list", value, {"kwargs": ["of"]}, "kwargs"),
    ("kwargs without names", value, {"kwargs": {1: 2}}, "kwargs"),
    ("arguments with a command", COMMAND, {"args": (1,)}, "args"),
]  # fmt: skip


@pytest.mark.row("SC5")
@pytest.mark.row("SC9")
@pytest.mark.parametrize(("work", "options", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_input_is_one_typed_error_that_names_the_field_and_changes_nothing(work, options, field):
    @virtual
    async def scenario():
        gate, options_, work_ = Gate(), dict(options), work
        settings = config(resources={"gpu": 2}, preemption=Preemption.SUSPEND)
        async with Scheduler(config()) as other, Scheduler(settings) as scheduler:
            finished = scheduler.submit(value, id="finished")
            await finished
            await asyncio.sleep(5)
            running = scheduler.submit(gate, "running", id="running")
            queued = scheduler.submit(gate, "queued")
            await turns()
            foreign = other.submit(nap, 1)
            if "after" in options_:
                named = {"finished": finished, "foreign": foreign}
                if isinstance(options_["after"], list):
                    options_["after"] = [named.get(one, one) for one in options_["after"]]
            loop = asyncio.get_running_loop()
            coroutine = value()
            if work_ in ("future", "coroutine"):
                work_ = loop.create_future() if work_ == "future" else coroutine
            before = scheduler.statistics()
            args = options_.pop("args", ())
            calls: list[Any] = [
                lambda: scheduler.submit(work_, *args, **options_),
                lambda: scheduler.submit_many([value, Job(work_, *args, **options_)]),
                lambda: scheduler.submit_when_room(work_, *args, **options_),
            ]
            for call in calls:
                with pytest.raises(ConfigError) as caught:
                    await call()
                assert caught.value.field == field
                assert str(caught.value)
                assert repr(scheduler.statistics()) == repr(before)
            coroutine.close()
            gate.open("running")
            await turns()
            gate.open("queued")
            assert (await running.wait(), await queued.wait()) == ("succeeded", "succeeded")
            assert check_over(scheduler).submitted == 3

    scenario()


@pytest.mark.row("SC5")
@virtual
async def test_what_can_never_fit_is_refused_at_once():
    async with Scheduler(config(resources={"gpu": 2, "none": 0})) as scheduler:
        before = scheduler.statistics()
        for needs in ({"gpu": 2.000001}, {"gpu": 3}, {"none": 1}, {"gpu": 1, "none": 0.5}, {"gpu": HUGE}):
            with pytest.raises(InsufficientResources) as caught:
                scheduler.submit(value, resources=needs)
            assert caught.value.resource == ("none" if "none" in needs else "gpu")
            assert str(caught.value)
            with pytest.raises(InsufficientResources):
                scheduler.submit_many([value, Job(value, resources=needs)])
            with pytest.raises(InsufficientResources):
                await scheduler.submit_when_room(value, resources=needs)
        assert scheduler.statistics() == before
        assert await scheduler.submit(value, 1, resources={"gpu": 2, "none": 0}) == 1


@pytest.mark.row("SC8")
@virtual
async def test_a_beginning_may_be_a_delay_a_loop_time_or_a_date_of_any_zone():
    loop = asyncio.get_running_loop()
    async with Scheduler(config(9)) as scheduler:
        await asyncio.sleep(100)
        east = timezone(timedelta(hours=9))
        date = datetime.fromtimestamp(wall() + 7, tz=east)
        tasks = {
            "delay": scheduler.submit(value, delay=7),
            "text": scheduler.submit(value, delay="7s"),
            "loop time": scheduler.submit(value, not_before=loop.time() + 7),
            "date": scheduler.submit(value, not_before=date),
            "over": scheduler.submit(value, not_before=loop.time() - 50),
            "long over": scheduler.submit(value, not_before=PAST),
            "none": scheduler.submit(value, delay=0),
        }
        assert [task.state.value for task in tasks.values()] == ["delayed"] * 4 + ["queued"] * 3
        assert tasks["delay"].explain().due == 107
        await asyncio.sleep(1)
        assert scheduler.statistics().next_start == pytest.approx(107, abs=0.1)
        await scheduler.drain()
        for name, task in tasks.items():
            assert task.started_at == pytest.approx(100 if name in ("over", "long over", "none") else 107, abs=0.1)


@pytest.mark.row("SC8")
@virtual
async def test_a_deadline_may_be_a_date():
    async with Scheduler(config()) as scheduler:
        date = datetime.fromtimestamp(wall() + 5, tz=UTC)
        scheduler.submit(nap, 10)
        task = scheduler.submit(value, deadline=date)
        assert await task.wait() == "missed"
        assert task.finished_at == pytest.approx(5, abs=0.1)


@pytest.mark.row("SC2")
@virtual
async def test_priorities_are_names_or_whole_numbers():
    async with Scheduler(config()) as scheduler:
        for priority in (Priority.HIGH, 1, -(1 << 31), 1 << 31):
            task = scheduler.submit(value, priority=priority)
            assert task.priority == int(priority)
            assert type(task.priority) is int
        assert scheduler.submit(value).priority == 2
        await scheduler.drain()


@pytest.mark.row("SC9")
@virtual
async def test_a_refused_batch_leaves_its_ids_free_and_its_works_where_they_were():
    async with Scheduler(config(max_queued=3)) as scheduler:
        task = scheduler.submit(nap, 5)
        await turns()
        before = scheduler.statistics()
        bad: list[tuple[type[Exception], list[Any]]] = [
            (ConfigError, [Job(value, id="a"), Job(value, id="a")]),
            (ConfigError, [Job(value, id="a"), ()]),
            (ConfigError, [Job(value, id="a"), (blocking,)]),
            (ConfigError, [Job(value, id="a", after=["b"])]),
            (InsufficientResources, [Job(value, id="a"), (functools.partial(value),)]),
            (QueueFull, [Job(value, id="a"), value, value, value]),
        ]
        for kind, works in bad:
            with pytest.raises((kind, ConfigError) if kind is InsufficientResources else kind):
                scheduler.submit_many(works, resources={"x": 9} if kind is InsufficientResources else None)
            assert scheduler.statistics() == before
        a, b = scheduler.submit_many([Job(value, "a", id="a", after=["b"]), Job(value, "b", id="b")], priority=7)
        assert (a.priority, a.state, b.state) == (7, TaskState.BLOCKED, TaskState.QUEUED)
        assert (await a, await b) == ("a", "b")
        await task


@pytest.mark.row("SC9")
@virtual
async def test_what_a_job_does_not_say_is_said_by_the_call():
    async with Scheduler(config(3, resources={"gpu": 4})) as scheduler:
        job = Job(nap, 2, "mine", priority=1, resources={"gpu": 2}, timeout=9)
        tasks = scheduler.submit_many([job, (nap, 2, "other")], priority=3, resources={"gpu": 1}, delay=1, timeout=1)
        assert [task.priority for task in tasks] == [1, 3]
        assert {task.state.value for task in tasks} == {"delayed"}
        await asyncio.sleep(1.5)
        assert scheduler.statistics().allocated == {"gpu": 3.0}
        assert await tasks[0] == "mine"
        assert await tasks[1].wait() == "failed"
        assert scheduler.submit_many([]) == []


@pytest.mark.row("SC5")
@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("max_concurrent_tasks", {"max_concurrent_tasks": 0}),
        ("max_concurrent_tasks", {"max_concurrent_tasks": True}),
        ("max_concurrent_tasks", {"max_concurrent_tasks": 1 << 63}),
        ("max_queued", {"max_queued": 0}),
        ("max_preemptions", {"max_preemptions": -1}),
        ("max_overtakes", {"max_overtakes": -1}),
        ("resources", {"resources": {"gpu": -1}}),
        ("resources", {"resources": {"gpu": NAN}}),
        ("resources", {"resources": {"gpu": 1e300}}),
        ("resources", {"resources": {"g p u": 1}}),
        ("resources", {"resources": ["gpu"]}),
        ("policy", {"policy": "fastest"}),
        ("policy", {"policy": Priority}),
        ("preemption", {"preemption": "kill"}),
        ("close_timeout", {"close_timeout": -1}),
        ("colour", {"colour": "red"}),
        ("resources.slots", {"resources": {"slots": 1}}),
        ("kept_when_suspended", {"resources": {"gpu": 1}, "kept_when_suspended": {"cpu_cores"}}),
    ],
)
def test_a_scheduler_cannot_be_made_of_nonsense(field, options):
    with pytest.raises(ConfigError) as caught:
        Scheduler(SchedulerConfig(**options))
    assert str(caught.value.field).startswith(field)


def test_a_scheduler_cannot_be_made_of_something_else():
    wrong: Any = {"max_concurrent_tasks": 3}
    with pytest.raises(ConfigError):
        Scheduler(wrong)


@pytest.mark.row("SC9")
@virtual
async def test_a_full_queue_refuses_and_says_how_much_there_is_room_for():
    gate = Gate()
    async with Scheduler(config(max_queued=2)) as scheduler:
        running = scheduler.submit(gate, 0)
        await turns()
        waiting = [scheduler.submit(gate, 1), scheduler.submit(gate, 2, delay=1)]
        before = scheduler.statistics()
        with pytest.raises(QueueFull) as caught:
            scheduler.submit(gate, id="free")
        assert (caught.value.limit, caught.value.wanted) == (2, 1)
        with pytest.raises(QueueFull) as caught:
            scheduler.submit_many([gate, gate])
        assert caught.value.wanted == 2
        with pytest.raises(QueueFull):
            scheduler.submit(gate, after=[running], id="free")
        assert scheduler.statistics() == before
        waiting[1].cancel()
        last = scheduler.submit(value, "room", id="free")
        gate.open(0)
        await turns()
        gate.open(1)
        assert await last == "room"
        with pytest.raises(SchedulerError):
            raise QueueFull(1)
    with pytest.raises(Closed):
        scheduler.submit(value)


@pytest.mark.row("SC8")
def test_a_retry_policy_of_nonsense_cannot_be_made():
    bad: list[dict[str, Any]] = [
        {"max_retries": -1},
        {"initial_delay": NAN},
        {"multiplier": 0.5},
        {"on": KeyboardInterrupt},
    ]
    for options in bad:
        with pytest.raises(ConfigError):
            RetryPolicy(**options)


@pytest.mark.row("SC4")
def test_a_policy_can_be_named_as_in_a_file():
    assert isinstance(SchedulerConfig(policy="fifo").policy, Fifo)
    aging = SchedulerConfig(policy={"kind": "priority-aging", "aging_factor": 2}).policy
    assert (type(aging), aging.aging_factor) == (PriorityAging, 2)
    for wrong in (
        "fastest",
        {"aging_factor": 2},
        {"kind": "fifo", "size": 3},
        {"kind": "priority_aging", "aging_factor": -1},
    ):
        with pytest.raises(ConfigError):
            SchedulerConfig(policy=wrong)
