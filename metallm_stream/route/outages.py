"""Which arms the workers find down, as a fold over `health`, and when each may be tried again.

Invariant: a record counts until its `valid_until` and never longer than `LONGEST` after it was
read, and an arm that is down is due for a try at most `PROBE_EVERY` after that; so no arm stays
locked out by a worker that is gone or whose clock is ahead, nor by a clock that is put back here.

An arm is down when more than half of the workers that have a say find it so: the calls of a worker
that alone cannot reach a vendor fall to the next arm by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import ArmHealth, Model
from metallm_stream.route.constraints import Constraints

NO_PROBE = -1
LONGEST = timedelta(seconds=60)
PROBE_EVERY = timedelta(seconds=2)


@dataclass(frozen=True, eq=False)
class Down:
    """Arms that are down, `(K,)`, and those of them that one query may try now."""

    mask: NDArray[np.bool_]
    due: tuple[int, ...] = ()

    @classmethod
    def none(cls, count: int) -> Down:
        """All arms are up."""
        return cls(np.zeros(count, dtype=np.bool_))

    def avoid(self, constraints: Constraints) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Arms that n queries may use, `(n, K)`, and which of them is a query's probe, `(n,)`.

        An arm that is down is left out where a query has another: better a try than a failure that
        is sure. Each that is due is allowed to one query that has another to fall back on.
        """
        usual = constraints.allowed()
        probes = np.full(len(usual), NO_PROBE, dtype=np.int64)
        if not self.mask.any():
            return usual, probes
        allowed = constraints.allowed(self.mask)
        for k in self.due:
            rows = np.flatnonzero(usual[:, k] & ~allowed[:, k] & (probes == NO_PROBE))
            if rows.size:
                allowed[rows[0], k], probes[rows[0]] = True, k
        return allowed, probes


class Outages:
    """The newest valid word of each worker on each arm."""

    def __init__(self) -> None:
        # Each with the time when it was read, and its end.
        self._said: dict[str, tuple[ArmHealth, datetime, datetime]] = {}
        self._probed: dict[str, datetime] = {}

    def apply(self, health: ArmHealth, now: datetime) -> None:
        """Fold in one record, read at `now`."""
        if health.retry_at is not None:
            retry_at = min(health.retry_at, now + PROBE_EVERY)
            health = health.model_copy(update={"retry_at": retry_at})
        self._said[health.key] = health, now, min(health.valid_until, now + LONGEST)

    def down(self, models: Sequence[Model], now: datetime) -> Down:
        """Which of K arms are down at `now`."""
        self._said = {
            key: (health, read, end)
            for key, (health, read, end) in self._said.items()
            if read - LONGEST < now < end
        }
        found = Down.none(len(models))
        if all(health.state == "closed" for health, _, _ in self._said.values()):
            return found
        due = []
        for place, model in enumerate(models):
            opened = self._opened(model)
            found.mask[place] = bool(opened)
            if opened and self._is_due(model.arm, opened, now):
                due.append(place)
        return Down(found.mask, tuple(due))

    def probe(self, arm: str, now: datetime) -> None:
        """Note that a query was sent to an arm that is down."""
        self._probed[arm] = now

    def _opened(self, model: Model) -> list[ArmHealth]:
        """What those say that find the arm down, if they are more than half; else nothing."""
        heard = [
            health
            for health, _, _ in self._said.values()
            if health.provider == model.provider
            and (health.arm == model.arm or (health.arm is None and health.state == "open"))
        ]
        opened = {health.slot: health for health in heard if health.state == "open"}
        return list(opened.values()) if 2 * len(opened) > len({h.slot for h in heard}) else []

    def _is_due(self, arm: str, opened: Sequence[ArmHealth], now: datetime) -> bool:
        """Whether a try is due: one in each `PROBE_EVERY` for each worker that must see it end."""
        first = min(health.retry_at or now for health in opened)
        last = self._probed.get(arm)
        return now >= first and (last is None or abs(now - last) >= PROBE_EVERY / len(opened))
