"""Writing a few records without reading any.

Invariant: when `write` returns, the brokers have the records; `begin_write` waits for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, Message, Producer

from metallm_stream.errors import MetallmError
from metallm_stream.kafka.records import Record
from metallm_stream.kafka.rights import refused

TIMEOUT_S = 30.0
log = logging.getLogger(__name__)
Delivered = Callable[[KafkaError | None, Message], None]


class NotWrittenError(MetallmError):
    """A record was not acknowledged by the brokers."""


def write(producer: Producer, records: Sequence[Record]) -> None:
    """Write the records and wait for all.

    Raises `NotWrittenError` naming the first failure, or `ConfigurationError` for a missing right.
    """
    failures: list[tuple[KafkaError, str | None]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append((error, message.topic()))

    for record in records:
        _produce(producer, record, delivered)
    left = producer.flush(TIMEOUT_S)
    for error, topic in failures:
        raise refused(error, topic) or NotWrittenError(f"{topic}: {error}")
    if left:
        raise NotWrittenError(f"{left} records not acknowledged")


def begin_write(producer: Producer, record: Record) -> None:
    """Hand a record over that may be lost, such as one that is soon repeated."""

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            log.warning("%s: not written: %s", message.topic(), error)

    try:
        producer.produce(record.topic, key=record.key, value=record.value, on_delivery=delivered)
    except BufferError:
        log.warning("%s: not written: the brokers take nothing", record.topic)
    producer.poll(0)


def _produce(producer: Producer, record: Record, delivered: Delivered | None) -> None:
    while True:
        try:
            producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                partition=record.partition,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        except BufferError:
            producer.poll(0.1)
        else:
            return
