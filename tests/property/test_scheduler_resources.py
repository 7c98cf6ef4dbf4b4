"""Resources and victims against models that count in fractions and try every choice."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession.scheduler import _resources
from procession.scheduler._config import Preemption
from procession.scheduler._entry import Entry
from procession.scheduler._preempt import Victims
from procession.scheduler._resources import Resources
from procession.scheduler._spec import Spec

MANY = settings(max_examples=500, deadline=None)
NAMES = ("cpu_cores", "memory_mb", "gpu", "own")
TENTHS = st.sampled_from([0, 0.1, 0.2, 0.3, 0.7, 1 / 3, 1, 2, 1e-6, 2.000001])
ANY = st.floats(0, 1e12, allow_subnormal=False).filter(lambda amount: amount == 0 or amount >= 1e-6)


def exactly(amount: float) -> int:
    return round(amount * 1_000_000)


@pytest.mark.row("SC5")
@MANY
@given(st.data())
def test_taking_and_giving_never_drifts_and_never_takes_too_much(data):
    amounts = data.draw(st.sampled_from([TENTHS, ANY]))
    totals = data.draw(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, amounts)))
    slots = data.draw(st.integers(1, 5))
    resources = Resources(slots, totals)
    full = {"slots": slots, **{name: exactly(amount) for name, amount in totals.items()}}
    free = dict(full)
    held: list[tuple[int, dict[str, int]]] = []
    for _ in range(data.draw(st.integers(0, 25))):
        if held and data.draw(st.booleans()):
            need, units = held.pop(data.draw(st.integers(0, len(held) - 1)))
            resources.give(need)
            free = {name: free[name] + units[name] for name in free}
        else:
            wanted = {
                name: amount
                for name in totals
                if exactly(amount := data.draw(amounts) / data.draw(st.sampled_from([1, 3]))) <= full[name]
                and (amount == 0 or exactly(amount))
            }
            need = resources.shape(wanted).need
            units = {"slots": 1, **{name: exactly(wanted.get(name, 0)) for name in totals}}
            assert {name: resources.amount(need, name) for name in units} == {
                name: float(Fraction(count, 1 if name == "slots" else 1_000_000)) for name, count in units.items()
            }
            fits = all(units[name] <= free[name] for name in free)
            assert resources.fits(need) is fits
            lacking = {name for name in free if units[name] > free[name]}
            assert set(resources.lacking(need)) == lacking
            for name, (needed, there) in resources.lacking(need).items():
                unit = 1 if name == "slots" else 1_000_000
                assert (needed, there) == (units[name] / unit, free[name] / unit)
            if fits:
                resources.take(need)
                held.append((need, units))
                free = {name: free[name] - units[name] for name in free}
        assert all(0 <= free[name] <= full[name] for name in full)
        assert resources.allocated == sum(need for need, _ in held)
        for name, count in free.items():
            assert resources.amount(resources.open, name) == count / (1 if name == "slots" else 1_000_000)
    for need, _ in held:
        resources.give(need)
    assert (resources.allocated, resources.open) == (0, resources.total + resources.guard)


@pytest.mark.row("SC5")
@MANY
@given(
    st.lists(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9)), max_size=30),
    st.integers(1, 8),
    st.sets(st.sampled_from(NAMES)),
)
def test_equal_needs_have_one_shape_as_long_as_it_is_remembered(wanted, known, kept):
    resources = Resources(4, dict.fromkeys(NAMES, 9), kept)
    before, _resources._KNOWN_SHAPES = _resources._KNOWN_SHAPES, known
    try:
        for needs in wanted:
            shape = resources.shape(needs)
            assert resources.shape(dict(reversed(needs.items()))) is shape
            assert resources.amounts(shape.need) == {name: needs.get(name, 0) for name in NAMES}
            rest = {name: 0 if name in kept else needs.get(name, 0) for name in NAMES}
            assert resources.amounts(shape.resume.need) == rest
            assert resources.amount(shape.resume.need, "slots") == 1
            assert len(resources._shapes) <= known
    finally:
        _resources._KNOWN_SHAPES = before


# ---------------------------------------------------------------------------------------------------- victims

HOLDS = st.fixed_dictionaries(
    {"cpu_cores": st.integers(0, 3), "gpu": st.integers(0, 2), "memory_mb": st.integers(0, 2)}
)
RUNNING = st.tuples(
    st.integers(0, 4), st.integers(0, 3), HOLDS, st.sampled_from([Preemption.SUSPEND, Preemption.REQUEUE])
)


@pytest.mark.row("SC7")
@MANY
@given(st.lists(RUNNING, max_size=7), st.integers(-1, 4), HOLDS, st.integers(0, 2), st.integers(0, 2), st.data())
def test_the_victims_are_those_that_spare_the_most_urgent(running, priority, wanted, spare, promised, data):
    used = {name: sum(holds[name] for _, _, holds, _ in running) for name in wanted}
    free = {name: data.draw(st.integers(0, 2)) for name in wanted}
    totals = {name: max(1, wanted[name], used[name] + free[name]) for name in wanted}
    resources = Resources(len(running) + max(1, spare), totals)
    victims = Victims(resources)
    entries = []
    for number, (level, started_at, holds, mode) in enumerate(running):
        entry = Entry(number, level, resources.shape(holds), Spec(preemption=mode))
        entry.started_at = float(started_at)
        entry.holds = entry.whole.need
        resources.take(entry.holds)
        victims.add(entry)
        entries.append(entry)
    coming = sum(entry.holds for entry in entries[:promised])
    for entry in entries[:promised]:
        victims.discard(entry)
    head = Entry(99, priority, resources.shape(wanted), Spec())

    def suffices(chosen):
        room = resources.open + coming + sum(victims.gain(entry) for entry in chosen)
        return (room - head.shape.need) & resources.guard == resources.guard

    found = victims.plan(head, coming)
    if suffices([]):
        return  # nobody asks then
    # The most urgent first, and of those the one that has run the longest: they are to be spared.
    ranked = sorted(entries[promised:], key=lambda entry: (entry.priority, entry.started_at, entry.number))
    candidates = [entry for entry in ranked if entry.priority > priority]
    choices = [
        chosen for size in range(len(candidates) + 1) for chosen in combinations(candidates, size) if suffices(chosen)
    ]
    if not choices:
        assert found == []
        return
    best = min(choices, key=lambda chosen: [entry in chosen for entry in candidates])
    assert found == list(reversed(best))
    assert all(entry.priority > priority for entry in found)
    assert suffices(found)
    assert not any(suffices([other for other in found if other is not entry]) for entry in found)
