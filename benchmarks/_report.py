"""What a run says: the machine, markdown tables, charts as SVG, and its own section of RESULTS.md."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "RESULTS.md"
PLOTS = HERE / "plots"
HEAD = """# Results

Written by `make bench`; each benchmark rewrites its own section. Times depend on the machine and are printed for scale;
what counts are ratios, taken within interleaved rounds (median and range over the rounds), and counts.
"""


def machine() -> str:
    """Python, kernel and cores, in one line."""
    kernel = re.match(r"[\d.]*\d", platform.release())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    version = kernel[0] if kernel else platform.release()
    return f"Python {platform.python_version()}, {platform.system()} {version}, {platform.machine()}, {cores} cores"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A markdown table; the first column is text, the rest are figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None) -> str:
    """Three digits that mean something."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def write_section(name: str, text: str) -> Path:
    """Replace one benchmark's section of RESULTS.md; sections stand in order of their names."""
    whole = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else HEAD
    pattern = re.compile(r"<!-- begin (\w+) -->\n(.*?)\n<!-- end \1 -->", re.DOTALL)
    sections = {match[1]: match[2] for match in pattern.finditer(whole)} | {name: text.strip()}
    parts = [f"<!-- begin {key} -->\n{sections[key]}\n<!-- end {key} -->" for key in sorted(sections)]
    missed = (RESULTS.parent / "missed_bars.md").read_text(encoding="utf-8")  # written by hand, kept by every run
    RESULTS.write_text("\n".join((HEAD, missed, "\n\n".join(parts), "")), encoding="utf-8")
    return RESULTS


def chart(name: str, title: str, values: Mapping[str, float], *, unit: str, ours: str = "procession") -> Path:
    """A horizontal bar chart; peers whose name begins with `ours` are coloured."""
    left, width, row = 200, 420, 24
    height = 46 + row * len(values)
    top = max(values.values(), default=0.0) or 1.0
    shown = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}">',
        "<style>text { font: 12px sans-serif } .title { font: bold 14px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="22" class="title">{escape(title)} ({escape(unit)})</text>',
    ]
    for index, (label, value) in enumerate(values.items()):
        y, length = 36 + row * index, max(1.0, width * value / top)
        colour = "#2563eb" if label.startswith(ours) else "#9ca3af"
        shown += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{row - 8}" fill="{colour}"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">{number(value)}</text>',
        ]
    return _plot(name, shown)


def lines(
    name: str,
    title: str,
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x: str,
    y: str,
    ours: str = "procession",
) -> Path:
    """A chart of lines over two logarithmic axes, each line with its name at its end; `ours` is coloured."""
    left, top, width, height, right = 70, 46, 420, 260, 230
    points = [point for line in series.values() for point in line]
    x_low, x_high = (log10(bound) for bound in (min(a for a, _ in points), max(a for a, _ in points)))
    y_low, y_high = floor(log10(min(b for _, b in points))), ceil(log10(max(b for _, b in points)))

    def at(a: float, b: float) -> tuple[float, float]:
        across = (log10(a) - x_low) / ((x_high - x_low) or 1.0)
        return left + width * across, top + height * (1 - (log10(b) - y_low) / ((y_high - y_low) or 1))

    shown = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + right}" height="{top + height + 50}">',
        "<style>text { font: 12px sans-serif } .title { font: bold 14px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="22" class="title">{escape(title)} ({escape(y)})</text>',
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">{escape(x)}</text>',
    ]
    for value in (10.0**power for power in range(y_low, y_high + 1)):
        _, height_of = at(10**x_low, value)
        shown.append(f'<path d="M{left} {height_of:.1f}h{width}" stroke="#e5e7eb"/>')
        shown.append(f'<text x="{left - 8}" y="{height_of + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in (10.0**power for power in range(ceil(x_low), floor(x_high) + 1)):
        column, _ = at(value, 10**y_low)
        shown.append(f'<path d="M{column:.1f} {top}v{height}" stroke="#e5e7eb"/>')
        shown.append(f'<text x="{column:.1f}" y="{top + height + 18}" text-anchor="middle">{value:,.0f}</text>')
    lowest = float("inf")  # where the last name stands: the others stay clear of it
    for label, line in sorted(series.items(), key=lambda item: item[1][-1][1] if item[1] else 0.0):
        if not line:
            continue
        places = [at(*point) for point in line]
        colour = "#2563eb" if label.startswith(ours) else "#9ca3af"
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        lowest = min(places[-1][1] + 4, lowest - 15)
        shown.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shown += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
        shown.append(f'<text x="{places[-1][0] + 8:.1f}" y="{lowest:.1f}" fill="{colour}">{escape(label)}</text>')
    return _plot(name, shown)


def _plot(name: str, shown: Iterable[str]) -> Path:
    PLOTS.mkdir(exist_ok=True)
    path = PLOTS / f"{name}.svg"
    path.write_text("\n".join([*shown, "</svg>"]) + "\n", encoding="utf-8")
    return path


def say(text: str) -> None:
    """Print, at once."""
    print(text, flush=True)
    sys.stdout.flush()
