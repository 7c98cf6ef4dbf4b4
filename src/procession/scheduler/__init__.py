"""Runs tasks in the right order within given limits: priorities, ageing, resources, backfilling, preemption."""

from procession._core.backoff import RetryPolicy as RetryPolicy
from procession._types import Priority as Priority
from procession.scheduler._config import Preemption as Preemption
from procession.scheduler._config import SchedulerConfig as SchedulerConfig
from procession.scheduler._policies import Fifo as Fifo
from procession.scheduler._policies import Policy as Policy
from procession.scheduler._policies import PriorityAging as PriorityAging
from procession.scheduler._states import TASK_MOVES as TASK_MOVES
from procession.scheduler._states import TaskState as TaskState
