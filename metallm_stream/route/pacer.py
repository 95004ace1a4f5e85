"""Budgets in force where queries are decided: the price of spending, and the arms that still fit.

Invariant: each account is the newest published one and, on top of it, every decision known here
that the published one does not count yet. A decision that is given up is taken out again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import BudgetAccount, Decision
from metallm_stream.route.account import Account, Charge
from metallm_stream.route.budget import Budget
from metallm_stream.route.charges import charge_of

MAX_PENDING = 100_000
UNTOLD = 10  # open calls of an arm, at most, while nobody knows what it costs

Mask = NDArray[np.bool_]
Reservation = tuple[Mapping[str, str], int, int, Charge]  # what `Pacer.reserve` takes


@dataclass(frozen=True, slots=True)
class Reserve:
    """One decision that the published account may not count yet."""

    partition: int
    offset: int
    charge: Charge


class Pacer:
    """Prices queries and keeps arms within what is left of every budget.

    Examples
    --------
    >>> from datetime import UTC
    >>> noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> pacer = Pacer([Budget("all", amount_usd=0.001, per="query")])
    >>> pacer.weight({}, noon)
    0.0
    >>> for offset in range(3):
    ...     pacer.reserve({}, 0, offset, Charge(noon, expected_usd=0.004))
    >>> pacer.weight({}, noon) > 1
    True

    """

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self._budgets = {budget.name: budget for budget in budgets}
        self._ledgers: dict[tuple[str, str], _Ledger] = {}
        self._reached: dict[int, int] = {}  # by partition, the newest decision's offset

    def weight(self, metadata: Mapping[str, str], now: datetime) -> float:
        """What all budgets together add to a query's cost weight."""
        return sum(account.price(budget) for budget, account in self._accounts(metadata, now))

    def limited(
        self,
        metadata: Mapping[str, str],
        allowed: Mask,
        cost_usd: NDArray[np.float64],
        known: Mask,
        now: datetime,
    ) -> Mask:
        """The allowed arms whose expected cost fits what is left, all masks `(K,)`.

        Arms of unknown cost fit soft budgets whatever is left, for what they cost is never known
        otherwise. Where nothing fits, the cheapest of the allowed arms stays; under a hard budget
        none does.
        """
        hard, soft = allowed.copy(), np.ones_like(allowed)
        for budget, account in self._accounts(metadata, now):
            fits = cost_usd <= account.left_usd(budget)
            if budget.hard:
                hard &= fits
            else:
                soft &= fits | ~known
        if not hard.any() or (hard & soft).any():
            return hard & soft
        cheapest = np.zeros_like(allowed)
        cheapest[int(np.argmin(np.where(hard, cost_usd, np.inf)))] = True
        return cheapest

    def awaited(
        self,
        metadata: Mapping[str, str],
        arms: Sequence[str],
        at_most_usd: NDArray[np.float64],
        now: datetime,
    ) -> Mask:
        """Arms that hard budgets hold back until open calls tell what they cost, `(K,)`.

        A few calls of each may be open, and as many as fit if each costs `at_most_usd`, `(K,)`,
        infinite where nobody knows.
        """
        awaited = np.zeros(len(arms), dtype=np.bool_)
        for budget, account in self._accounts(metadata, now):
            if budget.hard:
                untold = np.array([account.untold.get(arm, 0) for arm in arms])
                open_usd = untold @ np.where(np.isfinite(at_most_usd), at_most_usd, 0.0)
                fits = at_most_usd + open_usd <= account.left_usd(budget)
                awaited |= (untold >= UNTOLD) & ~fits
        return awaited

    def reserve(
        self, metadata: Mapping[str, str], partition: int, offset: int, charge: Charge
    ) -> None:
        """Charge a decision on the query at `offset` of `partition`, unless it is already.

        Those of a partition come in order; where its offsets begin again, `queries` was made anew.
        """
        if offset < self._reached.get(partition, 0):
            self.give_up(partition)
        self._reached[partition] = offset
        item = Reserve(partition, offset, charge)
        for budget in self._budgets.values():
            self._ledger(budget, metadata).reserve(item)

    def give_up(self, partition: int) -> None:
        """Forget the decisions of a partition that no published account counts."""
        self._reached.pop(partition, None)
        for ledger in self._ledgers.values():
            ledger.give_up(partition)

    def adopt(self, record: BudgetAccount) -> None:
        """Take over a published account; those of budgets that are not in force are passed over."""
        budget = self._budgets.get(record.budget)
        if budget is None:
            return
        known = self._ledgers.get((record.budget, record.key))
        if known is None:
            known = self._ledgers[record.budget, record.key] = _Ledger(budget)
        known.adopt(account_of(record, budget))

    def forget(self, budget: str, key: str) -> None:
        """Let go of a published account that nobody has used for long."""
        ledger = self._ledgers.get((budget, key))
        if ledger is not None and not ledger.forget():
            del self._ledgers[budget, key]

    def refusal(
        self, metadata: Mapping[str, str], cost_usd: float, now: datetime, arms: Sequence[str] = ()
    ) -> str:
        """What a query is told for which no arm fits; `cost_usd` is the cheapest one's."""
        reasons = [
            _exhausted(budget, budget.account_key(metadata), account, cost_usd, now)
            for budget, account in self._accounts(metadata, now)
            if budget.hard and cost_usd > account.left_usd(budget)
        ] or [
            _awaits(budget, account)
            for budget, account in self._accounts(metadata, now)
            if budget.hard and any(account.untold.get(arm, 0) >= UNTOLD for arm in arms)
        ]
        return "; and ".join(reasons)

    def _accounts(
        self, metadata: Mapping[str, str], now: datetime
    ) -> Iterator[tuple[Budget, Account]]:
        for budget in self._budgets.values():
            yield budget, self._ledger(budget, metadata).live.at_time(budget, now)

    def _ledger(self, budget: Budget, metadata: Mapping[str, str]) -> _Ledger:
        place = budget.name, budget.account_key(metadata)
        ledger = self._ledgers.get(place)
        if ledger is None:
            ledger = self._ledgers[place] = _Ledger(budget)
        return ledger


