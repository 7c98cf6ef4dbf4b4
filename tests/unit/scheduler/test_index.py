"""The tournament tree of shapes."""

from heapq import heappop

import pytest

from procession.scheduler import _index
from procession.scheduler._entry import Entry
from procession.scheduler._index import ShapeIndex
from procession.scheduler._policies import Fifo
from procession.scheduler._queue import Queue
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

SPEC = Spec()


class Rig:
    def __init__(self, shapes=0, cpu=1000.0):
        self.resources = Resources(10, {"cpu_cores": cpu, "gpu": 100})
        self.queue = Queue(Fifo(), self.resources)
        self.entries = [self.push(number, cpu_cores=number + 1) for number in range(shapes)]

    def push(self, rank, **needs):
        entry = Entry(rank, 0, self.resources.shape(needs), SPEC)
        entry.rank = rank
        self.queue.push(entry)
        return entry

    def index(self):
        self.tree = ShapeIndex(self.queue.shapes, self.resources)
        return self.tree

    def first(self):
        return next((lane.head for lane in self.tree.fitting()), None)


def test_an_empty_index_finds_nothing():
    rig = Rig()
    assert list(rig.index().fitting()) == []


@pytest.mark.row("SC6")
def test_the_most_urgent_that_fits_comes_first():
    rig = Rig(shapes=40)
    rig.index()
    found = [lane.head for lane in rig.tree.fitting()]
    assert found[:20] == rig.entries[:20]
    assert len(found) == len(set(found))
    rig.resources.take(rig.resources.shape({"cpu_cores": 990}).need)
    assert [lane.head for lane in rig.tree.fitting()] == rig.entries[:10]
    rig.resources.take(rig.resources.shape({"cpu_cores": 10}).need)
    assert list(rig.tree.fitting()) == []


@pytest.mark.row("SC6")
def test_two_resources_that_no_one_shape_needs_little_of_mislead_nobody():
    rig = Rig()
    for number in range(40):  # each half of a pair fits by itself in one of the two resources only
        rig.push(number, cpu_cores=900 if number % 2 else 1, gpu=1 if number % 2 else 90)
    only = rig.push(99, cpu_cores=5, gpu=5)
    rig.resources.take(rig.resources.shape({"cpu_cores": 500, "gpu": 50}).need)
    rig.index()
    assert rig.first() is only


@pytest.mark.row("SC6")
def test_a_search_that_finds_nothing_ends_after_a_bounded_number_of_nodes(monkeypatch):
    rig = Rig()
    pops = []
    monkeypatch.setattr(_index, "heappop", lambda heap: pops.append(1) or heappop(heap))
    for number in range(1000):  # neighbours, of which each needs a little too much of another resource
        rig.push(number, cpu_cores=505 + number / 1000, gpu=49)
        rig.push(number, cpu_cores=499, gpu=51 + number / 1000)
    rig.resources.take(rig.resources.shape({"cpu_cores": 500, "gpu": 50}).need)
    rig.index()
    assert list(rig.tree.fitting()) == []
    assert len(pops) == _index._VISITS


@pytest.mark.row("SC6")
def test_what_needs_little_is_found_behind_any_number_that_need_a_little_too_much():
    rig = Rig()
    for number in range(1000):
        rig.push(number, cpu_cores=505 + number / 1000, gpu=49)
        rig.push(number, cpu_cores=499, gpu=51 + number / 1000)
    small = rig.push(9999, cpu_cores=5, gpu=5)
    rig.resources.take(rig.resources.shape({"cpu_cores": 500, "gpu": 50}).need)
    rig.index()
    assert [lane.head for lane in rig.tree.fitting()] == [small]


@pytest.mark.row("SC6")
def test_what_fits_is_met_in_turn_behind_any_number_of_more_urgent_ones_that_do_not():
    rig = Rig()
    rig.resources.take(rig.resources.shape({"cpu_cores": 500, "gpu": 50}).need)
    for number in range(500):
        rig.push(number, cpu_cores=501 + number / 1000, gpu=number % 50)
        rig.push(number, cpu_cores=number, gpu=51 + number / 1000)
    fitting = {rig.push(9000 + number, cpu_cores=400 + number, gpu=45 + number / 1000) for number in range(99)}
    rig.index()
    met: set[Entry | None] = set()
    for _ in range(100):
        met.update(lane.head for lane in rig.tree.fitting())
    assert met == fitting


def test_shapes_come_and_go():
    rig = Rig(shapes=16)
    tree = rig.index()
    gone = rig.entries[0].shape
    tree.remove(gone)
    assert gone.leaf == -1
    assert rig.first() is rig.entries[1]
    tree.add(gone)
    assert gone.leaf == 0
    assert rig.first() is rig.entries[0]


def test_a_shape_that_comes_and_goes_between_two_searches_leaves_nothing():
    rig = Rig(shapes=16)
    tree = rig.index()
    late = rig.push(-1, cpu_cores=100).shape
    tree.add(late)
    assert late.leaf == 16
    tree.remove(late)  # before the tree has grown to hold it
    assert rig.first() is rig.entries[0]


def test_the_tree_grows_with_the_shapes():
    rig = Rig(shapes=16)
    tree = rig.index()
    for number in range(16, 200):
        entry = rig.push(-number, cpu_cores=number + 1)
        tree.add(entry.shape)
        assert rig.first() is entry


def test_what_touches_many_is_read_anew_at_once():
    rig = Rig(shapes=64)
    tree = rig.index()
    for number, entry in enumerate(rig.entries):
        if number % 3:
            rig.queue.pop(entry.shape.lanes[entry.slot])  # the lane closes, and the index is not told yet
            tree.remove(entry.shape)
    for entry in rig.entries[::3]:
        tree.touch(entry.shape)
    found = [lane.head for lane in tree.fitting()]
    assert found[:15] == rig.entries[::3][:15]


def test_a_change_that_changes_no_minimum_stops_early():
    rig = Rig(shapes=16)
    tree = rig.index()
    before = list(tree._least), list(tree._first)
    tree.touch(rig.entries[3].shape)
    assert rig.first() is rig.entries[0]
    assert before == (tree._least, tree._first)
