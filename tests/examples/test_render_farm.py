"""The farm on a folder of its own: what it prints, and what its chart shows."""

from __future__ import annotations

import os
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from procession import Command, run
from tests.helpers.repository import ROOT

RENDER_FARM = ROOT / "examples" / "render_farm.py"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(120):
        path = tmp_path / "tree" / f"folder {number % 7}" / f"a file, {number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(2_000) + b"text that can be packed\n" * 400)
    return tmp_path / "tree"


async def test_every_file_is_handled_once_and_the_chart_shows_all_of_it(folder: Path, tmp_path: Path) -> None:
    env = {"PYTHONWARNINGS": "error", "PROCESSION_EXAMPLE_QUICK": "1", "TMPDIR": str(tmp_path)}
    done = await run(Command(sys.executable, RENDER_FARM, folder, "--out", tmp_path / "out", env=env), timeout=50)
    assert done.returncode == 0, done.text[-4000:] + done.error_text
    assert "every file was handled once, nothing was left behind" in done.text
    assert "film waits as number 1 in the queue, lacking" in done.text
    assert "reel is suspended and waits to go on" in done.text
    assert "preview: not started, its deadline passed" in done.text
    chart = ET.parse(tmp_path / "out" / "render_farm.svg").getroot()
    told = dict((title.text or "").split(": ", 1) for title in chart.iter(f"{SVG}title"))
    assert len(told) == 2 * 120 + 5
    assert {what.partition(",")[0] for id, what in told.items() if id != "preview"} == {"succeeded"}
    assert told["preview"].startswith("missed")
    assert len(chart.findall(f".//{SVG}rect[@class='pause']")) == 1
    assert "http" not in (tmp_path / "out" / "render_farm.svg").read_text().replace(SVG.strip("{}"), "")


async def test_a_folder_with_hardly_anything_is_told(tmp_path: Path) -> None:
    done = await run(Command(sys.executable, RENDER_FARM, tmp_path, env={"TMPDIR": str(tmp_path)}))
    assert done.returncode == 2
    assert "a hundred are needed" in done.error_text
