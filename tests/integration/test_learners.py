"""Several learners of one group."""

from __future__ import annotations

import re

import numpy as np

from metallm_stream.encode import context_to_bytes
from metallm_stream.kafka import Record, write
from tests import records
from tests.pipeline import ENCODER, Pipeline, eventually


def test_two_learners_share_each_topic(pipeline: Pipeline) -> None:
    """Not only the number of partitions: one with dead letters alone would learn nothing."""
    for slot in ("0", "1"):
        pipeline.start("learner", slot=slot).wait_ready(60)
    for topic in pipeline.names.joined:
        eventually(lambda topic=topic: held(pipeline, topic) in ([[0], [1]], [[1], [0]]), 60)


def test_late_scores_of_large_answers_are_learned_in_parts(pipeline: Pipeline) -> None:
    """What a batch has to load may be a hundred times what it reads."""
    ids, names = [f"q{number}" for number in range(80)], pipeline.names
    learner = pipeline.start("learner")
    for query_id in ids:
        decision = records.decision(
            query_id,
            encoder=ENCODER.replace(":", "-"),
            context=context_to_bytes(np.full(32, 32**-0.5, np.float32)),
        )
        result = records.result(query_id, text="x" * 1_000_000)
        write(pipeline.producer, [Record.of(names.decisions, query_id, decision)])
        write(pipeline.producer, [Record.of(names.results, query_id, result)])
    pipeline.wait_until_learned()
    pipeline.judge(*(records.feedback(query_id, None, score=0.5) for query_id in ids))
    pipeline.wait_until_learned()
    assert "too much to load at once: in halves" in pipeline.logs(1_000)
    judged = pipeline.sql("SELECT count(*) AS n FROM metallm.interactions WHERE quality = 0.5")
    assert judged[0]["n"] == len(ids)
    assert pipeline.rebuilt().max_relative_difference <= 1e-9
    assert not learner.exit_codes


def held(pipeline: Pipeline, topic: str) -> list[list[int]]:
    """The topic's partitions that each of the two was assigned last."""
    logs = [(pipeline.directory / f"learner-{slot}.log").read_text() for slot in "01"]
    last = [[line for line in log.splitlines() if " assigned " in line][-1:] for log in logs]
    found = [re.findall(rf"{re.escape(topic)}\[(\d+)\]", "".join(line)) for line in last]
    return [[int(number) for number in numbers] for numbers in found]
