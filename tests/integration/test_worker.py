"""A worker whose own code breaks on a call."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from pydantic import SecretStr

from metallm_stream.events import Attempt, Call, Model, Result
from metallm_stream.kafka import Record, write
from metallm_stream.providers import Forward, Provider, ProviderSettings, open_provider
from metallm_stream.serve.calls import CallLimits
from metallm_stream.serve.worker import Worker
from tests.pipeline import Pipeline, questions
from tests.processes import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def answer(call: Call, provider: Provider) -> Result | Forward:
    """Break on q1, send q2 to where nobody is, answer everything else."""
    del provider
    if call.query.query_id == "q1":
        raise ZeroDivisionError("by the test")
    if call.query.query_id == "q2":
        elsewhere = call.ranking[0].model_copy(update={"provider": "elsewhere"})
        return Forward(call.model_copy(update={"ranking": (elsewhere,)}))
    return Result(query_id=call.query.query_id, arm="a", text="yes", finished_at=NOW)


def test_a_call_that_breaks_the_worker_fails_alone(pipeline: Pipeline) -> None:
    """Its user gets a failure result, with what was spent before, and the others their answers.

    So does the user of a call whose next arm is at a provider without a topic.
    """
    arm = Model(arm="a", provider="recorded", model="a")
    calls = [
        Call(
            call_id=query.query_id,
            query=query,
            ranking=(arm,),
            attempts=(Attempt(arm="b", started_at=NOW, latency_s=1, cost_usd=0.25),),
            decided_at=NOW,
        )
        for query in questions(4)
    ]
    topic = pipeline.names.calls("recorded")
    write(pipeline.producer, [Record.of(topic, call.call_id, call) for call in calls])
    settings = ProviderSettings(name="recorded", api_key=SecretStr("k"))
    worker = Worker(
        pipeline.kafka,
        pipeline.names,
        "recorded",
        lambda: open_provider(settings),
        answer,
        slot="0",
        limits=CallLimits(concurrency=4, commit_interval_s=0.02, drain_s=1),
        now=lambda: NOW,
    )
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    eventually(lambda: len(pipeline.results()) == 4)
    stop.set()
    thread.join()
    results = pipeline.results()
    assert [results[f"q{number}"].arm for number in (0, 3)] == ["a", "a"]
    broken, lost = (results[f"q{number}"].failure for number in (1, 2))
    assert broken is not None
    assert broken.kind == "worker_error"
    assert "ZeroDivisionError" in broken.message
    assert results["q1"].cost_usd == 0.25
    assert lost is not None
    assert lost.kind == "unsupported"
    assert "calls.elsewhere' is missing, or not visible to this user: run" in lost.message
