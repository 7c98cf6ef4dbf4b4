"""A simulated process: a script that runs on a clock of its own, and takes signals the way the kernel gives them."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from signal import SIGCONT, SIGKILL, SIGPIPE, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU

from procession._types import Exit, ProcessRef
from procession.testing._memory import MemoryPipe
from procession.testing._script import POLITE, Script

FIRST_PID = 2**22 + 1
"""The kernel's own limit is 2**22: no simulated pid can ever be a real one."""

_pids = itertools.count(FIRST_PID)
_STOPPING = frozenset({SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU})
_CHUNK = 65_536


class ScriptClock:
    """Calls functions at times of its own, and stands still while anybody holds it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._elapsed = 0.0
        self._since = loop.time()
        self._holds: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def now(self) -> float:
        """Seconds it has run."""
        return self._elapsed if self._holds else self._elapsed + (self._loop.time() - self._since)

    @property
    def holds(self) -> frozenset[str]:
        """Why it stands still."""
        return frozenset(self._holds)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Calls ``action`` at ``when``."""
        heapq.heappush(self._due, (when, next(self._order), action))
        self._arm()

    def hold(self, reason: str) -> None:
        """Stops the clock."""
        self._elapsed = self.now
        self._holds.add(reason)
        self._arm()

    def free(self, reason: str) -> None:
        """Lets it go on, once nobody holds it."""
        if reason in self._holds:
            self._holds.discard(reason)
            self._since = self._loop.time()
            self._arm()

    def clear(self) -> None:
        """Forgets all that is due."""
        self._due.clear()
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and not self._holds:
            self._timer = self._loop.call_at(self._since + (self._due[0][0] - self._elapsed), self._fire)

    def _fire(self) -> None:
        self._timer = None
        # Sums of floats differ in the last bit: what the timer was set for is due, whatever the subtraction says.
        self._elapsed = max(self.now, self._due[0][0])
        self._since = self._loop.time()
        while self._due and not self._holds and self._due[0][0] <= self._elapsed:
            heapq.heappop(self._due)[2]()
        self._arm()


