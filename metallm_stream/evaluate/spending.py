"""How spending kept to a budget by the query.

Invariant: what calls cost in fact counts, in the order of their decisions, whenever it was known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FIRST: Final = 200  # queries while costs are still learned
WINDOW: Final = 500  # queries


@dataclass(frozen=True)
class Spending:
    """Shares of the budget; 1 is all of it.

    Attributes
    ----------
    share
        Over all queries.
    worst_window
        The largest of any 500 queries in a row after the first 200; None where there are fewer.

    """

    share: float
    worst_window: float | None

    @classmethod
    def of(cls, cost_usd: NDArray[np.float64], amount_usd: float) -> Spending:
        """Of costs `(n,)` in the order of their decisions, under an amount for each query.

        >>> Spending.of(np.array([0.0] * 200 + [1.0] * 500 + [2.0] * 100), amount_usd=1.0)
        Spending(share=0.875, worst_window=1.2)
        """
        until = np.concatenate([[0.0], np.cumsum(cost_usd)])
        windows = until[FIRST + WINDOW :] - until[FIRST:-WINDOW]
        return cls(
            share=float(cost_usd.mean() / amount_usd),
            worst_window=float(windows.max() / (WINDOW * amount_usd)) if len(windows) else None,
        )

    def as_json(self) -> dict[str, float | None]:
        """The figures as plain values."""
        return {"share": self.share, "worst_window": self.worst_window}

    @classmethod
    def over(cls, replays: Sequence[Spending]) -> Spending:
        """Of several replays of as many queries: their mean, and the worst window of any."""
        windows = [each.worst_window for each in replays if each.worst_window is not None]
        return cls(float(np.mean([each.share for each in replays])), max(windows, default=None))
