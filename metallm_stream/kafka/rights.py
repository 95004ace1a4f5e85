"""What brokers do not let this user do: asked before it is first tried, and told with the remedy.

Invariant: only what brokers state is told as a refusal; where they tell no rights, none is missed.
"""

from __future__ import annotations

from collections.abc import Iterable

from confluent_kafka import KafkaError, TopicCollection
from confluent_kafka.admin import AclOperation

from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.kafka.connect import SESSION_TIMEOUT_S, TRANSACTION_TIMEOUT_S, Admin

TIMEOUT_S = 15.0
REMEDIES = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant this user Read or Write on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant this user Read on the consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "grant this user Write and Describe on the transactional id"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant this user IdempotentWrite on the cluster",
    KafkaError.INVALID_TRANSACTION_TIMEOUT: (
        f"set the brokers' transaction.max.timeout.ms to {TRANSACTION_TIMEOUT_S * 1_000:.0f} or "
        "more"
    ),
    KafkaError.INVALID_SESSION_TIMEOUT: (
        f"let the brokers' group.min.session.timeout.ms and group.max.session.timeout.ms include "
        f"{SESSION_TIMEOUT_S * 1_000:.0f}"
    ),
    KafkaError.OFFSET_METADATA_TOO_LARGE: (
        "set the brokers' offset.metadata.max.bytes to 4096 or more"
    ),
    KafkaError.INVALID_TIMESTAMP: (
        "set this machine's clock, or let the topic's message.timestamp.before.max.ms and "
        "message.timestamp.after.max.ms include its time"
    ),
}
UNREACHABLE = (
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._DESTROY_BROKER,  # noqa: SLF001 - a connection that was closed as it began
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._SSL,  # noqa: SLF001
    KafkaError._AUTHENTICATION,  # noqa: SLF001 - the next start tells whether it lasts
)


def require_rights(
    admin: Admin,
    *,
    reads: Iterable[str] = (),
    writes: Iterable[str] = (),
    group: str | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Raises `ConfigurationError` that names the first topic, or the group, and the right it lacks.

    What brokers do not tell, in time or at all, is not missed.
    """
    needed = [(topic, AclOperation.READ) for topic in reads]
    needed += [(topic, AclOperation.WRITE) for topic in writes]
    topics = TopicCollection([*dict.fromkeys(topic for topic, _ in needed)])
    options = {"include_authorized_operations": True, "request_timeout": timeout_s}
    asked = [(admin.describe_topics(topics, **options), "topic", needed)]
    if group is not None:
        answer = admin.describe_consumer_groups([group], **options)
        asked.append((answer, "consumer group", [(group, AclOperation.READ)]))
    for answers, kind, wanted in asked:
        for name, right in wanted:
            error = answers[name].exception()  # raised, it would keep the client alive in a circle
            if error is not None:
                if (told := refused(error.args[0], f"{kind} {name!r}")) is not None:
                    raise told
                continue
            allowed, verb = answers[name].result().authorized_operations, right.name.capitalize()
            if allowed and right not in allowed:
                raise ConfigurationError(
                    f"this user may not {verb} {kind} {name!r}: grant {verb} on it"
                )


def refused(error: KafkaError, about: str | None = None) -> ConfigurationError | None:
    """The line for what somebody must change, with what it is `about`; None for another error."""
    if error.code() not in REMEDIES:
        return None
    # A clock is mostly set by itself, soon after the machine has begun.
    is_passing = error.code() == KafkaError.INVALID_TIMESTAMP
    kind = Unreachable if is_passing else ConfigurationError
    said = error.str() if about is None else f"{about}: {error.str()}"
    return kind(f"Kafka refuses: {said}: {REMEDIES[error.code()]}")


def explained(error: KafkaError) -> ConfigurationError | None:
    """As `refused`, and the line for brokers that do not answer."""
    if error.code() in UNREACHABLE:
        return Unreachable(f"Kafka does not answer: {error.str()}")
    return refused(error)
