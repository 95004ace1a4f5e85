"""Replicas join and leave in the middle of a stream: nothing is lost or doubled."""

from __future__ import annotations

import threading

import pytest

from metallm_stream.events import Feedback
from tests.pipeline import LABELS, Pipeline, outcomes, questions

QUERIES = 600
CHUNK = 50


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_replicas_of_every_service_join_and_leave(pipeline: Pipeline) -> None:
    """Slot 1 of router, worker and learner joins; then slot 0 of each leaves."""
    queries = questions(QUERIES)
    pipeline.record(outcomes(queries), labels=LABELS)
    first = pipeline.start_all()
    pause = threading.Event()
    second = []
    for number in range(QUERIES // CHUNK):
        chunk = queries[number * CHUNK : (number + 1) * CHUNK]
        pipeline.ask(*chunk)
        pipeline.judge(*(Feedback(query_id=query.query_id, label="yes") for query in chunk))
        if number == 2:
            second.append(pipeline.start("router", slot="1"))
            second.append(pipeline.start("worker", "--provider", "recorded", slot="1"))
            second.append(pipeline.start("learner", slot="1"))
            for child in second:
                child.wait_ready(60)
        if number == 8:
            for child in first.values():
                child.stop()
        pause.wait(0.2)
    pipeline.wait_for_results(QUERIES, 120)
    pipeline.wait_until_learned(120)
    pipeline.assert_sound(query.query_id for query in queries)
    slots = pipeline.sql("SELECT slot FROM metallm.slots ORDER BY slot")
    assert [row["slot"] for row in slots] == ["0", "1"]
    assert all(child.exit_codes == () for child in second)
    assert all(child.exit_codes == (0,) for child in first.values())
