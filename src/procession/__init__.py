r"""procession owns child processes inside asyncio programs.

>>> from procession import Command, run
>>> completed = await run(Command("echo", "hello"))     # doctest: +SKIP
>>> completed.text                                      # doctest: +SKIP
'hello\n'
"""

import sys as _sys
from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if _sys.platform == "win32":  # pragma: no cover - nothing of this exists there
    raise ImportError("procession needs a POSIX system (Linux, best effort on macOS); Windows has no process groups")


if TYPE_CHECKING:
    from procession._core.backoff import Backoff as Backoff
    from procession._core.backoff import RetryPolicy as RetryPolicy
    from procession._types import Completed as Completed
    from procession._types import Containment as Containment
    from procession._types import Exit as Exit
    from procession._types import FailureKind as FailureKind
    from procession._types import Priority as Priority
    from procession._types import ProcessRef as ProcessRef
    from procession._types import ProcessState as ProcessState
    from procession._types import StopReport as StopReport
    from procession._types import Stream as Stream
    from procession.command import DEVNULL as DEVNULL
    from procession.command import INHERIT as INHERIT
    from procession.command import PIPE as PIPE
    from procession.command import STDOUT as STDOUT
    from procession.command import Command as Command
    from procession.errors import AcquireTimeout as AcquireTimeout
    from procession.errors import AlertNotFound as AlertNotFound
    from procession.errors import CallTimeout as CallTimeout
    from procession.errors import CheckpointCorrupt as CheckpointCorrupt
    from procession.errors import CheckpointError as CheckpointError
    from procession.errors import CircuitOpen as CircuitOpen
    from procession.errors import Closed as Closed
    from procession.errors import ConfigError as ConfigError
    from procession.errors import DeadlineMissed as DeadlineMissed
    from procession.errors import DependencyFailed as DependencyFailed
    from procession.errors import ExecutionTimeout as ExecutionTimeout
    from procession.errors import ExitError as ExitError
    from procession.errors import InsufficientResources as InsufficientResources
    from procession.errors import InvalidTransition as InvalidTransition
    from procession.errors import LeaseError as LeaseError
    from procession.errors import MessageTooLarge as MessageTooLarge
    from procession.errors import MetricsUnavailable as MetricsUnavailable
    from procession.errors import MonitorError as MonitorError
    from procession.errors import NotFound as NotFound
    from procession.errors import NotPicklable as NotPicklable
    from procession.errors import PoisonedTask as PoisonedTask
    from procession.errors import PoolClosed as PoolClosed
    from procession.errors import PoolError as PoolError
    from procession.errors import PoolExhausted as PoolExhausted
    from procession.errors import ProcessError as ProcessError
    from procession.errors import ProcessionError as ProcessionError
    from procession.errors import ProcessUnknown as ProcessUnknown
    from procession.errors import QueueFull as QueueFull
    from procession.errors import RecoveryError as RecoveryError
    from procession.errors import RecoveryExhausted as RecoveryExhausted
    from procession.errors import RemoteError as RemoteError
    from procession.errors import SchedulerError as SchedulerError
    from procession.errors import SignaledError as SignaledError
    from procession.errors import SpawnError as SpawnError
    from procession.errors import SpawnFailure as SpawnFailure
    from procession.errors import StateError as StateError
    from procession.errors import StreamClosed as StreamClosed
    from procession.errors import SubscriptionLost as SubscriptionLost
    from procession.errors import TaskCancelled as TaskCancelled
    from procession.errors import TaskTimeout as TaskTimeout
    from procession.errors import WorkerLoss as WorkerLoss
    from procession.errors import WorkerLost as WorkerLost
    from procession.errors import WorkerStartError as WorkerStartError
    from procession.events import ActionTaken as ActionTaken
    from procession.events import AlertRaised as AlertRaised
    from procession.events import AlertResolved as AlertResolved
    from procession.events import CallFinished as CallFinished
    from procession.events import CircuitChanged as CircuitChanged
    from procession.events import Event as Event
    from procession.events import FailureReported as FailureReported
    from procession.events import Gap as Gap
    from procession.events import MetricsSampled as MetricsSampled
    from procession.events import PoolScaled as PoolScaled
    from procession.events import ProcessExited as ProcessExited
    from procession.events import ProcessSpawned as ProcessSpawned
    from procession.events import ProcessStopped as ProcessStopped
    from procession.events import ProcessVanished as ProcessVanished
    from procession.events import RecoveryAttempted as RecoveryAttempted
    from procession.events import RecoveryFinished as RecoveryFinished
    from procession.events import RecoveryStarted as RecoveryStarted
    from procession.events import StateChanged as StateChanged
    from procession.events import TaskFinished as TaskFinished
    from procession.events import TaskPreempted as TaskPreempted
    from procession.events import TaskResumed as TaskResumed
    from procession.events import TaskRetried as TaskRetried
    from procession.events import TaskStarted as TaskStarted
    from procession.events import TaskSubmitted as TaskSubmitted
    from procession.events import WorkerLeased as WorkerLeased
    from procession.events import WorkerReleased as WorkerReleased
    from procession.exporters import OpenTelemetryExporter as OpenTelemetryExporter
    from procession.exporters import PrometheusExporter as PrometheusExporter
    from procession.monitor import Alert as Alert
    from procession.monitor import AlertType as AlertType
    from procession.monitor import MonitorConfig as MonitorConfig
    from procession.monitor import ResourceLimits as ResourceLimits
    from procession.monitor import ResourceMonitor as ResourceMonitor
    from procession.monitor import Rule as Rule
    from procession.monitor import Sample as Sample
    from procession.monitor import Severity as Severity
    from procession.monitor import Snapshot as Snapshot
    from procession.monitor import Trend as Trend
    from procession.monitor import WebhookSink as WebhookSink
    from procession.pool import CommandPool as CommandPool
    from procession.pool import Executor as Executor
    from procession.pool import FunctionPool as FunctionPool
    from procession.pool import Lease as Lease
    from procession.pool import PoolConfig as PoolConfig
    from procession.pool import PoolStatistics as PoolStatistics
    from procession.pool import ProcessPool as ProcessPool
    from procession.pool import WorkerOutput as WorkerOutput
    from procession.pool import suggest_size as suggest_size
    from procession.pool import worker_state as worker_state
    from procession.process import AsyncioLauncher as AsyncioLauncher
    from procession.process import Chunk as Chunk
    from procession.process import Communicator as Communicator
    from procession.process import Line as Line
    from procession.process import Overflow as Overflow
    from procession.process import PidfdLauncher as PidfdLauncher
    from procession.process import Pipeline as Pipeline
    from procession.process import PipelineCompleted as PipelineCompleted
    from procession.process import Process as Process
    from procession.process import Spawning as Spawning
    from procession.process import create_subprocess_exec as create_subprocess_exec
    from procession.process import create_subprocess_shell as create_subprocess_shell
    from procession.process import default_launcher as default_launcher
    from procession.process import reap_orphans as reap_orphans
    from procession.process import run as run
    from procession.process import spawn as spawn
    from procession.process import system_report as system_report
    from procession.recovery import BreakerConfig as BreakerConfig
    from procession.recovery import CheckpointStore as CheckpointStore
    from procession.recovery import CircuitBreaker as CircuitBreaker
    from procession.recovery import CircuitState as CircuitState
    from procession.recovery import RecoveryConfig as RecoveryConfig
    from procession.recovery import RecoveryManager as RecoveryManager
    from procession.recovery import RecoveryState as RecoveryState
    from procession.recovery import retry as retry
    from procession.registry import ProcessRegistry as ProcessRegistry
    from procession.scheduler import EarliestDeadline as EarliestDeadline
    from procession.scheduler import FairShare as FairShare
    from procession.scheduler import Fifo as Fifo
    from procession.scheduler import Job as Job
    from procession.scheduler import MultiLevelFeedback as MultiLevelFeedback
    from procession.scheduler import Preemption as Preemption
    from procession.scheduler import PriorityAging as PriorityAging
    from procession.scheduler import Scheduler as Scheduler
    from procession.scheduler import SchedulerConfig as SchedulerConfig
    from procession.scheduler import Task as Task
    from procession.scheduler import TaskState as TaskState
    from procession.scheduler import TimeSlice as TimeSlice

