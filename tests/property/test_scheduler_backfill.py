"""Passing a blocked task, simulated: an event loop of its own, with estimates that are exact, missing or wrong."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession.scheduler._backfill import Ends
from procession.scheduler._decide import Dispatcher
from procession.scheduler._entry import Entry
from procession.scheduler._policies import PriorityAging
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec
from procession.scheduler._states import TaskState, move

MANY = settings(max_examples=500, deadline=None)
SPEC = Spec()
TOTALS = {"cpu_cores": 4, "memory_mb": 4}
SLOTS = 6

Work = tuple[int, int, int, int, int]
"""When it is submitted, how long it runs, what it needs, its priority. All are whole, so that times are exact."""

TASK = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 4), st.integers(0, 4), st.just(2))
URGENT = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2))
TASKS = st.lists(TASK, min_size=1, max_size=14).map(sorted)
MIXED = st.lists(URGENT, min_size=1, max_size=14).map(sorted)


class Simulation:
    """Runs tasks to their ends. ``until`` is when backfilling is switched off; what has begun by then goes on."""

    def __init__(self, tasks: list[Work], estimate, *, backfill=True, until=None, max_overtakes=16):
        self.resources = Resources(SLOTS, TOTALS)
        self.dispatcher = Dispatcher(self.resources, PriorityAging(0), backfill=backfill, max_overtakes=max_overtakes)
        self.tasks = tasks
        self.estimate = estimate
        self.until = until
        self.started: dict[int, float] = {}
        self.reserved: dict[int, list[float]] = {}
        self.head: Entry | None = None
        self.overtaken: dict[int, int] = {}
        self.passes = 0
        self.moments: list[tuple[float, int, int]] = []
        self.run()

    def run(self):
        agenda: list[tuple[float, int, int, Entry | None]] = []
        for number, task in enumerate(self.tasks, 1):
            heappush(agenda, (float(task[0]), 1, number, None))
        while agenda:
            now = agenda[0][0]
            while agenda and agenda[0][0] == now:
                _, _, number, entry = heappop(agenda)
                if entry is None:
                    self.submit(number, now)
                else:
                    self.dispatcher.release(entry, now)
                    move(entry, TaskState.SUCCEEDED)
            while (entry := self.next(now)) is not None:
                runs = self.tasks[entry.number - 1][1]
                heappush(agenda, (now + runs, 0, entry.number, entry))
        assert len(self.started) == len(self.tasks)
        assert self.resources.allocated == 0

    def submit(self, number, now):
        _, runs, cpu, memory, priority = self.tasks[number - 1]
        shape = self.resources.shape({"cpu_cores": cpu, "memory_mb": memory})
        entry = Entry(number, priority, shape, SPEC, self.estimate(number, runs))
        move(entry, TaskState.QUEUED)
        self.dispatcher.enqueue(entry, now)

    def next(self, now):
        dispatcher = self.dispatcher
        if self.until is not None and (now, len(self.started)) >= self.until:
            dispatcher._backfill = False
        lane = dispatcher.queue.top()
        head = None if lane is None else lane.head
        found = dispatcher.next(now)
        assert not self.resources.allocated & self.resources.guard
        if self.head is not head and self.head is not None and self.head.number not in self.started:
            self.reserved.pop(self.head.number, None)  # a more urgent one has come before it: all is open again
        self.head = head
        if head is not None and found is not head:
            self.moments.append((now, len(self.started), head.number))
            if (made := dispatcher.reservation(head, now)) is not None:
                self.reserved.setdefault(head.number, []).append(made.at)
        if found is not None:
            assert isinstance(found, Entry)
            assert found.number not in self.started
            self.started[found.number] = now
            if found is not head:
                assert head is not None
                self.passes += 1
                self.overtaken[head.number] = dispatcher.overtaken(head)
        return found


def exactly(number, runs):
    return float(runs)


def unknown(number, runs):
    return None


@pytest.mark.row("SC6")
@MANY
@given(TASKS | MIXED)
def test_under_exact_estimates_a_head_starts_no_later_than_any_reservation_it_had(tasks):
    simulation = Simulation(tasks, exactly)
    for number, reserved in simulation.reserved.items():
        assert all(simulation.started[number] <= at for at in reserved)
        assert all(later <= earlier for earlier, later in pairwise(reserved))


@pytest.mark.row("SC6")
@MANY
@given(TASKS, st.data())
def test_under_exact_estimates_a_head_starts_no_later_than_if_nobody_had_passed_it_from_then_on(tasks, data):
    simulation = Simulation(tasks, exactly)
    if not simulation.moments:
        return
    *until, head = data.draw(st.sampled_from(simulation.moments))
    without = Simulation(tasks, exactly, until=tuple(until))
    assert simulation.started[head] <= without.started[head]


@pytest.mark.row("SC6")
@MANY
@given(MIXED, st.integers(0, 4))
def test_without_estimates_a_head_is_overtaken_a_bounded_number_of_times(tasks, most):
    simulation = Simulation(tasks, unknown, max_overtakes=most)
    assert all(times <= most for times in simulation.overtaken.values())


@pytest.mark.row("SC6")
@MANY
@given(TASKS, st.data())
def test_without_estimates_only_what_a_head_has_no_use_for_is_taken_for_nothing(tasks, data):
    simulation = Simulation(tasks, unknown, max_overtakes=0)
    assert set(simulation.overtaken.values()) <= {0}
    if not simulation.moments:
        return
    *until, head = data.draw(st.sampled_from(simulation.moments))
    without = Simulation(tasks, unknown, max_overtakes=0, until=tuple(until))
    assert simulation.started[head] <= without.started[head]


@pytest.mark.row("SC6")
@MANY
@given(MIXED, st.lists(st.sampled_from([None, 0.0, 0.5, 1.0, 2.0]), min_size=14, max_size=14), st.integers(0, 3))
def test_whatever_estimates_say_every_task_runs_once_and_gives_back_what_it_took(tasks, factors, most):
    def estimate(number, runs):
        factor = factors[number - 1]
        return None if factor is None else runs * factor

    Simulation(tasks, estimate, max_overtakes=most)


@pytest.mark.row("SC6")
@MANY
@given(TASKS)
def test_without_backfilling_tasks_start_in_their_order(tasks):
    simulation = Simulation(tasks, exactly, backfill=False)
    assert simulation.passes == 0
    started = [simulation.started[number] for number in range(1, len(tasks) + 1)]
    assert started == sorted(started)


@pytest.mark.row("SC6")
@pytest.mark.parametrize("estimate", [exactly, unknown])
def test_passing_is_real_and_saves_time(estimate):
    tasks = [(0, 10, 3, 0, 2), (1, 10, 4, 0, 2), (2, 4, 1, 0, 2), (3, 4, 1, 0, 2)]
    with_it, without = Simulation(tasks, estimate), Simulation(tasks, estimate, backfill=False)
    assert with_it.started == {1: 0, 2: 10, 3: 2, 4: 6}
    assert without.started == {1: 0, 2: 10, 3: 20, 4: 20}
    assert with_it.passes == 2


@pytest.mark.row("SC6")
@MANY
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 4)), max_size=6),
    st.integers(0, 4),
    st.integers(0, 4),
    st.integers(0, 9),
)
def test_a_reservation_is_the_earliest_time_at_which_enough_is_free(running, cpu, memory, now):
    resources = Resources(SLOTS, {"cpu_cores": 24, "memory_mb": 24})
    ends, known = Ends(resources), []
    resources.take(resources.shape({"cpu_cores": 22, "memory_mb": 22}).need - 1)
    for number, (at, some_cpu, some_memory) in enumerate(running):
        shape = resources.shape({"cpu_cores": some_cpu, "memory_mb": some_memory})
        if resources.fits(shape.need):
            resources.take(shape.need)
            ends.add(Entry(number, 2, shape, SPEC), at)
            known.append((at, shape.need))
    need = resources.shape({"cpu_cores": cpu, "memory_mb": memory}).need

    def left(at):
        return resources.open + sum(freed for end, freed in known if now <= end <= at) - need

    def enough(at):
        return left(at) & resources.guard == resources.guard

    found = ends.reserve(need, now)
    if resources.fits(need):
        assert found is not None
        assert (found.at, found.extra) == (now, resources.open - need)
        return
    times = [at for at in sorted({at for at, _ in known if at >= now}) if enough(at)]
    if not times:
        assert found is None
    else:
        assert found is not None
        assert (found.at, found.extra) == (times[0], left(times[0]))
