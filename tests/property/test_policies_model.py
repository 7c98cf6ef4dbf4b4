"""Every policy against its definition, recomputed for every task at every decision."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import count
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from procession.errors import DeadlineMissed
from procession.scheduler import EarliestDeadline, FairShare, Fifo, MultiLevelFeedback, PriorityAging, TimeSlice
from procession.scheduler._entry import Entry
from tests.helpers.desk import PROGRAMS, STEP, TENANTS, Desk, of

# Explaining a failure may take longer than a test may; the smallest example says enough.
MANY = settings(max_examples=500, deadline=None, phases=set(Phase) - {Phase.explain})


class Fact:
    """What a model knows of one task."""

    def __init__(self, number: int, priority: int, tenant: str, deadline: float | None, estimate: float | None) -> None:
        self.number, self.priority, self.tenant = number, priority, tenant
        self.deadline, self.estimate = deadline, estimate
        self.arrived: Fraction | None = None
        self.since = Fraction(0)


class Model:
    """Who waits and who runs. A subclass says who of those that wait is next, from all it knows."""

    def __init__(self) -> None:
        self.now = Fraction(0)
        self.waiting: dict[int, Fact] = {}
        self.running: dict[int, Fact] = {}

    def key(self, fact: Fact) -> Any:
        raise NotImplementedError

    def pick(self) -> int:
        return min(self.waiting.values(), key=self.key).number

    def arrives(self, fact: Fact) -> None:
        if fact.arrived is None:
            fact.arrived = self.now
            self.is_new(fact)
        self.waiting[fact.number] = fact

    def starts(self, number: int) -> None:
        self.running[number] = fact = self.waiting.pop(number)
        fact.since = self.now

    def stops(self, number: int, *, back: bool) -> None:
        fact = self.running.pop(number)
        self.ran(fact, self.now - fact.since)
        if back:
            self.waiting[number] = fact

    def leaves(self, number: int) -> None:
        del self.waiting[number]

    # What else a subclass may want to know.

    def is_new(self, fact: Fact) -> None:
        pass

    def ran(self, fact: Fact, time: Fraction) -> None:
        pass

    def used_up(self, fact: Fact) -> None:
        pass

    def passes(self, now: Fraction) -> None:
        self.now = now

    def quantum(self, fact: Fact) -> float | None:
        return None


class FifoModel(Model):
    def key(self, fact: Fact) -> Any:
        return fact.arrived, fact.number


class AgingModel(Model):
    """The effective priority of everybody, now."""

    def __init__(self, factor: Fraction) -> None:
        super().__init__()
        self.factor = factor

    def key(self, fact: Fact) -> Any:
        assert fact.arrived is not None
        return fact.priority - self.factor * (self.now - fact.arrived), fact.number


class SliceModel(Model):
    """A line; the tail is whoever joined it last."""

    def __init__(self) -> None:
        super().__init__()
        self.line: list[int] = []

    def is_new(self, fact: Fact) -> None:
        self.line.append(fact.number)

    def used_up(self, fact: Fact) -> None:
        self.line.remove(fact.number)
        self.line.append(fact.number)

    def key(self, fact: Fact) -> Any:
        return self.line.index(fact.number)

    def quantum(self, fact: Fact) -> float | None:
        return 0.5


class FeedbackModel(Model):
    """A list for each level, and a boost that goes through all of them."""

    def __init__(self, quanta: list[float], boost: float | None) -> None:
        super().__init__()
        self.quanta = quanta
        self.boost = boost
        self.next: Fraction | None = None
        self.levels: list[list[int]] = [[] for _ in quanta]
        self.used: dict[int, Fraction] = {}
        self.place: dict[int, int] = {}
        self.places = count()

    def arrives(self, fact: Fact) -> None:
        super().arrives(fact)
        if self.next is None and self.boost is not None:
            self.next = self.now + Fraction(self.boost)

    def is_new(self, fact: Fact) -> None:
        self.levels[0].append(fact.number)
        self.place[fact.number] = next(self.places)
        self.used[fact.number] = Fraction(0)

    def level(self, fact: Fact) -> int:
        return next(index for index, level in enumerate(self.levels) if fact.number in level)

    def used_up(self, fact: Fact) -> None:
        level = self.level(fact)
        self.levels[level].remove(fact.number)
        self.levels[min(level + 1, len(self.levels) - 1)].append(fact.number)
        self.place[fact.number] = next(self.places)
        self.used[fact.number] = Fraction(0)
        fact.since = self.now

    def ran(self, fact: Fact, time: Fraction) -> None:
        self.used[fact.number] += time

    def quantum(self, fact: Fact) -> float | None:
        return float(max(Fraction(0.001), Fraction(self.quanta[self.level(fact)]) - self.used[fact.number]))

    def passes(self, now: Fraction) -> None:
        while self.next is not None and self.next <= now:
            self.levels = [sorted(self.place, key=self.place.__getitem__), *([] for _ in self.quanta[1:])]
            self.used = dict.fromkeys(self.used, Fraction(0))
            for fact in self.running.values():
                fact.since = self.next
            assert self.boost is not None
            self.next += Fraction(self.boost)
        super().passes(now)

    def key(self, fact: Fact) -> Any:
        level = self.level(fact)
        return level, self.levels[level].index(fact.number)


class FairModel(Model):
    """The seconds each tenant was served, from the list of all runs there ever were."""

    def __init__(self, weights: dict[str, float], nominal: float) -> None:
        super().__init__()
        self.weights = {tenant: Fraction(str(weights.get(tenant, 1.0))) for tenant in TENANTS}
        self.nominal = nominal
        self.runs: list[tuple[str, Fraction]] = []
        self.raised = dict.fromkeys(TENANTS, Fraction(0))
        self.idle_since: dict[str, Fraction] = {}
        self.floor = Fraction(0)

    def _sum(self, tenant: str, running: Callable[[Fact], Fraction]) -> Fraction:
        over = sum((time for name, time in self.runs if name == tenant), Fraction(0))
        more = sum((running(fact) for fact in self.running.values() if fact.tenant == tenant), Fraction(0))
        return (over + more) / self.weights[tenant] + self.raised[tenant]

    def real(self, tenant: str) -> Fraction:
        return self._sum(tenant, lambda fact: self.now - fact.since)

    def charged(self, tenant: str) -> Fraction:
        return self._sum(tenant, lambda fact: Fraction(fact.estimate or self.nominal))

    def active(self) -> set[str]:
        return {fact.tenant for facts in (self.waiting, self.running) for fact in facts.values()}

    def arrives(self, fact: Fact) -> None:
        active = self.active()
        if fact.tenant not in active and self.idle_since.get(fact.tenant) != self.now:
            floor = min((self.real(tenant) for tenant in active), default=self.floor)
            self.raised[fact.tenant] += max(Fraction(0), floor - self.real(fact.tenant))
        super().arrives(fact)

    def ran(self, fact: Fact, time: Fraction) -> None:
        self.runs.append((fact.tenant, time))

    def stops(self, number: int, *, back: bool) -> None:
        tenant = self.running[number].tenant
        super().stops(number, back=back)
        self._rests(tenant)

    def leaves(self, number: int) -> None:
        tenant = self.waiting[number].tenant
        super().leaves(number)
        self._rests(tenant)

    def _rests(self, tenant: str) -> None:
        active = self.active()
        if tenant not in active:
            self.idle_since[tenant] = self.now
            if not active:
                self.floor = self.real(tenant)

    def key(self, fact: Fact) -> Any:
        return self.charged(fact.tenant), fact.priority, fact.arrived, fact.number


class DeadlineModel(Model):
    def key(self, fact: Fact) -> Any:
        return fact.deadline is None, fact.arrived if fact.deadline is None else fact.deadline, fact.number


# ----------------------------------------------------------------------------------------- the comparison


class Comparison:
    """Does to the dispatcher and to the model what a program says, and compares every decision."""

    def __init__(self, policy: Any, model: Model, slots: int) -> None:
        self.desk = Desk(policy, slots)
        self.model = model
        self.facts: dict[Entry, Fact] = {}

    def run(self, program: list[Any]) -> None:
        desk = self.desk
        for name, *args in program:
            getattr(self, name)(*args)
            desk.check()
        for entry in list(desk.away):
            self._arrive(entry)
        while len(desk.dispatcher.queue) or desk.dispatcher.running:
            for entry in desk.running:
                self._finish(entry)
            self.next(0)
            desk.check()
            self.elapse(0)
        assert len(desk.fates) == desk.made
        assert not self.model.waiting
        assert not self.model.running

    def submit(self, priority: int, tenant: str, deadline: float | None, estimate: float | None) -> None:
        due = None if deadline is None else self.desk.now + deadline
        entry = self.desk.submit(priority, tenant, due, estimate)
        self.facts[entry] = fact = Fact(entry.number, priority, tenant, due, estimate)
        self.model.arrives(fact)

    def next(self, which: int) -> None:
        desk, model = self.desk, self.model
        free = len(desk.dispatcher.running) < desk.dispatcher.resources.total
        expected = model.pick() if model.waiting and free else None
        entry = desk.next()
        assert (None if entry is None else entry.number) == expected
        if entry is not None:
            model.starts(entry.number)
            assert desk.policy.quantum(entry) == model.quantum(self.facts[entry])

    def finish(self, which: int) -> None:
        if (entry := of(self.desk.running, which)) is not None:
            self._finish(entry)

    def _finish(self, entry: Entry) -> None:
        self.desk.finish(entry)
        self.model.stops(entry.number, back=False)

    def serve(self, which: int) -> None:
        """The next one runs from beginning to end, before anything else happens."""
        self.next(0)
        self.elapse(which)
        if self.desk.starts and (entry := self.desk.starts[-1]) in self.desk.dispatcher.running:
            self._finish(entry)

    def fail(self, which: int) -> None:
        if (entry := of(self.desk.running, which)) is not None:
            self.desk.fail(entry)
            self.model.stops(entry.number, back=False)

    def arrive(self, which: int) -> None:
        if (entry := of(list(self.desk.away), which)) is not None:
            self._arrive(entry)

    def _arrive(self, entry: Entry) -> None:
        self.desk.arrive(entry)
        self.model.arrives(self.facts[entry])

    def suspend(self, which: int) -> None:
        if (entry := of(self.desk.running, which)) is not None:
            self.desk.suspend(entry)
            self.model.stops(entry.number, back=True)

    def requeue(self, which: int) -> None:
        if (entry := of(self.desk.running, which)) is not None:
            self.desk.requeue(entry)
            self.model.stops(entry.number, back=True)

    def slice(self, which: int) -> None:
        """The quantum is over and others wait."""
        self.go_on(which)
        self.suspend(which)

    def go_on(self, which: int) -> None:
        """The quantum is over and nobody waits."""
        if (entry := of(self.desk.running, which)) is not None:
            self.desk.used_up(entry)
            self.model.used_up(self.facts[entry])
            assert self.desk.policy.quantum(entry) == self.model.quantum(self.facts[entry])

    def cancel(self, which: int) -> None:
        if (entry := of(self.desk.waiting, which)) is not None:
            self.desk.cancel(entry)
            self.model.leaves(entry.number)

    def reprioritise(self, which: int) -> None:
        priority = which % 5
        if (entry := of(self.desk.waiting, which)) is not None:
            self.desk.dispatcher.reprioritise(entry, priority)
            self.facts[entry].priority = priority

    def elapse(self, which: int) -> None:
        self.desk.pass_time(which % 20 * STEP)
        self.model.passes(Fraction(self.desk.now))


def compare(policy: Any, model: Model, slots: int, program: list[Any]) -> None:
    Comparison(policy, model, slots).run(program)


SLOTS = st.integers(1, 3)


@pytest.mark.row("SC2")
@MANY
@given(SLOTS, PROGRAMS)
def test_fifo(slots: int, program: list[Any]) -> None:
    compare(Fifo(), FifoModel(), slots, program)


@pytest.mark.row("SC3")
@MANY
@given(st.sampled_from(["0", "0.05", "0.1", "0.25", "0.5", "1", "2", "8"]), SLOTS, PROGRAMS)
def test_priority_aging(factor: str, slots: int, program: list[Any]) -> None:
    compare(PriorityAging(float(factor)), AgingModel(Fraction(factor)), slots, program)


@pytest.mark.row("SC4")
@MANY
@given(SLOTS, PROGRAMS)
def test_time_slice(slots: int, program: list[Any]) -> None:
    compare(TimeSlice(0.5), SliceModel(), slots, program)


@pytest.mark.row("SC4")
@MANY
@given(
    st.sampled_from([[1.0], [0.5, 1.0], [0.25, 0.5, 2.0], [1.0, 0.5, 0.25, 4.0]]),
    st.sampled_from([None, 0.25, 2.0, 5.0]),
    SLOTS,
    PROGRAMS,
)
def test_multi_level_feedback(quanta: list[float], boost: float | None, slots: int, program: list[Any]) -> None:
    compare(MultiLevelFeedback(quantum=quanta, boost=boost), FeedbackModel(quanta, boost), slots, program)


WEIGHTS = st.dictionaries(st.sampled_from(TENANTS), st.sampled_from([0.1, 0.5, 1.0, 2.0, 2.5, 3.0, 7.0]))


@pytest.mark.row("SC4")
@MANY
@given(WEIGHTS, st.sampled_from([0.125, 1.0, 4.0]), SLOTS, PROGRAMS)
def test_fair_share(weights: dict[str, float], nominal: float, slots: int, program: list[Any]) -> None:
    compare(FairShare(weights, nominal=nominal), FairModel(weights, nominal), slots, program)


@pytest.mark.row("SC4")
@MANY
@given(SLOTS, PROGRAMS)
def test_earliest_deadline(slots: int, program: list[Any]) -> None:
    compare(EarliestDeadline(), DeadlineModel(), slots, program)


# ---------------------------------------------------------------------------------------------- admission


class AdmissionModel(DeadlineModel):
    """All accepted work by deadline, added up anew for every question."""

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.accepted: dict[int, Fact] = {}
        self.left: dict[int, Fraction] = {}

    def rest(self, fact: Fact) -> Fraction:
        left = self.left[fact.number]
        return max(Fraction(0), left - (self.now - fact.since)) if fact.number in self.running else left

    def late(self, new: Fact) -> Fraction:
        """By how much at worst, 0 or less if not at all."""
        assert new.deadline is not None
        assert new.estimate is not None
        worst = self.now + Fraction(new.estimate) - Fraction(new.deadline)
        for last in {new.deadline, *(fact.deadline for fact in self.accepted.values())}:
            assert last is not None
            if last >= new.deadline:
                due = sum(
                    (self.rest(fact) for fact in self.accepted.values() if (fact.deadline or 0) <= last), Fraction()
                )
                worst = max(worst, (due + Fraction(new.estimate)) / self.slots - (Fraction(last) - self.now))
        return worst

    def ran(self, fact: Fact, time: Fraction) -> None:
        if fact.number in self.left:
            self.left[fact.number] = max(Fraction(0), self.left[fact.number] - time)


class Admission(Comparison):
    model: AdmissionModel

    def submit(self, priority: int, tenant: str, deadline: float | None, estimate: float | None) -> None:
        desk, model = self.desk, self.model
        if tenant != "d":  # most have both
            deadline, estimate = deadline or 5.0, estimate or 1.0
        due = None if deadline is None else desk.now + 2 * deadline
        entry = desk.make(priority, tenant, due, estimate)
        fact = Fact(entry.number, priority, tenant, due, estimate)
        if due is None or estimate is None:
            desk.accept(entry)
        else:
            late = model.late(fact)
            before = repr(_plain(desk.policy))
            if late > 0:
                with pytest.raises(DeadlineMissed) as caught:
                    desk.accept(entry)
                assert (caught.value.phase, caught.value.deadline) == ("admission", due)
                assert caught.value.late == pytest.approx(float(late), abs=2e-9)
                assert repr(_plain(desk.policy)) == before
                desk.made -= 1  # the next one has its number
                return
            desk.accept(entry)
            model.accepted[entry.number] = fact
            model.left[entry.number] = Fraction(estimate)
        self.facts[entry] = fact
        if priority % 2:
            self._arrive(entry)

    def _finish(self, entry: Entry) -> None:
        super()._finish(entry)
        self._forget(entry)

    def cancel(self, which: int) -> None:
        entry = of([*self.desk.waiting, *self.desk.away], which)
        if entry is not None:
            if entry not in self.desk.away:
                self.model.leaves(entry.number)
            self.desk.cancel(entry)
            self._forget(entry)

    def requeue(self, which: int) -> None:
        entry = of(self.desk.running, which)
        super().requeue(which)
        self._anew(entry)

    def fail(self, which: int) -> None:
        entry = of(self.desk.running, which)
        super().fail(which)
        self._anew(entry)

    def _anew(self, entry: Entry | None) -> None:
        if entry is not None and entry.number in self.model.left:
            self.model.left[entry.number] = Fraction(self.facts[entry].estimate or 0)

    def _forget(self, entry: Entry) -> None:
        self.model.accepted.pop(entry.number, None)
        self.model.left.pop(entry.number, None)


def _plain(value: Any) -> Any:
    """All an object holds, as something that can be compared."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    names = getattr(value, "__slots__", None) or list(getattr(value, "__dict__", {}))
    return {name: _plain(getattr(value, name)) for name in names} if names else value


