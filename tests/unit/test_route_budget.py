"""Budgets: what a window is, what is left, what spending costs, and who is refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from metallm_stream.arms import Catalogue
from metallm_stream.events import (
    BudgetAccount,
    Candidate,
    Decision,
    Failure,
    FailureKind,
    Generation,
    Model,
    Price,
    Query,
    Result,
)
from metallm_stream.policy import Published, chooser
from metallm_stream.route import (
    Account,
    Arrival,
    Budget,
    Charge,
    Decided,
    Pacer,
    SoleAccount,
    TradeOff,
    account_of,
    charge_of,
    decide,
    record_of,
    reservation,
)
from metallm_stream.route.budget import Per
from metallm_stream.route.outlook import Outlook
from metallm_stream.route.pacer import UNTOLD, Reserve, counted
from tests import records
from tests.unit.test_route_decide import ARMS, COST, ENCODER, ask, catalogue, policy

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ALL = Budget("all", 0.004, "query")


def at(**later: float) -> datetime:
    return NOON + timedelta(**later)


def paced(
    pacer: Pacer | None,
    *queries: Query,
    now: datetime = NOON,
    seed: int = 1,
    offset: int = 0,
    arms: Catalogue | None = None,
    published: Published | None = None,
) -> list[Decided]:
    """Decide queries that stand one after the other, under budgets."""
    return decide(
        [Arrival(query, 0, row, now) for row, query in enumerate(queries, offset)],
        np.zeros((len(queries), 2), np.float32),
        catalogue=catalogue() if arms is None else arms,
        published=policy() if published is None else published,
        chooser=chooser(),
        defaults=TradeOff(0.0, 0.0, 10.0),
        rng=np.random.default_rng(seed),
        now=now,
        encoder=ENCODER,
        pacer=pacer,
    )


def asked(count: int, **fields: Any) -> list[Query]:
    return [ask(query_id=str(number), **fields) for number in range(count)]


def spent(decided: list[Decided]) -> float:
    """Mean cost of the arms that were drawn."""
    return float(np.mean([COST[str(item.decision.arm)] for item in decided]))


def test_a_budget_that_is_not_above_zero_is_refused() -> None:
    """Nothing can be paced by it."""
    for amount in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="amount_usd of 'all' must be above 0"):
            Budget("all", amount, "day")


def test_each_value_of_the_metadata_key_has_an_account() -> None:
    """Queries without the key share one, so that leaving it out is no way around the budget."""
    budget = Budget("team", 1.0, "hour", metadata_key="team")
    assert budget.account_key({"team": "red", "tier": "gold"}) == "red"
    assert budget.account_key({"tier": "gold"}) == ""
    assert ALL.account_key({"team": "red"}) == ""


def test_a_long_metadata_value_has_a_short_key_of_its_own() -> None:
    """PostgreSQL cannot index 3 kB: a prefix and a digest stand for a value above 500 bytes."""
    budget = Budget("team", 1.0, "hour", metadata_key="team")
    longest = "\u6f22" * 1_023
    keys = {budget.account_key({"team": longest + end}) for end in ("", "a", "b")}
    assert len(keys) == 3
    assert all(key.startswith("\u6f22" * 166) for key in keys)
    assert all(500 < len(key.encode()) < 600 for key in keys)
    assert all(budget.account_key({"team": key}) not in keys for key in keys)
    assert budget.account_key({"team": "x" * 500}) == "x" * 500


def test_a_charge_counts_as_expected_until_its_cost_is_known() -> None:
    """Reserved becomes spent, and both queues move by the difference."""
    expected = Charge(NOON, 0.010)
    account = Account().revised(ALL, None, expected)
    assert (account.queries, account.spent_usd, account.reserved_usd) == (1, 0.0, 0.010)
    assert account.over_usd == pytest.approx(0.006)
    booked = account.revised(ALL, expected, Charge(NOON, 0.010, 0.025))
    assert (booked.queries, booked.spent_usd, booked.reserved_usd) == (1, 0.025, 0.0)
    assert booked.over_usd == pytest.approx(0.021)
    assert booked.reserved_squares == pytest.approx(0.0)
    assert booked.price(ALL) > account.price(ALL) > 0


def test_what_was_not_spent_is_not_saved_for_later() -> None:
    """After a thousand cheap queries the first dear ones count as they would at the start."""
    account = Account()
    for _ in range(1_000):
        account = account.revised(ALL, None, Charge(NOON, 0.001, 0.001))
    assert (account.over_usd, account.ahead_usd, account.price(ALL)) == (0.0, 0.0, 0.0)


def test_a_taken_back_charge_leaves_the_sums_as_they_were() -> None:
    """As when an earlier decision of the same query turns up with other metadata."""
    first = Account().revised(ALL, None, Charge(NOON, 0.010, 0.011))
    again = first.revised(ALL, None, Charge(NOON, 0.010)).revised(ALL, Charge(NOON, 0.010), None)
    assert (again.queries, again.spent_usd, again.reserved_usd) == (1, 0.011, 0.0)


def test_a_sole_account_is_the_pacers_over_restarts() -> None:
    """Price and what fits are those of a pacer that knows every decision and published cost."""
    costs, known = np.array([0.010, 0.001]), np.array([True, True])
    sole, account, charges = SoleAccount(0.004), Account(), []
    for query in range(90):
        if query % 20 == 0:
            published = replace(account, next_offsets={0: query})
        pacer = Pacer([ALL])
        pacer.adopt(record_of(ALL, "", published))
        for offset, charge in enumerate(charges):
            pacer.reserve({}, 0, offset, charge)
        if query % 7 == 3:
            sole.restart()
        weight, fits = sole.limit(costs, known)
        assert weight == pytest.approx(pacer.weight({}, NOON))
        assert fits.tolist() == pacer.limited({}, known, costs, known, NOON).tolist()
        charges.append(Charge(NOON, 0.010 if fits[0] else 0.001))
        sole.reserve(charges[-1].expected_usd)
        account = account.revised(ALL, None, charges[-1])
        if query >= 5:
            before = charges[query - 5]
            sole.book(query - 5, 0.003)
            account = account.revised(ALL, before, replace(before, cost_usd=0.003))
    assert {charge.expected_usd for charge in charges} == {0.010, 0.001}


def test_hours_and_days_start_anew() -> None:
    """What is left of a day is the amount less what its own queries have cost."""
    day = Budget("day", 1.0, "day")
    account = Account().revised(day, None, Charge(NOON, 0.4, 0.4))
    assert account.left_usd(day) == pytest.approx(0.6)
    late = account.revised(day, None, Charge(at(hours=11), 0.5, 0.5))
    assert late.left_usd(day) == pytest.approx(0.1)
    assert late.at_time(day, at(hours=12)).left_usd(day) == pytest.approx(1.0)
    corrected = late.revised(day, Charge(at(hours=11), 0.5, 0.5), Charge(at(hours=11), 0.5, 0.7))
    assert corrected.left_usd(day) == pytest.approx(-0.1)
    morrow = corrected.revised(day, None, Charge(at(hours=13), 0.2, 0.2))
    assert morrow.left_usd(day) == pytest.approx(0.8)
    late_cost = morrow.revised(day, Charge(NOON, 0.4, 0.4), Charge(NOON, 0.4, 0.9))
    assert late_cost.left_usd(day) == pytest.approx(0.8)


def test_a_decision_that_is_read_late_counts_in_the_period_of_the_account() -> None:
    """The totals have all of it; what its cost differs by belongs to the hour of its date."""
    hour = Budget("hour", 1.0, "hour")
    account = Account().revised(hour, None, Charge(at(minutes=5), 0.1))
    late = Charge(at(minutes=-10), 0.2)
    account = account.revised(hour, None, late)
    assert (account.at, account.queries) == (at(minutes=5), 2)
    assert account.left_usd(hour) == pytest.approx(0.7)
    known = account.revised(hour, late, replace(late, cost_usd=0.5))
    assert known.left_usd(hour) == pytest.approx(0.7)
    assert (known.spent_usd, known.reserved_usd) == (0.5, pytest.approx(0.1))
    assert known.over_usd == pytest.approx(account.over_usd + 0.3)


def test_a_router_whose_clock_is_behind_keeps_to_a_hard_budget() -> None:
    """After a charge by one whose clock is right, calls dated 40 minutes before count as well."""
    hour = Budget("hour", 1.0, "hour", hard=True)
    behind, cost, one = at(minutes=-10), 1 / 64, np.ones(1, bool)
    account = Account().revised(hour, None, Charge(at(minutes=30), cost, cost))
    pacer, allowed = Pacer([hour]), 0
    pacer.adopt(record_of(hour, "", account))
    for offset in range(5_000):
        if pacer.limited({}, one, np.array([cost]), one, behind).any():
            charge = Charge(behind, cost)
            pacer.reserve({}, 1, offset, charge)
            account = counted(account, hour, Reserve(1, offset, charge))
            account = account.revised(hour, charge, replace(charge, cost_usd=cost))
            allowed += 1
        if offset % 7 == 0:  # the learner has read what was decided so far
            pacer.adopt(record_of(hour, "", account))
    assert allowed == 63
    assert account.spent_usd == hour.amount_usd
    assert "free again at 2026-03-01T13:00:00Z" in pacer.refusal({}, cost, behind)
    assert pacer.limited({}, one, np.array([cost]), one, at(minutes=60)).all()


def test_a_budget_by_the_query_has_no_period() -> None:
    """Nothing adds up for as long as it lives; what an earlier record has added up is dropped."""
    account = Account()
    for _ in range(3):
        account = account.revised(ALL, None, Charge(NOON, 0.01))
        account = account.revised(ALL, Charge(NOON, 0.01), Charge(NOON, 0.01, 0.02))
    assert account.period_usd == 0
    earlier = record_of(ALL, "", account).model_copy(update={"per": None, "period_usd": 7.0})
    assert account_of(earlier, ALL) == account


def test_another_unit_starts_anew_and_keeps_the_totals() -> None:
    """A budget that was by the query refuses nothing on the first day, whatever it has spent."""
    account = Account(900, 9.0, 0.25, 0.1, 0.2, 0.3, NOON, 0.01, 0.02, 0.03, {3: 17})
    units = [Budget("all", 1.0, per, hard=True) for per in ("query", "hour", "day")]
    for old in units:
        record = BudgetAccount.parse(record_of(old, "", account).encode())
        for new in units:
            if old != new:
                anew = replace(account, over_usd=0.0, ahead_usd=0.0, period_usd=0.0)
                assert account_of(record, new) == anew
    pacer = Pacer([units[-1]])
    pacer.adopt(record_of(units[0], "", replace(account, period_usd=9.0)))
    assert pacer.limited({}, np.ones(1, bool), np.array([0.9]), np.ones(1, bool), NOON).all()
    assert pacer.weight({}, NOON) == 0
    unknown = record_of(units[-1], "", account).model_copy(update={"per": None})
    assert account_of(unknown, units[-1]) == account


@pytest.mark.parametrize("old", [None, Budget("all", 1.0, "hour")])
def test_calls_in_flight_from_before_a_budget_was_set_give_it_no_more_than_its_amount(
    old: Budget | None,
) -> None:
    """Their expected cost is in no sum of it, so that they cost less than that frees nothing."""
    day, calls = Budget("all", 1.0, "day", hard=True), [Charge(NOON, 0.1) for _ in range(5)]
    account = Account()
    for call in calls if old is not None else []:
        account = account.revised(old or day, None, call)
    account = account_of(record_of(old or day, "", account), day)
    account = account.revised(day, None, Charge(at(minutes=1), 0.2, 0.2))
    for call in calls:
        account = account.revised(day, call, replace(call, cost_usd=0.01))
    assert account.left_usd(day) <= day.amount_usd
    assert account.spent_usd == pytest.approx(0.25)


def test_time_alone_lowers_the_price() -> None:
    """Under a budget by the hour, spending that is ahead is caught up with by waiting."""
    hour = Budget("hour", 1.0, "hour")
    account = Account().revised(hour, None, Charge(NOON, 0.05, 0.05))
    prices = [account.at_time(hour, at(minutes=m)).price(hour) for m in (0, 1, 2, 4)]
    assert prices == sorted(prices, reverse=True)
    assert prices[0] > 0
    assert prices[-1] == 0


@pytest.mark.parametrize(("per", "night", "fraction"), [("day", 9, 24), ("hour", 0.375, 1)])
def test_what_a_period_has_not_spent_is_saved_and_freed_little_by_little(
    per: Per, night: float, fraction: float
) -> None:
    """Spending faster than the pace after a quiet night is free, but no minute gets it all."""
    budget, start = Budget("b", 48.0, per), NOON.replace(hour=0)
    opened = Account().revised(budget, None, Charge(start, 0.01, 0.01))
    morning = start + timedelta(hours=night)
    steady = burst = opened
    for number in range(60):  # at three times the pace, for a twenty-fourth of the period
        moment = morning + timedelta(hours=number * fraction / 24 / 60)
        steady = steady.revised(budget, None, Charge(moment, 0.1, 0.1))
        assert steady.price(budget) < 0.1
        burst = burst.revised(budget, None, Charge(morning, 0.1, 0.1))
    assert burst.price(budget) == 1_000
    evening = steady.at_time(budget, start + timedelta(hours=fraction))
    assert evening.period_usd == 0
    assert evening.revised(budget, None, Charge(evening.at or NOON, 2.0)).price(budget) > 1


@pytest.mark.parametrize(("hours", "share"), [(24, 0.95), (8, 0.67), (4, 0.5), (1, 0.25)])
def test_a_day_whose_traffic_comes_in_some_hours_spends_most_of_its_budget(
    hours: int, share: float
) -> None:
    """2,500 queries of two arms; the dear one, which is the better by 0.3, would cost it all."""
    budget, account, spent_usd = Budget("b", 50.0, "day"), Account(), 0.0
    rng, queries = np.random.default_rng(0), 2_500
    for number in range(queries):
        now = NOON.replace(hour=9 if hours < 24 else 0) + timedelta(hours=hours * number / queries)
        price = account.at_time(budget, now).price(budget)
        cost_usd = 0.04 if 0.3 + rng.normal(0, 0.14) > 0.95 * price else 0.002
        reserved, paid = Charge(now, cost_usd), Charge(now, cost_usd, cost_usd)
        account = account.revised(budget, None, reserved).revised(budget, reserved, paid)
        spent_usd += cost_usd
    assert spent_usd == pytest.approx(share * budget.amount_usd, rel=0.1)


def test_the_target_stays_further_below_when_more_is_in_flight() -> None:
    """Costs that come late and vary need more room than those that are known at once."""
    known = waiting = Account()
    for number in range(200):
        cost = 0.001 if number % 2 else 0.007
        known = known.revised(ALL, None, Charge(NOON, 0.004, cost))
        waiting = waiting.revised(ALL, None, Charge(NOON, 0.004))
    assert 0 < known.margin(ALL) < waiting.margin(ALL) <= 0.3


def test_an_account_survives_the_wire() -> None:
    """Positions included, whose partitions are numbers in Python and texts in JSON."""
    day = Budget("day", 1.0, "day")
    account = Account(1, 0.5, 0.25, 0.1, -0.1, 0.3, NOON, 0.01, 0.02, 0.03, {3: 17, 0: 4})
    record = BudgetAccount.parse(record_of(day, "red", account).encode())
    assert (record.budget, record.key, record.per) == ("day", "red", "day")
    assert account_of(record, day) == account


def test_a_call_of_unknown_cost_is_charged_as_expected() -> None:
    """Never as nothing; what failed tries have cost comes on top."""
    decision = records.decision(reserved_usd=0.002)
    told = records.attempt(cost_usd=0.001, failure=records.FAILED)
    untold = records.attempt(cost_usd=None)
    result = records.result(attempts=(told, untold), cost_usd=0.001)
    assert charge_of(decision, result) == Charge(decision.decided_at, 0.002, 0.003)
    assert charge_of(decision, None) == Charge(decision.decided_at, 0.002, untold_arm="mini")
    assert charge_of(None, result) is None
    candidates = (Candidate(arm="mini", probability=1.0, cost_usd=0.5),)
    before_budgets = records.decision(candidates=candidates)
    assert charge_of(before_budgets, None) == Charge(decision.decided_at, 0.5)


@pytest.mark.parametrize(
    ("kind", "tokens", "charged_usd"),
    [
        ("timeout", None, 0.003),
        ("deadline", None, 0.003),
        ("superseded", None, 0.003),
        ("malformed_answer", None, 0.003),
        ("connection", None, 0.003),
        ("rate_limited", None, 0.001),
        ("bad_request", None, 0.001),
        ("refused", None, 0.001),
        ("refused", 0, 0.001),
        ("refused", 10, 0.003),
    ],
)
def test_a_failed_try_that_may_have_been_billed_is_charged_as_expected(
    kind: FailureKind, tokens: int | None, charged_usd: float
) -> None:
    """Once a query, unless the vendor told its cost."""
    decision = records.decision(reserved_usd=0.002)
    failure = Failure(kind=kind, message="by the test")
    untold = records.attempt(cost_usd=None, failure=failure, input_tokens=tokens)
    told = records.attempt(cost_usd=0.001, failure=failure)
    charges = [
        charge_of(decision, records.result(attempts=attempts, cost_usd=0.001))
        for attempts in ((told, untold, untold), (told,))
    ]
    assert charges == [
        Charge(decision.decided_at, 0.002, pytest.approx(cost_usd))  # type: ignore[arg-type]
        for cost_usd in (charged_usd, 0.001)
    ]


@pytest.mark.parametrize(
    ("own", "cost_usd", "untold", "charged_usd"),
    [
        ([("mini", None)], None, [("mini", 0.01)], 0.01),
        ([("mini", None)], 0.002, [("mini", 0.01)], 0.01),
        ([("mini", 0.0)], 0.0, [("mini", 0.01), ("mini", 0.02)], 0.03),
        ([("mini", None)], 0.002, [("mini", None)], 0.002),
        ([("mini", 0.002)], 0.002, [("mini", 0.01), ("mini", 0.01)], 0.002),
        ([("mini", 0.002), ("big", None)], 0.002, [("mini", 0.01), ("big", 0.05)], 0.052),
    ],
)
def test_what_nobody_tells_of_an_arm_of_unknown_cost_is_charged_as_it_costs_at_most(
    own: list[tuple[str, float | None]],
    cost_usd: float | None,
    untold: list[tuple[str, float | None]],
    charged_usd: float,
) -> None:
    """Each try of it, where a price is known; where a cost was expected of its arm, that counts."""
    decision = records.decision(
        candidates=[Candidate(arm=arm, probability=0.5, cost_usd=usd) for arm, usd in own],
        reserved_usd=cost_usd,
    )
    attempts = [records.attempt(arm, cost_usd=None, at_most_usd=usd) for arm, usd in untold]
    told = records.attempt("maxi", cost_usd=0.1)
    result = records.result(attempts=(*attempts, told), cost_usd=0.1)
    charge = charge_of(Decision.parse(decision.encode()), Result.parse(result.encode()))
    assert charge is not None
    assert charge.cost_usd == pytest.approx(0.1 + charged_usd)


def test_a_hard_budget_holds_where_no_host_tells_tokens() -> None:
    """Nothing is ever expected there, but each answer is charged as it costs at most."""
    budget, account = Budget("day", 0.095, "day", hard=True), Account()
    price = Price(input_usd_per_mtok=1_000, output_usd_per_mtok=1_000)
    arms = catalogue(**{arm: {"price": price} for arm in ARMS})
    silent = policy(**{arm: {"cost_usd": None} for arm in ARMS})
    pacer, answered = Pacer([budget]), 0
    for offset in range(50):
        pacer.adopt(record_of(budget, "", replace(account, next_offsets={0: offset})))
        (item,) = paced(
            pacer, ask(query_id=str(offset)), offset=offset, arms=arms, published=silent
        )
        decision = item.decision
        charge = charge_of(decision, None)
        account = account.revised(budget, None, charge)
        if decision.arm is not None:
            answered += 1
            untold = records.attempt(decision.arm, cost_usd=None, at_most_usd=0.01)
            result = records.result(str(offset), decision.arm, attempts=(untold,))
            account = account.revised(budget, charge, charge_of(decision, result))
    assert answered == 10
    assert account.spent_usd == pytest.approx(0.1)


def arms_asked(decided: list[Decided]) -> dict[str | None, int]:
    """How many queries each arm was given; None: refused."""
    return Counter(item.decision.arm for item in decided)


def test_a_burst_before_any_cost_is_known_gives_each_arm_a_few_calls() -> None:
    """Of a hard budget, with a reason, until an answer has told; a soft one holds nobody back."""
    unknown = {"cost_usd": None, "calls": 4.0, "failure_rate": 1.0}
    failing = policy(**dict.fromkeys(ARMS, unknown))

    def burst(published: Published | None, *, hard: bool) -> list[Decided]:
        pacer = Pacer([Budget("day", 0.01, "day", hard=hard)])
        queries = asked(400)
        return decide(
            [Arrival(query, 0, row, NOON) for row, query in enumerate(queries)],
            np.zeros((len(queries), 2), np.float32),
            catalogue=catalogue(),
            published=published,
            chooser=chooser(),
            defaults=TradeOff(0.0, 0.0, 10.0),
            rng=np.random.default_rng(1),
            now=NOON,
            encoder=ENCODER,
            pacer=pacer,
        )

    for published in (None, failing):
        held = burst(published, hard=True)
        assert arms_asked(held) == {None: 400 - 3 * UNTOLD, **dict.fromkeys(ARMS, UNTOLD)}
        refusal = held[-1].decision.refusal
        assert refusal is not None
        assert "nobody knows yet what a call costs, and 30 are open; ask again" in refusal.message
        assert arms_asked(burst(published, hard=False)).get(None) is None


def test_a_burst_of_priced_arms_is_given_as_much_as_fits_if_each_answer_is_the_longest() -> None:
    """A prompt of four characters and 996 tokens at 100 USD a million cost 0.1 USD at most."""
    price = Price(input_usd_per_mtok=100, output_usd_per_mtok=100)
    silent = policy(**{arm: {"cost_usd": None, "calls": 0.0} for arm in ARMS})
    for fields, query in (
        ({"max_output_tokens": 996}, {}),
        ({"context_window_tokens": 996}, {}),
        ({}, {"generation": Generation(max_output_tokens=996)}),
    ):
        arms = catalogue(big={"price": price, **fields})
        pacer = Pacer([Budget("day", 5.0, "day", hard=True)])
        queries = asked(400, models=("big",), **query)
        decided = paced(pacer, *queries, arms=arms, published=silent)
        assert arms_asked(decided) == {"big": 50, None: 350}


def test_a_new_arm_of_unknown_cost_is_given_a_few_calls_beside_others() -> None:
    """The dearest one's cost is reserved for it, and it may cost far more."""
    published = policy(mid={"cost_usd": None, "calls": 0.0})
    pacer = Pacer([Budget("day", 50.0, "day", hard=True)])
    decided = paced(pacer, *asked(400, models=("mid", "mini")), published=published)
    assert arms_asked(decided) == {"mid": UNTOLD, "mini": 400 - UNTOLD}


