"""Failures that end well."""

from procession._core.backoff import Backoff as Backoff
from procession._core.backoff import RetryPolicy as RetryPolicy
from procession._types import FailureKind as FailureKind
from procession.recovery._breaker import CircuitChange as CircuitChange
from procession.recovery._breaker_api import BreakerStatistics as BreakerStatistics
from procession.recovery._breaker_api import CircuitBreaker as CircuitBreaker
from procession.recovery._breaker_api import Permit as Permit
from procession.recovery._breakers import BreakerRegistry as BreakerRegistry
from procession.recovery._breakers import Fleet as Fleet
from procession.recovery._config import BreakerConfig as BreakerConfig
from procession.recovery._config import RecoveryConfig as RecoveryConfig
from procession.recovery._retry import Attempt as Attempt
from procession.recovery._retry import retry as retry
from procession.recovery._retry import retrying as retrying
from procession.recovery._states import CIRCUIT_MOVES as CIRCUIT_MOVES
from procession.recovery._states import CircuitState as CircuitState
from procession.recovery._windows import Count as Count
from procession.recovery._windows import Time as Time
