"""From a :class:`Command` to one call of ``Popen``: everything that can fail early, done and checked."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from procession._launch import _spawner
from procession._launch._diagnose import check_program, resolve, spawn_error
from procession._launch._owner import owner
from procession._launch._popen import PopenCommand
from procession._launch._stdio import Stdio3
from procession._linux import _cgroup, _pidfd, _proc, _tools
from procession._types import Containment, ProcessRef
from procession.errors import SpawnError, SpawnFailure

if TYPE_CHECKING:
    from procession.command import Command


@dataclass(frozen=True, slots=True)
class Child:
    """A child that was just made. ``pidfd`` is ``None`` where there are none."""

    ref: ProcessRef
    pidfd: int | None


class Plan:
    """One spawn, prepared on the loop's thread and carried out by :meth:`start` in the spawner's."""

    __slots__ = ("_options", "_pidfd", "_words", "cgroup", "command", "containment", "id", "program", "stdio")

    def __init__(self, command: Command, id: str, *, pidfd: bool) -> None:
        self.command = command
        self.id = id
        self._pidfd = pidfd
        self.cgroup: _cgroup.Cgroup | None = None
        given = command.given if isinstance(command, PopenCommand) else {}
        self.program = given.get("executable") or resolve(command, os.environ.get("PATH", os.defpath))
        _check_descriptors(command)
        self.stdio = Stdio3(command)
        try:
            self.containment = self._contain(command.rung)
            procs = self.cgroup.procs if self.cgroup is not None else None
            words: list[str] = []
            if procs or self.stdio.terminal or _tools.needs_chain(command):
                check_program(command, self.program)
                words = _tools.chain(command, cgroup_procs=procs, terminal=self.stdio.terminal)
            self._words = [*words, self.program, *command.argv[1:]] if words else list(command.argv)
            self._options = self._popen_options() | given | {"executable": None if words else self.program}
        except BaseException:
            self.abort()
            raise

    def _contain(self, wanted: Containment) -> Containment:
        if wanted is Containment.CGROUP:
            base = _cgroup.available(owner().token)
            if base is not None:
                owner().name_cgroup(base)
                try:
                    self.cgroup = _cgroup.Cgroup(base, self.id)
                except OSError as error:
                    raise SpawnError.of(SpawnFailure.CONTAINMENT, self.command, error.errno, base) from None
                return Containment.CGROUP
            wanted = Containment.TREE
        if wanted is Containment.TREE and not _proc.has_proc():
            return Containment.GROUP
        return wanted

    def _popen_options(self) -> dict[str, Any]:
        command = self.command
        stdin, stdout, stderr = self.stdio.child
        return {
            "stdin": stdin,
            "stdout": stdout,
            "stderr": stderr,
            "close_fds": True,
            "cwd": command.cwd,
            "env": self._environment(),
            "pass_fds": command.pass_fds,
            "start_new_session": command.new_session,
            "process_group": 0 if not command.new_session and self.containment is not Containment.NONE else None,
            "umask": -1 if command.umask is None else command.umask,
        }

    def _environment(self) -> dict[bytes, bytes]:
        """The child's variables, as bytes: copying our own environment decoded would cost more than the spawn."""
        command = self.command
        if command.inherit_env is True:
            env = _own_environment()
        elif command.inherit_env:
            own = _own_environment()
            names = [os.fsencode(name) for name in command.inherit_env]
            env = {name: own[name] for name in names if name in own}
        else:
            env = {}
        for name, value in command.env.items():
            if value is None:
                env.pop(os.fsencode(name), None)
            else:
                env[os.fsencode(name)] = os.fsencode(value)
        if not command.detach:
            env.update(owner().cookies(self.id))
        return env

    # --------------------------------------------------------------------- in the spawner's thread

    def start(self) -> Child:
        """Makes the child.

        Raises:
            SpawnError: it could not be made; nothing is left of it.
        """
        if not self.command.detach:
            try:
                owner().guard()
            except OSError as error:
                raise spawn_error(error, self.command, "procession-guardian") from None
        before = _proc.boot_ticks()
        try:
            popen = _spawner.popen(self._words, **self._options)
        except OSError as error:
            raise spawn_error(error, self.command, self.program) from None
        except ValueError as error:
            raise SpawnError.of(SpawnFailure.OTHER, self.command, errno.EINVAL, str(error)) from None
        after = _proc.boot_ticks()
        pid = popen.pid
        popen.returncode = 0  # reaped by whoever watches it, not by Popen
        pidfd = None
        if self._pidfd:
            try:
                pidfd = os.pidfd_open(pid)
            except ProcessLookupError:
                pidfd = None  # SIGCHLD is ignored, or somebody reaps everything: gone already
            except OSError as error:
                _discard(pid)
                raise spawn_error(error, self.command, self.program) from None
        if before != after:
            try:
                seen = _proc.stat(pid)
            except OSError:
                seen = None  # no descriptor left to look
            before = seen.started if seen is not None else after
        return Child(ProcessRef(pid, before, self.command.name), pidfd)

    def abort(self) -> None:
        """Nothing was started, or what was is gone: lets go of everything; may be called twice."""
        self.stdio.abort()
        if self.cgroup is not None:
            self.cgroup.remove()

    def dispose(self, child: Child | None) -> None:
        """Nobody waits for this child any more, not even a loop: ends it, reaps it, lets go."""
        if child is not None:
            if child.pidfd is None:
                _discard(child.ref.pid)
            else:
                if self.containment is not Containment.NONE and _pidfd.has_group_signal():
                    _pidfd.send_group(child.pidfd, signal.SIGKILL)
                try:
                    _pidfd.send(child.pidfd, signal.SIGKILL)
                    os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
                except (ProcessLookupError, ChildProcessError):
                    pass  # a foreign reaper was faster
                os.close(child.pidfd)
        self.abort()


def _own_environment() -> dict[bytes, bytes]:
    # `_data` is the mapping of bytes below os.environ; going through os.environb costs ten times as much.
    raw = getattr(os.environ, "_data", None)
    return dict(raw) if isinstance(raw, dict) else dict(os.environb)


def _check_descriptors(command: Command) -> None:
    """Before any is opened here: a number that is free now would be taken by one of our own pipes."""
    for fd in (command.stdin, command.stdout, command.stderr, *command.pass_fds):
        if isinstance(fd, int):
            try:
                os.fstat(fd)
            except OSError as error:
                raise SpawnError.of(SpawnFailure.BAD_DESCRIPTOR, command, error.errno, str(fd)) from None


def _discard(pid: int) -> None:
    """Kills and reaps a child of ours that was not reaped, so that its pid cannot be anybody else's."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # a foreign reaper was faster
