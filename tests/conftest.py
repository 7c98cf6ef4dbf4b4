"""The rig of every test: which loops it runs on, a warm library, and a cheap garbage collection.

The leak audit itself is our own pytest plugin (`procession.testing.plugin`), switched on in pyproject.toml.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
import uvloop

TESTS = Path(__file__).parent
PROGRAMS = TESTS / "programs"

# Folders whose tests start real processes: each async test runs on both loops.
BOTH_LOOPS = (
    "process",
    "contract",
    "chaos",
    "cancel",
    "registry",
    "linux",
    "launch",
    "scheduler",
    "recovery",
    "monitor",
)

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
    both = folder in BOTH_LOOPS or item.get_closest_marker("both_loops") is not None
    if both and item.get_closest_marker("one_loop") is None:
        return LOOPS
    return {"asyncio": LOOPS["asyncio"]}


def pytest_report_header() -> str:
    return f"loops: asyncio, uvloop {version('uvloop')} in tests/{{{','.join(BOTH_LOOPS)}}}"


@pytest.fixture(scope="session", autouse=True)
def _warm_library() -> Iterator[None]:
    """Start what the library keeps for the life of the program, before the first audit takes its snapshot."""
    os.environ.pop("PYTHONASYNCIODEBUG", None)

    async def first() -> None:
        try:
            from procession import Command, run
        except ImportError:  # while the house is being built
            return
        await run(Command("true"))

    for new_loop in LOOPS.values():  # the first uvloop also opens libuv's own pipe, for good
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(first())
    gc.collect()
    gc.freeze()  # what was imported so far is never garbage: the collection after each test stays cheap
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def programs() -> Path:
    """The folder of the child programs that the tests run."""
    return PROGRAMS
