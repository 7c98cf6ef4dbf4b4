"""The hunt for the leak: what it prints, and what its chart shows."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from procession import Command, run
from tests.helpers.repository import ROOT

LEAK_HUNT = ROOT / "examples" / "leak_hunt.py"
SVG = "{http://www.w3.org/2000/svg}"

pytestmark = [pytest.mark.row("MO6"), pytest.mark.row("MO7")]


@pytest.mark.timeout(150)
async def test_the_leak_is_found_kept_restarted_and_drawn(tmp_path: Path) -> None:
    env = {"PYTHONWARNINGS": "error", "PROCESSION_EXAMPLE_QUICK": "1", "TMPDIR": str(tmp_path)}
    out = tmp_path / "out"
    done = await run(Command(sys.executable, LEAK_HUNT, "--out", out, env=env), timeout=130)
    assert done.returncode == 0, done.text[-4000:] + done.error_text
    assert "restarting leaky: warning alert memory_leak: memory grows by" in done.text
    assert "restarting cache" not in done.text
    assert "the leak was found and dealt with, nothing was left behind" in done.text
    chart = ET.parse(out / "leak_hunt.svg").getroot()
    lines = [str(line.get("class")) for line in chart.iter(f"{SVG}polyline")]
    assert sorted(lines) == ["cache", "leaky", "leaky", "tidy"]  # the leaking one has lived twice
    (mark,) = [path for path in chart.iter(f"{SVG}path") if path.get("class") == "alert"]
    assert [title.text for title in mark.iter(f"{SVG}title")] == ["alert: leaky leaks"]
    snapshot, text = sorted((out / "snapshots").iterdir())
    told = json.loads(snapshot.read_text())
    assert told["environment"]["API_TOKEN"] == "***"
    assert told["maps"]["rss_mb"] > 15
    assert "memory maps" in text.read_text()


async def test_a_folder_with_hardly_anything_is_told(tmp_path: Path) -> None:
    done = await run(Command(sys.executable, LEAK_HUNT, tmp_path, "--out", tmp_path, env={"TMPDIR": str(tmp_path)}))
    assert done.returncode == 2
    assert "ten are needed" in done.error_text
