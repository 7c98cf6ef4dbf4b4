"""A pipeline under way: its processes, the pipes between them, its input."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from procession._core.aio import finish, wait_until
from procession._types import Completed, Exit, StopReport
from procession.errors import ConfigError, ExecutionTimeout, SpawnError, SpawnFailure, StateError, StreamClosed
from procession.process._collect import Collector
from procession.process._sink import Input, Writer, check_input
from procession.process._source import LINGER
from procession.process._spawn import Spawning

if TYPE_CHECKING:
    from procession._fields import Stdio
    from procession.abc import Launcher, Registrar
    from procession.command import Command
    from procession.process._process import Process


class Flow:
    """Starts the stages from left to right and ends them together."""

    def __init__(
        self,
        stages: Sequence[Command],
        input: Input | None,
        stderr: Stdio | str | None,
        registry: Registrar | None,
        launcher: Launcher | None,
        owner: str,
    ) -> None:
        if input is not None:
            check_input(input)
            if stages[0].stdin not in ("null", "pipe"):
                raise ConfigError("input", type(input).__name__, "the first stage has a stdin of its own")
        self._file: Path | None = None
        if stderr is not None:
            if isinstance(stderr, Path):
                self._file = stderr  # opened once, shared by all stages
            else:
                stages = [stage.replace(stderr=stderr) for stage in stages]
        self._stages = stages
        self._input = input
        self._open_with = (registry, launcher, None, owner, None)
        self._stack: AsyncExitStack | None = None
        self._feeder: asyncio.Task[None] | None = None
        self.processes: list[Process] = []
        self.began: float = 0.0
        self.duration: float = 0.0

    @property
    def last(self) -> Process:
        """The process of the last stage."""
        if not self.processes:
            raise StateError("the pipeline is not running: use `async with pipeline.stream() as stream`")
        return self.processes[-1]

    async def open(self, *, tails: bool = True) -> None:
        """Starts all stages, or none. ``tails``: the stderr of all but the last is kept as a tail.

        Raises:
            SpawnError: a stage could not be started; the others were stopped.

        Cancellation: what was started is stopped and reaped first.
        """
        if self._stack is not None:
            raise StateError("the pipeline was started before; call stream() again")
        self.began = asyncio.get_running_loop().time()
        stack = self._stack = AsyncExitStack()
        plumbing = _Plumbing(self._stages, self._file)
        try:
            for number, stage in enumerate(self._stages):
                command = plumbing.fit(number, stage, feed=self._input is not None)
                process = await stack.enter_async_context(Spawning(command, *self._open_with))
                self.processes.append(process)
                plumbing.done()
        except BaseException as error:
            plumbing.close()
            await stack.__aexit__(type(error), error, error.__traceback__)
            raise
        plumbing.close()
        for process in self.processes[:-1]:
            if tails and process.stderr is not None:
                process.stderr.divert()
        first = self.processes[0]
        if first.stdin is not None:
            if self._input is None:
                first.stdin.close()
            else:
                self._feeder = asyncio.get_running_loop().create_task(_feed(first.stdin, self._input))
                self._feeder.add_done_callback(self._feeder_ended)

    def _feeder_ended(self, task: asyncio.Task[None]) -> None:
        """An input that raised will never end: all stages are stopped, so that whoever reads meets the end."""
        if not task.cancelled() and task.exception() is not None:
            for process in self.processes:
                process._stop().begin(process.command.grace)

    async def close(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all stages together and lets go of everything; a failed input is raised.

        Cancellation: absorbed until nothing is left, then raised.
        """
        stack = self._stack
        if stack is None:
            return
        if asyncio._get_running_loop() is None:  # thrown away together with its loop: each stage knows what to do
            await stack.__aexit__(kind, error, trace)
            return
        try:
            await finish(self._end(stack, kind, error, trace))
        finally:
            self.duration = asyncio.get_running_loop().time() - self.began
        feeder = self._feeder
        if error is None and feeder is not None and not feeder.cancelled() and feeder.exception() is not None:
            raise feeder.exception()  # type: ignore[misc]

    async def _end(
        self,
        stack: AsyncExitStack,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        cancelled = None
        try:
            if self._feeder is not None and not self._feeder.done():
                self._feeder.cancel()
                await asyncio.wait((self._feeder,))
            if error is None and self.last._has_said_all():
                deadline = asyncio.get_running_loop().time() + 1.0
                for process in self.processes:
                    await process._ends_by_itself(max(0.0, deadline - asyncio.get_running_loop().time()))
        except asyncio.CancelledError as stop:  # a program that cancels all of its tasks: no more time, but a stop
            cancelled = stop
        if self.last.stdout is not None:
            self.last.stdout.close()  # whoever still writes gets SIGPIPE, as in a shell
        for process in self.processes:
            if process.is_running:
                process._stop().begin(process.command.grace)  # all at once; the stack then waits for each
        await stack.__aexit__(kind, error, trace)
        if cancelled is not None:
            raise cancelled

    async def stop(self, grace: float | None) -> tuple[StopReport, ...]:
        """Stops all stages at once.

        Cancellation: absorbed until the stop is over, then raised.
        """
        for process in self.processes:
            process._stop().begin(process.command.grace if grace is None else grace)
        return tuple([await process.stop(grace) for process in self.processes])

    # ------------------------------------------------------------------------------ run to the end

    async def run(self, timeout: float | None, limit: int | None) -> tuple[Completed, ...]:
        """All of it in one call.

        Cancellation: all stages are stopped and reaped first.
        """
        loop = asyncio.get_running_loop()
        await self.open(tails=False)
        collected: list[tuple[Collector | None, Collector | None]] = []
        try:
            for process in self.processes:
                handle, is_last = process._handle, process is self.last
                out = Collector(handle.stdout, limit, loop) if handle.stdout is not None and is_last else None
                collected.append((out, Collector(handle.stderr, limit, loop) if handle.stderr is not None else None))
            collectors = [item for pair in collected for item in pair if item is not None]
            for collector in collectors:
                collector.start()
            await self._all_ended(timeout, collected)
            waiting = [collector.future for collector in collectors if not collector.drain_now()]
            if waiting:
                await asyncio.wait(waiting, timeout=LINGER)
        except BaseException as error:
            await self.close(type(error), error, error.__traceback__)
            raise
        completed = self._completed(collected)
        await self.close(None, None, None)
        return completed

    async def _all_ended(
        self, timeout: float | None, collected: list[tuple[Collector | None, Collector | None]]
    ) -> None:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        left = len(self.processes)

        def one_less(_: object) -> None:
            nonlocal left
            left -= 1
            if not left and not ended.done():
                ended.set_result(None)

        def feeder_failed(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and task.exception() is not None and not ended.done():
                ended.set_result(None)

        for process in self.processes:
            process._handle.on_exit(one_less)
        if self._feeder is not None:
            self._feeder.add_done_callback(feeder_failed)
        if timeout is None:
            await ended
        elif not await wait_until(ended, self.began + timeout):
            running = next((process for process in self.processes if process.is_running), self.last)
            reports = await self.stop(None)
            completed = self._completed(collected)[self.processes.index(running)]
            report = reports[self.processes.index(running)]
            raise ExecutionTimeout(timeout, completed.command, "run", completed, report)
        for process in self.processes:
            if process.timed_out:
                await process.wait()
        feeder = self._feeder
        if feeder is not None and feeder.done() and not feeder.cancelled() and feeder.exception() is not None:
            raise feeder.exception()  # type: ignore[misc]

    def _completed(self, collected: list[tuple[Collector | None, Collector | None]]) -> tuple[Completed, ...]:
        results = []
        for stage, process, (out, err) in zip(self._stages, self.processes, collected, strict=True):
            exit = process.exit or Exit(None)
            pair = [item for item in (out, err) if item is not None]
            results.append(
                Completed(
                    command=stage,  # as it was written, without the descriptors of this run
                    id=process.id,
                    pid=process.pid,
                    returncode=exit.returncode,
                    stdout=b"" if out is None else out.value(),
                    stderr=b"" if err is None else err.value(),
                    duration=process.uptime,
                    exit=exit,
                    stdout_dropped=0 if out is None else out.dropped,
                    stderr_dropped=0 if err is None else err.dropped,
                    truncated_by_descendant=process.exit is not None and not all(item.done for item in pair),
                    report=process.report,
                )
            )
        return tuple(results)


async def _feed(stdin: Writer, input: Input) -> None:
    try:
        await stdin.feed(input)
    except StreamClosed:
        pass  # the first stage had read enough


class _Plumbing:
    """The descriptors between the stages, each closed as soon as both its stages have it."""

    def __init__(self, stages: Sequence[Command], stderr: Path | None) -> None:
        self._count = len(stages)
        self._reader = -1
        self._next = -1
        self._writer = -1
        self._stderr = -1
        if stderr is not None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
            try:
                self._stderr = os.open(stderr, flags, 0o666)
            except OSError as error:
                raise SpawnError.of(SpawnFailure.STREAM, stages[0], error.errno, str(stderr)) from None

    def fit(self, number: int, stage: Command, *, feed: bool) -> Command:
        """The stage with its ends of the pipes."""
        changes: dict[str, int | str] = {}
        if number:
            changes["stdin"] = self._reader
        elif feed:
            changes["stdin"] = "pipe"
        if number < self._count - 1:
            try:
                self._next, self._writer = os.pipe()
            except OSError as error:
                raise SpawnError.of(SpawnFailure.FD_LIMIT, stage, error.errno) from None
            changes["stdout"] = self._writer
        if self._stderr >= 0:
            changes["stderr"] = self._stderr
        return stage.replace(**changes)

    def done(self) -> None:
        """The stage has its ends: ours go, so that the end of the file arrives where it should."""
        for fd in (self._reader, self._writer):
            if fd >= 0:
                os.close(fd)
        self._reader, self._next, self._writer = self._next, -1, -1

    def close(self) -> None:
        """Closes what is left; may be called twice."""
        for fd in (self._reader, self._next, self._writer, self._stderr):
            if fd >= 0:
                os.close(fd)
        self._reader = self._next = self._writer = self._stderr = -1
