"""``spawn``: a child whose life is a block."""

from __future__ import annotations

import asyncio
import os
import signal
from types import TracebackType
from typing import TYPE_CHECKING

from procession._core.aio import finish
from procession._fields import check_name
from procession._launch._ending import end_tree
from procession._launch._engines import default_launcher
from procession._launch._owner import owner as this_program
from procession.command import Command
from procession.errors import ConfigError, ProcessionError, StateError
from procession.process._entry import SoloEntry
from procession.process._process import Process

if TYPE_CHECKING:
    from procession.abc import Entry, Launcher, ProcessHandle, Registrar

_REST_GRACE = 1.0
"""At a natural exit: the most seconds the rest of the group gets between the stop signal and SIGKILL."""


def spawn(
    command: Command,
    *,
    registry: Registrar | None = None,
    launcher: Launcher | None = None,
    name: str | None = None,
    owner: str = "",
    id: str | None = None,
) -> Spawning:
    """Starts ``command`` for the length of an ``async with`` block.

    ::

        async with spawn(Command("ping", "localhost")) as process:
            async for line in process.lines():
                ...

    Leaving the block – by its end, by an exception or by cancellation – stops what still runs: the
    stop signal, the command's grace period, SIGKILL, the whole tree; then reaps it and closes its
    pipes; only then does the exception go on. After a natural exit only the rest of its process
    group is ended. A command with ``detach=True`` is left alone.

    Args:
        command: what to run; by default stdin is empty, stdout and stderr are pipes.
        registry: the registry that is told of it; default: none.
        launcher: the engine; default: the best the system has.
        name: for records and logs; default: the program's file name.
        owner: the module or program part it belongs to.
        id: its id; default: a new one.

    Returns:
        An asynchronous context manager that gives the :class:`Process`. It can be entered once.

    Raises:
        ConfigError: a value was refused.
    """
    return Spawning(command, registry, launcher, name, owner, id)


class Spawning:
    """What :func:`spawn` returns: ``async with`` it."""

    __slots__ = ("_command", "_entered", "_home", "_id", "_launcher", "_name", "_owner", "_registry", "process")

    def __init__(
        self,
        command: Command,
        registry: Registrar | None,
        launcher: Launcher | None,
        name: str | None,
        owner: str,
        id: str | None,
    ) -> None:
        if not isinstance(command, Command):
            raise ConfigError("command", command, 'a Command is needed: Command("ls", "-l")')
        for field, value in (("name", name), ("id", id), ("owner", owner or None)):
            if value is not None:
                try:
                    check_name(value)
                except ValueError as error:
                    raise ConfigError(field, value, str(error)) from None
        self._command = command
        self._registry = registry
        self._launcher = launcher
        self._name = name or command.name
        self._owner = owner
        self._id = id or this_program().new_id()
        self._entered = False
        self._home = os.getpid()
        self.process: Process | None = None

    async def __aenter__(self) -> Process:
        """Starts the child.

        Raises:
            SpawnError: it could not be started; nothing is left of the attempt.
            StateError: the block was entered before.

        Cancellation: a child already made is ended and reaped before the cancellation goes on.
        """
        if self._entered:
            raise StateError(f"spawn({self._command.display()}) was entered before; call spawn again")
        self._entered = True
        return await self.open(self._command.timeout)

    async def open(self, timeout: float | None) -> Process:
        """Starts the child; from the fork to its registration there is no await.

        Cancellation: as for ``async with``.
        """
        loop = asyncio.get_running_loop()
        command, id, name = self._command, self._id, self._name
        entry: Entry
        if self._registry is None:
            entry = SoloEntry(id)
        else:
            entry = self._registry.register(command, id=id, name=name, owner=self._owner)
        began = loop.time()
        try:
            handle = await (self._launcher or default_launcher()).launch(command, id)
        except BaseException as error:
            known = isinstance(error, ProcessionError)
            entry.failed(str(getattr(error, "reason", error)) if known else type(error).__name__)
            raise
        process = Process(handle, entry, command, id=id, name=name, owner=self._owner)
        try:
            entry.spawned(handle, loop.time() - began)
            process._begin(timeout)
        except BaseException:  # a registry, or a listener with Ctrl-C: without a block nobody would end the child
            await finish(_discard(handle))
            raise
        self.process = process
        return process

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the child and all that is proven its own.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await self.close(by_exception=error is not None)

    async def close(self, *, by_exception: bool) -> None:
        """Ends what has not ended and lets go of everything.

        Cancellation: absorbed until nothing is left, then raised.
        """
        process = self.process
        if process is None or os.getpid() != self._home:
            return  # in a child made by os.fork the block is left too, but the process is not its own
        if asyncio._get_running_loop() is None:
            self._last_resort(process)
            return
        handle, stopper = process._handle, process._stopper
        try:
            task = None if stopper is None else stopper.task
            if task is None and (self._command.detach or (not by_exception and process._is_all_gone())):
                return
            if task is None and not by_exception and handle.exit is None and process._has_said_all():
                try:
                    await process._ends_by_itself(min(self._command.grace, _REST_GRACE))
                except asyncio.CancelledError:  # it gets no more time to end by itself, but it does get its stop
                    await finish(self.close(by_exception=True))
                    raise
                except GeneratorExit:
                    self._last_resort(process)
                    raise
            if task is None or (task.done() and handle.exit is None):
                if handle.exit is None or by_exception:
                    task = process._stop().begin(self._command.grace)
                elif not process._is_all_gone():
                    task = process._stop().begin(min(self._command.grace, _REST_GRACE), whole=False)
            if task is not None and not task.done():
                await finish(_result(task))
        finally:
            process._let_go()

    def _last_resort(self, process: Process) -> None:
        """The coroutine was thrown away together with its loop: ends the group at once, without waiting.

        The spawner's thread reaps it; what left the group goes with the guardian at the end of the program.
        """
        try:
            if not self._command.detach:
                process._handle.signal_group(signal.SIGKILL)
        finally:
            process._handle.close()  # nobody is left to be told


async def _discard(handle: ProcessHandle) -> None:
    try:
        await end_tree(handle, stop_signal=None, grace=0.0)
    finally:
        handle.close()


async def _result(task: asyncio.Task[object]) -> object:
    return await task
