"""What analysts read, on real rows whose figures were worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Row, text

from metallm_stream.events import Attempt, Decision, Failure, Feedback, Model, Result
from metallm_stream.join import Interaction
from metallm_stream.postgres import (
    Advance,
    DeadLetter,
    advance,
    claim_partition,
    insert_interactions,
    load_for_update,
    save_dead_letters,
    save_interactions,
    save_model,
)
from tests.integration.conftest import Sample

TODAY = date(2026, 3, 1)


def _save(engine: Engine, events: Iterable[Decision | Result | Feedback]) -> None:
    joined: dict[str, Interaction] = {}
    for event in events:
        known = joined.get(event.query_id) or Interaction(event.query_id)
        joined[event.query_id] = known.merged(event)
    with engine.begin() as conn:
        known = load_for_update(conn, joined, TODAY)
        save_interactions(conn, [(known[name][0], item) for name, item in joined.items()])


def _rows(engine: Engine, query: str) -> list[Row[Any]]:
    with engine.connect() as conn:
        return list(conn.execute(text(query)))


@pytest.fixture
def day(engine: Engine, sample: Sample) -> Engine:
    """Five queries: mini answers two (right, wrong), large one (right) after mini failed once.

    The fourth fails altogether, the fifth has no result yet and comes an hour later.
    """
    timeout = Failure(kind="timeout", message="no answer in 60 s")
    tries = tuple(
        Attempt(arm=arm, started_at=sample.start, latency_s=60.0, failure=timeout)
        for arm in ("mini", "large")
    )
    answer = Attempt(
        arm="large", started_at=sample.start, latency_s=3.0,
        input_tokens=9, output_tokens=1, cost_usd=0.01,
    )  # fmt: skip
    late = sample.start + timedelta(hours=1)
    _save(
        engine,
        [
            sample.decision(0), sample.result(0, cost_usd=0.002), sample.feedback(0, "A"),
            sample.decision(1), sample.result(1, cost_usd=0.001), sample.feedback(1, "B"),
            sample.decision(2, task="code"),
            sample.result(2, "large", cost_usd=0.01, attempts=(tries[0], answer)),
            sample.feedback(2, None, score=0.9),
            sample.decision(3, arm="large", propensity=0.25),
            sample.result(3, None, prediction=None, failure=timeout, attempts=tries, cost_usd=0.0),
            sample.feedback(3, "A"),
            sample.decision(4, arm="large", propensity=0.25, decided_at=late),
        ],
    )  # fmt: skip
    with engine.begin() as conn:
        for arm in ("large", "mini", "unused"):
            save_model(conn, arm, Model(arm=arm, provider="openai", model=arm))
    return engine


def test_arms_shows_calls_shares_and_means(day: Engine) -> None:
    """Decisions, calls, answers and means per arm; an arm never chosen is there too."""
    rows = {row.arm: row for row in _rows(day, "SELECT * FROM metallm.arms")}
    mini, large, unused = rows["mini"], rows["large"], rows["unused"]
    assert (mini.decisions, mini.calls, mini.failures, mini.answers, mini.labelled) == (
        3,
        4,
        2,
        2,
        2,
    )
    assert (large.decisions, large.calls, large.failures, large.answers) == (2, 2, 1, 1)
    assert (mini.share, large.share, unused.share) == (0.6, 0.4, 0.0)
    assert (mini.mean_quality, large.mean_quality, unused.mean_quality) == (0.5, 0.9, None)
    assert mini.mean_cost_usd == pytest.approx(0.0015)
    assert mini.cost_usd == pytest.approx(0.003)
    assert mini.mean_latency_s == pytest.approx((1 + 1 + 60 + 60) / 4)
    assert (unused.calls, unused.in_catalogue) == (0, True)


def test_arms_by_task_adds_up_to_arms(day: Engine) -> None:
    """Shares are those within the task."""
    rows = {(row.task, row.arm): row for row in _rows(day, "SELECT * FROM metallm.arms_by_task")}
    assert rows["trivia", "mini"].share == rows["trivia", "large"].share == 0.5
    assert rows["code", "mini"].share == 1.0
    assert (rows["code", "mini"].calls, rows["code", "mini"].answers) == (1, 0)
    assert (rows["code", "large"].decisions, rows["code", "large"].mean_quality) == (0, 0.9)


def test_arms_over_time_has_minutes_hours_and_days(day: Engine) -> None:
    """Each bucket size tells the same decisions apart more or less finely."""
    rows = _rows(day, "SELECT bucket, at, arm, decisions, share FROM metallm.arms_over_time")
    by_bucket = {
        size: sorted((row.at.hour, row.arm, row.decisions, row.share) for row in rows
                     if row.bucket == size)
        for size in ("minute", "hour", "day")
    }  # fmt: skip
    assert by_bucket["day"] == [(0, "large", 2, 0.4), (0, "mini", 3, 0.6)]
    assert by_bucket["hour"] == [
        (12, "large", 1, 0.25), (12, "mini", 3, 0.75), (13, "large", 1, 1.0),
    ]  # fmt: skip
    assert by_bucket["minute"] == by_bucket["hour"]


def test_spend_adds_up_over_time_and_arms(day: Engine) -> None:
    """The total is the row without an arm; calls of unknown cost are told apart."""
    rows = _rows(day, "SELECT * FROM metallm.spend WHERE bucket = 'hour'")
    assert [(row.arm, row.calls, row.priced_calls) for row in rows] == [
        (None, 6, 3), ("large", 2, 1), ("mini", 4, 2),
    ]  # fmt: skip
    assert [row.cost_usd for row in rows] == pytest.approx([0.013, 0.01, 0.003])
    assert rows[0].cost_usd_so_far == pytest.approx(0.013)


def test_spend_so_far_accumulates(engine: Engine, sample: Sample) -> None:
    """From bucket to bucket, for each arm and in total."""
    for i in range(3):
        at = sample.start + timedelta(minutes=i)
        _save(engine, [sample.decision(i, decided_at=at), sample.result(i, cost_usd=0.5)])
    rows = _rows(
        engine,
        "SELECT arm, cost_usd, cost_usd_so_far FROM metallm.spend WHERE bucket = 'minute' "
        "ORDER BY arm, at",
    )
    so_far = [(row.arm, row.cost_usd_so_far) for row in rows]
    assert so_far == [(arm, total) for arm in ("mini", None) for total in (0.5, 1.0, 1.5)]


def test_savings_compare_with_each_arm_alone(day: Engine) -> None:
    """Four answered or failed queries cost 0.013; always-large would have cost 0.04."""
    rows = {row.arm: row for row in _rows(day, "SELECT * FROM metallm.savings")}
    assert set(rows) == {"mini", "large"}
    large, mini = rows["large"], rows["mini"]
    assert large.queries == 4
    assert large.spent_usd == pytest.approx(0.013)
    assert large.always_usd == pytest.approx(0.04)
    assert large.saved_usd == pytest.approx(0.027)
    assert mini.saved_usd == pytest.approx(4 * 0.0015 - 0.013)
    assert large.mean_quality == pytest.approx((1 + 0 + 0.9 + 0) / 4)
    assert (mini.always_quality, mini.always_quality_reweighted) == (0.5, 0.5)
    assert (large.always_quality, large.always_quality_reweighted) == (0.9, None)


def test_savings_correct_for_what_the_policy_chose(engine: Engine, sample: Sample) -> None:
    """A rare choice stands for the many queries that went elsewhere."""
    _save(
        engine,
        [
            sample.decision(0, propensity=0.9), sample.result(0), sample.feedback(0, "A"),
            sample.decision(1, propensity=0.1), sample.result(1), sample.feedback(1, "B"),
        ],
    )  # fmt: skip
    (row,) = _rows(engine, "SELECT * FROM metallm.savings")
    assert row.always_quality == 0.5
    assert row.always_quality_reweighted == pytest.approx((1 / 0.9) / (1 / 0.9 + 1 / 0.1))


def test_unknown_costs_are_counted_and_in_no_mean(engine: Engine, sample: Sample) -> None:
    """Three queries at 0.01 USD each, two of unknown cost, to one of which costs do not matter."""
    unpriced = {"attempts": (Attempt(arm="own", started_at=sample.start, latency_s=1.0),)}
    events: list[Decision | Result | Feedback] = []
    for i in range(3):
        events += [sample.decision(i), sample.result(i, cost_usd=0.01), sample.feedback(i, "A")]
    for i, weight in ((3, 0.1), (4, 0.0)):
        events += [
            sample.decision(i, arm="own", cost_weight=weight),
            sample.result(i, "own", cost_usd=0.0, **unpriced),
            sample.feedback(i, "A"),
        ]
    _save(engine, events)
    mini, own = _rows(engine, "SELECT * FROM metallm.savings ORDER BY arm")
    assert (mini.queries, mini.priced_queries) == (5, 3)
    assert mini.spent_usd == pytest.approx(0.03)
    assert mini.always_usd == pytest.approx(0.03)
    assert mini.saved_usd == pytest.approx(0.0)
    assert (own.always_usd, own.saved_usd) == (None, None)
    (curve,) = _rows(engine, "SELECT * FROM metallm.learning_curve")
    assert (curve.labelled, curve.priced, curve.valued) == (5, 3, 4)
    for span in ("", "_moving", "_so_far"):
        assert getattr(curve, f"cost_usd{span}") == pytest.approx(0.01)
        assert getattr(curve, f"utility{span}") == pytest.approx((3 * 0.9 + 1) / 4)
    for view in ("arms", "arms_by_task", "arms_over_time"):
        counted = {
            row.arm: (row.calls, row.priced_calls, row.mean_cost_usd)
            for row in _rows(engine, f"TABLE metallm.{view}")
        }
        assert counted == {"mini": (3, 3, pytest.approx(0.01)), "own": (2, 0, None)}


@pytest.mark.parametrize("how", [save_interactions, insert_interactions])
def test_costs_are_known_whoever_has_written_the_row(
    engine: Engine, sample: Sample, how: Callable[[Connection, Any], None]
) -> None:
    """A learner says so beside the result; in an older one's rows it follows from the result."""
    timeout = Failure(kind="timeout", message="no answer in 60 s")
    free = Attempt(arm="mini", started_at=sample.start, latency_s=1.0)
    priced = free.model_copy(update={"cost_usd": 0.01})
    failed, charged = (one.model_copy(update={"failure": timeout}) for one in (free, priced))
    tries = [
        (),
        (free,),
        (priced,),
        (failed, free),
        (charged, free),
        (failed, priced),
        (free, priced),
    ]
    known = [True, False, True, False, False, True, True]
    results = [sample.result(i, attempts=each) for i, each in enumerate(tries)]
    results += [
        sample.result(7, None, prediction=None, failure=timeout, attempts=(failed,)),
        sample.result(8, None, prediction=None, failure=timeout, attempts=()),
    ]
    joined = [
        (TODAY, Interaction(f"q{i}").merged(sample.decision(i)).merged(result))
        for i, result in enumerate(results)
    ]
    with engine.begin() as conn:
        load_for_update(conn, [item.query_id for _, item in joined], TODAY)
        how(conn, joined)
    assert [*known, True, True] == [result.is_priced() for result in results]
    views = ("results", "outcomes", "savings", "learning_curve")
    newer = {
        view: sorted(_rows(engine, f"TABLE metallm.{view}"), key=lambda row: row[0])
        for view in views
    }
    assert [row.cost_usd is not None for row in newer["results"]] == [*known, True, True]
    assert newer["learning_curve"][0].priced == 6
    with engine.begin() as conn:
        conn.execute(text("UPDATE metallm.interactions SET priced = NULL"))
    for view, rows in newer.items():
        assert sorted(_rows(engine, f"TABLE metallm.{view}"), key=lambda row: row[0]) == rows


