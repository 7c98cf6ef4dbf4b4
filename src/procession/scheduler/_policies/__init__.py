"""Who is next: the policies, behind one protocol."""

from procession.scheduler._policies._base import Policy as Policy
from procession.scheduler._policies._linear import Fifo as Fifo
from procession.scheduler._policies._linear import PriorityAging as PriorityAging
