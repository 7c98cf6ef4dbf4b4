"""The queue: lanes in a heap, tasks in lanes, and little left of what was taken out."""

import random

import pytest

from procession.scheduler._entry import Entry
from procession.scheduler._policies import Policy
from procession.scheduler._queue import _FEW_DEAD, _MANY_SHAPES, Queue
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

SPEC = Spec()


class Offsets(Policy):
    """Groups are what tests write into ``mark``; their offsets are what tests say."""

    def __init__(self):
        self.offsets: dict[object, int] = {}

    def group(self, task):
        return task.mark

    def offset(self, group):
        return self.offsets.get(group, 0)


class Rig:
    def __init__(self, slots=1000, cpu=1000.0):
        self.policy = Offsets()
        self.resources = Resources(slots, {"cpu_cores": cpu})
        self.queue = Queue(self.policy, self.resources)
        self.number = 0

    def make(self, rank=0, cpu=0.0, group=0):
        self.number += 1
        entry = Entry(self.number, 2, self.resources.shape({"cpu_cores": cpu}), SPEC)
        entry.rank, entry.mark, entry.slot = rank, group, group
        return entry

    def push(self, rank=0, cpu=0.0, group=0):
        entry = self.make(rank, cpu, group)
        self.queue.push(entry)
        return entry

    def pop(self):
        lane = self.queue.top()
        return None if lane is None else self.queue.pop(lane)

    def drain(self):
        popped = []
        while (entry := self.pop()) is not None:
            popped.append(entry)
        return popped


@pytest.fixture
def rig():
    return Rig()


@pytest.mark.row("SC2")
def test_the_first_in_is_the_first_out_and_nothing_is_left(rig):
    entries = [rig.push(rank) for rank in (1, 2, 2, 5)]
    assert len(rig.queue) == 4
    assert rig.drain() == entries
    assert (len(rig.queue), rig.queue.top(), rig.queue.shapes) == (0, None, {})
    assert all(entry.lane is None for entry in entries)


@pytest.mark.row("SC2")
def test_lanes_are_ordered_by_rank_and_the_offset_of_their_group(rig):
    rig.policy.offsets = {0: 100, 1: 0}
    slow, fast, slower = rig.push(1, group=0), rig.push(50, group=1), rig.push(2, cpu=3, group=0)
    assert rig.drain() == [fast, slow, slower]


@pytest.mark.row("SC2")
def test_who_comes_back_gets_its_old_place(rig):
    a, b, c = rig.push(1), rig.push(2), rig.push(3)
    assert rig.pop() is a
    rig.queue.push(a)
    assert rig.queue.top() is a.lane
    assert rig.drain() == [a, b, c]


def test_who_comes_back_behind_the_first_waits_for_it(rig):
    a, b, c = rig.push(1), rig.push(2), rig.push(3)
    assert rig.drain() == [a, b, c]
    for entry in (a, c, b):
        rig.queue.push(entry)
    assert rig.drain() == [a, b, c]


def test_a_lane_whose_tasks_all_came_back_goes_on_as_a_fifo(rig):
    a, b = rig.push(1), rig.push(2)
    rig.pop()
    rig.queue.push(a)  # it stands early, and after b has gone so does nobody behind it
    rig.queue.discard(b)
    later = [rig.push(rank) for rank in (3, 4, 5)]
    lane = a.lane
    assert lane is not None
    assert (len(lane.fifo), len(lane.early), len(lane)) == (3, 1, 4)
    assert rig.drain() == [a, *later]


def test_a_first_of_all_that_finds_no_fifo_is_the_next(rig):
    a, b, c = rig.push(2), rig.push(3), rig.make(1)
    rig.pop()
    rig.queue.push(a)
    rig.queue.discard(b)
    d = rig.push(9)
    rig.queue.discard(d)
    rig.queue.push(c)
    assert list(c.lane.fifo) == [c]
    assert rig.drain() == [c, a]


@pytest.mark.row("SC2")
def test_what_is_taken_out_is_skipped_wherever_it_stood(rig):
    entries = [rig.push(rank) for rank in range(6)]
    for entry in (entries[0], entries[3], entries[5]):
        rig.queue.discard(entry)
        assert entry.lane is None
    assert len(rig.queue) == 3
    assert set(rig.queue) == {entries[1], entries[2], entries[4]}
    assert rig.drain() == [entries[1], entries[2], entries[4]]


