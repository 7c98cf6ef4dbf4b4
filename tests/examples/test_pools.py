"""The examples of the pools: what they print, and what the contact sheet is."""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import pytest

from procession import Command, run
from tests.helpers.repository import ROOT

THUMBNAILS = ROOT / "examples" / "thumbnails.py"
LEASED_ENGINE = ROOT / "examples" / "leased_engine.py"
QUICK = {"PYTHONWARNINGS": "error", "PROCESSION_EXAMPLE_QUICK": "1"}


async def test_every_file_is_painted_though_a_worker_is_killed_and_another_hangs(tmp_path: Path) -> None:
    for number in range(44):
        text = f'"""Module {number}."""\n' + "".join(f"x{n} = {n}  # a line, äöü\n" for n in range(100 + 30 * number))
        (tmp_path / f"module_{number}.py").write_text(text, encoding="utf-8")
    env = {**QUICK, "TMPDIR": str(tmp_path)}
    done = await run(Command(sys.executable, THUMBNAILS, tmp_path, "--out", tmp_path / "out", env=env), timeout=50)
    assert done.returncode == 0, done.text[-4000:] + done.error_text
    assert "22 painted; worker " in done.text
    assert "paint did not return within 1 s (phase: running)" in done.text
    assert "every file has its thumbnail, nothing was left behind" in done.text
    data = (tmp_path / "out" / "contact_sheet.png").read_bytes()
    assert struct.unpack_from(">II", data, 16) == (7 * 48, 7 * 48)  # 44 thumbnails, seven in a row


async def test_a_folder_with_hardly_anything_is_told(tmp_path: Path) -> None:
    done = await run(Command(sys.executable, THUMBNAILS, tmp_path, env={"TMPDIR": str(tmp_path)}))
    assert done.returncode == 2
    assert "forty are needed" in done.error_text


@pytest.mark.parametrize("with_bc", [True, False])
async def test_every_answer_is_right_with_either_program(with_bc: bool, tmp_path: Path) -> None:
    path = os.environ["PATH"]
    if not with_bc:
        (tmp_path / "true").symlink_to("/bin/true")
        path = str(tmp_path)
    done = await run(Command(sys.executable, LEASED_ENGINE, env={**QUICK, "PATH": path}), timeout=50)
    assert done.returncode == 0, done.text[-4000:] + done.error_text
    assert "no worker within 0.05 s (phase: waiting)" in done.text
    assert "was stopped" in done.text
    assert "killed (SIGKILL) while leased" in done.text
    assert "every answer was right, nothing was left behind" in done.text
