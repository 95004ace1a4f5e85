"""A worker with a cap on its spending, killed and started again."""

from __future__ import annotations

from tests.pipeline import LABELS, Pipeline, kill, outcomes, questions

COST_USD = 0.001


def test_a_cap_holds_over_a_kill(pipeline: Pipeline) -> None:
    """What is beyond the cap ends as `spend_cap`, also after the worker was killed."""
    queries = questions(40)
    known = {
        text: {"large": values["large"] | {"cost": COST_USD}}
        for text, values in outcomes(queries).items()
    }
    pipeline.record(known, labels=LABELS)
    settings = {"WORKER__SPEND_CAP_USD": "0.0195", "WORKER__CONCURRENCY": "1"}
    pipeline.produce(pipeline.names.health, b'{"spent_usd": 1}', b"spend recorded 0")  # not ours
    pipeline.start("router").wait_ready(60)
    worker = pipeline.start("worker", "--provider", "recorded", **settings)
    worker.wait_ready(60)
    pipeline.ask(*queries[:10])
    pipeline.wait_for_results(10)
    kill(worker)
    pipeline.ask(*queries[10:])
    results = pipeline.wait_for_results(40)
    paid = [result for result in results.values() if result.failure is None]
    assert len(paid) == 20
    assert sum(result.cost_usd for result in paid) <= 0.0195 + COST_USD
    refused = [result.failure.kind for result in results.values() if result.failure is not None]
    assert refused == ["spend_cap"] * 20
