"""The public surface: every name can be imported, is documented, and says what cancelling it does."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import procession
from tests.helpers.repository import public_modules

MODULES = public_modules()


def exported(module: ModuleType) -> dict[str, Any]:
    """The names of `__all__`; else, for a facade (a package), all of ours in it; else those defined there."""
    names = getattr(module, "__all__", None)
    if names is not None:
        return {name: getattr(module, name) for name in names}
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and _is_of(value, module)}


def _is_of(value: Any, module: ModuleType) -> bool:
    home = getattr(value, "__module__", None)
    if hasattr(module, "__path__"):
        return isinstance(home, str) and home.startswith("procession")
    return home == module.__name__


def functions_of(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A function itself, or the public methods and properties a class of ours defines."""
    if inspect.isfunction(value):
        yield name, value
    elif inspect.isclass(value) and value.__module__.startswith("procession"):
        for attribute, member in vars(value).items():
            function = bare(member)
            if function is not None and not attribute.startswith("_"):
                yield f"{name}.{attribute}", function


def bare(member: Any) -> Any:
    """The function behind a method, a property or a decorator; None for anything else."""
    member = getattr(member, "__func__", member)
    member = member.fget if isinstance(member, property) else member
    return member if inspect.isroutine(member) and inspect.isfunction(inspect.unwrap(member)) else None


def has_doc(value: Any) -> bool:
    text = inspect.cleandoc(value.__doc__ or "")
    # A dataclass without a docstring gets its signature for one.
    return bool(text) and not text.startswith(f"{getattr(value, '__name__', '')}(")


@pytest.mark.parametrize("name", MODULES)
def test_module_and_its_public_names_are_documented(name: str) -> None:
    module = importlib.import_module(name)
    silent = [] if module.__doc__ else [name]
    for exported_name, value in exported(module).items():
        if (inspect.isclass(value) or inspect.isfunction(value)) and not has_doc(value):
            silent.append(f"{name}.{exported_name}")
        silent += [f"{name}.{method}" for method, code in functions_of(exported_name, value) if not has_doc(code)]
    assert silent == []


@pytest.mark.parametrize("name", MODULES)
def test_public_coroutines_say_what_cancelling_does(name: str) -> None:
    module = importlib.import_module(name)
    silent = []
    for exported_name, value in exported(module).items():
        for path, code in functions_of(exported_name, value):
            inner = inspect.unwrap(code)
            asynchronous = inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)
            if asynchronous and "Cancellation:" not in (inner.__doc__ or ""):
                silent.append(f"{name}.{path}")
    assert silent == []


def test_facade_names_exist_once_and_come_from_public_modules() -> None:
    names = list(getattr(procession, "__all__", []))
    assert len(names) == len(set(names))
    assert [name for name in names if not hasattr(procession, name)] == []
    assert [name for name in names if name.startswith("_") and name != "__version__"] == []


def test_the_facade_tells_type_checkers_what_it_imports_on_first_use() -> None:
    tree = ast.parse(Path(procession.__file__).read_text(encoding="utf-8"))
    told = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {(module, name) for module, names in procession._HOMES.items() for name in names}
    for module, name in told:
        assert getattr(procession, name) is getattr(importlib.import_module(str(module)), name)
    with pytest.raises(AttributeError, match="no_such_name"):
        procession.no_such_name  # noqa: B018


def test_the_facade_alone_imports_nothing_of_the_library() -> None:
    program = "import sys, procession; print(*(m for m in sys.modules if m.startswith(('procession.', 'pydantic'))))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_facade_leaks_no_private_helpers() -> None:
    ours = exported(procession)
    stray = [
        name
        for name, value in vars(procession).items()
        if not name.startswith("_") and name not in ours and not isinstance(value, (ModuleType, str))
    ]
    assert stray == []
    assert len(ours) > 40
