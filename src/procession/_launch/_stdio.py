"""Standard streams before the spawn: what the child gets, what we keep, and closing both on any failure."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
from asyncio import AbstractEventLoop
from pathlib import Path
from typing import TYPE_CHECKING

from procession._launch._fds import FdInlet, FdOutlet
from procession.errors import SpawnError, SpawnFailure

if TYPE_CHECKING:
    from procession._fields import Stdio
    from procession.command import Command


class Stdio3:
    """The three streams of one child that is about to be made."""

    __slots__ = ("_given", "_ours", "child", "terminal")

    def __init__(self, command: Command) -> None:
        self._given: list[int] = []  # the child's ends, closed here once it has them
        self._ours: list[int] = []  # stdin, stdout, stderr; -1 where we keep nothing
        self.child: list[int | None] = []  # what Popen is told
        self.terminal: str | None = None
        try:
            if command.pty:
                self._open_terminal(command.pty_size)
            else:
                self._open(command)
        except BaseException as error:
            self.abort()
            if isinstance(error, OSError) and not isinstance(error, SpawnError):
                limit = error.errno in (errno.EMFILE, errno.ENFILE)
                reason = SpawnFailure.FD_LIMIT if limit else SpawnFailure.STREAM
                raise SpawnError.of(reason, command, error.errno, error.filename) from None
            raise

    def _open(self, command: Command) -> None:
        for number, policy in enumerate((command.stdin, command.stdout, command.stderr)):
            if policy == "pipe":
                reader, writer = os.pipe()
                mine, theirs = (writer, reader) if number == 0 else (reader, writer)
                self._ours.append(mine)
                self._given.append(theirs)
                self.child.append(theirs)
                os.set_blocking(mine, False)
            else:
                self._ours.append(-1)
                self.child.append(self._policy(policy, number))

    def _policy(self, policy: Stdio, number: int) -> int | None:
        if policy == "inherit":
            return None
        if policy == "null":
            return subprocess.DEVNULL
        if policy == "stdout":
            return subprocess.STDOUT
        if isinstance(policy, Path):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            # Non-blocking only while opening: a FIFO without a peer must not hang the loop.
            fd = os.open(policy, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
            self._given.append(fd)
            os.set_blocking(fd, True)
            return fd
        assert isinstance(policy, int)
        return policy

    def _open_terminal(self, size: tuple[int, int]) -> None:
        master, slave = os.openpty()
        self._ours += [master]
        self._given.append(slave)
        set_size(master, *size)
        self.terminal = os.ttyname(slave)
        os.set_blocking(master, False)
        self._ours = [os.dup(master), master, -1]
        self.child = [slave, slave, slave]

    def hand_over(self) -> None:
        """The child has its ends: closes our copies of them."""
        given, self._given = self._given, []
        for fd in given:
            os.close(fd)

    def ends(self, loop: AbstractEventLoop) -> tuple[FdOutlet | None, FdInlet | None, FdInlet | None]:
        """Our ends, which now belong to the caller."""
        self.hand_over()
        (stdin, stdout, stderr), self._ours = self._ours, []
        return (
            FdOutlet(stdin, loop, terminal=self.terminal is not None) if stdin >= 0 else None,
            FdInlet(stdout, loop) if stdout >= 0 else None,
            FdInlet(stderr, loop) if stderr >= 0 else None,
        )

    def abort(self) -> None:
        """There is no child: closes everything; may be called twice."""
        self.hand_over()
        ours, self._ours = self._ours, []
        for fd in ours:
            if fd >= 0:
                os.close(fd)


def set_size(fd: int, rows: int, columns: int) -> None:
    """Sets the size of a terminal and tells the programs at it with SIGWINCH (ioctl_tty(2))."""
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
