"""What is due first, and what is not accepted because it would be late."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from procession.errors import ConfigError, DeadlineMissed
from procession.scheduler import (
    EarliestDeadline,
    FairShare,
    Fifo,
    MultiLevelFeedback,
    Policy,
    Scheduler,
    SchedulerConfig,
    TimeSlice,
)
from procession.scheduler._policies._demand import Demand
from procession.scheduler._states import TaskState
from procession.testing import run_virtual
from tests.helpers.desk import Desk

pytestmark = pytest.mark.row("SC4")


def admitting(slots: int = 1) -> Desk:
    return Desk(EarliestDeadline(admission=True, slots=slots), slots)


def refused(desk: Desk, deadline: float, estimate: float) -> float:
    """By how much it would be late."""
    with pytest.raises(DeadlineMissed) as caught:
        desk.submit(2, "", deadline, estimate)
    assert caught.value.phase == "admission"
    assert caught.value.deadline == deadline
    assert "refused" in str(caught.value)
    return caught.value.late


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        *(("admission", {"admission": bad, "slots": 1}) for bad in (1, "yes", None)),
        *(("slots", {"admission": True, "slots": bad}) for bad in (0, -1, True, 1.0, "1", 10**7)),
        ("slots", {"slots": 0}),
    ],
)
def test_bad_arguments_are_refused_by_name(field: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        EarliestDeadline(**arguments)
    assert caught.value.field == field


def test_it_says_what_it_is() -> None:
    assert repr(EarliestDeadline()) == "EarliestDeadline()"
    assert repr(EarliestDeadline(slots=4)) == "EarliestDeadline()"
    assert repr(EarliestDeadline(admission=True, slots=4)) == "EarliestDeadline(admission=True, slots=4)"


def test_the_earliest_deadline_is_first_and_none_is_last() -> None:
    desk = Desk(EarliestDeadline())
    for deadline in (None, 30.0, 10.0, float("inf"), 20.0, 10.0, 1e300, None):
        desk.submit(0 if deadline is None else 4, "", deadline)
        desk.pass_time(0.125)
    order = []
    while (entry := desk.next()) is not None:
        order.append(entry.number)
        desk.finish(entry)
    assert order == [3, 6, 5, 2, 1, 4, 7, 8]


def test_without_admission_everything_is_accepted_and_nothing_kept() -> None:
    policy = EarliestDeadline()
    desk = Desk(policy)
    entry = desk.submit(2, "", 1.0, 1_000.0)
    assert desk.next() is entry
    desk.finish(entry)
    assert not len(policy._demand)
    assert not policy._outside


def test_what_is_too_long_is_refused_however_many_slots_there_are() -> None:
    desk = admitting(100)
    assert refused(desk, 10.0, 10.5) == pytest.approx(0.5)
    desk.submit(2, "", 10.0, 10.0)


def test_what_is_due_earlier_takes_its_time_first() -> None:
    desk = admitting()
    desk.submit(2, "", 4.0, 4.0)
    assert refused(desk, 10.0, 6.5) == pytest.approx(0.5)
    desk.submit(2, "", 10.0, 6.0)


def test_what_is_due_later_is_not_made_late() -> None:
    desk = admitting()
    desk.submit(2, "", 10.0, 6.0)
    assert refused(desk, 5.0, 4.5) == pytest.approx(0.5)
    desk.submit(2, "", 5.0, 4.0)


def test_work_is_shared_by_all_slots() -> None:
    desk = admitting(2)
    desk.submit(2, "", 4.0, 4.0)
    desk.submit(2, "", 4.0, 3.0)
    assert refused(desk, 4.0, 2.0) == pytest.approx(0.5)
    desk.submit(2, "", 4.0, 1.0)


def test_work_without_deadline_or_estimate_is_always_accepted_and_in_nobodys_way() -> None:
    desk = admitting()
    desk.submit(2, "", 1.0, 1.0)
    desk.submit(2, "", 1.0, None)
    desk.submit(2, "", None, 1_000.0)
    desk.submit(2, "", float("inf"), 1_000.0)
    desk.submit(2, "", 2.0, 1.0)


def test_what_was_refused_has_changed_nothing() -> None:
    desk = admitting()
    desk.submit(2, "", 10.0, 6.0)
    entry = desk.make(2, "", 5.0, 6.0)
    with pytest.raises(DeadlineMissed):
        desk.policy.admit(entry, desk.now)
    assert entry.mark is None
    desk.policy.settled(entry, desk.now)  # may be said of it, and means nothing
    assert len(desk.policy._demand) == 1
    desk.submit(2, "", 5.0, 4.0)


def test_of_what_runs_only_the_rest_counts() -> None:
    desk = admitting()
    entry = desk.submit(2, "", 10.0, 10.0)
    assert desk.next() is entry
    desk.pass_time(6.0)
    assert refused(desk, 12.0, 2.5) == pytest.approx(0.5)
    desk.submit(2, "", 12.0, 2.0)


def test_what_runs_for_longer_than_expected_is_expected_to_end_at_any_time() -> None:
    desk = admitting()
    desk.submit(2, "", 10.0, 5.0)
    desk.next()
    desk.pass_time(8.0)
    assert refused(desk, 9.0, 2.0) == pytest.approx(1.0)
    desk.submit(2, "", 9.0, 1.0)


@pytest.mark.parametrize("how", ["cancelled before it waited", "cancelled", "finished early", "failed for good"])
def test_whatever_ends_makes_room(how: str) -> None:
    desk = admitting()
    entry = desk.accept(desk.make(2, "", 10.0, 10.0))
    refused(desk, 10.0, 5.0)
    if how != "cancelled before it waited":
        desk.arrive(entry)
        refused(desk, 10.0, 5.0)
    if how in ("finished early", "failed for good"):
        assert desk.next() is entry
        refused(desk, 10.0, 5.0)
        desk.finish(entry, TaskState.SUCCEEDED if how == "finished early" else TaskState.FAILED)
    else:
        desk.cancel(entry)
    desk.submit(2, "", 10.0, 5.0)


def test_a_suspended_task_has_less_to_do_and_one_that_begins_again_has_not() -> None:
    desk = admitting()
    entry = desk.submit(2, "", 20.0, 10.0)
    assert desk.next() is entry
    desk.pass_time(4.0)
    desk.suspend(entry)
    assert refused(desk, 20.0, 11.0) == pytest.approx(1.0)
    assert desk.next() is entry
    desk.fail(entry)
    assert refused(desk, 20.0, 7.0) == pytest.approx(1.0)
    desk.arrive(entry)
    assert refused(desk, 20.0, 7.0) == pytest.approx(1.0)
    desk.submit(2, "", 20.0, 6.0)


def test_nothing_goes_before_what_is_late_already() -> None:
    desk = admitting()
    desk.submit(2, "", 10.0, 8.0)
    desk.pass_time(5.0)
    assert refused(desk, 7.0, 1.0) == pytest.approx(4.0)


def test_late_is_rounded_up_so_that_it_is_never_nothing() -> None:
    desk = admitting(3)
    for _ in range(3):
        desk.submit(2, "", 1.0, 1.0)
    assert refused(desk, 1.0, 1e-9) == 1e-9


@pytest.mark.parametrize("slots", [1, 3])
def test_demand_of_many_is_the_same_as_added_up_one_by_one(slots: int) -> None:
    rng = random.Random(slots)
    demand, items = Demand(slots), []
    for number in range(1_500):
        item = (rng.randrange(1, 400), number, rng.randrange(20))
        items.append(item)
        demand.add(item)
        if number % 3 == 0:
            gone = items.pop(rng.randrange(len(items)))
            demand.remove(gone)
        if number % 10 == 0:
            more = sorted((rng.randrange(1, 400), -1 - n, rng.randrange(20)) for n in range(rng.randrange(4)))
            now, due, work = rng.randrange(100), rng.randrange(400), rng.randrange(50)
            everything = [*items, *more, (due, 0, work)]
            expected = max(
                sum(work for at, _, work in everything if at <= last) - slots * (last - now)
                for last in {at for at, _, _ in everything if at >= due}
            )
            assert demand.excess(now, due, work, more) == expected
    assert len(demand) == len(items)
    for item in items:
        demand.remove(item)
    assert not len(demand)
    assert demand.excess(0, 10, 4, []) == 4 - 10 * slots


@pytest.mark.row("SC4")
def test_without_slots_of_its_own_it_admits_for_those_of_its_scheduler() -> None:
    config = SchedulerConfig(max_concurrent_tasks=2, policy=EarliestDeadline(admission=True))

    async def work() -> None:
        await asyncio.sleep(1)

    async def accepted() -> int:
        count = 0
        async with Scheduler(config) as scheduler:
            for _ in range(9):
                try:
                    scheduler.submit(work, estimated_duration=1.0, deadline=asyncio.get_running_loop().time() + 2.0)
                    count += 1
                except DeadlineMissed:
                    pass
            await scheduler.drain()
        return count

    assert run_virtual(accepted) == 4
    assert run_virtual(accepted) == 4  # the same configuration: each scheduler has a fresh policy


@pytest.mark.row("SC4")
@pytest.mark.parametrize(
    "policy",
    [
        EarliestDeadline(True, 3),
        FairShare({"a": 2.0}, 3.0, 4.0),
        MultiLevelFeedback(quantum=(0.1, 0.5), boost=3.0),
        MultiLevelFeedback(boost=None),
        TimeSlice(0.25),
    ],
    ids=repr,
)
def test_a_fresh_policy_is_made_as_the_old_one_was(policy: Policy) -> None:
    fresh = policy.fresh(7)
    assert fresh is not policy
    assert repr(fresh) == repr(policy)
    assert Fifo().fresh(7).fresh(1) is not None
