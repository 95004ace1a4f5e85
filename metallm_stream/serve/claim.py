"""Where a learner begins to read a partition: at the position in PostgreSQL, which it takes over.

Invariant: nothing is skipped silently. A log that does not reach back to the position is an error,
and so is the log of a topic that was made anew.
"""

from __future__ import annotations

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from sqlalchemy import Engine

from metallm_stream.errors import ConfigurationError
from metallm_stream.kafka import watermarks
from metallm_stream.postgres import Position, claim_partition


def claimed(
    consumer: Consumer, engine: Engine, where: TopicPartition, topic_id: str | None
) -> Position:
    """Fence the partition's former owner; the position to go on from, which is committed.

    `topic_id` is the topic's today, if brokers tell it. Raises `ConfigurationError` if the topic is
    another than was read, the log does not hold the position, or the broker refuses to tell, and
    `KafkaException` if it does not know, or tell in time: then a restart may help.
    """
    low, high = _watermarks(consumer, where)
    with engine.begin() as conn:
        position = claim_partition(conn, where.topic, where.partition, low, topic_id)
    if found := lost(position, topic_id, low, high):
        said, remedy = found
        raise ConfigurationError(f"{said}. Nothing is skipped silently; {remedy}")
    return position


def _watermarks(consumer: Consumer, where: TopicPartition) -> tuple[int, int]:
    try:
        return watermarks(consumer, where)
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise
        raise ConfigurationError(
            f"{where.topic}[{where.partition}]: the broker does not tell its offsets: "
            f"{exc.args[0].str()}"
        ) from exc


def lost(position: Position, topic_id: str | None, low: int, high: int) -> tuple[str, str] | None:
    """Why learners cannot go on at the position, and what lets them; None if they can.

    `topic_id` is the topic's today; its log holds offsets from `low` to `high`.
    """
    where, next_offset = f"{position.topic}[{position.partition}]", position.next_offset
    is_known = next_offset > 0 and None not in (position.topic_id, topic_id)
    places = str(low)
    if is_known and position.topic_id != topic_id:
        said = (
            f"{where}: the topic was deleted and made anew since learners read up to {next_offset} "
            "of the old one"
        )
    elif low <= next_offset <= high:
        return None
    else:
        what = "records were deleted before they were read"
        if next_offset > high:
            what = "the log was cut at its end, or the topic was made anew"
            places = f"{high} if it was cut, at {low} if it was made anew"
        said = (
            f"{where} holds offsets {low} to {high}, but the next one to learn from is "
            f"{next_offset}: {what}"
        )
    return said, (
        f"to go on at {places}, set next_offset to it, and topic_id to NULL, in table "
        f"metallm.offsets where topic = '{position.topic}' and partition = {position.partition}"
    )
