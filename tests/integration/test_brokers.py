"""Three embedded brokers with a copy of every record each: any one may die."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from metallm_stream.embedded import EmbeddedStack, StateDirectory
from metallm_stream.embedded.kafka_cluster import place_brokers
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Feedback
from metallm_stream.kafka import Connection, Record, TopicNames, create, to_end, write
from tests.processes import eventually

RECORDS = 50


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """Three brokers."""
    state = tmp_path_factory.mktemp("three") / "state"
    with EmbeddedStack(state, database_url="postgresql://none", brokers=3) as stack:
        yield stack


def produce(kafka: Connection, topic: str, start: int) -> None:
    """Write records that count on from `start`."""
    keys = [f"q{number}" for number in range(start, start + RECORDS)]
    records = [Record.of(topic, key, Feedback(query_id=key, label="yes")) for key in keys]
    write(kafka.producer(), records)


def in_sync(admin: AdminClient, topic: str) -> set[int]:
    """How many copies of each partition have every record."""
    try:
        partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
    except KafkaException:
        return set()
    return {len(partition.isrs) for partition in partitions.values()}


def setting(admin: AdminClient, topic: str, name: str) -> str | None:
    """One setting of a topic."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        return admin.describe_configs([resource])[resource].result(15)[name].value
    except KafkaException:  # asked a broker that has not heard of it yet
        return None


def test_a_killed_broker_is_stood_in_for_and_comes_back(cluster: EmbeddedStack) -> None:
    """Topics get three copies, two of which must have a record; one broker less loses nothing.

    The killed one is started again at its address and catches up.
    """
    kafka, names = Connection(cluster.bootstrap_servers), TopicNames("three.")
    admin = kafka.admin()
    create(admin, names, (), partitions=3)
    eventually(lambda: in_sync(admin, names.feedback) == {3})
    eventually(lambda: setting(admin, names.feedback, "min.insync.replicas") == "2")
    produce(kafka, names.feedback, 0)
    killed = cluster.supervisor.children["kafka-2"]
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    produce(kafka, names.feedback, RECORDS)
    eventually(lambda: killed.exit_codes == (137,))
    killed.wait_ready(60)
    eventually(lambda: in_sync(admin, names.feedback) == {3}, 60)
    reader = kafka.reader()
    starts = [TopicPartition(names.feedback, partition, 0) for partition in range(3)]
    reader.assign(starts)
    messages = list(to_end(reader, starts, 30))
    reader.close()
    assert sorted(message.key() for message in messages) == sorted(
        f"q{number}".encode() for number in range(2 * RECORDS)
    )


def test_the_number_of_brokers_and_their_ports_are_remembered(tmp_path: Path) -> None:
    """A directory that holds records is for as many brokers as wrote them, also if one is lost."""
    with StateDirectory(tmp_path / "state") as state:
        brokers = place_brokers(state, 3)
        assert [broker.name for broker in brokers] == ["kafka", "kafka-2", "kafka-3"]
        assert place_brokers(state, 1)[0].port == brokers[0].port  # nothing was written yet
        place_brokers(state, 3)
        for broker in brokers:
            (broker.log / "__cluster_metadata-0").mkdir(parents=True)
        shutil.rmtree(brokers[0].directory)
        assert place_brokers(state, None) == brokers
        with pytest.raises(ConfigurationError, match=r"records of 3 broker.*start 3, or choose"):
            place_brokers(state, 1)
        with pytest.raises(ConfigurationError, match="2 brokers: choose 1 or 3"):
            place_brokers(state, 2)


def test_topics_with_too_few_copies_to_be_written_are_not_made(kafka_bootstrap: str) -> None:
    """The message names the setting."""
    admin, names = Connection(kafka_bootstrap).admin(), TopicNames("never.")
    with pytest.raises(ConfigurationError, match="min_insync_replicas=2, but topics get 1 copies"):
        create(admin, names, (), partitions=1, replication_factor=1, min_insync_replicas=2)
