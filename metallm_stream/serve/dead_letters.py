"""Dead letters of all services as rows, read back from their topics.

Invariant: the same dead letter, however often it was written, gives the same position.
"""

from __future__ import annotations

import re

from confluent_kafka import Message

from metallm_stream.kafka import (
    OFFSET,
    PARTITION,
    REASON,
    SERVICE,
    TOPIC,
    header,
    offset_of,
    partition_of,
    recorded_at,
)
from metallm_stream.postgres import DeadLetter

# What Kafka takes for a name. A longer one would not fit the index of the table.
IS_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
FITS_INTEGER, FITS_BIGINT = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9]{1,18}")


def read_dead_letter(message: Message) -> DeadLetter:
    """A dead letter as a row; one without our headers is known by its own position."""
    topic, partition = partition_of(message)
    position = [_text(message, name, "") for name in (TOPIC, PARTITION, OFFSET)]
    ours = bool(
        IS_TOPIC.fullmatch(position[0])
        and FITS_INTEGER.fullmatch(position[1])
        and FITS_BIGINT.fullmatch(position[2])
    )
    return DeadLetter(
        topic=position[0] if ours else topic,
        partition=int(position[1]) if ours else partition,
        offset=int(position[2]) if ours else offset_of(message),
        service=_text(message, SERVICE, "unknown"),
        at=recorded_at(message),
        reason=_text(message, REASON, "unknown"),
        key=message.key(),
        value=message.value(),
    )


def _text(message: Message, name: str, default: str) -> str:
    value = header(message, name)
    return default if value is None else value.decode(errors="replace")
