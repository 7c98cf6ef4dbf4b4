"""Durations, and the base of every description."""

import math

import pytest

from procession._core.config import Config, Seconds, config_error, seconds
from procession.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "taken"),
    [("1m30s", 90), ("250ms", 0.25), ("1h", 3600), ("2d", 172_800), ("1.5s", 1.5), ("1h 5s", 3605), (3, 3), (0.5, 0.5)],
)
def test_durations(given, taken):
    assert seconds(given) == taken
    assert isinstance(seconds(given), float)


@pytest.mark.parametrize("wrong", ["", "5", "s", "1x", "1m30", "-1s", -1, math.nan, math.inf, True, None, b"1s"])
def test_what_is_no_duration(wrong):
    with pytest.raises(ValueError, match="duration"):
        seconds(wrong)


class Example(Config):
    wait: Seconds = 1.0
    size: int = 3


def test_a_description_is_closed_and_frozen():
    example = Example(wait="2s")  # type: ignore[arg-type]
    assert example.wait == 2.0
    assert example.replace(size=4) == Example(wait=2, size=4)
    with pytest.raises(ConfigError) as caught:
        Example(colour="red")  # type: ignore[call-arg]
    assert caught.value.field == "colour"
    assert "size" in caught.value.hint
    with pytest.raises(ConfigError) as caught:
        Example(size="many")  # type: ignore[arg-type]
    assert (caught.value.field, caught.value.value) == ("size", "many")
    assert callable(config_error)
