"""A worker whose own code breaks on a call, or whose brokers are silent for too long."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from metallm_stream.embedded import EmbeddedStack
from metallm_stream.errors import Fenced
from metallm_stream.events import Call, Model, Result
from metallm_stream.kafka import Record, write
from metallm_stream.providers import Forward, Provider, ProviderSettings, open_provider
from metallm_stream.serve.calls import Answerer, CallLimits
from metallm_stream.serve.worker import Worker
from tests.pipeline import Pipeline, open_pipeline, questions
from tests.processes import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SILENCE_S = 8.0  # longer than a group waits for a member


async def answer(call: Call, provider: Provider) -> Result | Forward:
    """Break on q1, send q2 to where nobody is, answer everything else."""
    del provider
    if call.query.query_id == "q1":
        raise ZeroDivisionError("by the test")
    if call.query.query_id == "q2":
        elsewhere = call.ranking[0].model_copy(update={"provider": "elsewhere"})
        return Forward(call.model_copy(update={"ranking": (elsewhere,)}))
    return Result(query_id=call.query.query_id, arm="a", text="yes", finished_at=NOW)


def ask(pipeline: Pipeline, count: int) -> None:
    """Write calls as a router does."""
    arm = Model(arm="a", provider="recorded", model="a")
    calls = [
        Call(call_id=query.query_id, query=query, ranking=(arm,), decided_at=NOW)
        for query in questions(count)
    ]
    topic = pipeline.names.calls("recorded")
    write(pipeline.producer, [Record.of(topic, call.call_id, call) for call in calls])


@contextmanager
def working(pipeline: Pipeline, answer: Answerer, *, concurrency: int) -> Iterator[Future[None]]:
    """A worker at work, which must end in order."""
    settings = ProviderSettings(name="recorded", api_key=SecretStr("k"))
    worker = Worker(
        pipeline.kafka,
        pipeline.names,
        "recorded",
        lambda: open_provider(settings),
        answer,
        slot="0",
        limits=CallLimits(concurrency=concurrency, commit_interval_s=0.02, drain_s=1),
        now=lambda: NOW,
    )
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(worker.run, stop)
        try:
            yield running
        finally:
            stop.set()
            running.result()


def test_a_call_that_breaks_the_worker_fails_alone(pipeline: Pipeline) -> None:
    """Its user gets a failure result, and the others their answers.

    So does the user of a call whose next arm is at a provider without a topic.
    """
    ask(pipeline, 4)
    with working(pipeline, answer, concurrency=4):
        eventually(lambda: len(pipeline.results()) == 4)
    results = pipeline.results()
    assert [results[f"q{number}"].arm for number in (0, 3)] == ["a", "a"]
    broken, lost = (results[f"q{number}"].failure for number in (1, 2))
    assert broken is not None
    assert broken.kind == "worker_error"
    assert "ZeroDivisionError" in broken.message
    assert lost is not None
    assert lost.kind == "unsupported"
    assert "calls.elsewhere' is missing: run `metallm topics create`" in lost.message


class Counting:
    """Answers after a while, two calls much later, and counts how often each was made."""

    def __init__(self, slow_s: float) -> None:
        self.calls: Counter[str] = Counter()
        self._slow_s = slow_s

    async def __call__(self, call: Call, provider: Provider) -> Result | Forward:
        """Answer."""
        del provider
        self.calls[call.call_id] += 1
        is_slow = call.query.query_id in ("q0", "q1")
        await asyncio.sleep(self._slow_s if is_slow else 0.05)
        return Result(query_id=call.query.query_id, arm="a", text="yes", finished_at=NOW)


def test_who_is_fenced_by_another_ends(pipeline: Pipeline) -> None:
    """Brokers were there all the time: somebody has begun in the same slot."""
    ask(pipeline, 400)
    slot = f"{pipeline.names.prefix}metallm-worker-recorded-0"

    def work_until_fenced() -> None:
        with working(pipeline, Counting(slow_s=60.0), concurrency=8) as running:
            eventually(lambda: len(pipeline.results()) > 50)
            pipeline.kafka.transactional_producer(slot).init_transactions(30)
            eventually(running.done)

    with pytest.raises(Fenced):
        work_until_fenced()


def test_an_outage_costs_no_call(database_url: str, tmp_path: Path) -> None:
    """Brokers are silent for so long that the group puts the worker out: it joins again."""
    answers = Counting(slow_s=20.0)
    with (
        EmbeddedStack(tmp_path / "state", database_url="postgresql://none") as stack,
        open_pipeline(stack.bootstrap_servers, database_url, tmp_path) as pipeline,
    ):
        broker = stack.supervisor.children["kafka"]
        assert broker.pid is not None
        ask(pipeline, 800)
        with working(pipeline, answers, concurrency=8):
            eventually(lambda: len(pipeline.results()) > 50)
            os.kill(broker.pid, signal.SIGSTOP)
            time.sleep(SILENCE_S)
            os.kill(broker.pid, signal.SIGCONT)
            eventually(lambda: len(pipeline.results()) == 800, 60)
        assert set(answers.calls.values()) == {1}