def test_where_no_cost_is_known_none_is_shown(engine: Engine, sample: Sample) -> None:
    """Null, not 0."""
    unpriced = Attempt(arm="own", started_at=sample.start, latency_s=1.0)
    _save(
        engine,
        [
            sample.decision(0, arm="own"),
            sample.result(0, "own", cost_usd=0.0, attempts=(unpriced,)),
            sample.feedback(0, "A"),
        ],
    )
    (saved,) = _rows(engine, "SELECT * FROM metallm.savings")
    assert (saved.queries, saved.priced_queries) == (1, 0)
    assert (saved.spent_usd, saved.always_usd, saved.saved_usd) == (None, None, None)
    (curve,) = _rows(engine, "SELECT * FROM metallm.learning_curve")
    assert (curve.quality, curve.cost_usd, curve.utility) == (1.0, None, None)
    assert (curve.labelled, curve.priced, curve.valued) == (1, 0, 0)


def test_explain_shows_every_candidate_and_what_became_of_it(day: Engine) -> None:
    """Predictions, the choice and who answered in the end, with the weights of the trade-off."""
    mini, large = _rows(day, "SELECT * FROM metallm.explain('q2')")
    assert (mini.arm, mini.probability, mini.chosen, mini.answered) == ("mini", 0.75, True, False)
    assert (large.arm, large.quality, large.chosen, large.answered) == ("large", 0.65, False, True)
    assert (mini.utility, mini.cost_usd, mini.latency_s) == (0.59, 0.001, None)
    assert (mini.policy, mini.policy_version, mini.cost_weight) == ("ridge-igw", 3, 0.1)
    assert mini.failure is None


