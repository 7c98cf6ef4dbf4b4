"""Every ```python block of the README and the docs runs; the blocks of a page share one namespace, from top to bottom.

Functions named ``test_…`` are called at the end, outside of any loop. A block whose first line is a comment with the name of a
file, ``# shapes.py``, is not run but written to the folder the page runs in, as a module that its other blocks, and
their worker processes, can import.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.helpers.repository import ROOT

FILE = re.compile(r"# ([a-z]+)\.py\n")
FENCE = re.compile(r"^( *)```python[^\n]*\n(.*?)^\1```", flags=re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> Iterator[tuple[int, str]]:
    """The line each block begins at, and its code."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        indent = len(match[1])
        code = "\n".join(line[indent:] for line in match[2].splitlines())
        yield text.count("\n", 0, match.start(2)), code


PAGES = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in page.parts and list(blocks(page))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.timeout(120)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = ModuleType("documented_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    with asyncio.Runner() as runner:
        for line, source in blocks(page):
            if file_name := FILE.match(source):
                tmp_path.joinpath(f"{file_name[1]}.py").write_text(source)
                continue
            code = compile("\n" * line + source, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, vars(module))
            if inspect.iscoroutine(result):
                runner.run(result)
        assert asyncio.all_tasks(runner.get_loop()) == set()
    for name, test in list(vars(module).items()):
        if name.startswith("test_"):
            test()
    for file in tmp_path.glob("*.py"):
        if file.stem not in before:
            sys.modules.pop(file.stem, None)


def test_blocks_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# x\n\n```python\na = 1\n```\n\n- item\n\n  ```python\n  if a:\n      b = 2\n  ```\n\n```bash\nls\n```\n"
    )
    assert list(blocks(page)) == [(3, "a = 1"), (9, "if a:\n    b = 2")]
