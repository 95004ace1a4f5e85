"""Writing a few records without reading any.

Invariant: when `write` returns, the brokers have the records; `begin_write` waits for nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from metallm_stream.errors import MetallmError, Unreachable, counted
from metallm_stream.kafka.records import Delivered, Record
from metallm_stream.kafka.rights import refused

TIMEOUT_S = 30.0
POLL_S = 0.1
log = logging.getLogger(__name__)


class NotWrittenError(MetallmError):
    """A record was refused, or the client has ended for good."""


def write(producer: Producer, records: Iterable[Record], timeout_s: float = TIMEOUT_S) -> None:
    """Write the records and wait for all.

    Raises `NotWrittenError` naming the first failure, `ConfigurationError` for a missing right, or
    `Unreachable` if brokers have not acknowledged all in time.
    """
    failures: list[tuple[KafkaError, str | None]] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append((error, message.topic()))

    with _fatal_told(producer):
        for record in records:
            _produce(producer, record, delivered)
        deadline_s = time.monotonic() + timeout_s
        # `flush` would go on calling back after it has raised a fatal error.
        while len(producer) and time.monotonic() < deadline_s:
            producer.poll(POLL_S)
    for error, topic in failures:
        raise refused(error, topic) or NotWrittenError(f"{topic}: {error}")
    if len(producer):
        raise Unreachable(
            f"Kafka does not answer: {counted(len(producer), 'record')} not acknowledged in "
            f"{timeout_s:g} s"
        )


def begin_write(producer: Producer, record: Record) -> None:
    """Hand a record over that may be lost, such as one that is soon repeated."""

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            log.warning("%s: not written: %s", message.topic(), error)

    with _fatal_told(producer):
        try:
            record.produce(producer, delivered)
        except BufferError:
            log.warning("%s: not written: the brokers take nothing", record.topic)
        producer.poll(0)


def _produce(producer: Producer, record: Record, delivered: Delivered) -> None:
    while True:
        try:
            record.produce(producer, delivered)
        except BufferError:
            producer.poll(POLL_S)
        else:
            return


@contextmanager
def _fatal_told(producer: Producer) -> Iterator[None]:
    """Raises what `write` does where the client has ended for good."""
    try:
        producer.poll(0)
        yield
    except KafkaException as exc:
        error = exc.args[0]
        if error.code() == KafkaError._FATAL:  # noqa: SLF001
            error = _why_fatal(producer) or error
        elif not error.fatal():
            raise
        raise refused(error) or NotWrittenError(error.str()) from exc


def _why_fatal(producer: Producer) -> KafkaError | None:
    """What `produce` does not say: a poll does, once, and not always before `produce` fails."""
    try:
        producer.poll(POLL_S)
    except KafkaException as exc:
        error: KafkaError = exc.args[0]
        return error
    return None
