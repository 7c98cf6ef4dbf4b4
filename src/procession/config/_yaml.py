"""YAML with places, read by PyYAML's safe loader (extra ``config``)."""

from __future__ import annotations

from typing import Any

from procession.config._positions import Mark, Path, Positions
from procession.config._problems import SyntaxProblem


def parse(text: str) -> tuple[Any, Positions]:
    """Reads a document.

    Raises:
        SyntaxProblem: it is no YAML, names a key twice, or PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        raise SyntaxProblem("reading YAML needs PyYAML: pip install 'procession[config]'", 1, 1) from None
    positions = Positions(text)
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, positions
        _note(node, (), positions, yaml)
        return loader.construct_document(node), positions
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        raise SyntaxProblem(error.problem or "it is no YAML", line, column) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SyntaxProblem(str(error).splitlines()[0], 1, 1) from None


def _note(node: Any, path: Path, positions: Positions, yaml: Any) -> None:
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            positions.marks.setdefault((*path, index), _mark(child))
            _note(child, (*path, index), positions, yaml)
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, child in node.value:
            name = str(key.value)
            if name in seen:
                place = _mark(key)
                raise SyntaxProblem(f"{name!r} is named twice", place.line, place.column)
            if name != "<<":
                seen.add(name)
            positions.marks.setdefault((*path, name), _mark(key))
            _note(child, (*path, name), positions, yaml)


def _mark(node: Any) -> Mark:
    return Mark(node.start_mark.line + 1, node.start_mark.column + 1)
