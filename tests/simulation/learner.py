"""A simulated learner over a database in memory, whose transactions happen or do not.

Invariant, checked with every transaction: positions move only for who claimed them last, and never
back; the reserves of every account are at least 0.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from metallm_stream.events import Decision
from metallm_stream.join import Interaction
from metallm_stream.policy import Sums
from metallm_stream.route import Account, Budget, charge_of
from tests.simulation.broker import PARTITIONS, Entry, FencedError, Place
from tests.simulation.core import DIMENSIONS, Pair, Violation
from tests.simulation.dice import Dice

if TYPE_CHECKING:
    from tests.simulation.world import World

TOPICS = ("decisions", "results", "feedback")
PLACES = tuple((topic, part) for topic in TOPICS for part in range(PARTITIONS))
AccountPlace = tuple[str, str]


class Database:
    """What PostgreSQL holds."""

    def __init__(self) -> None:
        self.positions: dict[Place, tuple[int, int]] = dict.fromkeys(PLACES, (0, 0))
        self.leases: dict[int, int] = defaultdict(int)
        self.sums: dict[int, dict[str, bytes]] = defaultdict(dict)
        self.known: dict[str, Interaction] = {}
        self.accounts: dict[AccountPlace, Account] = defaultdict(Account)

    def slot_sums(self, slot: int) -> Sums:
        """What one slot has learned."""
        return Sums.from_bytes(self.sums[slot], DIMENSIONS)


class Learner:
    """One process in one slot: it claims the slot at once, and partitions when it is told."""

    def __init__(self, world: World, slot: int) -> None:
        self._world, self.slot = world, slot
        self._positions: dict[Place, tuple[int, int]] = {}
        self._read: dict[int, int] = {}
        database = world.database
        database.leases[slot] += 1
        self._lease = database.leases[slot]
        self._sums = database.slot_sums(slot)

    def settle(self) -> None:
        """Hear of the group's assignment; claim what is new."""
        owned = {place for place, slot in self._world.learned_by.items() if slot == self.slot}
        self._positions = {at: held for at, held in self._positions.items() if at in owned}
        for place in sorted(owned - set(self._positions)):
            epoch, offset = self._world.database.positions[place]
            self._positions[place] = self._world.database.positions[place] = (epoch + 1, offset)

    def step(self, dice: Dice) -> bool:
        """Learn from one micro-batch; False if the process was killed before or after its commit.

        Raises `FencedError` if somebody has taken over.
        """
        limit, killed = 1 + dice.below(6), dice.below(12)
        if dice.once_in(2):
            self.settle()
        batch = [
            (place, entry)
            for place in dice_order(sorted(self._positions), dice)
            for entry in self._world.broker.logs[place].since(self._positions[place][1], limit)
        ]
        if killed == 0:
            return False
        if batch:
            self._learn(batch)
        return killed != 1

    def _learn(self, batch: list[tuple[Place, Entry]]) -> None:
        database, core = self._world.database, self._world.core
        for place in {place for place, _ in batch}:
            if not core.may_advance(self._positions[place], database.positions[place]):
                raise FencedError
        after: dict[str, Interaction] = {}
        for _, entry in batch:
            key = entry.event.query_id
            held = after.get(key) or database.known.get(key) or Interaction(key)
            after[key] = core.joined(held, entry.event)
        pairs = [(database.known.get(key), item) for key, item in after.items()]
        delta = core.change(pairs, self._world.forgetting)
        if delta.arms and not core.may_advance(
            (self.slot, self._lease), (self.slot, database.leases[self.slot])
        ):
            raise FencedError
        # Committed, from here on: nothing below raises but for a broken promise.
        self._sums.merge(delta)
        database.sums[self.slot] |= {arm: self._sums.arm_to_bytes(arm) for arm in delta.arms}
        database.known |= after
        for place, entry in batch:
            moved = (self._positions[place][0], entry.offset + 1)
            if moved[1] <= database.positions[place][1]:
                raise Violation(f"{place}: position went back to {moved[1]}")
            self._positions[place] = database.positions[place] = moved
        self._book([entry.event for _, entry in batch], pairs)

    def _book(self, events: Iterable[object], pairs: Iterable[Pair]) -> None:
        """As `serve/accountant.py`: charges in the order of decisions, and positions with them."""
        accounts = self._world.database.accounts
        decisions = [event for event in events if isinstance(event, Decision)]
        pairs = [pair for pair in pairs if pair[1].decision is not None]
        for budget in self._world.budgets:
            touched = {(budget.name, budget.account_key(item.metadata)) for item in decisions}
            for before, now in sorted(pairs, key=_order):
                place = budget.name, budget.account_key(_decision(now).metadata)
                touched.add(place)
                accounts[place] = _charged(accounts[place], budget, before, now)
            for item in decisions:
                reached = max(item.query_offset + 1, self._read.get(item.query_partition, 0))
                self._read[item.query_partition] = reached
            for place in touched:
                account = accounts[place] = _read_to(accounts[place], self._read)
                if account.reserved_usd < 0:
                    raise Violation(f"account {place}: {account.reserved_usd} USD are reserved")


def dice_order(places: list[Place], dice: Dice) -> list[Place]:
    """The places, begun anywhere and read in either direction."""
    start = dice.below(len(places) or 1)
    turned = places[start:] + places[:start]
    return turned[::-1] if dice.once_in(2) else turned


def _decision(interaction: Interaction) -> Decision:
    assert interaction.decision is not None
    return interaction.decision


def _order(pair: Pair) -> tuple[float, int, int]:
    decision = _decision(pair[1])
    return decision.decided_at.timestamp(), decision.query_partition, decision.query_offset


def _charged(
    account: Account, budget: Budget, before: Interaction | None, after: Interaction
) -> Account:
    old = None if before is None else charge_of(before.decision, before.result)
    new = charge_of(after.decision, after.result)
    return account if old == new else account.revised(budget, old, new)


def _read_to(account: Account, positions: dict[int, int]) -> Account:
    reached = {
        part: max(offset, account.next_offsets.get(part, 0)) for part, offset in positions.items()
    }
    return replace(account, next_offsets={**account.next_offsets, **reached})
