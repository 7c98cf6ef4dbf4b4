"""Write the table of metrics into the documentation: `python tools/metrics.py`. A test says when that is due."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from procession.exporters import metric_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
PLACE = re.compile(r"(<!-- begin metrics -->\n).*?(\n<!-- end metrics -->)", re.DOTALL)


def with_table(text: str) -> str:
    """The page with the table as it is now."""
    return PLACE.sub(lambda match: match[1] + metric_table() + match[2], text)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE}")
    sys.exit()
