"""A real Apache Kafka of one node (KRaft), run from pinned jars.

Invariant: everything a broker needs to come back as it was (identity, port, log) lies in its own
directory; starting it again after any death is the same call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from metallm_stream.embedded.child import Command
from metallm_stream.embedded.ports import HOST, is_open
from metallm_stream.embedded.state import write_whole

NODE_ID = 1
_ANSWER_WITHIN_S = 10.0
_WARM_WITHIN_S = 20.0
_log = logging.getLogger(__name__)
_QUIET = logging.getLogger("metallm_stream.embedded.kafka.client")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={node}@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
offsets.retention.minutes=43200
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=33554432
"""


@dataclass(frozen=True)
class Broker:
    """Where a broker keeps its things and listens."""

    directory: Path
    port: int
    controller_port: int

    @property
    def address(self) -> str:
        """What clients call ``bootstrap.servers``."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The directory of the topics' records."""
        return self.directory / "log"

    @property
    def properties(self) -> Path:
        """The file ``server.properties``."""
        return self.directory / "server.properties"

    def write_properties(self) -> None:
        """Write ``server.properties`` for the present ports."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        text = _PROPERTIES.format(
            node=NODE_ID,
            host=HOST,
            port=self.port,
            controller_port=self.controller_port,
        )
        write_whole(self.properties, text)

    def warm_up(self) -> None:
        """Have the broker make its internal topics, which takes the first transaction a second."""
        settings = {"bootstrap.servers": self.address, "transactional.id": "metallm-warm-up"}
        try:
            Producer(settings, logger=_QUIET).init_transactions(_WARM_WITHIN_S)
        except KafkaException as exc:
            _log.info("the first transaction will take a second: %s", exc)

    def answers(self) -> bool:
        """Whether the broker accepts connections and names itself when asked who is there."""
        if not is_open(self.port):
            return False
        client = AdminClient({"bootstrap.servers": self.address}, logger=_QUIET)
        try:
            return bool(client.list_topics(timeout=_ANSWER_WITHIN_S).brokers)
        except KafkaException:
            return False


@dataclass(frozen=True)
class Distribution:
    """Java and Kafka's jars, and what was made of them once so that they start fast.

    Attributes
    ----------
    home
        Where such things are kept.
    archive
        The class-data archive, if there is one.
    """

    java: Path
    jars: tuple[Path, ...]
    home: Path
    archive: Path | None = None

    def argv(self, main_class: str, *arguments: str) -> list[str]:
        """The command that runs a main class of Kafka."""
        archive = () if self.archive is None else (f"-XX:AOTCache={self.archive}",)
        class_path = ":".join(str(jar) for jar in self.jars)
        return [
            str(self.java), *JAVA_OPTIONS, *archive, "-cp", class_path, main_class, *arguments,
        ]  # fmt: skip

    def serve(self, broker: Broker, log_path: Path) -> Command:
        """The command that runs the broker in the foreground."""
        return Command(
            tuple(self.argv("kafka.Kafka", str(broker.properties))),
            java_environment(),
            log_path,
            cwd=broker.directory,  # what the log directory in the properties is relative to
            grace_s=20.0,
        )


JAVA_OPTIONS = (
    "-XX:+IgnoreUnrecognizedVMOptions",  # a Java before 25 knows no AOT cache
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # half the CPU time for the first 150,000 records, and at start
    "-XX:-UsePerfData",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


def java_environment() -> Mapping[str, str]:
    """An environment without PATH, CLASSPATH or options meant for somebody else's Java.

    The locale is one in which file names may have any letters.
    """
    kept = {key: os.environ[key] for key in ("HOME", "TMPDIR", "TZ") if key in os.environ}
    return {"LC_ALL": "C.UTF-8", **kept}
