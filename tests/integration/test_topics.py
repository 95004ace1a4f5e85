"""Topics that cannot keep the guarantees are refused at start, with the remedy."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)

from metallm_stream.errors import ConfigurationError
from metallm_stream.kafka import check, create, providers_with_topics
from tests.pipeline import Pipeline
from tests.processes import eventually


def alter(pipeline: Pipeline, topic: str, name: str, value: str) -> None:
    """Change one setting of a topic."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    resource.add_incremental_config(
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    )
    admin = pipeline.kafka.admin()
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result(15)


def test_created_topics_will_do_and_are_not_created_twice(pipeline: Pipeline) -> None:
    """Creating is idempotent, and what it made passes the check."""
    admin = pipeline.kafka.admin()
    made = create(admin, pipeline.names, ("recorded",), partitions=2, replication_factor=1)
    assert made == []
    check(admin, pipeline.names, ("recorded",))
    assert providers_with_topics(admin, pipeline.names) == {"recorded"}


def test_decisions_and_results_carry_the_brokers_time(pipeline: Pipeline) -> None:
    """So that a service whose clock is ahead cannot outweigh all that was learned before."""
    names = pipeline.names
    told = settings(pipeline, (names.decisions, names.results), "message.timestamp.type")
    assert told == ["LogAppendTime", "LogAppendTime"]


def test_the_newest_segment_of_a_compacted_topic_is_small(pipeline: Pipeline) -> None:
    """It is never compacted, and services read it when they start: an hour of policies is much."""
    compacted = pipeline.names.compacted
    sizes = [int(size) for size in settings(pipeline, compacted, "segment.bytes")]
    times_ms = [int(time_ms) for time_ms in settings(pipeline, compacted, "segment.ms")]
    assert (max(sizes), max(times_ms)) == (16 * 1024 * 1024, 300_000)


def settings(pipeline: Pipeline, topics: Sequence[str], name: str) -> list[str]:
    """One setting of each topic."""
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    admin = pipeline.kafka.admin()
    answers = admin.describe_configs(resources).values()
    return [answer.result(15)[name].value for answer in answers]


def test_a_missing_topic_is_named(pipeline: Pipeline) -> None:
    """With the command that makes it."""
    with pytest.raises(ConfigurationError, match=r"calls\.other.*metallm topics create"):
        check(pipeline.kafka.admin(), pipeline.names, ("other",))


def test_partitions_that_cannot_keep_the_order_are_refused(pipeline: Pipeline) -> None:
    """Each partition of queries needs its own of decisions, and what is compacted has one."""
    admin, names = pipeline.kafka.admin(), pipeline.names

    def is_refused_with(topic: str, count: int, said: str) -> None:
        for widened in admin.create_partitions([NewPartitions(topic, count)]).values():
            widened.result(15)
        eventually(lambda: said in refusal(pipeline))

    is_refused_with(names.queries, 3, "fewer than the 3 of")
    is_refused_with(names.models, 2, "has 2 partitions, its order needs exactly 1")


def refusal(pipeline: Pipeline) -> str:
    """What is wrong with the topics; nothing, if nothing is."""
    try:
        check(pipeline.kafka.admin(), pipeline.names, ("recorded",))
    except ConfigurationError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize(
    ("topic", "name", "value"),
    [
        ("policy", "cleanup.policy", "delete"),
        ("models", "cleanup.policy", "delete"),
        ("health", "cleanup.policy", "delete"),
        ("models", "cleanup.policy", "compact,delete"),
        ("feedback", "cleanup.policy", "compact"),
        ("queries.dlq", "cleanup.policy", "compact,delete"),
        ("results", "min.insync.replicas", "2"),
        ("decisions", "max.message.bytes", "1000000"),
        ("results", "segment.bytes", "1048576"),
    ],
)
def test_a_topic_with_settings_that_lose_records_is_refused(
    pipeline: Pipeline, topic: str, name: str, value: str
) -> None:
    """The message has topic, setting and remedy."""
    whole = f"{pipeline.names.prefix}{topic}"
    alter(pipeline, whole, name, value)
    eventually(lambda: refusal(pipeline))  # the broker tells of the change a moment later
    for said in (topic, f"{name}={value}", f"set {name}="):
        assert said in refusal(pipeline)


def test_a_service_that_cannot_start_says_why_and_ends(pipeline: Pipeline) -> None:
    """Exit code 78 and one line, without a traceback."""
    alter(pipeline, pipeline.names.policy, "cleanup.policy", "delete")
    router = pipeline.start("router", restart=False)
    assert router.wait_over(60) == 78
    log = (pipeline.directory / "router-0.log").read_text()
    assert "set cleanup.policy=compact" in log
    assert "Traceback" not in log