def test_explain_tells_what_budgets_added_to_the_weight_of_costs(
    engine: Engine, sample: Sample
) -> None:
    """As the router logged it; 0 where no budget bound."""
    _save(engine, [sample.decision(0, budget_weight=2.5), sample.decision(1)])
    bound = _rows(engine, "SELECT * FROM metallm.explain('q0')")
    free = _rows(engine, "SELECT * FROM metallm.explain('q1')")
    assert {(row.cost_weight, row.budget_weight) for row in bound} == {(0.1, 2.5)}
    assert {(row.cost_weight, row.budget_weight) for row in free} == {(0.1, 0.0)}


def test_explain_tells_of_failures_refusals_and_unknown_queries(
    day: Engine, sample: Sample
) -> None:
    """A refusal is one row without an arm; an unknown query has no row."""
    refusal = Failure(kind="no_arm", message="max_cost_usd 0.1 excludes every model")
    _save(day, [sample.decision(9, arm=None, propensity=None, refusal=refusal, candidates=())])
    failed = _rows(day, "SELECT * FROM metallm.explain('q3')")
    assert {row.failure for row in failed} == {"no answer in 60 s"}
    (refused,) = _rows(day, "SELECT * FROM metallm.explain('q9')")
    assert (refused.arm, refused.chosen, refused.failure) == (None, False, refusal.message)
    assert _rows(day, "SELECT * FROM metallm.explain('unknown')") == []


