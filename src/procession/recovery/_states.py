"""The states of a breaker and of a recovery, and every move between them."""

from __future__ import annotations

from enum import StrEnum

from procession._core.machine import Transitions


class CircuitState(StrEnum):
    """Where a circuit breaker stands.

    ``CLOSED`` calls pass and are judged; ``OPEN`` calls are refused for a while; ``HALF_OPEN`` a few calls pass as
    probes. The others are set by hand and left by hand: ``FORCED_OPEN`` refuses all calls, ``FORCED_CLOSED`` lets all
    pass and keeps the figures, ``METRICS_ONLY`` likewise and says in its statistics when it would have opened,
    ``DISABLED`` lets all pass and counts nothing.
    """

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"
    METRICS_ONLY = "metrics_only"
    DISABLED = "disabled"


HELD = (CircuitState.FORCED_OPEN, CircuitState.FORCED_CLOSED, CircuitState.METRICS_ONLY, CircuitState.DISABLED)
"""The states that are set and left by hand."""

CIRCUIT_MOVES: Transitions[CircuitState] = Transitions(
    initial=CircuitState.CLOSED,
    final=(),
    moves={
        CircuitState.CLOSED: (CircuitState.OPEN, CircuitState.HALF_OPEN, *HELD),
        CircuitState.OPEN: (CircuitState.HALF_OPEN, CircuitState.CLOSED, *HELD),
        CircuitState.HALF_OPEN: (CircuitState.OPEN, CircuitState.CLOSED, *HELD),
        **{
            held: (CircuitState.CLOSED, CircuitState.OPEN, *(other for other in HELD if other is not held))
            for held in HELD
        },
    },
)
"""Every move a breaker can make; anything else raises ``InvalidTransition``."""

ITSELF = frozenset(
    {
        (CircuitState.CLOSED, CircuitState.OPEN),
        (CircuitState.OPEN, CircuitState.HALF_OPEN),
        (CircuitState.HALF_OPEN, CircuitState.OPEN),
        (CircuitState.HALF_OPEN, CircuitState.CLOSED),
    }
)
"""The moves a breaker makes by itself."""


def circuit_diagram() -> str:
    """The table of moves as a Mermaid state diagram: what a breaker does by itself, and what is done by hand.

    The states that are set by hand stand in one box, because the moves into, out of and among them are the same for all.
    """
    moves, initial = CIRCUIT_MOVES.moves, CIRCUIT_MOVES.initial
    free = [state for state in moves if state not in HELD]
    lines = ["stateDiagram-v2", f"    [*] --> {initial}", "    state by_hand {"]
    lines += [f"        {state}" for state in HELD]
    lines.append("    }")
    for old in free:
        by_hand = {new for new in moves[old] if new not in HELD}
        lines += [f"    {old} --> {new}" for new in sorted(by_hand) if (old, new) in ITSELF]
        lines += [f"    {old} --> {new}: by hand" for new in sorted(by_hand) if (old, new) not in ITSELF]
        if set(HELD) <= moves[old]:
            lines.append(f"    {old} --> by_hand")
    common = frozenset.intersection(*(moves[state] for state in HELD))
    lines += [f"    by_hand --> {new}" for new in sorted(common)]
    return "\n".join(lines)


class RecoveryState(StrEnum):
    """Where a registered id stands.

    ``HEALTHY`` nothing is known to be wrong; ``BACKOFF`` it failed and the next attempt waits for its time;
    ``RECOVERING`` a strategy is at work; ``PROVING`` it is up again and has to stay so for ``stable_after`` seconds;
    ``FAILED`` it was given up.
    """

    HEALTHY = "healthy"
    BACKOFF = "backoff"
    RECOVERING = "recovering"
    PROVING = "proving"
    FAILED = "failed"


RECOVERY_MOVES: Transitions[RecoveryState] = Transitions(
    initial=RecoveryState.HEALTHY,
    final=(),
    moves={
        RecoveryState.HEALTHY: (RecoveryState.BACKOFF,),
        RecoveryState.BACKOFF: (RecoveryState.RECOVERING, RecoveryState.HEALTHY, RecoveryState.FAILED),
        RecoveryState.RECOVERING: (RecoveryState.PROVING, RecoveryState.BACKOFF, RecoveryState.HEALTHY),
        RecoveryState.PROVING: (RecoveryState.BACKOFF, RecoveryState.HEALTHY),
        RecoveryState.FAILED: (RecoveryState.HEALTHY,),
    },
)
"""Every move a recovery can make."""
