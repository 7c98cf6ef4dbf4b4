"""Who is served: priority, then order of arrival; nothing offered is ever lost."""

import pytest

from procession.pool._waiters import Counter, WaitQueue

pytestmark = pytest.mark.row("PO7")


def test_priority_goes_before_arrival():
    queue: WaitQueue[str] = WaitQueue()
    for item, priority in (("b", 2), ("a", 1), ("c", 2), ("z", -5)):
        queue.push(item, priority)
    assert list(queue) == ["z", "a", "b", "c"]
    assert queue.peek() == "z"
    assert [queue.pop() for _ in range(len(queue))] == ["z", "a", "b", "c"]
    with pytest.raises(IndexError):
        queue.pop()
    with pytest.raises(IndexError):
        queue.peek()


def test_who_lost_its_turn_is_first_of_its_equals():
    queue: WaitQueue[str] = WaitQueue()
    queue.push("a", 1)
    queue.push("b", 1)
    queue.push_front(queue.pop(), 1)
    assert list(queue) == ["a", "b"]


def test_anybody_can_leave():
    queue: WaitQueue[int] = WaitQueue()
    for item in range(10):
        queue.push(item, item % 3)
    assert queue.discard(4, 1)
    assert not queue.discard(4, 1)
    assert not queue.discard(4, 99)
    assert len(queue) == 9
    for item in (1, 7):
        assert queue.discard(item, 1)
    assert list(queue) == [0, 3, 6, 9, 2, 5, 8]
    assert [queue.pop() for _ in range(7)] == [0, 3, 6, 9, 2, 5, 8]


def test_empty_classes_do_not_pile_up():
    queue: WaitQueue[int] = WaitQueue()
    queue.push(-1, 10_000)
    for item in range(1000):
        queue.push(item, item)
        assert queue.discard(item, item)
    assert len(queue._heap) < 20
    assert queue.pop() == -1
    queue.push(1, 1)
    assert queue.discard(1, 1)
    assert not queue._heap


def test_what_is_granted_to_one_who_leaves_comes_back():
    counter: Counter[str, int] = Counter()
    assert counter.offer(1) is None
    counter.join("a", 1)
    counter.join("b", 0)
    assert counter.offer(1) == "b"
    assert (len(counter), counter.granted) == (1, 1)
    assert counter.leave("b") == 1
    assert counter.leave("b") is None
    assert counter.offer(1) == "a"
    assert counter.take("a") == 1
    assert (len(counter), counter.granted) == (0, 0)
    with pytest.raises(KeyError):
        counter.take("a")
    counter.join("c", 1)
    assert counter.leave("c") is None
    assert len(counter) == 0
