"""What happens next: who starts, who passes, who makes room."""

import pytest

from procession.scheduler._config import Preemption
from procession.scheduler._decide import Dispatcher, Preempt
from procession.scheduler._entry import Entry
from procession.scheduler._policies import Fifo, Policy, PriorityAging
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec
from procession.scheduler._states import TaskState, move


class Told(Policy):
    """Keeps one group per tenant and a list of what it was told; its offsets are what tests say."""

    def __init__(self):
        self.told = []
        self.offsets: dict[str, int] = {}
        self.changed: tuple[str, ...] = ()

    def group(self, task):
        return task.tenant

    def offset(self, group):
        return self.offsets.get(group, 0)

    def rank(self, task, now):
        return task.number

    def queued(self, task, now):
        self.told.append(("queued", task.number))
        return self.changed

    def started(self, task, now):
        self.told.append(("started", task.number))
        return self.changed

    def stopped(self, task, now, ran):
        self.told.append(("stopped", task.number, ran))
        return self.changed

    def left(self, task, now):
        self.told.append(("left", task.number))
        return self.changed

    def tick(self, now):
        return self.changed

    def settled(self, task, now):
        self.told.append(("settled", task.number))


class Rig:
    """A dispatcher, and a shell around it that does what it decides at once."""

    def __init__(self, policy=None, slots=100, totals=None, **options):
        self.resources = Resources(slots, {"cpu_cores": 8, "memory_mb": 100} if totals is None else totals)
        self.dispatcher = Dispatcher(self.resources, policy or PriorityAging(0.1), **options)
        self.now = 0.0
        self.number = 0

    def submit(self, cpu=0.0, priority=2, estimate=None, memory=0.0, mode=Preemption.NEVER, tenant=""):
        self.number += 1
        shape = self.resources.shape({"cpu_cores": cpu, "memory_mb": memory} if cpu or memory else {})
        entry = Entry(self.number, priority, shape, Spec(preemption=mode, tenant=tenant), estimate)
        move(entry, TaskState.QUEUED)
        self.dispatcher.enqueue(entry, self.now)
        return entry

    def next(self):
        found = self.dispatcher.next(self.now)
        if isinstance(found, Entry) and found.spec.preemption is not Preemption.NEVER:
            self.dispatcher.preemptible(found)
        return found

    def start(self, *args, **options):
        entry = self.submit(*args, **options)
        assert self.next() is entry
        return entry

    def all(self):
        """Everything that starts now, with what makes room suspended or stopped as it is asked to."""
        started = []
        while (found := self.next()) is not None:
            if isinstance(found, Preempt):
                for victim in found.victims:
                    victim.preemptions += 1
                    if victim.spec.preemption is Preemption.SUSPEND:
                        self.dispatcher.suspend(victim, self.now)
                    else:
                        self.stop(victim)
            else:
                started.append(found)
        return started

    def stop(self, entry):
        self.dispatcher.stopping(entry)
        move(entry, TaskState.STOPPING)

    def end(self, entry, state=TaskState.SUCCEEDED):
        self.dispatcher.release(entry, self.now)
        move(entry, state)

    def again(self, entry):
        """What was stopped to make room begins anew."""
        self.end(entry, TaskState.QUEUED)
        self.dispatcher.enqueue(entry, self.now)


# --------------------------------------------------------------------------------------------------- starting


@pytest.mark.row("SC2")
def test_the_more_urgent_starts_first_and_among_equals_the_first():
    rig = Rig()
    low, high, normal, other = (rig.submit(priority=priority) for priority in (3, 1, 2, 2))
    assert rig.all() == [high, normal, other, low]
    assert rig.next() is None


@pytest.mark.row("SC3")
def test_who_has_waited_long_enough_is_before_the_more_urgent():
    rig = Rig(PriorityAging(0.1))
    old = rig.submit(priority=3)
    rig.now = 10.1  # 10 s of waiting are worth one level
    rig.submit(priority=2)
    assert rig.next() is old


