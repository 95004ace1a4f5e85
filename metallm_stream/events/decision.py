"""What a router decides.

Invariant: a decision has all that is needed to learn from it and to explain it later.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Self

from pydantic import Field, model_validator

from metallm_stream.events.base import Event
from metallm_stream.events.bounds import (
    Id,
    Labels,
    Metadata,
    Moment,
    Name,
    Probability,
    Seconds,
    Usd,
    Weight,
)
from metallm_stream.events.failure import Failure
from metallm_stream.events.query import AnswerForm


class Candidate(Event):
    """One arm as the policy saw it for one query."""

    arm: Name
    probability: Probability
    quality: float | None = None
    cost_usd: Usd | None = None
    latency_s: Seconds | None = None
    utility: float | None = None
    leverage: Annotated[float, Field(ge=0)] | None = None


class Decision(Event):
    """Query + context + arm + propensity + policy version: all that is needed to learn and explain.

    `arm` and `propensity` are absent exactly when no arm was left; `refusal` then says why.
    `context` is float32, little-endian, of the encoder's dimension.
    """

    query_id: Id
    fingerprint: Name
    query_partition: Annotated[int, Field(ge=0)]
    query_offset: Annotated[int, Field(ge=0)]
    asked_at: Moment
    decided_at: Moment
    task: Name | None = None
    labels: Labels | None = None
    answer: AnswerForm | None = None
    metadata: Metadata = Field(default_factory=dict)
    encoder: Name
    context: bytes
    policy: Name
    policy_version: Annotated[int, Field(ge=0, le=2**62)]
    arm: Name | None = None
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    candidates: Annotated[tuple[Candidate, ...], Field(fail_fast=True)] = ()
    cost_weight: Weight
    latency_weight: Weight
    cost_scale_usd: Annotated[float, Field(gt=0)]
    prompt_characters: Annotated[int, Field(ge=0, le=10**9)] | None = None
    budget_weight: Weight | None = None
    reserved_usd: Usd | None = None
    refusal: Failure | None = None

    @property
    def call_id(self) -> str:
        """Identity of this decision's call; see `call_id`."""
        return call_id(self.query_id, self.fingerprint, self.query_partition, self.query_offset)

    @model_validator(mode="after")
    def _arm_or_refusal(self) -> Self:
        if (self.arm is None) == (self.refusal is None) or (self.arm is None) != (
            self.propensity is None
        ):
            raise ValueError("a decision has either arm and propensity, or a refusal")
        return self


def call_id(query_id: str, fingerprint: str, query_partition: int, query_offset: int) -> str:
    """Identity of the call of a query's decision: the same whenever that is written anew."""
    parts = f"{query_id}\n{fingerprint}\n{query_partition}\n{query_offset}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]
