"""Users, services and servers in memory, and an adversary who decides what happens next.

Invariant: a world is its seed and the steps that were taken, so that the same history always ends
in the same way. What the services do is done by the real core; simulated are the loops and servers
around it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np

from metallm_stream.arms import Catalogue
from metallm_stream.events import BudgetAccount, Feedback, Model, Query
from metallm_stream.policy import (
    Forgetting,
    HalfLife,
    Published,
    Shift,
    Sums,
    chooser,
    fit,
    to_records,
    usage_of_call,
)
from metallm_stream.route import Budget, record_of
from tests.simulation import router, worker
from tests.simulation.broker import PARTITIONS, Broker, FencedError, Group
from tests.simulation.core import DIMENSIONS, ENCODER, Core
from tests.simulation.dice import Dice
from tests.simulation.learner import PLACES, Database, Learner
from tests.simulation.router import Router
from tests.simulation.worker import Worker

START = datetime(2026, 3, 1, 11, 58, tzinfo=UTC)
SLOTS = 2
MOST_QUERIES = 24
ARMS = ("dear", "mini", "new")
TEAMS = ({}, {"team": "red"}, {"team": "blue"})
FORGETTINGS = (
    Forgetting(),
    Forgetting([HalfLife(START, 60.0)]),
    Forgetting([HalfLife(START, 600.0)], [Shift("mini", START + timedelta(seconds=30), 0.02, 9.0)]),
)
BUDGETS = (
    (),
    (Budget("all", 0.002, "query"),),
    (Budget("all", 0.05, "hour", hard=True), Budget("team", 0.001, "query", "team")),
    (Budget("team", 0.02, "day", "team", hard=True),),
)
CONTEXTS = {
    f"q{number}": np.random.default_rng(number).normal(size=DIMENSIONS).astype(np.float32)
    for number in range(MOST_QUERIES)
}


class World:
    """All there is; each public method whose name is in `ACTIONS` is a step of the adversary."""

    def __init__(self, seed: int, core: Core | None = None) -> None:
        self.core = core or Core()
        self.rng = np.random.default_rng(seed)
        dice = Dice(int(self.rng.integers(2**62)))
        self.budgets = BUDGETS[dice.below(len(BUDGETS))]
        self.forgetting = FORGETTINGS[dice.below(len(FORGETTINGS))]
        self.published = policies()[dice.below(2)]
        self.chooser = chooser(("ridge-igw", "uniform")[dice.below(2)])
        self.catalogue, self.contexts = catalogue(), CONTEXTS
        self.now = START
        self.broker = Broker({router.GROUP: "queries", worker.GROUP: "calls"}, SLOTS)
        self.database = Database()
        self.accounts: list[BudgetAccount] = []
        self.learned_by = {place: place[1] % SLOTS for place in PLACES}
        self.queries: list[Query] = []
        self.routers = [Router(self, slot) for slot in range(SLOTS)]
        self.workers = [Worker(self, slot) for slot in range(SLOTS)]
        self.learners = [Learner(self, slot) for slot in range(SLOTS)]
        self._zombies: list[Callable[[Dice], object]] = []
        self._judged = 0

    def take(self, action: str, number: int) -> str:
        """One step, and what it was; raises `Violation` if it breaks a promise."""
        self.now += timedelta(seconds=1)
        told: str = getattr(self, action)(Dice(number))
        return told

    # Users.

    def ask(self, dice: Dice) -> str:
        """A query, new or again; rarely again on another partition, where it is a new one."""
        if len(self.queries) == MOST_QUERIES or (self.queries and dice.once_in(4)):
            query = self.queries[dice.below(len(self.queries))]
        else:
            query = asked(len(self.queries), dice.below(len(TEAMS)))
            self.queries.append(query)
        partition = (int(query.query_id[1:]) + dice.once_in(10)) % PARTITIONS
        self.broker.write(("queries", partition), query)
        return f"{query.query_id} on partition {partition}"

    def judge(self, dice: Dice) -> str:
        """A label, score, correction or withdrawal, for any query, asked yet or not."""
        self._judged += 1
        kind = dice.below(5)
        feedback = Feedback(
            query_id=f"q{dice.below(min(len(self.queries) + 1, MOST_QUERIES))}",
            feedback_id=(None, "anna", "bert")[dice.below(3)],
            label=("yes", "no", None, None, "yes")[kind],
            score=0.25 if kind == 2 else None,
            withdrawn=kind == 3,
            given_at=START + timedelta(seconds=self._judged),
        )
        self.broker.write(("feedback", dice.below(PARTITIONS)), feedback)
        return f"{feedback.query_id}: {feedback.label or feedback.score or 'withdrawn'}"

    def copy(self, dice: Dice) -> str:
        """Some record of the joined topics once more, late and on any partition."""
        place = PLACES[dice.below(len(PLACES))]
        entries = self.broker.logs[place].entries
        if not entries:
            return "nothing"
        entry = entries[dice.below(len(entries))]
        self.broker.write((place[0], dice.below(PARTITIONS)), entry.event)
        return f"{place[0]}: {entry.event.query_id}"

    # Services.

    def route(self, dice: Dice) -> str:
        """A router decides."""
        slot = dice.below(SLOTS)
        self.routers[slot].step(dice)
        return f"router {slot}"

    def work(self, dice: Dice) -> str:
        """A worker takes calls and answers some."""
        slot = dice.below(SLOTS)
        self.workers[slot].step(dice)
        return f"worker {slot}"

    def learn(self, dice: Dice) -> str:
        """A learner learns; killed or fenced, it starts again."""
        slot = dice.below(SLOTS)
        learner = self.learners[slot]
        try:
            alive = learner.step(dice)
        except FencedError:
            alive = False
        if not alive:
            self.learners[slot] = Learner(self, slot)
        return f"learner {slot}" if alive else f"learner {slot}, which starts again"

    def publish(self, _: Dice) -> str:
        """Tell routers of the accounts."""
        budgets = {budget.name: budget for budget in self.budgets}
        self.accounts += [
            record_of(budgets[name], key, account)
            for (name, key), account in self.database.accounts.items()
        ]
        return f"{len(self.database.accounts)} accounts"

    # Trouble.

    def kill(self, dice: Dice) -> str:
        """A process starts in a slot; the one before is dead, or lives on as a zombie."""
        slot, kind, lives_on = dice.below(SLOTS), dice.below(3), dice.once_in(2)
        held = (self.routers[slot], self.workers[slot], self.learners[slot])[kind]
        if lives_on:
            self._zombies.append(held.step)
        if kind == 0:
            self.routers[slot] = Router(self, slot, self.routers[slot].skew_s)
        elif kind == 1:
            self.workers[slot] = Worker(self, slot)
        else:
            self.learners[slot] = Learner(self, slot)
        after = "its predecessor lives on" if lives_on else "its predecessor is dead"
        return f"{type(held).__name__.lower()} {slot} starts, {after}"

    def haunt(self, dice: Dice) -> str:
        """A zombie goes on, until it is fenced."""
        if not self._zombies:
            return "nobody"
        chosen = dice.below(len(self._zombies))
        try:
            self._zombies[chosen](dice)
        except FencedError:
            del self._zombies[chosen]
            return f"zombie {chosen}, fenced"
        return f"zombie {chosen}"

    def rebalance(self, dice: Dice) -> str:
        """Partitions go to other owners, who are told in time or too late."""
        name, polite = (router.GROUP, worker.GROUP)[dice.below(2)], dice.once_in(2)
        services = self.routers if name == router.GROUP else self.workers
        group = self.broker.groups[name]
        owners = {place: dice.below(SLOTS) for place in group.owners}
        if polite:
            for service in services:
                service.member.commit()
        self.broker.groups[name] = Group(owners, group.generation + 1)
        told = dice.below(SLOTS)
        for slot, service in enumerate(services):
            if polite or slot == told:
                service.member.settle()
        who = "all are" if polite else f"{told} is"
        return f"{name} to {[owners[place] for place in sorted(owners)]}, {who} told"

    def share(self, dice: Dice) -> str:
        """Partitions go from learner to learner; the new owner claims them when it is told."""
        self.learned_by = {place: dice.below(SLOTS) for place in PLACES}
        told = dice.below(SLOTS)
        self.learners[told].settle()
        return f"learner to {list(self.learned_by.values())}, {told} is told"

    def jump(self, dice: Dice) -> str:
        """A router's clock jumps, by up to two hours in either direction."""
        slot = dice.below(SLOTS)
        self.routers[slot].skew_s = dice.below(4 * 3_600) - 2 * 3_600
        return f"clock of router {slot} off by {self.routers[slot].skew_s} s"


