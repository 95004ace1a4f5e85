"""What SQL and the library say of other policies, on the same stored rows."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg.errors import InvalidParameterValue
from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import DataError

from metallm_stream.evaluate import METRICS, PolicyValue
from metallm_stream.events import Candidate, Failure
from tests.integration.conftest import Sample
from tests.readme import REPOSITORY, blocks
from tests.records import joined
from tests.stored_log import ARMS, FAILED, library, save, save_week


@pytest.fixture
def week(engine: Engine, sample: Sample) -> Engine:
    """Seven hundred queries of all kinds."""
    save_week(engine, sample)
    return engine


def rows(engine: Engine, query: str, **values: object) -> list[Row[Any]]:
    """What a query gives."""
    with engine.connect() as conn:
        return list(conn.execute(text(query), values))


def compared(found: list[PolicyValue]) -> Iterator[tuple[object, ...]]:
    """The library's figures as SQL has them: all but those that hold at any time."""
    for value in found:
        for one in value.estimates:
            if one.estimator != "dr_anytime":
                yield (
                    value.target, one.estimator, one.value, one.low, one.high, value.decisions,
                    value.effective_decisions, value.largest_weight, value.unsupported,
                )  # fmt: skip


def one(stored: list[Row[Any]], estimator: str) -> float:
    """What an estimator says of the policy that made the log."""
    (value,) = (row.value for row in stored if row[:2] == ("logged", estimator))
    return float(value)


def assert_same(stored: list[Row[Any]], found: list[PolicyValue], rel: float = 1e-9) -> None:
    """Same targets and estimators in the same order, and the same figures."""
    wanted = list(compared(found))
    assert [row[:2] for row in stored] == [row[:2] for row in wanted]
    for row, other in zip(stored, wanted, strict=True):
        assert tuple(row[2:]) == pytest.approx(other[2:], rel=rel, abs=1e-12), row


def pages(engine: Engine, query: str) -> int:
    """How many pages a query reads, cached or not."""
    ((plan,),) = rows(engine, f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}")
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize("metric", METRICS)
def test_sql_and_library_agree(week: Engine, metric: str) -> None:
    """Every target, estimator, interval and measure of overlap, for every metric."""
    stored = rows(week, "SELECT * FROM metallm.evaluate(metric => :metric)", metric=metric)
    found = library(week, metric)
    assert_same(stored, found)
    assert [value.target for value in found[:3]] == ["greedy", "logged", "uniform"]
    assert len(found) == 3 + len(ARMS)
    assert all(value.decisions > 200 for value in found)


def test_time_task_and_scale_restrict_both_alike(week: Engine, sample: Sample) -> None:
    """From since on, to before until, one task, another scale of latency."""
    chosen = {
        "since": sample.start + timedelta(seconds=100),
        "until": sample.start + timedelta(seconds=600),
        "task": "code",
        "latency_scale_s": 3.0,
    }
    stored = rows(
        week,
        "SELECT * FROM metallm.evaluate(:since, :until, 'utility', :task, :latency_scale_s)",
        **chosen,
    )
    found = library(week, "utility", **chosen)
    assert_same(stored, found)
    assert 60 < found[0].decisions < 167
    assert (
        found[0].estimates != library(week, "utility", **chosen | {"task": "trivia"})[0].estimates
    )


def test_a_scale_that_a_decision_logged_counts_before_that_of_the_caller(week: Engine) -> None:
    """For SQL and for the library."""
    with_two = library(week, "utility", latency_scale_s=2.0)
    with week.begin() as conn:
        conn.execute(
            text(
                "UPDATE metallm.interactions SET decision = "
                "decision || jsonb_build_object('latency_scale_s', 2) WHERE decision IS NOT NULL"
            )
        )
    assert library(week, "utility", latency_scale_s=10.0) == with_two
    assert_same(rows(week, "TABLE metallm.policy_values"), with_two)


def test_the_documents_sql_runs(week: Engine) -> None:
    """Every statement of the page about evaluation."""
    statements = [
        statement
        for block in blocks(REPOSITORY / "docs" / "evaluate.md")
        if block.language == "sql"
        for statement in block.text.split(";")
        if statement.strip()
    ]
    assert len(statements) == 3
    for statement in statements:
        rows(week, statement)


def test_the_view_is_the_utility_of_all(week: Engine) -> None:
    """`policy_values` has what `evaluate()` has."""
    assert rows(week, "TABLE metallm.policy_values") == rows(
        week, "SELECT * FROM metallm.evaluate()"
    )


def test_an_unknown_metric_is_refused(engine: Engine) -> None:
    """By name, with those that there are."""
    with pytest.raises(DataError, match="no metric speed: utility, quality, cost or latency"):
        rows(engine, "SELECT * FROM metallm.evaluate(metric => 'speed')")


