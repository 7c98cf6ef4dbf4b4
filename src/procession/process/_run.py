"""``run``: start, feed, collect, wait, and leave nothing behind – in one call."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from procession._core.aio import Latch, finish
from procession._types import Completed, Exit, StopReport
from procession.errors import ConfigError, ExecutionTimeout, ExitError, SignaledError, StreamClosed
from procession.process._collect import Collector
from procession.process._sink import Input, Writer, check_input
from procession.process._source import LINGER
from procession.process._spawn import Spawning

if TYPE_CHECKING:
    from collections.abc import Callable

    from procession.abc import Launcher, Registrar
    from procession.command import Command
    from procession.process._process import Process

_RUN_KILL_BOUND = 0.6
"""At a timeout: what SIGKILL may take, so that with ``LINGER`` a run ends within timeout + grace + 1 s."""

_PATIENCE = 0.002
_TAIL = 4096


async def run(
    command: Command,
    *,
    input: Input | None = None,
    check: bool = False,
    timeout: float | None = None,
    max_output: int | None = None,
    registry: Registrar | None = None,
    launcher: Launcher | None = None,
    name: str | None = None,
    owner: str = "",
    on_spawn: Callable[[Process], object] | None = None,
) -> Completed:
    """Runs ``command`` to its end and returns what it wrote and how it ended.

    Args:
        command: what to run; stdout and stderr are collected where they are pipes (the default).
        input: what it reads on stdin: bytes, text, a path, a binary file, or an iterable or async iterable
            of bytes; stdin then becomes a pipe. A process that stops reading early is no error.
        check: raise unless the exit code is 0.
        timeout: seconds; default: the command's own. Stopping and draining come on top: the call
            ends at the latest after ``timeout + command.grace + 1`` seconds.
        max_output: the most bytes kept of each stream, the first ones; the rest is read and counted
            in ``stdout_dropped`` and ``stderr_dropped``. Default: everything is kept.
        registry: the registry that is told of the process.
        launcher: the engine; default: the best the system has.
        name: for records and logs; default: the program's file name.
        owner: the module or program part it belongs to.
        on_spawn: called with the live process as soon as there is one, for example to suspend it from elsewhere.
            Its streams are being read; what it raises ends the process and is raised here.

    Returns:
        Return code, output, duration. ``truncated`` says when output is missing.

    Raises:
        ConfigError: a value was refused; nothing was started.
        SpawnError: it could not be started; nothing is left of the attempt.
        ExecutionTimeout: it took too long and was stopped; ``completed`` holds its output until then.
        ExitError: ``check`` and an exit code other than 0.
        SignaledError: ``check`` and a signal ended it.

    Cancellation: the whole tree is stopped (at most ``grace`` + 2 s) and reaped before the
    cancellation goes on; the ``CancelledError`` carries the output until then as ``completed``.
    """
    check_bounds(timeout, max_output)
    if timeout is None:
        timeout = command.timeout
    if input is not None:
        check_input(input)
    if input is not None and command.stdin != "pipe" and not command.pty:
        command = command.replace(stdin="pipe")
    loop = asyncio.get_running_loop()
    began = loop.time()
    spawning = Spawning(command, registry, launcher, name, owner, None)
    process = await spawning.open(None)
    running = _Run(process, began, max_output)
    try:
        try:
            if on_spawn is not None:
                on_spawn(process)
            completed = await running.to_the_end(input, timeout)
        except BaseException:
            running.listen_to_the_end()
            await spawning.close(by_exception=True)
            raise
        await spawning.close(by_exception=False)
        if process.report is not completed.report:  # a descendant was left to stop
            completed = replace(completed, report=process.report)
    except asyncio.CancelledError as error:
        error.completed = running.completed()  # type: ignore[attr-defined]
        raise
    finally:
        running.capture_rest()
    if check:
        raise_for(completed)
    return completed


def check_bounds(timeout: object, max_output: object) -> None:
    """Refuses bounds that are none.

    Raises:
        ConfigError: one of them is not a number, negative or not finite.
    """
    if max_output is not None and (isinstance(max_output, bool) or not isinstance(max_output, int) or max_output < 0):
        raise ConfigError("max_output", max_output, "a number of bytes, 0 or more, or None is needed")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 <= timeout < math.inf
    ):
        raise ConfigError("timeout", timeout, "a number of seconds, 0 or more, or None is needed")


def raise_for(completed: Completed) -> None:
    """Raises the typed error for a result that is not a success.

    Raises:
        ExitError: the exit code is not 0, or was lost.
        SignaledError: a signal ended it.
    """
    exit = completed.exit
    if exit.is_success:
        return
    tail = completed.stderr[-_TAIL:].decode("utf-8", "backslashreplace")
    if exit.signal is not None:
        raise SignaledError(exit.signal, tail, completed.command, completed)
    raise ExitError(exit.returncode, tail, completed.command, completed)


class _Run:
    """One run under way."""

    def __init__(self, process: Process, began: float, limit: int | None) -> None:
        self.process = process
        self.began = began
        self.loop = process._loop
        handle = process._handle
        self.stdout = Collector(handle.stdout, limit, self.loop) if handle.stdout is not None else None
        self.stderr = Collector(handle.stderr, limit, self.loop) if handle.stderr is not None else None
        self.cut = False

    @property
    def collectors(self) -> list[Collector]:
        return [collector for collector in (self.stdout, self.stderr) if collector is not None]

    async def to_the_end(self, input: Input | None, timeout: float | None) -> Completed:
        # Most children are done before a reader would have been registered; the others wait for it 2 ms.
        arming = self.loop.call_later(_PATIENCE, self._arm)
        feeder = None
        if input is not None and self.process.stdin is not None:
            feeder = self.loop.create_task(_feed(self.process.stdin, input))
        elif self.process._handle.stdin is not None and not self.process.command.pty:
            self.process._handle.stdin.close()  # nobody will ever write to it
        try:
            timed_out = not await self._ended(feeder, None if timeout is None else self.began + timeout)
            if timed_out and timeout is not None:
                await self._time_is_up(timeout)
            await self._drain()
        finally:
            arming.cancel()
            if feeder is not None:
                await finish(_cancelled(feeder))
        if feeder is not None and not feeder.cancelled() and (error := feeder.exception()) is not None:
            raise error
        return self.completed()

    def _arm(self) -> None:
        for collector in self.collectors:
            collector.start()

    async def _ended(self, feeder: asyncio.Task[None] | None, deadline: float | None) -> bool:
        """Waits for the end, the deadline, or a feeder that failed; ``False`` at the deadline."""
        process = self.process
        if process._handle.exit is not None:
            return True
        news = Latch(loop=self.loop)
        process._handle.on_exit(lambda _: news.open())
        if feeder is not None:
            feeder.add_done_callback(lambda task: news.open() if _failed(task) else None)
        timer = self.loop.call_at(deadline, news.open) if deadline is not None else None
        try:
            await news
        finally:
            if timer is not None:
                timer.cancel()
        if feeder is not None and feeder.done() and (error := feeder.exception()) is not None:
            raise error
        return process._handle.exit is not None

    async def _time_is_up(self, timeout: float) -> None:
        process = self.process
        process.timed_out = True
        report = await process._stop().stop(process.command.grace, kill_bound=_RUN_KILL_BOUND)
        await self._drain()
        raise ExecutionTimeout(timeout, process.command, "run", self.completed(report), report)

    async def _drain(self) -> None:
        """After the end: what is in the pipes, and a little patience for descendants that hold them."""
        waiting = [collector for collector in self.collectors if not collector.drain_now()]
        if not waiting:
            return
        self._arm()
        await asyncio.wait([collector.future for collector in waiting], timeout=LINGER)
        self.cut = not all(collector.done for collector in waiting)

    def listen_to_the_end(self) -> None:
        """While it is being stopped: its last words are heard, and a full pipe cannot keep it from ending."""
        if asyncio._get_running_loop() is None:
            return  # thrown away together with its loop
        self._arm()
        self.process._handle.on_exit(self._empty_pipes)

    def _empty_pipes(self, _: Exit) -> None:
        for collector in self.collectors:
            collector.drain_now()

    def capture_rest(self) -> None:
        for collector in self.collectors:
            collector.close()

    def completed(self, report: StopReport | None = None) -> Completed:
        process, stdout, stderr = self.process, self.stdout, self.stderr
        exit = process.exit or Exit(None)
        return Completed(
            command=process.command,
            id=process.id,
            pid=process.pid,
            returncode=exit.returncode,
            stdout=b"" if stdout is None else stdout.value(),
            stderr=b"" if stderr is None else stderr.value(),
            duration=self.loop.time() - self.began,
            exit=exit,
            stdout_dropped=0 if stdout is None else stdout.dropped,
            stderr_dropped=0 if stderr is None else stderr.dropped,
            truncated_by_descendant=self.cut,
            report=report or process.report,
        )


async def _feed(stdin: Writer, input: Input) -> None:
    try:
        await stdin.feed(input)
    except StreamClosed:
        pass  # it did not want to read all of it, as with `head` in a shell


def _failed(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is not None


async def _cancelled(task: asyncio.Task[None]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))
