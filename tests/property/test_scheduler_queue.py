"""The queue and its index against models that look at everything each time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession.scheduler import _index, _queue
from procession.scheduler._entry import Entry
from procession.scheduler._index import ShapeIndex
from procession.scheduler._policies import Fifo, Policy
from procession.scheduler._queue import Lane, Queue
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

MANY = settings(max_examples=500, deadline=None)
SPEC = Spec()


class Offsets(Policy):
    def __init__(self):
        self.offsets: dict[object, int] = {}

    def group(self, task):
        return task.mark

    def offset(self, group):
        return self.offsets.get(group, 0)


class Model:
    """A queue, and a plain set of what should be in it."""

    def __init__(self):
        self.policy = Offsets()
        self.resources = Resources(50, {"cpu_cores": 50, "gpu": 50})
        self.queue = Queue(self.policy, self.resources)
        self.inside: set[Entry] = set()
        self.outside: list[Entry] = []
        self.told: dict[object, int] = {}
        self.number = 0

    def key(self, entry):
        return entry.rank + self.told.get(entry.mark, 0), entry.number

    def make(self, rank, cpu, gpu, priority, group):
        self.number += 1
        entry = Entry(self.number, priority, self.resources.shape({"cpu_cores": cpu, "gpu": gpu}), SPEC)
        self.push(entry, rank, group)

    def push(self, entry, rank, group):
        entry.rank, entry.mark, entry.slot = rank, group, (group, entry.priority)
        self.queue.push(entry)
        self.inside.add(entry)

    def order(self):
        return sorted(self.inside, key=self.key)

    def pop(self, lane):
        entry = self.queue.pop(lane)
        assert entry is min((one for one in self.inside if one.lane is lane or one is entry), key=self.key)
        assert entry.lane is None
        self.inside.discard(entry)
        self.outside.append(entry)
        return entry

    def discard(self, entry):
        lane = entry.lane
        self.queue.discard(entry)
        self.inside.discard(entry)
        self.outside.append(entry)
        dead, standing = len(lane.dead or ()), len(lane.fifo) + len(lane.early)
        assert dead <= max(_queue._FEW_DEAD, standing // 2 + 1)

    def check(self):
        queue = self.queue
        assert len(queue) == len(self.inside)
        lane = queue.top()
        if not self.inside:
            assert lane is None
            assert (list(queue.lanes()), queue.shapes, list(queue)) == ([], {}, [])
            return
        assert lane is not None
        assert lane.head is min(self.inside, key=self.key)
        waiting = list(queue)
        assert len(waiting) == len(self.inside)
        assert set(waiting) == self.inside
        lanes = list(queue.lanes())
        assert len(queue.heap) <= 2 * len(lanes) + 65
        for one in lanes:
            assert len(one) == len(list(one)) > 0
            assert one.head is min(one, key=self.key)
            assert one.shape in queue.shapes

    def fitting(self):
        return [
            lane
            for lane in sorted(self.queue.lanes(), key=lambda lane: self.key(lane.head))
            if self.resources.fits(lane.shape.need)
        ]


RANK = st.integers(0, 12)
NEW = st.tuples(st.just("new"), RANK, st.integers(0, 2), st.integers(0, 1), st.integers(0, 1), st.integers(0, 2))
OLD = st.tuples(st.sampled_from(["back", "elsewhere", "again"]), RANK, st.integers(0, 99), st.integers(0, 2))
OUT = st.tuples(st.sampled_from(["pop", "pop", "pass", "discard", "discard"]), st.integers(0, 99))
ORDER = st.tuples(st.just("reoffset"), st.dictionaries(st.integers(0, 2), st.integers(0, 20), min_size=1))
STEPS = st.lists(st.one_of(NEW, NEW, OLD, OUT, ORDER), max_size=60)


def play(model, steps):
    for step in steps:
        what = step[0]
        if what == "new":
            model.make(*step[1:])
        elif what == "reoffset":
            model.policy.offsets |= step[1]
            model.told |= step[1]
            model.queue.reoffset(step[1])
        elif what in ("back", "elsewhere"):
            if model.outside:
                entry = model.outside.pop(step[2] % len(model.outside))
                model.push(entry, *((step[1], step[3]) if what == "elsewhere" else (entry.rank, entry.mark)))
        elif model.inside:
            entry = model.order()[step[-1 if what != "again" else 2] % len(model.inside)]
            if what == "pop":
                assert model.pop(model.queue.top()) is model.outside[-1]
            elif what == "pass":
                model.pop(entry.lane)
            else:
                model.discard(entry)
                if what == "again":  # taken out and put back at once, as one whose priority changes
                    model.outside.pop()
                    model.push(entry, entry.rank, entry.mark)
        model.check()


@pytest.mark.row("SC2")
@pytest.mark.row("SC9")
@MANY
@given(STEPS, st.sampled_from([0, 3, 32]))
def test_the_next_is_always_the_least_and_nothing_is_lost_or_there_twice(steps, few):
    model = Model()
    before, _queue._FEW_DEAD = _queue._FEW_DEAD, few
    try:
        play(model, steps)
        expected = model.order()
        popped = []
        while (lane := model.queue.top()) is not None:
            popped.append(model.pop(lane))
        assert popped == expected
        model.check()
    finally:
        _queue._FEW_DEAD = before


@pytest.mark.row("SC6")
@MANY
@given(STEPS, STEPS, st.integers(0, 3), st.integers(0, 2), st.sampled_from([1, 64]))
def test_what_fits_comes_in_order_with_the_index_and_without(first, second, cpu, gpu, many):
    model = Model()
    model.resources.take(model.resources.shape({"cpu_cores": 50 - cpu, "gpu": 50 - gpu}).need)
    before, _queue._MANY_SHAPES = _queue._MANY_SHAPES, many  # so few that there is an index nearly always
    try:
        for steps in (first, second):
            play(model, steps)
            assert list(model.queue.fitting()) == model.fitting()
    finally:
        _queue._MANY_SHAPES = before


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "pop", "discard", "take", "give"]),
        st.integers(0, 10_000),
        st.integers(0, 200),
        st.integers(0, 200),
    ),
    max_size=25,
)


@pytest.mark.row("SC6")
@MANY
@given(st.lists(CHANGES, min_size=1, max_size=4), st.randoms(use_true_random=False), st.integers(60, 150))
def test_among_very_many_shapes_the_first_found_is_the_most_urgent_that_fits(rounds, rng, count):
    resources = Resources(1000, {"cpu_cores": 200, "gpu": 200})
    queue, held, number = Queue(Fifo(), resources), [], 0
    before, _index._VISITS = _index._VISITS, 10_000

    def push(rank, cpu, gpu):
        nonlocal number
        number += 1
        entry = Entry(number, 0, resources.shape({"cpu_cores": cpu, "gpu": gpu}), SPEC)
        entry.rank = rank
        queue.push(entry)

    try:
        for _ in range(count):
            push(rng.randrange(10_000), rng.randrange(200), rng.randrange(200))
        for changes in rounds:
            for what, a, b, c in changes:
                if what == "push":
                    push(a, b, c)
                elif what == "pop" and len(queue):
                    queue.pop(sorted(queue.lanes(), key=lambda lane: lane.key or ())[a % len(list(queue.lanes()))])
                elif what == "discard" and len(queue):
                    queue.discard(sorted(queue, key=lambda entry: entry.number)[a % len(queue)])
                elif what == "take" and resources.fits(need := resources.shape({"cpu_cores": b, "gpu": c}).need):
                    resources.take(need)
                    held.append(need)
                elif what == "give" and held:
                    resources.give(held.pop())
            fitting = [lane for lane in queue.lanes() if resources.fits(lane.shape.need)]
            assert list(queue.fitting()) == sorted(fitting, key=key_of)
            if queue._index is not None:
                check_tree(queue._index, resources)
    finally:
        _index._VISITS = before


def key_of(lane: Lane) -> tuple[int, int]:
    assert lane.key is not None
    return lane.key[:2]


def check_tree(tree: ShapeIndex, resources: Resources) -> None:
    """Every inner node is the minimum of its leaves, field by field, and its key the smallest."""
    width, fields = tree._width, [resources.names.index(name) * 64 for name in resources.names]

    def leaves(node):
        return [node] if node >= width else leaves(2 * node) + leaves(2 * node + 1)

    for node in range(1, width):
        below = leaves(node)
        for at in fields:
            value = (1 << 63) - 1
            assert tree._least[node] >> at & value == min(tree._least[leaf] >> at & value for leaf in below)
        assert tree._first[node] == min(tree._first[leaf] for leaf in below)


@MANY
@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=3, max_size=3), st.data())
def test_the_packed_minimum_is_the_minimum_of_every_field(a, data):
    b = data.draw(st.tuples(*(st.one_of(st.just(one), st.integers(0, (1 << 63) - 1)) for one in a)))
    resources = Resources(1, {"x": 1, "y": 1})
    tree = ShapeIndex([], resources)

    def packed(values):
        return sum(value << 64 * index for index, value in enumerate(values))

    assert tree._minimum(packed(a), packed(b)) == packed([min(pair) for pair in zip(a, b, strict=True)])


@pytest.mark.row("SC2")
@MANY
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=120), st.integers(1, 3))
def test_a_long_queue_that_is_cancelled_and_served_stays_in_order(items, every):
    model = Model()
    for rank, (cpu, cancelled) in enumerate(items):
        model.make(rank // 3, cpu, 0, 0, 0)
        if cancelled < every and len(model.inside) > 1:
            model.discard(model.order()[cancelled * len(model.inside) // 6])
    model.check()
    expected = model.order()
    assert [model.pop(model.queue.top()) for _ in expected] == expected
    assert not model.queue.heap or model.queue.top() is None
