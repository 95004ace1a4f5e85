"""Surroundings that turn bad: what a service does is clear, told with the way out, and safe."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from contextlib import closing
from datetime import UTC, datetime

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from pydantic import SecretStr
from sqlalchemy import Engine, text

from metallm_stream.errors import ConfigurationError, ProviderUnavailable
from metallm_stream.events import Feedback, Message, Model
from metallm_stream.kafka import (
    Admin,
    Connection,
    Record,
    TopicNames,
    check,
    create,
    raise_unless_passing,
    watermarks,
    write,
)
from metallm_stream.postgres import Advance, advance, claim_partition
from metallm_stream.serve.claim import claimed
from tests.pipeline import Pipeline
from tests.processes import eventually
from tests.tap import tapped

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LABELS = [Feedback(query_id="q", label="yes", given_at=NOW) for _ in range(5)]
ARM = Model(arm="a", provider="v", model="a")
MESSAGES = (Message(role="user", content="Is it?"),)


def test_a_broker_that_refuses_us_is_told_from_one_that_is_not_there() -> None:
    """Here it speaks no TLS; a wrong password or certificate is told in the same way."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say_nothing_sensible() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                with accepted:
                    accepted.sendall(bytes(8))
                    accepted.recv(1_000)

        thread = threading.Thread(target=say_nothing_sensible)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        secure = Connection(address, {"security.protocol": SecretStr("SSL")})
        with pytest.raises(ConfigurationError, match=r"do not agree.*SSL.*KAFKA_SSL_\*"):
            check(secure.admin(), TopicNames("t."), ())
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_member_whose_slot_was_taken_is_told(pipeline: Pipeline) -> None:
    """Or else it would stay as a zombie, which gets no record any more and serves no one."""
    older, newer = (pipeline.kafka.group_consumer("twins", "twins-0") for _ in range(2))
    older.subscribe([pipeline.names.feedback])
    eventually(lambda: older.poll(0.1) or older.assignment(), 60)
    newer.subscribe([pipeline.names.feedback])

    def is_told() -> bool:
        newer.poll(0.1)
        message = older.poll(0.1)
        error = None if message is None else message.error()
        if error is None or error.code() == KafkaError._AUTO_OFFSET_RESET:  # it has no position
            return False
        with pytest.raises(KafkaException, match="fenced by other consumer"):
            raise_unless_passing(error)
        return True

    eventually(is_told, 60)
    newer.close()


def test_a_learner_whose_topic_is_deleted_ends_and_skips_nothing(pipeline: Pipeline) -> None:
    """Not even when the topic is made anew: then it tells what gives up the records."""
    feedback, admin = pipeline.names.feedback, pipeline.kafka.admin()
    learner = pipeline.start("learner", restart=False)
    learner.wait_ready(60)
    pipeline.judge(*LABELS)
    pipeline.wait_until_learned()
    for deleted in admin.delete_topics([feedback]).values():
        deleted.result(15)
    assert learner.wait_over(60) == 70
    assert f"not available: {feedback}" in (pipeline.directory / "learner-0.log").read_text()
    create(admin, pipeline.names, ("recorded",), partitions=2, replication_factor=1)
    assert pipeline.start("learner", slot="1", restart=False).wait_over(60) == 78
    log = (pipeline.directory / "learner-1.log").read_text()
    assert f"{feedback}[" in log
    assert "the topic was deleted and made anew since learners read up to 5 of the old one" in log
    assert "to go on at 0, set next_offset to it, and topic_id to NULL, in table metallm.off" in log


def test_a_topic_that_a_broker_does_not_know_now_is_for_the_next_start_to_find(
    pipeline: Pipeline, engine: Engine
) -> None:
    """It may be about to be made anew; if it is not, the check at the start says so."""
    where, admin = TopicPartition(pipeline.names.feedback, 0), pipeline.kafka.admin()
    with closing(pipeline.kafka.reader()) as reader:
        watermarks(reader, where)
        admin.delete_topics([where.topic])[where.topic].result(15)
        eventually(lambda: where.topic not in admin.list_topics(timeout=15).topics)
        with pytest.raises(KafkaException, match="Unknown topic or partition"):
            claimed(reader, engine, where, None)
    create(admin, pipeline.names, ("recorded",), partitions=2, replication_factor=1)


