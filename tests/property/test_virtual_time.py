"""Virtual time and simulated clocks, against models that just add and sort."""

import asyncio
import signal

from hypothesis import given, settings
from hypothesis import strategies as st

from procession.command import Command
from procession.testing import Script, SimulatedLauncher, run_virtual

delays = st.floats(0, 1e6, allow_nan=False).map(lambda seconds: round(seconds, 3))


@given(st.lists(delays, max_size=30))
@settings(deadline=None)
def test_timers_fire_sorted_and_never_early(waits):
    async def main():
        loop = asyncio.get_running_loop()
        fired: list[tuple[float, float]] = []

        def fire(wait: float) -> None:
            fired.append((wait, loop.time()))

        for wait in waits:
            loop.call_at(wait, fire, wait)
        await asyncio.sleep(1e6 + 1)
        return fired

    fired = run_virtual(main)
    assert [wait for wait, _ in fired] == sorted(waits)
    assert all(abs(at - wait) < 1e-6 for wait, at in fired)


@given(
    duration=st.integers(0, 50),
    steps=st.lists(st.tuples(st.integers(1, 10), st.booleans()), max_size=12),
)
@settings(deadline=None)
def test_a_stopped_process_loses_exactly_the_time_it_is_stopped(duration, steps):
    at = 0.5  # signals come at half seconds, ends at whole ones: never at the same moment
    moves: dict[float, signal.Signals] = {}
    for gap, runs in steps:
        at += gap
        moves[at] = signal.SIGCONT if runs else signal.SIGSTOP
    moves[at + 100] = signal.SIGCONT

    async def main():
        handle = await SimulatedLauncher(Script(duration=duration)).launch(Command("it"), "it")
        for when, signum in moves.items():
            asyncio.get_running_loop().call_at(when, handle.process.deliver, signum)
        await asyncio.sleep(10_000)
        return handle.process.ended_at

    assert run_virtual(main) == _ended_at(duration, moves)


def _ended_at(duration: int, moves: dict[float, signal.Signals]) -> float:
    """The model: half a second after the other."""
    now = ran = 0.0
    runs = True
    while ran < duration:
        runs = moves.get(now, signal.SIGCONT if runs else signal.SIGSTOP) == signal.SIGCONT
        now += 0.5
        ran += 0.5 if runs else 0.0
    return now


@given(
    chunks=st.lists(st.tuples(st.integers(0, 5), st.binary(min_size=1, max_size=3000)), max_size=20),
    capacity=st.integers(1, 4096),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=5),
)
@settings(deadline=None)
def test_nothing_is_lost_or_reordered_whatever_the_pipe_holds(chunks, capacity, sizes):
    async def main():
        launcher = SimulatedLauncher(Script(stdout=chunks), capacity=capacity)
        handle = await launcher.launch(Command("it"), "it")
        inlet = handle.stdout
        assert inlet is not None
        got = bytearray()
        turn = 0
        while (data := inlet.read_nowait(sizes[turn % len(sizes)])) != b"":
            turn += 1
            got += data or b""
            if data is None:
                await asyncio.sleep(0.5)
        return bytes(got)

    expected = b"".join(data for _, data in sorted(chunks, key=lambda chunk: chunk[0]))
    assert run_virtual(main, max_jumps=50_000) == expected
