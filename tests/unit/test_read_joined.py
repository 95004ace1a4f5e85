"""Records of users and services as the learner takes them, whatever they claim."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from metallm_stream.events import Feedback
from metallm_stream.join import Interaction
from metallm_stream.kafka import OFFSET, PARTITION, TOPIC, TopicNames
from metallm_stream.serve.dead_letters import read_dead_letter
from metallm_stream.serve.joined import read_joined

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def record(
    value: bytes, at: datetime, headers: list[tuple[str, str | bytes | None]] | None = None
) -> Message:
    stamp = TIMESTAMP_CREATE_TIME, int(at.timestamp() * 1_000)
    return Message(
        topic="feedback", partition=2, offset=7, value=value, headers=headers, timestamp=stamp
    )


def given(feedback: Feedback, at: datetime) -> Feedback:
    event = read_joined(record(feedback.encode(), at), TopicNames(), "encoder", 2)
    assert isinstance(event, Feedback)
    return event


@pytest.mark.parametrize(("ahead_s", "taken_s"), [(-3_600, -3_600), (1, 1), (3, 0), (1e9, 0)])
def test_feedback_is_given_no_later_than_it_is_recorded(ahead_s: float, taken_s: float) -> None:
    """But for two seconds, by which clocks may differ."""
    told = Feedback(query_id="q", score=0.0, given_at=NOW + timedelta(seconds=ahead_s))
    assert given(told, NOW).given_at == NOW + timedelta(seconds=taken_s)


def test_feedback_that_is_dated_ahead_can_be_corrected_and_withdrawn() -> None:
    """A wrong clock does not have the last word for ever."""
    wrong = Feedback(query_id="q", score=0.0, given_at=datetime(2200, 1, 1, tzinfo=UTC))
    interaction = Interaction("q").merged(given(wrong, NOW))
    right = Feedback(query_id="q", score=1.0)
    interaction = interaction.merged(given(right, NOW + timedelta(hours=1)))
    in_force = interaction.judged().feedback
    assert in_force is not None
    assert in_force.score == 1.0
    back = Feedback(query_id="q", withdrawn=True)
    interaction = interaction.merged(given(back, NOW + timedelta(hours=2)))
    assert interaction.judged().feedback is None


@pytest.mark.parametrize(
    ("topic", "place"),
    [
        (b"queries", ("queries", 1, 3)),
        (b"t" * 249, ("t" * 249, 1, 3)),
        (b"t" * 250, ("feedback", 2, 7)),
        (b"t" * 100_000, ("feedback", 2, 7)),
        (b"no topic", ("feedback", 2, 7)),
    ],
)
def test_a_dead_letter_is_of_a_topic_that_there_can_be(
    topic: bytes, place: tuple[str, int, int]
) -> None:
    """A header that names none is not ours: such a letter is known by its own position."""
    headers: list[tuple[str, str | bytes | None]] = [
        (TOPIC, topic),
        (PARTITION, b"1"),
        (OFFSET, b"3"),
    ]
    letter = read_dead_letter(record(b"", NOW, headers))
    assert (letter.topic, letter.partition, letter.offset) == place
