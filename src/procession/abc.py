"""The small protocols through which modules ask things of one another.

A module never imports its sibling: it takes one of these. Facts travel the other way, as events.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from procession._core.machine import Transitions
from procession._types import Containment, Exit, ProcessRef, ProcessState, StopReport

if TYPE_CHECKING:
    from procession.command import Command

PROCESS_MOVES: Transitions[ProcessState] = Transitions(
    initial=ProcessState.STARTING,
    final=(ProcessState.EXITED, ProcessState.FAILED),
    moves={
        ProcessState.STARTING: (ProcessState.RUNNING, ProcessState.FAILED),
        ProcessState.RUNNING: (ProcessState.SUSPENDED, ProcessState.STOPPING, ProcessState.EXITED),
        ProcessState.SUSPENDED: (ProcessState.RUNNING, ProcessState.STOPPING, ProcessState.EXITED),
        ProcessState.STOPPING: (ProcessState.UNKILLABLE, ProcessState.EXITED),
        ProcessState.UNKILLABLE: (ProcessState.EXITED,),
    },
)
"""Every move a process can make; anything else raises ``InvalidTransition``."""


# ------------------------------------------------------------------------------------ process floor


class Inlet(Protocol):
    """Our end of a pipe that a process writes to. Never blocks."""

    def read_nowait(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes; ``b""`` at the end of the file, ``None`` when nothing is there yet."""

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        """Calls ``callback`` whenever there is something to read, until ``None`` is given."""

    def close(self) -> None:
        """Closes our end; may be called twice."""


class Outlet(Protocol):
    """Our end of a pipe that a process reads from. Never blocks."""

    def write_nowait(self, data: memoryview) -> int | None:
        """Writes what fits and returns how much; ``None`` when nothing fits now.

        Raises:
            BrokenPipeError: nobody reads any more.
        """

    def on_writable(self, callback: Callable[[], None] | None) -> None:
        """Calls ``callback`` whenever something fits, until ``None`` is given."""

    def close(self) -> None:
        """Closes our end, which is the end of the file for the reader; may be called twice."""


class Member(Protocol):
    """A living process of a child's tree, other than the child, proven to belong to it."""

    @property
    def ref(self) -> ProcessRef:
        """Who it is."""

    @property
    def escaped(self) -> bool:
        """Whether it left the child's process group."""

    def send_signal(self, signum: int) -> bool:
        """Signals exactly this process; ``False`` when it has ended."""

    def on_exit(self, callback: Callable[[], None]) -> None:
        """Calls ``callback`` once when it has ended."""

    def close(self) -> None:
        """Lets go of it; may be called twice."""


class ProcessHandle(Protocol):
    """One child as a launcher hands it out: the mechanism below ``Process``, without any policy."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def pidfd(self) -> int | None:
        """Its pidfd, where the system has them and it has not been closed."""

    @property
    def ref(self) -> ProcessRef:
        """Who it is, safe against recycled pids."""

    @property
    def containment(self) -> Containment:
        """The rung that is really in force."""

    @property
    def exit(self) -> Exit | None:
        """How it ended, once it was reaped."""

    @property
    def stdin(self) -> Outlet | None:
        """Our end of its stdin, when that is a pipe or a terminal."""

    @property
    def stdout(self) -> Inlet | None:
        """Our end of its stdout, when that is a pipe or a terminal."""

    @property
    def stderr(self) -> Inlet | None:
        """Our end of its stderr, when that is a pipe."""

    def on_exit(self, callback: Callable[[Exit], None]) -> None:
        """Calls ``callback`` once it was reaped, independently of its pipes; at once if it has been."""

    def send_signal(self, signum: int) -> None:
        """Signals the child itself.

        Raises:
            ProcessLookupError: it has ended.
        """

    def signal_group(self, signum: int) -> bool:
        """Signals all of its process group (number 0 only asks); ``False`` when nobody is left in it.

        Without a group of its own this is the child alone.
        """

    async def members(self) -> Sequence[Member]:
        """Finds what else lives of its tree, as far as the rung in force can prove it; off the loop.

        Cancellation: safe; what was found is let go of.
        """

    def kill_container(self) -> bool:
        """Ends all of its cgroup at once; ``False`` when it has none."""

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of its terminal.

        Raises:
            ConfigError: it has no terminal.
        """

    def close(self) -> None:
        """Lets go of the pidfd, pipes and container. A child that still lives is not touched."""


class Launcher(Protocol):
    """An engine that starts processes."""

    @property
    def name(self) -> str:
        """How reports call it, for example ``"pidfd"``."""

    async def launch(self, command: Command, id: str) -> ProcessHandle:
        """Starts ``command`` under the cookie ``id``.

        Raises:
            SpawnError: it could not be started; nothing is left of the attempt.

        Cancellation: a child already made is killed, reaped and its pipes closed before the
            cancellation goes on.
        """


