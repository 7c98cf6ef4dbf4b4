"""How large a pool should be: one rule, as a pure function.

Let *backlog* be the work that waits or runs, and *workers* how many there are or are being started.

- **Grow** when ``backlog > 2 x workers``, or when the first in line has waited for longer than ``patience`` while nobody
  is idle: to half the backlog, at least by one. Not again before ``cool_down`` has passed, except for who has run out of
  patience. Where ``patience`` is 0, as for leases, everybody who waits has a worker started at once.
- **Shrink** when ``backlog < workers / 2`` for as long as ``cool_down``: by one.
- Never below the minimum, never above the maximum. (Idle timeouts are the roster's affair.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a pool has to do at one moment.

    Attributes:
        waiting: calls or leases that wait.
        busy: workers at work.
        running: calls or leases that are with a worker.
        workers: workers there are or are being started.
        starting: those of them that are being started.
        waited: seconds the first in line has waited.
    """

    waiting: int
    busy: int
    running: int
    workers: int
    starting: int = 0
    waited: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The limits of the rule.

    Attributes:
        least: never fewer workers.
        most: never more.
        cool_down: seconds between changes.
        patience: seconds the first in line waits before a worker is started for it.
    """

    least: int
    most: int
    cool_down: float = 5.0
    patience: float = 0.1


@dataclass(frozen=True, slots=True)
class Scaling:
    """What the rule remembers from one look to the next.

    Attributes:
        grown_at: when it last grew.
        low_since: since when there has been too little to do; ``None`` while there is not.
    """

    grown_at: float = float("-inf")
    low_since: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many workers there should be, why, and what to remember."""

    target: int
    reason: str
    scaling: Scaling
    look_again: float | None


def decide(load: Load, rule: Rule, scaling: Scaling, now: float) -> Verdict:
    """Applies the rule once; ``look_again`` is when it would decide otherwise though nothing had happened."""
    workers, backlog = load.workers, load.waiting + load.running
    if load.waiting and workers < rule.most:
        return _grow(load, rule, scaling, now, backlog)
    if backlog * 2 < workers and workers > rule.least:
        since = scaling.low_since if scaling.low_since is not None else now
        due = since + rule.cool_down
        if now >= due:
            return Verdict(workers - 1, "little to do", replace(scaling, low_since=now), now + rule.cool_down)
        return Verdict(workers, "", replace(scaling, low_since=since), due)
    if scaling.low_since is not None:
        scaling = replace(scaling, low_since=None)
    return Verdict(max(rule.least, min(rule.most, workers)), "", scaling, None)


def _grow(load: Load, rule: Rule, scaling: Scaling, now: float, backlog: int) -> Verdict:
    workers = load.workers
    scaling = replace(scaling, low_since=None)
    cool = scaling.grown_at + rule.cool_down
    if not rule.patience:
        target = min(rule.most, workers + max(0, load.waiting - load.starting))
        reason = f"{load.waiting} wait" if target > workers else ""
        return Verdict(target, reason, replace(scaling, grown_at=now) if reason else scaling, None)
    if backlog > 2 * workers and (now >= cool or not workers):
        target = min(rule.most, max(workers + 1, -(-backlog // 2)))
        return Verdict(target, f"backlog {backlog}", replace(scaling, grown_at=now), None)
    if load.starting >= load.waiting:
        return Verdict(workers, "", scaling, None)  # somebody is on the way for everybody
    if load.waited >= rule.patience and (not load.starting or not rule.patience):
        more = 1 if rule.patience else load.waiting - load.starting
        return Verdict(
            min(rule.most, workers + more), f"waited {load.waited:.2f} s", replace(scaling, grown_at=now), None
        )
    due = now + rule.patience - load.waited if not load.starting else None
    if backlog > 2 * workers:
        due = cool if due is None else min(due, cool)
    return Verdict(workers, "", scaling, due)
