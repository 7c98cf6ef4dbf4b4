"""Every error carries its data, says it in one text, and survives pickling."""

import asyncio
import errno
import pickle

import pytest

import procession.errors
from procession import Command, Completed, Exit, ExitError, FailureKind, SpawnError, SpawnFailure, StopReport
from procession._types import Containment, ProcessRef
from procession.errors import (
    AcquireTimeout,
    AlertNotFound,
    CallTimeout,
    CheckpointCorrupt,
    CheckpointError,
    CircuitOpen,
    Closed,
    ConfigError,
    ConfigFileError,
    ConfigProblem,
    DeadlineMissed,
    DependencyFailed,
    ExecutionTimeout,
    InsufficientResources,
    InvalidTransition,
    LeaseError,
    MessageTooLarge,
    MetricsUnavailable,
    MonitorError,
    NotFound,
    NotPicklable,
    PoisonedTask,
    PoolClosed,
    PoolError,
    PoolExhausted,
    ProcessError,
    ProcessionError,
    ProcessUnknown,
    QueueFull,
    RecoveryError,
    RecoveryExhausted,
    RemoteError,
    RemoteTraceback,
    SchedulerError,
    SignaledError,
    StateError,
    StreamClosed,
    SubscriptionLost,
    TaskCancelled,
    TaskTimeout,
    WebhookFailed,
    WorkerLoss,
    WorkerLost,
    WorkerStartError,
)

pytestmark = pytest.mark.row("PR9")

COMMAND = Command("tool", "--password=hunter2", env={"A": "hunter2"})
REPORT = StopReport(
    id="p1", rung=Containment.TREE, signalled=("SIGTERM",), escaped=(ProcessRef(7, 8, "x"),), exit=Exit(-15)
)
COMPLETED = Completed(command=COMMAND, id="p1", pid=7, returncode=3, stderr=b"bad", exit=Exit(3), report=REPORT)
LOST = WorkerLost("w1", Exit(-9), WorkerLoss.KILLED, "running", "bad")

ERRORS = [
    ConfigError("rlimits.nofile", -1, "0 or more"),
    ConfigFileError("stack.toml", [ConfigProblem("units.db.grace", "'long'", "a duration is needed", 3, 9)]),
    InvalidTransition("p1", "exited", "running", ["running", "exited: exit 0"]),
    Closed("registry"),
    SubscriptionLost(10),
    NotFound("p1"),
    SpawnError.of(SpawnFailure.NOT_FOUND, COMMAND, errno.ENOENT, "tool"),
    SpawnError.of(SpawnFailure.PERMISSION, COMMAND, errno.EPERM, "tool"),
    SpawnError.of(SpawnFailure.CWD_NOT_DIRECTORY, COMMAND, errno.ENOTDIR, "/x"),
    SpawnError.of(SpawnFailure.PROCESS_LIMIT, COMMAND, errno.EAGAIN),
    SpawnError.of(SpawnFailure.TIMEOUT, COMMAND),
    ExitError(3, "bad", COMMAND, COMPLETED),
    ExitError(None, "", COMMAND),
    SignaledError(9, "bad", COMMAND, COMPLETED),
    ExecutionTimeout(1.5, COMMAND, "run", COMPLETED, REPORT),
    StreamClosed("stdin", COMMAND, Exit(0)),
    StreamClosed("stdin"),
    QueueFull(10, 3),
    InsufficientResources("gpu", 2, 1),
    DeadlineMissed("task-1", 3.0, 0.5),
    DeadlineMissed("task-1", 3.0, 0.5, "admission"),
    TaskCancelled("task-1", "the scheduler was closed", COMPLETED),
    TaskTimeout("task-1", 1.5),
    DependencyFailed("task-2", "task-1", ExitError(3, "bad", COMMAND)),
    CircuitOpen(1.5, "mail", "open"),
    CircuitOpen(float("inf")),
    RecoveryExhausted("api", FailureKind.CRASH, 5, "attempts", OSError("gone")),
    RecoveryExhausted("api", FailureKind.TIMEOUT, 0, "breaker"),
    AlertNotFound("api.cpu_high.1"),
    MetricsUnavailable("api", "it has ended"),
    ProcessUnknown("api"),
    WebhookFailed("https://example.org/alerts", 503, "Service Unavailable"),
    WebhookFailed("https://example.org/alerts", 0, "no answer within 3 s"),
    CheckpointError("job", "write", "No space left on device", errno.ENOSPC, "/x"),
    CheckpointError.of("job", "sync", OSError(errno.EIO, "Input/output error", b"/x")),
    CheckpointCorrupt("job", ["2: torn"]),
    PoolClosed("functions"),
    PoolExhausted("functions", 10),
    AcquireTimeout("processes", 2.0, "starting"),
    CallTimeout("work", 1.5, "running"),
    LOST,
    WorkerStartError("functions", "it ended at once", Exit(3), "bad"),
    PoisonedTask("work", [LOST]),
    LeaseError("w1", "it was released before"),
    NotPicklable("arguments", "generator", "cannot pickle it"),
    MessageTooLarge("result", 2000, 1000),
    RemoteError("x.Odd", "text", "Traceback"),
    RemoteTraceback("Traceback"),
]


