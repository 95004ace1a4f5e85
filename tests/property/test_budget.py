"""However a stream is cut, doubled or delayed, budgets count the same and keep their promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metallm_stream.events import BudgetAccount, Decision, Query
from metallm_stream.policy import chooser
from metallm_stream.route import (
    Account,
    Arrival,
    Budget,
    Charge,
    Decided,
    Pacer,
    TradeOff,
    account_of,
    charge_of,
    decide,
    record_of,
)
from metallm_stream.route.budget import Per
from metallm_stream.route.pacer import UNTOLD, Reserve, counted
from tests import records
from tests.property.test_route import NOW, D, catalogue, policy
from tests.unit.test_route_budget import paced
from tests.unit.test_route_decide import ARMS
from tests.unit.test_route_decide import catalogue as models
from tests.unit.test_route_decide import policy as policy_of

AMOUNTS = st.floats(1e-4, 10)
BUDGETS = st.builds(
    Budget,
    name=st.just("b"),
    amount_usd=AMOUNTS,
    per=st.sampled_from(["query", "hour", "day"]),
    hard=st.booleans(),
)
START = datetime(2026, 3, 1, 11, 59, tzinfo=UTC)
COSTS = st.floats(0, 5)
MOMENTS = st.floats(0, 200_000).map(lambda s: START + timedelta(seconds=s))
CHARGES = st.builds(Charge, MOMENTS, COSTS, st.none() | COSTS)


def folded(budget: Budget, charges: Sequence[Charge], account: Account | None = None) -> Account:
    """The account after decisions and, where they are known, their costs."""
    account = account or Account()
    for charge in charges:
        expected = replace(charge, cost_usd=None)
        account = account.revised(budget, None, expected)
        account = account.revised(budget, expected, charge)
    return account


@given(budget=BUDGETS, charges=st.lists(CHARGES, max_size=20), cut=st.integers(0, 20))
def test_an_account_is_the_fold_of_its_charges_at_every_cut(
    budget: Budget, charges: list[Charge], cut: int
) -> None:
    """Published, read back and continued, it is what it would have been."""
    record = record_of(budget, "", folded(budget, charges[:cut]))
    restored = account_of(BudgetAccount.parse(record.encode()), budget)
    assert folded(budget, charges[cut:], restored) == folded(budget, charges)


@given(budget=BUDGETS, charges=st.lists(CHARGES, min_size=1, max_size=20))
def test_sums_are_those_of_the_charges(budget: Budget, charges: list[Charge]) -> None:
    """Spent and reserved in whatever order; prices and margins within their bounds."""
    account = folded(budget, charges)
    known = [charge.cost_usd for charge in charges if charge.cost_usd is not None]
    waiting = [charge.expected_usd for charge in charges if charge.cost_usd is None]
    assert account.queries == len(charges)
    assert account.spent_usd == pytest.approx(sum(known), abs=1e-9)
    assert account.reserved_usd == pytest.approx(sum(waiting), abs=1e-9)
    assert 0 <= account.price(budget) <= 1_000
    assert 0 < account.margin(budget) <= 0.3


@given(amount=AMOUNTS, costs=st.lists(COSTS, min_size=1, max_size=40))
def test_the_excess_of_any_run_of_queries_is_bounded_by_the_queue(
    amount: float, costs: list[float]
) -> None:
    """`over_usd` is the largest excess of any run that ends now: the reflected walk's identity."""
    budget = Budget("b", amount, "query")
    account = folded(budget, [Charge(START, cost, cost) for cost in costs])
    runs = [sum(costs[start:]) - amount * (len(costs) - start) for start in range(len(costs))]
    assert account.over_usd == pytest.approx(max(0.0, *runs), abs=1e-7)


