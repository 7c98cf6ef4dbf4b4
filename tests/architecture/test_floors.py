from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.helpers.repository import ROOT, SOURCE

LIMIT, WISH = 600, 400


def test_imports_keep_to_their_floors() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([lint, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_contract_is_there() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    kinds = [contract["type"] for contract in contracts]
    assert kinds.count("layers") == 1
    assert kinds.count("forbidden") == 3
    assert "acyclic_siblings" in kinds


def test_no_file_is_too_long() -> None:
    lengths = {path.relative_to(ROOT): path.read_text(encoding="utf-8").count("\n") for path in SOURCE.rglob("*.py")}
    large = {str(path): lines for path, lines in lengths.items() if lines > WISH}
    if large:
        print("over", WISH, "lines, wants to be two:", large)
    assert not {path: lines for path, lines in large.items() if lines > LIMIT}


def test_importing_the_library_brings_only_what_it_needs() -> None:
    program = (
        "import sys, procession\n"
        "unwanted = {'pytest', 'uvloop', 'rich', 'hypothesis', 'anyio', 'trio', 'procession.testing'}\n"
        "print(*sorted(unwanted & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_importing_the_library_starts_nothing() -> None:
    program = "import os, threading, procession; print(threading.active_count(), len(os.listdir('/proc/self/task')))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]
