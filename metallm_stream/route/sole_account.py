"""A budget by the query as learner and router keep it together, in one process without Kafka.

Invariant: between learner and router there is the record that is published, as in the service: the
router knows the newest one, and its own decisions since.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import BudgetAccount
from metallm_stream.route.account import Account, Charge
from metallm_stream.route.budget import Budget
from metallm_stream.route.pacer import Pacer, record_of

PUBLISH_EVERY: Final = 20
_ANY_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)  # a budget by the query knows no time


class SoleAccount:
    """Limits and prices queries that are decided one by one, as the services do.

    The learner books each decision and each cost at once, and publishes every 20 queries.

    Parameters
    ----------
    amount_usd
        Mean cost of a query that spending is held to; above 0. The budget is a soft one.

    Examples
    --------
    >>> account = SoleAccount(amount_usd=0.001)
    >>> cost_usd, known = np.array([0.004, 0.001]), np.array([True, True])
    >>> account.limit(cost_usd, known)
    (0.0, array([ True,  True]))
    >>> for _ in range(3):
    ...     account.reserve(0.004)
    >>> weight, allowed = account.limit(cost_usd, known)
    >>> weight > 1, allowed
    (True, array([False,  True]))

    """

    def __init__(self, amount_usd: float) -> None:
        self._budget = Budget("all", amount_usd, "query")
        self._account = Account()
        self._charges: list[Charge] = []
        self._published = self._record().encode()
        self._pacer = Pacer([self._budget])

    def limit(
        self, cost_usd: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> tuple[float, NDArray[np.bool_]]:
        """What the next query adds to its cost weight, and the arms `(K,)` that fit what is left.

        `cost_usd`, `(K,)`, is what the arms are expected to cost, those of unknown cost as the
        dearest one known.
        """
        if len(self._charges) % PUBLISH_EVERY == 0:
            self._published = self._record().encode()
            self._pacer.adopt(BudgetAccount.parse(self._published))
        every = np.ones(len(cost_usd), dtype=np.bool_)
        fits = self._pacer.limited({}, every, cost_usd, known, _ANY_TIME)
        return self._pacer.weight({}, _ANY_TIME), fits

    def reserve(self, expected_usd: float) -> None:
        """A query was decided, and is expected to cost so much."""
        charge = Charge(_ANY_TIME, expected_usd)
        self._pacer.reserve({}, 0, len(self._charges), charge)
        self._account = self._account.revised(self._budget, None, charge)
        self._charges.append(charge)

    def book(self, query: int, cost_usd: float) -> None:
        """The cost of the query that was decided as number `query`, from 0, became known."""
        before = self._charges[query]
        after = Charge(_ANY_TIME, before.expected_usd, cost_usd)
        self._account = self._account.revised(self._budget, before, after)

    def restart(self) -> None:
        """The router begins anew, and knows the published account and its decisions' tail."""
        self._pacer = Pacer([self._budget])
        self._pacer.adopt(BudgetAccount.parse(self._published))
        for query, charge in enumerate(self._charges):
            self._pacer.reserve({}, 0, query, charge)

    def _record(self) -> BudgetAccount:
        record = record_of(self._budget, "", self._account)
        return record.model_copy(update={"next_offsets": {0: len(self._charges)}})
