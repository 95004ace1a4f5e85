"""Prior knowledge of a running service: added, replaced, removed, and kept out of rebuilds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metallm_stream.events import Feedback
from tests.integration.test_cli import flat, run
from tests.pipeline import LABELS, Pipeline, outcomes, questions
from tests.processes import eventually


def file(path: Path, **qualities: float) -> Path:
    """A hundred queries with the same quality of each arm."""
    found = {arm: {"quality": quality, "cost": 0.01} for arm, quality in qualities.items()}
    lines = [
        json.dumps({"query_id": str(number), "text": f"text {number}", "outcomes": found})
        for number in range(100)
    ]
    path.write_text("\n".join(lines))
    return path


def published(pipeline: Pipeline, arm: str) -> tuple[float, float, float | None]:
    """Observations, mean quality and cost of an arm in the policy in force."""
    statement = """
        SELECT arm_observations AS n, arm_mean_quality AS quality, arm_cost_usd AS cost
        FROM metallm.policy_now WHERE arm = :arm
    """
    rows = pipeline.sql(statement, arm=arm)
    if not rows:
        return 0.0, 0.0, None
    cost = rows[0]["cost"]
    return (
        float(str(rows[0]["n"])),
        float(str(rows[0]["quality"])),
        None if cost is None else float(str(cost)),
    )


def test_prior_knowledge_comes_and_goes(pipeline: Pipeline, tmp_path: Path) -> None:
    """The policy has it within moments; live labels add to it, and no rebuild contains it."""
    asked = questions(8)
    pipeline.record(outcomes(asked), labels=LABELS)
    pipeline.start_all()
    right = file(tmp_path / "logs.jsonl", large=1.0, small=0.0)
    added = run(pipeline, "warmup", str(right), KAFKA_BOOTSTRAP_SERVERS=None)
    assert added.exit_code == 0, added.output
    assert "added logs: 100 queries, each outcome counts 0.1" in flat(added)
    eventually(lambda: published(pipeline, "large")[0] == pytest.approx(10), 30)
    count, quality, cost = published(pipeline, "large")
    assert (count, cost) == (pytest.approx(10), pytest.approx(0.01))
    assert quality > 0.9
    assert published(pipeline, "small")[1] < 0.2

    pipeline.ask(*asked)
    pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in asked))
    arms = ("large", "small")
    eventually(lambda: sum(published(pipeline, arm)[0] for arm in arms) == pytest.approx(28), 30)
    pipeline.wait_until_learned()
    pipeline.assert_sound(query.query_id for query in asked)

    wrong = file(tmp_path / "other.jsonl", small=1.0)
    replaced = run(pipeline, "warmup", str(wrong), "--name", "logs", "--weight", "1")
    assert "each outcome counts 0.5" in flat(replaced)  # by the limit of 50
    assert "not in the catalogue" not in replaced.stderr
    eventually(lambda: sum(published(pipeline, arm)[0] for arm in arms) == pytest.approx(58), 30)
    assert "logs" in flat(run(pipeline, "warmup", "--list"))
    assert flat(run(pipeline, "warmup", "--remove", "logs")) == "removed logs"
    eventually(lambda: sum(published(pipeline, arm)[0] for arm in arms) == pytest.approx(8), 30)
    assert flat(run(pipeline, "warmup", "--list")) == "nothing was added"
    pipeline.assert_sound(query.query_id for query in asked)


def test_refusals_name_the_way_out(pipeline: Pipeline, tmp_path: Path) -> None:
    """What is not there, not readable, of another encoder, or asked for twice."""
    right = str(file(tmp_path / "logs.jsonl", large=1.0))
    (tmp_path / "bad.jsonl").write_text("{}")
    early = run(pipeline, "warmup", right)  # no learner has told of models yet
    assert early.exit_code == 0
    assert "note: not in the catalogue: large (there are: none)" in early.stderr
    for words, said in (
        (["--remove", "gone"], "nothing was added as 'gone'; there is logs"),
        ([right, "--list"], "give one of FILE, --list and --remove"),
        ([], "give one of FILE, --list and --remove"),
        ([str(tmp_path / "bad.jsonl")], "bad.jsonl, line 1: query_id"),
        ([right, "--weight", "0"], "--weight"),
        ([right, "--weight", "nan"], "--weight"),
        ([right, "--name", ""], "1 to 128 characters"),
    ):
        refused = run(pipeline, "warmup", *words)
        assert refused.exit_code != 0, words
        assert said in flat(refused), refused.output
    other = run(pipeline, "warmup", right, METALLM_ENCODER="wordllama:64")
    assert "learned with encoder 'wordllama-32'" in flat(other)
