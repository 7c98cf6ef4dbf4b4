"""When enough will be free, as far as estimates tell."""

import pytest

from procession.scheduler._backfill import Ends, Reservation
from procession.scheduler._entry import Entry
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

SPEC = Spec()


class Rig:
    def __init__(self):
        self.resources = Resources(10, {"cpu_cores": 8})
        self.ends = Ends(self.resources)
        self.number = 0

    def run(self, cpu, until=None):
        self.number += 1
        entry = Entry(self.number, 2, self.resources.shape({"cpu_cores": cpu}), SPEC)
        self.resources.take(entry.shape.need)
        if until is not None:
            self.ends.add(entry, until)
        return entry

    def reserve(self, cpu, now=0.0, promised=0):
        return self.ends.reserve(self.resources.shape({"cpu_cores": cpu}).need, now, promised)

    def left(self, reservation):
        return self.resources.amount(reservation.extra, "cpu_cores")


@pytest.fixture
def rig():
    return Rig()


@pytest.mark.row("SC6")
def test_the_reservation_is_at_the_first_end_that_leaves_enough(rig):
    rig.run(2, until=30.0)
    rig.run(2, until=10.0)
    rig.run(4, until=20.0)
    at = {cpu: rig.reserve(cpu) for cpu in (2, 3, 6, 7, 8)}
    assert {cpu: one.at for cpu, one in at.items()} == {2: 10.0, 3: 20.0, 6: 20.0, 7: 30.0, 8: 30.0}
    assert {cpu: rig.left(one) for cpu, one in at.items()} == {2: 0, 3: 3, 6: 0, 7: 1, 8: 0}


@pytest.mark.row("SC6")
def test_all_that_ends_at_that_time_leaves_its_share(rig):
    rig.run(4, until=10.0)
    rig.run(4, until=10.0)
    found = rig.reserve(2)
    assert (found.at, rig.left(found)) == (10.0, 6)


@pytest.mark.row("SC6")
def test_without_estimates_nobody_can_tell(rig):
    rig.run(4)
    rig.run(4, until=10.0)
    assert rig.reserve(4) is not None
    assert rig.reserve(5) is None


@pytest.mark.row("SC6")
def test_what_has_run_for_longer_than_its_estimate_tells_nothing(rig):
    rig.run(8, until=10.0)
    assert rig.reserve(1, now=10.0) is not None
    assert rig.reserve(1, now=10.5) is None


@pytest.mark.row("SC6")
def test_what_was_told_to_stop_counts_at_once(rig):
    stopping = rig.run(8)
    found = rig.reserve(3, now=5.0, promised=stopping.shape.need)
    assert found == Reservation(
        5.0, rig.resources.open + stopping.shape.need - rig.resources.shape({"cpu_cores": 3}).need
    )


def test_what_has_ended_is_forgotten_and_only_that(rig):
    entries = [rig.run(1, until=10.0) for _ in range(4)]
    rig.ends.discard(entries[2])
    rig.ends.discard(entries[2])
    rig.ends.discard(rig.run(1))
    assert len(rig.ends) == 3
    assert [number for _, number, _, _ in rig.ends._ends] == [1, 2, 4]
