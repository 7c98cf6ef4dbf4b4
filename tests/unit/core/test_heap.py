"""What is due when, and how little is left of what was taken out."""

from procession._core.heap import Agenda


def test_things_come_when_they_are_due_the_earliest_first():
    agenda: Agenda[str] = Agenda()
    agenda.add(3.0, "c")
    agenda.add(1.0, "a")
    agenda.add(2.0, "b")
    assert (len(agenda), agenda.next_at()) == (3, 1.0)
    assert agenda.pop_due(0.5) is None
    assert [agenda.pop_due(2.0) for _ in range(3)] == ["a", "b", None]
    assert (len(agenda), agenda.next_at()) == (1, 3.0)


def test_things_due_at_once_come_in_the_order_they_were_added():
    agenda: Agenda[int] = Agenda()
    for number in range(20):
        agenda.add(1.0, number)
    assert [agenda.pop_due(1.0) for _ in range(20)] == list(range(20))


def test_an_empty_agenda_has_nothing_due():
    agenda: Agenda[str] = Agenda()
    assert (len(agenda), agenda.next_at(), agenda.pop_due(1e9)) == (0, None, None)


def test_what_is_taken_out_does_not_come_and_taking_it_out_again_does_nothing():
    agenda: Agenda[str] = Agenda()
    first, _ = agenda.add(1.0, "a"), agenda.add(2.0, "b")
    agenda.discard(first)
    agenda.discard(first)
    assert (first.item, len(agenda), agenda.next_at()) == (None, 1, 2.0)
    assert [agenda.pop_due(9.0), agenda.pop_due(9.0)] == ["b", None]
    assert len(agenda) == 0


def test_what_has_come_cannot_be_taken_out_any_more():
    agenda: Agenda[str] = Agenda()
    timer = agenda.add(1.0, "a")
    agenda.add(2.0, "b")
    assert agenda.pop_due(1.0) == "a"
    agenda.discard(timer)
    assert len(agenda) == 1


def test_the_dead_are_swept_out_once_they_are_more_than_half():
    agenda: Agenda[int] = Agenda()
    timers = [agenda.add(float(number), number) for number in range(1000)]
    for timer in timers[1:]:  # the first stays, so that nothing is swept away by looking at it
        agenda.discard(timer)
        assert len(agenda._heap) <= 2 * len(agenda) + 65
    assert agenda.pop_due(0.0) == 0
    assert agenda.next_at() is None
    assert not agenda._heap


def test_the_order_survives_a_sweep():
    agenda: Agenda[int] = Agenda()
    timers = [agenda.add(float(-number % 17), number) for number in range(400)]
    for timer in timers[:300]:
        agenda.discard(timer)
    expected = [number for _, number in sorted((-number % 17, number) for number in range(300, 400))]
    assert [agenda.pop_due(99.0) for _ in range(100)] == expected
