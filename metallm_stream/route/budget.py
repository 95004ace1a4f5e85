"""What may be spent: an amount for each query, hour or day, by all or by each metadata value.

Invariant: every figure that steers spending (how long a window is judged, how much it may exceed
the amount) follows from the budget alone, so that one set of constants serves all budgets.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

Per = Literal["query", "hour", "day"]

WINDOW_QUERIES: Final = 500
# Of a longer metadata value a prefix and a digest stand for it: PostgreSQL indexes 2,704 bytes.
MAX_KEY_BYTES: Final = 500
PERIOD_S: Final[Mapping[str, float]] = {"hour": 3_600.0, "day": 86_400.0}


@dataclass(frozen=True, slots=True)
class Budget:
    """One budget.

    Parameters
    ----------
    name
        Its name in settings, records and SQL.
    amount_usd
        Above 0.
    per
        `query`: the mean over queries; `hour`, `day`: what may be spent in each, in UTC.
    metadata_key
        The budget holds for each value of this key of the queries' metadata on its own, and
        queries without the key share one account; None: all queries share it.
    hard
        Rather refuse a query than exceed what is left. Otherwise the cheapest arm stays.

    """

    name: str
    amount_usd: float
    per: Per
    metadata_key: str | None = None
    hard: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.amount_usd) and self.amount_usd > 0):
            raise ValueError(f"amount_usd of {self.name!r} must be above 0, got {self.amount_usd}")

    @property
    def window_usd(self) -> float:
        """What may be spent in the window that spending is judged by: 500 queries, or the period.

        >>> Budget("all", 0.002, "query").window_usd, Budget("all", 50.0, "day").window_usd
        (1.0, 50.0)
        """
        return self.amount_usd * (WINDOW_QUERIES if self.per == "query" else 1)

    def account_key(self, metadata: Mapping[str, str]) -> str:
        """The account that a query with this metadata is charged to.

        It is the value itself; of one above 500 bytes of UTF-8 its beginning and a digest, which
        together are longer than 500 bytes and so never another query's value.

        >>> Budget("team", 5.0, "day", metadata_key="team").account_key({"team": "red"})
        'red'
        """
        value = "" if self.metadata_key is None else metadata.get(self.metadata_key, "")
        encoded = value.encode()
        if len(encoded) <= MAX_KEY_BYTES:
            return value
        beginning = encoded[:MAX_KEY_BYTES].decode(errors="ignore")
        return f"{beginning}~{hashlib.sha256(encoded).hexdigest()[:32]}"

    def accrued_usd(self, since: datetime | None, until: datetime) -> float:
        """What a query that is decided at `until` brings in, after one decided at `since`."""
        if self.per == "query":
            return self.amount_usd
        elapsed_s = 0.0 if since is None else max(0.0, (until - since).total_seconds())
        return self.amount_usd * min(1.0, elapsed_s / PERIOD_S[self.per])

    def brought_in_usd(self, at: datetime) -> float:
        """What the hour or day that a time belongs to has brought in until then; 0 by the query.

        >>> Budget("all", 48.0, "day").brought_in_usd(datetime(2026, 3, 1, 9, tzinfo=UTC))
        18.0
        """
        if self.per == "query":
            return 0.0
        return self.amount_usd * (at.timestamp() % PERIOD_S[self.per]) / PERIOD_S[self.per]

    def period(self, at: datetime) -> int:
        """Number of the hour or day, in UTC, that a time belongs to; 0 where there are none."""
        return 0 if self.per == "query" else int(at.timestamp() // PERIOD_S[self.per])

    def next_period_at(self, at: datetime) -> datetime | None:
        """When the next hour or day begins; None where there are none."""
        if self.per == "query":
            return None
        return datetime.fromtimestamp((self.period(at) + 1) * PERIOD_S[self.per], UTC)