@pytest.mark.row("SC5")
def test_a_started_task_has_its_resources_and_gives_them_back_once():
    rig = Rig()
    entry = rig.start(cpu=3, memory=10)
    assert (entry.state, entry.attempts, entry.holds) == (TaskState.RUNNING, 1, entry.whole.need)
    assert rig.resources.amounts(rig.resources.allocated) == {"cpu_cores": 3, "memory_mb": 10}
    rig.now = 2.0
    rig.end(entry)
    rig.dispatcher.release(entry, 3.0)
    assert (rig.resources.allocated, entry.holds, entry.ran) == (0, 0, 2.0)
    assert not rig.dispatcher.running


@pytest.mark.row("SC8")
def test_a_task_that_is_tried_again_keeps_its_place_and_counts_its_attempts():
    rig = Rig(slots=1)
    first = rig.start()
    others = [rig.submit(), rig.submit()]
    rig.now = 5.0
    rig.end(first, TaskState.RETRYING)
    move(first, TaskState.QUEUED)
    rig.dispatcher.enqueue(first, 6.0)
    assert first.queued_at == 0.0
    assert rig.all() == [first]
    assert (first.attempts, first.ran) == (2, 0.0)
    assert [entry.lane is not None for entry in others] == [True, True]


@pytest.mark.row("SC9")
def test_a_task_that_is_withdrawn_does_not_start():
    rig = Rig()
    a, b = rig.submit(), rig.submit()
    rig.dispatcher.withdraw(a, 0.0)
    assert rig.all() == [b]


def test_a_place_that_is_stale_is_skipped():
    rig = Rig()
    a, b = rig.submit(priority=1), rig.submit(priority=2)
    rig.dispatcher.withdraw(a, 0.0)
    assert rig.all() == [b]
    rig.dispatcher.withdraw(rig.submit(), 0.0)
    assert rig.next() is None


# ------------------------------------------------------------------------------------------------ the policy


@pytest.mark.row("SC4")
def test_a_policy_hears_of_every_task_that_waits_starts_stops_and_leaves():
    policy = Told()
    rig = Rig(policy)
    assert not rig.dispatcher.is_plain
    a = rig.start(mode=Preemption.SUSPEND)
    b = rig.submit()
    rig.dispatcher.withdraw(b, 0.0)
    rig.now = 4.0
    rig.dispatcher.suspend(a, 4.0)
    assert rig.next() is a
    rig.now = 5.0
    rig.end(a)
    expected = [("queued", 1), ("started", 1), ("queued", 2), ("left", 2), ("stopped", 1, 4.0), ("queued", 1)]
    assert policy.told == [*expected, ("started", 1), ("stopped", 1, 1.0)]


@pytest.mark.row("SC4")
def test_a_policy_hears_once_that_a_suspended_task_left():
    for stopped_first in (False, True):
        policy = Told()
        rig = Rig(policy)
        entry = rig.start(mode=Preemption.SUSPEND)
        rig.dispatcher.suspend(entry, 0.0)
        if stopped_first:
            rig.stop(entry)
        rig.end(entry, TaskState.CANCELLED)
        assert [what for what, *_ in policy.told] == ["queued", "started", "stopped", "queued", "left"]


@pytest.mark.row("SC4")
def test_a_policy_puts_groups_in_another_order_whenever_it_is_told_something():
    policy = Told()
    rig = Rig(policy, slots=3)
    a, b = rig.submit(tenant="a"), rig.submit(tenant="b")
    policy.offsets, policy.changed = {"a": 100}, ("a",)
    c = rig.submit(tenant="a")
    policy.changed = ()
    assert rig.next() is b
    policy.offsets, policy.changed = {"b": 1000}, ("a", "b")
    rig.submit(tenant="b")
    policy.offsets = {"a": 10_000}
    rig.dispatcher.tick(1.0)
    assert rig.next() is not a
    policy.offsets = {}
    rig.end(b)
    assert rig.all() == [a, c]


@pytest.mark.row("SC2")
def test_the_core_is_busy_while_anybody_waits_for_more_than_a_turn():
    rig = Rig(max_overtakes=1)
    first = rig.start(cpu=8, priority=3, mode=Preemption.SUSPEND)
    assert not rig.dispatcher.is_busy
    rig.submit(cpu=1, priority=3)
    rig.submit(priority=3)
    rig.all()  # the second has passed the first
    assert rig.dispatcher.is_busy
    high = rig.submit(cpu=8, priority=0)
    assert rig.all() == [high]
    assert rig.dispatcher.is_busy
    for entry in (high, first):
        rig.stop(entry)
        rig.end(entry, TaskState.CANCELLED)
    rig.all()
    assert not rig.dispatcher.is_busy


