"""A flaky service, and callers who hardly notice: brought through a crash, a hang and an overload.

    python examples/flaky_service.py [--quick] [--out FOLDER]

The service is a real program that answers on a Unix socket, one request after the other. Callers send it more than a hundred requests a
second through a circuit breaker. Meanwhile

- it crashes, and the new one crashes twice while it starts: it is restarted with growing delays until it holds,
- it hangs: the breaker opens, which is how the recovery learns of it, and the service is replaced,
- more is asked than one process can answer: calls get slow, the breaker opens, and a second process is started.

At the end stand the availability, what the callers have seen, and a chart of where the breaker stood, when the service was down,
and what became of every request. The clerk who counts them keeps the count in a checkpoint.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from procession import (
    BreakerConfig,
    CheckpointStore,
    CircuitBreaker,
    CircuitChanged,
    CircuitOpen,
    Command,
    FailureKind,
    Process,
    ProcessRegistry,
    RecoveryConfig,
    RecoveryManager,
    run,
    spawn,
)
from procession.events import RecoveryFinished, RecoveryStarted
from procession.recovery import Backoff, CircuitChange, Replace, Restart, ScaleUp, Time
from procession.testing import LeakAudit

PROGRAM = """
import os, pathlib, socket, sys, time
path, broken, work = sys.argv[1], pathlib.Path(sys.argv[2]), float(sys.argv[3])
left = int(broken.read_text())
if left:
    broken.write_text(str(left - 1))
    sys.exit("it crashed while it started")
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(1000)
print("up", flush=True)
while True:
    caller, _ = server.accept()
    with caller:
        try:
            word = caller.recv(100).strip()
            if word == b"crash":
                os._exit(3)
            if word == b"hang":
                time.sleep(3600)
            time.sleep(work)
            caller.sendall(b"done")
        except OSError:
            pass                                    # whoever asked has given up