ACTIONS = (
    *("ask",) * 5,
    *("judge",) * 4,
    *("copy",) * 2,
    *("route",) * 4,
    *("work",) * 5,
    *("learn",) * 5,
    "publish",
    "kill",
    "haunt",
    "rebalance",
    "share",
    "jump",
)


@cache
def asked(number: int, team: int) -> Query:
    """Query of a number, by a team or none."""
    return Query(
        query_id=f"q{number}", text=f"?{number}", labels=("yes", "no"), metadata=TEAMS[team]
    )


@cache
def catalogue() -> Catalogue:
    """Three arms at one provider."""
    made = Catalogue()
    for arm in ARMS:
        made.apply(arm, Model(arm=arm, provider="p", model=arm))
    return made


@cache
def policies() -> tuple[Published | None, Published]:
    """None yet, and one that knows two of the arms."""
    sums, rng = Sums(DIMENSIONS), np.random.default_rng(7)
    for arm, cost_usd in (("dear", 0.01), ("mini", 0.001)):
        sums.add_quality(arm, rng.normal(size=(9, DIMENSIONS)), rng.random(9), np.ones(9))
        sums.add_usage(arm, usage_of_call(cost_usd=cost_usd, latency_s=1.0))
    known = ("dear", "mini")
    records = to_records(
        fit(sums, known), sums, policy="ridge", version=1, published_at=START, encoder=ENCODER
    )
    return None, Published.from_records(*records)
