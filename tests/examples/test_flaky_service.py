"""The flaky service: what is printed, and what the chart shows."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

from procession import Command, run
from tests.helpers.repository import ROOT

FLAKY_SERVICE = ROOT / "examples" / "flaky_service.py"
SVG = "{http://www.w3.org/2000/svg}"


async def test_it_is_brought_through_crash_hang_and_overload_and_the_chart_shows_it(tmp_path: Path) -> None:
    env = {"PYTHONWARNINGS": "error", "PROCESSION_EXAMPLE_QUICK": "1", "TMPDIR": str(tmp_path)}
    done = await run(Command(sys.executable, FLAKY_SERVICE, "--out", tmp_path / "out", env=env), timeout=50)
    assert done.returncode == 0, done.text[-4000:] + done.error_text
    assert "crash: up again by restart after 3 attempts" in done.text
    assert "timeout: up again by replace" in done.text
    assert "resource_exhaustion: up again by scale_up" in done.text
    assert "% of the time" in done.text
    assert "brought through all of it, nothing was left behind" in done.text
    text = (tmp_path / "out" / "flaky_service.svg").read_text()
    chart = ET.fromstring(text)
    titles = [title.text or "" for title in chart.iter(f"{SVG}title")]
    for state in ("closed", "open", "half_open"):
        assert any(title.startswith(f"breaker {state}, ") for title in titles)
    assert sum(title.startswith("service down, ") for title in titles) >= 3
    assert {title.split()[1] for title in titles if title[0].isdigit()} == {"answered", "failed", "refused"}
    assert "http" not in text.replace(SVG.strip("{}"), "")
