"""The journal as a trace for chrome://tracing, Perfetto and whatever else reads that format."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from procession.registry._spans import Span, concurrency, groups, lanes, spans

if TYPE_CHECKING:
    from procession.registry._registry import ProcessRegistry

_CURVE = 0
"""The trace's number for what concerns all processes; groups are counted from 1."""


def trace_events(registry: ProcessRegistry, *, label: str | None = None) -> list[dict[str, Any]]:
    """The journal in the Trace Event Format: one complete event (``"ph": "X"``) per process.

    A group is a process of the trace, a row of it is a thread; the real pid is among the ``args``. State changes are
    instant events, and the number of live processes is a counter. Times are microseconds from the first start.

    Args:
        registry: whose journal is told.
        label: group by this label. Default: by owner.
    """
    return _trace(registry_spans(registry, label))


def write_trace(registry: ProcessRegistry, path: str | os.PathLike[str], *, label: str | None = None) -> Path:
    """Writes :func:`trace_events` to a file that ``ui.perfetto.dev`` and ``chrome://tracing`` open.

    Args:
        registry: whose journal is told.
        path: the file; it is replaced.
        label: group by this label. Default: by owner.

    Returns:
        The file.
    """
    trace = {"traceEvents": trace_events(registry, label=label), "displayTimeUnit": "ms"}
    target = Path(path)
    target.write_text(json.dumps(trace, separators=(",", ":")), encoding="utf-8")
    return target


def registry_spans(registry: ProcessRegistry, label: str | None) -> list[Span]:
    """The spans a registry can tell of."""
    events = registry.history()
    return spans(events, {event.id: registry.get(event.id) for event in events if event.id in registry}, label)


def _trace(found: list[Span]) -> list[dict[str, Any]]:
    if not found:
        return []
    zero = found[0].start
    last = max(max([span.start, span.end or 0.0, *(mark.at for mark in span.marks)]) for span in found)

    def micro(at: float) -> float:
        return round((at - zero) * 1e6, 3)

    result: list[dict[str, Any]] = [_named("process_name", _CURVE, 0, "processes")]
    for number, (group, members) in enumerate(groups(found).items(), start=1):
        result.append(_named("process_name", number, 0, group))
        for span, lane in zip(members, lanes(members, last), strict=True):
            place = {"pid": number, "tid": lane}
            args = {
                "id": span.id,
                "pid": span.pid,
                "command": span.command,
                "contained by": span.contained,
                "ended": span.ended or "lives",
                "spawn ms": round(span.spawning * 1e3, 3),
            }
            duration = micro(last if span.end is None else span.end) - micro(span.start)
            shape = {"name": span.name, "cat": span.outcome.value, "ph": "X", "ts": micro(span.start)}
            result.append({**shape, "dur": max(0.0, round(duration, 3)), **place, "args": args})
            for mark in span.marks:
                shape = {"name": mark.kind, "cat": "state", "ph": "i", "ts": micro(mark.at), "s": "t"}
                result.append({**shape, **place, "args": {"reason": mark.text}})
    for at, level in concurrency(found):
        result.append(
            {"name": "live", "ph": "C", "ts": micro(at), "pid": _CURVE, "tid": 0, "args": {"processes": level}}
        )
    return result


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": {"name": name}}
