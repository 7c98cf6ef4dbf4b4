"""The errors of pools carry their data through pickling, and are what code for the standard library expects."""

import pickle

import pytest

from procession import Exit
from procession.errors import Closed, ExecutionTimeout, PoolError, StateError
from procession.pool import (
    AcquireTimeout,
    BrokenStart,
    BrokenWorker,
    CallTimeout,
    LeaseError,
    MessageTooLarge,
    NotPicklable,
    PoisonedTask,
    PoolClosed,
    PoolExhausted,
    RemoteError,
    RemoteTraceback,
    WorkerLoss,
    WorkerLost,
    WorkerStartError,
    suggest_size,
    worker_state,
)
from procession.pool._loss import guess

LOST = WorkerLost("p1", Exit(-9), WorkerLoss.KILLED, "running", "a\nb")
ERRORS = [
    PoolClosed("pool"),
    PoolExhausted("pool", 3),
    AcquireTimeout("pool", 1.5, "waiting"),
    CallTimeout("f", 1.5, "running"),
    LOST,
    BrokenWorker("p1", Exit(-9), WorkerLoss.KILLED, "running", "a\nb"),
    WorkerStartError("pool", "why", Exit(3), "tail"),
    BrokenStart("pool", "why", Exit(3), "tail"),
    PoisonedTask("f", [LOST]),
    LeaseError("p1", "given back"),
    NotPicklable("result", "function", "why"),
    MessageTooLarge("result", 5000, 1000),
    RemoteError("ValueError", "text", "trace"),
    RemoteTraceback("trace"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling_with_its_data(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error) != ""
    assert isinstance(error, PoolError)
    for name in type(error)._fields:
        assert repr(getattr(again, name)) == repr(getattr(error, name))


def test_errors_are_what_they_stand_for():
    assert issubclass(AcquireTimeout, TimeoutError)
    assert issubclass(CallTimeout, ExecutionTimeout)
    assert issubclass(PoolClosed, Closed)
    assert issubclass(LeaseError, StateError)
    assert issubclass(NotPicklable, pickle.PicklingError)
    assert "5,000 bytes" in str(MessageTooLarge("result", 5000, 1000))
    assert "| b" in str(LOST)


@pytest.mark.row("PO6")
@pytest.mark.parametrize(
    ("exit", "kills", "cause"),
    [
        (None, 0, WorkerLoss.UNKNOWN),
        (Exit(None), 0, WorkerLoss.UNKNOWN),
        (Exit(3), 0, WorkerLoss.EXITED),
        (Exit(-9), 0, WorkerLoss.KILLED),
        (Exit(-9), 1, WorkerLoss.OUT_OF_MEMORY),
        (Exit(-15), 1, WorkerLoss.KILLED),
        (Exit(-11), 0, WorkerLoss.CRASHED),
        (Exit(-6), 1, WorkerLoss.CRASHED),
    ],
)
def test_the_cause_is_guessed(exit, kills, cause):
    assert guess(exit, oom_kills=kills) is cause


@pytest.mark.row("PO10")
def test_a_size_is_suggested():
    one = suggest_size("cpu")
    assert one >= 1
    assert suggest_size("mixed") == 2 * one
    assert suggest_size("io") == 5 * one
    assert suggest_size(wait_ratio=9) == 10 * one
    with pytest.raises(ValueError, match="kind"):
        suggest_size("gpu")  # type: ignore[arg-type]
    for ratio in (-1, float("nan"), True):
        with pytest.raises(ValueError, match="wait_ratio"):
            suggest_size(wait_ratio=ratio)


def test_only_workers_have_a_state():
    with pytest.raises(StateError):
        worker_state()
