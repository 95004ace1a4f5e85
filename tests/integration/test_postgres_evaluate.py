"""What SQL, the command and the library say of other policies, on the same stored rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Engine, Row, text
from sqlalchemy.exc import DataError

from metallm_stream.cli.main import cli
from metallm_stream.evaluate import METRICS, LogEvaluation, PolicyValue
from metallm_stream.events import Attempt, Candidate, Decision, Failure, Feedback
from metallm_stream.events import Result as Answer
from metallm_stream.join import Interaction
from metallm_stream.postgres import load_for_update, save_interactions, stream_outcomes
from tests.integration.conftest import Sample
from tests.readme import REPOSITORY, blocks

TODAY = date(2026, 3, 1)
ARMS = ("mini", "large", "[odd] 'arm'")
FAILED = Failure(kind="timeout", message="no answer in 60 s")


def save(engine: Engine, interactions: list[Interaction]) -> None:
    """Write whole interactions."""
    with engine.begin() as conn:
        known = load_for_update(conn, [item.query_id for item in interactions], TODAY)
        save_interactions(conn, [(known[item.query_id][0], item) for item in interactions])


def joined(*events: Decision | Answer | Feedback) -> Interaction:
    """One query's records as an interaction."""
    interaction = Interaction(events[0].query_id)
    for event in events:
        interaction = interaction.merged(event)
    return interaction


def life(sample: Sample, i: int, rng: np.random.Generator) -> Interaction:
    """A query as they come: arms not allowed, no policy yet, no label, failures, unknown costs."""
    allowed = [arm for arm in ARMS if rng.random() < 0.8] or ["mini"]
    probabilities = rng.dirichlet(np.ones(len(allowed)))
    drawn = int(rng.choice(len(allowed), p=probabilities))
    candidates = [
        {"arm": arm, "probability": float(p)} for arm, p in zip(allowed, probabilities, strict=True)
    ]
    if i > 40:
        for one in candidates:
            quality, cost = float(rng.random()), float(rng.random() / 100)
            one.update(quality=quality, utility=round(quality - 10 * cost, 1))
            if rng.random() < 0.9:
                one.update(cost_usd=cost, latency_s=2.0)
    decision = sample.decision(
        i,
        arm=allowed[drawn],
        propensity=float(probabilities[drawn]),
        candidates=tuple(Candidate(**one) for one in candidates),
        task=("trivia", "code", None)[i % 3],
        cost_weight=0.0 if i % 5 == 0 else 0.1,
        latency_weight=0.2 if i % 7 == 0 else 0.0,
    )
    events: list[Decision | Answer | Feedback] = [decision]
    if i % 11:
        events.append(answer(sample, i, decision, rng))
    if rng.random() < 0.7:
        events.append(sample.feedback(i, "A" if rng.random() < 0.6 else "B"))
    return joined(*events)


def answer(sample: Sample, i: int, decision: Decision, rng: np.random.Generator) -> Answer:
    """By the chosen arm, or after it failed by another, or by none; sometimes of unknown cost."""
    assert decision.arm is not None
    cost, latency = float(rng.random() / 50), float(rng.random() * 20)
    fields: dict[str, Any] = {"call_id": decision.call_id, "latency_s": latency, "cost_usd": cost}
    if i % 13 == 0:
        tried = Attempt(arm=decision.arm, started_at=sample.start, latency_s=1, failure=FAILED)
        return sample.result(
            i, None, failure=FAILED, text=None, prediction=None, attempts=(tried,), **fields
        )
    if i % 17 == 0:
        unpriced = Attempt(arm=decision.arm, started_at=sample.start, latency_s=1)
        return sample.result(i, decision.arm, attempts=(unpriced,), **fields)
    return sample.result(i, "large" if i % 19 == 0 else decision.arm, **fields)


@pytest.fixture
def week(engine: Engine, sample: Sample) -> Engine:
    """Seven hundred queries of all kinds."""
    rng = np.random.default_rng(5)
    save(engine, [life(sample, i, rng) for i in range(700)])
    return engine


def rows(engine: Engine, query: str, **values: object) -> list[Row[Any]]:
    """What a query gives."""
    with engine.connect() as conn:
        return list(conn.execute(text(query), values))


