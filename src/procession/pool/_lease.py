"""What a lease pool has, and what it hands out: a process, and the right to talk with it for a while."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from procession._core.aio import Latch, finish, wait_until
from procession._types import Exit
from procession.errors import LeaseError, StreamClosed, WorkerLoss, WorkerLost
from procession.pool._loss import guess, oom_kills, resident
from procession.process._lines import Line

if TYPE_CHECKING:
    from procession.pool._process_pool import ProcessPool
    from procession.pool._slots import Slot
    from procession.process import Communicator, Process, Spawning

_EXIT_SOON = 0.25  # seconds in which a process whose pipe has ended is expected to have ended too
_TAIL = 4096


class LeaseWorker:
    """One process of a lease pool, as the pool sees it."""

    def __init__(self, slot: Slot, spawning: Spawning, process: Process) -> None:
        self.slot = slot
        slot.pid = process.pid
        self.process = process
        self.lease: Lease | None = None
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.gone: Latch = Latch(loop=self.loop)
        self.communicator: Communicator = process.communicator()
        self.cause: WorkerLoss | None = None
        self._spawning = spawning
        self._oom_kills = oom_kills()
        self._poll: select.poll | None = None
        if process.pidfd is not None:
            self._poll = select.poll()
            self._poll.register(process.pidfd, select.POLLIN)
        if process.command.stderr == "pipe" and process.stderr is not None:
            process.stderr.divert(_TAIL)  # nobody has to read it, and its end is there when it is asked for

    def watch(self, pool: ProcessPool) -> None:
        """From now on the pool hears of its end."""

        def ended(_: Exit) -> None:
            self.gone.open()
            self.loop.call_soon(pool._worker_ended, self)

        self.process._handle.on_exit(ended)

    def has_ended(self) -> bool:
        """Whether it is over; asks the system, since the loop hears of it only at its next turn."""
        return self.process.exit is not None or (self._poll is not None and bool(self._poll.poll(0)))

    def memory(self) -> int:
        """Bytes of memory of its own."""
        return resident(self.process.pid)

    def loss(self, phase: str) -> WorkerLost:
        """What its end is to whoever used it."""
        tail = b""
        stderr = self.process.stderr
        if stderr is not None and not stderr.is_closed:
            try:
                tail = stderr.read_nowait(_TAIL) or b""
            except (OSError, RuntimeError):
                tail = b""  # somebody reads it himself
        exit = self.process.exit
        cause = self.cause or guess(exit, oom_kills=oom_kills() - self._oom_kills)
        return WorkerLost(self.slot.id, exit, cause, phase, tail.decode("utf-8", "backslashreplace"))

    async def retire(self, grace: float) -> None:
        """Stops it and its tree.

        Cancellation: absorbed until nothing of it is left, then raised.
        """
        await finish(self._end(grace))

    async def clear(self) -> None:
        """Ends what is left of it.

        Cancellation: absorbed until nothing of it is left, then raised.
        """
        await finish(self._end(0.0))

    async def _end(self, grace: float) -> None:
        stdin = self.process.stdin
        if stdin is not None:
            stdin.close()  # many programs end at the end of their input
        await self.process.stop(grace)
        await self._spawning.close(by_exception=False)
        self.gone.open()


class Lease:
    """A worker of a :class:`ProcessPool` for as long as it is yours; made by ``pool.acquire()``, never directly.

    Attributes:
        waited: seconds it took to get it.
    """

    __slots__ = ("_pool", "_since", "_worker", "waited")

    def __init__(self, pool: ProcessPool, worker: LeaseWorker, waited: float, now: float) -> None:
        self._pool = pool
        self._worker: LeaseWorker | None = worker
        self._since = now
        self.waited: float = waited
        worker.lease = self

    def _held(self) -> LeaseWorker:
        if self._worker is None:
            raise LeaseError("lease", "it was given back, so its worker is somebody else's")
        return self._worker

    @property
    def id(self) -> str:
        """The worker's id."""
        return self._held().slot.id

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._held().process.pid

    @property
    def process(self) -> Process:
        """The process itself, for what a lease does not offer. Do not stop it: see :meth:`discard`."""
        return self._held().process

    @property
    def is_released(self) -> bool:
        """Whether it was given back."""
        return self._worker is None

    async def request(self, line: str) -> Line:
        """Sends one line and returns the next line received: its answer.

        Raises:
            LeaseError: it was given back.
            WorkerLost: the process has ended, or has closed its stdin or stdout.
            ConfigError: ``line`` has a line end in it.

        Cancellation: safe; its answer is thrown away when it comes.
        """
        worker = self._held()
        try:
            return await worker.communicator.request(line)
        except StreamClosed as error:
            raise await self._lost(worker) from error

    async def send_line(self, text: str) -> None:
        """Sends one line.

        Raises:
            LeaseError: it was given back.
            WorkerLost: the process has ended or has closed its stdin.
            ConfigError: ``text`` has a line end in it.

        Cancellation: either nothing was sent, or all of it will have been before anything else is.
        """
        worker = self._held()
        try:
            await worker.communicator.send_line(text)
        except StreamClosed as error:
            raise await self._lost(worker) from error

    async def receive_line(self) -> Line:
        """The next line it writes to stdout.

        Raises:
            LeaseError: it was given back.
            WorkerLost: the process has ended or has closed its stdout.

        Cancellation: safe; nothing is lost.
        """
        worker = self._held()
        try:
            return await worker.communicator.receive_line()
        except StreamClosed as error:
            raise await self._lost(worker) from error

    async def send(self, data: bytes) -> None:
        """Sends bytes.

        Raises:
            LeaseError: it was given back.
            WorkerLost: the process has ended or has closed its stdin.

        Cancellation: either nothing was sent, or all of it will have been before anything else is.
        """
        worker = self._held()
        try:
            await worker.communicator.send(data)
        except StreamClosed as error:
            raise await self._lost(worker) from error

    async def receive(self, limit: int = 65536) -> bytes:
        """Up to ``limit`` bytes of its stdout, as soon as there are any; ``b""`` at the end.

        Raises:
            LeaseError: it was given back.

        Cancellation: safe; nothing is lost.
        """
        return await self._held().communicator.receive(limit)

    async def _lost(self, worker: LeaseWorker) -> WorkerLost:
        if not await wait_until(worker.gone, worker.loop.time() + _EXIT_SOON):
            worker.cause = WorkerLoss.CUT_OFF  # it lives, but nobody can talk with it any more
        return worker.loss("leased")

    def release(self) -> Awaitable[None]:
        """Gives the worker back, at once, for whoever is next. What it returns may be awaited and need not be.

        Raises:
            LeaseError: it was given back before.
        """
        return self._pool.release(self)

    def discard(self) -> Awaitable[None]:
        """Gives the worker back to be stopped: nobody else shall have it. Another takes its place.

        What it returns may be awaited and need not be.

        Raises:
            LeaseError: it was given back before.
        """
        return self._pool.release(self, discard=True)

    def __repr__(self) -> str:
        return f"<Lease {'released' if self._worker is None else self._worker.process!r}>"
