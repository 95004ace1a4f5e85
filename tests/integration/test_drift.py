"""An arm whose quality collapses while two learners learn: one shift, of that arm alone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from metallm_stream.events import Candidate
from metallm_stream.kafka import Record, write
from metallm_stream.policy.drift import LAG_S
from metallm_stream.postgres import load_forgetting
from tests.integration.test_cli import flat, run
from tests.integration.test_forgetting import (
    ARMS,
    DIMENSIONS,
    assert_rebuilt,
    decision,
    judged,
    result,
)
from tests.pipeline import Pipeline
from tests.processes import eventually

PREDICTED = tuple(Candidate(arm=arm, probability=0.5, quality=0.8) for arm in ARMS)


class Stream:
    """Decisions for the two arms in turn, answered and judged at once."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.rng = np.random.default_rng(13)
        self.count = 0

    def go_on(self, n: int, **quality: float) -> None:
        """N more, until they are learned; each arm is right as often as its quality says."""
        names, records, judgements = self.pipeline.names, [], []
        for number in range(self.count, self.count + n):
            time = datetime.now(UTC)
            context = self.rng.normal(size=DIMENSIONS).astype(np.float32)
            made = decision(number, context, time)
            made = made.model_copy(update={"candidates": PREDICTED})
            right = self.rng.random() < quality[ARMS[number % 2]]
            records.append(Record.of(names.decisions, f"q{number}", made))
            records.append(Record.of(names.results, f"q{number}", result(number, time)))
            judgements.append(judged(number, float(right)))
        write(self.pipeline.producer, records)
        self.pipeline.judge(*judgements)
        self.count += n
        self.pipeline.wait_until_learned()


def shifts(pipeline: Pipeline) -> list[Mapping[str, object]]:
    """What the view has."""
    return list(pipeline.sql("SELECT * FROM metallm.drift"))


def observations(pipeline: Pipeline, arm: str, at: datetime) -> float:
    """What the labels of an arm count at a time."""
    with pipeline.engine.connect() as conn:
        clock = load_forgetting(conn).log2_weight(arm, at)
    return pipeline.rebuilt().live.as_of({arm: clock}).observations(arm)


def test_a_collapse_shortens_the_memory_of_its_arm(pipeline: Pipeline) -> None:
    """The model is the rebuilt one before and after the shift takes effect, labels corrected."""
    settings = {"LEARNER__HALF_LIFE_S": str(1e6), "LEARNER__DRIFT_FACTOR": "0.01"}
    learners = [pipeline.start("learner", slot=slot, **settings) for slot in ("0", "1")]
    for learner in learners:
        learner.wait_ready(60)
    for slot in ("0", "1"):
        log = pipeline.directory / f"learner-{slot}.log"
        eventually(lambda log=log: f"assigned {pipeline.names.prefix}" in log.read_text(), 60)
    stream = Stream(pipeline)
    stream.go_on(600, large=0.8, small=0.8)
    learned_at = datetime.now(UTC)
    eventually(lambda: datetime.now(UTC) > learned_at + timedelta(seconds=LAG_S))
    stream.go_on(800, large=0.8, small=0.8)
    assert shifts(pipeline) == []
    while not shifts(pipeline):
        assert stream.count < 4_000
        stream.go_on(200, large=0.1, small=0.8)
    judged_before = stream.count / 2
    assert_rebuilt(pipeline)
    (shift,) = shifts(pipeline)
    assert (shift["arm"], shift["direction"], shift["factor"]) == ("large", "down", 0.01)
    assert shift["detector"] == "adwin"
    assert float(str(shift["mean_after"])) < float(str(shift["mean_before"])) - 0.2
    assert "quality of large moved down" in flat(run(pipeline, "watch", "--once", COLUMNS="120"))

    effective_at = shift["effective_at"]
    assert isinstance(effective_at, datetime)
    before = observations(pipeline, "large", effective_at - timedelta(seconds=1))
    assert before == pytest.approx(judged_before, rel=0.01)
    eventually(lambda: datetime.now(UTC) > effective_at + timedelta(seconds=1))
    stream.go_on(200, large=0.1, small=0.8)
    pipeline.judge(*(judged(number, 0.5) for number in range(0, stream.count, 7)))
    pipeline.wait_until_learned()
    assert_rebuilt(pipeline)
    now = datetime.now(UTC)
    ageing_s = float(str(shift["ageing_s"]))
    aged = 1 + (now - effective_at).total_seconds() / ageing_s
    older = 0.01 * judged_before / aged**2
    assert older + 100 / aged**2 < observations(pipeline, "large", now) < older + 100
    assert observations(pipeline, "small", now) == pytest.approx(100 + judged_before, rel=0.01)
    published = "SELECT arm_observations AS n FROM metallm.policy_now WHERE arm = 'large'"
    eventually(lambda: 0 < float(str(pipeline.sql(published)[0]["n"])) < 130)
    assert len(shifts(pipeline)) == 1
