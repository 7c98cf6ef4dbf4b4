"""Every error procession raises: one tree, all picklable, all carrying data.

Errors are told apart by their type and their fields, never by their text; the text is built from
the fields in ``__str__``. An exception raised by a user's own code is never wrapped.
"""

from procession.errors._base import Closed as Closed
from procession.errors._base import ConfigError as ConfigError
from procession.errors._base import InvalidTransition as InvalidTransition
from procession.errors._base import NotFound as NotFound
from procession.errors._base import ProcessionError as ProcessionError
from procession.errors._base import StateError as StateError
from procession.errors._base import SubscriptionLost as SubscriptionLost
from procession.errors._config import ConfigFileError as ConfigFileError
from procession.errors._config import ConfigProblem as ConfigProblem
from procession.errors._monitor import AlertNotFound as AlertNotFound
from procession.errors._monitor import MetricsUnavailable as MetricsUnavailable
from procession.errors._monitor import MonitorError as MonitorError
from procession.errors._monitor import ProcessUnknown as ProcessUnknown
from procession.errors._monitor import WebhookFailed as WebhookFailed
from procession.errors._pool import AcquireTimeout as AcquireTimeout
from procession.errors._pool import CallTimeout as CallTimeout
from procession.errors._pool import LeaseError as LeaseError
from procession.errors._pool import MessageTooLarge as MessageTooLarge
from procession.errors._pool import NotPicklable as NotPicklable
from procession.errors._pool import PoisonedTask as PoisonedTask
from procession.errors._pool import PoolClosed as PoolClosed
from procession.errors._pool import PoolError as PoolError
from procession.errors._pool import PoolExhausted as PoolExhausted
from procession.errors._pool import RemoteError as RemoteError
from procession.errors._pool import RemoteTraceback as RemoteTraceback
from procession.errors._pool import WorkerLoss as WorkerLoss
from procession.errors._pool import WorkerLost as WorkerLost
from procession.errors._pool import WorkerStartError as WorkerStartError
from procession.errors._process import ExecutionTimeout as ExecutionTimeout
from procession.errors._process import ExitError as ExitError
from procession.errors._process import ProcessError as ProcessError
from procession.errors._process import ProgramNotFound as ProgramNotFound
from procession.errors._process import SignaledError as SignaledError
from procession.errors._process import SpawnDenied as SpawnDenied
from procession.errors._process import SpawnError as SpawnError
from procession.errors._process import SpawnFailure as SpawnFailure
from procession.errors._process import SpawnNotDirectory as SpawnNotDirectory
from procession.errors._process import StreamClosed as StreamClosed
from procession.errors._recovery import CheckpointCorrupt as CheckpointCorrupt
from procession.errors._recovery import CheckpointError as CheckpointError
from procession.errors._recovery import CircuitOpen as CircuitOpen
from procession.errors._recovery import RecoveryError as RecoveryError
from procession.errors._recovery import RecoveryExhausted as RecoveryExhausted
from procession.errors._scheduler import DeadlineMissed as DeadlineMissed
from procession.errors._scheduler import DependencyFailed as DependencyFailed
from procession.errors._scheduler import InsufficientResources as InsufficientResources
from procession.errors._scheduler import QueueFull as QueueFull
from procession.errors._scheduler import SchedulerError as SchedulerError
from procession.errors._scheduler import TaskCancelled as TaskCancelled
from procession.errors._scheduler import TaskTimeout as TaskTimeout