class Entry(Protocol):
    """The registry's side of one process, held by its owner: the way to say what became of it."""

    @property
    def state(self) -> ProcessState:
        """The present state."""

    def spawned(self, handle: ProcessHandle, duration: float) -> None:
        """It runs: starting → running."""

    def failed(self, reason: str) -> None:
        """It could not be started: starting → failed."""

    def to(self, state: ProcessState, reason: str = "") -> None:
        """Any other move.

        Raises:
            InvalidTransition: the table does not allow it.
        """

    def exited(self, exit: Exit) -> None:
        """It was reaped: → exited. The one and only announcement of its end."""

    def stopped(self, report: StopReport) -> None:
        """A stop of it and its tree is over; may be said more than once, before and after its exit."""


class Registrar(Protocol):
    """Where the process floor tells of what it starts; ``ProcessRegistry`` is one."""

    def register(self, command: Command, *, id: str, name: str, owner: str) -> Entry:
        """Takes note of a process about to be started.

        Raises:
            ConfigError: the id is taken, or a name is not acceptable.
            Closed: the registry is closed.
        """


# -------------------------------------------------------------------------------- between the modules


@runtime_checkable
class Runnable(Protocol):
    """Work a scheduler can run without knowing what it is, for example a call to a pool."""

    async def __call__(self) -> Any:
        """Does the work and returns its value.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """


class QueuedTask(Protocol):
    """A task of a scheduler, as far as a policy may look at it. Only ``mark`` is the policy's to set."""

    mark: Any
    """Whatever the policy wants to remember about it; ``None`` at first."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def number(self) -> int:
        """1, 2, 3 … in the order of submission."""

    @property
    def priority(self) -> int:
        """How urgent it is; the smaller number goes first."""

    @property
    def rank(self) -> int:
        """The place it was given last."""

    @property
    def tenant(self) -> str:
        """On whose behalf it runs."""

    @property
    def estimate(self) -> float | None:
        """How long a run is expected to take, in seconds."""

    @property
    def deadline(self) -> float | None:
        """Loop time by which it is to have been started."""

    @property
    def attempts(self) -> int:
        """How often it was started."""

    @property
    def state(self) -> str:
        """Where it stands, for example ``"suspended"``."""


class QueuePolicy(Protocol):
    """Who is next. ``procession.scheduler.Policy`` has a default for every method, and says more about each."""

    def group(self, task: QueuedTask) -> Hashable:
        """Names the tasks that are ordered among themselves by rank alone."""

    def rank(self, task: QueuedTask, now: int) -> int:
        """Its place within its group; ``now`` in nanoseconds."""

    def again(self, task: QueuedTask, now: int) -> int:
        """Its place when it comes back."""

    def offset(self, group: Hashable) -> int:
        """What is added to the ranks of a group to compare them with those of others."""

    def admit(self, task: QueuedTask, now: float) -> None:
        """Called last before a task is accepted; may refuse it by raising."""

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A task begins to wait. Returns the groups whose offsets have changed."""

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A task begins or goes on to run. Returns the groups whose offsets have changed."""

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        """A task stops running after ``ran`` seconds. Returns the groups whose offsets have changed."""

    def left(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A task that waited is gone without having run. Returns the groups whose offsets have changed."""

    def settled(self, task: QueuedTask, now: float) -> None:
        """An accepted task has its fate, whether or not it ever waited or ran."""

    def quantum(self, task: QueuedTask) -> float | None:
        """Seconds it may run before it makes room for others."""

    def used_up(self, task: QueuedTask, now: float) -> None:
        """Its quantum is over."""

    def next_tick(self) -> float | None:
        """Loop time at which ``tick`` wants to be called."""

    def tick(self, now: float) -> Iterable[Hashable]:
        """Called at ``next_tick``. Returns the groups whose offsets have changed."""


@runtime_checkable
class Restartable(Protocol):
    """Something that can be restarted by name; monitor and recovery act on it."""

    async def restart(self, id: str, *, reason: str = "") -> Any:
        """Stops it and starts it again.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """


@runtime_checkable
class Stoppable(Protocol):
    """Something that can be stopped by name; monitor and recovery act on it."""

    async def stop(self, id: str, *, reason: str = "") -> Any:
        """Stops it for good.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """


@runtime_checkable
class Replaceable(Protocol):
    """Something of which a new one can take the place of the old by name; recovery acts on it."""

    async def replace(self, id: str, command: Command | None = None, *, reason: str = "") -> Any:
        """Brings a new one up, with ``command`` or with its own; the old one goes when the new one is ready.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """


@runtime_checkable
class Scalable(Protocol):
    """Something that has a size; monitor and recovery act on it."""

    async def scale_up(self, n: int = 1) -> int:
        """Grows by up to ``n`` and returns the new size.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """

    async def scale_down(self, n: int = 1) -> int:
        """Shrinks by up to ``n`` and returns the new size.

        Cancellation: what was begun is undone or finished before the cancellation goes on.
        """


@runtime_checkable
class ScalableById(Protocol):
    """Something whose members each have a size; monitor and recovery act on them by name."""

    def scalable(self, id: str) -> Scalable:
        """The one with this id.

        Raises:
            NotFound: there is none.
        """


class Sink(Protocol):
    """Takes events as they are published, for example to write them to a file."""

    def write(self, event: Any) -> None:
        """Takes one event; must not block."""

    def close(self) -> None:
        """Writes what is left and lets go of the file."""


Probe = Callable[[], Awaitable[bool]]
"""A question about health, answered yes or no."""

Labels = Mapping[str, str]
