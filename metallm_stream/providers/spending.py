"""What a worker has spent in the present hour or day, and the cap on it.

Invariant: no try begins once what was spent and what the tries in flight are expected to cost reach
the cap, except at arms that are free. A clock that steps back, by up to a day, opens no account
anew. What nobody tells counts as much as it may be, as far as a price is known.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from itertools import islice
from typing import Literal

from metallm_stream.events import Model, WorkerSpend
from metallm_stream.providers.clock import Clock

Period = Literal["hour", "day"]
MOST_MEANS = 100  # are told, as the account goes with every commit
_FARTHEST_AHEAD = timedelta(days=1)


class Spending:
    """The account of one worker.

    Parameters
    ----------
    provider, slot
        Whose worker this is, and which of its replicas.
    cap_usd, per
        What may be spent in each hour or day, in UTC.
    clock
        Time.
    """

    def __init__(self, provider: str, slot: str, cap_usd: float, per: Period, clock: Clock) -> None:
        self._cap_usd = cap_usd
        self._clock = clock
        self._told = WorkerSpend(
            provider=provider, slot=slot, per=per, since=_start(per, clock.now()), spent_usd=0.0
        )
        self._in_flight: Counter[str] = Counter()
        self._mean_usd: dict[str, float] = {}  # the arm that was paid last comes last

    @property
    def key(self) -> str:
        """The key of this account's record."""
        return self._told.key

    def restore(self, told: WorkerSpend) -> None:
        """Go on from what was told before a restart.

        The means hold at any time, what was spent if it was in this hour or day or later.
        """
        self._mean_usd = dict(told.mean_usd)
        since = self._now().since
        if told.per == self._told.per and told.since == _latest(since, told.since):
            self._told = told

    def tell(self) -> WorkerSpend:
        """The account now."""
        newest = list(islice(reversed(self._mean_usd.items()), MOST_MEANS))
        return self._now().model_copy(update={"mean_usd": dict(reversed(newest))})

    def _now(self) -> WorkerSpend:
        """The account now, without means."""
        since = _latest(_start(self._told.per, self._clock.now()), self._told.since)
        if since != self._told.since:
            self._told = self._told.model_copy(update={"since": since, "spent_usd": 0.0})
        return self._told

    def enter(self, model: Model) -> str | None:
        """None if the arm may be asked, which is expected to cost its mean; else why not."""
        spent_usd = self._now().spent_usd
        expected_usd = sum(n * self._mean_usd.get(arm, 0.0) for arm, n in self._in_flight.items())
        if spent_usd + expected_usd >= self._cap_usd and not self._is_free(model):
            return (
                f"the worker has spent {spent_usd:.4g} USD since {self._told.since:%Y-%m-%dT%H:%MZ}"
                f" and {expected_usd:.4g} are under way, of {self._cap_usd:g} per {self._told.per}"
            )
        self._in_flight[model.arm] += 1
        return None

    def leave(self, arm: str, cost_usd: float | None, at_most_usd: float | None = None) -> None:
        """Book what a try has cost; if that is not known, the arm's mean.

        While there is no mean, book what it costs at most: nothing, if that is not known either.
        """
        self._in_flight[arm] -= 1
        if cost_usd is not None:
            mean_usd = 0.9 * self._mean_usd.get(arm, cost_usd) + 0.1 * cost_usd
            # Made anew, since another thread may be reading it.
            others = {name: usd for name, usd in self._mean_usd.items() if name != arm}
            self._mean_usd = others | {arm: mean_usd}
        elif at_most_usd is not None:
            cost_usd = self._mean_usd.get(arm, at_most_usd)
        else:
            return
        told = self._now()
        self._told = told.model_copy(update={"spent_usd": told.spent_usd + cost_usd})

    def _is_free(self, model: Model) -> bool:
        price = model.price
        # With a table, the price is what the table says; and hosts may tell costs of their own.
        if price is None or price.table is not None or self._mean_usd.get(model.arm):
            return False
        return not any(
            (
                price.input_usd_per_mtok,
                price.output_usd_per_mtok,
                price.cached_input_usd_per_mtok,
                price.call_usd,
            )
        )


def _latest(since: datetime, told: datetime) -> datetime:
    """The later one, if a clock that stepped back explains it."""
    return told if since < told <= since + _FARTHEST_AHEAD else since


def _start(per: Period, now: datetime) -> datetime:
    hour = now.replace(minute=0, second=0, microsecond=0)
    return hour if per == "hour" else hour.replace(hour=0)
