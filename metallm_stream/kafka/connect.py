"""Clients of one Kafka cluster, configured in one place as the guarantees need them.

Invariant: nothing is committed or stored behind our back, and only committed records are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from metallm_stream.errors import ConfigurationError

MAX_RECORD_BYTES = 4 * 1024 * 1024
SESSION_TIMEOUT_S = 6.0
TRANSACTION_TIMEOUT_S = 10.0

ClientT = TypeVar("ClientT")

_RELIABLE = {
    "topic.metadata.propagation.max.ms": 1_000,
    "retry.backoff.ms": 2,
}


@dataclass(frozen=True)
class Connection:
    """Where Kafka is and how to get in.

    Parameters
    ----------
    bootstrap_servers
        `host:port`, comma-separated.
    properties
        librdkafka security properties, passed through.
    client_id
        What the broker's logs call us.

    Every client raises `ConfigurationError` as it is made where a property will not do.
    """

    bootstrap_servers: str
    properties: Mapping[str, SecretStr] = field(default_factory=dict)
    client_id: str = "metallm"

    def _base(self) -> dict[str, str | int | bool | float]:
        secrets = {name: value.get_secret_value() for name, value in self.properties.items()}
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": self.client_id,
            # A broker that is back is found within this; by default a client may sleep on for 10 s.
            "reconnect.backoff.max.ms": 1_000,
            "log_level": 3,
            **secrets,
        }

    def group_consumer(
        self, group: str, instance: str, *, positions_are_ours: bool = False
    ) -> Consumer:
        """A static member of a group: a restarted replica is assigned again in about a second.

        A position that does not exist is an error: the topic was made anew, or cut. With
        `positions_are_ours` the caller keeps the offsets, and the end of a partition is told.
        Little is fetched ahead, since the caller pauses partitions, which throws away what was.
        Members share each topic evenly then, and give up everything whenever the group balances.
        """
        strategy = "cooperative-sticky"
        fetch = {"fetch.message.max.bytes": MAX_RECORD_BYTES, "queued.max.messages.kbytes": 65_536}
        if positions_are_ours:
            strategy = "range"
            fetch = {
                "fetch.message.max.bytes": MAX_RECORD_BYTES // 4,
                "queued.max.messages.kbytes": 16_384,
                "fetch.queue.backoff.ms": 10,
            }
        return _made(
            Consumer,
            self._base()
            | fetch
            | {
                "group.id": group,
                "group.instance.id": instance,
                "partition.assignment.strategy": strategy,
                "session.timeout.ms": int(SESSION_TIMEOUT_S * 1_000),
                "heartbeat.interval.ms": 1_000,
                "auto.offset.reset": "error",
                "enable.partition.eof": positions_are_ours,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                "topic.metadata.refresh.interval.ms": 10_000,
            },
        )

    def reader(
        self, group: str = "metallm-reader", *, isolation: str = "read_committed"
    ) -> Consumer:
        """A consumer for manual assignment: it joins no group, commits nothing."""
        return _made(
            Consumer,
            self._base()
            | {
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": isolation,
                "fetch.message.max.bytes": MAX_RECORD_BYTES,
                "fetch.wait.max.ms": 50,
            },
        )

    def transactional_producer(self, transactional_id: str) -> Producer:
        """A producer whose records become visible together, with the offsets sent with them."""
        return _made(
            Producer,
            self._base()
            | _RELIABLE
            | {
                "transactional.id": transactional_id,
                # Sending offsets hangs less often so. A client that once sees a cluster without
                # brokers is then lost for good, which its calls tell, and a restart mends; clients
                # that are not restarted for it begin anew from the bootstrap servers by default.
                "metadata.recovery.strategy": "none",
                "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1_000),
                "message.max.bytes": MAX_RECORD_BYTES,
                # A transaction is a batch by itself: waiting for more only makes it later.
                "linger.ms": 0,
                "compression.type": "lz4",
            },
        )

    def producer(
        self,
        *,
        compression: str = "lz4",
        max_record_bytes: int = MAX_RECORD_BYTES,
        linger_ms: int = 5,
    ) -> Producer:
        """An idempotent producer: in order, acknowledged by all in-sync replicas."""
        return _made(
            Producer,
            self._base()
            | _RELIABLE
            | {
                "enable.idempotence": True,
                "message.max.bytes": max_record_bytes,
                "linger.ms": linger_ms,
                "compression.type": compression,
            },
        )

    def admin(self) -> Admin:
        """The administrative client."""
        return _made(Admin, self._base())


def _made(make: Callable[[dict[str, Any]], ClientT], settings: dict[str, Any]) -> ClientT:
    """A client. Raises `ConfigurationError` if librdkafka does not take the settings."""
    try:
        return make(settings)
    except KafkaException as exc:
        if exc.args[0].code() != KafkaError._INVALID_ARG:  # noqa: SLF001
            raise
        raise ConfigurationError(
            f"Kafka's client does not take its settings: {exc.args[0].str()}; property x.y comes "
            "from the variable KAFKA_X_Y: mend KAFKA_SECURITY_*, KAFKA_SASL_* or KAFKA_SSL_*"
        ) from None


class Admin(AdminClient):
    """An administrative client that knows whether brokers refuse it, and why.

    It ends as soon as nobody holds it, and with it what it has asked: its callback does not.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        refusals: list[str] = []
        self._refusals = refusals

        def note(error: KafkaError) -> None:
            if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):  # noqa: SLF001
                refusals.append(error.str())

        options: dict[str, Any] = {**settings, "error_cb": note}
        super().__init__(options)

    def refusal(self) -> str | None:
        """What was wrong with credentials or certificates when a broker was last asked."""
        self.poll(0)
        return self._refusals[-1] if self._refusals else None
