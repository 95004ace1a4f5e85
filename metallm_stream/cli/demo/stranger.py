"""What a stranger finds on the topics: a plain read_committed consumer and plain JSON.

Invariant: nothing of the service's own reading or parsing is used here, so that a fault there
cannot hide itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from metallm_stream.errors import MetallmError
from metallm_stream.kafka import Connection, TopicNames

TIMEOUT_S = 60.0
Found = dict[str, list[dict[str, Any]]]


@dataclass
class Log:
    """Everything that stands on the topics, by query_id and in the order of its partition.

    Attributes
    ----------
    queries, decisions, calls, results, feedback
        The records of each topic.
    dead_letters
        Topic and position of every dead letter.
    ends
        One past the last record of each partition of `decisions`, `results` and `feedback`.
    """

    queries: Found = field(default_factory=dict)
    decisions: Found = field(default_factory=dict)
    calls: Found = field(default_factory=dict)
    results: Found = field(default_factory=dict)
    feedback: Found = field(default_factory=dict)
    dead_letters: list[str] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)


def read_log(kafka: Connection, names: TopicNames, provider: str) -> Log:
    """Read all topics of a prefix from their beginning to their present end.

    Raises
    ------
    MetallmError
        When an end is not reached within a minute.
    """
    log = Log()
    found: dict[str, Found] = {
        names.queries: log.queries,
        names.decisions: log.decisions,
        names.calls(provider): log.calls,
        names.results: log.results,
        names.feedback: log.feedback,
    }
    for message in _records(kafka, names.all((provider,))):
        topic = message.topic() or ""
        if topic in (names.decisions, names.results, names.feedback):
            log.ends[topic, message.partition() or 0] = (message.offset() or 0) + 1
        if topic.endswith(".dlq"):
            log.dead_letters.append(f"{topic}[{message.partition()}]@{message.offset()}")
        elif topic in found:
            event = json.loads(message.value() or b"{}")
            query_id = event.get("query", event)["query_id"]  # a call holds its query
            found[topic].setdefault(query_id, []).append(event)
    return log


def _records(kafka: Connection, topics: list[str]) -> Iterator[Message]:
    consumer = Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": "a-stranger",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **{name: value.get_secret_value() for name, value in kafka.properties.items()},
        }
    )
    try:
        listed = consumer.list_topics(timeout=TIMEOUT_S).topics
        unread = {(name, part) for name in topics for part in listed[name].partitions}
        consumer.assign([TopicPartition(*where, OFFSET_BEGINNING) for where in sorted(unread)])
        deadline = time.monotonic() + TIMEOUT_S
        while unread:
            if time.monotonic() > deadline:
                raise MetallmError(f"the end of {sorted(unread)} was not reached in {TIMEOUT_S} s")
            for message in consumer.consume(1_000, 0.1):
                error = message.error()
                if error is None:
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    unread.discard((message.topic() or "", message.partition() or 0))
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