@given(
    budget=BUDGETS,
    reserves=st.lists(st.tuples(st.integers(0, 2), CHARGES), max_size=20),
    published=st.integers(0, 20),
    dropped=st.integers(0, 2),
)
def test_a_router_that_restarts_knows_what_it_knew(
    budget: Budget, reserves: list[tuple[int, Charge]], published: int, dropped: int
) -> None:
    """Account and tail of decisions give the same price, whatever of the tail it counts already."""
    items = [
        Reserve(partition, offset, replace(charge, cost_usd=None))
        for offset, (partition, charge) in enumerate(reserves)
    ]
    account = Account()
    for item in items[:published]:
        account = counted(account, budget, item)
    whole, again = Pacer([budget]), Pacer([budget])
    for item in items:
        whole.reserve({}, item.partition, item.offset, item.charge)
    whole.adopt(record_of(budget, "", account))
    again.adopt(record_of(budget, "", account))
    for item in items:
        again.reserve({}, item.partition, item.offset, item.charge)
    now = START + timedelta(days=4)
    assert again.weight({}, now) == whole.weight({}, now)
    whole.give_up(dropped)
    for item in items:
        if item.partition == dropped:
            whole.reserve({}, item.partition, item.offset, item.charge)
    kept = [i for i in items[published:] if i.partition != dropped]
    moved = [i for i in items[published:] if i.partition == dropped]
    expected = account
    for item in kept + moved:
        expected = counted(expected, budget, item)
    price = expected.at_time(budget, now).price(budget)
    assert whole.weight({}, now) == pytest.approx(price)


@given(
    per=st.sampled_from(["hour", "day"]),
    steps=st.lists(
        st.tuples(st.floats(0, 20_000), st.floats(0, 100_000), st.floats(0, 1), st.booleans()),
        min_size=1,
        max_size=60,
    ),
)
def test_clocks_that_are_behind_spend_no_more_than_a_hard_budget(
    per: Per, steps: list[tuple[float, float, float, bool]]
) -> None:
    """Whatever routers take the time to be, and whenever the learner publishes what they spent."""
    budget, one = Budget("b", 1.0, per, hard=True), np.ones(1, bool)
    pacer, account, now = Pacer([budget]), Account(), START
    newest, spent = START, dict[int, float]()
    for offset, (later, behind, cost, publishes) in enumerate(steps):
        now += timedelta(seconds=later)
        told = now - timedelta(seconds=behind)
        newest = told if offset == 0 else max(newest, told)
        fits = pacer.limited({}, one, np.array([cost]), one, told).any()
        charge = Charge(told, cost if fits else 0.0)
        pacer.reserve({}, 0, offset, charge)
        account = counted(account, budget, Reserve(0, offset, charge))
        period = budget.period(newest)
        spent[period] = spent.get(period, 0.0) + charge.expected_usd
        if publishes:
            pacer.adopt(record_of(budget, "", account))
    assert max(spent.values()) <= budget.amount_usd + 1e-9
    assert account.reserved_usd == pytest.approx(sum(spent.values()))


@given(charges=st.lists(CHARGES, max_size=20), per=st.sampled_from(["query", "hour", "day"]))
def test_what_a_query_costs_adds_up_in_a_period_only_where_there_are_some(
    charges: list[Charge], per: Per
) -> None:
    """By the query never; and in another unit an account of any past has spent nothing yet."""
    by_query, other = Budget("b", 1.0, "query"), Budget("b", 1.0, per)
    account = folded(by_query, charges)
    assert account.period_usd == 0
    read = account_of(record_of(by_query, "", account), other)
    assert (read.queries, read.spent_usd) == (account.queries, account.spent_usd)
    assert per == "query" or read.left_usd(other) == other.amount_usd


def decided(pacer: Pacer | None, queries: list[Query], seed: int) -> list[Decided]:
    """A batch under budgets."""
    rng = np.random.default_rng(seed)
    return decide(
        [Arrival(query, 0, row, NOW) for row, query in enumerate(queries)],
        rng.normal(size=(len(queries), D)).astype(np.float32),
        catalogue=catalogue(dict.fromkeys("abcde")),
        published=policy(seed),
        chooser=chooser(),
        defaults=TradeOff(0.1, 0.1, 5.0),
        rng=rng,
        now=NOW,
        encoder="e",
        pacer=pacer,
    )