def test_one_scale_of_cost_counts_for_all_decisions(engine: Engine, sample: Sample) -> None:
    """The median, whatever was known when each was made, refusals left out; or the caller's."""
    scales = (1.0, 0.0001, 0.01)
    refusal = Failure(kind="no_arm", message="no model is there")
    refused = {"arm": None, "propensity": None, "refusal": refusal, "candidates": ()}
    save(
        engine,
        [
            joined(
                sample.decision(i, cost_scale_usd=scale),
                sample.result(i, cost_usd=0.005),
                sample.feedback(i, "A"),
            )
            for i, scale in enumerate(scales)
        ]
        + [joined(sample.decision(i, cost_scale_usd=1.0, **refused)) for i in range(3, 7)],
    )
    early = sample.start + timedelta(seconds=2)
    for chosen, worth in (
        ({}, 0.95),
        ({"cost_scale_usd": 0.02}, 0.975),
        ({"until": early}, 1 - 0.1 * 50),
        ({"until": early, "cost_scale_usd": 0.01}, 0.95),
    ):
        arguments = ", ".join(f"{name} => :{name}" for name in chosen)
        query = f"SELECT * FROM metallm.evaluate({arguments})"  # noqa: S608 - names from above
        stored = rows(engine, query, **chosen)
        assert one(stored, "snips") == pytest.approx(worth)
        (logged,) = (v for v in library(engine, "utility", **chosen) if v.target == "logged")
        estimates = {found.estimator: found for found in logged.estimates}
        assert estimates["snips"].value == pytest.approx(worth)
        assert (estimates["dr_anytime"].low is None) == (worth < -1)
    (first,) = rows(engine, "SELECT utility FROM metallm.learning_curve")
    assert first.utility == pytest.approx(0.95)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("smallest", [1e-200, 5e-324])
def test_numbers_too_small_to_be_multiplied_stop_nothing(
    engine: Engine, sample: Sample, metric: str, smallest: float
) -> None:
    """Probabilities, weights, scores, costs and times; SQL and library still agree on the rest."""
    candidates = (
        Candidate(arm="mini", probability=1.0, quality=smallest, cost_usd=smallest, utility=0.0),
        Candidate(arm="large", probability=smallest, quality=0.5, latency_s=smallest),
    )
    odd = [
        sample.decision(0, propensity=1.0, candidates=candidates),
        sample.decision(1, arm="large", propensity=smallest, candidates=candidates),
        sample.decision(2, cost_weight=smallest, latency_weight=smallest),
    ]
    usual = [sample.decision(i) for i in range(3, 150)]
    save(
        engine,
        [
            joined(
                decision,
                sample.result(i, decision.arm, cost_usd=smallest, latency_s=smallest),
                sample.feedback(i, None, score=smallest),
            )
            for i, decision in enumerate(odd)
        ]
        + [joined(one, sample.result(i), sample.feedback(i)) for i, one in enumerate(usual, 3)],
    )
    stored = rows(engine, "SELECT * FROM metallm.evaluate(metric => :metric)", metric=metric)
    assert_same(stored, library(engine, metric), rel=1e-6)
    assert max(row.largest_weight for row in stored) == pytest.approx(1e9)
    for view in ("savings", "learning_curve", "policy_values"):
        assert rows(engine, f"TABLE metallm.{view}")


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-307, 1e308, math.nan, math.inf])
def test_a_scale_of_cost_that_cannot_divide_is_refused(engine: Engine, scale: float) -> None:
    """By name and value."""
    with pytest.raises(
        DataError, match=r"cost_scale_usd is .+: it must be .* from 1e-12"
    ) as refused:
        rows(engine, "SELECT * FROM metallm.evaluate(cost_scale_usd => :scale)", scale=scale)
    assert isinstance(refused.value.orig, InvalidParameterValue)


@pytest.mark.parametrize("scale", [0.0, -1.0, None, math.nan, math.inf])
def test_a_scale_of_latency_that_cannot_divide_is_refused(
    engine: Engine, scale: float | None
) -> None:
    """By name and value, whatever the rows."""
    with pytest.raises(DataError, match=r"latency_scale_s is .+: it must be .* above 0") as refused:
        rows(engine, "SELECT * FROM metallm.evaluate(latency_scale_s => :scale)", scale=scale)
    assert isinstance(refused.value.orig, InvalidParameterValue)


def test_a_bound_that_is_null_is_none(week: Engine) -> None:
    """From the beginning to the end."""
    unbounded = "SELECT * FROM metallm.evaluate(since => NULL, until => NULL)"
    assert rows(week, unbounded) == rows(week, "TABLE metallm.policy_values")