def test_an_arm_whose_cost_nobody_tells_flows_once_it_has_answered() -> None:
    """Without a price there is nothing to hold it to."""
    silent = policy(**{arm: {"cost_usd": None, "calls": 1.0} for arm in ARMS})
    pacer = Pacer([Budget("day", 0.01, "day", hard=True)])
    assert arms_asked(paced(pacer, *asked(400), published=silent)).get(None) is None


def test_calls_that_nobody_ends_hold_back_their_own_arm_for_an_hour() -> None:
    """A provider without a worker: others go on, and it is asked anew, for it may be back."""
    silent = policy(**{arm: {"cost_usd": None, "calls": 0.0} for arm in ARMS})
    for per in ("query", "hour", "day"):
        budget, account = Budget("b", 0.1, per, hard=True), Account()
        for minute in (5, 55, 65):
            pacer = Pacer([budget])
            pacer.adopt(record_of(budget, "", replace(account, next_offsets={0: minute * 100})))
            decided = paced(
                pacer,
                *asked(60),
                offset=minute * 100,
                now=at(minutes=minute),
                published=silent,
            )
            for item in decided:
                charge = charge_of(item.decision, None)
                account = account.revised(budget, None, charge)
                if item.decision.arm not in (None, "big"):
                    result = records.result("0", str(item.decision.arm), cost_usd=0.0)
                    account = account.revised(budget, charge, charge_of(item.decision, result))
            free = 10 if minute == 55 else 20
            assert arms_asked(decided)["mini"] == UNTOLD
            assert arms_asked(decided).get("big", 0) == (0 if minute == 55 else UNTOLD)
            assert arms_asked(decided)[None] == 60 - free - UNTOLD
            assert account.untold == {"big": UNTOLD}


