"""One broker of a real Apache Kafka (KRaft: each is a controller too), run from pinned jars.

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

_ANSWER_WITHIN_S = 10.0
_WARM_WITHIN_S = 20.0
_log = logging.getLogger(__name__)
_QUIET = logging.getLogger("metallm_stream.embedded.kafka.client")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False

_PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=log
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={copies}
offsets.topic.num.partitions=4
offsets.retention.minutes=43200
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor={copies}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=4
controlled.shutdown.enable={alone}
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms={session_ms}
broker.heartbeat.interval.ms=500
log.cleaner.dedupe.buffer.size=33554432
"""


@dataclass(frozen=True)
class Broker:
    """Where a broker keeps its things and listens.

    Attributes
    ----------
    controller_ports
        Those of all brokers of its cluster, in the order of their node ids, which begin at 1.
    node
        Its own node id.
    """

    directory: Path
    port: int
    controller_ports: tuple[int, ...]
    node: int = 1

    @property
    def name(self) -> str:
        """What its process and its log are called."""
        return self.directory.name

    @property
    def address(self) -> str:
        """What clients call ``bootstrap.servers``."""
        return f"{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        """The directory of the topics' records."""
        return self.directory / "log"

    @property
    def is_used(self) -> bool:
        """Whether it has been started before."""
        return (self.log / "__cluster_metadata-0").exists()

    @property
    def properties(self) -> Path:
        """The file ``server.properties``."""
        return self.directory / "server.properties"

    def write_properties(self) -> None:
        """Write ``server.properties`` for the present ports."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        voters = enumerate(self.controller_ports, 1)
        copies = len(self.controller_ports)
        text = _PROPERTIES.format(
            node=self.node,
            host=HOST,
            port=self.port,
            controller_port=self.controller_ports[self.node - 1],
            voters=",".join(f"{node}@{HOST}:{port}" for node, port in voters),
            # The last to leave would wait for others to take over, who have left. And a broker that
            # others stand in for is missed sooner.
            alone=str(copies == 1).lower(),
            session_ms=6_000 if copies == 1 else 3_000,
            copies=copies,
            in_sync=max(1, copies - 1),
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
        """Whether the broker accepts connections and names itself when asked who is there.

        Once each broker of a cluster has, topics can be given a copy on every one.
        """
        if not is_open(self.port):
            return False
        client = AdminClient({"bootstrap.servers": self.address}, logger=_QUIET)
        try:
            return self.node in client.list_topics(timeout=_ANSWER_WITHIN_S).brokers
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
    heap_mb
        The most that a broker's heap grows to.
    """

    java: Path
    jars: tuple[Path, ...]
    home: Path
    archive: Path | None = None
    heap_mb: int = 512

    def argv(self, main_class: str, *arguments: str) -> list[str]:
        """The command that runs a main class of Kafka."""
        archive = () if self.archive is None else (f"-XX:AOTCache={self.archive}",)
        class_path = ":".join(str(jar) for jar in self.jars)
        return [
            str(self.java), *JAVA_OPTIONS, f"-Xmx{self.heap_mb}m", *archive,
            "-cp", class_path, main_class, *arguments,
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
