"""Brokers whose own limits forbid what services need: told in one line, with the setting."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import NewTopic

from metallm_stream.embedded import EmbeddedStack
from metallm_stream.errors import ConfigurationError, Unreachable
from metallm_stream.kafka import (
    Connection,
    ExactlyOnce,
    Record,
    TopicNames,
    Transactions,
    Window,
    check,
    create,
)
from metallm_stream.kafka.transaction import CALL_TIMEOUT_S, repeat
from metallm_stream.kafka.watchdog import Watchdog
from tests.processes import eventually, kill_and_wait

NAMES = TopicNames("limited.")
LIMITS = """\
offset.metadata.max.bytes=20
group.min.session.timeout.ms=1000
group.max.session.timeout.ms=5000
log.cleanup.policy=compact
"""


@pytest.fixture(scope="module")
def limited(database_url: str) -> Iterator[Connection]:
    """A broker with topics and little patience."""
    with tempfile.TemporaryDirectory(prefix="metallm-test-") as directory:
        state = Path(directory) / "state"
        with EmbeddedStack(state, database_url=database_url) as stack:
            _limit(stack)
            connection = Connection(stack.bootstrap_servers)
            create(connection.admin(), NAMES, (), partitions=1)
            yield connection


def _limit(stack: EmbeddedStack) -> None:
    """Start the broker again with its limits."""
    with (stack.state.path / "kafka" / "server.properties").open("a") as file:
        file.write(LIMITS)
    kill_and_wait(stack.supervisor.children["kafka"])


def test_created_topics_will_do_whatever_brokers_do_by_default(limited: Connection) -> None:
    """Here, that topics are compacted."""
    check(limited.admin(), NAMES, ())


def test_metadata_of_offsets_that_are_refused_end_the_service(limited: Connection) -> None:
    """Aborted again and again, a worker would have vendors paid again after each restart."""
    window = Window(0)
    for offset in range(200):
        window.begin(offset)
    for offset in range(1, 200, 3):
        window.finish(offset)
    offsets = [TopicPartition(NAMES.queries, 0, window.next_offset, window.encode())]
    consumer = limited.group_consumer("copier", "copier-0")
    with (
        closing(consumer),
        closing(Watchdog()) as watchdog,
        closing(Transactions(limited, "copier-0")) as transactions,
    ):
        transactions.start()
        # As members do; what is sent before the group has a coordinator may hang.
        repeat(watchdog, "committed", lambda: consumer.committed(offsets, CALL_TIMEOUT_S))
        with pytest.raises(ConfigurationError, match=r"set the brokers' offset\.metadata\.max"):
            transactions.write([], offsets, consumer.consumer_group_metadata())


def test_a_time_that_brokers_refuse_ends_the_service(limited: Connection) -> None:
    """As that of a machine whose clock is off, which may soon be set."""
    topic, admin = f"{NAMES.prefix}punctual", limited.admin()
    allowed_ms = {"message.timestamp.before.max.ms": "0"}
    for made in admin.create_topics([NewTopic(topic, 1, 1, config=allowed_ms)]).values():
        made.result(15)
    with closing(Transactions(limited, "late-0")) as transactions:
        transactions.start()
        with pytest.raises(Unreachable, match=rf"{topic}.*set this machine's clock"):
            transactions.write([Record(topic, b"key", b"late")])


def test_a_session_that_brokers_find_too_long_is_told(limited: Connection) -> None:
    """With both settings, and what they are to include."""
    with closing(ExactlyOnce(limited, [NAMES.queries], group="reader", slot="0")) as loop:
        loop.start()
        with pytest.raises(ConfigurationError, match=r"group\.max\.session\.timeout\.ms .* 6000"):
            eventually(lambda: loop.take(1, 0.1))