class SimulatedProcess:
    """One process of a :class:`SimulatedLauncher`, to be looked at by tests; made by the launcher only.

    Attributes:
        pid: its number, above 2**22, so never a real one.
        name: its command name.
        script: what it does.
        parent: who started it, for a child in the script.
        children: what it has started so far.
        group: the pid of its group's leader.
        started_at: when it was started, in loop time.
        ended_at: when it ended.
        signals: every signal it was sent and when, whatever came of it.
        received: what it has read from stdin.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        script: Script,
        *,
        name: str,
        parent: SimulatedProcess | None = None,
        stdin: MemoryPipe | None = None,
        outputs: Mapping[str, MemoryPipe] | None = None,
        born: Callable[[SimulatedProcess], None] = lambda _process: None,
    ) -> None:
        self.pid: int = next(_pids)
        self.name = name
        self.script = script
        self.parent = parent
        self.children: list[SimulatedProcess] = []
        self.group: int = self.pid if parent is None or script.escaped else parent.group
        self.started_at: float = loop.time()
        self.ended_at: float | None = None
        self.signals: list[tuple[float, int]] = []
        self.received: bytearray = bytearray()
        self._loop = loop
        self._born = born
        self._stdin = stdin
        self._outputs = dict(outputs or {})
        self._clock = ScriptClock(loop)
        self._writes: deque[tuple[MemoryPipe, memoryview]] = deque()
        self._pending: list[int] = []
        self._stuck = script.unkillable
        self._cleaning = self._over = self._pumping = False
        self._eof = stdin is None
        self._exit: Exit | None = None
        self._reaped = False
        self._exit_calls: list[Callable[[], None]] = []
        self._dies: asyncio.TimerHandle | None = None
        self._begin()

    # ---------------------------------------------------------------------------------- looking at it

    @property
    def ref(self) -> ProcessRef:
        """Who it is."""
        return ProcessRef(self.pid, int(self.started_at * 100) + 1, self.name)

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._exit is None

    @property
    def is_reaped(self) -> bool:
        """Whether its end has been told."""
        return self._reaped

    @property
    def is_stopped(self) -> bool:
        """Whether SIGSTOP suspends it."""
        return "stopped" in self._clock.holds

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for somebody to read what it writes."""
        return "blocked" in self._clock.holds

    @property
    def is_cleaning_up(self) -> bool:
        """Whether it was asked to end and takes its ``term_delay``."""
        return self._cleaning and self.is_alive

    @property
    def exit(self) -> Exit | None:
        """How it ended."""
        return self._exit

    @property
    def escaped(self) -> bool:
        """Whether it left the process group it was born into, or its parent had."""
        return self.parent is not None and self.group != self._root().pid

    def descendants(self) -> Iterator[SimulatedProcess]:
        """All that it has started, and what these have, dead or alive."""
        for child in self.children:
            yield child
            yield from child.descendants()

    def _root(self) -> SimulatedProcess:
        return self if self.parent is None else self.parent._root()

    def __repr__(self) -> str:
        state = str(self._exit) if self._exit else ("stopped" if self.is_stopped else "alive")
        return f"<SimulatedProcess {self.ref} {state}>"

    # ---------------------------------------------------------------------------------------- its life

    def _begin(self) -> None:
        script, writes = self.script, self.script.writes()
        if self._stdin is not None:
            self._stdin.open_reader()
            if script.reads:
                self._stdin.watch(self._pump)
        for pipe in self._pipes():
            pipe.open_writer()
            pipe.watch(self._pump)
        for at, stream, data in writes:
            self._clock.at(at, lambda stream=stream, data=data: self._write(stream, data))  # type: ignore[misc]
        for child in script.family:
            self._clock.at(child.start_delay, lambda child=child: self._fork(child))  # type: ignore[misc]
        if not script.hangs:
            self._clock.at(max([script.duration, *(at for at, _, _ in writes)]), self._finish)
        if script.dies_at is not None:
            self._dies = self._loop.call_at(self.started_at + script.dies_at, self.deliver, int(script.dies_of))
        self._born(self)
        self._loop.call_soon(self._pump)

    def _pipes(self) -> set[MemoryPipe]:
        return set(self._outputs.values())

    def _fork(self, script: Script) -> None:
        outputs = self._outputs if script.holds_pipes else None
        child = SimulatedProcess(self._loop, script, name=script.name, parent=self, outputs=outputs, born=self._born)
        self.children.append(child)

    def _finish(self) -> None:
        self._over = True
        if self._stuck:
            self.release()
        self._pump()

    def _write(self, stream: str, data: bytes) -> None:
        if stream in self._outputs:
            self._writes.append((self._outputs[stream], memoryview(data)))
            self._pump()

    def _pump(self) -> None:
        if self._pumping or not self.is_alive or self.is_stopped:
            return
        self._pumping = True
        try:
            while self._flush() and self._take():
                pass
        finally:
            self._pumping = False
        if self.is_alive and self._over and self._eof_reached() and not self._writes:
            self._die(self.script.returncode)

    def _eof_reached(self) -> bool:
        return self._eof or not self.script.reads

    def _flush(self) -> bool:
        """Writes what is to be written; whether all of it is."""
        while self._writes:
            pipe, data = self._writes.popleft()
            try:
                written = pipe.write(data)
            except BrokenPipeError:
                if not self.script.ignoring(SIGPIPE):
                    self._die(-SIGPIPE)
                    return False
                continue
            if written is None or written < len(data):
                self._writes.appendleft((pipe, data[written or 0 :]))
            if written is None:
                self._clock.hold("blocked")
                return False
        self._clock.free("blocked")
        return True

    def _take(self) -> bool:
        """Reads from stdin; whether there was something."""
        if self._stdin is None or self._eof or self._cleaning or not self.script.reads:
            return False
        data = self._stdin.read(_CHUNK)
        if not data:
            self._eof = data == b""
            return False
        self.received += data
        if self.script.echo and "stdout" in self._outputs:
            self._writes.append((self._outputs["stdout"], memoryview(data)))
        return True

    def _die(self, code: int | None) -> None:
        self._exit = Exit(code)
        self.ended_at = self._loop.time()
        self._writes.clear()
        self._clock.clear()
        if self._dies is not None:
            self._dies.cancel()
        for pipe in self._pipes():
            pipe.unwatch(self._pump)
            pipe.close_writer()
        if self._stdin is not None:
            self._stdin.unwatch(self._pump)
            self._stdin.close_reader()
        self._loop.call_soon(self._reap)

    def _reap(self) -> None:
        self._reaped = True
        calls, self._exit_calls = self._exit_calls, []
        for call in calls:
            call()

    def when_reaped(self, call: Callable[[], None]) -> None:
        """Calls ``call`` once its end was seen, which is a turn of the loop after it."""
        if self._reaped:
            call()
        else:
            self._exit_calls.append(call)

    # ----------------------------------------------------------------------------------------- signals

    def deliver(self, signum: int) -> None:
        """Sends it a signal, as the kernel would; a process that has ended takes no notice."""
        self.signals.append((self._loop.time(), signum))
        if self._stuck:
            if signum:
                self._pending.append(signum)
        elif self.is_alive:
            self._take_signal(signum)

    def release(self) -> None:
        """Ends its uninterruptible sleep: what it was sent meanwhile takes effect."""
        self._stuck = False
        self._deliver_pending()

    def _take_signal(self, signum: int) -> None:
        if signum == SIGKILL:
            self._die(-SIGKILL)
        elif signum == SIGCONT:
            if self.is_stopped:
                self._clock.free("stopped")
                self._deliver_pending()
                self._pump()
        elif signum == SIGSTOP or (signum in _STOPPING and not self.script.ignoring(signum)):
            self._clock.hold("stopped")
        elif self.script.ignoring(signum):
            pass
        elif self.is_stopped:
            self._pending.append(signum)
        elif signum in POLITE and self.script.term_delay is not None:
            self._clean_up(self.script.term_delay)
        else:
            self._die(-signum)

    def _clean_up(self, delay: float) -> None:
        if not self._cleaning:
            self._cleaning = True
            self._over = False
            self._writes.clear()
            self._clock.clear()
            self._clock.free("blocked")
            self._clock.at(self._clock.now + delay, lambda: self._die(self.script.term_exit))

    def _deliver_pending(self) -> None:
        pending, self._pending = self._pending, []
        for signum in sorted(pending, key=lambda number: number != SIGKILL):
            if self.is_alive:
                self._take_signal(signum)
