"""Messages as the client hands them out: where they stood, and which errors among them matter.

Invariant: an error that does not mend itself is raised, and no other.
"""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError, KafkaException, Message

from metallm_stream.kafka.records import Partition
from metallm_stream.kafka.rights import refused

log = logging.getLogger(__name__)


def partition_of(message: Message) -> Partition:
    """Topic and partition of a record that was read."""
    topic, partition = message.topic(), message.partition()
    assert topic is not None
    assert partition is not None
    return topic, partition


def offset_of(message: Message) -> int:
    """Offset of a record that was read."""
    offset = message.offset()
    assert offset is not None
    return offset


def raise_unless_passing(error: KafkaError, about: str | None = None) -> None:
    """Raises an exception for a consumer error that does not mend itself.

    It is `ConfigurationError` where a user can mend it, with what it is `about`.
    """
    if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
        return
    if error.fatal() or error.code() in (
        # As a record's error it is told once and does not call itself fatal: another has our slot,
        # or the client has died.
        KafkaError._FATAL,  # noqa: SLF001
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.INVALID_SESSION_TIMEOUT,
        KafkaError._AUTHENTICATION,  # noqa: SLF001
    ):
        raise refused(error, about) or KafkaException(error)
    log.warning("consumer: %s", error.str())
