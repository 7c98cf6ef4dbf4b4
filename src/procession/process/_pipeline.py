"""Pipelines: programs joined by the system's own pipes; their data never passes through Python."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from procession import command as _command
from procession._types import Completed, StopReport
from procession.command import Command
from procession.errors import ConfigError
from procession.process._flow import Flow
from procession.process._run import check_bounds, raise_for

if TYPE_CHECKING:
    from procession._fields import Stdio
    from procession.abc import Launcher, Registrar
    from procession.process._lines import Line
    from procession.process._process import Process
    from procession.process._sink import Input


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineCompleted:
    """The result of a finished pipeline.

    Attributes:
        stages: one result per stage, in order; ``stderr`` of each is its own.
        stdout: what the last stage wrote.
        duration: seconds from before the first spawn to after the last byte.
    """

    stages: tuple[Completed, ...]
    stdout: bytes
    duration: float

    @property
    def returncodes(self) -> tuple[int | None, ...]:
        """The return codes of all stages, in order."""
        return tuple(stage.returncode for stage in self.stages)

    @property
    def failed(self) -> Completed | None:
        """The first stage that failed, or ``None``.

        A stage before the last that SIGPIPE ended did not fail: its reader had seen enough.
        """
        for stage in self.stages:
            if not stage.exit.is_success and not (stage.exit.signal == signal.SIGPIPE and stage is not self.stages[-1]):
                return stage
        return None

    @property
    def returncode(self) -> int | None:
        """0 when no stage failed, else the return code of the first that did (the shell's ``pipefail``)."""
        failed = self.failed
        return 0 if failed is None else failed.returncode

    @property
    def ok(self) -> bool:
        """Whether no stage failed."""
        return self.failed is None

    @property
    def stderr(self) -> bytes:
        """What all stages wrote to stderr, stage by stage."""
        return b"".join(stage.stderr for stage in self.stages)

    @property
    def text(self) -> str:
        r"""Stdout decoded as UTF-8; bytes that are not become ``\xNN``."""
        return self.stdout.decode("utf-8", "backslashreplace")


class Pipeline:
    """Commands of which each reads what the one before writes; made by ``Command(...) | Command(...)``.

    A description only: nothing runs before :meth:`run` or :meth:`stream`.

    Args:
        stages: two commands or more. Between two stages the default streams are replaced by a pipe,
            so stdout of all but the last and stdin of all but the first cannot be set.

    Raises:
        ConfigError: there are less than two, or one has a stream of its own where the pipe belongs, or a terminal.
    """

    __slots__ = ("stages",)

    def __init__(self, stages: Sequence[Command]) -> None:
        self.stages: tuple[Command, ...] = tuple(stages)
        last = len(self.stages) - 1
        if last < 1:
            raise ConfigError("stages", len(self.stages), "two commands or more are needed")
        for number, stage in enumerate(self.stages):
            if not isinstance(stage, Command):
                raise ConfigError(f"stages.{number}", stage, "a Command is needed")
            if stage.pty or stage.detach:
                raise ConfigError(f"stages.{number}", stage, "a stage has neither a terminal nor is it detached")
            if number < last and stage.stdout != "pipe":
                raise ConfigError(f"stages.{number}.stdout", stage.stdout, "it is the pipe to the next stage")
            if number and stage.stdin not in ("null", "pipe"):
                raise ConfigError(f"stages.{number}.stdin", stage.stdin, "it is the pipe from the stage before")

    def __or__(self, other: Command | Pipeline) -> Pipeline:
        """Appends a stage, or all stages of another pipeline."""
        if isinstance(other, Command):
            return Pipeline((*self.stages, other))
        if isinstance(other, Pipeline):
            return Pipeline((*self.stages, *other.stages))
        return NotImplemented

    def then(self, other: Command | Pipeline) -> Pipeline:
        """The same as ``|``, for chains of calls."""
        if not isinstance(other, (Command, Pipeline)):
            raise ConfigError("stage", other, "a Command or a Pipeline is needed")
        return self | other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pipeline) and self.stages == other.stages

    def __hash__(self) -> int:
        return hash(self.stages)

    def __repr__(self) -> str:
        return f"<Pipeline {' | '.join(stage.display(60) for stage in self.stages)}>"

    async def run(
        self,
        *,
        input: Input | None = None,
        check: bool = False,
        timeout: float | None = None,
        max_output: int | None = None,
        stderr: Stdio | str | None = None,
        registry: Registrar | None = None,
        launcher: Launcher | None = None,
        owner: str = "",
    ) -> PipelineCompleted:
        """Runs all stages at once and returns what the last one wrote and how each ended.

        Args:
            input: what the first stage reads: bytes, text, a path, a binary file or an (async) iterable
                of bytes.
            check: raise the error of the first stage that failed.
            timeout: seconds for the whole pipeline; stopping comes on top.
            max_output: the most bytes kept of the last stdout and of each stderr.
            stderr: one policy for the stderr of all stages: ``"null"``, ``"pipe"``, ``"stdout"`` (into the data),
                ``"inherit"``, a path or a descriptor; default: each stage's own.
            registry: the registry that is told of each stage.
            launcher: the engine; default: the best the system has.
            owner: the module or program part they belong to.

        Returns:
            Return codes of all stages, the output of the last.

        Raises:
            ConfigError: a value was refused; nothing was started.
            SpawnError: a stage could not be started; the others were stopped.
            ExecutionTimeout: it took too long; all stages were stopped.
            ExitError: ``check`` and a stage exited with a code other than 0.
            SignaledError: ``check`` and a signal ended a stage.

        Cancellation: all stages are stopped and reaped before the cancellation goes on.
        """
        check_bounds(timeout, max_output)
        flow = Flow(self.stages, input, stderr, registry, launcher, owner)
        completed = await flow.run(timeout, max_output)
        result = PipelineCompleted(stages=completed, stdout=completed[-1].stdout, duration=flow.duration)
        if check and result.failed is not None:
            raise_for(result.failed)
        return result

    def stream(
        self,
        *,
        input: Input | None = None,
        stderr: Stdio | str | None = None,
        registry: Registrar | None = None,
        launcher: Launcher | None = None,
        owner: str = "",
    ) -> PipelineStream:
        """Runs all stages at once for the length of a block and reads what the last one writes.

        ::

            async with (Command("zcat", path) | Command("grep", "GET")).stream() as stream:
                async for line in stream.lines():
                    ...

        Leaving the block stops what still runs. ``async for chunk in pipeline.stream()`` works without a
        block too. The stderr of each stage is kept as a tail of 1 MiB, see ``PipelineStream.stages``.

        Args:
            input: as for :meth:`run`.
            stderr: as for :meth:`run`.
            registry: as for :meth:`run`.
            launcher: as for :meth:`run`.
            owner: as for :meth:`run`.

        Raises:
            ConfigError: a value was refused.
        """
        return PipelineStream(Flow(self.stages, input, stderr, registry, launcher, owner))