def test_what_came_back_and_is_taken_out_again_is_skipped_too(rig):
    entries = [rig.push(rank) for rank in range(6)]
    first = [rig.pop() for _ in range(3)]
    for entry in first:
        rig.queue.push(entry)
    rig.queue.discard(entries[1])
    rig.queue.discard(entries[4])
    assert set(rig.queue) == {entries[0], entries[2], entries[3], entries[5]}
    assert rig.drain() == [entries[0], entries[2], entries[3], entries[5]]


def test_taking_out_the_last_one_closes_its_lane(rig):
    entry = rig.push()
    rig.queue.discard(entry)
    assert (len(rig.queue), rig.queue.top(), rig.queue.shapes, entry.shape.lanes) == (0, None, {}, {})


@pytest.mark.row("SC9")
def test_what_was_taken_out_and_comes_back_into_its_lane_is_there_once(rig):
    a, b, c = rig.push(1), rig.push(2), rig.push(3)
    rig.queue.discard(b)
    rig.queue.push(b)
    assert (len(rig.queue), list(b.lane)) == (3, [a, c, b])
    assert rig.drain() == [a, b, c]


@pytest.mark.row("SC9")
def test_it_is_there_once_after_a_detour_through_another_lane(rig):
    a, b, c, other = rig.push(1), rig.push(2), rig.push(3), rig.push(2, group=1)
    for slot in (1, 0):
        rig.queue.discard(b)
        b.slot = slot
        rig.queue.push(b)
    assert sorted(entry.number for entry in rig.queue) == [1, 2, 3, 4]
    assert rig.drain() == [a, b, other, c]


def test_the_rank_of_one_that_went_elsewhere_counts_no_more_where_it_was(rig):
    a, gone = rig.push(5), rig.push(9)
    rig.queue.discard(gone)
    gone.rank, gone.slot = 0, 1
    rig.queue.push(gone)  # it waits in another lane now, before all others
    b = rig.push(3)
    assert rig.drain() == [gone, b, a]


