"""What a budget has spent and reserved: a fold over charges, and the price that follows.

Invariant: a charge counts from its decision on, at its expected cost until the real one is known.
The fold of a prefix, stored with the positions that it has read, and then of what follows, is the
fold of all: this is how learner and routers share an account. Its time never goes back, and a new
decision is charged to the period that the account is in, whatever time the decision claims: a
clock that is behind cannot spend from a period that is over, and thus from none.

Two queues measure how far spending is ahead. `over_usd` is the reflected walk of costs less the
amount: the largest excess of any run of queries that ends now. `ahead_usd` is the same against a
target a little below the amount, and its exponential is the price (the dual variable): the longer
spending is ahead, the dearer it gets, until the mix of arms that is chosen costs the target.

Under a budget by the hour or day, what the period has brought in and nobody has spent pays back
what spending is ahead, little by little: a quiet night is saved, and no minute can spend it.

What an arm costs of which nobody knows it cannot be reserved, so its open calls are counted. Those
that are open for longer than their hour are waited for no longer.

References
----------
Neely (2010), Stochastic network optimization: virtual queues, drift plus penalty, chapter 4.
Badanidiyuru, Kleinberg & Slivkins (2018), Bandits with knapsacks, algorithm 2: multiplicative
weights as the price of a resource.

"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from metallm_stream.route.budget import Budget, Per

TOLERANCE: Final = 0.015  # of a window, by which any run of queries may exceed its amount
PRICE_STEP: Final = 0.004  # of a window, ahead of the target, for which the price grows e-fold
PRICE_UNIT: Final = 0.05  # quality per cost scale
LARGEST_PRICE: Final = 1_000.0
LEAST_MARGIN: Final = 0.05  # by which the target stays below the amount
LARGEST_MARGIN: Final = 0.3
MARGIN_DEVIATIONS: Final = 3.0  # standard deviations of what is in flight that the margin covers
ERROR_MEMORY: Final = 0.999
FREED_OVER: Final = 1 / 24  # of a period, in which 63 percent of what it has saved is freed
WAITED_FOR_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class Charge:
    """What one decision costs a budget: expected, and in fact once that is known.

    `untold_arm` is the arm of a call where nobody knew what it costs.
    """

    decided_at: datetime
    expected_usd: float
    cost_usd: float | None = None
    untold_arm: str | None = None

    @property
    def committed_usd(self) -> float:
        """The cost as far as it is known."""
        return self.expected_usd if self.cost_usd is None else self.cost_usd


@dataclass(frozen=True, slots=True)
class Account:
    """The state of one budget for one value of its key.

    Attributes
    ----------
    queries
        Decisions that were charged.
    spent_usd, reserved_usd
        Known costs, and expected costs of calls whose cost is not known yet.
    over_usd, ahead_usd
        How far committed costs are ahead of the amount, and of the target.
    period_usd
        Committed in the hour or day of `at`; 0 of a budget by the query.
    at
        Time of the newest decision.
    reserved_squares, expected_squares, error_squares
        Sums of squares: expected costs in flight; expected costs, and their errors, of calls
        whose cost became known, older ones fading.
    next_offsets
        By partition of `queries`, the first offset whose decision is not in the account.
    untold
        By arm, open calls of this hour of which nobody knew what they cost.

    """

    queries: int = 0
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    over_usd: float = 0.0
    ahead_usd: float = 0.0
    period_usd: float = 0.0
    at: datetime | None = None
    reserved_squares: float = 0.0
    expected_squares: float = 0.0
    error_squares: float = 0.0
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    untold: Mapping[str, int] = field(default_factory=dict)

    def revised(self, budget: Budget, before: Charge | None, after: Charge | None) -> Account:
        """The account when one decision's charge `before` becomes `after`; None: no charge.

        A new charge counts in the account's period, even if it is dated in an earlier one; what
        becomes of it later counts in the period that it is dated in, or in none that is left.
        """
        charge = after or before
        if charge is None:
            return self
        change = _committed(after) - _committed(before)
        opened = self._opened(budget, charge) if before is None else self
        floor = 0.0 if before is None else -math.inf  # a new decision finds no savings
        counts = budget.per != "query" and (before is None or opened.is_current(budget, charge))
        squares = _reserved(after) ** 2 - _reserved(before) ** 2
        return replace(
            opened if before is not None and before.cost_usd is not None else opened.learned(after),
            queries=opened.queries - (after is None),
            spent_usd=self.spent_usd + _spent(after) - _spent(before),
            reserved_usd=max(0.0, self.reserved_usd + _reserved(after) - _reserved(before)),
            reserved_squares=max(0.0, self.reserved_squares + squares),
            over_usd=max(floor, opened.over_usd + change),
            ahead_usd=max(floor, opened.ahead_usd + change),
            period_usd=max(0.0, opened.period_usd + (change if counts else 0.0)),
            untold=opened.untold_then(before, after),
        )

    def at_time(self, budget: Budget, now: datetime) -> Account:
        """The account as it stands at `now`, with what time alone has brought in."""
        if budget.per == "query" or self.at is None or now <= self.at:
            return self
        later = self._later(budget, now)
        over_usd, ahead_usd = max(0.0, later.over_usd), max(0.0, later.ahead_usd)
        return replace(later, over_usd=over_usd, ahead_usd=ahead_usd)

    def price(self, budget: Budget) -> float:
        """Quality that one gives up to save the cost scale, for the budget's sake; at least 0."""
        steps = max(0.0, self.ahead_usd) / (PRICE_STEP * budget.window_usd)
        return min(LARGEST_PRICE, PRICE_UNIT * math.expm1(min(steps, 50.0)))

    def left_usd(self, budget: Budget) -> float:
        """What one more call may be expected to cost; it may be negative."""
        if budget.per == "query":
            return TOLERANCE * budget.window_usd - self.over_usd
        return budget.amount_usd - self.period_usd

    def margin(self, budget: Budget) -> float:
        """Share of the amount by which the target stays below it.

        Costs that come to light within a window may be higher than expected, and those of the
        window before may have been lower: the margin covers that of what is in flight.
        """
        unsure = MARGIN_DEVIATIONS * math.sqrt(2) * self._deviation_usd() / budget.window_usd
        return min(LARGEST_MARGIN, max(LEAST_MARGIN, unsure))

    def _opened(self, budget: Budget, charge: Charge) -> Account:
        """With what a new decision brings in, before it is charged; queues may be negative."""
        at = charge.decided_at if self.at is None else max(self.at, charge.decided_at)
        return replace(self._later(budget, at), queries=self.queries + 1)

    def _later(self, budget: Budget, at: datetime) -> Account:
        """With what a query at `at` finds that was brought in; queues may be negative."""
        accrued = budget.accrued_usd(self.at, at)
        same = self.at is None or budget.period(at) == budget.period(self.at)
        period_usd, target = self.period_usd if same else 0.0, 1 - self.margin(budget)
        ahead_usd = self.ahead_usd - target * accrued
        saved = max(0.0, target * budget.brought_in_usd(at) - period_usd)
        freed = -saved * math.expm1(-accrued / (FREED_OVER * budget.window_usd))
        return replace(
            self,
            at=at,
            over_usd=self.over_usd - accrued,
            ahead_usd=max(min(0.0, ahead_usd), ahead_usd - freed),
            period_usd=period_usd,
            untold=self.untold if self._is_this_hour(at) else {},
        )

    def untold_then(self, before: Charge | None, after: Charge | None) -> Mapping[str, int]:
        """What is open when `before` becomes `after`."""
        gone, come = _open_arm(before), _open_arm(after)
        if gone == come:
            return self.untold
        untold = Counter(self.untold)
        if come is not None:
            untold[come] += 1
        if gone is not None and before is not None and self._is_this_hour(before.decided_at):
            untold[gone] -= 1
        return {arm: count for arm, count in untold.items() if count > 0}

    def _is_this_hour(self, moment: datetime) -> bool:
        hours = [at.timestamp() // WAITED_FOR_S for at in (self.at or moment, moment)]
        return hours[0] == hours[1]

    def is_current(self, budget: Budget, charge: Charge) -> bool:
        """Whether a charge is dated in the account's hour or day."""
        return self.at is not None and budget.period(charge.decided_at) == budget.period(self.at)

    def in_unit_of(self, budget: Budget, per: Per | None) -> Account:
        """The account of a budget that was set `per` another unit until now; None: not known.

        What the old unit measures starts anew: how far spending is ahead, and the period's sum.
        Totals, what is in flight and the errors of expectations have no such scale.
        """
        if per is not None and per != budget.per:
            return replace(self, over_usd=0.0, ahead_usd=0.0, period_usd=0.0)
        return replace(self, period_usd=0.0) if budget.per == "query" else self

    def learned(self, charge: Charge | None) -> Account:
        """With the error of what was expected, if the cost is known."""
        if charge is None or charge.cost_usd is None or charge.expected_usd <= 0:
            return self
        error = charge.cost_usd - charge.expected_usd
        return replace(
            self,
            expected_squares=ERROR_MEMORY * self.expected_squares + charge.expected_usd**2,
            error_squares=ERROR_MEMORY * self.error_squares + error**2,
        )

    def _deviation_usd(self) -> float:
        """Standard deviation of the cost of what is in flight; as its cost while none is known.

        Beside each call's own error there is that of the mean which all expectations share, and
        which is as sure as the calls whose cost is known are many.
        """
        if self.expected_squares <= 0:
            return math.sqrt(2 * self.reserved_squares)
        relative = self.error_squares / self.expected_squares
        shared = 1 + self.reserved_squares / self.expected_squares
        return math.sqrt(relative * self.reserved_squares * shared)


def _open_arm(charge: Charge | None) -> str | None:
    return None if charge is None or charge.cost_usd is not None else charge.untold_arm


def _committed(charge: Charge | None) -> float:
    return 0.0 if charge is None else charge.committed_usd


def _spent(charge: Charge | None) -> float:
    return 0.0 if charge is None else charge.cost_usd or 0.0


def _reserved(charge: Charge | None) -> float:
    return 0.0 if charge is None or charge.cost_usd is not None else charge.expected_usd
