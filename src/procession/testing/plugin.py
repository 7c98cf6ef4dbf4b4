"""The pytest plugin: installed with procession, it adds fixtures and changes nothing until asked.

- the fixture ``leak_audit`` fails a test that leaves something behind;
- the option ``procession_leak_audit = true`` does so for every test;
- the marker ``allow_leaks("thread", "file")`` names what one test leaves behind on purpose.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from procession.testing.audit import LeakAudit

# Without pytest-asyncio the tasks of the loop are not looked at.
HAS_PYTEST_ASYNCIO = importlib.util.find_spec("pytest_asyncio") is not None

__all__ = ["leak_audit"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addini("procession_leak_audit", "run procession's leak audit after every test", type="bool", default=False)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "allow_leaks(*kinds): kinds of leak that this test makes on purpose")


@pytest.fixture(scope="session")
def _procession_tempdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("t", numbered=False)


@pytest.fixture
def leak_audit(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _procession_tempdir: Path
) -> Iterator[LeakAudit]:
    """Fail the test when it leaves a process, descriptor, thread, task, file or unseen error behind.

    Temporary files go to a folder of their own during the test, which must be empty at its end; what a test puts into
    ``tmp_path`` is its own affair.

    Yields:
        The running audit; ``leak_audit.allow("thread")`` excuses what is left on purpose.
    """
    from procession.testing.audit import LeakAudit

    monkeypatch.setattr(tempfile, "tempdir", str(_procession_tempdir))
    monkeypatch.setenv("TMPDIR", str(_procession_tempdir))
    audit = LeakAudit.start(tempdir=_procession_tempdir)
    for mark in request.node.iter_markers("allow_leaks"):
        audit.allow(*mark.args)
    yield audit
    leaks = audit.finish()
    audit.clear_files()
    if leaks:
        lines = "\n".join(f"  - {leak}" for leak in leaks)
        pytest.fail(f"{request.node.nodeid} left behind:\n{lines}", pytrace=False)


@pytest.fixture(autouse=True)
def _procession_leak_audit(request: pytest.FixtureRequest) -> None:
    """Bring the audit to every test when the project asks for it; first set up, so last torn down."""
    if request.config.getini("procession_leak_audit") or "leak_audit" in request.fixturenames:
        request.getfixturevalue("leak_audit")
        if _runs_on_pytest_asyncio(request):
            request.getfixturevalue("_procession_loop_audit")


def _runs_on_pytest_asyncio(request: pytest.FixtureRequest) -> bool:
    return HAS_PYTEST_ASYNCIO and request.node.get_closest_marker("asyncio") is not None


if HAS_PYTEST_ASYNCIO:
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def _procession_loop_audit(leak_audit: Any) -> AsyncIterator[None]:
        """Watch the loop of the test: its exception handler and, when all other fixtures are gone, its tasks."""
        import asyncio

        leak_audit.watch_loop(asyncio.get_running_loop())
        yield
        await leak_audit.settle_tasks()
