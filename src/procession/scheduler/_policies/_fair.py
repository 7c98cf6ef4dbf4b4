"""To each tenant its share: who was served least, measured by weight, goes first."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING

from procession.errors import ConfigError
from procession.scheduler._policies._base import BEYOND, NANO, Policy
from procession.scheduler._policies._check import LONGEST, number, seconds

if TYPE_CHECKING:
    from procession.abc import QueuedTask

_UNIT = lcm(*range(1, 41)) * 10**6
"""What a nanosecond costs at weight 1. Weights like 3, 0.1 or 2.5 divide it, so that their prices are exact."""
_LEVELS = 1 << 31
_APART = 4 * _LEVELS * BEYOND
"""One step of service; more than priority and arrival together can amount to."""
_KEPT = 64


class _Account:
    """What one tenant was given, in nanoseconds times its price.

    All of it is integers, so nothing drifts: what a start adds for now, its end takes back to the last digit, and a
    price rounded once (only for odd weights, by less than 1e-15 of it) means a slightly different weight for good, not
    an error that grows.

    Attributes:
        served: for runs that are over.
        charged: for running ones, as estimated.
        running: how many run.
        since: the sum of their starts, from which what they have really had so far can be told at any time.
        waiting: how many wait.
        idle_since: when the last one had neither run nor waited; -1 while one does or before the first.
        groups: the groups its waiting tasks may be in.
    """

    __slots__ = ("charged", "groups", "idle_since", "price", "running", "served", "since", "waiting")

    def __init__(self, price: int) -> None:
        self.price = price
        self.served = 0
        self.charged = 0
        self.running = 0
        self.since = 0
        self.waiting = 0
        self.idle_since = -1
        self.groups: dict[Hashable, None] = {}

    def real(self, instant: int) -> int:
        """What it has had up to now."""
        return self.served + (self.running * instant - self.since) * self.price


class FairShare(Policy):
    """Tenants share the running time by weight: the one served least so far, divided by its weight, is next.

    Within a tenant the order is by priority, then of arrival; so it is between tenants that were served alike. A start
    counts at once, with the task's estimate, so that one tenant cannot take every free place at the same moment; once
    the run is over it counts as long as it was. A tenant that is new, or had nothing to run or wait for in between,
    begins where the least served of the others is by then: it does not catch up on what it never asked for. What it
    was served beyond that stays counted, so going away for a moment wins nothing.

    The start rule is that of fair queueing (Demers, Keshav and Shenker, *Analysis and simulation of a fair queueing
    algorithm*, 1989), the integer bookkeeping that of stride scheduling (Waldspurger and Weihl, MIT/LCS/TM-528, 1995).

    A start or end costs as much as there are lanes, that is tenants times priorities; the coming of a tenant, as there
    are tenants. Those gone are forgotten when nothing they were served matters any more.

    Args:
        weights: shares by tenant, from 0.000001 to 1,000,000.
        default_weight: the share of any other tenant. Default 1.
        nominal: seconds a start without an estimate counts for until it ends. Default 1.

    Raises:
        ConfigError: an argument is not of that kind; ``nominal`` is from 0.001 to 1e9.
    """

    def __init__(
        self, weights: Mapping[str, float] | None = None, default_weight: float = 1.0, nominal: float = 1.0
    ) -> None:
        if weights is not None and not isinstance(weights, Mapping):
            raise ConfigError("weights", weights, 'weights by tenant are needed, for example {"team-a": 2.0}')
        self.weights: dict[str, float] = dict(weights or {})
        self.default_weight = default_weight
        self.nominal: float = seconds("nominal", nominal)
        self._default_price = _price("default_weight", default_weight)
        for tenant in self.weights:
            if not isinstance(tenant, str):
                raise ConfigError("weights", tenant, "the name of a tenant is a text")
        self._prices = {tenant: _price(f"weights.{tenant}", weight) for tenant, weight in self.weights.items()}
        self._accounts: dict[str, _Account] = {}
        self._active: dict[_Account, None] = {}
        self._floor = 0
        self._limit = _KEPT

    def fresh(self, slots: int) -> FairShare:
        """One that has served nobody yet."""
        return FairShare(self.weights, self.default_weight, self.nominal)

    # -------------------------------------------------------------------------------------- the order

    def group(self, task: QueuedTask) -> Hashable:
        """Its tenant and its priority."""
        group = (task.tenant, task.priority)
        self._account(task.tenant).groups[group] = None
        return group

    def offset(self, group: Hashable) -> int:
        """What its tenant was served, then the priority."""
        assert isinstance(group, tuple)
        tenant, priority = group
        account = self._account(tenant)
        level: int = max(-_LEVELS, min(_LEVELS, priority))
        return (account.served + account.charged) * _APART + level * BEYOND

    # ------------------------------------------------------------------------------------- the accounts

    def queued(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """A tenant that had nothing to do is raised to the least served of the others."""
        account = self._account(task.tenant)
        account.waiting += 1
        if account in self._active:
            return ()
        instant = int(now * NANO)
        floor = self._least(instant)
        self._active[account] = None
        # A task that is suspended stops and waits at the same instant; its tenant was never idle.
        if account.idle_since == instant or account.served >= floor:
            return ()
        account.served = floor
        return tuple(account.groups)

    def started(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """It counts at once, as long as it is expected to take."""
        account, instant = self._account(task.tenant), int(now * NANO)
        charge = int(min(task.estimate or self.nominal, LONGEST) * NANO) * account.price
        task.mark = (instant, charge)
        account.waiting -= 1
        account.running += 1
        account.since += instant
        account.charged += charge
        return tuple(account.groups)

    def stopped(self, task: QueuedTask, now: float, ran: float) -> Iterable[Hashable]:
        """It counts for as long as it ran."""
        account, instant = self._account(task.tenant), int(now * NANO)
        since, charge = task.mark
        account.running -= 1
        account.since -= since
        account.charged -= charge
        account.served += (instant - since) * account.price
        groups = tuple(account.groups)
        self._rest(account, instant)
        return groups

    def left(self, task: QueuedTask, now: float) -> Iterable[Hashable]:
        """Its tenant may have nothing to do any more."""
        account = self._account(task.tenant)
        account.waiting -= 1
        self._rest(account, int(now * NANO))
        return ()

    def _account(self, tenant: str) -> _Account:
        account = self._accounts.get(tenant)
        if account is None:
            self._accounts[tenant] = account = _Account(self._prices.get(tenant, self._default_price))
        return account

    def _least(self, instant: int) -> int:
        """What the least served tenant has had; while there is none, what the last one had when it went.

        Real time counts here, not estimates: a newcomer must not pay for a wrong one.
        """
        return min((account.real(instant) for account in self._active), default=self._floor)

    def _rest(self, account: _Account, instant: int) -> None:
        if account.waiting or account.running:
            return
        del self._active[account]
        account.idle_since = instant
        account.groups.clear()
        if not self._active:
            self._floor = account.served
        if len(self._accounts) > self._limit:  # those that would begin at the least anyway need not be remembered
            least = self._least(instant)
            for tenant, one in list(self._accounts.items()):
                if one not in self._active and one.served <= least and one.idle_since != instant:
                    del self._accounts[tenant]
            self._limit = _KEPT + 2 * len(self._accounts)

    def __repr__(self) -> str:
        return f"FairShare({self.weights!r}, default_weight={self.default_weight:g}, nominal={self.nominal:g})"


def _price(field: str, weight: object) -> int:
    """What a nanosecond costs a tenant of this weight; the weight is taken as it is written, in decimals."""
    return round(_UNIT / Fraction(repr(float(number(field, weight, 1e-6, 1e6, "a number")))))