"""

WORK = 0.004  # seconds a request takes, so that one process answers fewer than 250 a second
PATIENCE = 0.5  # seconds a caller waits

BREAKER = BreakerConfig(
    window=Time(0.5),
    minimum_calls=10,
    failure_rate=0.5,
    slow_call=0.08,
    slow_rate=0.5,
    open_for=0.2,
    half_open_permits=3,
)
RECOVERY = RecoveryConfig(
    max_attempts=6, recovery_timeout=20, backoff=Backoff.exponential(0.1, cap=1.0, jitter=False), stable_after=0.3
)


# ------------------------------------------------------------------------------------------------ the service


class Service:
    """Owns the processes of the service: the target of the recovery, which can restart, replace and scale it."""

    def __init__(self, registry: ProcessRegistry, folder: Path, group: asyncio.TaskGroup) -> None:
        self.registry = registry
        self.folder = folder
        self.broken = folder / "broken"  # how often it crashes while it starts
        self.broken.write_text("0")
        self.group = group
        self.lives: dict[Path, asyncio.Task[None]] = {}
        self.turn = 0
        self.made = 0

    @property
    def size(self) -> int:
        return len(self.lives)

    async def start(self) -> None:
        """Starts one more; it counts when it has said that it is up."""
        self.made += 1
        path = self.folder / f"service-{self.made}.sock"
        up: asyncio.Future[Process] = asyncio.get_running_loop().create_future()
        life = self.group.create_task(self.live(path, up))
        try:
            await up
        except BaseException:
            life.cancel()
            await asyncio.wait([life])
            raise
        self.lives[path] = life

    async def live(self, path: Path, up: asyncio.Future[Process]) -> None:
        command = Command(sys.executable, "-I", "-S", "-c", PROGRAM, path, self.broken, str(WORK), grace=0.2)
        async with spawn(command, registry=self.registry, name="service") as process:
            async for _ in process.lines("stdout"):
                up.set_result(process)
            await process.wait()
        if not up.done():
            up.set_exception(ConnectionError(f"it ended before it was up: {process.exit}"))
        self.lives.pop(path, None)

    async def end(self, paths: Iterable[Path]) -> None:
        lives = [life for path in list(paths) if (life := self.lives.pop(path, None)) is not None]
        for life in lives:
            life.cancel()
        if lives:
            await asyncio.wait(lives)

    async def restart(self, id: str, *, reason: str = "") -> None:
        print(f"    {id} is restarted: {reason}")
        await self.end(self.lives)
        await self.start()

    async def replace(self, id: str, command: Command | None = None, *, reason: str = "") -> None:
        print(f"    {id} is replaced{'' if command is None else f' by {command}'}: {reason}")
        old = list(self.lives)
        await self.start()  # the new one is up before the old one goes
        await self.end(old)

    async def scale_up(self, n: int = 1) -> int:
        for _ in range(n):
            await self.start()
        print(f"    {self.size} processes share the work now")
        return self.size

    async def scale_down(self, n: int = 1) -> int:
        await self.end(list(self.lives)[: min(n, self.size - 1)])
        return self.size

    async def ask(self, word: str = "please") -> None:
        """One request, to one process after the other."""
        if not self.lives:
            raise ConnectionRefusedError("nobody is there")
        self.turn += 1
        path = list(self.lives)[self.turn % self.size]
        reader, writer = await asyncio.open_unix_connection(path)
        try:
            writer.write(word.encode())
            if await reader.read(100) != b"done":
                raise ConnectionResetError("no answer")
        finally:
            writer.close()


# ------------------------------------------------------------------------------------------------- the callers


@dataclass
class Day:
    """What happens, and what callers see of it."""

    service: Service
    breaker: CircuitBreaker
    recovery: RecoveryManager
    store: CheckpointStore
    seen: list[tuple[float, str]] = field(default_factory=list)  # when a request was made, and what became of it
    marks: list[tuple[float, str]] = field(default_factory=list)

    async def ask(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with self.breaker, asyncio.timeout(PATIENCE):  # the time limit is inside of the breaker
                await self.service.ask()
            what = "answered"
        except CircuitOpen:
            what = "refused"
        except (OSError, TimeoutError):
            what = "failed"
        self.seen.append((began, what))

    async def call(self, rate: float, seconds: float) -> None:
        """So many requests a second, whatever becomes of those before."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        at = loop.time()
        async with asyncio.TaskGroup() as group:
            while at < until:
                group.create_task(self.ask())
                at += 1 / rate
                await asyncio.sleep(max(0.0, at - loop.time()))

    async def clerk(self) -> None:
        """Keeps the count where it survives: saves at its own pace, and once more at the end."""
        try:
            while True:
                await self.store.save("requests", {"counted": len(self.seen)})
                await asyncio.sleep(0.25)
        finally:
            await self.store.save("requests", {"counted": len(self.seen)})

    def mark(self, what: str) -> None:
        self.marks.append((asyncio.get_running_loop().time(), what))
        print(f"  {what}")

    async def misuse(self, word: str) -> None:
        """Makes it crash or hang: some request that its author had not thought of."""
        try:
            async with asyncio.timeout(0.05):
                await self.service.ask(word)
        except (OSError, TimeoutError):
            pass

    async def goes_by(self, scale: float) -> None:
        self.mark("all is well")
        await self.call(120, 1.0 * scale)
        self.mark("it crashes, three times over")
        self.service.broken.write_text("2")
        await self.misuse("crash")
        await self.call(120, 1.5 * scale)
        self.mark("it hangs")
        await self.misuse("hang")
        await self.call(120, 1.5 * scale)
        self.mark("twice as much is asked as one can answer")
        await self.call(380, 2.0 * scale)
        self.mark("all is well")
        await self.call(120, 0.7 * scale)


# --------------------------------------------------------------------------------------------------- the chart


