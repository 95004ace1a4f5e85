"""The fold over a learner's events as PostgreSQL keeps it: rows, sums and positions.

Invariant: rows, sums and positions change in one transaction, or not at all, and what is known here
is what was committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from psycopg.errors import LockNotAvailable
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from metallm_stream.join import Interaction, change
from metallm_stream.policy import Sums
from metallm_stream.postgres import (
    Advance,
    DeadLetter,
    SlotLease,
    advance,
    claim_encoder,
    claim_half_life,
    claim_slot,
    drop_days_before,
    ensure_day,
    insert_interactions,
    load_for_update,
    load_forgetting,
    load_slot_sums,
    save_arms,
    save_dead_letters,
    save_interactions,
)
from metallm_stream.serve.accountant import Accountant, Pair
from metallm_stream.serve.drift import DriftWatch, Observed
from metallm_stream.serve.joined import Joined
from metallm_stream.serve.pupil import Pupil

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learned:
    """What one transaction has changed: interactions before and after it, and residuals seen."""

    pairs: Sequence[Pair]
    observed: Observed


class Fold:
    """Adds events to what one slot has learned.

    Parameters
    ----------
    engine
        PostgreSQL, migrated.
    accountant
        Charges calls to the budgets.
    drift
        Watches for arms whose quality moves.
    pupil
        What learns beside the sums, if anything.
    encoder, dimensions
        Identity of the encoder whose contexts are learned from.
    slot
        Which replica this is: it owns the sums of this slot.
    half_life_s
        Evidence counts half as much after so long; None: as much as ever.
    now
        Time, aware UTC.
    """

    def __init__(
        self,
        engine: Engine,
        accountant: Accountant,
        drift: DriftWatch,
        pupil: Pupil,
        *,
        encoder: str,
        dimensions: int,
        slot: str,
        half_life_s: float | None,
        now: Callable[[], datetime],
    ) -> None:
        self.pupil = pupil
        self.slot = slot
        self.encoder, self.dimensions = encoder, dimensions
        self._engine = engine
        self._accountant = accountant
        self._drift = drift
        self._now = now
        self._claim(half_life_s)

    def _claim(self, half_life_s: float | None) -> None:
        """Fence whoever had this slot before, and take over its sums."""
        with self._engine.begin() as conn:
            changed_at = claim_half_life(conn, half_life_s)
        if changed_at is not None:
            log.info("evidence has a half-life of %s s from %s on", half_life_s, changed_at)
        with self._engine.begin() as conn:
            claim_encoder(conn, self.encoder, self.dimensions)
            self._lease = claim_slot(conn, self.slot)
            self._drift.load(conn)
            self.pupil.claim(conn)
            self.sums = Sums.from_bytes(load_slot_sums(conn, self.slot), self.dimensions)

    def learn(
        self, events: Sequence[Joined], dead: Sequence[DeadLetter], advances: Sequence[Advance]
    ) -> Learned:
        """Take in what was read, in one transaction that moves the positions.

        Raises `Fenced` if the positions or the slot are another learner's by now.
        """
        with self._engine.begin() as conn:
            # 1. Our positions must still be ours and where we left them.
            advance(conn, advances)
            # 2. Lock the queries, merge the events, and save what has changed.
            pairs = self._join(conn, events)
            # 3. The change of the interactions is the change of the sums.
            forgetting = load_forgetting(conn)
            delta = change(pairs, self.encoder, self.dimensions, forgetting)
            sums, lease = self._add(conn, delta)
            # 4. A policy that is no sum learns what is complete now, under the lease of the sums.
            learned = self.pupil.learn(conn, pairs)
            # 5. What the queries cost is charged to their budgets.
            accounts = self._accountant.book(conn, events, pairs)
            # 6. Keep the dead letters of all services where SQL can see them.
            save_dead_letters(conn, dead)
            # 7. Last, since a shift takes effect so soon after it was written: drift.
            now = self._now()
            observed = self._drift.observe(pairs, self.encoder, forgetting, now)
            self._drift.save(conn, observed, now)
        # 8. Committed: only now is it known here.
        self._accountant.committed(accounts)
        self.sums, self._lease = sums, lease
        self.pupil.accept(learned)
        self._drift.accept(observed)
        return Learned(pairs, observed)

    def retain(self, days: int) -> bool:
        """Sum up and drop some of the interactions first seen longer ago; whether there are more.

        Tomorrow's partition is made here, so that its first query waits for nobody. What somebody
        else holds for longer than a moment is left for the next time.
        """
        today = self._now().date()
        oldest = today - timedelta(days=days)
        try:
            with self._engine.begin() as conn:
                ensure_day(conn, today + timedelta(days=1))
            with self._engine.begin() as conn:
                dropped = drop_days_before(conn, oldest, self.encoder, self.dimensions)
                if not dropped.has_more:
                    self.pupil.retain(conn)
        except OperationalError as exc:
            if not isinstance(exc.orig, LockNotAvailable):
                raise
            log.warning("interactions are locked: what is before %s is dropped later", oldest)
            return False
        for day in dropped.days:
            log.info("dropped the interactions of %s, which are in the archive of sums", day)
        return dropped.has_more

    def _join(self, conn: Connection, events: Sequence[Joined]) -> list[Pair]:
        known = load_for_update(conn, {event.query_id for event in events}, self._now().date())
        merged = _merge(known, events)
        new = [(day, after) for day, before, after in merged if before is None]
        insert_interactions(conn, new)
        changed = [(day, after) for day, before, after in merged if after is not before is not None]
        held = {name: item for name, (_, item) in known.items() if item is not None}
        save_interactions(conn, changed, held)
        return [(before, after) for _, before, after in merged]

    def _add(self, conn: Connection, delta: Sums) -> tuple[Sums, SlotLease]:
        """The sums with their change, saved under the lease that is valid from then on."""
        if not delta.arms:
            return self.sums, self._lease
        sums = self.sums.copy()
        sums.merge(delta)
        return sums, save_arms(conn, self._lease, sums, delta.arms)


def _merge(
    known: Mapping[str, tuple[date, Interaction | None]], events: Iterable[Joined]
) -> list[tuple[date, Interaction | None, Interaction]]:
    """Day, before and after of each query that the events are about."""
    after = {query_id: before or Interaction(query_id) for query_id, (_, before) in known.items()}
    for event in events:
        after[event.query_id] = after[event.query_id].merged(event)
    return [(day, before, after[query_id]) for query_id, (day, before) in known.items()]