def test_a_policy_hears_that_a_task_has_its_fate():
    policy = Told()
    rig = Rig(policy)
    assert not rig.dispatcher.is_plain
    assert Rig().dispatcher.is_plain
    entry = rig.start()
    rig.end(entry)
    rig.dispatcher.settled(entry, 0.0)
    assert policy.told[-1] == ("settled", 1)
    Rig().dispatcher.settled(entry, 0.0)  # whose policy does not want to know


def test_a_policy_that_has_raised_is_asked_no_more():
    policy = Told()
    rig = Rig(policy)
    rig.dispatcher.forsake()
    a = rig.start()
    rig.end(a)
    rig.dispatcher.settled(a, 0.0)
    assert (policy.told, a.rank) == ([], 0)


@pytest.mark.row("SC1")
def test_a_task_can_become_more_urgent_wherever_it_stands():
    rig = Rig(slots=2)
    a, b = rig.start(priority=3, mode=Preemption.SUSPEND), rig.start(priority=3, mode=Preemption.SUSPEND)
    c, d = rig.submit(priority=3), rig.submit(priority=3)
    rig.dispatcher.reprioritise(d, 3)  # nothing changes, and it stands there once
    rig.dispatcher.reprioritise(b, 2)
    rig.dispatcher.reprioritise(d, 1)
    assert rig.dispatcher.victims.least_urgent() == 3
    assert rig.next() == Preempt(d, [a])
    assert (len(rig.dispatcher.queue), list(rig.dispatcher.victims._levels)) == (2, [3, 2])
    rig.end(b)
    rig.end(a)
    assert rig.all() == [d, c]


# ------------------------------------------------------------------------------------------------- backfilling


@pytest.mark.row("SC6")
def test_nobody_passes_a_blocked_task_when_backfilling_is_off():
    rig = Rig(backfill=False)
    rig.start(cpu=6, estimate=10.0)
    rig.submit(cpu=4)
    rig.submit(cpu=1, estimate=1.0)
    assert rig.next() is None


@pytest.mark.row("SC6")
def test_who_ends_before_the_reservation_may_pass_and_who_does_not_may_not():
    rig = Rig()
    rig.start(cpu=6, estimate=10.0)
    head = rig.submit(cpu=8)
    rig.submit(cpu=1)
    rig.submit(cpu=1, estimate=16.0)
    short = rig.submit(cpu=1, estimate=10.0)
    assert rig.all() == [short]
    reservation = rig.dispatcher.reservation(head, 0.0)
    assert reservation is not None
    assert reservation.at == 10.0


@pytest.mark.row("SC6")
def test_who_needs_only_what_the_head_leaves_over_may_pass_however_long_it_takes():
    rig = Rig()
    rig.start(cpu=6, estimate=10.0)
    rig.submit(cpu=6)
    long, late, longer = rig.submit(cpu=1), rig.submit(cpu=1.5, estimate=99.0), rig.submit(cpu=1, estimate=99.0)
    assert rig.all() == [long, longer]
    assert late.lane is not None


@pytest.mark.row("SC6")
def test_a_task_with_an_estimate_below_a_second_does_not_hide_behind_one_without():
    rig = Rig()
    rig.start(cpu=6, estimate=10.0)
    rig.submit(cpu=8)
    rig.submit(cpu=1)
    short = rig.submit(cpu=1, estimate=0.7)
    assert rig.all() == [short]


@pytest.mark.row("SC6")
def test_without_estimates_a_task_is_passed_a_bounded_number_of_times():
    rig = Rig(max_overtakes=3)
    first = rig.start(cpu=4)
    head = rig.submit(cpu=8)
    small = [rig.submit(cpu=1) for _ in range(9)]
    assert rig.all() == small[:3]
    assert rig.dispatcher.overtaken(head) == 3
    for entry in (first, *small[:3]):
        rig.end(entry)
    assert rig.all() == [head]
    rig.end(head)
    assert rig.all() == small[3:]
    assert (rig.dispatcher.overtaken(head), rig.dispatcher._overtaken) == (0, {})