STYLE = """svg { font: 12px system-ui, sans-serif; background: #fff; color: #222 } text { fill: currentColor }
.closed, .up, .answered { fill: #2f9e6e } .open, .down, .failed { fill: #d62839 } .half_open { fill: #ef8a17 } .refused { fill: #8d99ae }
.grid { stroke: currentColor; opacity: .25 }
@media (prefers-color-scheme: dark) { svg { background: #16181d; color: #ddd } }
"""
STEP = 0.05


@dataclass(frozen=True)
class Span:
    """A state and how long it lasted."""

    kind: str
    start: float
    end: float
    why: str


def breaker_spans(registry: ProcessRegistry, zero: float, last: float) -> list[Span]:
    spans, kind, since, why = [], "closed", zero, "as it began"
    for event in registry.history(CircuitChanged):
        assert isinstance(event, CircuitChanged)
        spans.append(Span(kind, since, event.at, why))
        kind, since, why = str(event.new), event.at, event.reason
    return [*spans, Span(kind, since, last, why)]


def service_spans(registry: ProcessRegistry, zero: float, last: float) -> list[Span]:
    """Down from each failure until what was done about it had worked."""
    spans, since, down = [], zero, 0.0
    for event in registry.history(RecoveryStarted, RecoveryFinished):
        if isinstance(event, RecoveryStarted):
            spans.append(Span("up", since, event.at, "no failure is known"))
            down = event.at
        elif isinstance(event, RecoveryFinished):
            since = down + event.duration
            spans.append(Span("down", down, since, f"until {event.strategy} had worked, {event.attempt} attempts"))
    return [*spans, Span("up", since, last, "no failure is known")]