class PipelineStream:
    """A running pipeline; ``async with`` it. Made by :meth:`Pipeline.stream`."""

    __slots__ = ("_flow",)

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    async def __aenter__(self) -> Self:
        """Starts all stages.

        Raises:
            SpawnError: a stage could not be started; the others were stopped.
            StateError: the block was entered before.

        Cancellation: what was started is stopped and reaped first.
        """
        await self._flow.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops what still runs; a pipeline read to its end may end by itself.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await self._flow.close(kind, error, trace)

    @property
    def processes(self) -> tuple[Process, ...]:
        """The live processes, one per stage."""
        return tuple(self._flow.processes)

    @property
    def returncodes(self) -> tuple[int | None, ...]:
        """The return codes so far; ``None`` for a stage that runs."""
        return tuple(process.returncode for process in self._flow.processes)

    def lines(
        self, *, encoding: str = "utf-8", errors: str = "backslashreplace", max_line: int = 65536
    ) -> AsyncIterator[Line]:
        """Iterates over the lines the last stage writes; see ``Process.lines``.

        Cancellation: safe; nothing is lost.
        """
        return self._flow.last.lines("stdout", encoding=encoding, errors=errors, max_line=max_line)

    def chunks(self, *, limit: int = 65536) -> AsyncIterator[bytes]:
        """Iterates over what the last stage writes as bytes; see ``Process.chunks``.

        Cancellation: safe; nothing is lost.
        """
        return self._flow.last.chunks("stdout", limit=limit)

    async def wait(self) -> tuple[int | None, ...]:
        """Waits for the end of all stages and returns their return codes.

        Cancellation: safe; only the waiting ends.
        """
        for process in self._flow.processes:
            await process.wait()
        return self.returncodes

    async def stop(self, grace: float | None = None) -> tuple[StopReport, ...]:
        """Stops all stages at once, each with its tree; one report per stage.

        Cancellation: absorbed until the stop is over, then raised.
        """
        return await self._flow.stop(grace)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Starts the pipeline, if no block has, and iterates over the chunks the last stage writes.

        Cancellation: the pipeline is stopped when this started it.
        """
        if self._flow.processes:
            async for chunk in self.chunks():
                yield chunk
        else:
            async with self:
                async for chunk in self.chunks():
                    yield chunk


_command.pipeline_factory = Pipeline
