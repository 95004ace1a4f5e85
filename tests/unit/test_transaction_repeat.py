"""Which errors of brokers are waited out, and which are told at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, KafkaException

from metallm_stream.errors import ConfigurationError
from metallm_stream.kafka import Watchdog
from metallm_stream.kafka.transaction import repeat


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    opened = Watchdog()
    yield opened
    opened.close()


def failing(*codes: int) -> Iterator[int]:
    """What a broker says, one after the other, and then that all is well."""
    yield from codes


def answer(replies: Iterator[int]) -> str:
    code = next(replies, None)
    if code is not None:
        raise KafkaException(KafkaError(code))
    return "done"


def test_a_coordinator_that_moves_is_waited_for(watchdog: Watchdog) -> None:
    """A broker that has just come back does not lead yet what it led before."""
    replies = failing(
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError._TIMED_OUT,
    )
    assert repeat(watchdog, "committed", lambda: answer(replies)) == "done"
    assert next(replies, None) is None


def test_what_does_not_pass_is_told_at_once(watchdog: Watchdog) -> None:
    """And not tried again."""
    replies = failing(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError._TIMED_OUT)
    with pytest.raises(ConfigurationError, match="grant this user Read on the consumer group"):
        repeat(watchdog, "committed", lambda: answer(replies))
    assert list(replies) == [KafkaError._TIMED_OUT]
