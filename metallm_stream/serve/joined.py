"""Records of the joined topics as events.

Invariant: the learner and a rebuild from the log read the same records in the same way, and no
record claims a time that its topic had not reached when it was written: such a record would weigh
as much as all that was learned before it, and such feedback could not be corrected or withdrawn.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from confluent_kafka import Message

from metallm_stream.events import Decision, Feedback, Result, Verdict
from metallm_stream.join import check_context
from metallm_stream.kafka import TopicNames, recorded_at

Joined = Decision | Result | Feedback | Verdict
# Clocks of one installation may differ so much; less than what shifts take to become effective.
AHEAD = timedelta(seconds=2)


def read_joined(message: Message, names: TopicNames, encoder: str, dimensions: int) -> Joined:
    """The event in a record; feedback without `given_at` was given when it was recorded.

    What is dated later than its record is taken as of the record's time.
    Raises `InvalidEvent`.
    """
    topic, value = message.topic(), message.value()
    if topic == names.feedback:
        return _feedback(message)
    if topic == names.results:
        return _result(message)
    if topic == names.verdicts:
        return Verdict.parse(value)
    decision = Decision.parse(value)
    check_context(decision, encoder, dimensions)
    if not _is_ahead(decision.decided_at, message):
        return decision
    return decision.model_copy(update={"decided_at": recorded_at(message)})


def _feedback(message: Message) -> Feedback:
    feedback = Feedback.parse(message.value())
    if feedback.given_at is not None and not _is_ahead(feedback.given_at, message):
        return feedback
    return feedback.model_copy(update={"given_at": recorded_at(message)})


def _result(message: Message) -> Result:
    result = Result.parse(message.value())
    if not _is_ahead(result.finished_at, message):
        return result
    return result.model_copy(update={"finished_at": recorded_at(message)})


def _is_ahead(moment: datetime, message: Message) -> bool:
    """Whether the record tells of a moment that its topic had not reached."""
    return moment > recorded_at(message) + AHEAD
