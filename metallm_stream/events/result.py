"""What vendors are asked, and what users get.

Invariant: a result has an answer or a failure, and every try that led to it.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from metallm_stream.events.base import Event
from metallm_stream.events.bounds import Id, Moment, Name, Note, Said, Seconds, Tokens, Usd
from metallm_stream.events.failure import Failure
from metallm_stream.events.model import Model
from metallm_stream.events.query import Query


class Attempt(Event):
    """One try at one arm, as it ended; a `probe` if it went through an open circuit.

    Where nobody tells `cost_usd`, and the arm has a price, `at_most_usd` is what the try costs at
    most: for budgets, and in no sum of costs.
    """

    arm: Name
    started_at: Moment
    latency_s: Seconds
    failure: Failure | None = None
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cached_input_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None
    reasoning_tokens: Tokens | None = None
    cost_usd: Usd | None = None
    at_most_usd: Usd | None = None
    provider_request_id: Note | None = None
    probe: bool | None = None


class Skip(Event):
    """An arm that was not asked although its turn had come, and why: no vendor heard of it."""

    arm: Name
    at: Moment
    reason: Failure


class Call(Event):
    """Work for one provider's worker: try `ranking` in order, beginning with the chosen arm."""

    call_id: Id
    query: Query
    ranking: Annotated[tuple[Model, ...], Field(min_length=1, fail_fast=True)]
    attempts: Annotated[tuple[Attempt, ...], Field(fail_fast=True)] = ()
    skipped: Annotated[tuple[Skip, ...], Field(fail_fast=True)] = ()
    decided_at: Moment
    deadline_at: Moment | None = None


class Result(Event):
    """What the user gets: a prediction by `arm`, or a failure. Exactly one a query.

    `text` is the model's raw answer; `prediction` what was parsed from it, absent when it could
    not be parsed. `cost_usd` and tokens add up all attempts, failed ones included. `template` is
    name and version of the prompt template, as in `classification@1`.
    """

    query_id: Id
    call_id: Id | None = None
    arm: Name | None = None
    text: Said | None = None
    prediction: Said | None = None
    template: Name | None = None
    failure: Failure | None = None
    attempts: Annotated[tuple[Attempt, ...], Field(fail_fast=True)] = ()
    skipped: Annotated[tuple[Skip, ...], Field(fail_fast=True)] = ()
    input_tokens: Tokens = 0
    output_tokens: Tokens = 0
    cost_usd: Usd = 0.0
    latency_s: Seconds = 0.0
    finished_at: Moment

    @model_validator(mode="after")
    def _answer_or_failure(self) -> Self:
        if (self.arm is None) == (self.failure is None):
            raise ValueError("a result has either an arm that answered, or a failure")
        return self

    def is_priced(self) -> bool:
        """Whether it is known what the answer cost: a failure has none."""
        tries = self.attempts
        return (
            self.arm is None
            or not tries
            or any(one.cost_usd is not None and one.failure is None for one in tries)
        )
