"""Errors of real processes carry the command, what happened, and survive pickling."""

import pickle
from typing import Any

import pytest

from procession import (
    Command,
    ExecutionTimeout,
    ExitError,
    ProcessionError,
    SignaledError,
    SpawnError,
    StreamClosed,
    run,
    spawn,
)
from tests.programs import sh

pytestmark = pytest.mark.row("PR9")


async def closed_stream(command):
    async with spawn(command) as process:
        await process.wait()
        await process.communicator().send_line("x")


@pytest.mark.parametrize(
    ("kind", "act"),
    [
        (SpawnError, lambda: run(Command("no-such-program-anywhere"))),
        (ExitError, lambda: run(sh("echo no >&2; exit 3"), check=True)),
        (SignaledError, lambda: run(sh("kill -TERM $$"), check=True)),
        (ExecutionTimeout, lambda: run(Command("sleep", "1000"), timeout=0.05)),
        (StreamClosed, lambda: closed_stream(sh("exit 3", stdin="pipe"))),
    ],
    ids=lambda value: getattr(value, "__name__", "")[:20],
)
async def test_an_error_carries_its_command_and_survives_pickling(kind, act):
    with pytest.raises(kind) as caught:
        await act()
    error: Any = caught.value
    assert issubclass(kind, ProcessionError)
    assert isinstance(error.command, Command)
    again: Any = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.command == error.command
    for name in error._fields:
        assert getattr(again, name) == getattr(error, name)
