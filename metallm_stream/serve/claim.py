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

_REFUSALS = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.UNKNOWN_TOPIC_OR_PART)


def claimed(
    consumer: Consumer, engine: Engine, where: TopicPartition, topic_id: str | None
) -> Position:
    """Fence the partition's former owner; the position to go on from, which is committed.

    `topic_id` is the topic's today, if brokers tell it. Raises `ConfigurationError` if the topic is
    another than was read, the log does not hold the position, or the broker refuses to tell, and
    `KafkaException` if it does not tell in time: then a restart may help.
    """
    low, high = _watermarks(consumer, where)
    with engine.begin() as conn:
        position = claim_partition(conn, where.topic, where.partition, low, topic_id)
    if topic_id is not None and position.topic_id != topic_id:
        raise ConfigurationError(_made_anew(position, low))
    if not low <= position.next_offset <= high:
        raise ConfigurationError(_gone(position, low, high))
    return position


def _watermarks(consumer: Consumer, where: TopicPartition) -> tuple[int, int]:
    try:
        return watermarks(consumer, where)
    except KafkaException as exc:
        if exc.args[0].code() not in _REFUSALS:
            raise
        raise ConfigurationError(
            f"{where.topic}[{where.partition}]: the broker does not tell its offsets: "
            f"{exc.args[0].str()}"
        ) from exc


def _gone(position: Position, low: int, high: int) -> str:
    if position.next_offset < low:
        what, places = "records were deleted before they were read", str(low)
    else:
        what = "the log was cut at its end, or the topic was made anew"
        places = f"{high} if it was cut, at {low} if it was made anew"
    return (
        f"{position.topic}[{position.partition}] holds offsets {low} to {high}, but the next one "
        f"to learn from is {position.next_offset}: {what}. {_remedy(position, places)}"
    )


def _made_anew(position: Position, low: int) -> str:
    return (
        f"{position.topic}[{position.partition}]: the topic was deleted and made anew since "
        f"learners read up to {position.next_offset} of the old one. {_remedy(position, str(low))}"
    )


def _remedy(position: Position, places: str) -> str:
    return (
        f"Nothing is skipped silently; to go on at {places}, set next_offset to it, and topic_id "
        f"to NULL, in table metallm.offsets where topic = '{position.topic}' and partition = "
        f"{position.partition}"
    )
