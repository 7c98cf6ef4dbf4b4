"""What the tests of the repository itself share: its root and the files that belong to it."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "procession"


@cache
def files() -> tuple[Path, ...]:
    """Every file that is, or would be, under version control."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked source distribution
        found = [path for path in ROOT.rglob("*") if not any(part.startswith(".venv") for part in path.parts)]
    return tuple(sorted(path for path in found if path.is_file()))


def module_name(path: Path) -> str:
    """The dotted name of a file below `src`."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_modules() -> list[str]:
    """Modules of the package without an underscore in their dotted name."""
    names = [module_name(path) for path in sorted(SOURCE.rglob("*.py"))]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]
