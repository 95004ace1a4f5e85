"""Reads a stream after its end: all topics, SQL, the vendor's book, and the model computed anew."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from metallm_stream.serve.rebuild import Rebuilt
from tests.chaos.checker import Account, Event, History, Progress, Seen
from tests.chaos.traffic import JUDGE
from tests.pipeline import Pipeline
from tests.processes import eventually

PROVIDERS = ("recorded",)
_ROWS = (
    "SELECT query_id, arm, answered_by, propensity, prediction, cost_usd, quality, problem, "
    "decision, context, result, judged_by, verdict FROM metallm.interactions"
)
_DEAD = "SELECT topic, partition, record_offset FROM metallm.dead_letters"
_SPEND = (
    "SELECT coalesce(sum(cost_usd), 0) AS usd FROM metallm.spend "
    "WHERE bucket = 'day' AND arm IS NULL"
)
_ACCOUNTS = "SELECT budget, key, queries, spent_usd, reserved_usd FROM metallm.budgets"
_JUDGES = "SELECT coalesce(sum(cost_usd), 0) AS usd FROM metallm.judges"
_OFFSETS = "SELECT topic, partition, next_offset FROM metallm.offsets"
_SHIFTS = "SELECT count(*) AS n FROM metallm.drift"


def read_records(pipeline: Pipeline) -> tuple[Seen, ...]:
    """Every committed record of every topic, up to the present ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": pipeline.bootstrap,
            "group.id": "stranger",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        listed = consumer.list_topics(timeout=30).topics
        topics = pipeline.names.all(PROVIDERS)
        unread = {(name, part) for name in topics for part in listed[name].partitions}
        consumer.assign([TopicPartition(*where, OFFSET_BEGINNING) for where in sorted(unread)])
        seen = []
        while unread:
            for message in consumer.consume(1_000, 0.1):
                error = message.error()
                if error is None:
                    seen.append(_seen(message, pipeline.names.prefix))
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard((message.topic() or "", message.partition() or 0))
                elif not error.retriable():
                    raise KafkaException(error)
        return tuple(seen)
    finally:
        consumer.close()


def wait_until_learned(pipeline: Pipeline, stuck_s: float) -> bool:
    """Whether the learner reads all that is on its topics now, however long it takes.

    False when no position of its has moved for so long.
    """
    learned = ("decisions", "results", "feedback", "verdicts")
    ends: dict[tuple[str, int], int] = {}
    for item in read_records(pipeline):
        if item.topic in learned or item.topic.endswith(".dlq"):
            key = pipeline.names.prefix + item.topic, item.partition
            ends[key] = max(ends.get(key, 0), item.offset + 1)

    def left() -> int:
        rows = pipeline.sql(_OFFSETS)
        reached = {(row["topic"], row["partition"]): int(str(row["next_offset"])) for row in rows}
        return sum(max(0, end - reached.get(key, 0)) for key, end in ends.items())

    return comes_to_zero(left, stuck_s)


def unjudged(pipeline: Pipeline) -> int:
    """How many answers are put before the judge model and have no verdict yet."""
    seen = Counter(item.topic for item in read_records(pipeline))
    return seen["cases"] - seen["verdicts"]


def comes_to_zero(left: Callable[[], int], stuck_s: float) -> bool:
    """Whether what is left to do comes to nothing; False when it stays the same for so long."""
    while (now := left()) > 0:
        try:
            eventually(lambda held=now: left() < held, stuck_s)
        except AssertionError:
            return False
    return True


def read_history(
    pipeline: Pipeline,
    *,
    asked: Iterable[str],
    ledger: Path,
    progress: Sequence[Progress],
    events: Sequence[Event],
) -> History:
    """All that can be seen of the stream now."""
    prefix = pipeline.names.prefix
    lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    stored, logged = pipeline.rebuilt(), pipeline.rebuilt(from_log=True)
    return History(
        asked=frozenset(asked),
        records=read_records(pipeline),
        rows={str(row["query_id"]): row for row in pipeline.sql(_ROWS)},
        dead_rows=tuple(
            (str(row["topic"]).removeprefix(prefix), row["partition"], row["record_offset"])
            for row in pipeline.sql(_DEAD)
        ),
        ledger=tuple(line for line in lines if line["model"] != JUDGE),
        judge_ledger=tuple(line for line in lines if line["model"] == JUDGE),
        accounts={
            (str(row["budget"]), str(row["key"])): Account(
                int(str(row["queries"])),
                float(str(row["spent_usd"])),
                float(str(row["reserved_usd"])),
            )
            for row in pipeline.sql(_ACCOUNTS)
        },
        judges_usd=float(str(pipeline.sql(_JUDGES)[0]["usd"])),
        observations=_observations(stored),
        shifts=int(str(pipeline.sql(_SHIFTS)[0]["n"])),
        differences={
            "SQL": stored.max_relative_difference,
            "the log": logged.max_relative_difference,
        },
        spend_usd=float(str(pipeline.sql(_SPEND)[0]["usd"])),
        progress=tuple(progress),
        events=tuple(events),
    )


def _observations(rebuilt: Rebuilt) -> dict[str, float]:
    return {arm: rebuilt.live.observations(arm) for arm in rebuilt.live.arms}


def _seen(message: Message, prefix: str) -> Seen:
    return Seen(
        topic=(message.topic() or "").removeprefix(prefix),
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        at_s=message.timestamp()[1] / 1_000,
        key=(message.key() or b"").decode(errors="replace"),
        value=_object(message.value()),
        headers={
            name: (value or b"").decode(errors="replace") for name, value in _headers(message)
        },
    )


def _object(value: bytes | None) -> dict[str, Any] | None:
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _headers(message: Message) -> list[tuple[str, bytes]]:
    found = message.headers() or []
    return list(found.items()) if isinstance(found, dict) else found