@pytest.mark.row("SC6")
def test_who_takes_nothing_the_head_could_use_passes_it_as_often_as_it_likes():
    rig = Rig(max_overtakes=0)
    rig.start(cpu=8)
    head = rig.submit(cpu=8)
    small = [rig.submit() for _ in range(9)]
    free = rig.resources.amount(rig.resources.open & ~rig.resources.guard, "slots")
    assert rig.all() == small[: int(free) - 1]  # one slot is kept for the head
    assert rig.dispatcher.overtaken(head) == 0


@pytest.mark.row("SC6")
def test_who_was_the_head_and_then_passes_another_is_forgotten():
    rig = Rig()
    first = rig.start(cpu=6)
    second = rig.start(cpu=1)
    was_head = rig.submit(cpu=2, priority=2)
    small = rig.submit(cpu=1, priority=2)
    assert rig.all() == [small]
    assert rig.dispatcher.overtaken(was_head) == 1
    head = rig.submit(cpu=8, priority=0)
    rig.end(second)
    rig.end(small)
    assert rig.all() == [was_head]
    assert list(rig.dispatcher._overtaken) == [head]
    rig.dispatcher.withdraw(head, 0.0)
    assert not rig.dispatcher._overtaken
    rig.end(first)


@pytest.mark.row("SC6")
def test_without_room_for_one_more_nobody_is_looked_for():
    rig = Rig(slots=1)
    rig.start()
    rig.submit()
    rig.submit()
    assert rig.next() is None
    assert not rig.dispatcher._overtaken


@pytest.mark.row("SC6")
def test_when_nothing_fits_nobody_passes():
    rig = Rig()
    rig.start(cpu=8, estimate=3.0)
    rig.submit(cpu=2)
    rig.submit(cpu=1)
    assert rig.next() is None


@pytest.mark.row("SC6")
def test_a_reservation_is_made_anew_when_it_is_over_or_a_task_has_ended_early():
    rig = Rig()
    a, b = rig.start(cpu=4, estimate=10.0), rig.start(cpu=4, estimate=20.0)
    head = rig.submit(cpu=8)
    at = rig.dispatcher.reservation(head, 0.0)
    assert at is not None
    assert at.at == 20.0
    assert rig.dispatcher.reservation(head, 5.0) is at
    rig.now = 5.0
    rig.end(b)
    at = rig.dispatcher.reservation(head, 5.0)
    assert at is not None
    assert at.at == 10.0
    assert rig.dispatcher.reservation(head, 10.5) is None  # it runs longer than was thought
    rig.end(a)


@pytest.mark.row("SC6")
def test_a_more_urgent_task_that_starts_takes_from_what_a_reservation_had_left_over():
    rig = Rig()
    rig.start(cpu=6, estimate=10.0)
    head = rig.submit(cpu=6, priority=3)
    rig.submit(cpu=8, priority=3)
    assert rig.next() is None  # two cores will be left over
    rig.start(cpu=2, priority=0, estimate=5.0)
    rig.now = 5.0
    rig.end(next(entry for entry in rig.dispatcher.running if entry.priority == 0))
    rig.start(cpu=1, priority=0, estimate=100.0)
    passer = rig.submit(cpu=1, priority=3)
    other = rig.submit(cpu=1, priority=3)
    assert rig.all() == [passer]  # one core is left over now, not two
    assert other.lane is not None
    assert head.lane is not None


@pytest.mark.row("SC6")
def test_what_is_being_stopped_is_counted_once():
    rig = Rig()
    a, b = rig.start(cpu=4, estimate=10.0), rig.start(cpu=4, estimate=20.0)
    head = rig.submit(cpu=8)
    rig.stop(a)
    rig.dispatcher.stopping(a)  # asked twice
    at = rig.dispatcher.reservation(head, 0.0)
    assert at is not None
    assert (at.at, rig.resources.amount(at.extra, "cpu_cores")) == (20.0, 0)
    rig.end(a, TaskState.CANCELLED)
    assert (rig.dispatcher._promised, rig.dispatcher._promises) == (0, {})
    rig.end(b)
    assert rig.all() == [head]


@pytest.mark.row("SC6")
def test_one_that_has_outlived_its_estimate_is_not_thought_to_end_at_once():
    rig = Rig()
    runs = rig.start(cpu=2, estimate=1.0, mode=Preemption.SUSPEND)
    rig.now = 5.0
    rig.start(cpu=6, estimate=10.0)
    rig.dispatcher.suspend(runs, 5.0)
    head = rig.submit(cpu=8, priority=0)
    assert rig.next() is None
    assert runs.lane is not None
    assert head.lane is not None


