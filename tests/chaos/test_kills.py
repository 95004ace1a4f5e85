"""A service is killed in the middle of a stream: after its restart nothing is lost or doubled."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from metallm_stream.events import Feedback
from tests.pipeline import LABELS, Pipeline, kill, outcomes, questions
from tests.processes import eventually

QUERIES = 2_000
CHUNK = 100
KILLS = 3


def stream(pipeline: Pipeline, rng: np.random.Generator) -> None:
    """Ask in chunks and judge each chunk while the next ones are on their way."""
    queries = questions(QUERIES)
    pause = threading.Event()
    for start in range(0, QUERIES, CHUNK):
        chunk = queries[start : start + CHUNK]
        pipeline.ask(*chunk)
        labels = rng.choice(LABELS, CHUNK)
        pipeline.judge(
            *(
                Feedback(query_id=query.query_id, label=str(label))
                for query, label in zip(chunk, labels, strict=True)
            )
        )
        pause.wait(0.25)


@pytest.mark.chaos
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("victim", "seed"), [("router", 1), ("worker", 2), ("learner", 3)])
def test_killing_a_service_loses_and_doubles_nothing(
    pipeline: Pipeline, victim: str, seed: int
) -> None:
    """SIGKILL at three seeded moments of a stream of 2,000 queries, each followed by a restart."""
    rng = np.random.default_rng(seed)
    queries = questions(QUERIES)
    pipeline.record(outcomes(queries), labels=LABELS)
    children = pipeline.start_all()
    streaming = threading.Thread(target=stream, args=(pipeline, np.random.default_rng(seed)))
    streaming.start()
    pause = threading.Event()
    for number in range(KILLS):
        pause.wait(float(rng.uniform(0.5, 2.5)))
        kill(children[victim])
        eventually(lambda killed=number + 1: len(children[victim].exit_codes) >= killed)
        children[victim].wait_ready(60)
    streaming.join()
    assert children[victim].exit_codes == (137,) * KILLS
    pipeline.wait_for_results(QUERIES, 120)
    pipeline.wait_until_learned(120)
    pipeline.assert_sound(query.query_id for query in queries)
    judged = pipeline.sql(
        "SELECT count(*) AS n FROM metallm.interactions WHERE quality IS NOT NULL"
    )
    assert judged[0]["n"] == QUERIES
    observations = sum(map(pipeline.rebuilt().live.observations, ("large", "small")))
    assert observations == pytest.approx(QUERIES, abs=1e-6)
