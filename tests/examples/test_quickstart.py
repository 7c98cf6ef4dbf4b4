"""The demo on a folder of its own, without a terminal and on one."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from procession import Command, run
from tests.helpers.repository import ROOT

QUICKSTART = ROOT / "examples" / "quickstart.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("alpha", "beta with a blank", "__pycache__"):
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "file").write_bytes(os.urandom(10_000))
    return tmp_path / "tree"


@pytest.mark.parametrize("terminal", [False, True], ids=["plain", "terminal"])
async def test_everything_is_accounted_for(folder: Path, tmp_path: Path, terminal: bool) -> None:
    env = {"TERM": "xterm" if terminal else "dumb", "PYTHONWARNINGS": "error", "PROCESSION_EXAMPLE_QUICK": "1"}
    command = Command(
        sys.executable, QUICKSTART, folder, "--out", tmp_path / "out", env=env, pty=terminal, pty_size=(40, 120)
    )
    done = await run(command, timeout=50)
    assert done.returncode == 0, done.text[-4000:] + done.error_text
    assert "nothing was left behind" in done.text
    assert "11 processes spawned = 11 exited" in done.text
    assert ("alive, our memory" in done.text) == terminal
    page = (tmp_path / "out" / "timeline.html").read_text()
    assert page.count('<g class="bar ') == 11
    trace = json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]
    ends = {event["name"]: event["cat"] for event in trace if event["ph"] == "X"}
    assert ends["ignores-term"] == "forced"
    assert ends["floods"] == ends["escapes"] == "stopped"
    assert ends["is-killed"] == "killed"
    assert ends["tar"] == ends["gzip"] == ends["sha256sum"] == ends["assassin"] == "success"


async def test_a_folder_without_packages_is_told(tmp_path: Path) -> None:
    done = await run(Command(sys.executable, QUICKSTART, tmp_path))
    assert done.returncode == 2
    assert "no folders" in done.error_text