@given(
    kinds=st.lists(st.tuples(st.floats(0.001, 1), st.booleans(), st.integers(1, 4)), max_size=3),
    rounds=st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.booleans()), max_size=25),
    per=st.sampled_from(["query", "hour", "day"]),
)
@settings(max_examples=25)
def test_a_hard_budget_of_arms_that_nobody_knows_holds_and_never_stands_still(
    kinds: list[tuple[float, bool, int]], rounds: list[tuple[int, bool, bool]], per: Per
) -> None:
    """Whatever arms cost, whoever tells it and when, and however queries come and are learned.

    Beyond the amount goes what a few calls of each arm cost, before anybody knew that.
    """
    arms = dict(zip(ARMS, kinds, strict=False))
    budget = Budget("b", 1.0 if per != "query" else 1.0 / 7.5, per, hard=True)
    pacer, account, offset, spent, answered = Pacer([budget]), Account(), 0, 0.0, 0
    waiting: list[tuple[int, Decision]] = []  # and the round in which it is answered
    calls = dict.fromkeys(arms, 0)
    policies = [policy_of(arms=tuple(arms), **known(arms, calls))]  # is learned a round later
    for number, (count, learns, is_late) in enumerate([*rounds, *[(4, True, False)] * 12]):
        queries = [Query(query_id=str(offset + row), text="t") for row in range(count)]
        for item in paced(
            pacer, *queries, offset=offset, arms=models(tuple(arms)), published=policies[-1]
        ):
            account = account.revised(budget, None, charge_of(item.decision, None))
            if item.decision.arm is not None:
                answered += number >= len(rounds)
                rounds_later = arms[item.decision.arm][2] + 3 * is_late
                waiting.append((number + rounds_later, item.decision))
        offset += count
        if not learns:
            continue
        policies = [policy_of(arms=tuple(arms), **known(arms, calls))]
        for decision in [decision for until, decision in waiting if until <= number]:
            usd, tells, _ = arms[str(decision.arm)]
            told = records.attempt(str(decision.arm), cost_usd=usd if tells else None)
            result = records.result(
                "q", decision.arm, attempts=(told,), cost_usd=told.cost_usd or 0.0
            )
            before, after = charge_of(decision, None), charge_of(decision, result)
            account = account.revised(budget, before, after)
            spent += result.cost_usd
            calls[str(decision.arm)] += 1
        waiting = [(until, decision) for until, decision in waiting if until > number]
        pacer.adopt(record_of(budget, "", replace(account, next_offsets={0: offset})))
    if per != "query":
        assert spent <= budget.amount_usd + sum(UNTOLD * usd for usd, tells, _ in kinds if tells)
    if arms and account.left_usd(budget) > max(usd for usd, _, _ in kinds):
        assert answered
    assert sum(account.untold.values()) <= len(waiting)


def known(arms: Mapping[str, tuple[float, bool, int]], calls: Mapping[str, int]) -> dict[str, Any]:
    """What is learned of arms that were called so often: those that tell it, what they cost."""
    return {
        arm: {"calls": calls[arm], "cost_usd": usd if tells and calls[arm] else None}
        for arm, (usd, tells, _) in arms.items()
    }


QUERIES = st.lists(
    st.builds(
        Query,
        query_id=st.just("q"),
        text=st.just("t"),
        metadata=st.fixed_dictionaries({}, optional={"team": st.sampled_from("rb")}),
    ),
    max_size=12,
)


@given(queries=QUERIES, budgets=st.lists(BUDGETS, max_size=3), seed=st.integers(0, 2**32 - 1))
def test_propensities_under_budgets_are_those_of_the_draw(
    queries: list[Query], budgets: list[Budget], seed: int
) -> None:
    """Candidates sum to 1, the drawn arm has its probability, and refusals come of hard budgets."""
    named = [replace(budget, name=f"b{row}") for row, budget in enumerate(budgets)]
    for item in decided(Pacer(named), queries, seed):
        decision = item.decision
        if decision.refusal is not None:
            assert any(budget.hard for budget in named)
            assert decision.refusal.message.startswith("budgets.b")
            continue
        probabilities = {c.arm: c.probability for c in decision.candidates}
        assert sum(probabilities.values()) == pytest.approx(1.0)
        assert decision.arm is not None
        assert probabilities[decision.arm] == decision.propensity


@given(queries=QUERIES, seed=st.integers(0, 2**32 - 1))
def test_budgets_that_do_not_bind_change_no_decision(queries: list[Query], seed: int) -> None:
    """Same arms, same probabilities, for the same state of the generator."""
    pacer = Pacer([Budget("b", 1e6, "query"), Budget("c", 1e6, "query", "team", hard=True)])
    for free, held in zip(decided(None, queries, seed), decided(pacer, queries, seed), strict=True):
        assert held.decision.budget_weight == 0
        assert held.decision.arm == free.decision.arm
        assert held.ranking == free.ranking
        assert {c.arm: c.probability for c in held.decision.candidates} == pytest.approx(
            {c.arm: c.probability for c in free.decision.candidates}
        )
