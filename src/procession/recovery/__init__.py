"""Failures that end well: recovery by strategies, circuit breakers, retries, and checkpoints.

::

    async with RecoveryManager(RecoveryConfig(max_attempts=5), registry=registry) as recovery:
        recovery.register("api", target=units, strategy=Chain(Restart(), Replace(), Notify(page_somebody)))

    breaker = CircuitBreaker(BreakerConfig(window=Count(50), failure_rate=0.5))
    async with breaker:
        ...

    value = await retry(fetch, RetryPolicy(max_retries=5), on=OSError)

    store = CheckpointStore("/var/lib/app/checkpoints", keep=5)
    await store.save("job-17", state)
"""

from procession._core.backoff import Backoff as Backoff
from procession._core.backoff import RetryPolicy as RetryPolicy
from procession._types import FailureKind as FailureKind
from procession.errors import CheckpointCorrupt as CheckpointCorrupt
from procession.errors import CheckpointError as CheckpointError
from procession.errors import CircuitOpen as CircuitOpen
from procession.errors import RecoveryError as RecoveryError
from procession.errors import RecoveryExhausted as RecoveryExhausted
from procession.recovery._breaker import CircuitChange as CircuitChange
from procession.recovery._breaker_api import CircuitBreaker as CircuitBreaker
from procession.recovery._breakers import BreakerRegistry as BreakerRegistry
from procession.recovery._breakers import Fleet as Fleet
from procession.recovery._checkpoint import CheckpointStore as CheckpointStore
from procession.recovery._config import BreakerConfig as BreakerConfig
from procession.recovery._config import Matcher as Matcher
from procession.recovery._config import RecoveryConfig as RecoveryConfig
from procession.recovery._history import Recovery as Recovery
from procession.recovery._history import RecoveryStatistics as RecoveryStatistics
from procession.recovery._history import availability as availability
from procession.recovery._item import RecoveryStatus as RecoveryStatus
from procession.recovery._permit import BreakerStatistics as BreakerStatistics
from procession.recovery._permit import Permit as Permit
from procession.recovery._recovery import RecoveryManager as RecoveryManager
from procession.recovery._retry import Attempt as Attempt
from procession.recovery._retry import retry as retry
from procession.recovery._retry import retrying as retrying
from procession.recovery._saved import BYTES as BYTES
from procession.recovery._saved import Checkpoint as Checkpoint
from procession.recovery._saved import Codec as Codec
from procession.recovery._saved import Damaged as Damaged
from procession.recovery._saved import Restored as Restored
from procession.recovery._saved import Saved as Saved
from procession.recovery._states import CIRCUIT_MOVES as CIRCUIT_MOVES
from procession.recovery._states import RECOVERY_MOVES as RECOVERY_MOVES
from procession.recovery._states import CircuitState as CircuitState
from procession.recovery._states import RecoveryState as RecoveryState
from procession.recovery._states import circuit_diagram as circuit_diagram
from procession.recovery._strategies import Chain as Chain
from procession.recovery._strategies import Custom as Custom
from procession.recovery._strategies import Fallback as Fallback
from procession.recovery._strategies import Nothing as Nothing
from procession.recovery._strategies import Notify as Notify
from procession.recovery._strategies import Replace as Replace
from procession.recovery._strategies import Restart as Restart
from procession.recovery._strategies import ScaleDown as ScaleDown
from procession.recovery._strategies import ScaleUp as ScaleUp
from procession.recovery._strategies import Stop as Stop
from procession.recovery._strategy import Failure as Failure
from procession.recovery._strategy import Strategy as Strategy
from procession.recovery._windows import Count as Count
from procession.recovery._windows import Either as Either
from procession.recovery._windows import Time as Time
