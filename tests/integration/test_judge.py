"""A model as judge through the whole service: drawn, judged, learned, and overruled by users."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest

from metallm_stream.events import Case, Feedback, Query, Verdict, WorkerSpend
from metallm_stream.judge import is_drawn, judge_prompt, shipped
from metallm_stream.serve.probe import PROMPT
from metallm_stream.serve.rebuild import Rebuilt
from tests.integration.test_cli import flat, run
from tests.pipeline import Pipeline, kill
from tests.readme import REPOSITORY, blocks

SHARE, SEED, WEIGHT, JUDGE_USD = 0.5, 7, 0.25, 0.02
SETTINGS = {
    "JUDGE__PROVIDER": "recorded",
    "JUDGE__MODEL": "strict",
    "JUDGE__SPEND_CAP_USD": "100",
    "JUDGE__INPUT_USD_PER_MTOK": "1",
    "JUDGE__OUTPUT_USD_PER_MTOK": "1",
    "JUDGE__SHARE": str(SHARE),
    "JUDGE__SEED": str(SEED),
    "JUDGE__WEIGHT": str(WEIGHT),
}
QUERIES = [Query(query_id=f"q{number}", text=f"Describe town {number}.") for number in range(40)]
DRAWN = {query.query_id for query in QUERIES if is_drawn(query.query_id, SHARE, SEED)}
ARMS = {"large": (0.9, "Reasons.\nScore: 9"), "small": (0.2, "Score: 2"), "strict": (None, "")}
JUDGE = REPOSITORY / "docs" / "judge.md"
ODD = "q1"  # the judge's reply on it cannot be read


def shown(query: Query, arm: str) -> str:
    """What the judge is asked about an arm's answer."""
    texts = {"question": query.text, "answer": f"{arm} on {query.text}"}
    case = Case(query_id=query.query_id, call_id="c", arm=arm, model=arm, **texts)
    return judge_prompt(case, shipped().by_kind["verdict"])


def recorded() -> dict[str, dict[str, dict[str, object]]]:
    """What all models say: to the queries, and the judge to its own prompts."""
    known: dict[str, dict[str, dict[str, object]]] = {PROMPT: {"strict": {"answer": "OK"}}}
    for query in QUERIES:
        known[query.text] = {
            arm: {"answer": f"{arm} on {query.text}", "cost": 0.001} for arm in ARMS
        }
        for arm, (_, reply) in ARMS.items():
            said = "I would rather not." if query.query_id == ODD else reply
            known[shown(query, arm)] = {"strict": {"answer": said, "cost": JUDGE_USD}}
    return known


def test_a_judge_teaches_until_a_user_speaks(pipeline: Pipeline) -> None:
    """One verdict a drawn answer in spite of a kill, and counted until there is a user's score."""
    assert ODD in DRAWN
    assert 10 < len(DRAWN) < 30
    pipeline.record(recorded())
    judge = pipeline.start("judge", **SETTINGS)
    pipeline.start_all(**SETTINGS)
    pipeline.ask(*QUERIES[:20])
    pipeline.wait_for_records(pipeline.names.verdicts, 1)
    kill(judge)
    pipeline.ask(*QUERIES[20:])
    results = pipeline.wait_for_results(len(QUERIES))
    pipeline.wait_for_records(pipeline.names.verdicts, len(DRAWN))
    given = verdicts(pipeline)
    assert {item.query_id for item in given} == DRAWN
    assert len(given) == len(DRAWN)
    for item in given:
        check(item, results[item.query_id].arm)
    assert spent(pipeline) >= sum(item.cost_usd or 0.0 for item in given) - 1e-9
    teach(pipeline, given)
    overrule(pipeline, given)
    show(pipeline)


def verdicts(pipeline: Pipeline) -> list[Verdict]:
    return [Verdict.parse(message.value()) for message in pipeline.read(pipeline.names.verdicts)]


def spent(pipeline: Pipeline) -> float:
    """What the judge has told of its spending, that before the kill included."""
    told = [
        WorkerSpend.parse(message.value())
        for message in pipeline.read(pipeline.names.health)
        if message.key() == b"spend recorded judge-0"
    ]
    return told[-1].spent_usd


