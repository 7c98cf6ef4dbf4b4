"""What a hostile look at the scheduler has found with real processes, each kept from coming back."""

import asyncio
import gc
from typing import Any

import pytest

from procession import Command
from procession.scheduler import Scheduler, Task
from tests.conftest import LOOPS
from tests.programs import sh
from tests.scheduler.support import check_over, config


@pytest.mark.row("SC11")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_that_stops_with_work_in_flight_starts_nothing_and_tells_everybody(loop):
    tasks: list[Task[Any]] = []
    cleaned: list[str] = []
    schedulers: list[Scheduler] = []

    async def careful() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)  # clean-up that a second cancellation would interrupt
            cleaned.append("up")

    async def main() -> None:
        scheduler = await Scheduler(config(3)).__aenter__()  # and nobody closes it
        schedulers.append(scheduler)
        up = asyncio.Event()
        tasks.append(scheduler.submit(careful))
        tasks.append(scheduler.submit(sh("trap 'exit 7' TERM; while :; do sleep 0.01; done")))
        tasks.append(scheduler.submit(Command("sleep", "60"), on_spawn=lambda _process: up.set()))
        tasks.extend(scheduler.submit(work) for work in (careful, Command("sleep", "60")))
        tasks.append(scheduler.submit(careful, delay=60))
        tasks.append(scheduler.submit(careful, after=[tasks[0]]))
        await up.wait()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
    assert {task.state.value for task in tasks} == {"cancelled"}
    assert [task.attempts for task in tasks] == [1, 1, 1, 0, 0, 0, 0]
    assert "the loop is stopping" in str(tasks[-1].exception())
    assert cleaned == ["up"]
    check_over(schedulers[0])


@pytest.mark.row("SC11")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_loop_that_is_closed_over_its_head_makes_it_no_noise_of_its_own(loop, caplog):
    async def main() -> None:
        scheduler = await Scheduler(config()).__aenter__()
        scheduler.submit(asyncio.sleep, 60)
        scheduler.submit(asyncio.sleep, 60)
        await asyncio.sleep(0.01)

    mine = LOOPS[loop]()
    mine.run_until_complete(main())
    mine.close()
    gc.collect()
    assert "policy" not in caplog.text


@pytest.mark.row("SC7")
async def test_one_that_holds_the_gpu_makes_room_among_a_hundred_that_do_not():
    async with Scheduler(config(150, resources={"gpu": 1}, preemption="requeue")) as scheduler:
        holder = scheduler.submit(asyncio.sleep, 60, priority=3, resources={"gpu": 1})
        others = [scheduler.submit(asyncio.sleep, 60, priority=4) for _ in range(100)]
        await asyncio.sleep(0.05)
        urgent = scheduler.submit(Command("true"), priority=0, resources={"gpu": 1})
        assert (await urgent).ok
        assert holder.preemptions == 1
        assert {task.preemptions for task in others} == {0}
