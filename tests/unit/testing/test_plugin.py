"""The plugin as a user's project sees it: a pytest of its own, over a file with leaks."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

LEAKY = """
import asyncio, os, tempfile, threading
import pytest

def test_clean(): pass

def test_fd(): os.pipe()

def test_file(): tempfile.mkstemp()

@pytest.mark.allow_leaks("fd", "file")
def test_excused(): tempfile.mkstemp()

@pytest.mark.asyncio
async def test_task():
    global task
    task = asyncio.ensure_future(asyncio.sleep(60))

@pytest.mark.asyncio
async def test_async_clean(): await asyncio.sleep(0)
"""


@pytest.fixture(autouse=True)
def _own_tempdir(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(pytester.path))  # what leaks in there is the inner run's affair


def inner(pytester: pytest.Pytester, *options: str, ini: str = "") -> pytest.RunResult:
    pytester.makeini(f"[pytest]\nasyncio_default_fixture_loop_scope = function\n{ini}")
    return pytester.runpytest_subprocess("-p", "no:randomly", *options)


def test_off_by_default(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LEAKY)
    inner(pytester).assert_outcomes(passed=6)


def test_option_audits_every_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(LEAKY)
    result = inner(pytester, ini="procession_leak_audit = true")
    result.assert_outcomes(passed=6, errors=3)
    result.stdout.fnmatch_lines_random(
        [
            "*test_fd left behind:*",
            "*- fd *: pipe:*",
            "*test_file left behind:*",
            "*test_task left behind:*",
            "*- task *",
        ]
    )


def test_fixture_audits_the_test_that_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        def test_asks(leak_audit): os.pipe()
        def test_does_not(): os.pipe()
        def test_excuses(leak_audit):
            leak_audit.allow("fd")
            os.pipe()
        """
    )
    inner(pytester).assert_outcomes(passed=3, errors=1)
