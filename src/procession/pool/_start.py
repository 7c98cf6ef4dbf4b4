"""How a function worker comes to life: forked from the template, or as an interpreter of its own."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import pickle
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import current_process
from typing import TYPE_CHECKING, Any

from procession._core.aio import finish
from procession._launch._diagnose import spawn_error
from procession._types import Stream
from procession.command import Command
from procession.errors import NotPicklable, SpawnError, WorkerStartError
from procession.pool import _link
from procession.pool._channel import Channel
from procession.pool._forks import Template, is_possible
from procession.pool._function_worker import FunctionWorker, Host, settings_frame
from procession.pool._functions import main_module
from procession.pool._output import Tap, WorkerOutput, to_log
from procession.pool._shared import RUN_WORKER, interpreter, shared
from procession.process import Spawning

if TYPE_CHECKING:
    from procession.abc import Launcher, Registrar
    from procession.pool._config import PoolConfig
    from procession.pool._slots import Slot

_log = logging.getLogger("procession.pool")
_REVIVALS = 5  # templates in a row that may end soon before workers are started without one for good
_LONG = 60.0  # seconds after which a template has not ended soon
_SOCKET_BUFFER = 1 << 20
_SLACK = 1 << 20  # what a frame may have beyond the largest message: tracebacks, log records


def settings_of(config: PoolConfig) -> dict[str, Any]:
    """What a worker is told of this program, as plain data.

    Raises:
        NotPicklable: the initializer, its arguments or the state cannot travel.
    """
    init = b""
    if config.initializer is not None or config.worker_state is not None:
        try:
            init = pickle.dumps((config.worker_state, config.initializer, tuple(config.initargs)), 5)
        except Exception as error:
            raise NotPicklable("initializer", "initializer", f"{type(error).__name__}: {error}") from error
    return {
        "path": [entry for entry in sys.path if isinstance(entry, str)],
        "argv": [str(word) for word in sys.argv],
        "site": not sys.flags.no_site,
        "main": main_module(),
        "preload": tuple(config.preload),
        "init": init,
        "limit": int(config.max_message_mb * (1 << 20)),
        "authkey": bytes(current_process().authkey),
        "log_level": logging.getLogger().getEffectiveLevel(),
    }


class Starter:
    """Starts function workers for one pool.

    Args:
        pool: the pool's name.
        config: what they are to be like.
        registry: who is told of them.
    """

    def __init__(self, pool: str, config: PoolConfig, registry: Registrar | None) -> None:
        self.pool = pool
        self.config = config
        self.registry = registry
        self.settings = settings_of(config)
        self.template: Template | None = None
        self._old: list[Template] = []
        self._reviving: asyncio.Task[None] | None = None
        self._revivals = 0
        self._since = 0.0
        self._sink: Callable[[WorkerOutput], object] = config.on_output or to_log

    async def start(self, slot: Slot, host: Host) -> FunctionWorker:
        """Starts a worker and waits until it is ready.

        Raises:
            WorkerStartError: it did not become ready; nothing is left of it.
            SpawnError: it could not be started.

        Cancellation: nothing is left of it before the cancellation goes on.
        """
        try:
            return await self._begin(slot, host)
        except SpawnError:
            raise
        except OSError as error:  # what it needs besides a process: a socket, shared memory
            raise spawn_error(error, self._command([sys.executable]), sys.executable) from error

    async def _begin(self, slot: Slot, host: Host) -> FunctionWorker:
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):  # as much as the system allows: a large message then takes fewer wake-ups
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        page, memory = -1, None
        try:
            page = shared(_link.PAGE)
            memory = mmap.mmap(page, _link.PAGE)
            spawning, forked = await self._spawn(slot, theirs.fileno(), page)
        except BaseException:
            ours.close()
            if memory is not None:
                memory.close()
            raise
        finally:
            theirs.close()
            if page >= 0:
                os.close(page)
        worker = self._take_hold(slot, spawning, ours, memory)
        worker.host = host
        try:
            if not forked:
                settings_frame(worker._channel, self.settings)
            async with asyncio.timeout(self.config.start_timeout):
                await worker.up
        except TimeoutError:
            await worker.clear()
            reason = f"it was not ready after {self.config.start_timeout:g} s"
            raise WorkerStartError(self.pool, reason, None, worker.stderr_tail()) from None
        except BaseException:
            await worker.clear()
            raise
        return worker

    async def _spawn(self, slot: Slot, channel: int, page: int) -> tuple[Spawning, bool]:
        template = self.template
        if template is not None and not template.alive:
            loop = asyncio.get_running_loop()
            self._old.append(template)
            template = self.template = None
            self._revivals = 1 if loop.time() - self._since > _LONG else self._revivals + 1
            self._reviving = loop.create_task(self._revive())
        if template is not None:
            launcher: Launcher = template.launcher(channel, page)
            spawning = self._spawning(slot, self._command([sys.executable, "-c", "procession.pool worker"]), launcher)
            await spawning.open(None)
            return spawning, True
        words = interpreter(RUN_WORKER, str(channel), str(page))
        spawning = self._spawning(slot, self._command(words, pass_fds=(channel, page)), None)
        await spawning.open(None)
        return spawning, False

    def _command(self, words: list[str], **options: Any) -> Command:
        return Command(*words, env=self.config.env, grace=0, labels={"pool": self.pool}, **options)

    def _spawning(self, slot: Slot, command: Command, launcher: Launcher | None) -> Spawning:
        return Spawning(command, self.registry, launcher, "worker", self.pool, slot.id)

    def _take_hold(self, slot: Slot, spawning: Spawning, ours: socket.socket, memory: mmap.mmap) -> FunctionWorker:
        process = spawning.process
        assert process is not None
        loop = asyncio.get_running_loop()
        handle = process._handle

        def line(stream: Stream) -> Callable[[str], WorkerOutput]:
            return lambda text: WorkerOutput(self.pool, slot.id, process.pid, stream, text)

        taps = (
            Tap(handle.stdout, line(Stream.STDOUT), self._sink),
            Tap(handle.stderr, line(Stream.STDERR), self._sink),
        )
        limit = self.settings["limit"] + _SLACK
        channel = Channel(ours, loop, limit)
        worker = FunctionWorker(slot, self.pool, spawning, process, channel, memory, taps)
        channel.open(worker.on_frame, worker.on_end)
        worker.watch()
        return worker

    async def open(self) -> None:
        """Prepares what workers are made from.

        Raises:
            WorkerStartError: what is to be preloaded cannot be imported.

        Cancellation: nothing is left of it before the cancellation goes on.
        """
        if self.config.start_method == "template" and is_possible():
            template = Template(self.pool, self.config, self.registry, self.settings)
            if await template.open():
                self.template = template
                self._since = asyncio.get_running_loop().time()

    async def _revive(self) -> None:
        """The template has ended: makes another. Workers are made without one meanwhile, or for good."""
        while self._old:
            await self._old[0].close()
            del self._old[0]
        try:
            if self._revivals <= _REVIVALS:
                await self.open()
        except Exception as error:  # noqa: BLE001 - they can do without
            _log.warning("%s: the template is gone and could not be replaced: %s", self.pool, error)

    async def close(self) -> None:
        """Lets go of it.

        Cancellation: absorbed until nothing is left, then raised.
        """
        await finish(self._close())

    async def _close(self) -> None:
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.wait((self._reviving,))
        for template in (*self._old, self.template):
            if template is not None:
                await template.close()
        self.template = None
        self._old.clear()
