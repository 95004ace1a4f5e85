"""Charges are booked once, whatever is delivered twice, split otherwise, or comes late."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, Engine, text

from metallm_stream.events import Decision, Result
from metallm_stream.join import Interaction
from metallm_stream.postgres import list_accounts, lock_accounts
from metallm_stream.route import Account, Budget, Charge, Pacer, record_of
from metallm_stream.serve.accountant import Accountant

if TYPE_CHECKING:
    from tests.integration.conftest import Sample
    from tests.pipeline import Pipeline

BUDGETS = [Budget("all", 0.002, "query"), Budget("team", 1.0, "day", metadata_key="team")]
Event = Decision | Result


def kept(conn: Connection, budgets: Mapping[str, Budget]) -> dict[tuple[str, str], Account]:
    """All accounts of these budgets."""
    return lock_accounts(conn, budgets, list_accounts(conn, budgets))


def booked(
    engine: Engine, batches: Iterable[Sequence[Event]], *, lost: bool = False
) -> dict[tuple[str, str], Account]:
    """The accounts after so many transactions; with `lost`, each is rolled back once and redone."""
    accountant = Accountant(BUDGETS, topic="policy", refresh_s=1.0)
    joined: dict[str, Interaction] = {}
    with engine.begin() as conn:
        conn.execute(text("DELETE FROM metallm.budget_accounts"))
    for events in batches:
        after = dict(joined)
        for event in events:
            known = after.get(event.query_id) or Interaction(event.query_id)
            after[event.query_id] = known.merged(event)
        pairs = [(joined.get(query_id), after[query_id]) for query_id in after]
        if lost:
            with engine.connect() as conn:
                accountant.book(conn, events, pairs)
                conn.rollback()
        with engine.begin() as conn:
            accountant.book(conn, events, pairs)
        joined = after
    with engine.begin() as conn:
        return kept(conn, {budget.name: budget for budget in BUDGETS})


def stream(sample: Sample) -> tuple[list[Decision], list[Result]]:
    """Ten decisions of two teams, and their results, which cost half more than expected."""
    decisions = [
        sample.decision(i, reserved_usd=0.004, metadata={"team": "red" if i % 5 else "blue"})
        for i in range(10)
    ]
    return decisions, [sample.result(i, cost_usd=0.006) for i in range(10)]


def test_reserved_becomes_spent_when_results_come(engine: Engine, sample: Sample) -> None:
    """Per budget and per team, with the position that the account has read to."""
    decisions, results = stream(sample)
    first = booked(engine, [decisions])
    assert first.keys() == {("all", ""), ("team", "red"), ("team", "blue")}
    assert first["all", ""].reserved_usd == pytest.approx(0.04)
    assert first["all", ""].next_offsets == {0: 10}
    assert (first["team", "blue"].queries, first["team", "blue"].next_offsets) == (2, {0: 10})
    both = booked(engine, [decisions, results[:6]])
    assert both["all", ""].spent_usd == pytest.approx(0.036)
    assert both["all", ""].reserved_usd == pytest.approx(0.016)
    assert both["team", "red"].spent_usd == pytest.approx(0.024)
    assert both["team", "red"].period_usd == pytest.approx(4 * 0.006 + 4 * 0.004)


def test_repetitions_and_rollbacks_change_nothing(engine: Engine, sample: Sample) -> None:
    """Twice the same records, or a transaction that is done again, book what one would."""
    decisions, results = stream(sample)
    once = booked(engine, [decisions, results])
    assert booked(engine, [decisions, decisions, results, results, decisions]) == once
    assert booked(engine, [decisions, results], lost=True) == once


def test_a_second_decision_of_a_query_is_read_and_not_charged(
    engine: Engine, sample: Sample
) -> None:
    """As the model counts it: the first one. A router that knows of it need not keep it."""
    first = sample.decision(1, reserved_usd=0.004)
    second = first.model_copy(
        update={"query_offset": 9, "decided_at": first.decided_at + timedelta(seconds=5)}
    )
    account = booked(engine, [[first], [second]])["all", ""]
    assert (account.queries, account.reserved_usd) == (1, 0.004)
    assert account.next_offsets == {0: 10}


def test_accounts_of_queries_that_were_made_anew_begin_anew(engine: Engine, sample: Sample) -> None:
    """With the first decision on the new topic that is theirs; late repetitions change nothing."""
    old = [sample.decision(i, reserved_usd=0.004, metadata={"team": "red"}) for i in range(10)]
    new = [
        sample.decision(i, reserved_usd=0.004, metadata={"team": "red"}).model_copy(
            update={"query_offset": i - 20}
        )
        for i in (20, 21)
    ]
    asked_before = old[9].model_copy(update={"query_offset": 0})
    assert booked(engine, [old, [asked_before]])["team", "red"].next_offsets == {0: 10}
    for batches in ([old, new], [old, [new[0]], [new[1], new[0]]], [[*old, *new]]):
        accounts = booked(engine, batches)
        assert accounts["all", ""].next_offsets == {0: 2}
        account = accounts["team", "red"]
        assert account.next_offsets == {0: 2}
        hard = replace(BUDGETS[1], hard=True)
        pacer = Pacer([hard])
        pacer.adopt(record_of(hard, "red", account))
        for offset in (1, 2):
            pacer.reserve({"team": "red"}, 0, offset, Charge(new[1].decided_at, 0.1))
        said = pacer.refusal({"team": "red"}, 2.0, new[1].decided_at)
        assert "budgets.team: 0.852 USD are left" in said


def test_a_learner_that_gave_a_partition_up_sets_no_account_back(
    engine: Engine, sample: Sample
) -> None:
    """What it had read of it may be of a topic that was made anew since."""
    former, owner = (Accountant(BUDGETS, topic="policy", refresh_s=1.0) for _ in range(2))

    def book(accountant: Accountant, number: int, partition: int, offset: int) -> Account:
        place = {"query_partition": partition, "query_offset": offset}
        decision = sample.decision(number).model_copy(update=place)
        with engine.begin() as conn:
            pair = (None, Interaction(decision.query_id, decision=decision))
            booked = accountant.book(conn, [decision], [pair])
        accountant.committed(booked)
        return booked["all", ""]

    book(former, 1, partition=0, offset=99)
    former.give_up([0])
    assert book(owner, 2, partition=0, offset=0).next_offsets == {0: 1}
    assert book(former, 3, partition=1, offset=5).next_offsets == {0: 1, 1: 6}


def test_an_earlier_decision_takes_the_charge_to_its_own_account(
    engine: Engine, sample: Sample
) -> None:
    """Where the same query was asked by another team before: what was charged is taken back."""
    later = sample.decision(5, reserved_usd=0.004, metadata={"team": "red"})
    earlier = sample.decision(5, reserved_usd=0.003, metadata={"team": "blue"}).model_copy(
        update={"decided_at": later.decided_at - timedelta(seconds=9)}
    )
    accounts = booked(engine, [[later], [earlier]])
    assert (accounts["team", "red"].queries, accounts["team", "red"].reserved_usd) == (0, 0.0)
    assert accounts["team", "blue"].reserved_usd == pytest.approx(0.003)
    assert accounts["all", ""].reserved_usd == pytest.approx(0.003)


def test_the_view_shows_what_an_account_holds(engine: Engine, sample: Sample) -> None:
    """Spent, reserved, what is left and the weight, one row an account."""
    decisions, results = stream(sample)
    accounts = booked(engine, [decisions, results[:6]])
    with engine.connect() as conn:
        rows = conn.execute(text("SELECT * FROM metallm.budgets")).mappings().all()
    assert [(row["budget"], row["key"]) for row in rows] == sorted(accounts)
    for row in rows:
        budget = next(item for item in BUDGETS if item.name == row["budget"])
        account = accounts[row["budget"], row["key"]]
        assert (row["per"], row["hard"], row["amount_usd"]) == (
            budget.per,
            budget.hard,
            budget.amount_usd,
        )
        assert row["committed_usd"] == pytest.approx(account.spent_usd + account.reserved_usd)
        assert row["left_usd"] == pytest.approx(account.left_usd(budget))
        assert row["weight"] == pytest.approx(account.price(budget))
        assert row["usd_per_query"] == pytest.approx(row["committed_usd"] / account.queries)


def test_another_unit_keeps_totals_and_starts_its_period_anew(
    engine: Engine, sample: Sample
) -> None:
    """From the first transaction after the settings have changed, in the account and the view."""
    decisions, results = stream(sample)
    before = booked(engine, [decisions, results])["all", ""]
    assert (before.period_usd, before.spent_usd) == (0.0, pytest.approx(0.06))
    assert before.over_usd > 0
    day = Budget("all", 0.05, "day", hard=True)
    accountant = Accountant([day], topic="policy", refresh_s=1.0)
    decision = sample.decision(11, reserved_usd=0.004)
    with engine.begin() as conn:
        anew = kept(conn, {"all": day})["all", ""]
        assert (anew.over_usd, anew.ahead_usd, anew.period_usd) == (0.0, 0.0, 0.0)
        pair = (None, Interaction("q11", decision=decision))
        accountant.book(conn, [decision], [pair])
    with engine.begin() as conn:
        after = kept(conn, {"all": day})["all", ""]
        row = conn.execute(text("SELECT * FROM metallm.budgets WHERE budget = 'all'")).one()
    assert (after.queries, after.spent_usd) == (11, before.spent_usd)
    assert after.left_usd(day) == pytest.approx(0.046)
    assert (row.per, row.left_usd) == ("day", pytest.approx(0.046))


def test_decisions_of_a_clock_that_is_behind_count_today(engine: Engine, sample: Sample) -> None:
    """Dated yesterday and read after one of today, they still leave less of the day."""
    today = sample.decision(1, reserved_usd=0.1, metadata={"team": "red"})
    behind = [
        sample.decision(i, reserved_usd=0.1, metadata={"team": "red"}).model_copy(
            update={"decided_at": today.decided_at - timedelta(days=1)}
        )
        for i in (2, 3)
    ]
    account = booked(engine, [[today], behind])["team", "red"]
    assert (account.period_usd, account.reserved_usd) == (pytest.approx(0.3), pytest.approx(0.3))
    assert account.at == today.decided_at


def test_many_accounts_are_published_in_parts(
    engine: Engine, pipeline: Pipeline, sample: Sample
) -> None:
    """Other learners wait for those that are locked meanwhile: of a million, too long."""
    accountant = Accountant(BUDGETS[1:], topic=pipeline.names.policy, refresh_s=0.0)
    decisions = [sample.decision(i, metadata={"team": f"t{i}"}) for i in range(2_500)]
    with engine.begin() as conn:
        pairs = [(None, Interaction(item.query_id, decision=item)) for item in decisions]
        accountant.committed(accountant.book(conn, decisions, pairs))
    for published in (1_000, 2_000, 2_500, 2_500):
        accountant.publish_if_due(engine, pipeline.producer)
        assert len(pipeline.read(pipeline.names.policy)) == published


def test_many_accounts_that_always_change_are_published_once_a_round(
    engine: Engine, pipeline: Pipeline, sample: Sample
) -> None:
    """Not with every transaction: routers read all of it."""
    accountant = Accountant(BUDGETS[1:], topic=pipeline.names.policy, refresh_s=600.0)
    decisions = [sample.decision(i, metadata={"team": f"t{i}"}) for i in range(1_500)]
    with engine.begin() as conn:
        pairs = [(None, Interaction(item.query_id, decision=item)) for item in decisions]
        changed = accountant.book(conn, decisions, pairs)
    for published in (1_000, 1_500, 1_500):
        accountant.committed(changed)
        accountant.publish_if_due(engine, pipeline.producer)
        assert len(pipeline.read(pipeline.names.policy)) == published


def test_without_budgets_nothing_is_booked(engine: Engine, sample: Sample) -> None:
    """No account, no row."""
    decision = sample.decision(1)
    accountant = Accountant([], topic="policy", refresh_s=1.0)
    with engine.begin() as conn:
        pair = (None, Interaction("q1", decision=decision))
        assert accountant.book(conn, [decision], [pair]) == {}
        assert conn.execute(text("SELECT count(*) FROM metallm.budget_accounts")).scalar() == 0