# -------------------------------------------------------------------------------------------------- preemption


@pytest.mark.row("SC7")
def test_a_more_urgent_task_takes_the_place_of_the_least_urgent_and_it_goes_on_later():
    rig = Rig(slots=2)
    normal, low = rig.start(priority=2, mode=Preemption.SUSPEND), rig.start(priority=3, mode=Preemption.SUSPEND)
    rig.now = 3.0
    high = rig.submit(priority=0)
    assert rig.next() == Preempt(high, [low])
    assert rig.all() == [high]
    assert (low.state, low.ran, list(rig.dispatcher.suspended)) == (TaskState.SUSPENDED, 3.0, [low])
    rig.now = 7.0
    rig.end(high)
    assert rig.all() == [low]
    assert (low.attempts, low.started_at, low.ran) == (1, 7.0, 3.0)
    rig.now = 9.0
    rig.end(low)
    rig.end(normal)
    assert low.ran == 5.0
    assert rig.resources.allocated == 0


@pytest.mark.row("SC7")
def test_a_suspended_task_keeps_its_memory():
    rig = Rig(totals={"cpu_cores": 4, "memory_mb": 100})
    low = rig.start(cpu=4, memory=60, priority=3, mode=Preemption.SUSPEND)
    rig.submit(cpu=4, memory=30, priority=0)
    rig.all()
    assert rig.resources.amounts(rig.resources.allocated) == {"cpu_cores": 4, "memory_mb": 90}
    assert rig.resources.amounts(low.holds) == {"cpu_cores": 0, "memory_mb": 60}


@pytest.mark.row("SC7")
def test_a_task_makes_room_a_bounded_number_of_times_and_some_never_do():
    rig = Rig(slots=1, max_preemptions=2)
    low = rig.start(priority=3, mode=Preemption.REQUEUE)
    for _ in range(2):
        high = rig.submit(priority=0)
        assert rig.all() == []  # it is being stopped
        rig.again(low)
        assert rig.all() == [high]
        rig.end(high)
        assert rig.all() == [low]
    rig.submit(priority=0)
    assert rig.all() == []
    assert low.state is TaskState.RUNNING
    rig.end(low)


@pytest.mark.row("SC7")
def test_no_second_one_gives_way_while_the_first_is_being_stopped():
    rig = Rig(slots=2)
    low = [rig.start(priority=3, mode=Preemption.REQUEUE) for _ in range(2)]
    high = rig.submit(priority=0)
    assert rig.all() == []
    assert rig.all() == []
    assert [entry.state for entry in low] == [TaskState.RUNNING, TaskState.STOPPING]
    rig.again(low[1])
    assert rig.all() == [high]


@pytest.mark.row("SC7")
@pytest.mark.parametrize("mode", [Preemption.SUSPEND, Preemption.REQUEUE])
def test_who_made_room_does_not_take_it_back_though_it_has_waited_longer(mode):
    rig = Rig(PriorityAging(0.1), slots=1)
    old = rig.start(priority=4, mode=mode)
    rig.now = 1000.0  # by its age it would be before everybody
    high = rig.submit(priority=1)
    started = rig.all()
    if mode is Preemption.REQUEUE:
        rig.again(old)
        started = rig.all()
    assert started == [high]
    assert old.preemptions == 1
    rig.end(high)
    assert rig.all() == [old]


@pytest.mark.row("SC7")
def test_room_that_several_make_is_kept_until_the_last_has_gone():
    rig = Rig(PriorityAging(0.1))
    old = [rig.start(cpu=4, priority=4, mode=Preemption.REQUEUE) for _ in range(2)]
    rig.now = 1000.0
    high = rig.submit(cpu=8, priority=1)
    small = rig.submit(priority=4)
    assert rig.all() == [small]  # it takes nothing of what the other waits for
    rig.again(old[0])
    assert rig.all() == []
    rig.again(old[1])
    assert rig.all() == [high]


