"""What to run: :class:`Command`, an immutable description that is checked before anything happens."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from procession import _fields
from procession._core.config import MASK, Config, Seconds
from procession._types import Containment
from procession.errors import ConfigError

if TYPE_CHECKING:
    from procession.process._pipeline import Pipeline

_SECRET_WORD = re.compile(r"pass(word|wd|phrase)?|secret|token|api[-_]?key|credential|private[-_]?key", re.IGNORECASE)
_SECRET_SHAPE = re.compile(
    r"://[^/\s:@]+:[^/\s@]+@|\b(ghp|gho|ghs|sk|xox[abp]|AKIA)[-_A-Za-z0-9]{12,}|eyJ[\w-]{10,}\.[\w-]+\.|"
    r"-----BEGIN [A-Z ]*PRIVATE KEY"
)
_FREEZE = AfterValidator(_fields.Frozen)
pipeline_factory: Callable[[Sequence[Command]], Pipeline] | None = None
"""Set by the process floor when it is imported, so that ``|`` works without an import upwards."""


class Command(Config):
    """An immutable, validated description of a program to run; never a shell string.

    ``Command("tar", "-cf", "-", path)`` – the program and its arguments are positional, everything
    else is a keyword. Program names without a slash are looked up once, when the command is
    started, on the ``PATH`` of *this* program (not on the ``PATH`` given in ``env``); names with a slash are taken
    relative to ``cwd`` when it is given, as the kernel would.

    Args:
        argv: the program and its arguments; ``str`` or path-like, no NUL, not empty.
        cwd: working directory; default: ours.
        env: variables to set; ``None`` as a value removes an inherited one.
        inherit_env: ``True`` starts from our environment, ``False`` from an empty one, a sequence of names
            inherits just those.
        stdin: ``"null"`` (default), ``"pipe"``, ``"inherit"``, a path to read, or an open descriptor.
        stdout: ``"pipe"`` (default), ``"null"``, ``"inherit"``, a path to write, or an open descriptor.
        stderr: as stdout; also ``"stdout"`` to merge the two.
        timeout: seconds the process may take, or text such as ``"1m30s"``; default: no limit.
        grace: seconds between the stop signal and SIGKILL; default 5.
        stop_signal: what asks it to stop; default SIGTERM.
        user: user name or id to run as (Linux, through ``setpriv``).
        group: group name or id to run as; default with ``user``: the user's own group.
        extra_groups: supplementary groups; default with ``user``: the user's groups.
        umask: file mode mask, 0 to 0o777.
        nice: added to our niceness, -20 to 19.
        ionice: ``"idle"``, ``"best-effort:0"`` to ``"best-effort:7"``, ``"realtime:0"`` to ``"realtime:7"``.
        cpu_affinity: the processors it may run on.
        rlimits: limits by name, for example ``{"nofile": 256, "core": (0, 0)}``: a number for both or
            ``(soft, hard)``; ``None`` is unlimited.
        new_session: a session of its own (default), so that Ctrl-C in our terminal does not reach it
            first; ``False`` gives it a process group of its own in our session.
        detach: it may outlive its block and us; nothing but an explicit stop ends it.
        contain: the strongest rung of containment to use, see :class:`Containment`; ``"auto"`` is ``"tree"``.
            What the system cannot give falls to the next rung, which ``process.containment`` reports.
        no_new_privileges: set-user-id programs give it nothing (Linux).
        capabilities: the only capabilities it and its children may have, for example ``["net_bind_service"]``.
        death_signal: a signal the kernel sends it when we die (Linux), beside what the guardian does.
        pty: run it at a pseudo-terminal: stdin, stdout and stderr become one terminal.
        pty_size: ``(rows, columns)`` of that terminal.
        pass_fds: descriptors it inherits under the same numbers.
        labels: free text by name, kept in the registry's record and searchable there.

    Raises:
        ConfigError: a value was refused; ``field`` says which.
    """

    argv: Annotated[tuple[str, ...], BeforeValidator(_fields.argv)]
    cwd: Annotated[str | None, BeforeValidator(_fields.path)] = None
    env: Annotated[Mapping[str, str | None], BeforeValidator(_fields.environment), _FREEZE] = Field(
        default_factory=_fields.Frozen, repr=False
    )
    inherit_env: bool | tuple[str, ...] = True
    stdin: Annotated[_fields.Stdio, BeforeValidator(_fields.stdio)] = "null"
    stdout: Annotated[_fields.Stdio, BeforeValidator(_fields.stdio)] = "pipe"
    stderr: Annotated[_fields.Stdio, BeforeValidator(_fields.stdio)] = "pipe"
    timeout: Seconds | None = None
    grace: Seconds = 5.0
    stop_signal: Annotated[int, BeforeValidator(_fields.signal_number)] = 15
    user: Annotated[str | int | None, BeforeValidator(_fields.user)] = None
    group: Annotated[str | int | None, BeforeValidator(_fields.group)] = None
    extra_groups: Annotated[tuple[str | int, ...] | None, BeforeValidator(_fields.groups)] = None
    umask: Annotated[int | None, BeforeValidator(_fields.umask)] = None
    nice: Annotated[int | None, BeforeValidator(_fields.nice)] = None
    ionice: Annotated[str | None, BeforeValidator(_fields.ionice)] = None
    cpu_affinity: Annotated[tuple[int, ...] | None, BeforeValidator(_fields.cpus)] = None
    rlimits: Annotated[Mapping[str, tuple[int, int]], BeforeValidator(_fields.rlimits), _FREEZE] = Field(
        default_factory=_fields.Frozen
    )
    new_session: bool = True
    detach: bool = False
    contain: Annotated[Literal["auto"] | Containment, BeforeValidator(_fields.contain)] = "auto"
    no_new_privileges: bool = False
    capabilities: Annotated[tuple[str, ...] | None, BeforeValidator(_fields.capabilities)] = None
    death_signal: Annotated[int | None, BeforeValidator(_fields.optional_signal)] = None
    pty: bool = False
    pty_size: Annotated[tuple[int, int], BeforeValidator(_fields.pty_size)] = (24, 80)
    pass_fds: Annotated[tuple[int, ...], BeforeValidator(_fields.descriptors)] = ()
    labels: Annotated[Mapping[str, str], BeforeValidator(_fields.labels), _FREEZE] = Field(
        default_factory=_fields.Frozen
    )

    def __init__(self, *argv: str | os.PathLike[str], **options: Any) -> None:
        if argv and "argv" in options:
            raise ConfigError("argv", options["argv"], "give it positionally or by name, not both")
        try:
            super().__init__(**({"argv": argv} | options))
        except ConfigError as error:
            if error.field == "argv" and isinstance(error.value, (tuple, list)):
                raise ConfigError("argv", tuple(masked(error.value)), error.hint) from None
            raise

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # see Config

    @field_validator("stdin")
    @classmethod
    def _stdin(cls, value: _fields.Stdio) -> _fields.Stdio:
        if value == "stdout":
            raise ValueError('"stdout" makes sense for stderr only')
        return value

    @field_validator("stdout")
    @classmethod
    def _stdout(cls, value: _fields.Stdio) -> _fields.Stdio:
        if value == "stdout":
            raise ValueError('"stdout" makes sense for stderr only')
        return value

    @model_validator(mode="after")
    def _together(self) -> Command:
        if self.pty and not self.new_session:
            raise ConfigError("pty", True, "a pseudo-terminal needs new_session=True")
        if self.detach and self.contain not in ("auto", Containment.NONE, Containment.GROUP):
            raise ConfigError("detach", True, f"a detached process cannot be contained by {self.contain}")
        return self

    # -------------------------------------------------------------------------------- reading it

    @classmethod
    def shell(cls, script: str, **options: Any) -> Command:
        """A command that runs ``script`` with ``/bin/sh``: the one way to ask for a shell, by name."""
        return cls("/bin/sh", "-c", script, **options)

    @property
    def program(self) -> str:
        """The first word of ``argv``."""
        return self.argv[0]

    @property
    def name(self) -> str:
        """A name fit for records and logs, made from the program's file name."""
        return _fields.name_of(self.argv[0])

    @property
    def rung(self) -> Containment:
        """The strongest containment asked for."""
        if self.contain == "auto":
            return Containment.GROUP if self.detach else Containment.TREE
        return self.contain

    def display(self, width: int = 120) -> str:
        """The command line for people: quoted, shortened, and without what looks like a secret."""
        line = shlex.join(masked(self.argv)).replace("'***'", MASK)
        line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in line)
        return line if len(line) <= width else line[: width - 3] + "..."

    def __repr__(self) -> str:
        return f"<Command {self.display()}>"

    __str__ = __repr__

    def __hash__(self) -> int:
        return hash((self.argv, self.cwd))

    def __or__(self, other: Command | Pipeline) -> Pipeline:
        """``Command("ls") | Command("wc", "-l")``: a pipeline, described but not started."""
        if pipeline_factory is None:  # pragma: no cover - importing procession sets it
            raise RuntimeError("import procession first")
        if isinstance(other, Command):
            return pipeline_factory((self, other))
        stages: Iterable[Command] | None = getattr(other, "stages", None)
        if stages is None:
            return NotImplemented
        return pipeline_factory((self, *stages))


def masked(argv: Iterable[Any]) -> list[Any]:
    """Program and arguments, without the values of those that look like secrets."""
    words: list[Any] = []
    hide = False
    for word in argv:
        text = word if isinstance(word, str) else ""
        words.append(MASK if hide and not text.startswith("-") else mask(word) if text else word)
        hide = text.startswith("-") and "=" not in text and bool(_SECRET_WORD.search(text))
    return words


def mask(word: str) -> str:
    """One argument, without its value when that looks like a secret."""
    name, equals, _ = word.partition("=")
    if equals and _SECRET_WORD.search(name):
        return f"{name}={MASK}"
    return MASK if _SECRET_SHAPE.search(word) else word


PIPE = "pipe"
DEVNULL = "null"
INHERIT = "inherit"
STDOUT = "stdout"
