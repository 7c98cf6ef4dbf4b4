"""What a run says: the machine, markdown tables, bar charts as SVG, and its own section of RESULTS.md."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
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
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{height}">',
        "<style>text { font: 12px sans-serif } .title { font: bold 14px sans-serif }</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="10" y="22" class="title">{escape(title)} ({escape(unit)})</text>',
    ]
    for index, (label, value) in enumerate(values.items()):
        y, length = 36 + row * index, max(1.0, width * value / top)
        colour = "#2563eb" if label.startswith(ours) else "#9ca3af"
        lines += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{left}" y="{y + 2}" width="{length:.1f}" height="{row - 8}" fill="{colour}"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 14}">{number(value)}</text>',
        ]
    PLOTS.mkdir(exist_ok=True)
    path = PLOTS / f"{name}.svg"
    path.write_text("\n".join([*lines, "</svg>"]) + "\n", encoding="utf-8")
    return path


def say(text: str) -> None:
    """Print, at once."""
    print(text, flush=True)
    sys.stdout.flush()
