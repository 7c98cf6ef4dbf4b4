"""When recurring tasks are due, as pure functions: without drift, and right over every change of the clock."""

import itertools
import os
import sys
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from procession.errors import ConfigError
from procession.scheduler._recurrence import Cron, Interval, Plan
from procession.scheduler._zone import LocalZone, zone_of

pytestmark = pytest.mark.row("SC8")

BERLIN = ZoneInfo("Europe/Berlin")
NEW_YORK = ZoneInfo("America/New_York")
HAVANA = ZoneInfo("America/Havana")  # its clock goes forward at midnight
DAY = 86400.0


def at(text: str, zone: tzinfo = UTC) -> float:
    """Seconds since the epoch; an offset in the text goes before the zone."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def times(cron: Cron, begin: float, end: float) -> list[float]:
    found: list[float] = []
    while (moment := cron.after(begin)) is not None and moment <= end:
        found.append(moment)
        begin = moment
    return found


def clock(moments: list[float], zone: tzinfo) -> list[str]:
    return [datetime.fromtimestamp(moment, zone).strftime("%d %H:%M%z")[:-2] for moment in moments]


# --------------------------------------------------------------------------------------------- intervals


def test_an_interval_is_counted_from_the_first_time_so_nothing_drifts():
    rule = Interval(10.0, 3.0)
    assert rule.following(3.0, 3.0) == Plan(13.0, 0)
    assert rule.following(3.0, 12.9) == Plan(13.0, 0)
    assert rule.following(13.0, 13.5) == Plan(23.0, 0)
    assert str(rule) == "every 10 s"


def test_what_lies_between_two_intervals_was_missed():
    rule = Interval(10.0, 0.0)
    assert rule.following(10.0, 45.0) == Plan(50.0, 3)
    assert rule.following(10.0, 50.0) == Plan(60.0, 4)
    assert rule.following(10.0, 1e9) == Plan(1e9 + 10.0, 99_999_999)


def test_a_run_that_comes_a_little_early_is_not_planned_again():
    assert Interval(10.0, 0.0).following(10.0, 9.9999) == Plan(20.0, 0)


def test_the_grace_of_an_interval_is_a_minute_at_most():
    assert Interval(0.5, 0.0).grace == 0.5
    assert Interval(3600.0, 0.0).grace == 60.0


@pytest.mark.parametrize("every", [0.0, 0.0009, -1.0, float("inf"), float("nan")])
def test_an_interval_that_is_none_is_refused(every):
    with pytest.raises(ConfigError, match=r"interval: .* at least 0\.001 s"):
        Interval(every, 0.0)


@given(
    every=st.floats(0.001, 1e6),
    first=st.floats(0, 1e7),
    index=st.integers(0, 10_000),
    later=st.floats(0, 1e6),
)
@example(every=0.1, first=0.0, index=3, later=0.6)
@example(every=0.1, first=0.1, index=0, later=0.7)
def test_the_next_interval_is_the_first_that_is_later_than_now(every, first, index, later):
    rule = Interval(every, first)
    planned = first + index * every
    now = planned + later
    plan = rule.following(planned, now)
    number = index + plan.missed + 1
    assert plan.at == first + number * every
    assert plan.at > now
    assert plan.missed == 0 or first + (number - 1) * every <= now


@given(every=st.floats(0.001, 1e4), first=st.floats(0, 1e6), index=st.integers(1, 1000))
def test_just_before_a_planned_time_that_one_is_next(every, first, index):
    rule, planned = Interval(every, first), first + index * every
    just_before = planned - 2e-10 * max(1.0, planned)
    if first <= just_before:
        assert rule.following(first, just_before) == Plan(planned, index - 1)


# --------------------------------------------------------------------------------- cron: the plain clock


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("*/5 * * * *", "2026-11-24T12:05"),
        ("0 * * * *", "2026-11-24T13:00"),
        ("30 2 * * *", "2026-11-25T02:30"),
        ("0 9 * * MON-FRI", "2026-11-25T09:00"),
        ("0 0 1 * *", "2026-12-01T00:00"),
        ("0 0 L * *", "2026-11-30T00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00"),
        ("0 12 13 * FRI", "2026-11-27T12:00"),  # neither day begins with a star: one of them is enough
        ("@hourly", "2026-11-24T13:00"),
        ("@Daily", "2026-11-25T00:00"),
        (" @midnight ", "2026-11-25T00:00"),
        ("@weekly", "2026-11-29T00:00"),
        ("@monthly", "2026-12-01T00:00"),
        ("@yearly", "2027-01-01T00:00"),
        ("@annually", "2027-01-01T00:00"),
    ],
)
def test_an_expression_says_what_is_next(expression, expected):
    assert Cron(expression, UTC).after(at("2026-11-24T12:03:20.5")) == at(expected)


def test_next_is_later_than_now_to_the_second():
    cron = Cron("*/5 * * * *", UTC)
    noon = at("2026-11-24T12:00")
    assert cron.after(noon - 0.001) == noon
    assert cron.after(noon) == noon + 300
    assert cron.after(noon + 0.001) == noon + 300


def test_what_lies_between_planned_times_was_missed():
    cron, noon = Cron("*/5 * * * *", UTC), at("2026-11-24T12:00")
    assert cron.following(noon, noon + 0.2) == Plan(noon + 300, 0)
    assert cron.following(noon, noon + 299) == Plan(noon + 300, 0)
    assert cron.following(noon, noon + 300) == Plan(noon + 600, 1)
    assert cron.following(noon, noon + DAY) == Plan(noon + DAY + 300, 288)


def test_a_leap_of_years_is_not_counted_to_the_end():
    cron, noon = Cron("* * * * *", UTC), at("2026-11-24T12:00")
    begun = time.process_time()
    assert cron.following(noon, noon + 3650 * DAY) == Plan(noon + 3650 * DAY + 60, 1000)
    assert time.process_time() - begun < 1.0


def test_a_clock_that_is_behind_the_planned_time_plans_nothing_before_it():
    cron, noon = Cron("*/5 * * * *", UTC), at("2026-11-24T12:00")
    assert cron.following(noon, noon - DAY) == Plan(noon + 300, 0)


def test_set_back_nothing_is_planned_up_to_what_was_dealt_with():
    cron, noon = Cron("*/5 * * * *", UTC), at("2026-11-24T12:00")
    assert cron.replanned(None, noon - DAY) == noon - DAY + 300
    assert cron.replanned(noon, noon - DAY) == noon + 300
    assert cron.replanned(noon, noon - 2 * DAY) == noon + 300
    assert cron.replanned(noon, noon + 20) == noon + 300
    assert cron.replanned(noon, noon - 3 * DAY) == noon - 3 * DAY + 300  # the clock was wrong before


def test_beyond_the_years_of_the_calendar_there_is_no_next():
    cron = Cron("0 0 1 1 *", UTC)
    end = at("9999-12-31T12:00")
    assert cron.after(end) is None
    assert cron.after(1e18) is None
    assert cron.after(float("inf")) is None
    assert cron.following(at("9999-01-01T00:00"), end) == Plan(None, 0)
    assert Cron("0 0 1 1 *", BERLIN).after(at("9999-12-31T22:30")) is None


def test_it_says_what_it_is():
    assert str(Cron("@daily", BERLIN)) == "cron '@daily' in Europe/Berlin"
    assert str(Cron("* * * * *", LocalZone())) == "cron '* * * * *' in local time"


# ------------------------------------------------------------------------------ cron: changes of the clock

SPRING_BERLIN = ("2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00")  # 02:00 → 03:00
AUTUMN_BERLIN = ("2026-10-25T00:00+02:00", "2026-10-26T00:00+01:00")  # 03:00 → 02:00
SPRING_NEW_YORK = ("2026-03-08T00:00-05:00", "2026-03-09T00:00-04:00")  # 02:00 → 03:00
AUTUMN_NEW_YORK = ("2026-11-01T00:00-04:00", "2026-11-02T00:00-05:00")  # 02:00 → 01:00


@pytest.mark.parametrize(
    ("zone", "days", "expression", "expected"),
    [
        # a fixed time that does not exist: the first minute after the gap, once
        (BERLIN, SPRING_BERLIN, "30 2 * * *", ["29 03:00+02"]),
        (BERLIN, SPRING_BERLIN, "15,45 2 * * *", ["29 03:00+02"]),
        (BERLIN, SPRING_BERLIN, "0 1,2,3 * * *", ["29 01:00+01", "29 03:00+02"]),
        (BERLIN, SPRING_BERLIN, "30 1-3 * * *", ["29 01:30+01", "29 03:00+02", "29 03:30+02"]),
        (NEW_YORK, SPRING_NEW_YORK, "30 2 * * *", ["08 03:00-04"]),
        # a fixed time that exists twice: the first of the two
        (BERLIN, AUTUMN_BERLIN, "30 2 * * *", ["25 02:30+02"]),
        (BERLIN, AUTUMN_BERLIN, "0 2,3 * * *", ["25 02:00+02", "25 03:00+01"]),
        (NEW_YORK, AUTUMN_NEW_YORK, "30 1 * * *", ["01 01:30-04"]),
        # a star in minute or hour follows the clock
        (BERLIN, SPRING_BERLIN, "*/30 2 * * *", []),
        (BERLIN, SPRING_BERLIN, "*/30 1-3 * * *", ["29 01:00+01", "29 01:30+01", "29 03:00+02", "29 03:30+02"]),
        (BERLIN, AUTUMN_BERLIN, "*/30 2 * * *", ["25 02:00+02", "25 02:30+02", "25 02:00+01", "25 02:30+01"]),
        (NEW_YORK, SPRING_NEW_YORK, "*/30 2 * * *", []),
        (NEW_YORK, AUTUMN_NEW_YORK, "*/30 1 * * *", ["01 01:00-04", "01 01:30-04", "01 01:00-05", "01 01:30-05"]),
    ],
)
def test_the_days_on_which_the_clock_changes(zone, days, expression, expected):
    begin, end = map(at, days)
    assert clock(times(Cron(expression, zone), begin - 1, end - 60), zone) == expected


@pytest.mark.parametrize(
    ("zone", "days", "hours"),
    [
        (BERLIN, SPRING_BERLIN, 23),
        (BERLIN, AUTUMN_BERLIN, 25),
        (NEW_YORK, SPRING_NEW_YORK, 23),
        (NEW_YORK, AUTUMN_NEW_YORK, 25),
    ],
)
def test_every_five_minutes_is_every_five_minutes_on_those_days_too(zone, days, hours):
    begin, end = map(at, days)
    found = times(Cron("*/5 * * * *", zone), begin - 1, end - 1)
    assert found == [begin + 300 * n for n in range(12 * hours)]
    assert len(times(Cron("0 * * * *", zone), begin - 1, end - 1)) == hours


def test_in_the_second_pass_a_fixed_time_of_the_first_is_not_planned_again():
    cron = Cron("30 2 * * *", BERLIN)
    second_pass = at("2026-10-25T02:10+01:00")
    assert cron.after(second_pass) == at("2026-10-26T02:30+01:00")
    assert cron.following(at("2026-10-25T02:30+02:00"), second_pass) == Plan(at("2026-10-26T02:30+01:00"), 0)


def test_a_midnight_that_does_not_exist():
    before = at("2026-03-07T12:00-05:00")
    assert times(Cron("*/30 0 8 3 *", HAVANA), before, before + 5 * DAY) == []
    assert Cron("*/30 1 8 3 *", HAVANA).after(before) == at("2026-03-08T01:00-04:00")
    assert Cron("*/30 * 8 3 *", HAVANA).after(before) == at("2026-03-08T01:00-04:00")
    assert Cron("0 0 8 3 *", HAVANA).after(before) == at("2026-03-08T01:00-04:00")


def by_hand(expression: str, zone: tzinfo, begin: float, end: float) -> list[float]:
    """The same rules, said minute by minute; the library is only asked what the fields mean."""
    fields = CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))
    minute, hour = expression.split()[:2]
    fixed = not minute.startswith("*") and not hour.startswith("*")

    def matches(moment: datetime) -> bool:
        days = moment.month in fields.months and fields.match_day(moment.date())
        return days and moment.hour in fields.hours and moment.minute in fields.minutes

    found = []
    step = timedelta(minutes=1)
    before = datetime.fromtimestamp(begin, zone).replace(tzinfo=None)
    for number in range(1, int((end - begin) // 60) + 1):
        moment = datetime.fromtimestamp(begin + 60 * number, zone)
        now = moment.replace(tzinfo=None, fold=0)
        left_out = []
        while fixed and (before := before + step) < now:
            left_out.append(before)
        if (matches(now) and not (fixed and moment.fold)) or any(map(matches, left_out)):
            found.append(begin + 60 * number)
        before = now
    return found


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    return st.one_of(
        st.just("*"),
        st.integers(1, max(2, high // 2)).map(lambda step: f"*/{step}"),
        number.map(str),
        span,
        st.tuples(span, st.integers(1, 5)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
        st.lists(number, min_size=2, max_size=3).map(lambda numbers: ",".join(map(str, numbers))),
    )


CHANGES = [
    (BERLIN, "2026-03-29T01:00"),
    (BERLIN, "2026-10-25T01:00"),
    (NEW_YORK, "2026-03-08T07:00"),
    (NEW_YORK, "2026-11-01T06:00"),
    (HAVANA, "2026-03-08T05:00"),
    (HAVANA, "2026-11-01T05:00"),
    (ZoneInfo("Asia/Beirut"), "2026-03-28T22:00"),  # forward at midnight, back into the day before
    (ZoneInfo("Asia/Beirut"), "2026-10-24T21:00"),
    (ZoneInfo("Australia/Lord_Howe"), "2026-04-04T15:00"),  # by half an hour
    (ZoneInfo("Australia/Lord_Howe"), "2026-10-03T15:30"),
    (ZoneInfo("Africa/Casablanca"), "2026-02-15T02:00"),  # back for Ramadan
    (UTC, "2026-06-01T00:00"),
    (timezone(timedelta(hours=5, minutes=45)), "2026-06-01T00:00"),
]


@settings(deadline=None)
@given(
    change=st.sampled_from(CHANGES),
    minute=field(0, 59),
    hour=st.one_of(field(0, 23), field(0, 4)),
    day=st.sampled_from(["*", "*", "4", "5", "8", "25", "29", "1-7"]),
    weekday=st.sampled_from(["*", "*", "SUN#2", "SUN", "SAT,SUN", "MON-FRI"]),
    shift=st.integers(-300, 300),
)
def test_every_minute_of_the_days_around_a_change_is_as_by_hand(change, minute, hour, day, weekday, shift):
    zone, moment = change
    begin = at(moment) - 20 * 3600 + shift * 60
    end = begin + 40 * 3600
    cron = Cron(f"{minute} {hour} {day} * {weekday}", zone)
    expected = by_hand(cron.expression, zone, begin, end)
    assert times(cron, begin, end) == expected  # one after the other
    for before in (begin, begin - 3 * DAY):  # in one go, from near and far
        in_one_go = itertools.takewhile(lambda moment: moment <= end, cron._times(before))
        assert [moment for moment in in_one_go if moment > begin] == expected


# ------------------------------------------------------------------------------------------------ nonsense


@pytest.mark.parametrize(
    "expression",
    [
        "",
        " ",
        "* * * *",
        "* * * * * *",
        "0 0 0 * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 8",
        "* * * * FOO",
        "-1 * * * *",
        "5-1 * * * *",
        "*/0 * * * *",
        "*/x * * * *",
        "1//2 * * * *",
        "a b c d e",
        "* * * * 5L/2",
        "* * * * 5#2/2",
        "* * * * 5#9",
        "٣ * * * *",
        "1" * 5000 + " * * * *",
        "0 0 31 2 *",
        "0 0 30 2 *",
        "0 0 31 4,6 *",
        "0 0 */30 2 MON#2",
        "* * */30 2 MON#2",
        "@reboot",
        "@never",
        None,
        5,
        b"* * * * *",
        ["*"] * 5,
    ],
)
def test_nonsense_is_one_typed_error(expression):
    with pytest.raises(ConfigError) as caught:
        Cron(expression, BERLIN)
    assert caught.value.field == "expression"
    assert caught.value.value == expression


@given(st.lists(st.text("0123456789*/-,#LW JANMONxé٣", max_size=6), min_size=5, max_size=5).map(" ".join))
def test_any_text_is_an_expression_or_refused(text):
    try:
        cron = Cron(text, BERLIN)
    except ConfigError:
        return
    found = cron.after(at("2026-11-24T12:00"))
    assert found is not None
    assert found > at("2026-11-24T12:00")


def test_without_cronsim_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigError, match=r"pip install procession\[cron\]"):
        Cron("* * * * *", UTC)


# --------------------------------------------------------------------------------------------------- zones


def test_zones_by_name_and_as_they_are():
    assert zone_of("Europe/Berlin") is BERLIN
    assert zone_of(UTC) is UTC
    assert isinstance(zone_of(None), LocalZone)


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "Europe", "\0", 5, b"UTC"])
def test_what_is_no_zone_is_refused(name):
    with pytest.raises(ConfigError, match=r"^timezone: "):
        zone_of(name)


@pytest.fixture
def in_berlin(monkeypatch):
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    os.environ.pop("TZ")
    if before is not None:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize("days", [SPRING_BERLIN, AUTUMN_BERLIN])
@pytest.mark.parametrize("expression", ["30 2 * * *", "*/30 * * * *", "0 2,3 * * *", "*/20 2 * * *"])
def test_local_time_changes_its_clock_as_the_zone_does(in_berlin, days, expression):
    begin, end = map(at, days)
    local = times(Cron(expression, LocalZone()), begin - 1, end)
    assert local == times(Cron(expression, BERLIN), begin - 1, end)
    assert local or expression == "*/20 2 * * *"


def test_local_time_has_a_name(in_berlin):
    zone = LocalZone()
    summer = datetime(2026, 7, 1, 12, tzinfo=zone)
    assert (summer.tzname(), summer.utcoffset(), summer.dst()) == ("CEST", timedelta(hours=2), None)
    assert zone.utcoffset(None) is None
    assert zone.tzname(None) is None
    assert datetime(2026, 1, 1, tzinfo=UTC).astimezone(zone).isoformat() == "2026-01-01T01:00:00+01:00"
