"""What a learner does about drift: it watches residuals, and shortens the memory of the arm.

Invariant: watches and shifts are written in the transaction of the sums, and a watch is only
known here once that transaction has committed. A shift takes effect later than that, so that
every learner weighs every event alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from metallm_stream.join import Interaction, residuals
from metallm_stream.policy import Forgetting
from metallm_stream.policy.drift import ArmWatch, Drift, ResidualWatch, ageing_s
from metallm_stream.postgres import load_all_watches, load_watches, record_shift, save_watches

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Observed:
    """What one batch showed: watches of the arms that were judged, and drifts among them."""

    watches: Mapping[str, ArmWatch]
    drifts: tuple[Drift, ...]


class DriftWatch:
    """Watches the arms that one learner judges.

    Parameters
    ----------
    watch
        How to watch; None watches nothing.
    factor
        What an arm's older evidence counts after a shift.
    slot
        Which learner this is: its watches are its own.

    """

    def __init__(self, watch: ResidualWatch | None, *, factor: float, slot: str) -> None:
        self._watch = watch
        self._factor = factor
        self._slot = slot
        self._held: dict[str, ArmWatch] = {}

    def load(self, conn: Connection) -> None:
        """Go on from what the slot's former learner has seen, where that can be read."""
        if self._watch is None:
            return
        stored = load_watches(conn, self._slot)
        self._held = {arm: watch for arm, watch in stored.items() if watch is not None}
        for arm in sorted(stored.keys() - self._held.keys()):
            log.warning("the stored watch of %s cannot be read: it begins anew", arm)

    def observe(
        self,
        pairs: Iterable[tuple[Interaction | None, Interaction | None]],
        encoder: str,
        forgetting: Forgetting,
        now: datetime,
    ) -> Observed:
        """What a batch of changes shows at a time; nothing is changed by looking."""
        watches: dict[str, ArmWatch] = {}
        drifts = []
        if self._watch is not None:
            for arm, own in residuals(pairs, encoder).items():
                jumps = forgetting.clock(arm).jumps
                last_shift_s = jumps[-1][0] if jumps else None
                held = self._held.get(arm)
                watches[arm], drift = self._watch.observe(held, own, now, last_shift_s)
                if drift is not None:
                    drifts.append(drift)
        return Observed(watches, tuple(drifts))

    def save(self, conn: Connection, observed: Observed, now: datetime) -> None:
        """Write what was observed, as the last thing before the transaction commits."""
        if self._watch is None or not observed.watches:
            return
        # Before they are replaced: where there is a drift, what was watched ends.
        former = load_all_watches(conn) if observed.drifts else []
        save_watches(conn, self._slot, observed.watches)
        for drift in sorted(observed.drifts, key=lambda item: item.arm):
            at = record_shift(
                conn,
                drift,
                slot=self._slot,
                detector=self._watch.detector,
                factor=self._factor,
                ageing_s=ageing_s(former, now),
            )
            if at is not None:
                log.warning(
                    "quality of %s has moved %s: quality less prediction was %.3f in the mean, and "
                    "%.3f of late; from %s on, what was learned of it before counts %g, and ages",
                    drift.arm,
                    drift.direction,
                    drift.mean_before,
                    drift.mean_after,
                    f"{at:%Y-%m-%d %H:%M:%S} UTC",
                    self._factor,
                )

    def accept(self, observed: Observed) -> None:
        """Go on from what was observed, now that it is committed."""
        self._held.update(observed.watches)
