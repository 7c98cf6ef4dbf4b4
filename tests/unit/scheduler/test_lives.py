"""The lives of tasks, without a loop: what happens goes in, effects come out, time is a number."""

import random
from typing import Any

import pytest

from procession.errors import DeadlineMissed, DependencyFailed, TaskCancelled, TaskTimeout
from procession.scheduler import MultiLevelFeedback, PriorityAging, RetryPolicy, TimeSlice
from procession.scheduler._config import Preemption
from procession.scheduler._decide import Dispatcher
from procession.scheduler._entry import Entry
from procession.scheduler._lives import Lives, Retry, Settled
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

SUSPEND, REQUEUE = Spec(preemption=Preemption.SUSPEND), Spec(preemption=Preemption.REQUEUE)


class Rig:
    def __init__(self, policy: Any = None, slots: int = 1, **totals: float) -> None:
        self.resources = Resources(slots, totals)
        self.dispatcher = Dispatcher(self.resources, policy or PriorityAging(aging_factor=0))
        self.lives = Lives(self.dispatcher, random.Random(0))
        self.number = 0

    def submit(self, now: float, priority: int = 2, spec: Spec | None = None, **needs: float) -> Entry:
        self.number += 1
        entry = Entry(self.number, priority, self.resources.shape(needs), spec or Spec())
        self.lives.accept(entry, now)
        return entry

    def effects(self) -> list[tuple[str, str]]:
        found, self.lives.effects = self.lives.effects, []
        return [(type(effect).__name__, effect.entry.id) for effect in found]

    def started(self, now: float) -> list[str]:
        found = []
        while (entry := self.lives.next(now)) is not None:
            found.append(entry.id)
        return found


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.row("SC11")
def test_an_ordinary_life(rig):
    a, b = rig.submit(0.0), rig.submit(0.0)
    assert (rig.lives.waiting, rig.lives.unfinished, list(rig.lives)) == (2, 2, [a, b])
    assert rig.started(1.0) == ["task-1"]
    rig.lives.ended(a, 5, None, 3.0)
    [settled] = rig.lives.effects
    assert (settled, a.state, a.ran) == (Settled(a, 5, None), "succeeded", 2.0)
    assert rig.started(3.0) == ["task-2"]
    assert not rig.lives.cancel(a, "too late", 4.0)


@pytest.mark.row("SC7")
def test_what_is_not_under_way_does_not_make_room_and_what_stops_is_not_asked_again(rig):
    low = rig.submit(0.0, 4, SUSPEND)
    rig.started(0.0)
    high = rig.submit(1.0, 0)
    assert (rig.started(1.0), rig.effects()) == ([], [])
    rig.lives.up(low, suspendable=True)
    assert (rig.started(2.0), rig.effects()) == ([high.id], [("Freeze", low.id)])
    rig.lives.cancel(low, "", 3.0)
    rig.lives.up(low, suspendable=True)  # its process shows up when it is being stopped already
    assert (rig.started(3.0), rig.effects(), low.state) == ([], [("Stop", low.id)], "stopping")
    assert (rig.lives.unfinished, rig.lives.waiting, list(rig.lives)) == (2, 0, [low, high])


@pytest.mark.row("SC7")
def test_a_requeued_one_that_ends_by_itself_first_has_ended(rig):
    low = rig.submit(0.0, 4, REQUEUE)
    rig.started(0.0)
    rig.lives.up(low, suspendable=False)
    rig.submit(1.0, 0)
    assert (rig.started(1.0), rig.effects()) == ([], [("Stop", low.id), ("Requeue", low.id)])
    rig.lives.ended(low, "in time", None, 2.0)
    assert (low.state, rig.effects()) == ("succeeded", [("Settled", low.id)])
    assert rig.started(2.0) == ["task-2"]


@pytest.mark.row("SC7")
def test_a_cancellation_outweighs_a_preemption_and_a_timeout(rig):
    low = rig.submit(0.0, 4, Spec(preemption=Preemption.REQUEUE, timeout=5.0, retry=RetryPolicy(9)))
    rig.started(0.0)
    rig.lives.up(low, suspendable=False)
    rig.submit(1.0, 0)
    rig.started(1.0)
    rig.lives.cancel(low, "by hand", 2.0)
    rig.lives.due(9.0)  # its timeout died with its state
    rig.effects()
    rig.lives.ended(low, None, TaskCancelled(low.id), 9.0, cancelled=True)
    [settled] = rig.lives.effects
    assert isinstance(settled, Settled)
    assert (low.state, str(settled.error)) == ("cancelled", "task-1 was cancelled: by hand")


