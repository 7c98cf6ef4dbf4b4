"""The repository: what a reader expects is there, and nothing of anybody's machine is."""

from __future__ import annotations

import os
import re
import tomllib

import pytest

from tests.helpers.repository import ROOT, files

EXPECTED = (
    ".ci/run",
    ".editorconfig",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "changes/README.md",
    "docs/design.md",
    "docs/features.md",
    "docs/index.md",
    "pyproject.toml",
    "src/procession/py.typed",
)

# Put together here, so that this file does not find itself.
MACHINE = re.compile(r"(?<![\w.~\-])/(?:" + "|".join(["ro" + "ot", "wo" + "rk", "ho" + "me"]) + r")/")
REGISTRY = re.compile(
    "|".join(["index" + "-url", "find" + "-links", "/opt/" + "pypi", "/opt/" + "wheels", r"file:///" + "opt"])
)


@pytest.mark.parametrize("name", EXPECTED)
def test_expected_file_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_ci_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_text_names_a_machine() -> None:
    found = []
    for path in files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE.search(line) or REGISTRY.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert found == []


def test_readme_shows_the_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text


def test_features_table_has_every_row_once() -> None:
    text = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]{2}\d+) \|", text, flags=re.MULTILINE)
    assert len(rows) == len(set(rows))
    wanted = {"PR": 13, "RG": 7, "SC": 11, "PO": 11, "RE": 8, "MO": 9}
    assert {f"{part}{n}" for part, last in wanted.items() for n in range(1, last + 1)} | {"SY9"} <= set(rows)


def test_every_dependency_is_justified() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement)
        assert name is not None
        assert f"| {name[0]} |" in text


def test_every_module_a_user_sees_has_a_reference_page() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.md"))
    for name in ("procession", *(f"procession.{word}" for word in ("command", "events", "errors"))):
        assert f".. automodule:: {name}\n" in pages
    for name in (
        "process",
        "registry",
        "scheduler",
        "pool",
        "monitor",
        "exporters",
        "recovery",
        "testing",
    ):  # packages: they show what others define
        assert f".. automodule:: procession.{name}\n   :imported-members:\n" in pages
