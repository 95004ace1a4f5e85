"""A worker whose own code breaks on a call."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from pydantic import SecretStr

from metallm_stream.events import Call, Model, Result
from metallm_stream.kafka import Record, write
from metallm_stream.providers import Provider, ProviderSettings, open_provider
from metallm_stream.serve.calls import CallLimits
from metallm_stream.serve.worker import Worker
from tests.pipeline import Pipeline, questions
from tests.processes import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


async def answer(call: Call, provider: Provider) -> Result:
    """Break on q1, answer everything else."""
    del provider
    if call.query.query_id == "q1":
        raise ZeroDivisionError("by the test")
    return Result(query_id=call.query.query_id, arm="a", text="yes", finished_at=NOW)


def test_a_call_that_breaks_the_worker_fails_alone(pipeline: Pipeline) -> None:
    """Its user gets a failure result, and the others their answers."""
    arm = Model(arm="a", provider="recorded", model="a")
    calls = [
        Call(call_id=query.query_id, query=query, ranking=(arm,), decided_at=NOW)
        for query in questions(3)
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
    eventually(lambda: len(pipeline.results()) == 3)
    stop.set()
    thread.join()
    results = pipeline.results()
    assert [results[f"q{number}"].arm for number in (0, 2)] == ["a", "a"]
    failure = results["q1"].failure
    assert failure is not None
    assert failure.kind == "worker_error"
    assert "ZeroDivisionError" in failure.message
