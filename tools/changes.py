"""Check the change notes: each file in `changes/` is `<name>.<type>.md` with one or more plain sentences.

Towncrier turns them into CHANGELOG.md (`make changelog VERSION=x.y.z`); this check says early what it would trip over.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def problems() -> list[str]:
    """All that is wrong, as lines for the reader."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]
    types = [entry["directory"] for entry in config["type"]]
    name = re.compile(rf"(\+[a-z0-9-]+|\d+)\.({'|'.join(types)})(\.\d+)?\.md")
    found: list[str] = []
    for path in sorted((ROOT / config["directory"]).iterdir()):
        if path.name == "README.md":
            continue
        if not name.fullmatch(path.name):
            found.append(f"{path.name}: not <issue or +name>.<{'|'.join(types)}>.md")
            continue
        text = path.read_text(encoding="utf-8").strip()
        if not text:
            found.append(f"{path.name}: empty")
        elif text.startswith(("#", "-", "*")):
            found.append(f"{path.name}: begin with a sentence; towncrier makes the list")
        elif not text.endswith((".", "`", "```")):
            found.append(f"{path.name}: end the sentence with a full stop")
    if config["start_string"].strip() not in (ROOT / config["filename"]).read_text(encoding="utf-8"):
        found.append(f"{config['filename']}: the line {config['start_string'].strip()!r} is gone")
    return found


def main() -> int:
    """Print what is wrong; when nothing is, let towncrier render a draft as the last proof."""
    found = problems()
    for line in found:
        print(line, file=sys.stderr)
    if found:
        return 1
    draft = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "next"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if draft.returncode:
        print(draft.stdout + draft.stderr, file=sys.stderr)
    return draft.returncode


if __name__ == "__main__":
    sys.exit(main())