@pytest.mark.row("SC8")
def test_a_timeout_counts_only_while_it_runs(rig):
    low = rig.submit(0.0, 4, Spec(preemption=Preemption.SUSPEND, timeout=5.0))
    rig.started(0.0)
    rig.lives.up(low, suspendable=True)
    high = rig.submit(3.0, 0)
    rig.started(3.0)
    assert rig.lives.next_due in (5.0, float("inf"))
    rig.lives.due(50.0)
    rig.lives.ended(high, None, None, 60.0)
    rig.started(60.0)
    rig.effects()
    assert rig.lives.next_due == 62.0
    assert (rig.started(61.9), rig.effects()) == ([], [])
    assert (rig.started(62.0), rig.effects()) == ([], [("Stop", low.id)])
    rig.lives.ended(low, None, TaskCancelled(low.id), 62.5, cancelled=True)
    [settled] = rig.lives.effects
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, TaskTimeout)
    assert low.ran == 5.5


@pytest.mark.row("SC8")
def test_a_retry_keeps_its_place_and_its_last_error_explains_a_missed_deadline(rig):
    policy = RetryPolicy(5, 10.0, jitter=False)
    entry = rig.submit(0.0, 2, Spec(retry=policy, deadline=15.0))
    rig.started(0.0)
    error = KeyError("first")
    rig.lives.ended(entry, None, error, 1.0)
    assert rig.lives.effects == [Retry(entry, 10.0, error)]
    rig.effects()
    assert (entry.state, rig.lives.due_at(entry), rig.lives.waiting) == ("retrying", 11.0, 1)
    other = rig.submit(2.0)
    assert rig.started(2.0) == [other.id]
    rig.lives.due(11.0)
    assert (entry.state, entry.queued_at) == ("queued", 0.0)
    rig.lives.due(15.0)
    [settled] = rig.lives.effects
    assert isinstance(settled, Settled)
    assert isinstance(settled.error, DeadlineMissed)
    assert (settled.error.__cause__, entry.state) == (error, "missed")
    assert rig.lives.unfinished == 1


@pytest.mark.row("SC8")
def test_one_that_comes_back_after_its_deadline_has_missed_it(rig):
    low = rig.submit(0.0, 4, Spec(preemption=Preemption.REQUEUE, deadline=5.0))
    rig.started(0.0)
    rig.lives.up(low, suspendable=False)
    rig.submit(1.0, 0)
    rig.started(1.0)
    rig.lives.due(6.0)
    rig.lives.ended(low, None, TaskCancelled(low.id), 7.0, cancelled=True)
    assert (low.state, rig.lives.tally.missed) == ("missed", 1)


@pytest.mark.row("SC8")
def test_a_failure_reaches_all_who_come_after_once_and_whoever_was_cancelled_before_is_left_out(rig):
    first, other = rig.submit(0.0), rig.submit(0.0)
    second = rig.submit(0.0, spec=Spec(after=(first,)))
    third = rig.submit(0.0, spec=Spec(after=(first, second, other)))
    gone = rig.submit(0.0, spec=Spec(after=(first,)))
    rig.lives.cancel(gone, "", 0.0)
    rig.effects()
    assert rig.lives.blockers(third) == {first, second, other}
    rig.started(0.0)
    rig.lives.ended(first, None, KeyError("why"), 1.0)
    assert rig.effects() == [("Settled", first.id), ("Settled", second.id), ("Settled", third.id)]
    assert (second.state, third.state, gone.state) == ("failed", "failed", "cancelled")
    assert (rig.lives.unfinished, rig.lives.has_dependents) == (1, False)
    rig.started(1.0)
    rig.lives.ended(other, None, None, 2.0)
    assert (rig.lives.unfinished, rig.lives.has_dependents) == (0, False)


