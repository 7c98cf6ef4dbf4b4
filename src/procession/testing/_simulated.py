"""The simulated launcher: processes that are told in advance, on whatever clock the loop has."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from signal import SIGKILL

from procession._types import Containment, Exit, ProcessRef
from procession.command import Command
from procession.errors import ConfigError, SpawnError, SpawnFailure
from procession.testing._memory import CAPACITY, MemoryInlet, MemoryOutlet, MemoryPipe
from procession.testing._process import SimulatedProcess
from procession.testing._script import ERRNO, Script

Scripts = Script | Sequence[Script]
"""One script for every start, or one for each start in turn; the last one is used for all further starts."""

_LADDER = tuple(Containment)
_LAST_SIGNAL = 64


@dataclass(frozen=True, slots=True)
class Launched:
    """One call of ``launch``, whatever came of it.

    Attributes:
        command: what was to be run.
        id: under which id.
        at: when, in loop time.
    """

    command: Command
    id: str
    at: float


class SimulatedMember:
    """A process of a simulated tree; an ``abc.Member``."""

    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process
        self._closed = False

    @property
    def ref(self) -> ProcessRef:
        """Who it is."""
        return self._process.ref

    @property
    def escaped(self) -> bool:
        """Whether it left the child's process group."""
        return self._process.escaped

    def send_signal(self, signum: int) -> bool:
        """Signals exactly this process; ``False`` when it has ended."""
        if not self._process.is_alive:
            return False
        _deliver(self._process, signum)
        return True

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once when it has ended."""
        self._process.when_reaped(lambda: None if self._closed else callback())

    def close(self) -> None:
        """Lets go of it; may be called twice."""
        self._closed = True


class SimulatedHandle:
    """One simulated child; an ``abc.ProcessHandle``.

    Attributes:
        process: the simulated process itself, for tests to look at.
        size: rows and columns of its terminal, when it has one.
    """

    def __init__(
        self,
        process: SimulatedProcess,
        command: Command,
        rung: Containment,
        stdin: MemoryOutlet | None,
        stdout: MemoryInlet | None,
        stderr: MemoryInlet | None,
    ) -> None:
        self.process = process
        self.size = command.pty_size if command.pty else None
        self._rung = rung
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._closed = False

    @property
    def pid(self) -> int:
        """Its number, above 2**22: never the number of a real process."""
        return self.process.pid

    @property
    def pidfd(self) -> int | None:
        """None: there is no such process."""
        return None

    @property
    def ref(self) -> ProcessRef:
        """Who it is."""
        return self.process.ref

    @property
    def containment(self) -> Containment:
        """The rung that is in force."""
        return self._rung

    @property
    def exit(self) -> Exit | None:
        """How it ended, once it was reaped."""
        return self.process.exit if self.process.is_reaped else None

    @property
    def stdin(self) -> MemoryOutlet | None:
        """Our end of its stdin."""
        return self._stdin

    @property
    def stdout(self) -> MemoryInlet | None:
        """Our end of its stdout."""
        return self._stdout

    @property
    def stderr(self) -> MemoryInlet | None:
        """Our end of its stderr."""
        return self._stderr

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Calls ``callback`` once it was reaped; at once if it has been."""
        self.process.when_reaped(lambda: self._tell(callback))

    def _tell(self, callback: Callable[[Exit], None]) -> None:
        if not self._closed and self.exit is not None:
            callback(self.exit)

    def send_signal(self, signum: int) -> None:
        """Signals the child itself.

        Raises:
            ProcessLookupError: it has ended.
        """
        if self.process.is_reaped:
            raise ProcessLookupError(errno.ESRCH, "No such process")
        _deliver(self.process, signum)

    def signal_group(self, signum: int) -> bool:
        """Signals all of its process group (number 0 only asks); ``False`` when nobody is left in it."""
        found = [] if self.process.is_reaped else [self.process]
        if self._rung is not Containment.NONE:
            found += [one for one in self.process.descendants() if one.is_alive and one.group == self.process.pid]
        for one in found:
            _deliver(one, signum)
        return bool(found)

    async def members(self) -> Sequence[SimulatedMember]:
        """What else lives of its tree, as far as its rung would prove it.

        Cancellation: safe.
        """
        await asyncio.sleep(0)
        if self._rung is Containment.NONE:
            return []
        living = [one for one in self.process.descendants() if one.is_alive]
        if self._rung is Containment.GROUP:
            living = [one for one in living if not one.escaped]
        return [SimulatedMember(one) for one in living]

    def kill_container(self) -> bool:
        """Ends all of its simulated cgroup at once; ``False`` when it has none."""
        if self._rung is not Containment.CGROUP:
            return False
        for one in (self.process, *self.process.descendants()):
            if one.is_alive:
                one.deliver(SIGKILL)
        return True

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal.

        Raises:
            ConfigError: it has no terminal.
        """
        if self.size is None:
            raise ConfigError("pty", False, "only a command with pty=True has a terminal")
        self.size = (rows, columns)

    def close(self) -> None:
        """Lets go of its pipes. A child that still lives is not touched."""
        self._closed = True
        for end in (self._stdin, self._stdout, self._stderr):
            if end is not None:
                end.close()


class SimulatedLauncher:
    """An ``abc.Launcher`` that starts nothing real: what its processes do is told in advance.

    ``SimulatedLauncher({"api": [Script(exit=1), Script(hangs=True)]})`` – the first ``api`` crashes, the next ones run.

    Everything happens through the running loop's timers, so on a :class:`VirtualLoop` hours pass at once. Pids are
    above 2**22, the kernel's own limit, so that none can ever be real; there is no pidfd.

    Args:
        scripts: what the processes do: one script for all; several for successive starts, the last one again and
            again; a mapping from the program (as given, or its file name) to either; or a function of the command.
        default: for programs the mapping or the function (by ``None``) does not know; without it they are *not found*.
        rung: the best containment this simulated system offers.
        capacity: bytes a pipe holds; when it is full its writer blocks and its clock stands still.

    Attributes:
        launched: every start that was tried, in order.
        processes: every process made, those started by scripts included, in order.
        handles: the handle of every child, by id; the latest when an id was used again.
    """

    def __init__(
        self,
        scripts: Scripts | Mapping[str, Scripts] | Callable[[Command], Script | None] = (),
        *,
        default: Scripts | None = None,
        rung: Containment = Containment.TREE,
        capacity: int = CAPACITY,
    ) -> None:
        self.launched: list[Launched] = []
        self.processes: list[SimulatedProcess] = []
        self.handles: dict[str, SimulatedHandle] = {}
        self._choose = scripts if callable(scripts) else None
        self._programs: Mapping[str, Scripts] = scripts if isinstance(scripts, Mapping) else {}
        if isinstance(scripts, Script) or (isinstance(scripts, Sequence) and scripts):
            if default is not None:
                raise ConfigError("default", default, "the scripts given are for every program already")
            default = scripts
        elif scripts == () and default is None:
            default = Script()
        self._default = default
        self._best = rung
        self._capacity = capacity
        self._starts: dict[str | None, int] = {}

    @property
    def name(self) -> str:
        """``"simulated"``."""
        return "simulated"

    @property
    def alive(self) -> list[SimulatedProcess]:
        """The processes that have not ended: what a test may want to be empty."""
        return [process for process in self.processes if process.is_alive]

    async def launch(self, command: Command, id: str) -> SimulatedHandle:
        """Starts the script chosen for ``command``, after its ``start_delay``.

        Raises:
            SpawnError: the script refuses, or no script is known for the program.

        Cancellation: safe; a process exists only once this has returned.
        """
        loop = asyncio.get_running_loop()
        self.launched.append(Launched(command, id, loop.time()))
        script = self._script(command)
        await asyncio.sleep(script.start_delay)
        if script.refuses is not None:
            raise SpawnError.of(script.refuses, command, ERRNO.get(script.refuses), command.program)
        merged = command.pty or command.stderr == "stdout"
        outputs: dict[str, MemoryPipe] = {}
        if command.pty or command.stdout == "pipe":
            outputs["stdout"] = MemoryPipe(loop, self._capacity)
        if not merged and command.stderr == "pipe":
            outputs["stderr"] = MemoryPipe(loop, self._capacity)
        elif merged and "stdout" in outputs:
            outputs["stderr"] = outputs["stdout"]
        stdin = MemoryPipe(loop, self._capacity) if command.pty or command.stdin == "pipe" else None
        ends = {stream: MemoryInlet(pipe) for stream, pipe in outputs.items() if stream == "stdout" or not merged}
        outlet = None if stdin is None else MemoryOutlet(stdin)
        process = SimulatedProcess(
            loop, script, name=command.name, stdin=stdin, outputs=outputs, born=self.processes.append
        )
        rung = min(command.rung, self._best, key=_LADDER.index)
        handle = SimulatedHandle(process, command, rung, outlet, ends.get("stdout"), ends.get("stderr"))
        self.handles[id] = handle
        return handle

    def _script(self, command: Command) -> Script:
        key: str | None = None
        scripts: Scripts | None = None
        if self._choose is not None:
            scripts = self._choose(command)
        else:
            for key in (command.program, PurePath(command.program).name):
                if key in self._programs:
                    scripts = self._programs[key]
                    break
        if scripts is None:
            key, scripts = None, self._default
        if scripts is None:
            return Script(refuses=SpawnFailure.NOT_FOUND)
        if isinstance(scripts, Script):
            return scripts
        start = self._starts.get(key, 0)
        self._starts[key] = start + 1
        return scripts[min(start, len(scripts) - 1)]


def _deliver(process: SimulatedProcess, signum: int) -> None:
    if not 0 <= signum <= _LAST_SIGNAL:
        raise OSError(errno.EINVAL, "Invalid argument")
    process.deliver(int(signum))
