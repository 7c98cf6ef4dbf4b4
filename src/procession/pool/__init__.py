"""Pools of worker processes: leases of any program, calls of Python functions, one-shot commands."""

from procession.pool._call import PoolCall as PoolCall
from procession.pool._command_pool import CommandPool as CommandPool
from procession.pool._config import PoolConfig as PoolConfig
from procession.pool._errors import AcquireTimeout as AcquireTimeout
from procession.pool._errors import CallTimeout as CallTimeout
from procession.pool._errors import LeaseError as LeaseError
from procession.pool._errors import MessageTooLarge as MessageTooLarge
from procession.pool._errors import NotPicklable as NotPicklable
from procession.pool._errors import PoisonedTask as PoisonedTask
from procession.pool._errors import PoolClosed as PoolClosed
from procession.pool._errors import PoolExhausted as PoolExhausted
from procession.pool._errors import RemoteError as RemoteError
from procession.pool._errors import RemoteTraceback as RemoteTraceback
from procession.pool._errors import WorkerLoss as WorkerLoss
from procession.pool._errors import WorkerLost as WorkerLost
from procession.pool._errors import WorkerStartError as WorkerStartError
from procession.pool._function_pool import FunctionPool as FunctionPool
from procession.pool._lease import Lease as Lease
from procession.pool._output import WorkerOutput as WorkerOutput
from procession.pool._process_pool import Acquiring as Acquiring
from procession.pool._process_pool import ProcessPool as ProcessPool
from procession.pool._slots import SLOT_MOVES as SLOT_MOVES
from procession.pool._slots import SlotState as SlotState
from procession.pool._statistics import PoolStatistics as PoolStatistics
from procession.pool._statistics import suggest_size as suggest_size
