"""Runs tasks in the right order within given limits: priorities, ageing, resources, backfilling, preemption."""

from procession._core.backoff import RetryPolicy as RetryPolicy
from procession._types import Priority as Priority
from procession.scheduler._config import Preemption as Preemption
from procession.scheduler._config import SchedulerConfig as SchedulerConfig
from procession.scheduler._explain import Explanation as Explanation
from procession.scheduler._job import Job as Job
from procession.scheduler._policies import EarliestDeadline as EarliestDeadline
from procession.scheduler._policies import FairShare as FairShare
from procession.scheduler._policies import Fifo as Fifo
from procession.scheduler._policies import MultiLevelFeedback as MultiLevelFeedback
from procession.scheduler._policies import Policy as Policy
from procession.scheduler._policies import PriorityAging as PriorityAging
from procession.scheduler._policies import TimeSlice as TimeSlice
from procession.scheduler._recurring import Recurring as Recurring
from procession.scheduler._scheduler import Scheduler as Scheduler
from procession.scheduler._states import TASK_MOVES as TASK_MOVES
from procession.scheduler._states import TaskState as TaskState
from procession.scheduler._statistics import SchedulerStatistics as SchedulerStatistics
from procession.scheduler._submission import TaskOptions as TaskOptions
from procession.scheduler._task import Task as Task
