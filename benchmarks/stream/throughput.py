"""How fast router and learner work off a backlog with all guarantees on, beside what bounds them.

    python -m benchmarks.stream.throughput --queries 40000 --interactions 20000

- Router: queries wait in the topic, then a router starts. Its bound is computed from the encoder
  alone and the bare exactly-once loop alone at the same batch: 1 / (1/encoder + 1/loop).
- Learner: decisions, results and labels wait, then a learner starts. Beside it, one bare COPY of
  the rows that it wrote into a table with the same columns and indexes, and what it takes to
  validate the three events of an interaction and nothing else.

All in one run, each alone on the machine. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import psycopg
from confluent_kafka import Message
from psycopg import sql

from benchmarks.stream.bare import sustained
from benchmarks.stream.stage import REPOSITORY, Stage, cpu_s, open_stage
from metallm_stream.encode import context_to_bytes, load_encoder
from metallm_stream.events import (
    Attempt,
    Candidate,
    Decision,
    Event,
    Feedback,
    Model,
    Query,
    Result,
)
from metallm_stream.kafka import Record
from metallm_stream.kafka.write import begin_write
from metallm_stream.settings import Settings

ARMS = tuple(Model(arm=name, provider="recorded", model=name) for name in ("a", "b", "c", "d", "e"))
LABELS = ("yes", "no")
WITHIN_S = 300.0


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--queries", type=int, default=40_000)
    parser.add_argument("--interactions", type=int, default=20_000)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with open_stage("recorded", learns=True) as stage:
        stage.encoder = Settings().encoder
        stage.add_models(ARMS)
        if options.interactions:
            figures["learner"] = learner(stage, options.interactions)
        if options.queries:  # with the policy that was learned
            figures["router"] = router(stage, options.queries, options.interactions)
    print(json.dumps(figures, indent=2))


def texts(count: int) -> list[str]:
    """Questions of about 300 characters."""
    rng = np.random.default_rng(1)
    words = np.array(
        [f"{stem}{end}" for stem in ("lo", "ma", "ti", "re") for end in ("n", "s", "")]
    )
    return [f"Question {n}: {' '.join(rng.choice(words, 80))}?" for n in range(count)]


def put(stage: Stage, records: Iterator[Record]) -> None:
    """Write records and wait until all are there."""
    for record in records:
        begin_write(stage.producer, record)
    stage.producer.flush(60)


# The router.


def router(stage: Stage, count: int, decided: int) -> dict[str, Any]:
    """Rates of the encoder, of the bare loop and of the service, and their ratio.

    The learner's part has `decided` so many queries before, which do not count here.
    """
    batch = Settings().router.batch_size
    asked = texts(count)
    put(stage, (_query(stage, number, text) for number, text in enumerate(asked)))
    encoder_per_s = _encoder(stage, asked, batch)
    bare = _bare_loop(stage, count, batch)
    limit_per_s = 1 / (1 / encoder_per_s + 1 / bare["records_per_s"])
    at_s: list[float] = []
    with stage.reader(stage.names.decisions) as consumer:
        stage.read(consumer, decided, lambda _: None, WITHIN_S)
        child = stage.start("router")
        began_s = cpu_s(child)
        stage.read(consumer, count, lambda message: at_s.append(_written_s(message)), WITHIN_S)
    used_s = cpu_s(child) - began_s
    child.stop()
    rate = sustained(at_s)
    return {
        "encoder_per_s": encoder_per_s,
        "bare_loop": bare,
        "limit_per_s": limit_per_s,
        "queries_per_s": rate,
        "cpu_us_per_query": 1e6 * used_s / count,
        "share_of_limit": rate / limit_per_s,
    }


def _query(stage: Stage, number: int, text: str) -> Record:
    key = f"r-{number}"
    return Record.of(stage.names.queries, key, Query(query_id=key, text=text, labels=LABELS))


def _encoder(stage: Stage, asked: Sequence[str], batch: int) -> float:
    encoder = load_encoder(stage.encoder)
    encoder.encode(asked[:batch])
    began_s = time.perf_counter()
    for start in range(0, len(asked), batch):
        encoder.encode(asked[start : start + batch])
    return len(asked) / (time.perf_counter() - began_s)


def _bare_loop(stage: Stage, count: int, batch: int) -> dict[str, float]:
    names = stage.names
    targets = [names.feedback, names.calls("recorded")]  # nobody reads them in this run
    argv = [sys.executable, "-m", "benchmarks.stream.bare_kafka", stage.bootstrap, names.queries]
    argv += [*targets, "--records", str(count), "--batch", str(batch)]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(  # noqa: S603 - our own words
        argv, env=environment, check=True, capture_output=True, text=True
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _written_s(message: Message) -> float:
    return float(message.timestamp()[1]) / 1e3


# The learner.


def learner(stage: Stage, count: int) -> dict[str, Any]:
    """Interactions a second of the service and of a bare COPY, and their ratio."""
    put(stage, interactions(stage, [f"l-{number}" for number in range(count)]))
    child = stage.start("learner")
    read, took_s, used_s = [0.0], 0.0, cpu_s(child)
    with psycopg.connect(libpq(stage.database_url), autocommit=True) as conn:
        began_s = time.monotonic()
        while read[-1] < 3 * count:
            if time.monotonic() - began_s > WITHIN_S:
                raise SystemExit(f"the learner read {read[-1]:.0f} of {3 * count} records")
            time.sleep(0.02)
            row = conn.execute("SELECT coalesce(sum(next_offset), 0) FROM metallm.offsets")
            read.append(float(row.fetchone()[0]))  # type: ignore[index]
            if read[-2] == 0:
                started_s = time.monotonic()
        took_s, used_s = time.monotonic() - started_s, cpu_s(child) - used_s
        learned = conn.execute(
            "SELECT count(*) FROM metallm.interactions WHERE quality IS NOT NULL"
        )
        assert learned.fetchone() == (count,)
        copied_per_s = _copy(conn, count)
    child.stop()
    rate = (3 * count - read[1 + read.count(0.0) - 1]) / 3 / took_s
    return {
        "interactions_per_s": rate,
        "cpu_us_per_interaction": 1e6 * used_s / count,
        "validation_us_per_interaction": _validation_us(stage),
        "bare_copy_per_s": copied_per_s,
        "share_of_copy": rate / copied_per_s,
    }


def _validation_us(stage: Stage, count: int = 2_000) -> float:
    """Processor time to read a decision, a result and a label from their bytes."""
    kinds: dict[str, type[Event]] = {
        stage.names.decisions: Decision,
        stage.names.results: Result,
        stage.names.feedback: Feedback,
    }
    waiting = list(interactions(stage, [f"v-{number}" for number in range(count)]))
    began_s = time.process_time()
    for record in waiting:
        kinds[record.topic].parse(record.value)
    return 1e6 * (time.process_time() - began_s) / count


def _copy(conn: psycopg.Connection, count: int) -> float:
    """Rows a second that one COPY takes, into a table like the one they come from."""
    conn.execute("CREATE TABLE copied (LIKE metallm.interactions INCLUDING ALL)")
    # Generated columns are neither read nor written.
    columns = sql.SQL(", ").join(
        sql.Identifier(row[0])
        for row in conn.execute(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'metallm'"
            " AND table_name = 'interactions' AND is_generated = 'NEVER' ORDER BY ordinal_position"
        )
    )
    select = sql.SQL("COPY (SELECT {} FROM metallm.interactions) TO STDOUT (FORMAT binary)")
    insert = sql.SQL("COPY copied ({}) FROM STDIN (FORMAT binary)")
    with conn.cursor().copy(select.format(columns)) as out:
        rows = b"".join(out)
    began_s = time.perf_counter()
    with conn.cursor().copy(insert.format(columns)) as into:
        into.write(rows)
    took_s = time.perf_counter() - began_s
    conn.execute("DROP TABLE copied")
    return count / took_s


def libpq(url: str) -> str:
    """The URL as psycopg itself takes it."""
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def interactions(
    stage: Stage, keys: Sequence[str], arms: Sequence[Model] = ARMS
) -> Iterator[Record]:
    """Decision, result and label of each query, the arm by chance.

    Which arm is right depends on the context, so that there is something to learn.
    """
    rng = np.random.default_rng(2)
    encoder = load_encoder(stage.encoder)
    contexts = encoder.encode(texts(len(keys)))
    strengths = contexts @ rng.standard_normal((contexts.shape[1], len(arms)))
    middle = np.median(strengths, axis=0)
    names = stage.names
    for number, key in enumerate(keys):
        row = int(rng.integers(len(arms)))
        arm, (right, wrong) = arms[row].arm, rng.permutation(LABELS).tolist()
        is_right = strengths[number, row] > middle[row]
        context = context_to_bytes(contexts[number])
        events: dict[str, Event] = {
            names.decisions: _decision(key, number, arm, encoder.name, context, arms),
            names.results: _result(key, arm, right if is_right else wrong),
            names.feedback: Feedback(query_id=key, feedback_id="f", label=right),
        }
        for topic, event in events.items():
            yield Record.of(topic, key, event)


def _decision(
    key: str, number: int, arm: str, encoder: str, context: bytes, arms: Sequence[Model]
) -> Decision:
    now = datetime.now(UTC)
    share = 1 / len(arms)
    seen = {"quality": 0.51, "cost_usd": 1.2e-4, "latency_s": 0.8, "utility": 0.47, "leverage": 0.2}
    return Decision(
        query_id=key,
        asked_at=now,
        decided_at=now,
        labels=LABELS,
        context=context,
        encoder=encoder,
        arm=arm,
        propensity=share,
        candidates=tuple(Candidate(arm=one.arm, probability=share, **seen) for one in arms),
        policy="ridge-elimination",
        policy_version=1,
        cost_weight=0.1,
        latency_weight=0.0,
        cost_scale_usd=3e-4,
        fingerprint=hashlib.sha256(key.encode()).hexdigest(),
        query_partition=0,
        query_offset=number,
        prompt_characters=300,
    )


def _result(key: str, arm: str, prediction: str) -> Result:
    now = datetime.now(UTC)
    tried = Attempt(
        arm=arm,
        started_at=now,
        latency_s=0.8,
        input_tokens=80,
        output_tokens=3,
        cost_usd=1.2e-4,
    )
    return Result(
        query_id=key,
        arm=arm,
        text=prediction,
        prediction=prediction,
        input_tokens=80,
        output_tokens=3,
        cost_usd=1.2e-4,
        latency_s=0.8,
        attempts=(tried,),
        finished_at=now,
    )


if __name__ == "__main__":
    main()
