"""One function worker as its pool sees it: what it was given, what it answers, how it ends."""

from __future__ import annotations

import asyncio
import logging
import marshal
import mmap
import pickle
import select
import signal
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from procession._core.aio import Latch, finish, wait_until
from procession._types import Exit
from procession.errors import (
    MessageTooLarge,
    NotPicklable,
    RemoteError,
    RemoteTraceback,
    WorkerLoss,
    WorkerLost,
    WorkerStartError,
)
from procession.pool import _link
from procession.pool._channel import Channel, Parcel
from procession.pool._functions import why
from procession.pool._loss import guess, oom_kills, resident

if TYPE_CHECKING:
    from procession.pool._call import Call
    from procession.pool._functions import Function
    from procession.pool._output import Tap
    from procession.pool._slots import Slot
    from procession.process import Process, Spawning

BUDGET = 0.001
"""Seconds of expected work behind which a call may be put at a worker: also the most it delays what is more urgent."""

_BULKY = 1 << 17
"""Bytes from which a call does not wait at a worker: it could not be taken back before all of it was sent."""

_PHASES = {_link.READING: "reading", _link.RUNNING: "running", _link.REPLYING: "replying"}
_MARK = _link.MARK.unpack_from
_EXIT_SOON = 1.0  # seconds a worker may live on after its channel has ended


class Host(Protocol):
    """What a worker needs of its pool."""

    def replied(self, worker: FunctionWorker, call: Call, value: object, error: BaseException | None) -> None:
        """A call was answered."""

    def freed(self, worker: FunctionWorker) -> None:
        """It can take more."""

    def moved(self, calls: Sequence[Call]) -> None:
        """These were not begun and are to be run elsewhere."""

    def lost(self, worker: FunctionWorker, call: Call | None, loss: WorkerLost) -> None:
        """It is gone, with ``call``."""


class Sent:
    """One call at a worker, in the order of sending. ``call`` is ``None`` once it was taken back."""

    __slots__ = ("call", "expected", "id")

    def __init__(self, id: int, call: Call, expected: float) -> None:
        self.id = id
        self.call: Call | None = call
        self.expected = expected


