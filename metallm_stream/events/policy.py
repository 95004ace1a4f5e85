"""What learners publish for routers.

Invariant: the head of a policy is written last, in the transaction of its parts.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from metallm_stream.events.base import Event
from metallm_stream.events.bounds import MetadataValue, Moment, Name, Probability, Seconds, Usd


class PolicyArm(Event):
    """One arm's part of a published policy.

    `weights` and `mean_context` are float32 `(d,)`; `covariance_root` is float32 `(r, r)`, R with
    `R·Rᵀ = (A + λ1)⁻¹` in the coordinates of the manifest's projection.
    """

    kind: Literal["arm"] = "arm"
    policy: Name
    version: Annotated[int, Field(ge=1, le=2**62)]
    arm: Name
    observations: Annotated[float, Field(ge=0)]
    mean_quality: float
    weights: bytes
    mean_context: bytes
    covariance_root: bytes | None = None
    calls: Annotated[float, Field(ge=0)]
    cost_usd: Usd | None = None
    input_tokens: Annotated[float, Field(ge=0)] | None = None
    output_tokens: Annotated[float, Field(ge=0)] | None = None
    latency_s: Seconds | None = None
    failure_rate: Probability | None = None
    prompt_characters: Annotated[float, Field(gt=0, le=1e9)] | None = None


class RiverState(Event):
    """What a policy of River's has learned, of which the head of a published policy tells.

    `parameters` is JSON. The state is in `parts` records of `version`, and has this `sha256`.
    """

    policy: Name
    parameters: Annotated[str, Field(max_length=10_000)]
    river_version: Name
    version: Annotated[int, Field(ge=1, le=2**62)]
    lessons: Annotated[int, Field(ge=0)]
    parts: Annotated[int, Field(ge=1, le=32)]
    sha256: Name


class RiverPart(Event):
    """One part of the state of a policy of River's: bytes of a pickle."""

    kind: Literal["river"] = "river"
    policy: Name
    version: Annotated[int, Field(ge=1, le=2**62)]
    part: Annotated[int, Field(ge=0, lt=32)]
    state: bytes


class PolicyManifest(Event):
    """The head of a published policy, written last in the transaction of its arms.

    `projection` is float32 `(d, r)`: what takes a context to the coordinates in which uncertainty
    is told. Where it is absent, as from older learners, only the number of observations tells.
    """

    kind: Literal["manifest"] = "manifest"
    policy: Name
    version: Annotated[int, Field(ge=1, le=2**62)]
    published_at: Moment
    encoder: Name
    dimensions: Annotated[int, Field(ge=1)]
    arms: Annotated[tuple[Name, ...], Field(fail_fast=True)]
    observations: Annotated[float, Field(ge=0)]
    mean_quality: float
    shared_weights: bytes
    projection: bytes | None = None
    mean_strength: Annotated[float, Field(gt=0)] | None = None
    noise_variance: Annotated[float, Field(ge=0)]
    shared_precision: Annotated[float, Field(gt=0)]
    arm_precision: Annotated[float, Field(gt=0)]
    log_evidence: float | None = None
    cost_elasticity: Probability | None = None
    cost_variation: Annotated[float, Field(ge=0, le=1_000)] | None = None
    prompt_characters: Annotated[float, Field(gt=0, le=1e9)] | None = None
    river: RiverState | None = None


class BudgetAccount(Event):
    """What a budget has spent and reserved for one value of its metadata key; see `route.account`.

    `next_offsets` tells, by partition of `queries`, the first offset whose decision is not counted.
    `per` is the unit that `over_usd`, `ahead_usd` and `period_usd` are measured in. `untold` counts
    by arm open calls of which nobody knew what they cost.
    """

    kind: Literal["budget"] = "budget"
    budget: Name
    key: MetadataValue = ""
    per: Literal["query", "hour", "day"] | None = None
    queries: Annotated[int, Field(ge=0)]
    spent_usd: float
    reserved_usd: float
    over_usd: float
    ahead_usd: float
    period_usd: float
    at: Moment | None = None
    reserved_squares: Annotated[float, Field(ge=0)]
    expected_squares: Annotated[float, Field(ge=0)]
    error_squares: Annotated[float, Field(ge=0)]
    next_offsets: dict[int, int] = Field(default_factory=dict)
    untold: dict[Name, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