def test_lag_is_what_is_left_to_read(engine: Engine) -> None:
    """As of the learner's last transaction in that partition."""
    with engine.begin() as conn:
        claim_partition(conn, "feedback", 0)
        held = claim_partition(conn, "decisions", 1)
        advance(conn, [Advance(held, 40, high_watermark=100)])
    decisions, feedback = _rows(engine, "SELECT * FROM metallm.lag")
    assert (decisions.topic, decisions.partition, decisions.lag) == ("decisions", 1, 60)
    assert (feedback.topic, feedback.lag, feedback.next_offset) == ("feedback", None, 0)
    assert 0 <= decisions.age_s < 60


def test_dead_letters_are_counted_and_shown(engine: Engine, sample: Sample) -> None:
    """Newest first, with bytes made readable."""
    letters = [
        DeadLetter(
            "queries", 0, i, "router", sample.start + timedelta(seconds=i), f"reason {i}",
            b"k", b'{"a": \xff\x00\n',
        )
        for i in range(3)
    ]  # fmt: skip
    with engine.begin() as conn:
        save_dead_letters(conn, letters)
    rows = _rows(engine, "SELECT * FROM metallm.dead_letters")
    assert [row.record_offset for row in rows] == [2, 1, 0]
    assert (rows[0].key_text, rows[0].value_text) == ("k", '{"a": \\377\\000\n')
    (count,) = _rows(engine, "SELECT * FROM metallm.dead_letter_counts")
    assert (count.topic, count.service, count.records) == ("queries", "router", 3)
    assert count.last_reason == "reason 2"


def test_the_learning_curve_is_per_hundred_queries(engine: Engine, sample: Sample) -> None:
    """The first hundred right, the next fifty wrong, and those without a label not counted."""
    events: list[Decision | Result | Feedback] = []
    for i in range(150):
        events += [sample.decision(i), sample.result(i, cost_usd=0.01 if i < 100 else 0.02)]
        if i % 2 == 0:
            events.append(sample.feedback(i, "A" if i < 100 else "B"))
    _save(engine, events)
    first, second = _rows(engine, "SELECT * FROM metallm.learning_curve")
    assert (first.from_query, first.to_query, first.labelled) == (1, 100, 50)
    assert (second.from_query, second.to_query, second.labelled) == (101, 150, 25)
    assert (first.quality, second.quality) == (1.0, 0.0)
    assert (first.cost_usd, second.cost_usd) == (pytest.approx(0.01), pytest.approx(0.02))
    assert (first.utility, second.utility) == (pytest.approx(0.9), pytest.approx(-0.2))
    assert second.quality_so_far == second.quality_moving == pytest.approx(50 / 75)
    assert second.cost_usd_so_far == pytest.approx((100 * 0.01 + 50 * 0.02) / 150)
    assert second.utility_so_far == pytest.approx((50 * 0.9 - 25 * 0.2) / 75)


def test_views_of_an_empty_database_are_empty(engine: Engine) -> None:
    """No division by zero, no error."""
    for view in ("arms", "arms_by_task", "arms_over_time", "spend", "savings", "policy_now",
                 "lag", "dead_letters", "dead_letter_counts", "learning_curve",
                 "outcomes", "policy_values", "results"):  # fmt: skip
        assert _rows(engine, f"TABLE metallm.{view}") == []