class FunctionWorker:
    """A worker process and its channel; made by ``_start.start``."""

    def __init__(
        self,
        slot: Slot,
        pool: str,
        spawning: Spawning,
        process: Process,
        channel: Channel,
        page: mmap.mmap,
        taps: Sequence[Tap],
    ) -> None:
        self.slot = slot
        slot.pid = process.pid
        self.pool = pool
        self.process = process
        self.host: Host | None = None
        self.pending: deque[Sent] = deque()
        self.load = 0.0
        self.since = 0.0  # when the call it runs was begun, at the earliest
        self.stuck = False
        self.condemned: WorkerLoss | None = None
        self.known: set[int] = set()
        self.loop = asyncio.get_running_loop()
        self.gone = Latch(loop=self.loop)
        self.up: asyncio.Future[None] = self.loop.create_future()
        self._spawning = spawning
        self._channel = channel
        self._page = page
        self._taps = taps
        self.answered = 0
        self._next = 1
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._fence = threading.Lock()
        self._oom_kills = oom_kills()
        self._over = False
        self._stopping = False
        self._exit_by: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """From now on its end is noticed."""
        self.process._handle.on_exit(self._exited)

    @property
    def id(self) -> str:
        """Its id, also in the registry."""
        return self.slot.id

    def __repr__(self) -> str:
        return f"<FunctionWorker {self.id} pid={self.process.pid} {self.slot.state}, {len(self.pending)} calls>"

    def memory(self) -> int:
        """Bytes of memory of its own."""
        return resident(self.process.pid)

    # -------------------------------------------------------------------------------------- calling

    def has_room(self, function: Function | None, parcel: Parcel, depth: int) -> bool:
        """Whether a call of ``function`` may be put here now, so that it hardly waits."""
        if self.condemned is not None or self.slot.strict:
            return False
        if not self.pending:
            return True
        if function is None or function.pace is None or self.stuck or len(self.pending) > depth:
            return False
        if function.number not in self.known or parcel.length > _BULKY:
            return False  # the first call of a function imports what it needs, which may take long
        return self.load <= BUDGET and function.pace <= BUDGET and not self._channel.congested

    def assign(self, call: Call, now: float) -> None:
        """Sends it a call."""
        id = self._next
        self._next = id + 1
        function = call.function
        number = 0
        expected = 2 * BUDGET
        if function is not None:
            number = function.number
            if number in self.known:
                if function.pace is not None and call.parcel.length <= _BULKY:
                    expected = function.pace
            else:
                self.known.add(number)
                self._channel.send(_link.DEFINE, 0, number, function.parcel)
        self._page[_link.FLAGS + id % _link.FLAG_COUNT] = 0
        if not self.pending:
            self.since = now
        sent = Sent(id, call, expected)
        self.pending.append(sent)
        self.load += expected
        call.worker = self
        call.sent = sent
        self._channel.send(_link.CALL, id, number, call.parcel)

    def take_back(self, call: Call) -> bool:
        """Takes a call back that was not begun; ``False`` when it may have been.

        The worker writes its mark and then reads the flag, this writes the flag and then reads the mark, and both
        pass a barrier in between: if the mark does not show the call here, the flag will be seen there.
        """
        sent = call.sent
        if sent is None or sent.call is not call:
            return True
        self._page[_link.FLAGS + sent.id % _link.FLAG_COUNT] = 1
        with self._fence:
            pass
        if _MARK(self._page)[0] >= sent.id:
            return False
        sent.call = None
        call.worker = call.sent = None
        self.slot.untake()
        return True

    def fetch_held(self) -> None:
        """Takes the answers that are held back until the next ones: the call that runs takes longer than expected."""
        page, header, at = self._page, _link.HEADER, 0
        size, times = _link.HELD.unpack_from(page, _link.HELD_AT)
        if not 0 < size <= _link.HOLD:
            return
        with self._fence:
            data = page[_link.ANSWERS : _link.ANSWERS + size]
        if self.process.exit is None and _link.HELD.unpack_from(page, _link.HELD_AT)[1] != times:
            return  # they were sent meanwhile, and others may have been written over them
        self._channel.drain()  # answers that were sent before these were held back come first
        while at + header.size <= size:
            length, id, number, kind, _ = header.unpack_from(data, at)
            at += header.size
            if at + length > size or kind not in (_link.RESULT, _link.ERROR):
                return
            self._answered(kind, id, number, memoryview(data)[at : at + length], ())
            at += length

    def take_back_all(self) -> list[Call]:
        """Takes back whatever was not begun, in the order of sending."""
        calls = [sent.call for sent in self.pending if sent.call is not None and sent.call.fate is None]
        return [call for call in calls if self.take_back(call)]

    def forget(self, function: Function) -> None:
        """It need not keep this function any longer."""
        if function.number in self.known:
            self.known.discard(function.number)
            self._channel.send(_link.FORGET, 0, function.number)

    async def ping(self) -> None:
        """Waits until it answers.

        Cancellation: safe; only the waiting ends.
        """
        future: asyncio.Future[None] = self.loop.create_future()
        id = self._next
        self._next += 1
        self._pings[id] = future
        self._channel.send(_link.PING, id)
        try:
            await future
        finally:
            self._pings.pop(id, None)

    # ---------------------------------------------------------------------------------- its answers

    def on_frame(self, kind: int, id: int, number: int, pickled: Any, buffers: Sequence[Any]) -> None:
        """Takes one frame."""
        if kind in (_link.RESULT, _link.ERROR, _link.SKIPPED):
            self._answered(kind, id, number, pickled, buffers)
        elif kind == _link.PONG:
            future = self._pings.pop(id, None)
            if future is not None and not future.done():
                future.set_result(None)
        elif kind == _link.LOG:
            self._log(marshal.loads(pickled))  # noqa: S302 - a worker is trusted as far as its pickles are
        elif kind == _link.WARNING:
            text, category, path, line = marshal.loads(pickled)  # noqa: S302 - see above
            parts = ("py.warnings", logging.WARNING, path, line, f"{path}:{line}: {category}: {text}", None, None)
            self._log((*parts, None, None))
        elif kind == _link.READY:
            if not self.up.done():
                self.up.set_result(None)
        elif kind == _link.START_FAILED:
            error = self._error(pickled)
            wrapped = WorkerStartError(self.pool, f"its initializer raised {why(error)}")
            wrapped.__cause__ = error
            if not self.up.done():
                self.up.set_exception(wrapped)
        else:
            self.kill(WorkerLoss.GARBLED)

    def _answered(self, kind: int, id: int, number: int, pickled: Any, buffers: Sequence[Any]) -> None:
        pending = self.pending
        if id <= self.answered:
            return  # it was fetched from where it had been held back
        if not pending or pending[0].id != id:
            self.kill(WorkerLoss.GARBLED)
            return
        sent = pending.popleft()
        self.answered = id
        self.load = self.load - sent.expected if pending else 0.0
        self.stuck = False
        call = sent.call
        if call is None:  # it was taken back: its place is free, its answer nobody's
            self._freed()
            return
        call.worker = call.sent = None
        value: object = None
        error: BaseException | None = None
        if kind == _link.SKIPPED:  # we had asked for it back, and could not know whether it had been begun
            self.host_of().moved((call,))
            self._freed()
            return
        if call.function is not None:
            call.function.took(number * 1e-6)
        if kind == _link.RESULT:
            try:
                value = pickle.loads(pickled, buffers=buffers)  # noqa: S301 - a worker is trusted
            except KeyboardInterrupt:
                raise
            except BaseException as problem:  # noqa: BLE001 - whatever its own code raises; SystemExit would end the loop
                error = NotPicklable("result", type(problem).__qualname__, why(problem))
                error.__cause__ = problem
        else:
            error = self._error(pickled)
        self.slot.survived += 1
        self.host_of().replied(self, call, value, error)
        self._freed()

    def _freed(self) -> None:
        self.since = self.loop.time()
        self.host_of().freed(self)

    def host_of(self) -> Host:
        """The pool; it has one from the moment it is ready."""
        assert self.host is not None
        return self.host

    def _error(self, data: Any) -> BaseException:
        how, what, kind, text, whole = marshal.loads(data)  # noqa: S302 - see above
        if how == "refused":
            return NotPicklable(what, kind, text)
        if how == "large":
            return MessageTooLarge(what, kind, text)
        name, message, trace = what, kind, text
        if whole is not None:
            try:
                error = pickle.loads(whole)  # noqa: S301 - a worker is trusted
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - whatever its own code raises; SystemExit would end the loop
                return RemoteError(name, message, trace)
            if isinstance(error, Exception) and not isinstance(error, (StopIteration, asyncio.CancelledError)):
                error.__cause__ = RemoteTraceback(trace)
                return error
        return RemoteError(name, message, trace)

    def _log(self, parts: Sequence[Any]) -> None:
        name, level, path, line, text, trace, function, created, thread = parts
        logger = logging.getLogger(name)
        if not logger.isEnabledFor(level):
            return
        tags = {"pool": self.pool, "worker": self.id, "worker_pid": self.process.pid}
        try:
            record = logger.makeRecord(name, level, path, line, text, (), None, function, tags)
            record.exc_text = trace
            if created is not None:
                record.created, record.threadName = created, thread
            logger.handle(record)
        except Exception as error:  # noqa: BLE001 - filters, handlers and factories of records are anybody's code
            told = {"message": f"a log record of worker {self.id} could not be handed on", "exception": error}
            self.loop.call_exception_handler(told)

    # -------------------------------------------------------------------------------------- its end

    def on_end(self, problem: str) -> None:
        """Its channel has ended. It ends too, or is made to."""
        if problem:
            self.kill(WorkerLoss.GARBLED)
        elif not self._over and self._exit_by is None:
            busy = any(sent.call is not None for sent in self.pending)
            patience = 0.05 if busy and not self._stopping else _EXIT_SOON
            self._exit_by = self.loop.call_later(patience, self._cut_off)

    def _cut_off(self) -> None:
        """It has closed its channel. If it is on its way out, how it ended will be known in a moment."""
        pidfd = self.process.pidfd
        if pidfd is not None:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if poll.poll(0):
                return
        self.kill(WorkerLoss.CUT_OFF)

    def kill(self, cause: WorkerLoss) -> None:
        """Kills it and all of its tree, at once."""
        if self._over or self.condemned is not None:
            return
        self.condemned = cause
        handle = self.process._handle
        if handle.exit is None:
            handle.signal_group(signal.SIGKILL)
            self.process._stop().begin(0)

    def _exited(self, exit: Exit) -> None:
        self.loop.call_soon(self._bury, exit)  # after everybody else has been told of it

    def _bury(self, exit: Exit | None) -> None:
        """It is gone, or cannot be got rid of: takes the last answers, and says what was lost."""
        if self._over:
            return
        self._channel.drain()
        self.fetch_held()
        self._over = True
        if self._exit_by is not None:
            self._exit_by.cancel()
        tails = [tap.drain() for tap in self._taps]
        mark, phase = _MARK(self._page)
        self._channel.close()
        lost: Call | None = None
        others: list[Call] = []
        # Unless the mark is exactly that of the last answer, the next call was begun: also when it was overwritten.
        begun = mark != self.answered
        for sent in self.pending:
            if sent.call is not None:
                if begun:
                    lost = sent.call
                else:
                    others.append(sent.call)
                sent.call.worker = sent.call.sent = None
            begun = False
        self.pending.clear()
        cause = self.condemned or guess(exit, oom_kills=oom_kills() - self._oom_kills)
        loss = WorkerLost(self.id, exit, cause, _PHASES.get(phase, "running") if lost else "idle", tails[-1])
        if not self.up.done():
            self.up.set_exception(WorkerStartError(self.pool, "it ended before it was ready", exit, tails[-1]))
        for future in self._pings.values():
            if not future.done():
                future.set_exception(loss)
        self.gone.open()
        if self.host is not None:
            self.host.moved(others)
            self.host.lost(self, lost, loss)

    def stderr_tail(self) -> str:
        """The last lines it wrote to stderr."""
        return self._taps[-1].tail.decode("utf-8", "backslashreplace")

    async def retire(self, grace: float) -> None:
        """Lets it end in order, at most ``grace`` seconds, then kills it; returns when nothing of it is left.

        Cancellation: absorbed until nothing is left, then raised.
        """
        self._stopping = True
        await finish(self._retire(grace))

    async def _retire(self, grace: float) -> None:
        if not self._over and self.condemned is None and grace > 0:
            self._channel.send(_link.STOP)
            await wait_until(self.gone, self.loop.time() + grace)
        await self._clear()

    async def _clear(self) -> None:
        """Nothing of it is left: no process of its tree, no descriptor."""
        if not self._over and self.condemned is None:
            self.condemned = WorkerLoss.KILLED
        if self.process.exit is None or not self._stopping or self.condemned is not None:
            await self.process.stop(0)
        await self._spawning.close(by_exception=False)
        self._bury(self.process.exit)
        self._page.close()

    async def clear(self) -> None:
        """Ends what is left of it.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await finish(self._clear())


def settings_frame(channel: Channel, settings: dict[str, Any]) -> None:
    """The first frame to a worker that was not forked from a template."""
    channel.send(_link.SETUP, parcel=Parcel(marshal.dumps(settings)))
