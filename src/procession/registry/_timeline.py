"""The journal as a page for people: one file, no network, one bar per process."""

from __future__ import annotations

import math
import os
from collections import Counter
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from procession.registry._spans import Outcome, Span, concurrency, groups, lanes
from procession.registry._trace import registry_spans

if TYPE_CHECKING:
    from procession.registry._registry import ProcessRegistry

_ROW = 17
_WORDS = {
    Outcome.SUCCESS: "exit 0",
    Outcome.FAILURE: "other exit code",
    Outcome.STOPPED: "stopped when asked",
    Outcome.FORCED: "stopped by SIGKILL",
    Outcome.KILLED: "signal from elsewhere",
    Outcome.LOST: "status lost",
    Outcome.REFUSED: "not started",
    Outcome.LIVE: "still alive",
}


def timeline_page(registry: ProcessRegistry, *, title: str = "Processes", label: str | None = None) -> str:
    """Who ran when and how it ended, as one HTML page that needs no network.

    One bar per process, coloured by how it ended, in rows by group; state changes are marked, details shown under
    the pointer; above all the number of live processes. Reaches as far back as the journal does.

    Args:
        registry: whose journal is told.
        title: the heading.
        label: group by this label. Default: by owner.
    """
    return _page(registry_spans(registry, label), title)


def write_timeline(
    registry: ProcessRegistry, path: str | os.PathLike[str], *, title: str = "Processes", label: str | None = None
) -> Path:
    """Writes :func:`timeline_page` to a file.

    Args:
        registry: whose journal is told.
        path: the file; it is replaced.
        title: the heading.
        label: group by this label. Default: by owner.

    Returns:
        The file.
    """
    target = Path(path)
    target.write_text(timeline_page(registry, title=title, label=label), encoding="utf-8")
    return target


@cache
def _template() -> Template:
    return Template(Path(__file__).with_name("_page.html").read_text(encoding="utf-8"))


class _Scale:
    """From loop time to per cent of the width."""

    def __init__(self, found: list[Span]) -> None:
        self.zero = min((span.start for span in found), default=0.0)
        ends = [max([span.start, span.end or 0.0, *(mark.at for mark in span.marks)]) for span in found]
        self.last = max(ends, default=self.zero)
        self.length = max(self.last - self.zero, 1e-3)

    def percent(self, at: float) -> float:
        return min(100.0, max(0.0, (at - self.zero) / self.length * 100))

    def ticks(self) -> list[float]:
        """Seconds at round distances, about ten of them."""
        rough = self.length / 10
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        return [number * step for number in range(int(self.length / step) + 1)]


def _page(found: list[Span], title: str) -> str:
    scale = _Scale(found)
    curve = concurrency(found)
    peak = max((level for _, level in curve), default=0)
    counts = Counter(span.outcome for span in found)
    grouped = groups(found)
    legend = "".join(
        f'<button type="button" data-outcome="{outcome}" aria-pressed="true">'
        f'<i class="{outcome}"></i>{_WORDS[outcome]} <b>{counts[outcome]}</b></button>'
        for outcome in Outcome
        if counts[outcome]
    )
    ticks = "".join(
        f'<span style="left:{scale.percent(scale.zero + at):.4f}%">{_seconds(at)}</span>' for at in scale.ticks()
    )
    grid = "".join(f'<i style="left:{scale.percent(scale.zero + at):.4f}%"></i>' for at in scale.ticks())
    return _template().substitute(
        title=escape(title),
        processes=len(found),
        groups=len(grouped),
        seconds=_seconds(scale.length) if found else "0 s",
        peak=peak,
        alive=counts[Outcome.LIVE],
        verdict="bad" if counts[Outcome.LIVE] else "good",
        legend=legend,
        ticks=ticks,
        grid=grid,
        curve=_curve(curve, scale, peak),
        rows="".join(_group(name, members, scale) for name, members in grouped.items()),
    )


def _curve(curve: list[tuple[float, int]], scale: _Scale, peak: int) -> str:
    """The number of live processes as the outline of an area, in a box of 1000 by 100."""
    x, y, parts = 0.0, 100.0, ["M0 100"]
    for at, level in curve:
        x, y = scale.percent(at) * 10, 100 - level / max(peak, 1) * 96
        parts.append(f"H{x:.2f}V{y:.2f}")
    return "".join([*parts, f"H{1000 if y < 100 else x:.2f}V100Z"])


def _group(name: str, members: list[Span], scale: _Scale) -> str:
    rows = lanes(members, scale.last)
    height = (max(rows) + 1) * _ROW + 5
    bars = "".join(_bar(span, row, scale) for span, row in zip(members, rows, strict=True))
    return (
        f'<div class="group"><div class="name" title="{escape(name)}">{escape(name)}</div>'
        f'<svg class="lanes" height="{height}" role="img" aria-label="{escape(name)}">{bars}</svg></div>\n'
    )


def _bar(span: Span, row: int, scale: _Scale) -> str:
    start, stop = scale.percent(span.start), scale.percent(scale.last if span.end is None else span.end)
    width = max(stop - start, 0.15)
    top = 3 + row * _ROW
    ran = _seconds((scale.last if span.end is None else span.end) - span.start)
    began, spawned = _seconds(span.start - scale.zero), f"{span.spawning * 1000:.1f} ms of it to start"
    details = [
        span.name,
        f"how: {_WORDS[span.outcome]}" + (f" ({span.ended})" if span.ended else ""),
        f"ran: {ran} from {began}, {spawned}",
        f"pid: {span.pid or 'none'} · {span.id}" + (f" · contained by {span.contained}" if span.contained else ""),
        f"run: {span.command}" if span.command else "",
    ]
    for mark in span.marks:
        reason = f" ({mark.text})" if mark.text and mark.text != mark.kind else ""
        details.append(f"at {_seconds(mark.at - scale.zero)}: {mark.kind}{reason}")
    text = escape("\n".join(line for line in details if line))
    marks = "".join(
        f'<circle class="mark {_css(mark.kind)}" cx="{scale.percent(mark.at):.4f}%" cy="{top + 7}" r="3.4"/>'
        for mark in span.marks
    )
    spawning = min(100.0, span.spawning / scale.length * 100 / width * 100)
    return (
        f'<g class="bar {span.outcome}" data-text="{text}">'
        f'<svg x="{start:.4f}%" y="{top}" width="{width:.4f}%" height="14">'
        f'<rect width="100%" height="14" rx="2.5"/><rect class="spawn" width="{spawning:.2f}%" height="14" rx="2.5"/>'
        f'<text x="5" y="10.5">{escape(span.name)}</text></svg>{marks}</g>'
    )


def _css(kind: str) -> str:
    return kind if kind in {"suspended", "resumed", "stopping", "unkillable", "adopted"} else "other"


def _seconds(value: float) -> str:
    if value and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s"
