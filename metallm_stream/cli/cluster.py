"""Kafka as commands use it.

Invariant: what librdkafka would log is told by the command itself, in one line.
"""

from __future__ import annotations

import socket
from dataclasses import replace

from confluent_kafka import Consumer, TopicPartition
from pydantic import SecretStr

from metallm_stream.errors import Unreachable
from metallm_stream.kafka import Connection, partitions_of, watermarks
from metallm_stream.serve.surroundings import connection
from metallm_stream.settings import Settings

CLIENT_ID = "metallm-cli"
TIMEOUT_S = 15.0
PROBE_S = 3.0
DEFAULT_PORT = "9092"  # librdkafka's, where an address has none


def cluster(settings: Settings) -> Connection:
    """The Kafka that the settings describe, without librdkafka's own log.

    Raises `Unreachable` at once if nothing listens there, which librdkafka would go on
    trying until its timeouts.
    """
    if refused := refusals(settings.bootstrap()):
        raise Unreachable(
            f"Kafka does not answer: {refused}; start it (`metallm up` runs one), or mend "
            "KAFKA_BOOTSTRAP_SERVERS"
        )
    loud = connection(settings, CLIENT_ID)
    return replace(loud, properties={**loud.properties, "log_level": SecretStr("0")})


def refusals(addresses: str) -> str:
    """Why nothing answers at any of the addresses; empty if something does at one of them."""
    reasons = []
    for address in addresses.split(","):
        reason = _refusal(address.strip())
        if reason is None:
            return ""
        reasons.append(reason)
    return "; ".join(reasons)


def ends(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Where the committed records of each partition end.

    Raises `ConfigurationError` if the topic is missing.
    """
    partitions = partitions_of(consumer, topic)
    for where in partitions:
        where.offset = watermarks(consumer, where)[1]
    return partitions


def _refusal(address: str) -> str | None:
    """Why nothing answers at `host:port`, or None where something does."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:
        host, port = port, DEFAULT_PORT
    if not port.isdecimal():
        return f"{address!r} is not host:port"
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except (OSError, OverflowError, UnicodeError) as exc:
        return f"{address}: {getattr(exc, 'strerror', None) or exc}"
    return None
