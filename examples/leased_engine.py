"""A desk of calculators: an interactive program, leased to one user at a time by a ``ProcessPool``.

    python examples/leased_engine.py [--quick]

The program is ``bc`` or, where there is none, a few lines of Python. Some users want an answer at once and go first, others have a
long list and wait; a few copies of the program serve them all. Meanwhile

- somebody wants a calculator now or never while all are taken, and is told so,
- somebody asks what takes for ever: that calculator is stopped, and another takes its place,
- one calculator is killed while it is thinking; who waits for its answer is told, and asks again,
- each calculator is replaced after so many leases, as with a program that wears out.

Exit code 0 means: every answer was right, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from statistics import median

from procession import (
    AcquireTimeout,
    Command,
    Lease,
    PoolConfig,
    Priority,
    ProcessPool,
    ProcessRegistry,
    WorkerLost,
    run,
)
from procession.events import ProcessExited, ProcessSpawned, WorkerReleased
from procession.testing import LeakAudit

PYTHON = """
import sys
for line in sys.stdin:
    try:
        print(eval(line, globals()))
    except SyntaxError:
        exec(line, globals())
"""


@dataclass(frozen=True)
class Engine:
    """A program that answers each line with a line, and what one has to say to it."""

    command: Command
    define: str  # a function t(n), the sum of k * k * k for k up to n
    hang: str

    @classmethod
    def find(cls) -> Engine:
        if shutil.which("bc"):
            define = "define t(n) { auto s, k; for (k = 1; k <= n; k++) s += k * k * k; return s; }"
            return cls(Command("bc", "-q", env={"BC_LINE_LENGTH": "0"}, grace=0.2), define, "while (1) { x = 1 }")
        program = Command(sys.executable, "-I", "-u", "-c", PYTHON, grace=0.2)
        return cls(program, "t = lambda n: sum(k ** 3 for k in range(n + 1))", "while True: pass")

    async def ready(self, worker: Lease) -> None:
        """Teaches a new one what everybody will ask for, once; it is ready when it has understood."""
        await worker.send_line(self.define)
        if await worker.request("t(4)") != "100":
            raise ValueError("it cannot add")


@dataclass
class Desk:
    """The pool, and what its users have seen."""

    pool: ProcessPool
    engine: Engine
    waited: dict[Priority, list[float]] = field(default_factory=lambda: {Priority.HIGH: [], Priority.LOW: []})
    served: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    answers: int = 0

    async def ask(self, number: int, priority: Priority) -> None:
        async with self.pool.acquire(timeout=60.0, priority=priority) as worker:
            self.waited[priority].append(worker.waited)
            self.served[worker.pid] += 1
            answer = await worker.request(f"t({number})")
        self.answers += 1
        if int(answer) != (number * (number + 1) // 2) ** 2:
            self.wrong.append(f"t({number}) = {answer}")

    async def patient(self, numbers: range) -> None:
        """Has a list, and gives the calculator back after each line of it."""
        for number in numbers:
            await self.ask(number, Priority.LOW)

    async def hurried(self, numbers: range) -> None:
        """Wants something now and then, and at once."""
        for number in numbers:
            await self.ask(number, Priority.HIGH)
            await asyncio.sleep(0.02)

    async def now_or_never(self) -> None:
        """Takes all there are, so that nobody else can have one."""
        async with contextlib.AsyncExitStack() as leases:
            for _ in range(self.pool.config.most):
                await leases.enter_async_context(self.pool.acquire(priority=Priority.CRITICAL))
            try:
                async with self.pool.acquire(timeout=0.05, priority=Priority.CRITICAL):
                    self.wrong.append("there should have been none left")
            except AcquireTimeout as error:
                print(f"  {error}")

    async def too_hard(self) -> None:
        """Gives up after half a second. Leaving the lease by an exception says that the worker is in the middle of it."""
        try:
            async with self.pool.acquire() as worker, asyncio.timeout(0.5):
                await worker.request(self.engine.hang)
        except TimeoutError:
            print("  one that did not answer within 0.5 s was stopped")
        else:
            self.wrong.append("what takes for ever has ended")

    async def unlucky(self) -> None:
        """Loses the calculator while it is thinking, and asks another."""
        try:
            async with self.pool.acquire() as worker:
                await worker.send_line(self.engine.hang)
                os.kill(worker.pid, signal.SIGKILL)
                self.wrong.append(f"the dead answer: {await worker.receive_line()}")
        except WorkerLost as error:
            print(f"  {error}")
        await self.ask(1000, Priority.HIGH)


async def main() -> int:
    parser = argparse.ArgumentParser(description="Lease calculators to users who are in a hurry, and to others.")
    parser.add_argument("--quick", action="store_true", default=os.environ.get("PROCESSION_EXAMPLE_QUICK") == "1")
    options = parser.parse_args()
    users, questions = (8, 40) if options.quick else (16, 150)
    engine = Engine.find()
    config = PoolConfig(min_size=1, max_size=3, max_uses=100, idle_timeout=10, start_timeout=10)

    await run(Command("true"))  # what the library keeps for as long as this program runs is there now
    audit = LeakAudit.start()
    registry = ProcessRegistry(journal_size=100_000)
    async with (
        registry,
        ProcessPool(engine.command, config, name="desk", registry=registry, ready=engine.ready) as pool,
    ):
        print(f"{users} patient users, 2 hurried ones, {config.max_size} places for {engine.command.name}")
        desk = Desk(pool, engine)
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for user in range(users):
                group.create_task(desk.patient(range(2000 + user, 2000 + user + questions)))
            for _ in range(2):
                group.create_task(desk.hurried(range(100, 100 + questions // 2)))
            for trouble in (desk.now_or_never(), desk.too_hard(), desk.unlucky()):
                group.create_task(trouble)
        seconds = asyncio.get_running_loop().time() - began
        figures = pool.statistics()

    found = [*desk.wrong, *(str(leak) for leak in audit.finish())]
    high, low = (median(desk.waited[priority]) for priority in (Priority.HIGH, Priority.LOW))
    if desk.answers != users * questions + 2 * (questions // 2) + 1:
        found.append(f"{desk.answers} answers")
    if not high < low:
        found.append(f"the hurried waited {high:.3f} s, the patient {low:.3f} s")
    if max(desk.served.values()) > 100:
        found.append(f"a calculator was used {max(desk.served.values())} times")
    spawned, exited = len(registry.history(ProcessSpawned)), len(registry.history(ProcessExited))
    if spawned != exited or len(registry):
        found.append(f"{spawned} processes spawned, {exited} exited, {len(registry)} alive")

    print(f"\n{desk.answers} answers in {seconds:.1f} s, {desk.answers / seconds:.0f} a second")
    print(f"  waited     p50 {high * 1000:.1f} ms who was in a hurry, {low * 1000:.1f} ms who was not")
    print(f"  leases     {len(registry.history(WorkerReleased))}, held for p50 {figures.p50 * 1000:.1f} ms")
    print(
        f"  processes  {spawned}, of which {figures.failed} ended unasked; each served at most {config.max_uses} times"
    )
    print("every answer was right, nothing was left behind" if not found else "FAILED:\n  " + "\n  ".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
