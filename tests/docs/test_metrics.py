"""The table of metrics in the documentation is the one that the code makes."""

from __future__ import annotations

import importlib.util

from tests.helpers.repository import ROOT


def test_the_table_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("metrics_tool", ROOT / "tools" / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert tool.with_table(page) == page, "run: python tools/metrics.py"
    assert "`procession_process_cpu_seconds_total`" in page
