"""Who is next: the policies, behind one protocol."""

from procession.scheduler._policies._base import Policy as Policy
from procession.scheduler._policies._deadline import EarliestDeadline as EarliestDeadline
from procession.scheduler._policies._fair import FairShare as FairShare
from procession.scheduler._policies._feedback import MultiLevelFeedback as MultiLevelFeedback
from procession.scheduler._policies._linear import Fifo as Fifo
from procession.scheduler._policies._linear import PriorityAging as PriorityAging
from procession.scheduler._policies._slice import TimeSlice as TimeSlice