@pytest.mark.row("SC8")
def test_the_cause_of_a_failure_is_told_from_one_to_the_next(rig):
    tasks = [rig.submit(0.0)]
    for _ in range(3):
        tasks.append(rig.submit(0.0, spec=Spec(after=(tasks[-1],))))
    error = KeyError("why")
    rig.started(0.0)
    rig.lives.ended(tasks[0], None, error, 1.0)
    cause: BaseException = error
    for effect, before in zip(rig.lives.effects[1:], tasks, strict=False):
        assert isinstance(effect, Settled)
        assert isinstance(effect.error, DependencyFailed)
        assert (effect.error.cause, effect.error.dependency) == (cause, before.id)
        cause = effect.error


@pytest.mark.row("SC9")
def test_what_is_taken_back_leaves_nothing(rig):
    first = rig.submit(0.0)
    spec = Spec(after=(first,), deadline=50.0)
    stays, goes = rig.submit(0.0, spec=spec), rig.submit(0.0, spec=spec)
    rig.lives.retract(goes, 0.0)
    assert (rig.lives.unfinished, rig.lives.tally.submitted) == (2, 2)
    rig.lives.retract(stays, 0.0)
    assert not rig.lives.has_dependents
    delayed, queued = rig.submit(0.0, spec=Spec(not_before=9.0)), rig.submit(0.0)
    rig.lives.retract(delayed, 0.0)
    rig.lives.retract(queued, 0.0)
    assert (rig.lives.unfinished, rig.lives.tally.submitted, rig.effects()) == (1, 1, [])
    rig.lives.due(100.0)
    assert (rig.started(100.0), rig.effects()) == ([first.id], [])
    assert rig.lives.next_due == float("inf")


@pytest.mark.row("SC4")
def test_the_end_of_a_quantum_gives_the_place_to_whoever_waits_and_else_begins_anew():
    rig = Rig(TimeSlice(1.0))
    a = rig.submit(0.0, spec=SUSPEND)
    rig.started(0.0)
    rig.lives.up(a, suspendable=True)
    assert (rig.started(1.0), rig.effects(), rig.lives.next_due) == ([], [], 2.0)
    b = rig.submit(1.5, spec=SUSPEND)
    assert (rig.started(2.0), rig.effects()) == ([b.id], [("Freeze", a.id)])
    rig.lives.up(b, suspendable=True)
    assert (rig.started(3.0), rig.effects()) == ([a.id], [("Freeze", b.id)])
    assert rig.lives.tally.preempted == 0
    rig.lives.ended(a, None, None, 3.5)
    assert rig.started(3.5) == [b.id]
    assert b.ran == 1.0


@pytest.mark.row("SC4")
def test_a_call_that_cannot_be_suspended_runs_to_its_end_whatever_its_quantum():
    rig = Rig(TimeSlice(1.0))
    a, b = rig.submit(0.0), rig.submit(0.0)
    rig.started(0.0)
    for now in range(1, 9):
        assert (rig.started(float(now)), rig.effects()) == ([], [])
    rig.lives.ended(a, None, None, 9.0)
    assert rig.started(9.0) == [b.id]


@pytest.mark.row("SC4")
def test_ticks_go_on_only_while_there_is_something_to_do():
    rig = Rig(MultiLevelFeedback(levels=2, quantum=1.0, boost=5.0))
    assert rig.lives.next_due == float("inf")
    a = rig.submit(0.0)
    rig.started(0.0)
    rig.lives.due(5.0)
    rig.lives.ended(a, None, None, 6.0)
    rig.lives.due(10.0)
    assert rig.lives.next_due == float("inf")
    rig.submit(100.0)
    assert rig.lives.next_due <= 105.0
    assert rig.started(100.0) == ["task-2"]


@pytest.mark.row("SC11")
def test_what_will_not_end_is_told_all_the_same(rig):
    stubborn, queued = rig.submit(0.0), rig.submit(0.0)
    rig.started(0.0)
    rig.lives.cancel(stubborn, "", 1.0)
    rig.lives.cancel(queued, "", 1.0)
    rig.effects()
    rig.lives.abandon(9.0)
    assert (rig.effects(), stubborn.state) == ([("Settled", stubborn.id)], "cancelled")
    assert (rig.lives.unfinished, rig.resources.allocated) == (0, 0)
