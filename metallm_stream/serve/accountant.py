"""Budgets where costs become known: charges booked with what they were learned from, and told.

Invariant: accounts change in the transaction that advances the read positions, so that each charge
is booked exactly once. What is published is what was committed, about once a second.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from confluent_kafka import Producer
from sqlalchemy import Connection as Database
from sqlalchemy import Engine

from metallm_stream.events import Decision
from metallm_stream.join import Interaction
from metallm_stream.kafka import Record, write
from metallm_stream.postgres import (
    Place,
    forget_accounts,
    list_accounts,
    lock_accounts,
    save_accounts,
)
from metallm_stream.route import Account, Budget, Charge, charge_of, record_of
from metallm_stream.serve.joined import Joined

AT_ONCE = 1_000  # so many are locked while they are published or forgotten
LOCKED_S = 15.0  # at most: who waits for a lock gives up after `LOCK_TIMEOUT_S`

Pair = tuple[Interaction | None, Interaction]


@dataclass(frozen=True, slots=True)
class _Change:
    """One decision's charge on one account, before and after."""

    order: tuple[float, int, int]
    place: Place
    before: Charge | None
    after: Charge | None


class Accountant:
    """Books charges for the learner.

    Parameters
    ----------
    budgets
        Those in force.
    topic
        Where accounts are published.
    refresh_s
        An account is published at most this often.
    """

    def __init__(self, budgets: Sequence[Budget], *, topic: str, refresh_s: float) -> None:
        self._budgets = {budget.name: budget for budget in budgets}
        self._topic = topic
        self._refresh_s = refresh_s
        self._due_at = 0.0
        self._unpublished: dict[Place, None] = {}
        self._round: dict[Place, None] = {}  # those of them that are due
        # By partition of `queries`: what this process has read, committed and in a transaction.
        self._read: dict[int, int] = {}
        self._reading: dict[int, int] = {}

    def recall(self, conn: Database) -> None:
        """Have every stored account published again, as after a crash before it was."""
        if self._budgets:
            self._unpublished |= dict.fromkeys(list_accounts(conn, self._budgets))

    def book(
        self, conn: Database, events: Iterable[Joined], pairs: Iterable[Pair]
    ) -> Mapping[Place, Account]:
        """Book what the events of a transaction have changed; the accounts as they are then."""
        if not self._budgets:
            return {}
        decisions = [event for event in events if isinstance(event, Decision)]
        pairs = list(pairs)
        first = {now.query_id for was, now in pairs if was is None or was.decision is None}
        changes = sorted(self._changes(pairs), key=lambda change: change.order)
        places = {change.place for change in changes}
        places |= {place for decision in decisions for place in self._places(decision)}
        accounts = lock_accounts(conn, self._budgets, places)
        for change in changes:
            budget = self._budgets[change.place[0]]
            known = accounts[change.place]
            accounts[change.place] = known.revised(budget, change.before, change.after)
        self._reading = dict(self._read)
        for decision in decisions:
            partition, offset = decision.query_partition, decision.query_offset
            reached = max(offset, self._reading.get(partition, 0))
            if decision.query_id in first:
                reached = offset
                for place in self._places(decision):
                    accounts[place] = _unread(accounts[place], partition, offset)
            self._reading[partition] = max(offset + 1, reached)
        accounts = {place: _read(item, self._reading) for place, item in accounts.items()}
        save_accounts(conn, self._budgets, accounts)
        return accounts

    def committed(self, places: Iterable[Place]) -> None:
        """Take note of accounts whose transaction has committed."""
        self._unpublished |= dict.fromkeys(place for place in places if place not in self._round)
        self._read = self._reading

    def give_up(self, partitions: Iterable[int]) -> None:
        """Forget what was read of partitions that another learner reads from now on."""
        for partition in partitions:
            self._read.pop(partition, None)

    def publish_if_due(self, engine: Engine, producer: Producer) -> None:
        """Write accounts that have changed to their topic; where there are many, more next time.

        They stay locked meanwhile, so that no other learner's newer one comes before.
        """
        if self._unpublished and not self._round and time.monotonic() >= self._due_at:
            self._round, self._unpublished = self._unpublished, {}
            self._due_at = time.monotonic() + self._refresh_s
        if not self._round:
            return
        places = list(islice(self._round, AT_ONCE))
        with engine.begin() as conn:
            accounts = lock_accounts(conn, self._budgets, places)
            records = [self._record(place, item) for place, item in accounts.items()]
            write(producer, records, LOCKED_S)
        self._published(places)

    def forget(self, engine: Engine, producer: Producer, days: int) -> bool:
        """Drop accounts that no query has used for so many days; whether there are more.

        Their time is over, and a user who comes back begins as a new one. Routers are told before
        it is committed: an account that they drop too early is published again at the next start.
        """
        with engine.begin() as conn:
            forgotten = forget_accounts(conn, days, AT_ONCE)
            records = [Record(self._topic, _record_key(place), None) for place in forgotten]
            write(producer, records, LOCKED_S)
        self._published(forgotten)
        return len(forgotten) == AT_ONCE

    def _published(self, places: Iterable[Place]) -> None:
        for place in places:
            self._unpublished.pop(place, None)
            self._round.pop(place, None)

    def _record(self, place: Place, account: Account) -> Record:
        record = record_of(self._budgets[place[0]], place[1], account)
        return Record(self._topic, _record_key(place), record.encode())

    def _changes(self, pairs: Iterable[Pair]) -> Iterable[_Change]:
        for before, after in pairs:
            old = None if before is None else charge_of(before.decision, before.result)
            new = charge_of(after.decision, after.result)
            old_places = self._places(None if before is None else before.decision)
            new_places = self._places(after.decision)
            if (old, old_places) == (new, new_places) or after.decision is None:
                continue
            decision = after.decision
            order = (
                decision.decided_at.timestamp(),
                decision.query_partition,
                decision.query_offset,
            )
            for place in new_places:
                yield _Change(order, place, old if place in old_places else None, new)
            for place in old_places:
                if place not in new_places:
                    yield _Change(order, place, old, None)

    def _places(self, decision: Decision | None) -> list[Place]:
        if decision is None:
            return []
        budgets = self._budgets.values()
        return [(budget.name, budget.account_key(decision.metadata)) for budget in budgets]


def _record_key(place: Place) -> bytes:
    return "/".join(("budget", *place)).encode()


def _unread(account: Account, partition: int, offset: int) -> Account:
    """The account, which cannot have counted the first decision on a query at this offset.

    Where its position says so, it is one of a topic that was deleted and made anew since: in one
    life of `queries`, decisions on a partition are read in the order of their offsets.
    """
    if account.next_offsets.get(partition, 0) <= offset:
        return account
    return replace(account, next_offsets={**account.next_offsets, partition: offset})


def _read(account: Account, positions: Mapping[int, int]) -> Account:
    """The account, which counts all decisions before these positions that it is to count.

    They are those of all queries, not of its own alone: a router that still holds a decision which
    no account will ever count again, such as one from before the budget, lets go of it.
    """
    reached = {
        partition: max(position, account.next_offsets.get(partition, 0))
        for partition, position in positions.items()
    }
    return replace(account, next_offsets={**account.next_offsets, **reached})