def draw(day: Day, registry: ProcessRegistry) -> str:
    """The chart, which loads nothing: breaker, service, and what became of the requests."""
    zero, last = day.seen[0][0], max(at for at, _ in day.seen) + STEP
    scale = 1050 / (last - zero)
    parts: list[str] = []

    def rect(kind: str, start: float, end: float, y: float, height: float, title: str) -> None:
        x, width = 100 + (start - zero) * scale, max((end - start) * scale, 0.5)
        box = f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        parts.append(f"<g><title>{escape(title)}</title>{box}</g>")

    for row, (name, spans) in enumerate(
        {"breaker": breaker_spans(registry, zero, last), "service": service_spans(registry, zero, last)}.items()
    ):
        y = 70 + 30 * row
        parts.append(f'<text x="10" y="{y + 14}">{name}</text>')
        for span in spans:
            times = f"{span.start - zero:.2f} s to {span.end - zero:.2f} s"
            rect(span.kind, span.start, span.end, y, 20, f"{name} {span.kind}, {times}: {span.why}")
    counts: dict[int, dict[str, int]] = {}
    for at, what in day.seen:
        here = counts.setdefault(int((at - zero) / STEP), {"answered": 0, "failed": 0, "refused": 0})
        here[what] += 1
    most = max(sum(here.values()) for here in counts.values())
    parts.append('<text x="10" y="214">requests</text>')
    for number, here in counts.items():
        base = 250.0
        for kind, count in here.items():
            if count:
                height = 110 * count / most
                base -= height
                start = zero + number * STEP
                rect(kind, start, start + STEP * 0.9, base, height, f"{count} {kind} at {number * STEP:.2f} s")
    for at, what in day.marks:
        x = 100 + (at - zero) * scale
        parts.append(f'<path class="grid" d="M{x:.1f} 46V255"/><text x="{x + 3:.1f}" y="60">{escape(what)}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1180 280"><style>{STYLE}</style>'
    figures = day.recovery.statistics("service")
    words = (
        f"available {figures.availability:.1%} of the time, {figures.recovered} recoveries, "
        f"{figures.mean_time_to_recovery:.2f} s each on average"
    )
    title = '<text x="10" y="20" font-size="16">A flaky service</text>'
    legend = "green: closed, up, answered · red: open, down, failed · orange: half-open · grey: refused"
    parts.append(f'<text x="100" y="268">{legend}</text>')
    return f'{head}{title}<text x="150" y="20">{escape(words)}</text>{"".join(parts)}</svg>\n'


# ------------------------------------------------------------------------------------------------------ the day


async def main() -> int:
    parser = argparse.ArgumentParser(description="Bring a flaky service through crash, hang and overload.")
    parser.add_argument("--quick", action="store_true", default=os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1")
    parser.add_argument("--out", type=Path, help="where the chart goes; default: a new temporary folder")
    options = parser.parse_args()

    await run(Command("true"))  # what the library keeps for as long as this program runs is there now
    audit = LeakAudit.start()
    with tempfile.TemporaryDirectory(prefix="flaky-") as name:
        folder = Path(name)
        store = CheckpointStore(folder / "checkpoints", keep=3)
        registry = ProcessRegistry(journal_size=100_000)
        async with registry, asyncio.TaskGroup() as group, RecoveryManager(RECOVERY, registry=registry) as recovery:
            service = Service(registry, folder, group)
            await service.start()
            recovery.register(
                "service",
                target=service,
                strategy=Restart(),
                by_kind={FailureKind.TIMEOUT: Replace(), FailureKind.RESOURCE_EXHAUSTION: ScaleUp()},
            )

            def opened(change: CircuitChange) -> None:
                """The breaker has the figures: it failed, or it was slow."""
                if change.old == "closed" and change.new == "open":
                    failed = (breaker.statistics().failure_rate or 0.0) >= 0.5
                    kind = FailureKind.TIMEOUT if failed else FailureKind.RESOURCE_EXHAUSTION
                    print(f"    the breaker opens: {change.reason}")
                    recovery.report_failure_nowait("service", kind, change.reason)

            breaker = CircuitBreaker(BREAKER, name="service", registry=registry, on_change=opened)
            day = Day(service, breaker, recovery, store)
            clerk = group.create_task(day.clerk())
            await day.goes_by(1.0 if options.quick else 2.0)
            clerk.cancel()
            past = recovery.history("service")
            figures = recovery.statistics("service")
            instances = service.size
            await service.end(service.lives)
        restored = await store.restore("requests")
    chart = (options.out or Path(tempfile.mkdtemp(prefix="procession-flaky-service-"))) / "flaky_service.svg"
    chart.parent.mkdir(parents=True, exist_ok=True)
    chart.write_text(draw(day, registry), encoding="utf-8")
    found = [str(leak) for leak in audit.finish() if leak.kind != "file"]

    counts = {what: sum(other == what for _, other in day.seen) for what in ("answered", "refused", "failed")}
    print("\nrecoveries")
    for one in past:
        print(f"  {one.kind}: up again by {one.strategy} after {one.attempts} attempts and {one.duration:.2f} s")
    print("requests\n  " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    print(
        f"service\n  available {figures.availability:.1%} of the time, "
        f"mean time to recovery {figures.mean_time_to_recovery:.2f} s, {instances} processes at the end"
    )
    print(f"\nwhere the breaker stood: {chart}")
    kinds = [one.kind for one in past if one.recovered]
    all_three = (FailureKind.CRASH, FailureKind.TIMEOUT, FailureKind.RESOURCE_EXHAUSTION)
    found += [f"it should have recovered from {wanted}" for wanted in all_three if wanted not in kinds]
    if breaker.state != "closed" or recovery.statistics().exhausted:
        found.append("it should be up at the end")
    if counts["answered"] < 0.5 * len(day.seen):
        found.append(f"only {counts['answered']} of {len(day.seen)} requests were answered")
    if restored != {"counted": len(day.seen)}:
        found.append("the clerk's last count is not in the checkpoint")
    if len(registry):
        found.append(f"{len(registry)} processes are alive")
    print("brought through all of it, nothing was left behind" if not found else "FAILED:\n  " + "\n  ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