@pytest.mark.row("SC2")
def test_the_dead_of_a_lane_are_swept_out_once_they_are_more_than_half(rig):
    entries = [rig.push(rank) for rank in range(1000)]
    lane = entries[0].lane
    assert lane is not None
    order = entries[1:]
    random.Random(3).shuffle(order)
    for entry in order:
        rig.queue.discard(entry)
        assert len(lane.fifo) - len(lane) <= max(_FEW_DEAD, len(lane.fifo) // 2)
        assert len(lane) == len(rig.queue)
    assert rig.drain() == [entries[0]]


def test_the_dead_among_those_that_came_back_are_swept_out_too(rig):
    entries = [rig.push(rank) for rank in range(200)]
    for _ in range(199):
        rig.pop()
    for entry in entries[:199]:
        rig.queue.push(entry)
    lane = entries[0].lane
    assert lane is not None
    for entry in entries[1:150]:
        rig.queue.discard(entry)
        assert len(lane.early) + len(lane.fifo) <= 2 * len(lane) + _FEW_DEAD
    assert rig.drain() == [entries[0], *entries[150:]]


@pytest.mark.row("SC2")
def test_the_heap_does_not_grow_while_lanes_behind_a_blocked_one_are_served(rig):
    blocked = rig.push(0)
    for _ in range(20):
        rig.push(10, cpu=1)
    for _ in range(2000):
        rig.push(10, cpu=1)
        lane = next(lane for lane in rig.queue.lanes() if lane is not blocked.lane)
        rig.queue.pop(lane)
        assert len(rig.queue.heap) <= 2 * 2 + 65
    assert rig.pop() is blocked


def test_the_heap_does_not_grow_while_its_first_is_taken_out_again_and_again(rig):
    rig.push(10**6)
    for rank in range(2000, 0, -1):
        rig.push(rank)
        assert len(rig.queue.heap) <= 2 + 65
    assert [entry.rank for entry in rig.drain()] == [*range(1, 2001), 10**6]


def test_lanes_are_put_in_order_when_the_offsets_of_their_groups_change(rig):
    a, b, c = rig.push(1, group="a"), rig.push(2, group="b"), rig.push(3, group="c")
    rig.policy.offsets = {"a": 10, "b": 20}
    rig.queue.reoffset(["a"])  # of b nobody has told
    assert rig.queue.top() is b.lane
    rig.queue.reoffset(["a", "b", "c", "never seen"])
    assert rig.drain() == [c, a, b]


@pytest.mark.row("SC6")
@pytest.mark.parametrize("shapes", [5, 3 * _MANY_SHAPES])
def test_what_fits_is_found_the_most_urgent_first(shapes):
    rig = Rig(cpu=float(shapes))
    entries = [rig.push(rank=-number, cpu=number) for number in range(1, shapes + 1)]
    rig.resources.take(rig.resources.shape({"cpu_cores": shapes - 3}).need)
    assert [lane.head for lane in rig.queue.fitting()] == [entries[2], entries[1], entries[0]]
    rig.resources.take(rig.resources.shape({"cpu_cores": 2}).need)
    assert [lane.head for lane in rig.queue.fitting()] == [entries[0]]
    rig.resources.take(rig.resources.shape({"cpu_cores": 0.5}).need)
    assert list(rig.queue.fitting()) == []


@pytest.mark.row("SC6")
def test_lanes_that_fit_come_in_order_whatever_their_shape():
    rig = Rig()
    for number in range(1, 2 * _MANY_SHAPES):
        for group in range(2):
            rig.push(rank=(number * 37 + group * 101) % 199, cpu=number, group=group)
    found = [lane.key[:2] for lane in rig.queue.fitting() if lane.key is not None][:15]
    assert found == sorted(found)
    assert len(found) == 15


def test_the_index_comes_and_goes_with_the_number_of_shapes():
    rig = Rig()
    entries = [rig.push(cpu=number) for number in range(_MANY_SHAPES + 1)]
    assert not rig.queue.is_indexed
    next(rig.queue.fitting())
    assert rig.queue.is_indexed
    first, last = rig.push(rank=-1, cpu=500), rig.push(rank=1, cpu=500)
    assert [lane.head for lane in rig.queue.fitting()][:1] == [first]
    assert rig.pop() is first
    assert [lane.head for lane in rig.queue.fitting()][:1] == entries[:1]
    rig.queue.discard(last)
    rig.policy.offsets = {0: 7}
    rig.queue.reoffset([0])
    for entry in entries[: _MANY_SHAPES // 2 + 1]:
        rig.queue.discard(entry)
        assert rig.queue.is_indexed
    rig.drain()
    assert not rig.queue.is_indexed


def test_the_index_sees_a_lane_of_many_that_closes():
    rig = Rig()
    for number in range(_MANY_SHAPES + 1):
        rig.push(rank=10, cpu=number)
    soon = rig.push(rank=1, cpu=3, group=1)
    assert [lane.head for lane in rig.queue.fitting()][:1] == [soon]
    rig.queue.discard(soon)
    head = next(rig.queue.fitting()).head
    assert head is not None
    assert head.rank == 10


@pytest.mark.row("SC10")
def test_a_task_can_ask_who_is_before_it(rig):
    rig.policy.offsets = {1: 100}
    last, others = rig.push(5, group=1), [rig.push(rank, cpu=rank % 2) for rank in (3, 1, 2, 4)]
    assert rig.queue.ahead_of(last, 2) == (4, [others[1], others[2]])
    assert rig.queue.ahead_of(others[1]) == (0, [])
    rig.queue.discard(others[2])
    assert rig.queue.ahead_of(last) == (3, [others[1], others[0], others[3]])


def test_two_keys_of_one_lane_may_stand_in_the_heap_side_by_side(rig):
    a, b = rig.push(1), rig.push(2)
    for offset in (5, 0, 5, 0):  # its old keys stay in the heap, equal to its new ones
        rig.policy.offsets = {0: offset}
        rig.queue.reoffset([0])
    assert rig.drain() == [a, b]
    assert not a.shape.lanes


def test_no_place_is_taken_when_a_policy_raises(rig):
    rig.policy.offset = lambda group: 1 / 0
    entry = rig.make()
    with pytest.raises(ZeroDivisionError):
        rig.queue.push(entry)
    assert (len(rig.queue), entry.lane, rig.queue.top(), rig.queue.shapes) == (0, None, None, {})
