"""Records of the three joined topics as events.

Invariant: the learner and a rebuild from the log read the same records in the same way.
"""

from __future__ import annotations

from confluent_kafka import Message

from metallm_stream.events import Decision, Feedback, Result
from metallm_stream.join import check_context
from metallm_stream.kafka import TopicNames, recorded_at

Joined = Decision | Result | Feedback


def read_joined(message: Message, names: TopicNames, encoder: str, dimensions: int) -> Joined:
    """The event in a record; feedback without `given_at` was given when it was recorded.

    Raises `InvalidEvent`.
    """
    topic, value = message.topic(), message.value()
    if topic == names.feedback:
        feedback = Feedback.parse(value)
        if feedback.given_at is not None:
            return feedback
        return feedback.model_copy(update={"given_at": recorded_at(message)})
    if topic == names.results:
        return Result.parse(value)
    decision = Decision.parse(value)
    check_context(decision, encoder, dimensions)
    return decision
