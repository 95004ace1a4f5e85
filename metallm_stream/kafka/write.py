"""Writing a few records without reading any.

Invariant: when `write` returns, the brokers have the records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from confluent_kafka import KafkaError, Message, Producer

from metallm_stream.errors import MetallmError
from metallm_stream.kafka.records import Record

TIMEOUT_S = 30.0
Delivered = Callable[[KafkaError | None, Message], None]


class NotWrittenError(MetallmError):
    """A record was not acknowledged by the brokers."""


def write(producer: Producer, records: Sequence[Record]) -> None:
    """Write the records and wait for all; raises `NotWrittenError` naming the first failure."""
    failures: list[str] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(f"{message.topic()}: {error}")

    for record in records:
        _produce(producer, record, delivered)
    left = producer.flush(TIMEOUT_S)
    if failures or left:
        raise NotWrittenError(failures[0] if failures else f"{left} records not acknowledged")


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
