"""Resources as one integer: exact, compared and taken in one operation."""

import math
import sys

import pytest

from procession.errors import ConfigError, InsufficientResources
from procession.scheduler import _resources
from procession.scheduler._resources import Resources


def make(slots=4, kept=None, **totals):
    return Resources(slots, totals or {"cpu_cores": 4, "memory_mb": 1000, "gpu": 1}, kept)


@pytest.mark.row("SC5")
def test_what_is_taken_is_given_back_exactly():
    resources = make(cpu_cores=0.3, memory_mb=1e12)
    need = resources.shape({"cpu_cores": 0.1, "memory_mb": 0.000001}).need
    for _ in range(3):
        assert resources.fits(need)
        resources.take(need)
    assert not resources.fits(need)
    assert resources.amounts(resources.allocated) == {"cpu_cores": 0.3, "memory_mb": 0.000003}
    for _ in range(3):
        resources.give(need)
    assert (resources.allocated, resources.open) == (0, resources.total | resources.guard)


@pytest.mark.row("SC5")
def test_every_task_takes_a_slot():
    resources = make(slots=2)
    for _ in range(2):
        resources.take(resources.plain.need)
    assert not resources.fits(resources.plain.need)
    assert resources.lacking(resources.plain.need) == {"slots": (1.0, 0.0)}
    assert resources.amount(resources.allocated, "slots") == 2.0


@pytest.mark.row("SC5")
def test_what_is_lacking_is_told_by_name():
    resources = make()
    resources.take(resources.shape({"cpu_cores": 3, "gpu": 1}).need)
    need = resources.shape({"cpu_cores": 2, "memory_mb": 1000, "gpu": 0.5}).need
    assert resources.lacking(need) == {"cpu_cores": (2.0, 1.0), "gpu": (0.5, 0.0)}
    assert resources.lacking(resources.plain.need) == {}


@pytest.mark.row("SC5")
def test_the_largest_amounts_do_not_run_into_each_other():
    resources = Resources(2**31, {"a": 1e12, "b": 1e12, "c": 0})
    need = resources.shape({"a": 1e12, "b": 1e12}).need
    resources.take(need)
    assert resources.amounts(resources.open) == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert set(resources.lacking(need)) == {"a", "b"}
    resources.give(need)
    assert resources.lacking(need) == {}


@pytest.mark.parametrize("amount", [4.000001, 5, 1e300, 1e305, pytest.param(10**400, id="10^400")])
@pytest.mark.row("SC5")
def test_what_can_never_be_met_is_refused_at_once(amount):
    with pytest.raises(InsufficientResources) as caught:
        make().shape({"memory_mb": 1, "cpu_cores": amount})
    assert (caught.value.resource, caught.value.total) == ("cpu_cores", 4.0)
    assert caught.value.wanted == min(amount, sys.float_info.max)
    assert str(caught.value).startswith("cpu_cores: ")


@pytest.mark.parametrize(
    "wanted",
    [
        {"cpu_cores": -1},
        {"cpu_cores": math.nan},
        {"cpu_cores": math.inf},
        {"cpu_cores": True},
        {"cpu_cores": "2"},
        {"cpu_cores": None},
        {"cpu_cores": 1e-7},
        {"tpu": 1},
        {"slots": 1},
    ],
)
@pytest.mark.row("SC5")
def test_nonsense_is_refused_and_named(wanted):
    with pytest.raises(ConfigError) as caught:
        make().shape(wanted)
    assert caught.value.field == f"resources.{next(iter(wanted))}"


def test_what_is_no_mapping_is_refused():
    with pytest.raises(ConfigError) as caught:
        make().shape([("cpu_cores", 2)])
    assert caught.value.field == "resources"


def test_a_scheduler_without_resources_says_so():
    with pytest.raises(ConfigError, match="no resources at all"):
        Resources(1, {}).shape({"cpu_cores": 1})


def test_nobody_may_call_a_resource_slots():
    with pytest.raises(ConfigError) as caught:
        Resources(2, {"slots": 5})
    assert caught.value.field == "resources.slots"


def test_an_amount_of_zero_is_as_good_as_none():
    resources = make()
    assert resources.shape({"gpu": 0, "cpu_cores": 0.0}) is resources.plain


@pytest.mark.row("SC5")
def test_equal_requests_share_one_shape():
    resources = make()
    assert resources.shape({"cpu_cores": 1, "gpu": 1}) is resources.shape(
        {"gpu": 1.0, "cpu_cores": 1.0, "memory_mb": 0}
    )
    assert resources.shape({"cpu_cores": 1}) is not resources.shape({"cpu_cores": 2})


@pytest.mark.row("SC5")
def test_more_shapes_than_are_remembered_go_on_working():
    resources = make(memory_mb=10_000)
    first = resources.shape({"memory_mb": 1})
    for amount in range(2, _resources._KNOWN_SHAPES + 10):
        assert resources.amounts(resources.shape({"memory_mb": amount}).need) == {"memory_mb": amount}
        assert len(resources._shapes) <= _resources._KNOWN_SHAPES
    twin = resources.shape({"memory_mb": 1})
    assert twin is not first
    assert twin.need == first.need
    assert resources.plain.need == 1


@pytest.mark.row("SC7")
def test_a_stopped_process_keeps_its_memory_and_gives_back_slot_cores_and_network():
    resources = make(cpu_cores=4, memory_mb=1000, network_mbps=10, gpu=1)
    shape = resources.shape({"cpu_cores": 2, "memory_mb": 100, "network_mbps": 5, "gpu": 1})
    assert resources.amounts(shape.resume.need) == {"cpu_cores": 2, "memory_mb": 0, "network_mbps": 5, "gpu": 0}
    assert resources.amount(shape.resume.need, "slots") == 1
    assert shape.resume.resume is shape.resume
    assert shape.need & resources.released == shape.resume.need
    assert resources.plain.resume is resources.plain


@pytest.mark.row("SC7")
def test_what_a_stopped_process_keeps_can_be_chosen():
    resources = make(kept=["gpu"])
    shape = resources.shape({"cpu_cores": 2, "memory_mb": 100, "gpu": 1})
    assert resources.amounts(shape.resume.need) == {"cpu_cores": 2, "memory_mb": 100, "gpu": 0}
    assert make(kept=[]).shape({"gpu": 1}).resume.need == make(kept=[]).shape({"gpu": 1}).need


def test_only_what_there_is_can_be_kept():
    with pytest.raises(ConfigError) as caught:
        make(kept=["tpu", "gpu"])
    assert (caught.value.field, caught.value.value) == ("kept_when_suspended", ["tpu"])


@pytest.mark.row("SC5")
def test_what_was_asked_for_before_is_known_and_what_only_equals_it_is_refused():
    resources = make()
    first = resources.shape({"cpu_cores": 1, "gpu": 0})
    assert resources.shape({"cpu_cores": 1.0, "gpu": 0.0}) is first
    assert resources.shape({"gpu": 0, "cpu_cores": 1}) is first
    for wrong in ({"cpu_cores": True, "gpu": 0}, {"cpu_cores": 1, "gpu": False}, {"cpu_cores": [1]}):
        with pytest.raises(ConfigError):
            resources.shape(wrong)