def test_a_learner_whose_log_was_cut_at_its_end_is_told_where_that_is(
    pipeline: Pipeline, engine: Engine
) -> None:
    """To learn all of it again would take long; which of two lives it is, only a user may know."""
    where = TopicPartition(pipeline.names.feedback, 0)
    write(pipeline.kafka.producer(), [Record(where.topic, None, b"{}", partition=0)])
    with engine.begin() as conn:
        advance(conn, [Advance(claim_partition(conn, where.topic, 0, topic_id="its"), 7)])
    said = "0 to 1, but .* is 7: .* go on at 1 if it was cut, at 0 if it was made anew, set next_of"
    with closing(pipeline.kafka.reader()) as reader, pytest.raises(ConfigurationError, match=said):
        claimed(reader, engine, where, "its")


def test_a_topic_that_is_made_anew_and_soon_has_more_records_is_learned_when_told_so(
    pipeline: Pipeline,
) -> None:
    """It holds the learner's positions, but other records; this one is stopped meanwhile."""
    feedback, admin = pipeline.names.feedback, pipeline.kafka.admin()
    learner = pipeline.start("learner")
    learner.wait_ready(60)
    pipeline.judge(*LABELS)
    pipeline.wait_until_learned()
    pid = learner.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    admin.delete_topics([feedback])[feedback].result(15)
    eventually(lambda: _is_made(admin, pipeline.names))
    label = LABELS[0].encode()
    again = [Record(feedback, None, label, partition=number) for number in (0, 1)]
    write(pipeline.kafka.producer(), again * 20)
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: len(learner.exit_codes) == 2, 60)
    assert learner.exit_codes == (70, 78)
    log = (pipeline.directory / "learner-0.log").read_text()
    assert f"topic '{feedback}' was deleted and made anew" in log
    assert "the topic was deleted and made anew since learners read up to" in log
    with pipeline.engine.begin() as conn:
        conn.execute(text("UPDATE metallm.offsets SET next_offset = 0, topic_id = NULL"))
    pipeline.start("learner", slot="1", restart=False).wait_ready(60)
    pipeline.wait_until_learned()


def _is_made(admin: Admin, names: TopicNames) -> bool:
    try:
        create(admin, names, ("recorded",), partitions=2, replication_factor=1)
    except ConfigurationError:
        return False
    return True


@pytest.mark.parametrize(
    ("service", "variable", "address", "said"),
    [
        ("router", "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1", "Kafka does not answer: "),
        ("learner", "DATABASE_URL", "postgresql://127.0.0.1:1/none", "PostgreSQL cannot be used: "),
    ],
)
def test_a_service_whose_server_is_down_may_be_started_again(
    pipeline: Pipeline, service: str, variable: str, address: str, said: str
) -> None:
    """Exit code 75 and one line: a supervisor that takes 78 for final goes on trying."""
    child = pipeline.start(service, restart=False, plain={variable: address})
    assert child.wait_over(60) == 75
    log = (pipeline.directory / f"{service}-0.log").read_text()
    assert said in log
    assert "Traceback" not in log


def test_a_vendor_whose_tls_cannot_be_trusted_gets_no_request() -> None:
    """The call fails as a connection does, and nothing was sent in clear."""

    async def asked() -> None:
        async with tapped("openai", {}) as (tap, _):
            secure = f"{tap.address.replace('http:', 'https:')}/v1"
            async with tapped("openai", {}, base_url=secure) as (_, provider):
                with pytest.raises(ProviderUnavailable) as failed:
                    await provider.complete(ARM, MESSAGES, None, timeout_s=20, idempotency_key="k")
                assert failed.value.kind == "connection"
                assert tap.requests == []

    asyncio.run(asked())
