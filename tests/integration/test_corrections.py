"""Corrected and withdrawn labels leave the model as if only the final ones had been seen."""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import Decision, Feedback, Result
from metallm_stream.kafka import Record, write
from metallm_stream.policy import Sums
from tests import records
from tests.pipeline import ENCODER, Pipeline
from tests.records import START

QUERIES, CORRECTED, WITHDRAWN, DIMENSIONS = 2_000, 1_000, 200, 32
ARMS = ("large", "small")


def decision(number: int, context: np.ndarray) -> Decision:
    """A decision for one of the two arms, alternately."""
    return records.decision(
        f"q{number}",
        query_offset=number,
        encoder=ENCODER.replace(":", "-"),
        context=context_to_bytes(context),
        arm=ARMS[number % 2],
    )


def result(number: int) -> Result:
    """The answer of the decided arm, for a cent."""
    arm = ARMS[number % 2]
    attempt = records.attempt(arm, latency_s=0.5, cost_usd=0.01, input_tokens=None)
    return records.result(f"q{number}", arm, attempts=(attempt,), cost_usd=0.01)


def test_corrections_and_withdrawals_are_exact(pipeline: Pipeline) -> None:
    """1,000 labels corrected, 200 withdrawn: the sums equal those of the final labels to 1e-9.

    Two learners take the backlog in small batches, and partitions change hands in the middle.
    """
    rng = np.random.default_rng(11)
    contexts = rng.normal(size=(QUERIES, DIMENSIONS)).astype(np.float32)
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    first, final = rng.random(QUERIES), rng.random(QUERIES)
    chosen = rng.permutation(QUERIES)
    corrected, withdrawn = chosen[:CORRECTED], chosen[-WITHDRAWN:]
    final[chosen[CORRECTED:]] = first[chosen[CORRECTED:]]
    learner = pipeline.start("learner", LEARNER__BATCH_SIZE="100")
    names = pipeline.names
    log = [
        record
        for number in range(QUERIES)
        for record in (
            Record.of(names.decisions, f"q{number}", decision(number, contexts[number])),
            Record.of(names.results, f"q{number}", result(number)),
        )
    ]
    write(pipeline.producer, log)
    pipeline.judge(*(judged(number, first[number], 0) for number in range(QUERIES)))
    learner.wait_ready(60)
    pipeline.start("learner", slot="1", LEARNER__BATCH_SIZE="100")
    pipeline.wait_until_learned()
    late = [judged(number, final[number], 2) for number in corrected]
    late += [judged(number, first[number], 1) for number in corrected]  # late, and overtaken
    late += [
        Feedback(query_id=f"q{number}", withdrawn=True, given_at=START + timedelta(hours=1))
        for number in withdrawn
    ]
    pipeline.judge(*(late[place] for place in rng.permutation(len(late))))
    pipeline.wait_until_learned()
    rows = pipeline.sql("SELECT query_id, quality FROM metallm.interactions")
    kept = {f"q{number}": final[number] for number in {*range(QUERIES)} - {*withdrawn.tolist()}}
    assert {row["query_id"]: row["quality"] for row in rows if row["quality"] is not None} == kept
    rebuilt = pipeline.rebuilt()
    assert rebuilt.live.difference(expected(contexts, final, set(withdrawn.tolist()))) <= 1e-9
    assert rebuilt.max_relative_difference <= 1e-9
    assert pipeline.rebuilt(from_log=True).max_relative_difference <= 1e-9


def judged(number: int, score: float, hours: int) -> Feedback:
    """A score given so many hours after the start."""
    return Feedback(
        query_id=f"q{number}", score=float(score), given_at=START + timedelta(hours=hours)
    )


def expected(contexts: np.ndarray, final: np.ndarray, withdrawn: set[int]) -> Sums:
    """The sums of the final labels, each seen once."""
    sums = Sums(DIMENSIONS)
    for number in range(QUERIES):
        arm = ARMS[number % 2]
        sums.add_usage(arm, usage())
        if number not in withdrawn:
            sums.add_quality(arm, contexts[number][None], final[number][None], np.ones(1))
    return sums


def usage() -> np.ndarray:
    """One call of 0.01 USD and half a second, of an unknown prompt, in the documented order."""
    return np.array([1, 0, 1, 0.01, 0.0001, 0, 0, 0, 1, 0.5, 0.25, 0, 0, 0, 0, 0])
