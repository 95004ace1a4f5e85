"""Where a learner begins to read a partition: at the position in PostgreSQL, which it takes over.

Invariant: nothing is skipped silently. A log that does not reach back to the position is an error.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaException, TopicPartition
from sqlalchemy import Engine

from metallm_stream.errors import ConfigurationError
from metallm_stream.postgres import Position, claim_partition


def claimed(
    consumer: Consumer, engine: Engine, where: TopicPartition, timeout_s: float
) -> Position:
    """Fence the partition's former owner; the position to go on from, which is committed.

    Raises `ConfigurationError` if the log does not hold it, or the broker tells nothing in time.
    """
    low, high = _watermarks(consumer, where, timeout_s)
    with engine.begin() as conn:
        position = claim_partition(conn, where.topic, where.partition, low)
    if not low <= position.next_offset <= high:
        raise ConfigurationError(_gone(position, low, high))
    return position


def _watermarks(consumer: Consumer, where: TopicPartition, timeout_s: float) -> tuple[int, int]:
    try:
        return consumer.get_watermark_offsets(where, timeout_s)
    except KafkaException as exc:
        raise ConfigurationError(
            f"{where.topic}[{where.partition}]: the broker does not tell its offsets: "
            f"{exc.args[0].str()}"
        ) from exc


def _gone(position: Position, low: int, high: int) -> str:
    topic, partition = position.topic, position.partition
    return (
        f"{topic}[{partition}] holds offsets {low} to {high}, but the next one to learn from is "
        f"{position.next_offset}: records were deleted before they were read, or the topic was "
        f"made anew. Nothing is skipped silently; to go on at {low}, set next_offset to it in "
        f"table metallm.offsets where topic = '{topic}' and partition = {partition}"
    )