def test_spending_comes_down_to_the_budget_and_the_weight_is_told() -> None:
    """Without the budget nearly all would go to the dearest arm."""
    free = paced(None, *asked(600))
    assert spent(free) > 0.9 * COST["big"]
    assert free[0].decision.budget_weight is None
    held = paced(Pacer([ALL]), *asked(600))
    assert 0.6 * ALL.amount_usd < spent(held[100:]) <= 1.02 * ALL.amount_usd
    decision = held[-1].decision
    assert decision.budget_weight is not None
    assert decision.budget_weight > 0
    assert decision.cost_weight == 0
    assert decision.reserved_usd == pytest.approx(COST[str(decision.arm)])
    for candidate in decision.candidates:
        assert candidate.quality is not None
        price = decision.budget_weight * COST[candidate.arm] / COST["big"]
        assert candidate.utility == pytest.approx(candidate.quality - price)
    assert Decision.parse(decision.encode()) == decision


def test_every_team_keeps_its_own_budget() -> None:
    """One that asks much does not take from one that asks little."""
    pacer = Pacer([Budget("team", ALL.amount_usd, "query", metadata_key="team")])
    queries = [
        ask(query_id=str(n), metadata={"team": "blue" if n % 10 == 0 else "red"})
        for n in range(800)
    ]
    decided = paced(pacer, *queries)
    for team in ("red", "blue"):
        own = [item for item in decided if item.decision.metadata["team"] == team]
        assert spent(own[30:]) <= 1.1 * ALL.amount_usd
        assert spent(own[30:]) > 0.6 * ALL.amount_usd


