"""Partitions that are read together, in the order of their records' times."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.cimpl import NewTopic

from metallm_stream.kafka import Connection, TimeOrder, offset_of, partition_of

WITHIN_S = 30.0
Batches = Iterator[list[Message]]


@pytest.fixture
def kafka(kafka_bootstrap: str) -> Connection:
    """A cluster."""
    return Connection(kafka_bootstrap)


def _topics(kafka: Connection, *records: list[tuple[int, bytes]]) -> list[str]:
    """New topics of one partition that hold records of these times, in ms, and values."""
    names = [f"t{secrets.token_hex(4)}" for _ in records]
    admin = kafka.admin()  # held until the answers are in
    for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        made.result(WITHIN_S)
    producer = kafka.producer()
    for name, own in zip(names, records, strict=True):
        for at, value in own:
            producer.produce(name, value=value, timestamp=at)
            producer.poll(0)
    assert producer.flush(WITHIN_S) == 0
    return names


def _batches(kafka: Connection, topics: list[str], total: int, size: int) -> Batches:
    """Batches until so many records have come; the order within each partition is checked."""
    consumer = kafka.reader()
    consumer.assign([TopicPartition(name, 0, 0) for name in topics])
    order = TimeOrder(consumer, batch_size=size, batch_bytes=2**25, linger_s=3.0)
    order.add([(name, 0) for name in topics])
    ends_at, following = time.monotonic() + WITHIN_S, dict.fromkeys(topics, 0)
    while sum(following.values()) < total:
        assert time.monotonic() < ends_at
        batch = [message for message in order.take() if message.error() is None]
        for message in batch:
            assert offset_of(message) == following[partition_of(message)[0]]
            following[partition_of(message)[0]] += 1
        yield batch
    consumer.close()


def test_what_was_written_at_one_time_comes_in_one_batch(kafka: Connection) -> None:
    """Of a backlog, each batch has the same span of every partition, however long records are."""
    start = int(time.time() * 1000) - 1_000_000
    long = [(start + number, b"%d" % number + b" " * 900) for number in range(3_000)]
    short = [(start + number, b"%d" % number) for number in range(3_000)]
    topics = _topics(kafka, long, short)
    for batch in _batches(kafka, topics, 6_000, 600):
        parts = {topic: [m for m in batch if m.topic() == topic] for topic in topics}
        numbers = [{int(m.value() or b"") for m in parts[topic]} for topic in topics]
        assert numbers[0] == numbers[1]


def test_a_time_of_the_future_holds_back_nothing(kafka: Connection) -> None:
    """A record that claims a later hour comes once what was written till now has come."""
    now = int(time.time() * 1000)
    late = [(now + 1_800_000, b"late")]
    topics = _topics(kafka, late, [(now - 5_000 + number, b"now") for number in range(2_000)])
    values = [m.value() for batch in _batches(kafka, topics, 2_001, 500) for m in batch]
    assert values.count(b"late") == 1


def test_a_partition_that_runs_ahead_is_paused_and_loses_nothing(kafka: Connection) -> None:
    """Its records fill more than may be held, long before the other one's time has come."""
    start = int(time.time() * 1000) - 1_000_000
    ahead = [(start + 50_000 + number, secrets.token_bytes(2_000)) for number in range(6_000)]
    behind = [(start + number, b"") for number in range(20_000)]
    topics = _topics(kafka, ahead, behind)
    read = [m.topic() for batch in _batches(kafka, topics, 26_000, 1_000) for m in batch]
    assert read.count(topics[0]) == 6_000