def library(engine: Engine, metric: str, batch: int = 64, **chosen: Any) -> list[PolicyValue]:
    """What the library says of the same rows, in pieces."""
    evaluation = LogEvaluation(metric)
    wanted = {"since": None, "until": None, "task": None, "latency_scale_s": 10.0} | chosen
    with engine.connect() as conn:
        for decisions in stream_outcomes(conn, batch=batch, **wanted):
            assert len(decisions.rows) <= batch
            evaluation.add(decisions)
    return evaluation.values()


def compared(found: list[PolicyValue]) -> Iterator[tuple[object, ...]]:
    """The library's figures as SQL has them: all but those that hold at any time."""
    for value in found:
        for one in value.estimates:
            if one.estimator != "dr_anytime":
                yield (
                    value.target, one.estimator, one.value, one.low, one.high, value.decisions,
                    value.effective_decisions, value.largest_weight, value.unsupported,
                )  # fmt: skip


def assert_same(stored: list[Row[Any]], found: list[PolicyValue]) -> None:
    """Same targets and estimators in the same order, and the same figures."""
    wanted = list(compared(found))
    assert [row[:2] for row in stored] == [row[:2] for row in wanted]
    for row, other in zip(stored, wanted, strict=True):
        assert tuple(row[2:]) == pytest.approx(other[2:], rel=1e-9, abs=1e-12), row


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


def evaluate(engine: Engine, *words: str) -> Result:
    """The command's result."""
    url = engine.url.render_as_string(hide_password=False)
    run = CliRunner(env={"DATABASE_URL": url, "METALLM_CONFIG": None, "COLUMNS": "100"})
    return run.invoke(cli, ["evaluate", *words], prog_name="metallm")


def test_the_command_prints_what_the_library_says(week: Engine) -> None:
    """As JSON, for all policies and for one."""
    result = evaluate(week, "--metric", "quality", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    found = library(week, "quality")
    assert shown["metric"] == "quality"
    assert [one["target"] for one in shown["policies"]] == [value.target for value in found]
    for one, value in zip(shown["policies"], found, strict=True):
        assert one["decisions"] == value.decisions
        assert [item["estimator"] for item in one["estimates"]] == [
            "ips", "snips", "dr", "dr_weighted", "dr_anytime",
        ]  # fmt: skip
        for item, estimate in zip(one["estimates"], value.estimates, strict=True):
            assert item["value"] == pytest.approx(estimate.value, rel=1e-9)
    only = json.loads(evaluate(week, "--policy", "always:large", "--json").stdout)
    assert [one["target"] for one in only["policies"]] == ["always:large"]


def test_the_table_names_policies_and_says_what_not_to_trust(week: Engine) -> None:
    """Every policy and estimator, and a note below."""
    result = evaluate(week, "--until", "2026-03-01T12:01:40")
    assert result.exit_code == 0, result.output
    for word in ("greedy", "always:[odd] 'arm'", "dr_weighted", "effective", "utility a query"):
        assert word in result.output
    assert "note: uniform: only " in result.output


def test_time_is_told_by_date_or_by_how_long_ago(week: Engine) -> None:
    """And what is wrong is said with what would be right."""
    known = json.loads(
        evaluate(week, "--since", "2026-03-01", "--policy", "logged", "--json").stdout
    )
    assert known["policies"][0]["decisions"] > 300
    for words, said in (
        (["--since", "5m"], "no stored decision has its result in that time and task"),
        (["--task", "none"], "widen --since, --until, --task"),
        (["--since", "yesterday"], "'yesterday' is no moment; write a date such as 2026-03-01"),
        (
            ["--policy", "always:"],
            "'always:' is none of all, logged, greedy, uniform and always:ARM",
        ),
        (["--policy", "always:huge"], "that arm was never allowed; these were: [odd] 'arm', large"),
    ):
        result = evaluate(week, *words)
        assert result.exit_code != 0
        assert said in " ".join(result.output.split()), result.output


def test_a_decision_that_cannot_be_is_named(engine: Engine, sample: Sample) -> None:
    """A propensity that is not the chosen candidate's probability."""
    save(engine, [joined(sample.decision(0, propensity=0.5), sample.result(0))])
    result = evaluate(engine, "--metric", "cost")
    assert result.exit_code == 1
    assert (
        "error: query_id 'q0': propensity 0.5, but arm 'mini' has probability 0.75" in result.output
    )