def test_a_budget_by_the_hour_is_spent_evenly_and_not_exceeded() -> None:
    """Two hours with a query a second, by whose wish alone twice the amount would be spent."""
    hour = Budget("hour", 18.0, "hour")
    pacer = Pacer([hour])
    costs, quality, rng = np.array([0.01, 0.001]), np.array([0.9, 0.7]), np.random.default_rng(3)
    quarters = np.zeros(8)
    for second in range(7_200):
        now = at(seconds=second)
        fits = pacer.limited({}, np.ones(2, bool), costs, np.ones(2, bool), now)
        utility = quality + rng.normal(0, 0.1, 2) - pacer.weight({}, now) * costs / costs.max()
        cost = float(costs[np.argmax(np.where(fits, utility, -np.inf))])
        pacer.reserve({}, 0, second, Charge(now, cost))
        quarters[second // 900] += cost
    assert quarters.max() <= 0.27 * hour.amount_usd
    assert quarters.min() >= 0.18 * hour.amount_usd
    assert max(quarters[:4].sum(), quarters[4:].sum()) <= hour.amount_usd


def test_several_budgets_hold_at_once() -> None:
    """The tightest decides."""
    wide, tight = Budget("wide", 0.008, "query"), Budget("tight", 0.002, "query")
    assert spent(paced(Pacer([wide, tight]), *asked(600))[100:]) <= 1.02 * tight.amount_usd


def test_a_soft_budget_leaves_the_cheapest_arm() -> None:
    """Of those that the query allows, whatever has been spent."""
    pacer = Pacer([Budget("day", 0.001, "day")])
    pacer.reserve({}, 1, 0, Charge(NOON, 5.0))
    for fields, arm in (({}, "mini"), ({"models": ("big", "mid")}, "mid")):
        (item,) = paced(pacer, ask(**fields))
        assert (item.decision.arm, item.decision.propensity) == (arm, 1.0)
        assert [model.arm for model in item.ranking] == [arm]


def test_a_hard_budget_refuses_and_tells_when_it_frees() -> None:
    """The refusal names the budget, whose it is, what is left and what the cheapest arm costs."""
    budget = Budget("teams", 0.1, "day", metadata_key="team", hard=True)
    pacer = Pacer([budget])
    pacer.reserve({"team": "red"}, 1, 0, Charge(NOON, 0.0995, 0.0995))
    (item,) = paced(pacer, ask(metadata={"team": "red"}))
    assert item.ranking == ()
    assert item.decision.refusal is not None
    assert item.decision.refusal.kind == "no_arm"
    assert item.decision.refusal.message == (
        "budgets.teams: 0.0005 USD are left of team 'red' of 0.1 USD a day, the cheapest arm is"
        " expected to cost 0.001 USD; free again at 2026-03-02T00:00:00Z, or raise the budget"
    )
    assert item.decision.reserved_usd == 0
    (other,) = paced(pacer, ask(metadata={"team": "blue"}))
    assert other.decision.arm is not None
    (morrow,) = paced(pacer, ask(metadata={"team": "red"}), now=at(hours=12))
    assert morrow.decision.arm is not None


def test_an_arm_of_unknown_cost_is_reserved_as_the_dearest_and_weighed_as_the_cheapest() -> None:
    """A hard budget refuses it where the dearest does not fit, a soft one lets it be found out."""
    contexts, lengths = np.zeros((1, 2), np.float32), np.ones(1)
    models = {arm: Model(arm=arm, provider="recorded", model=arm) for arm in ARMS}
    outlook = Outlook.of(policy(mid={"cost_usd": None}), models, contexts, lengths)
    assert outlook.cost_usd[0].tolist() == [COST["big"], COST["big"], COST["mini"]]
    assert outlook.weighed_cost_usd[0].tolist() == [COST["big"], COST["mini"], COST["mini"]]
    left = {True: [False, False, True], False: [False, True, True]}
    for hard, fits in left.items():
        pacer = Pacer([Budget("day", 0.1, "day", hard=hard)])
        pacer.reserve({}, 1, 0, Charge(NOON, 0.095))
        every, known = np.ones(3, bool), outlook.cost_known
        assert pacer.limited({}, every, outlook.cost_usd[0], known, NOON).tolist() == fits


def test_a_hard_budget_is_never_exceeded_by_what_is_expected() -> None:
    """The sum of a day's expected costs stays within it, and as much as fits is answered."""
    budget = Budget("day", 0.1, "day", hard=True)
    decided = paced(Pacer([budget]), *asked(400))
    answered = [item for item in decided if item.decision.arm is not None]
    total = spent(answered) * len(answered)
    assert budget.amount_usd - COST["mini"] < total <= budget.amount_usd
    assert len(answered) < len(decided)


def test_refused_queries_free_a_hard_budget_by_the_query() -> None:
    """Each brings in its amount, so the stream goes on at the pace that the budget allows."""
    budget = Budget("all", COST["mini"] / 4, "query", hard=True)
    decided = paced(Pacer([budget]), *asked(2_000))
    answered = [item for item in decided if item.decision.arm is not None]
    assert 0.2 < len(answered) / len(decided) <= 0.26


def test_a_published_account_takes_the_place_of_what_it_counts() -> None:
    """Decisions that it has read are no longer added to it; later ones are."""
    pacer = Pacer([ALL])
    for offset in range(4):
        pacer.reserve({}, 0, offset, Charge(NOON, 0.010))
    ahead = pacer.weight({}, NOON)
    empty = Account(next_offsets={0: 4})
    pacer.adopt(record_of(ALL, "", empty))
    assert pacer.weight({}, NOON) == 0
    pacer.reserve({}, 0, 3, Charge(NOON, 0.010))
    assert pacer.weight({}, NOON) == 0
    for offset in range(4, 8):
        pacer.reserve({}, 0, offset, Charge(NOON, 0.010))
    assert pacer.weight({}, NOON) == pytest.approx(ahead)
    pacer.give_up(1)
    assert pacer.weight({}, NOON) == pytest.approx(ahead)
    pacer.give_up(0)
    assert pacer.weight({}, NOON) == 0


def test_decisions_on_queries_that_were_made_anew_since_are_reserved_no_more() -> None:
    """A router that starts again reads them back before those on the new topic."""
    day = Budget("all", 1.0, "day", hard=True)
    pacer = Pacer([day])
    began_anew = Account(period_usd=0.1, at=NOON, next_offsets={0: 2, 1: 900})
    pacer.adopt(record_of(day, "", began_anew))
    for partition, offset in ((0, 700), (1, 900), (0, 701), (0, 0), (0, 1), (0, 2)):
        pacer.reserve({}, partition, offset, Charge(NOON, 0.3))
    assert "budgets.all: 0.3 USD are left" in pacer.refusal({}, 2.0, NOON)


def test_decisions_read_back_are_charged_unless_they_were_made_without_budgets() -> None:
    """A router that starts again counts what is in flight, and nothing from before."""
    pacer = Pacer([ALL])
    old = [Candidate(arm="mini", probability=1.0, cost_usd=0.5)]
    assert reservation(records.decision(candidates=old)) is None
    reserved = reservation(records.decision(query_offset=1, reserved_usd=0.02))
    assert reserved is not None
    pacer.reserve(*reserved)
    assert pacer.weight({}, NOON) > 0


def test_a_forgotten_account_keeps_what_no_account_has_counted() -> None:
    """A decision that the learner has not read yet; what it has counted is over."""
    pacer = Pacer([ALL])
    pacer.adopt(record_of(ALL, "", Account(ahead_usd=1.0, over_usd=1.0, next_offsets={0: 4})))
    pacer.reserve({}, 0, 4, Charge(NOON, 0.010))
    pacer.forget("all", "")
    ahead = pacer.weight({}, NOON)
    pacer.give_up(0)
    pacer.reserve({}, 0, 3, Charge(NOON, 0.010))
    assert pacer.weight({}, NOON) == 0 < ahead
    pacer.forget("all", "")
    pacer.forget("all", "nobody")
    pacer.reserve({}, 0, 3, Charge(NOON, 0.010))
    assert pacer.weight({}, NOON) == pytest.approx(ahead)


def test_the_account_of_an_unknown_budget_is_passed_over() -> None:
    """Another release's, or one that is no longer set."""
    pacer = Pacer([ALL])
    pacer.adopt(record_of(Budget("old", 1.0, "day"), "", Account(ahead_usd=9.0, over_usd=9.0)))
    assert pacer.weight({}, NOON) == 0


def test_the_budgets_rule_comes_after_the_querys_own() -> None:
    """A query that no arm can serve says so, and not that money is short."""
    pacer = Pacer([Budget("day", 0.0001, "day", hard=True)])
    (item,) = paced(pacer, ask(models=("gone",)))
    assert item.decision.refusal is not None
    assert item.decision.refusal.message.startswith("models: ")
    (dear,) = paced(pacer, ask(needs=("vision",)))
    assert dear.decision.refusal is not None
    assert "budgets" not in dear.decision.refusal.message
    assert set(ARMS) == set(COST)