class _Ledger:
    """One account: as it was published, and with what came on top."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._base = Account()
        self._pending: deque[Reserve] = deque()
        self.live = self._base

    def reserve(self, item: Reserve) -> None:
        if not self._is_pending(item):
            return
        self._pending.append(item)
        self.live = self.live.revised(self._budget, None, item.charge)
        if len(self._pending) > MAX_PENDING:  # nothing was published for long
            self._base = counted(self._base, self._budget, self._pending.popleft())

    def adopt(self, account: Account) -> None:
        self._base = account
        self._fold(deque(item for item in self._pending if self._is_pending(item)))

    def forget(self) -> bool:
        """Begin anew with what no published account has counted; whether there is any."""
        self.adopt(Account(next_offsets=self._base.next_offsets))
        return bool(self._pending)

    def give_up(self, partition: int) -> None:
        self._fold(deque(item for item in self._pending if item.partition != partition))

    def _fold(self, pending: deque[Reserve]) -> None:
        self._pending = pending
        self.live = self._base
        for item in pending:
            self.live = self.live.revised(self._budget, None, item.charge)

    def _is_pending(self, item: Reserve) -> bool:
        return item.offset >= self._base.next_offsets.get(item.partition, 0)


def reservation(decision: Decision) -> Reservation | None:
    """What a decision committed earlier has reserved; None if it was made without budgets."""
    charge = charge_of(decision, None)
    if charge is None or decision.reserved_usd is None:
        return None
    return decision.metadata, decision.query_partition, decision.query_offset, charge


def counted(account: Account, budget: Budget, item: Reserve) -> Account:
    """The account with one more decision, whose position it has then read."""
    after = account.revised(budget, None, item.charge)
    reached = max(item.offset + 1, account.next_offsets.get(item.partition, 0))
    return replace(after, next_offsets={**account.next_offsets, item.partition: reached})


def account_of(record: BudgetAccount, budget: Budget) -> Account:
    """The account in a record, in the unit that the budget is set in today."""
    fields = {name: getattr(record, name) for name in Account.__dataclass_fields__}
    return Account(**fields).in_unit_of(budget, record.per)


def record_of(budget: Budget, key: str, account: Account) -> BudgetAccount:
    """The account as the record that is published."""
    fields = {name: getattr(account, name) for name in Account.__dataclass_fields__}
    return BudgetAccount(budget=budget.name, key=key, per=budget.per, **fields)


def _awaits(budget: Budget, account: Account) -> str:
    return (
        f"budgets.{budget.name}: nobody knows yet what a call costs, and"
        f" {sum(account.untold.values())} are open; ask again when they are answered, or give arms"
        " a price and `max_output_tokens`, by which more may fit"
    )


def _exhausted(budget: Budget, key: str, account: Account, cost_usd: float, now: datetime) -> str:
    of = f" of {budget.metadata_key} {key!r}" if budget.metadata_key is not None else ""
    free_at = budget.next_period_at(now if account.at is None else max(now, account.at))
    when = (
        "each further query frees its amount"
        if free_at is None
        else f"free again at {free_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    return (
        f"budgets.{budget.name}: {account.left_usd(budget):.3g} USD are left{of} of"
        f" {budget.amount_usd:g} USD a {budget.per}, the cheapest arm is expected to cost"
        f" {cost_usd:.3g} USD; {when}, or raise the budget"
    )