@pytest.mark.row("SC7")
def test_a_still_more_urgent_task_goes_before_the_one_that_room_was_made_for():
    rig = Rig(PriorityAging(0), slots=1)
    low = rig.start(priority=4, mode=Preemption.REQUEUE)
    high = rig.submit(priority=1)
    rig.all()
    critical = rig.submit(priority=0)
    rig.again(low)
    assert rig.all() == [critical]
    assert rig.next() is None  # of the room that was made nothing is left, and the queue is as it was
    rig.end(critical)
    assert rig.all() == [high]


@pytest.mark.row("SC7")
def test_the_queue_goes_on_when_the_one_that_room_was_made_for_leaves():
    rig = Rig(PriorityAging(0.1), slots=1)
    low = rig.start(priority=4, mode=Preemption.REQUEUE)
    rig.now = 1000.0
    high = rig.submit(priority=1)
    rig.all()
    rig.dispatcher.withdraw(high, rig.now)
    rig.again(low)
    assert rig.all() == [low]


@pytest.mark.row("SC7")
@pytest.mark.row("SC9")
@pytest.mark.parametrize("backfill", [True, False])
def test_a_task_that_waits_for_the_memory_of_a_suspended_one_lets_it_go_on(backfill):
    rig = Rig(totals={"cpu_cores": 4, "memory_mb": 100}, backfill=backfill, max_overtakes=0)
    first = rig.start(cpu=4, memory=50, priority=4, mode=Preemption.SUSPEND)
    urgent = rig.submit(cpu=4, priority=0)
    assert rig.all() == [urgent]
    second = rig.submit(cpu=1, memory=10, priority=4)
    big = rig.submit(cpu=4, memory=100, priority=1)
    rig.end(urgent)
    assert rig.all() == [first]
    assert rig.all() == []
    rig.end(first)
    assert rig.all() == [big]
    rig.end(big)
    assert rig.all() == [second]


@pytest.mark.row("SC7")
@pytest.mark.parametrize("order", ["acb", "bca"])
def test_of_several_suspended_ones_the_most_urgent_that_fits_goes_on(order):
    rig = Rig(totals={"cpu_cores": 4, "memory_mb": 100}, max_overtakes=0)
    a = rig.start(cpu=1, memory=10, priority=4, mode=Preemption.SUSPEND)
    b = rig.start(cpu=3, memory=10, priority=3, mode=Preemption.SUSPEND)
    c = rig.start(memory=10, priority=4, mode=Preemption.SUSPEND)
    for name in order:
        rig.dispatcher.suspend({"a": a, "b": b, "c": c}[name], 0.0)
    rig.stop(c)  # it does not go on any more
    big = rig.submit(cpu=1, memory=95, priority=0)
    assert rig.all() == [b, a]
    assert rig.dispatcher.suspended == {c: None}
    for entry in (a, b):
        rig.end(entry)
    assert rig.all() == []
    rig.end(c, TaskState.CANCELLED)
    assert rig.all() == [big]
    rig.end(big)
    assert (rig.resources.allocated, rig.dispatcher._kept, rig.dispatcher._promised) == (0, 0, 0)


@pytest.mark.row("SC7")
def test_when_no_suspended_one_fits_either_everybody_waits():
    rig = Rig(totals={"cpu_cores": 4, "memory_mb": 100}, max_overtakes=0)
    a = rig.start(cpu=4, memory=50, priority=4, mode=Preemption.SUSPEND)
    urgent = rig.submit(cpu=4, priority=0)
    rig.all()
    rig.submit(cpu=1, memory=90, priority=0)
    assert rig.all() == []
    rig.end(urgent)
    assert rig.all() == [a]


@pytest.mark.row("SC9")
def test_a_suspended_task_that_is_being_stopped_does_not_go_on():
    rig = Rig(slots=1)
    low = rig.start(cpu=1, memory=10, priority=4, mode=Preemption.SUSPEND)
    high = rig.submit(priority=0)
    rig.all()
    rig.stop(low)
    rig.end(high)
    assert rig.all() == []
    rig.end(low, TaskState.CANCELLED)
    assert (rig.resources.allocated, rig.dispatcher.suspended) == (0, {})


def test_releasing_what_waits_takes_it_out():
    rig = Rig(Fifo(), slots=1)
    running = rig.start()
    waits = rig.submit()
    rig.dispatcher.release(waits, 0.0)
    rig.end(running)
    assert (rig.next(), len(rig.dispatcher.queue), rig.resources.allocated) == (None, 0, 0)
