"""Every example runs to its end, in a small mode, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.repository import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.timeout(180)
def test_example(example: Path, tmp_path: Path) -> None:
    env = {
        **os.environ,
        "PROCESSION_EXAMPLE_QUICK": "1",
        "TMPDIR": str(tmp_path),
        "TERM": "dumb",
        "PYTHONWARNINGS": "error",
    }
    done = subprocess.run(
        [sys.executable, example],
        cwd=tmp_path,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout[-8000:]
