"""What users and judge models say of results.

Invariant: a judge model's word is never feedback.
"""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from metallm_stream.events.base import Event, UserEvent
from metallm_stream.events.bounds import (
    Id,
    Label,
    Moment,
    Name,
    Note,
    Probability,
    Said,
    Seconds,
    Tokens,
    Usd,
)
from metallm_stream.events.failure import Failure


class Feedback(UserEvent):
    """A later judgement of one query's prediction: a `label`, a `score`, or the withdrawal of one.

    The newest `given_at` (default: the record's time) decides among feedback with the same
    `feedback_id`, and then among the ids.
    """

    query_id: Id
    feedback_id: Id | None = None
    label: Label | None = None
    score: Probability | None = None
    withdrawn: bool = False
    given_at: Moment | None = None

    @model_validator(mode="after")
    def _one_judgement(self) -> Self:
        given = (self.label is not None) + (self.score is not None)
        if given != (0 if self.withdrawn else 1):
            raise ValueError("needs exactly one of label and score, or withdrawn=true alone")
        return self


class Case(Event):
    """An answer that was drawn for the judge model, and the question, as the judge is shown them.

    `model` is what the answering `arm` is called at its provider.
    """

    query_id: Id
    call_id: Id
    arm: Name
    model: Name
    question: Said
    answer: Said


class Verdict(Event):
    """What a judge model said of one answer: a score, or a failure, which teaches nothing.

    `call_id` and `arm` are those of the judged answer. `judge` is provider and model, `text` its
    own words, `weight` what the score counts of a user's judgement while there is none. Tokens and
    cost are the judge's; `cost_usd` is absent where nobody knows it.
    """

    query_id: Id
    call_id: Id
    arm: Name
    judge: Id
    template: Name
    score: Probability | None = None
    failure: Failure | None = None
    weight: Probability
    text: Note | None = None
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cost_usd: Usd | None = None
    latency_s: Seconds = 0.0
    finished_at: Moment

    @model_validator(mode="after")
    def _score_or_failure(self) -> Self:
        if (self.score is None) == (self.failure is None):
            raise ValueError("a verdict has either a score or a failure")
        return self