def test_the_price_of_budgets_is_in_no_prediction_but_chooses(
    engine: Engine, sample: Sample
) -> None:
    """Greedy goes by the logged utility, price included; without a cost, quality says what it can.

    At a price of 1,000 large was worth -999.45 to the router, and is predicted to be worth 0.55.
    """
    mini = {"arm": "mini", "probability": 0.75, "quality": 0.6, "utility": -99.41}
    large = {"arm": "large", "probability": 0.25, "quality": 0.65, "utility": -999.45}
    priced = (Candidate(**mini, cost_usd=0.001), Candidate(**large, cost_usd=0.01))
    guessed = (
        Candidate(**mini | {"utility": -1_000.0}, latency_s=2.0), Candidate(**large, cost_usd=0.01)
    )  # fmt: skip
    decisions = [
        sample.decision(0, candidates=priced, budget_weight=1_000.0),
        sample.decision(1, candidates=guessed, budget_weight=1_000.0, latency_weight=0.5),
    ]
    save(
        engine,
        [
            joined(decision, sample.result(i, latency_s=1.0), sample.feedback(i, "A"))
            for i, decision in enumerate(decisions)
        ],
    )
    stored = [tuple(row[:3]) for row in rows(engine, "TABLE metallm.policy_values")]
    predicted, rewards = (0.59, 0.6 - 0.5 * 0.2), (0.99, 0.99 - 0.5 * 0.1)
    scores = [q + (r - q) / 0.75 for q, r in zip(predicted, rewards, strict=True)]
    for source in (stored, [row[:3] for row in compared(library(engine, "utility"))]):
        found = {target: value for target, estimator, value in source if estimator == "dr"}
        assert found["always:mini"] == pytest.approx(sum(scores) / 2)
        assert found["always:large"] == pytest.approx(0.55)
        assert found["greedy"] == pytest.approx((scores[0] + 0.55) / 2)


def test_values_of_two_decisions_by_hand(engine: Engine, sample: Sample) -> None:
    """The arm mini at 3/4 was right for 0.001 USD, large at 1/4 wrong for 0.01 USD."""
    save(
        engine,
        [
            joined(sample.decision(0), sample.result(0), sample.feedback(0, "A")),
            joined(
                sample.decision(1, arm="large", propensity=0.25),
                sample.result(1, "large", cost_usd=0.01),
                sample.feedback(1, "B"),
            ),
        ],
    )
    found = {
        (row.target, row.estimator): row for row in rows(engine, "TABLE metallm.policy_values")
    }
    mini, large = 1 - 0.1 * 0.001 / 0.01, 0 - 0.1 * 0.01 / 0.01
    assert found["always:mini", "ips"].value == pytest.approx(mini / 0.75 / 2)
    assert found["always:mini", "snips"].value == pytest.approx(mini)
    assert found["always:mini", "dr"].value == pytest.approx(0.59 + (mini - 0.59) / 0.75 / 2)
    assert found["greedy", "dr"].value == found["always:mini", "dr"].value
    assert found["always:large", "dr"].value == pytest.approx(0.55 + (large - 0.55) / 0.25 / 2)
    assert found["logged", "ips"].value == pytest.approx((mini + large) / 2)
    assert found["uniform", "snips"].value == pytest.approx((mini / 3 + large) / (1 / 3 + 1))
    assert found["logged", "ips"].decisions == 2
    assert found["logged", "ips"].effective_decisions == pytest.approx(2)
    assert found["always:large", "ips"].largest_weight == pytest.approx(4)


def test_the_result_of_another_decision_is_no_outcome(engine: Engine, sample: Sample) -> None:
    """A repeated query_id may bring the result of its other decision: it is left out."""
    decision = sample.decision(0)
    right, wrong = decision.call_id, sample.decision(1).call_id
    save(engine, [joined(decision, sample.result(0, call_id=right))])
    assert len(rows(engine, "TABLE metallm.outcomes")) == 1
    save(engine, [joined(decision, sample.result(0, call_id=wrong))])
    assert rows(engine, "TABLE metallm.outcomes") == []


def test_outcomes_read_wide_decisions_and_results_once(engine: Engine, sample: Sample) -> None:
    """They lie outside their rows, where each mention in a view would fetch them anew."""
    wide = {f"key{k}": secrets.token_hex(100) for k in range(20)}
    save(
        engine,
        [
            joined(
                decision := sample.decision(i, metadata=wide),
                sample.result(i, call_id=decision.call_id, text=secrets.token_hex(3_000)),
                sample.feedback(i),
            )
            for i in range(100)
        ],
    )
    each_once = pages(
        engine, "SELECT sum(length(decision::text || result::text)) FROM metallm.results"
    )
    assert each_once > 400
    assert pages(engine, "SELECT count(candidates) FROM metallm.outcomes") < 1.1 * each_once


def test_fallbacks_and_failures_are_the_chosen_arms(engine: Engine, sample: Sample) -> None:
    """Whoever chooses mini gets what follows: another arm's answer, or a failure of quality 0."""
    failed = {"failure": FAILED, "text": None, "prediction": None, "attempts": ()}
    save(
        engine,
        [
            joined(sample.decision(0), sample.result(0, "large"), sample.feedback(0, "A")),
            joined(sample.decision(1), sample.result(1, None, **failed), sample.feedback(1, "A")),
        ],
    )
    found = rows(engine, "SELECT * FROM metallm.evaluate(metric => 'quality')")
    values = {(row.target, row.estimator): row.value for row in found}
    assert values["always:mini", "snips"] == 0.5
    assert values["always:large", "ips"] == 0.0
