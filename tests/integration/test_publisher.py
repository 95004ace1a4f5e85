"""Who publishes policies: one learner at a time, whatever becomes of PostgreSQL's lock."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import orjson
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from metallm_stream.arms import Catalogue
from metallm_stream.events import Model
from metallm_stream.kafka import Record, write
from metallm_stream.policy import Sums
from metallm_stream.serve.publisher import Publisher
from tests.pipeline import Pipeline
from tests.processes import eventually

DIMENSIONS = 4
REFRESH_S = 0.1


@contextmanager
def publisher(pipeline: Pipeline) -> Iterator[Publisher]:
    """One learner's publisher."""
    opened = Publisher(
        pipeline.kafka,
        pipeline.names,
        pipeline.engine,
        policy="ridge",
        encoder="test",
        dimensions=DIMENSIONS,
        refresh_s=REFRESH_S,
        keep=10,
        now=lambda: datetime.now(UTC),
    )
    yield opened
    opened.close()


@pytest.fixture
def two(pipeline: Pipeline) -> Iterator[tuple[Publisher, Publisher]]:
    """Two learners' publishers of one installation, whose topic has its leader."""
    write(pipeline.producer, [Record(pipeline.names.policy, b"first", b'{"kind": "none"}')])
    with ExitStack() as opened:
        yield tuple(opened.enter_context(publisher(pipeline)) for _ in range(2))


def publish(one: Publisher) -> bool:
    """Publish what is new to this publisher: a catalogue of another revision."""
    catalogue = Catalogue()
    for number in range(one._version + 1):
        catalogue.apply("a", Model(arm="a", provider="here", model=str(number)))
    return one.publish_if_due("0", Sums(DIMENSIONS), catalogue)


def versions(pipeline: Pipeline) -> list[int]:
    """The versions of the manifests that committed readers find, in their order."""
    found = [orjson.loads(item.value() or b"{}") for item in pipeline.read(pipeline.names.policy)]
    return [item["version"] for item in found if item["kind"] == "manifest"]


def test_a_publisher_that_lost_its_lock_cannot_publish_any_more(
    pipeline: Pipeline, two: tuple[Publisher, Publisher]
) -> None:
    """Its transaction is still open when another learner publishes: it ends without a trace."""
    slow, other = two
    assert publish(slow)
    assert slow._transactions is not None
    held = slow._transactions._producer
    held.begin_transaction()
    stale = {"kind": "manifest", "version": 0}
    held.produce(pipeline.names.policy, key="ridge", value=orjson.dumps(stale))
    assert held.flush(15) == 0
    assert publish(other)
    with pytest.raises(KafkaException, match="fenced"):
        held.commit_transaction(15)
    assert versions(pipeline) == [1, 2]


def test_the_other_learner_takes_over_when_one_falls_silent(
    pipeline: Pipeline, two: tuple[Publisher, Publisher]
) -> None:
    """Who published last goes on; after some refreshes without a policy another one does."""
    first, second = two
    assert publish(first)
    assert publish(second)
    eventually(lambda: publish(second))
    assert versions(pipeline) == [1, 2, 3]
    eventually(lambda: publish(first))
    assert versions(pipeline) == [1, 2, 3, 4]


def test_an_aborted_policy_is_published_at_a_later_refresh(pipeline: Pipeline) -> None:
    """Neither topic nor SQL has it, and the learner goes on meanwhile."""
    admin, topic = pipeline.kafka.admin(), pipeline.names.policy

    def limit(size: int) -> None:
        entry = ConfigEntry(
            "max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET
        )
        asked = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        admin.incremental_alter_configs([asked])[asked].result(15)

    with publisher(pipeline) as one:
        assert publish(one)
        limit(100)
        held = "SELECT count(*) AS held FROM metallm.policies"
        for _ in range(3):
            time.sleep(REFRESH_S)
            assert not publish(one)
        assert pipeline.sql(held) == [{"held": 1}]
        limit(4 * 1024 * 1024)
        eventually(lambda: publish(one))
        assert versions(pipeline) == [1, one._version]


@pytest.mark.parametrize("accounts", [0, 1, 300])
def test_versions_go_on_above_those_of_the_topic(pipeline: Pipeline, accounts: int) -> None:
    """With a new database, too, and however many accounts of budgets came after the policy."""
    topic = pipeline.names.policy
    policy = [Record(topic, b"ridge", b'{"kind": "manifest", "version": 41}')]
    rest = [Record(topic, b"budget/%d/" % row, b'{"kind": "budget"}') for row in range(accounts)]
    write(pipeline.producer, [*policy, *rest])
    with publisher(pipeline) as one:
        assert publish(one)
    assert max(versions(pipeline)) == 42


def test_an_empty_database_does_not_replace_what_was_learned(pipeline: Pipeline) -> None:
    """A wrong address, or a database that was lost: whoever means it has to say so."""
    policy = Record(pipeline.names.policy, b"ridge", b'{"kind": "manifest", "version": 41}')
    write(pipeline.producer, [policy])
    refused = pipeline.start("learner", restart=False)
    assert refused.wait_over(60) == 78
    log = (pipeline.directory / "learner-0.log").read_text()
    assert "holds policy 41, but this database has learned nothing" in log
    pipeline.start("learner", slot="1", LEARNER__BEGINS_ANEW="true").wait_ready(60)
    eventually(lambda: pipeline.sql("SELECT * FROM metallm.offsets"), 30)
    pipeline.start("learner", slot="2").wait_ready(60)


def test_a_database_that_has_published_goes_on_before_it_has_read(pipeline: Pipeline) -> None:
    """The first learner is killed before it gets partitions, or a second one starts then."""
    with publisher(pipeline) as first:
        assert publish(first)
    assert not pipeline.sql("SELECT * FROM metallm.offsets")
    with publisher(pipeline) as second:
        second.require_same_database()
