"""Checks of single values of a :class:`~procession.command.Command`: each returns the value it accepts.

Every check raises ``ValueError`` with the way out in its text; the caller adds the field's name.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from procession._types import NAME_PATTERN, Containment

try:
    import resource
except ImportError:  # pragma: no cover - not a POSIX system; refused at import of the package
    resource = None  # type: ignore[assignment]

Stdio = Literal["pipe", "null", "inherit", "stdout"] | Path | int
_WORDS = {"pipe": "pipe", "null": "null", "devnull": "null", "inherit": "inherit", "stdout": "stdout"}
_NUMBERS = {-1: "pipe", -2: "stdout", -3: "null"}  # subprocess.PIPE, STDOUT and DEVNULL


class Frozen(dict[str, Any]):
    """A mapping that stays as it was checked; it can be compared, copied and pickled like any other."""

    def _refuse(self, *_: object, **__: object) -> Any:
        raise TypeError("a command cannot be changed: use replace()")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def _text(value: object, what: str) -> str:
    if isinstance(value, bytes) or not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{what} is text or a path")
    text = os.fspath(value)
    if not isinstance(text, str):
        text = os.fsdecode(text)
    if "\0" in text:
        raise ValueError(f"{what} cannot hold a NUL byte")
    return text


def argv(value: object) -> tuple[str, ...]:
    """Program and arguments: not empty, no NUL, text or paths."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError('give program and arguments as separate words: Command("ls", "-l")')
    words = tuple(_text(word, "an argument") for word in value)
    if not words or not words[0]:
        raise ValueError('a program is needed: Command("ls", "-l")')
    return words


def path(value: object) -> str | None:
    """A path or ``None``."""
    if value is None:
        return None
    text = _text(value, "a path")
    if not text:
        raise ValueError("a path cannot be empty")
    return text


def environment(value: object) -> dict[str, str | None]:
    """Names without ``=``, values text; ``None`` removes."""
    if not isinstance(value, Mapping):
        raise ValueError("a mapping of names to text is needed")
    result: dict[str, str | None] = {}
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot name a variable: text without = and NUL is needed")
        if text is None:
            result[name] = None
        elif isinstance(text, (str, os.PathLike)):
            result[name] = _text(text, f"the value of {name}")
        else:
            raise ValueError(f"the value of {name} is {type(text).__name__}; text or None is needed")
    return result


def stdio(value: Any) -> Stdio:
    """A policy word, a path, an open descriptor, or an object with ``fileno()``."""
    if isinstance(value, bool) or value is None:
        raise ValueError('"pipe", "null", "inherit", a Path or an open descriptor is needed')
    if isinstance(value, str):
        if value not in _WORDS:
            raise ValueError('"pipe", "null", "inherit" or "stdout" (stderr only); for a file give a pathlib.Path')
        return _WORDS[value]  # type: ignore[return-value]
    if isinstance(value, os.PathLike):
        return Path(value)
    if not isinstance(value, int):
        if not hasattr(value, "fileno"):
            raise ValueError('"pipe", "null", "inherit", a Path or an open descriptor is needed')
        value = value.fileno()
    if value in _NUMBERS:
        return _NUMBERS[value]  # type: ignore[return-value]
    return _open_descriptor(value)


def _open_descriptor(fd: object) -> int:
    if isinstance(fd, bool) or not isinstance(fd, int) or fd < 0:
        raise ValueError(f"{fd!r} is not a descriptor")
    try:
        os.fstat(fd)
    except OSError:
        raise ValueError(f"descriptor {fd} is not open") from None
    return fd


def descriptors(value: object) -> tuple[int, ...]:
    """Open descriptors."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError("a sequence of open descriptors is needed")
    return tuple(_open_descriptor(fd) for fd in value)


def signal_number(value: object) -> int:
    """A signal by number or by name, with or without ``SIG``."""
    if isinstance(value, str):
        name = value.upper() if value.upper().startswith("SIG") else "SIG" + value.upper()
        try:
            return signal.Signals[name].value
        except KeyError:
            raise ValueError(f"no signal is called {value}") from None
    if isinstance(value, bool) or not isinstance(value, int) or value not in signal.valid_signals():
        raise ValueError('a signal is needed, for example "SIGTERM" or 15')
    return int(value)


def optional_signal(value: object) -> int | None:
    """A signal or ``None``."""
    return None if value is None else signal_number(value)


def _account(value: object, what: str) -> str | int:
    if isinstance(value, str):
        lookup = (__import__("pwd").getpwnam) if what == "user" else (__import__("grp").getgrnam)
        try:
            lookup(value)
        except KeyError:
            raise ValueError(f"there is no {what} called {value}") from None
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32 - 1:
        raise ValueError(f"a {what} is a name or a number, 0 or more")
    return value


def user(value: object) -> str | int | None:
    """A user that exists, or any user id."""
    return None if value is None else _account(value, "user")


def group(value: object) -> str | int | None:
    """A group that exists, or any group id."""
    return None if value is None else _account(value, "group")


def groups(value: object) -> tuple[str | int, ...] | None:
    """Several groups."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError("a sequence of groups is needed")
    return tuple(_account(item, "group") for item in value)


