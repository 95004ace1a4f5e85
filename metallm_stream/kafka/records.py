"""Records as we write them, and dead letters among them.

Invariant: a dead letter keeps the record's key, bytes and headers, says where it stood, and
always fits into a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, Message, Producer

from metallm_stream.events import LATEST, Event

REASON = "metallm.reason"
TOPIC = "metallm.topic"
PARTITION = "metallm.partition"
OFFSET = "metallm.offset"
SERVICE = "metallm.service"
BYTES = "metallm.value_bytes"
ANY_PARTITION = -1
MAX_DEAD_VALUE_BYTES = 3 * 1024 * 1024
MAX_DEAD_KEY_BYTES = 64 * 1024
MAX_DEAD_HEADERS_BYTES = 256 * 1024
MAX_REASON = 1_000
_LATEST_MS = LATEST.timestamp() * 1_000

Headers = Sequence[tuple[str, bytes]]
Partition = tuple[str, int]
Delivered = Callable[[KafkaError | None, Message], None]


@dataclass(frozen=True, slots=True)
class Record:
    """One record to write; `partition` -1 leaves the choice to the key's hash."""

    topic: str
    key: bytes | None
    value: bytes | None
    partition: int = ANY_PARTITION
    headers: Headers = field(default=())

    @classmethod
    def of(cls, topic: str, key: str, event: Event) -> Record:
        """A record of an event."""
        return cls(topic, key.encode(), event.encode())

    def produce(self, producer: Producer, delivered: Delivered | None = None) -> None:
        """Hand it to a producer. Raises `BufferError` while that is full."""
        producer.produce(
            self.topic,
            key=self.key,
            value=self.value,
            partition=self.partition,
            headers=list(self.headers),
            on_delivery=delivered,
        )


def dead_letter(message: Message, dead_letter_topic: str, service: str, reason: str) -> Record:
    """The record as it came, with reason, position and length in the headers.

    What would not fit into a record of ours is cut: values at 3 MiB, keys at 64 KiB; headers of
    more than 256 KiB together are left out.
    """
    key, value = message.key(), message.value()
    kept = headers_of(message)
    if sum(len(name) + len(content) for name, content in kept) > MAX_DEAD_HEADERS_BYTES:
        kept = []
    added = [
        (REASON, reason[:MAX_REASON].encode(errors="replace")),
        (TOPIC, str(message.topic()).encode()),
        (PARTITION, str(message.partition()).encode()),
        (OFFSET, str(message.offset()).encode()),
        (SERVICE, service.encode()),
        (BYTES, str(len(value or b"")).encode()),
    ]
    return Record(
        dead_letter_topic,
        key[:MAX_DEAD_KEY_BYTES] if key else key,
        value[:MAX_DEAD_VALUE_BYTES] if value else value,
        ANY_PARTITION,
        (*kept, *added),
    )


def header(message: Message, name: str) -> bytes | None:
    """The last header of that name, which is the one we added."""
    values = [value for key, value in headers_of(message) if key == name]
    return values[-1] if values else None


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    """The headers of a record that was read, in order; none where they cannot be read."""
    try:
        listed = message.headers() or []
    except (SystemError, UnicodeDecodeError):  # the client cannot read a name that is not UTF-8
        return []
    pairs = listed.items() if isinstance(listed, dict) else listed
    return [(pair[0], pair[1] if isinstance(pair[1], bytes) else b"") for pair in pairs]


def recorded_at(message: Message) -> datetime:
    """The record's own time, aware UTC; the epoch where the broker gives none or an absurd one."""
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE or not 0 <= milliseconds <= _LATEST_MS:
        return datetime.fromtimestamp(0, UTC)
    return datetime.fromtimestamp(milliseconds / 1_000, UTC)
