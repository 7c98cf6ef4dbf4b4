"""A breaker per key."""

import pytest

from procession.errors import ConfigError
from procession.recovery import BreakerConfig, BreakerRegistry, Fleet

pytestmark = pytest.mark.row("RE4")


def test_every_key_has_a_breaker_of_its_own():
    fleet = Fleet(BreakerConfig(open_for=5))
    one, two = fleet["one"], fleet.get("two")
    assert one is fleet["one"]
    assert one is not two
    one.open()
    assert {key: figures.state for key, figures in fleet.statistics().items()} == {"one": "open", "two": "closed"}
    assert list(fleet) == ["two", "one"]  # the one used last stands last
    assert ("one" in fleet, "three" in fleet, len(fleet)) == (True, False, 2)
    fleet.remove("one")
    fleet.remove("one")
    assert fleet["one"] is not one
    assert Fleet()
    assert BreakerRegistry is Fleet
    assert repr(fleet) == "<Fleet of 2 breakers>"


def test_the_closed_ones_unused_for_longest_go_first():
    fleet = Fleet(max_size=3)
    for key in ("a", "b", "c"):
        fleet[key].open() if key == "a" else fleet[key]
    fleet["b"]
    fleet["d"]
    assert list(fleet) == ["a", "b", "d"]
    fleet["b"].open()
    fleet["d"].open()
    fleet["e"]
    assert list(fleet) == ["b", "d", "e"]  # all were open: the oldest went


def test_keys_may_be_any_text():
    fleet = Fleet()
    for key in ("10.0.0.7", "10.0.0.7:8080", "http://host/path", "", "x" * 1000, "ä\ud800"):
        assert fleet[key] is fleet[key]
    names = [breaker.name for breaker in map(fleet.get, fleet)]
    assert len(set(names)) == 6
    assert "10.0.0.7" in names
    assert any(name.startswith("k10.0.0.7-8080-") for name in names)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("config", lambda: Fleet(3)),  # type: ignore[arg-type]
        ("max_size", lambda: Fleet(max_size=0)),
        ("max_size", lambda: Fleet(max_size=True)),
        ("key", lambda: Fleet()[3]),  # type: ignore[index]
    ],
)
def test_nonsense_is_refused(field, make):
    with pytest.raises(ConfigError) as caught:
        make()
    assert caught.value.field == field
