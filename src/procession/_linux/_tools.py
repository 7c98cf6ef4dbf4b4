"""What must happen between fork and exec, done by exec-chaining small tools instead of ``preexec_fn``.

``prlimit``, ``taskset``, ``ionice`` and ``setpriv`` are util-linux; ``nice`` is coreutils. Each applies itself and
then executes the rest of its command line in the same process, so the pid does not change. The order
matters: what needs privileges comes before ``setpriv`` gives them away.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import shutil
from functools import cache
from typing import TYPE_CHECKING

from procession._types import signal_name
from procession.errors import ConfigError, SpawnError, SpawnFailure

if TYPE_CHECKING:
    from procession.command import Command

TOOLS = {
    "prlimit": "rlimits",
    "nice": "nice",
    "ionice": "ionice",
    "taskset": "cpu_affinity",
    "setpriv": "user, group, extra_groups, capabilities, no_new_privileges, death_signal",
    "sh": "pty, contain='cgroup'",
}
"""Which tool stands behind which field of a command."""

_JOIN_CGROUP = 'echo 0 >"$0" && exec "$@"'
_TAKE_TERMINAL = 'exec "$@" <>"$0" >&0 2>&0'


@cache
def tool(name: str) -> str | None:
    """Where a tool is, looked up once; ``None`` when the system lacks it."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=f"{path}:/usr/bin:/bin:/usr/sbin:/sbin")


def needs_chain(command: Command) -> bool:
    """Whether the command asks for anything that is done by a tool."""
    return bool(
        command.rlimits
        or command.nice is not None
        or command.ionice is not None
        or command.cpu_affinity is not None
        or needs_setpriv(command)
    )


def needs_setpriv(command: Command) -> bool:
    """Whether ``setpriv`` has something to do."""
    return (
        command.user is not None
        or command.group is not None
        or command.extra_groups is not None
        or command.capabilities is not None
        or command.no_new_privileges
        or command.death_signal is not None
    )


def chain(command: Command, *, cgroup_procs: str | None, terminal: str | None) -> list[str]:
    """The words to put before the program.

    Args:
        command: what is to be run.
        cgroup_procs: the file through which it joins its cgroup, if it has one.
        terminal: the slave side of its pseudo-terminal, if it has one. A session leader without a
            controlling terminal that opens a terminal gets it as such (tty_ioctl(2), open(2)).

    Raises:
        SpawnError: a tool is missing, or the system would refuse what is asked.
        ConfigError: the group of a user without an account was not given.
    """
    words: list[str] = []
    if command.rlimits:
        words += [_tool("prlimit", command), *_rlimits(command)]
    if command.nice is not None:
        _check_nice(command)
        words += [_tool("nice", command), "-n", str(command.nice)]
    if command.ionice is not None:
        words += [_tool("ionice", command), *_ionice(command.ionice)]
    if command.cpu_affinity is not None:
        words += [_tool("taskset", command), "-c", ",".join(map(str, command.cpu_affinity))]
    if cgroup_procs is not None:
        words += [_tool("sh", command), "-c", _JOIN_CGROUP, cgroup_procs]
    if terminal is not None:
        words += [_tool("sh", command), "-c", _TAKE_TERMINAL, terminal]
    if needs_setpriv(command):
        words += [_tool("setpriv", command), *_setpriv(command)]
        words.append("--")
    return words


def _tool(name: str, command: Command) -> str:
    path = tool(name)
    if path is None:
        raise SpawnError.of(SpawnFailure.UNSUPPORTED, command, None, f"{name} (needed for {TOOLS[name]})")
    return path


def _rlimits(command: Command) -> list[str]:
    words = []
    for name, (soft, hard) in command.rlimits.items():
        ceiling = resource.getrlimit(getattr(resource, "RLIMIT_" + name.upper()))[1]
        if os.geteuid() != 0 and ceiling != -1 and (hard == -1 or hard > ceiling):
            raise SpawnError.of(
                SpawnFailure.PERMISSION, command, errno.EPERM, f"rlimits.{name} above our own {ceiling}"
            )
        option = {"ofile": "nofile", "memlock": "memlock"}.get(name, name)
        words.append(f"--{option}={_number(soft)}:{_number(hard)}")
    return words


def _number(limit: int) -> str:
    return "unlimited" if limit == -1 else str(limit)


def _check_nice(command: Command) -> None:
    if command.nice is not None and command.nice < 0 and os.geteuid() != 0:
        floor = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
        if os.getpriority(os.PRIO_PROCESS, 0) + command.nice < floor:
            raise SpawnError.of(SpawnFailure.PERMISSION, command, errno.EPERM, f"nice={command.nice}")


def _ionice(text: str) -> list[str]:
    kind, _, level = text.partition(":")
    words = ["-c", {"realtime": "1", "best-effort": "2", "idle": "3"}[kind]]
    return words + (["-n", level] if level else [])


def _setpriv(command: Command) -> list[str]:
    words: list[str] = []
    account = _account(command.user)
    if command.user is not None:
        words.append(f"--reuid={account.pw_uid if account else command.user}")
    if command.group is not None:
        words.append(f"--regid={_gid(command.group)}")
    elif account is not None:
        words.append(f"--regid={account.pw_gid}")
    elif command.user is not None:
        raise ConfigError("group", None, f"user {command.user} has no account, so say which group")
    if command.extra_groups is not None:
        gids = ",".join(str(_gid(group)) for group in command.extra_groups)
        words.append(f"--groups={gids}" if gids else "--clear-groups")
    elif account is not None:
        words.append("--init-groups")
    elif command.user is not None:
        words.append("--clear-groups")
    elif command.group is not None:
        words.append("--keep-groups")
    if command.capabilities is not None:
        wanted = "".join(f",+{name}" for name in command.capabilities)
        words += [f"--{kind}=-all{wanted}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    if command.no_new_privileges:
        words.append("--no-new-privs")
    if command.death_signal is not None:
        words.append(f"--pdeathsig={signal_name(command.death_signal)}")
    return words


def _account(user: str | int | None) -> pwd.struct_passwd | None:
    if user is None:
        return None
    try:
        return pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return None


def _gid(group: str | int) -> int:
    return group if isinstance(group, int) else grp.getgrnam(group).gr_gid