def check(item: Verdict, arm: str | None) -> None:
    """Of the arm that answered, with the judge's own cost; no model judges itself."""
    assert item.arm == arm
    assert (item.judge, item.template, item.weight) == ("recorded/strict", "verdict@1", WEIGHT)
    if item.arm == "strict":
        assert (item.failure is not None and item.failure.kind) == "unsupported"
        assert item.cost_usd == 0.0
        return
    assert item.cost_usd == JUDGE_USD
    if item.query_id == ODD:
        assert (item.failure is not None and item.failure.kind) == "malformed_answer"
    else:
        assert item.score == ARMS[item.arm][0]


def teach(pipeline: Pipeline, given: list[Verdict]) -> None:
    """Every score counts its weight once, though each verdict comes twice."""
    for item in given:
        pipeline.produce(pipeline.names.verdicts, item.encode(), item.query_id.encode())
    pipeline.wait_until_learned()
    scored = {item.query_id for item in given if item.score is not None}
    rows = pipeline.sql("SELECT query_id, judged_by, quality, cost_usd FROM metallm.interactions")
    assert {str(row["query_id"]) for row in rows if row["judged_by"] == "model"} == scored
    assert all(row["quality"] is None and row["cost_usd"] == 0.001 for row in rows)
    assert learned(pipeline.rebuilt()) == pytest.approx(WEIGHT * len(scored))
    (told,) = pipeline.sql("SELECT sum(cost_usd) AS usd, sum(verdicts) AS n FROM metallm.judges")
    asked = sum(item.arm != "strict" for item in given)
    assert (told["usd"], told["n"]) == (pytest.approx(asked * JUDGE_USD), len(given))


def overrule(pipeline: Pipeline, given: list[Verdict]) -> None:
    """After users' scores the model has these alone, and the judge's agreement can be seen."""
    scored = [item for item in given if item.score is not None]
    users = {item.query_id: 0.4 + 0.1 * (place % 3) for place, item in enumerate(scored)}
    pipeline.judge(*(Feedback(query_id=name, score=score) for name, score in users.items()))
    pipeline.wait_until_learned()
    rows = pipeline.sql(
        "SELECT query_id, quality FROM metallm.interactions WHERE judged_by = 'user'"
    )
    assert {str(row["query_id"]): row["quality"] for row in rows} == users
    off: dict[str, list[float]] = {}
    for item in scored:
        off.setdefault(item.arm, []).append((item.score or 0.0) - users[item.query_id])
    told = pipeline.sql("SELECT * FROM metallm.judges WHERE compared > 0")
    assert {row["arm"]: row["compared"] for row in told} == {arm: len(x) for arm, x in off.items()}
    for row in told:
        apart = off[str(row["arm"])]
        assert (row["bias"], row["in_force"]) == (pytest.approx(fmean(apart)), 0)
        if len(apart) > 1:
            margin = 1.96 * stdev(apart) / len(apart) ** 0.5
            assert row["bias_margin"] == pytest.approx(margin)
    for from_log in (False, True):
        rebuilt = pipeline.rebuilt(from_log=from_log)
        assert rebuilt.max_relative_difference <= 1e-9
        assert learned(rebuilt) == pytest.approx(len(scored))


def show(pipeline: Pipeline) -> None:
    """`doctor` counts it, `providers check` calls it, and the statements of docs/judge.md run."""
    vendor = {"METALLM_PROVIDERS__RECORDED__BASE_URL": pipeline.vendor_url, "COLUMNS": "160"}
    environment = vendor | {f"METALLM_{name}": value for name, value in SETTINGS.items()}
    assert "1 judge" in flat(run(pipeline, "doctor", **environment))
    checked = run(pipeline, "providers", "check", "--yes", "judge:strict", **environment)
    assert checked.exit_code == 0, checked.output
    (statements,) = (block for block in blocks(JUDGE) if block.language == "sql")
    for statement in filter(str.strip, statements.text.split(";")):
        assert pipeline.sql(statement)


def learned(rebuilt: Rebuilt) -> float:
    """The summed weight of all judged answers in the live model."""
    return sum(map(rebuilt.live.observations, rebuilt.live.arms))
