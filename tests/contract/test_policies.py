"""One contract for every queue policy: ours, and one of a user's own that derives from nothing."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import procession.scheduler
from procession.abc import QueuedTask, QueuePolicy
from procession.scheduler import (
    EarliestDeadline,
    FairShare,
    Fifo,
    MultiLevelFeedback,
    Policy,
    PriorityAging,
    SchedulerConfig,
    TimeSlice,
)
from procession.scheduler._entry import Entry
from procession.scheduler._states import TaskState
from tests.helpers.desk import PROGRAMS, STEP, TENANTS, Desk, of

pytestmark = [pytest.mark.row("SC3"), pytest.mark.row("SC4")]


class ShortestFirst:
    """What a user might write: shortest estimate first, whatever has none at the end."""

    def group(self, task: QueuedTask) -> Hashable:
        return task.estimate is None

    def rank(self, task: QueuedTask, now: int) -> int:
        return int((task.estimate or 0) * 1000)

    def again(self, task: QueuedTask, now: int) -> int:
        return task.rank

    def offset(self, group: Hashable) -> int:
        return 10**12 if group is True else 0

    def admit(self, task: QueuedTask, now: float) -> None:
        pass

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        return []

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        return iter(())

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        return {False}

    def left(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        return ()

    def settled(self, task: QueuedTask, now: float) -> None:
        pass

    def quantum(self, task: QueuedTask) -> float | None:
        return None

    def used_up(self, task: QueuedTask, now: float) -> None:
        pass

    def next_tick(self) -> float | None:
        return None

    def tick(self, now: float) -> Iterable[Hashable]:
        return ()


POLICIES: dict[str, Callable[[], QueuePolicy]] = {
    "Fifo": Fifo,
    "PriorityAging": PriorityAging,
    "PriorityAging(0)": lambda: PriorityAging(0),
    "MultiLevelFeedback": lambda: MultiLevelFeedback(quantum=[0.25, 0.5, 1.0], boost=2.0),
    "FairShare": lambda: FairShare({"a": 2.0, "b": 0.5}),
    "EarliestDeadline": EarliestDeadline,
    "EarliestDeadline(admission)": lambda: EarliestDeadline(admission=True, slots=3),
    "TimeSlice": lambda: TimeSlice(0.25),
    "a user's own": ShortestFirst,
}
SLICED = ("MultiLevelFeedback", "TimeSlice")


@pytest.fixture(params=POLICIES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def policy(name: str) -> QueuePolicy:
    return POLICIES[name]()


def some_of_everything(desk: Desk, number: int) -> list[Entry]:
    rng = random.Random(number)
    entries = []
    for _ in range(number):
        deadline = rng.choice([None, 10_000.0, 20_000.0, 30_000.0])
        estimate = rng.choice([None, 0.5, 1.0])
        entries.append(desk.submit(rng.randrange(5), rng.choice(TENANTS), deadline, estimate))
        desk.pass_time(rng.randrange(3) * STEP)
    return entries


def drain(desk: Desk) -> list[int]:
    """Runs all that waits, one after the other; their numbers in order."""
    order = []
    while (entry := desk.next()) is not None:
        order.append(entry.number)
        desk.pass_time(STEP)
        desk.finish(entry)
        desk.check()
    return order


def test_all_that_was_submitted_comes_out_once(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    some_of_everything(desk, 200)
    assert sorted(drain(desk)) == list(range(1, 201))
    assert desk.next() is None


def test_what_was_cancelled_never_comes_out(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    entries = some_of_everything(desk, 200)
    for entry in entries[::3]:
        desk.cancel(entry)
        desk.check()
    assert sorted(drain(desk)) == [entry.number for index, entry in enumerate(entries) if index % 3]


def test_what_was_cancelled_after_all_else_leaves_nothing(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    for entry in some_of_everything(desk, 20):
        desk.cancel(entry)
    assert desk.next() is None
    again = desk.submit()
    assert desk.next() is again


def test_the_order_is_always_the_same(name: str) -> None:
    orders = []
    for _ in range(2):
        desk = Desk(POLICIES[name]())
        some_of_everything(desk, 100)
        orders.append(drain(desk))
    assert orders[0] == orders[1]


def test_ties_are_in_order_of_submission(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    for _ in range(50):
        desk.submit(2, "a", 1_000.0, 1.0)
    assert drain(desk) == list(range(1, 51))


@pytest.mark.parametrize("how", ["suspend", "requeue", "fail"])
def test_what_comes_back_has_kept_its_place(policy: QueuePolicy, how: str) -> None:
    desk = Desk(policy)
    for _ in range(5):
        desk.submit(2, "a", 1_000.0, 1.0)
    for _ in range(3):
        first = desk.next()
        assert first is not None
        assert first.number == 1
        desk.pass_time(0.0)
        getattr(desk, how)(first)
        desk.check()
        if how == "fail":
            desk.arrive(first)
            desk.check()
    assert drain(desk) == [1, 2, 3, 4, 5]


def test_what_has_used_its_quantum_goes_behind_the_others_where_there_are_quanta(
    name: str, policy: QueuePolicy
) -> None:
    desk = Desk(policy)
    for _ in range(4):
        desk.submit(2, "a", 1_000.0, 1.0)
    first = desk.next()
    assert first is not None
    assert (policy.quantum(first) is not None) == (name in SLICED)
    desk.pass_time(0.25)
    late = desk.submit(2, "a", 1_000.0, 1.0)  # at the very instant at which the quantum ends
    desk.used_up(first)
    desk.suspend(first)
    desk.check()
    assert drain(desk) == ([2, 3, 4, late.number, 1] if name in SLICED else [1, 2, 3, 4, late.number])


def test_a_suspended_task_can_be_ended(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    desk.submit(2, "a", 1_000.0, 1.0)
    desk.submit(2, "a", 1_000.0, 1.0)
    first = desk.next()
    assert first is not None
    desk.suspend(first)
    desk.finish(first, TaskState.FAILED)  # killed from outside
    desk.check()
    second = desk.next()
    assert second is not None
    assert second.number == 2
    desk.suspend(second)
    desk.cancel(second)
    desk.check()
    assert desk.next() is None


def test_what_was_accepted_may_go_before_it_ever_waits(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    desk.cancel(desk.accept(desk.make(2, "a", 100.0, 1.0)))
    desk.check()
    desk.submit()
    assert drain(desk) == [2]


def test_time_goes_on_between_ticks_and_between_quanta(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    for _ in range(3):
        desk.submit()
    for _ in range(10):
        entry = desk.next()
        assert entry is not None
        quantum = policy.quantum(entry)
        assert quantum is None or desk.now + quantum > desk.now
        at = policy.next_tick()
        if at is not None:
            assert at > desk.now
            desk.pass_time(at - desk.now)
            following = policy.next_tick()
            assert following is not None
            assert following > at
        desk.used_up(entry)
        desk.suspend(entry)
        desk.check()


def test_ticks_that_nobody_asked_for_do_no_harm(policy: QueuePolicy) -> None:
    desk = Desk(policy)
    some_of_everything(desk, 10)
    desk.dispatcher.tick(desk.now)
    desk.check()
    assert sorted(drain(desk)) == list(range(1, 11))


def test_the_head_of_the_queue_is_the_smallest_of_all(name: str) -> None:
    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 3), PROGRAMS)
    def check(slots: int, program: list[Any]) -> None:
        desk = Desk(POLICIES[name](), slots)
        for action, *args in program:
            _do(desk, action, args)
            desk.check()
        for entry in [*desk.away, *desk.running, *desk.waiting]:
            desk.cancel(entry)
            desk.check()
        assert len(desk.fates) == desk.made
        assert desk.next() is None

    check()


def _do(desk: Desk, action: str, args: list[Any]) -> None:
    if action == "submit":
        priority, tenant, _, estimate = args
        desk.submit(priority, tenant, None if estimate is None else 1_000 + estimate, estimate)
        return
    (which,) = args
    if action == "elapse":
        desk.pass_time(which % 20 * STEP)
    elif action == "next":
        desk.next()
    elif action == "serve":
        if (entry := desk.next()) is not None:
            desk.pass_time(which % 20 * STEP)
            desk.finish(entry)
    elif action == "arrive":
        if (entry := of(list(desk.away), which)) is not None:
            desk.arrive(entry)
    elif action == "reprioritise":
        if (entry := of([*desk.waiting, *desk.running], which)) is not None:
            desk.dispatcher.reprioritise(entry, which % 5)
    elif action == "cancel":
        if (entry := of([*desk.waiting, *desk.away, *desk.running], which)) is not None:
            desk.cancel(entry)
    elif (entry := of(desk.running, which)) is not None:
        if action in ("slice", "go_on"):
            desk.used_up(entry)
        if action != "go_on":
            getattr(desk, "suspend" if action == "slice" else action)(entry)


def test_the_configuration_takes_it(policy: QueuePolicy) -> None:
    assert SchedulerConfig(policy=policy).queue_policy is policy


def test_it_says_what_it_is(name: str, policy: QueuePolicy) -> None:
    if isinstance(policy, Policy):
        assert repr(eval(repr(policy), vars(procession.scheduler))) == repr(policy)


def test_the_base_of_all_has_a_default_for_every_method_of_the_protocol() -> None:
    wanted = {name for name, _ in inspect.getmembers(QueuePolicy, inspect.isfunction) if not name.startswith("_")}
    given = {name for name, _ in inspect.getmembers(Policy, inspect.isfunction) if not name.startswith("_")} - {"fresh"}
    assert wanted == given
    assert wanted == {name for name in vars(ShortestFirst) if not name.startswith("_")}
    for method in wanted:
        ours, theirs = inspect.signature(getattr(Policy, method)), inspect.signature(getattr(QueuePolicy, method))
        assert list(ours.parameters) == list(theirs.parameters)
