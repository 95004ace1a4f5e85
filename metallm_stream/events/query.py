"""What users ask.

Invariant: a query that parses can be decided: whatever else it says has a default.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from metallm_stream.events.base import UserEvent
from metallm_stream.events.bounds import (
    LATEST,
    Id,
    Labels,
    Language,
    Metadata,
    Moment,
    Name,
    Option,
    Probability,
    Region,
    Text,
    Tolerance,
    Weight,
)


class Message(UserEvent):
    """One earlier turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Text


class Generation(UserEvent):
    """Generation parameters, passed to the provider where it has them."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    stop: Annotated[tuple[Name, ...], Field(max_length=4, fail_fast=True)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class Choice(UserEvent):
    """The answer is one of these options, lettered A, B, C ... in their order."""

    kind: Literal["choice"]
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=26, fail_fast=True)]

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.options)) < len(self.options):
            raise ValueError("options: two are the same; each must differ from the others")
        return self


class Number(UserEvent):
    """The answer is a number; it may be off by the larger of the two tolerances.

    `relative_tolerance` is a fraction of the label: 0.01 is one percent of it.
    """

    kind: Literal["number"]
    tolerance: Tolerance = 0.0
    relative_tolerance: Tolerance = 0.0


class Extraction(UserEvent):
    """The answer is a short span of words; `measure` says how it is compared with the label."""

    kind: Literal["extraction"]
    measure: Literal["f1", "exact"] = "f1"


AnswerForm = Annotated[Choice | Number | Extraction, Field(discriminator="kind")]


class Query(UserEvent):
    """What a user asks. Only `query_id` and `text` are required; `text` is the last user turn."""

    query_id: Id
    text: Text
    task: Name | None = None
    labels: Labels | None = None
    answer: AnswerForm | None = None
    system: Text | None = None
    messages: Annotated[tuple[Message, ...], Field(max_length=1_000, fail_fast=True)] | None = None
    generation: Generation | None = None
    metadata: Metadata = Field(default_factory=dict)
    cost_weight: Weight | None = None
    latency_weight: Weight | None = None
    max_cost_usd: Annotated[float, Field(gt=0)] | None = None
    min_quality: Probability | None = None
    models: (
        Annotated[tuple[Name, ...], Field(min_length=1, max_length=1_000, fail_fast=True)] | None
    ) = None
    needs: Annotated[tuple[Name, ...], Field(max_length=64, fail_fast=True)] | None = None
    language: Language | None = None
    regions: (
        Annotated[tuple[Region, ...], Field(min_length=1, max_length=64, fail_fast=True)] | None
    ) = None
    deadline_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    asked_at: Moment | None = None

    @model_validator(mode="after")
    def _labels_or_answer(self) -> Self:
        if self.labels is not None and self.answer is not None:
            raise ValueError("labels and answer: give one of them; labels make a classification")
        return self

    def deadline_at(self, asked_at: datetime) -> datetime | None:
        """When it must be answered, if it says so; no later than a record may name."""
        if self.deadline_s is None:
            return None
        return min(asked_at + timedelta(seconds=self.deadline_s), LATEST)


class _Named(BaseModel):
    """Whatever has an id."""

    query_id: Id


class _Called(BaseModel):
    """Whatever belongs to a call."""

    call_id: Id | None = None
    query_id: Id | None = None
    query: _Named | None = None
    attempts: tuple[object, ...] = ()


def query_id_in(value: bytes) -> str | None:
    """The id of a record that may be no query, or None where none can be read.

    >>> query_id_in(b'{"query_id": "q-1", "txet": "Why?"}')
    'q-1'
    """
    try:
        return _Named.model_validate_json(value, strict=True).query_id
    except ValidationError:
        return None


def call_ids_in(value: bytes) -> tuple[str | None, str | None]:
    """The ids of the call that a record is about and of the call's query, or None instead.

    The query's alone where a vendor was asked, of results that do not tell the call's.

    >>> call_ids_in(b'{"call_id": "c-1", "query": {"query_id": "q-1"}}')
    ('c-1', 'q-1')
    >>> call_ids_in(b'{"query_id": "q-1", "attempts": [{}]}')
    (None, 'q-1')
    >>> call_ids_in(b'{"query_id": "q-1"}')
    (None, None)
    """
    try:
        found = _Called.model_validate_json(value, strict=True)
    except ValidationError:
        return None, None
    if found.query is not None:
        return found.call_id, found.query.query_id
    return found.call_id, found.query_id if found.attempts and found.call_id is None else None