def _comparable(value):
    if isinstance(value, tuple):
        return tuple(map(_comparable, value))
    return (type(value), str(value)) if isinstance(value, Exception) else value


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_an_error_survives_pickling_with_its_data(error, protocol):
    error = pickle.loads(pickle.dumps(error, protocol)) if error.args == () else error
    error.add_note("seen from afar")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    for name in error._fields:
        assert _comparable(getattr(again, name)) == _comparable(getattr(error, name)), name
    assert again.__notes__ == error.__notes__
    assert pickle.loads(pickle.dumps(again)).__notes__ == error.__notes__


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_shows_no_secret(error):
    assert "hunter2" not in str(error)
    assert "hunter2" not in repr(error)


def test_every_error_has_one_root_and_an_example_here():
    classes = [
        kind
        for kind in vars(procession.errors).values()
        if isinstance(kind, type) and issubclass(kind, ProcessionError)
    ]
    made = {type(error) for error in ERRORS} | {
        ProcessionError,
        StateError,
        ProcessError,
        SchedulerError,
        PoolError,
        RecoveryError,
        MonitorError,
    }
    assert set(classes) <= made | {SpawnError}


def test_errors_are_also_what_the_standard_library_would_raise():
    of = SpawnError.of
    assert isinstance(of(SpawnFailure.NOT_FOUND, COMMAND, errno.ENOENT, "x"), FileNotFoundError)
    assert isinstance(of(SpawnFailure.NOT_EXECUTABLE, COMMAND, errno.EACCES, "x"), PermissionError)
    assert isinstance(of(SpawnFailure.CWD_NOT_DIRECTORY, COMMAND, errno.ENOTDIR, "x"), NotADirectoryError)
    assert isinstance(of(SpawnFailure.PROCESS_LIMIT, COMMAND, errno.EAGAIN), OSError)
    assert isinstance(ExecutionTimeout(1, COMMAND), TimeoutError)
    assert isinstance(NotFound("x"), LookupError)
    assert isinstance(Closed("x"), RuntimeError)
    assert not isinstance(ExecutionTimeout(1, COMMAND), asyncio.CancelledError)


def test_a_value_that_cannot_be_pickled_does_not_keep_its_error_here():
    value = (item for item in "")
    again = pickle.loads(pickle.dumps(ConfigError("input", value, "bytes")))
    assert (again.field, again.hint) == ("input", "bytes")
    assert "generator" in str(again)


def test_an_error_of_somebody_else_that_cannot_be_pickled_travels_as_its_text():
    class Local(Exception):
        pass

    again = pickle.loads(pickle.dumps(RecoveryExhausted("api", FailureKind.CRASH, 1, "time", Local("no"))))
    assert (again.id, again.reason, again.error) == ("api", "time", "Local: no")


def test_a_breaker_that_says_nothing_has_defaults():
    error = CircuitOpen(2.0)
    assert (error.retry_after, error.name, error.state) == (2.0, "breaker", "open")


def test_a_spawn_error_names_errno_path_and_reason():
    error = SpawnError.of(SpawnFailure.NOT_FOUND, COMMAND, errno.ENOENT, "/no/tool")
    assert (error.errno, error.filename, error.path) == (errno.ENOENT, "/no/tool", "/no/tool")
    assert "program not found" in str(error)
    assert "/no/tool" in str(error)
    assert "ENOENT" in str(error)


def test_a_signaled_error_says_the_name():
    assert SignaledError(11, "", COMMAND).signal_name == "SIGSEGV"
    assert SignaledError(11, "", COMMAND).returncode == -11
    assert "SIGSEGV" in str(SignaledError(11, "", COMMAND))