@pytest.mark.row("SC4")
@MANY
@given(SLOTS, st.sampled_from([2, 3, 256]), PROGRAMS)
def test_admission(slots: int, block: int, program: list[Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procession.scheduler._policies._demand._MOST", block)  # many blocks with few tasks
        policy = EarliestDeadline(admission=True, slots=slots)
        comparison = Admission(policy, AdmissionModel(slots), slots)
        comparison.run(program)
    assert not len(policy._demand)
    assert not policy._outside


@pytest.mark.row("SC4")
@MANY
@given(st.lists(st.tuples(st.integers(1, 80), st.integers(0, 24)), min_size=1, max_size=30))
def test_with_one_slot_what_is_admitted_at_once_is_in_time_and_what_is_not_was_too_much(jobs: list[Any]) -> None:
    desk = Desk(EarliestDeadline(admission=True, slots=1))
    accepted: list[tuple[float, float]] = []
    for due, work in jobs:
        deadline, estimate = due * STEP, work * STEP

        def ends(extra: list[tuple[float, float]]) -> list[tuple[float, float]]:
            now, found = 0.0, []
            for by, length in sorted(accepted + extra):
                now += length
                found.append((now, by))
            return found

        fits = all(end <= by for end, by in ends([(deadline, estimate)]))
        try:
            desk.submit(2, "", deadline, estimate)
        except DeadlineMissed:
            assert not fits
        else:
            assert fits
            accepted.append((deadline, estimate))
    while (entry := desk.next()) is not None:
        desk.pass_time(entry.estimate or 0.0)
        assert entry.deadline is not None
        assert desk.now <= entry.deadline
        desk.finish(entry)


# ---------------------------------------------------------------------------------------------- bounds


@pytest.mark.row("SC3")
@MANY
@given(
    st.sampled_from(["0.1", "0.25", "0.5", "1", "2"]),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3), st.integers(1, 12)), min_size=1, max_size=6),
)
def test_nothing_starves_however_much_urgent_work_keeps_coming(factor: str, own: int, arrivals: list[Any]) -> None:
    """The slot is never idle before it starts, so it waits for what is ahead of it; and nothing gets ahead of it that
    comes more than the difference of the priorities, divided by the factor, later than it did."""
    desk, rate = Desk(PriorityAging(float(factor))), Fraction(factor)
    service: dict[Entry, float] = {desk.submit(0): 1.0}
    came: dict[Entry, float] = {}
    desk.next()
    patient = desk.submit(own)
    service[patient] = 1.0
    (running,) = desk.running
    ends, comes, index = 1.0, arrivals[0][0] * STEP, 0
    while patient not in desk.starts:
        assert index < 5_000
        if comes < ends:
            _, priority, length = arrivals[index % len(arrivals)]
            index += 1
            desk.pass_time(comes - desk.now)
            urgent = desk.submit(min(priority, own - 1))
            service[urgent], came[urgent] = length * STEP, desk.now
            comes += arrivals[index % len(arrivals)][0] * STEP
        else:
            desk.pass_time(ends - desk.now)
            desk.finish(running)
            started = desk.next()
            assert started is not None
            running, ends = started, desk.now + service[started]
    ahead = [entry for entry in came if came[entry] < (own - entry.priority) / rate]
    assert set(desk.starts) - {desk.starts[0], patient} <= set(ahead)
    assert desk.now <= 1.0 + sum(service[entry] for entry in ahead)


@pytest.mark.row("SC4")
@MANY
@given(
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.lists(st.integers(1, 16), min_size=5, max_size=40),
    st.lists(st.integers(1, 16), min_size=5, max_size=40),
    st.booleans(),
)
def test_shares_of_busy_tenants_differ_by_no_more_than_a_task_each(
    weight: float, ours: list[int], theirs: list[int], estimated: bool
) -> None:
    desk = Desk(FairShare({"a": weight}))
    weights = {"a": weight, "b": 1.0}
    lengths: dict[Entry, float] = {}
    for tenant, jobs in (("a", ours), ("b", theirs)):
        for job in jobs:
            lengths[desk.submit(2, tenant, None, job * STEP if estimated else None)] = job * STEP
    served = dict.fromkeys(weights, 0.0)
    most = 16 * STEP * sum(1 / one for one in weights.values())
    while {entry.tenant for entry in desk.waiting} == {"a", "b"}:
        entry = desk.next()
        assert entry is not None
        desk.pass_time(lengths[entry])
        desk.finish(entry)
        served[entry.tenant] += lengths[entry] / weights[entry.tenant]
        assert abs(served["a"] - served["b"]) <= most + 1e-9
