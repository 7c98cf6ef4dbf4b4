"""Recurring tasks in virtual time: no drift, rules for overlap and missed runs, a wall clock that is set, one timer."""

import asyncio
import contextvars
import functools
import inspect
import math
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from procession.command import Command
from procession.errors import Closed, ConfigError, DeadlineMissed, InsufficientResources, SchedulerError, StateError
from procession.scheduler import Fifo, Recurring, Scheduler, SchedulerConfig, TaskState
from procession.testing import SimulatedLauncher, VirtualLoop, run_virtual

pytestmark = pytest.mark.row("SC8")

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp()
DAY = 86400.0
UTCZONE = {"timezone": "UTC"}


class Clock:
    """The wall clock; ``ahead`` sets it forward or back."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return NOON + asyncio.get_running_loop().time() + self.ahead


class Rig:
    """A scheduler whose work takes note of when it was run."""

    def __init__(self, **config: Any) -> None:
        self.clock = Clock()
        options: dict[str, Any] = {"max_concurrent_tasks": 100, "resources": {}, "policy": Fifo()} | config
        self.scheduler = Scheduler(SchedulerConfig(**options), wall=self.clock, seed=1)
        self.at: list[float] = []
        self.wall: list[float] = []
        self.cancelled = 0

    @property
    def loop(self) -> VirtualLoop:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop

    async def work(self, seconds: float = 0.0) -> None:
        self.at.append(round(self.loop.time(), 3))
        self.wall.append(round(self.clock() - NOON, 3))
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def blocked(self, seconds: float) -> None:
        """Nothing runs for so long: the machine was suspended, or somebody blocked the loop."""
        self.loop._set_time(self.loop.time() + seconds)
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)


def virtual(**config: Any):
    def decorate(test):
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> None:
            async def main() -> None:
                rig = Rig(**config)
                seen: list[Any] = []
                asyncio.get_running_loop().set_exception_handler(lambda _loop, context: seen.append(context))
                async with rig.scheduler:
                    await test(rig, *args, **kwargs)
                assert seen == []

            run_virtual(main, limit=1e8)

        _, *fixtures = inspect.signature(test).parameters.values()
        run.__signature__ = inspect.Signature(fixtures)  # type: ignore[attr-defined]  # pytest is not to see the rig
        return run

    return decorate


def counts(one: Recurring[Any]) -> tuple[int, int, int]:
    return one.runs, one.missed, one.skipped


# ------------------------------------------------------------------------------------------------ intervals


@virtual()
async def test_runs_come_at_a_fixed_interval_however_long_they_take(rig):
    one = rig.scheduler.every(10, rig.work, 7.3)
    assert (one.next_run, one.last, one.active) == (10.0, None, True)
    await asyncio.sleep(1000.5)
    assert rig.at == [10.0 * n for n in range(1, 101)]
    assert counts(one) == (100, 0, 0)
    assert one.next_run == 1010.0
    assert one.last is not None
    assert one.last.state is TaskState.RUNNING


@virtual()
async def test_a_third_of_a_second_does_not_drift_in_an_hour(rig):
    one = rig.scheduler.every(1 / 3, rig.work)
    await asyncio.sleep(3600.1)
    assert one.runs == 3 * 3600
    assert one.next_run == pytest.approx(3600 + 1 / 3, abs=1e-9)


@virtual()
async def test_the_first_run_can_be_at_once_or_later(rig):
    rig.scheduler.every("1m", rig.work, first_delay=0)
    rig.scheduler.every("1m", rig.work, first_delay="5s")
    await asyncio.sleep(100)
    assert rig.at == [0.0, 5.0, 60.0, 65.0]


@virtual()
async def test_options_go_to_every_run(rig):
    seen = []

    async def work(word, *, twice):
        seen.append((word, twice))

    one = rig.scheduler.every(1, work, "a", kwargs={"twice": True}, priority=0, tenant="t", id="backup")
    await asyncio.sleep(2.5)
    assert seen == [("a", True)] * 2
    assert one.id == "backup"
    assert one.last is not None
    assert (one.last.id, one.last.priority, one.last.spec.tenant) == ("backup-2", 0, "t")


@virtual()
async def test_each_run_is_in_the_context_of_the_call(rig):
    word = contextvars.ContextVar("word", default="none")
    seen = []

    async def work():
        seen.append(word.get())
        word.set("changed by a run")

    word.set("said at the call")
    rig.scheduler.every(1, work)
    word.set("said later")
    await asyncio.sleep(3.5)
    assert seen == ["said at the call"] * 3


@virtual()
async def test_jitter_puts_runs_off_without_drift(rig):
    rig.scheduler.every(10, rig.work, jitter=4)
    await asyncio.sleep(1009.9)
    late = [at - 10 * n for n, at in enumerate(rig.at, 1)]
    assert len(late) == 100
    assert all(0 <= one <= 4 for one in late)
    assert max(late) - min(late) > 3


@virtual()
async def test_jitter_never_reaches_the_next_planned_time(rig):
    one = rig.scheduler.every(10, rig.work, jitter="1h")
    other = rig.scheduler.cron("*/5 * * * *", rig.work, jitter="1h", **UTCZONE)
    await asyncio.sleep(3600 + 299.999)
    assert counts(one) == (388 + (one.runs == 389), 0, 0)
    assert counts(other) == (12, 0, 0)


# -------------------------------------------------------------------------------------------------- overlap


@virtual()
async def test_overlap_skip_leaves_a_run_out_while_the_last_is_not_over(rig):
    one = rig.scheduler.every(10, rig.work, 25)
    await asyncio.sleep(100.5)
    assert rig.at == [10.0, 40.0, 70.0, 100.0]
    assert counts(one) == (4, 0, 6)


@virtual(max_concurrent_tasks=1)
async def test_overlap_skip_counts_one_that_waits_too(rig):
    rig.scheduler.submit(rig.work, 35)
    one = rig.scheduler.every(10, rig.work)
    await asyncio.sleep(39)
    assert counts(one) == (1, 0, 2)
    assert rig.at == [0.0, 35.0]


@virtual()
async def test_overlap_queue_submits_all_the_same(rig):
    one = rig.scheduler.every(10, rig.work, 25, overlap="queue")
    await asyncio.sleep(50.5)
    assert rig.at == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert counts(one) == (5, 0, 0)
    assert one.cancel(running=True)
    await rig.scheduler.drain()
    assert rig.cancelled == 3
    assert rig.scheduler.statistics().cancelled == 3


@virtual()
async def test_overlap_replace_cancels_the_last_and_starts_anew(rig):
    one = rig.scheduler.every(10, rig.work, 25, overlap="replace")
    await asyncio.sleep(45)
    assert rig.at == [10.0, 20.0, 30.0, 40.0]
    assert rig.cancelled == 3
    assert counts(one) == (4, 0, 0)
    assert one.failures == 0


# --------------------------------------------------------------------------------------------------- missed


@virtual()
async def test_one_run_makes_up_for_all_that_were_missed(rig):
    one = rig.scheduler.every(10, rig.work)
    await asyncio.sleep(15)
    await rig.blocked(70)
    assert rig.at == [10.0, 85.0]
    assert counts(one) == (2, 6, 0)
    await asyncio.sleep(10)
    assert rig.at == [10.0, 85.0, 90.0]


@virtual()
async def test_missed_runs_can_be_left_out(rig):
    one = rig.scheduler.every(10, rig.work, missed="skip")
    await asyncio.sleep(15)
    await rig.blocked(70)
    assert rig.at == [10.0]
    assert counts(one) == (1, 7, 0)
    await asyncio.sleep(10)
    assert rig.at == [10.0, 90.0]


@virtual()
async def test_a_run_that_is_a_little_late_is_not_missed(rig):
    short = rig.scheduler.every(10, rig.work, missed="skip")
    long = rig.scheduler.every(3600, rig.work, missed="skip", first_delay=10)
    await rig.blocked(19)
    assert (counts(short), counts(long)) == ((1, 0, 0), (1, 0, 0))
    await rig.blocked(3600)
    assert (short.missed, long.missed) == (360, 0)
    await rig.blocked(3600 + 61)
    assert counts(long) == (2, 1, 0)
    assert long.next_run == 10 + 3 * 3600


@virtual()
async def test_a_day_without_running_is_one_run_for_cron_too(rig):
    once = rig.scheduler.cron("*/5 * * * *", rig.work, **UTCZONE)
    none = rig.scheduler.cron("*/5 * * * *", rig.work, missed="skip", **UTCZONE)
    daily = rig.scheduler.cron("0 13 * * *", rig.work, missed="skip", **UTCZONE)
    await asyncio.sleep(301)
    await rig.blocked(DAY)
    assert rig.at == [300.0, 300.0, 86701.0]
    assert counts(once) == (2, 287, 0)
    assert counts(none) == (1, 288, 0)
    assert counts(daily) == (0, 1, 0)


# ----------------------------------------------------------------------------------------------------- cron


@virtual()
async def test_cron_runs_at_the_times_of_the_wall_clock(rig):
    one = rig.scheduler.cron("*/20 * * * *", rig.work, **UTCZONE)
    assert one.next_run == 1200.0
    await asyncio.sleep(2 * 3600 + 0.5)
    assert rig.wall == [1200.0 * n for n in range(1, 7)]
    assert counts(one) == (6, 0, 0)


@virtual()
async def test_cron_over_the_end_of_daylight_saving_time(rig):
    rig.clock.ahead = datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp() - NOON
    fixed = rig.scheduler.cron("30 2 * * *", rig.work, timezone="Europe/Berlin")
    starred = rig.scheduler.cron("*/30 2 * * *", rig.work, timezone="Europe/Berlin")
    await asyncio.sleep(DAY)
    assert (fixed.runs, starred.runs) == (1, 4)


@virtual()
async def test_cron_by_the_clock_of_this_machine(rig):
    one = rig.scheduler.cron("* * * * *", rig.work)
    await asyncio.sleep(61)
    assert counts(one) == (1, 0, 0)


@virtual()
async def test_cron_never_runs_early(rig):
    slow = 0.9999  # the wall clock is being slowed down
    rig.scheduler._timetable._wall = lambda: NOON + rig.loop.time() * slow
    rig.scheduler.cron("*/5 * * * *", rig.work, **UTCZONE)
    await asyncio.sleep(3700)
    assert len(rig.at) == 12
    assert all(at * slow >= 300 * n - 0.001 for n, at in enumerate(rig.at, 1))


@virtual()
async def test_a_clock_set_forward_by_a_day_brings_one_run(rig):
    frequent = rig.scheduler.cron("*/5 * * * *", rig.work, **UTCZONE)
    daily = rig.scheduler.cron("0 13 * * *", rig.work, **UTCZONE)
    await asyncio.sleep(310)
    rig.clock.ahead = DAY
    await asyncio.sleep(100)
    assert rig.at == [300.0, 360.0, 360.0]  # within a minute
    assert counts(frequent) == (2, 287, 0)
    assert counts(daily) == (1, 0, 0)
    await asyncio.sleep(3600)
    assert (frequent.runs, daily.runs) == (14, 2)


@virtual()
async def test_a_clock_set_back_by_a_day_runs_nothing_twice(rig, caplog):
    frequent = rig.scheduler.cron("*/5 * * * *", rig.work, **UTCZONE)
    await asyncio.sleep(310)
    rig.clock.ahead = -DAY
    daily = rig.scheduler.cron("0 13 * * *", rig.work, **UTCZONE)
    await asyncio.sleep(DAY + 1000)
    walls = [wall for wall in rig.wall if wall % 3600]
    assert walls == sorted(set(walls))
    assert rig.wall[0] == 300.0
    assert [wall for wall in rig.wall if wall != 3600.0 - DAY][1:4] == [600.0, 900.0, 1200.0]
    assert frequent.missed == 0
    assert daily.runs == 1
    assert "set back by 86400 s" in caplog.text


@virtual()
async def test_a_clock_set_back_brings_times_that_have_not_been(rig):
    one = rig.scheduler.cron("0 11 * * *", rig.work, **UTCZONE)  # it is 12:00: tomorrow
    interval = rig.scheduler.every(DAY, rig.work)
    assert one.next_run == 23 * 3600.0
    rig.clock.ahead = -2 * 3600.0
    await asyncio.sleep(60)
    assert one.next_run == 3600.0
    await asyncio.sleep(3600)
    assert rig.at == [3600.0]
    assert interval.next_run == DAY


@virtual()
async def test_a_clock_that_was_years_ahead_is_not_waited_for(rig):
    rig.clock.ahead = 3650 * DAY
    one = rig.scheduler.cron("*/5 * * * *", rig.work, **UTCZONE)
    await asyncio.sleep(310)
    rig.clock.ahead = 0.0
    await asyncio.sleep(600)
    assert rig.at == [300.0, 600.0, 900.0]
    assert counts(one) == (3, 0, 0)


@virtual()
async def test_a_day_forward_and_back_again_is_no_day_of_silence(rig):
    one = rig.scheduler.cron("*/5 * * * *", rig.work, **UTCZONE)
    await asyncio.sleep(310)
    rig.clock.ahead = DAY
    await asyncio.sleep(60)
    assert counts(one) == (2, 287, 0)
    rig.clock.ahead = 0.0
    await asyncio.sleep(1000)
    assert rig.at == [300.0, 360.0, 900.0, 1200.0]  # 600 was made up for at 360


@virtual()
async def test_an_idle_cron_looks_at_the_clock_once_a_minute_and_an_interval_never(rig):
    rig.scheduler.every(DAY, rig.work)
    before = rig.loop.jumps
    await asyncio.sleep(3600)
    assert rig.loop.jumps - before == 1
    for minute in range(100):
        rig.scheduler.cron(f"{minute % 60} 0 1 1 *", rig.work, **UTCZONE)
    before = rig.loop.jumps
    await asyncio.sleep(3600)
    assert rig.loop.jumps - before <= 62


@virtual()
async def test_a_cron_that_is_never_due_again_has_ended(rig):
    rig.clock.ahead = datetime(9999, 12, 31, 12, tzinfo=UTC).timestamp() - NOON
    one = rig.scheduler.cron("0 0 1 1 *", rig.work, **UTCZONE)
    assert (one.active, one.next_run) == (False, None)
    last = rig.scheduler.cron("0 13 31 12 *", rig.work, jitter=5, **UTCZONE)
    await asyncio.sleep(3610)
    assert (last.active, last.runs) == (False, 1)


# -------------------------------------------------------------------------------------------------- one timer


def timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    return [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]


@virtual(max_concurrent_tasks=2000)
async def test_a_thousand_of_them_are_one_timer(rig):
    everything = [rig.scheduler.every(10 + n / 100, rig.work) for n in range(500)]
    everything += [rig.scheduler.cron(f"{n % 60} * * * *", rig.work, **UTCZONE) for n in range(500)]
    rig.scheduler.submit(rig.work, delay=5)
    assert len(timers(rig.loop)) == 1
    await asyncio.sleep(4.5)
    assert len(timers(rig.loop)) == 1
    await asyncio.sleep(600.005)
    assert sum(one.runs for one in everything) == len(rig.at) - 1
    assert all(one.missed == one.skipped == 0 for one in everything)
    for one in everything:
        one.cancel()
    assert timers(rig.loop) == []


@virtual()
async def test_timers_of_tasks_and_of_recurring_ones_do_not_disturb_one_another(rig):
    one = rig.scheduler.every(10, rig.work)
    for delay in (3, 12, 25):
        rig.scheduler.submit(rig.work, delay=delay)
    await asyncio.sleep(35)
    assert rig.at == [3.0, 10.0, 12.0, 20.0, 25.0, 30.0]
    one.cancel()
    rig.scheduler.submit(rig.work, delay=5)
    await rig.scheduler.drain()
    assert rig.at[-1] == 40.0


# ------------------------------------------------------------------------------------------------ how it ends


@virtual()
async def test_cancel_ends_it_and_lets_what_runs_go_on(rig):
    one = rig.scheduler.every(10, rig.work, 25)
    await asyncio.sleep(11)
    assert one.cancel() is True
    assert one.cancel() is False
    assert (one.active, one.next_run) == (False, None)
    await asyncio.sleep(100)
    assert rig.at == [10.0]
    assert one.last is not None
    assert one.last.state is TaskState.SUCCEEDED


@virtual()
async def test_cancel_can_end_what_runs_too(rig):
    one = rig.scheduler.every(10, rig.work, 25)
    await asyncio.sleep(11)
    one.cancel()
    assert one.cancel(running=True) is False  # it had ended, but not what ran
    await rig.scheduler.drain()
    assert (rig.loop.time(), rig.cancelled) == (11.0, 1)
    assert one.last is not None
    assert one.last.cancelled()


@virtual()
async def test_a_run_may_end_the_whole(rig):
    async def work():
        rig.at.append(rig.loop.time())
        if len(rig.at) == 3:
            one.cancel()

    one = rig.scheduler.every(1, work)
    await asyncio.sleep(10)
    assert rig.at == [1.0, 2.0, 3.0]


@virtual()
async def test_one_of_several_ends_and_the_others_go_on(rig):
    first, second = rig.scheduler.every(10, rig.work), rig.scheduler.cron("* * * * *", rig.work, **UTCZONE)
    first.cancel()
    await asyncio.sleep(60)
    assert (first.runs, second.runs) == (0, 1)


@virtual()
async def test_drain_does_not_wait_for_future_runs(rig):
    rig.scheduler.every(10, rig.work, 5)
    await rig.scheduler.drain()
    assert rig.loop.time() == 0.0
    await asyncio.sleep(11)
    await rig.scheduler.drain()
    assert rig.loop.time() == 15.0


@virtual()
async def test_closing_the_scheduler_ends_them(rig):
    interval = rig.scheduler.every(10, rig.work, 25)
    cron = rig.scheduler.cron("* * * * *", rig.work, **UTCZONE)
    await asyncio.sleep(11)
    await rig.scheduler.aclose()
    assert not interval.active
    assert not cron.active
    assert interval.next_run is cron.next_run is None
    assert rig.cancelled == 1
    assert timers(rig.loop) == []
    assert interval.cancel() is False
    with pytest.raises(Closed):
        rig.scheduler.every(10, rig.work)
    await asyncio.sleep(100)
    assert rig.at == [10.0]


def test_a_scheduler_that_is_not_open_takes_none():
    async def work():
        pass

    with pytest.raises(StateError):
        Scheduler().every(1, work)


@virtual()
async def test_it_says_how_it_stands(rig):
    one = rig.scheduler.every(10, rig.work, id="tick")
    assert repr(one) == "<Recurring tick: every 10 s, next in 10.000 s; 0 runs, 0 missed, 0 skipped, 0 failed>"
    await asyncio.sleep(12)
    assert "next in 8.000 s; 1 runs, 0 missed, 0 skipped, 0 failed, last succeeded>" in repr(one)
    one.cancel()
    assert ", ended; " in repr(one)
    assert rig.scheduler.every(1, rig.work).id == "every-1"
    assert rig.scheduler.every(1, rig.work, id="every-2").id == "every-2"
    assert rig.scheduler.cron("* * * * *", rig.work).id == "cron-2"
    assert rig.scheduler.every(1, rig.work).id == "every-3"


# -------------------------------------------------------------------------------------------- when runs fail


@virtual()
async def test_a_failing_run_is_counted_and_logged_and_the_next_one_comes(rig, caplog):
    async def work():
        raise ValueError("broken")

    one = rig.scheduler.every(10, work, id="nightly")
    await asyncio.sleep(25)
    assert (one.runs, one.failures) == (2, 2)
    assert "nightly: nightly-1 failed: ValueError('broken')" in caplog.text
    assert one.last is not None
    with pytest.raises(ValueError, match="broken"):
        one.last.result()


@virtual(max_concurrent_tasks=1, max_queued=1)
async def test_a_full_queue_skips_a_run_and_logs_it(rig, caplog):
    one = rig.scheduler.every(10, rig.work, overlap="queue")
    rig.scheduler.submit(rig.work, 25)
    await asyncio.sleep(1)
    rig.scheduler.submit(rig.work, 1)
    await asyncio.sleep(23)
    assert counts(one) == (0, 0, 2)
    assert "every-1: a run was skipped: no room" in caplog.text
    await asyncio.sleep(10)
    assert counts(one) == (1, 0, 2)


class Choosy(Fifo):
    """Admits nothing after a while."""

    def admit(self, task, now):
        if now > 15:
            raise DeadlineMissed(task.id, now, phase="admission")


@virtual(policy=Choosy())
async def test_a_run_the_policy_does_not_admit_is_skipped_and_logged(rig, caplog):
    one = rig.scheduler.every(10, rig.work)
    await asyncio.sleep(45)
    assert counts(one) == (1, 0, 3)
    assert "every-1: a run was skipped: DeadlineMissed(" in caplog.text


class Moody(Fifo):
    """Breaks down after a while, in one of its hooks."""

    def __init__(self, hook):
        self.hook = hook

    def queued(self, task, now):
        return self.told("queued", now)

    def left(self, task, now):
        return self.told("left", now)

    def told(self, hook, now):
        if hook == self.hook and now > 15:
            raise ValueError("no more")
        return ()


@pytest.mark.parametrize(("hook", "overlap"), [("queued", "queue"), ("left", "replace")])
def test_a_policy_that_breaks_when_a_run_is_due_ends_the_scheduler_and_all_of_them(hook, overlap, caplog):
    async def main():
        config = SchedulerConfig(max_concurrent_tasks=1, resources={}, policy=Moody(hook))
        async with Scheduler(config, wall=Clock()) as scheduler:
            scheduler.submit(asyncio.sleep, 100)
            both = [
                scheduler.every(10, asyncio.sleep, 100, overlap=overlap),
                scheduler.cron("* * * * *", asyncio.sleep, 1, timezone="UTC"),
            ]
            await asyncio.sleep(21)
            assert [one.active for one in both] == [False, False]
            assert both[0].runs == 1
            assert both[0].last is not None
            assert both[0].last.cancelled()
            assert timers(asyncio.get_running_loop()) == []

    with pytest.raises(SchedulerError, match="no more"):
        run_virtual(main, limit=1e6)


@virtual()
async def test_a_name_that_is_taken_when_a_run_is_due_skips_it(rig, caplog):
    one = rig.scheduler.every(10, rig.work, id="x")
    blocker = rig.scheduler.submit(rig.work, 15, id="x-1")
    await asyncio.sleep(11)
    assert counts(one) == (0, 0, 1)
    await blocker
    await asyncio.sleep(10)
    assert counts(one) == (1, 0, 1)


# ---------------------------------------------------------------------------------------------------- nonsense

NONSENSE = [
    ("interval", {"interval": 0}),
    ("interval", {"interval": -1}),
    ("interval", {"interval": math.nan}),
    ("interval", {"interval": math.inf}),
    ("interval", {"interval": "soon"}),
    ("interval", {"interval": None}),
    ("interval", {"interval": True}),
    ("first_delay", {"first_delay": -1}),
    ("first_delay", {"first_delay": "later"}),
    ("overlap", {"overlap": "never"}),
    ("overlap", {"overlap": None}),
    ("missed", {"missed": "all"}),
    ("missed", {"missed": ["once"]}),
    ("jitter", {"jitter": -0.1}),
    ("jitter", {"jitter": math.inf}),
    ("jitter", {"jitter": None}),
    ("priority", {"priority": "high"}),
    ("id", {"id": "no/slash"}),
    ("id", {"id": "x" * 49}),
    ("id", {"id": "task"}),
    ("id", {"id": "taken"}),
    ("id", {"id": 5}),
    ("timeout", {"timeout": -1}),
    ("retry", {"retry": 3}),
    ("kwargs", {"kwargs": 5}),
    ("after", {"after": []}),
    ("deadline", {"deadline": 1e6}),
    ("delay", {"delay": 1}),
    ("not_before", {"not_before": 1e6}),
    ("unknown", {"unknown": 1}),
    ("work", {"work": 5}),
    ("work", {"work": print}),
    ("input", {"work": Command("cat"), "input": iter([b"x"])}),
    ("input", {"work": Command("cat"), "input": sys.stdin}),
    ("input", {"input": b"x"}),
]
CASES = [("every", *one) for one in NONSENSE]
CASES += [("cron", *one) for one in NONSENSE if one[0] not in ("interval", "first_delay")]


@pytest.mark.parametrize(("kind", "field", "said"), CASES, ids=lambda value: str(value)[:30])
def test_nonsense_is_refused_at_the_call_and_changes_nothing(kind, field, said):
    @virtual()
    async def test(rig):
        rig.scheduler.every(DAY, rig.work, id="taken")
        before = (rig.scheduler._timetable.next_due, list(rig.scheduler._timetable._active), timers(rig.loop))
        options = dict(said)
        work = options.pop("work", rig.work)
        interval = options.pop("interval", 10)
        method, when = (rig.scheduler.every, interval) if kind == "every" else (rig.scheduler.cron, "* * * * *")
        with pytest.raises(ConfigError) as caught:
            method(when, work, **options)
        assert caught.value.field == field
        timetable = rig.scheduler._timetable
        assert (timetable.next_due, list(timetable._active), timers(rig.loop)) == before
        assert (len(rig.scheduler), rig.scheduler.statistics().submitted) == (0, 0)

    test()


@virtual()
async def test_cron_nonsense_is_refused_at_the_call(rig):
    for said in ({"expression": "61 * * * *"}, {"expression": "* * * *"}, {"expression": "0 0 31 2 *"}):
        with pytest.raises(ConfigError, match="expression"):
            rig.scheduler.cron(said["expression"], rig.work)
    with pytest.raises(ConfigError, match="timezone"):
        rig.scheduler.cron("* * * * *", rig.work, timezone="Mars/Olympus")
    assert timers(rig.loop) == []
    assert math.isinf(rig.scheduler._timetable.next_due)


@virtual(resources={"gpu": 1})
async def test_what_could_never_start_is_refused_at_the_call(rig):
    with pytest.raises(InsufficientResources):
        rig.scheduler.every(1, rig.work, resources={"gpu": 2})
    rig.scheduler.every(1, rig.work, resources={"gpu": 1})
    await asyncio.sleep(1.5)
    assert rig.at == [1.0]


def test_commands_recur():
    async def main():
        launcher = SimulatedLauncher()
        async with Scheduler(SchedulerConfig(resources={}), launcher=launcher) as scheduler:
            one = scheduler.every(10, Command("true"), input=[b"x"])
            await asyncio.sleep(35)
            assert one.runs == 3
            assert len(launcher.launched) == 3

    run_virtual(main)