# Where each name lives. A module is imported when one of its names is first asked for, so that a program pays for
# what it uses only. The block above tells type checkers the same; a test holds both together.
_HOMES = {
    "procession._core.backoff": (
        "Backoff",
        "RetryPolicy",
    ),
    "procession._types": (
        "Completed",
        "Containment",
        "Exit",
        "FailureKind",
        "Priority",
        "ProcessRef",
        "ProcessState",
        "StopReport",
        "Stream",
    ),
    "procession.command": (
        "Command",
        "DEVNULL",
        "INHERIT",
        "PIPE",
        "STDOUT",
    ),
    "procession.errors": (
        "AcquireTimeout",
        "AlertNotFound",
        "CallTimeout",
        "CheckpointCorrupt",
        "CheckpointError",
        "CircuitOpen",
        "Closed",
        "ConfigError",
        "DeadlineMissed",
        "DependencyFailed",
        "ExecutionTimeout",
        "ExitError",
        "InsufficientResources",
        "InvalidTransition",
        "LeaseError",
        "MessageTooLarge",
        "MetricsUnavailable",
        "MonitorError",
        "NotFound",
        "NotPicklable",
        "PoisonedTask",
        "PoolClosed",
        "PoolError",
        "PoolExhausted",
        "ProcessError",
        "ProcessUnknown",
        "ProcessionError",
        "QueueFull",
        "RecoveryError",
        "RecoveryExhausted",
        "RemoteError",
        "SchedulerError",
        "SignaledError",
        "SpawnError",
        "SpawnFailure",
        "StateError",
        "StreamClosed",
        "SubscriptionLost",
        "TaskCancelled",
        "TaskTimeout",
        "WorkerLoss",
        "WorkerLost",
        "WorkerStartError",
    ),
    "procession.events": (
        "ActionTaken",
        "AlertRaised",
        "AlertResolved",
        "CallFinished",
        "CircuitChanged",
        "Event",
        "FailureReported",
        "Gap",
        "MetricsSampled",
        "PoolScaled",
        "ProcessExited",
        "ProcessSpawned",
        "ProcessStopped",
        "ProcessVanished",
        "RecoveryAttempted",
        "RecoveryFinished",
        "RecoveryStarted",
        "StateChanged",
        "TaskFinished",
        "TaskPreempted",
        "TaskResumed",
        "TaskRetried",
        "TaskStarted",
        "TaskSubmitted",
        "WorkerLeased",
        "WorkerReleased",
    ),
    "procession.exporters": (
        "OpenTelemetryExporter",
        "PrometheusExporter",
    ),
    "procession.monitor": (
        "Alert",
        "AlertType",
        "MonitorConfig",
        "ResourceLimits",
        "ResourceMonitor",
        "Rule",
        "Sample",
        "Severity",
        "Snapshot",
        "Trend",
        "WebhookSink",
    ),
    "procession.pool": (
        "CommandPool",
        "Executor",
        "FunctionPool",
        "Lease",
        "PoolConfig",
        "PoolStatistics",
        "ProcessPool",
        "WorkerOutput",
        "suggest_size",
        "worker_state",
    ),
    "procession.process": (
        "AsyncioLauncher",
        "Chunk",
        "Communicator",
        "Line",
        "Overflow",
        "PidfdLauncher",
        "Pipeline",
        "PipelineCompleted",
        "Process",
        "Spawning",
        "create_subprocess_exec",
        "create_subprocess_shell",
        "default_launcher",
        "reap_orphans",
        "run",
        "spawn",
        "system_report",
    ),
    "procession.recovery": (
        "BreakerConfig",
        "CheckpointStore",
        "CircuitBreaker",
        "CircuitState",
        "RecoveryConfig",
        "RecoveryManager",
        "RecoveryState",
        "retry",
    ),
    "procession.registry": ("ProcessRegistry",),
    "procession.scheduler": (
        "EarliestDeadline",
        "FairShare",
        "Fifo",
        "Job",
        "MultiLevelFeedback",
        "Preemption",
        "PriorityAging",
        "Scheduler",
        "SchedulerConfig",
        "Task",
        "TaskState",
        "TimeSlice",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
if not TYPE_CHECKING:  # type checkers read the imports above
    __all__ = list(_HOME_OF)
del TYPE_CHECKING


def __getattr__(name: str) -> object:
    """Imports what is first asked for (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'procession' has no attribute {name!r}")
    value = globals()[name] = getattr(_import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return [*_HOME_OF, "__version__"]


__version__ = "0.1.0.dev0"