def _integer(value: object, low: int, high: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{what} is a whole number from {low} to {high}")
    return value


def umask(value: object) -> int | None:
    """0 to 0o777."""
    return None if value is None else _integer(value, 0, 0o777, "umask")


def nice(value: object) -> int | None:
    """-20 to 19."""
    return None if value is None else _integer(value, -20, 19, "nice")


def ionice(value: object) -> str | None:
    """``idle``, ``best-effort[:0-7]`` or ``realtime[:0-7]`` (ionice(1))."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"idle|(best-effort|realtime)(:[0-7])?", value):
        raise ValueError('"idle", "best-effort:4" or "realtime:4" is needed; levels are 0 to 7')
    return value


def cpus(value: object) -> tuple[int, ...] | None:
    """Processors this program may use itself."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError("a set of processor numbers is needed")
    wanted = tuple(sorted({_integer(cpu, 0, 2**16, "a processor") for cpu in value}))
    if not wanted:
        raise ValueError("at least one processor is needed")
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        if missing := set(wanted) - allowed:
            raise ValueError(f"processors {sorted(missing)} are not ours; there are {sorted(allowed)}")
    return wanted


def rlimits(value: object) -> dict[str, tuple[int, int]]:
    """Limits by lower-case name; the hard one cannot exceed ours unless we may raise it."""
    if not isinstance(value, Mapping):
        raise ValueError('a mapping is needed, for example {"nofile": 256}')
    result: dict[str, tuple[int, int]] = {}
    for name, limit in value.items():
        short = str(name).lower().removeprefix("rlimit_")
        if not hasattr(resource, "RLIMIT_" + short.upper()):
            known = sorted(item[7:].lower() for item in dir(resource) if item.startswith("RLIMIT_"))
            raise ValueError(f"no limit is called {name!r}; there are {', '.join(known)}")
        pair = limit if isinstance(limit, (tuple, list)) else (limit, limit)
        if len(pair) != 2:
            raise ValueError(f"{name}: a number or (soft, hard) is needed")
        soft, hard = (_limit(item, str(name)) for item in pair)
        if hard != -1 and (soft == -1 or soft > hard):
            raise ValueError(f"{name}: the soft limit {soft} exceeds the hard limit {hard}")
        result[short] = (soft, hard)
    return result


def _limit(value: object, name: str) -> int:
    if value is None or value == -1:
        return -1
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name}: {value!r} is no limit; a whole number, or None for unlimited, is needed")
    return value


_CAPABILITIES = frozenset(
    [
        "chown",
        "dac_override",
        "dac_read_search",
        "fowner",
        "fsetid",
        "kill",
        "setgid",
        "setuid",
        "setpcap",
        "linux_immutable",
        "net_bind_service",
        "net_broadcast",
        "net_admin",
        "net_raw",
        "ipc_lock",
        "ipc_owner",
        "sys_module",
        "sys_rawio",
        "sys_chroot",
        "sys_ptrace",
        "sys_pacct",
        "sys_admin",
        "sys_boot",
        "sys_nice",
        "sys_resource",
        "sys_time",
        "sys_tty_config",
        "mknod",
        "lease",
        "audit_write",
        "audit_control",
        "setfcap",
        "mac_override",
        "mac_admin",
        "syslog",
        "wake_alarm",
        "block_suspend",
        "audit_read",
        "perfmon",
        "bpf",
        "checkpoint_restore",
    ]
)


def capabilities(value: object) -> tuple[str, ...] | None:
    """Known capabilities, named as in the manual page, in any case, with or without ``CAP_``."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ValueError('a sequence of names is needed, for example ["net_bind_service"]')
    names = tuple(str(item).lower().removeprefix("cap_") for item in value)
    for name in names:
        if name not in _CAPABILITIES:
            raise ValueError(f"no capability is called {name!r}, see capabilities(7)")
    return names


def contain(value: object) -> str:
    """``auto`` or a rung."""
    if value == "auto" or value in tuple(Containment):
        return str(value)
    raise ValueError("one of auto, " + ", ".join(Containment) + " is needed")


def pty_size(value: object) -> tuple[int, int]:
    """Rows and columns, 1 to 65535."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError("(rows, columns) is needed")
    return _integer(value[0], 1, 65535, "rows"), _integer(value[1], 1, 65535, "columns")


def labels(value: object) -> dict[str, str]:
    """Names as for processes, values one line of text."""
    if not isinstance(value, Mapping):
        raise ValueError("a mapping of names to text is needed")
    for key, text in value.items():
        check_name(key)
        if not isinstance(text, str) or len(text) > 256 or not text.isprintable():
            raise ValueError(f"the label {key} is one printable line of at most 256 characters")
    return dict(value)


def check_name(value: object) -> str:
    """A name that cannot be taken for an option, a path or several lines."""
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        raise ValueError("a name is 1 to 64 letters, digits, '.', '_' or '-', and begins with a letter or digit")
    return value


def name_of(program: str) -> str:
    """The file name of a program made to fit the rule for names."""
    base = re.sub(r"[^A-Za-z0-9._-]", "_", program.rsplit("/", 1)[-1])[:64].lstrip("._-")
    return base or "process"
