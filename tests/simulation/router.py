"""A simulated router: the real choice, budgets and window of ids over a simulated loop.

Invariant, checked with every step: what is reserved is reserved once, and only for partitions
that this router owns; every propensity is in (0, 1] and one of probabilities that sum to 1.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from metallm_stream.events import Decision, Query, Result
from metallm_stream.kafka import Window
from metallm_stream.route import (
    Arrival,
    Decided,
    RecentIds,
    TradeOff,
    decide,
    fingerprint,
    reservation,
)
from tests.simulation.broker import Place
from tests.simulation.core import ENCODER, Violation
from tests.simulation.dice import Dice
from tests.simulation.member import Member

if TYPE_CHECKING:
    from tests.simulation.world import World

GROUP = "router"
DEFAULTS = TradeOff(0.1, 0.1, 5.0)
MOST_IDS = 1_000


class Router:
    """One process in one slot; its clock is off by `skew_s`."""

    def __init__(self, world: World, slot: int, skew_s: int = 0) -> None:
        self._world = world
        self.skew_s = skew_s
        self.pacer = world.core.pacer(world.budgets)
        self._recent: dict[Place, RecentIds] = {}
        self._adopted = 0
        self.adopt(len(world.accounts))
        self.member = Member(world.broker, world.core, GROUP, slot, self._remember, self._forget)

    def step(self, dice: Dice) -> None:
        """Decide a batch, and try to commit it."""
        if dice.once_in(2):
            self.adopt(1 + dice.below(4))
        arrived = [
            (place, window, Arrival(entry.event, place[1], entry.offset, self._world.now))
            for place, window, entry in self.member.take(1 + dice.below(4))
            if self._is_new(place, window, entry.event, entry.offset)
        ]
        if arrived:
            for (place, window, arrival), item in zip(arrived, self._decided(arrived), strict=True):
                check_propensity(item.decision)
                self.member.complete(place, window, arrival.offset, self._outputs(item))
        self.member.commit(fails=dice.once_in(8))
        self.check()

    def adopt(self, count: int) -> None:
        """Hear of so many more published accounts."""
        for account in self._world.accounts[self._adopted : self._adopted + count]:
            self.pacer.adopt(account)
            self._adopted += 1

    def check(self) -> None:
        """Raises `Violation` if something is reserved twice, or for somebody else's partition."""
        owned = {partition for _, partition in self.member.windows}
        for ledger in self.pacer._ledgers.values():
            places = [(item.partition, item.offset) for item in ledger._pending]
            if len(set(places)) < len(places):
                raise Violation(f"reserved twice: {places}")
            if not {partition for partition, _ in places} <= owned:
                raise Violation(f"reserved for partitions of others: {places}")

    def _is_new(self, place: Place, window: Window, query: Query, offset: int) -> bool:
        recent = self._recent[place]
        if recent.seen(query.query_id) is None:
            recent.add(query.query_id, fingerprint(query))
            return True
        self.member.complete(place, window, offset, [])
        return False

    def _decided(self, arrived: list[tuple[Place, Window, Arrival]]) -> list[Decided]:
        arrivals = [arrival for _, _, arrival in arrived]
        return decide(
            arrivals,
            np.stack([self._world.contexts[item.query.query_id] for item in arrivals]),
            catalogue=self._world.catalogue,
            published=self._world.published,
            chooser=self._world.chooser,
            defaults=DEFAULTS,
            rng=self._world.rng,
            now=self._world.now + timedelta(seconds=self.skew_s),
            encoder=ENCODER,
            pacer=self.pacer,
        )

    def _outputs(self, item: Decided) -> list[tuple[Place, Any]]:
        decision = item.decision
        written = (("decisions", decision.query_partition), decision)
        partition = decision.query_offset % 2
        if decision.refusal is None:
            return [written, (("calls", partition), item)]
        refused = Result(
            query_id=decision.query_id, failure=decision.refusal, finished_at=decision.decided_at
        )
        return [written, (("results", partition), refused)]

    def _remember(self, place: Place) -> None:
        recent = self._recent[place] = RecentIds(MOST_IDS)
        for entry in self._world.broker.logs["decisions", place[1]].entries:
            if entry.ours:
                recent.add(entry.event.query_id, entry.event.fingerprint)
                if (reserved := reservation(entry.event)) is not None:
                    self.pacer.reserve(*reserved)

    def _forget(self, place: Place) -> None:
        del self._recent[place]
        self.pacer.give_up(place[1])


def check_propensity(decision: Decision) -> None:
    """Raises `Violation` if the propensity is not that of a draw."""
    if decision.refusal is not None:
        return
    probabilities = {item.arm: item.probability for item in decision.candidates}
    drawn = decision.propensity
    if drawn is None or not 0 < drawn <= 1 or probabilities.get(decision.arm or "") != drawn:
        raise Violation(f"{decision.query_id}: propensity {drawn} of {probabilities}")
    if not math.isclose(sum(probabilities.values()), 1.0, abs_tol=1e-9):
        raise Violation(f"{decision.query_id}: probabilities {probabilities}")
