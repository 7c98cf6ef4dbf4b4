"""What this system can do for its processes, and by which mechanism: probed, not assumed."""

from __future__ import annotations

from dataclasses import dataclass

from procession._launch._engines import default_launcher
from procession._launch._owner import guardian_interpreter
from procession._linux import _cgroup, _pidfd, _proc, _tools
from procession._types import Containment


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemReport:
    """What :func:`system_report` found.

    Attributes:
        launcher: the engine used by default: ``"pidfd"`` or ``"asyncio"``.
        pidfd: signals and exits are tied to the process itself (Linux 5.4).
        group_signal: a process group can be signalled even after its leader was reaped (Linux 6.9).
        exit_record: the kernel remembers the status of a child that somebody else reaped (Linux 6.15).
        rungs: the rungs of containment that can be had, weakest first.
        guardian: whether children are ended when this program is killed.
        tools: for each option that a tool prepares, the fields of a command it stands behind and
            where it is, ``None`` when it is missing.
    """

    launcher: str
    pidfd: bool
    group_signal: bool
    exit_record: bool
    rungs: tuple[Containment, ...]
    guardian: bool
    tools: dict[str, tuple[str, str | None]]

    def __str__(self) -> str:
        def yes(value: bool) -> str:
            return "yes" if value else "no"

        lines = [
            f"launcher       {self.launcher}",
            f"pidfd          {yes(self.pidfd)}",
            f"group signal   {yes(self.group_signal)}",
            f"exit record    {yes(self.exit_record)}",
            f"containment    {', '.join(self.rungs)}",
            f"guardian       {yes(self.guardian)}",
        ]
        lines += [f"{name:<14} {path or 'MISSING'} (for {fields})" for name, (fields, path) in self.tools.items()]
        return "\n".join(lines)


def system_report() -> SystemReport:
    """Probes the system once and tells what can be had here; ``python -m procession check`` prints it.

    Reads ``/proc`` and makes and removes one empty cgroup where that is allowed; starts no process.
    """
    rungs = [Containment.NONE, Containment.GROUP]
    if _proc.has_proc():
        rungs.append(Containment.TREE)
    if _cgroup.allowed():
        rungs.append(Containment.CGROUP)
    return SystemReport(
        launcher=default_launcher().name,
        pidfd=_pidfd.has_pidfd(),
        group_signal=_pidfd.has_group_signal(),
        exit_record=_pidfd.has_exit_record(),
        rungs=tuple(rungs),
        guardian=_proc.has_proc() and guardian_interpreter() is not None,
        tools={name: (fields, _tools.tool(name)) for name, fields in _tools.TOOLS.items()},
    )
