"""The records on the wire, one pydantic model a record, and nothing else.

Invariant: a record that parses here is safe everywhere behind it: bounded in size, free of NaN,
infinities and NUL characters, and with aware times. What users write (`Query`, `Feedback`,
`Model`) refuses unknown fields, since a misspelt `max_cost_usd` would cost money; what services
write ignores them, so that an older and a newer release can share the topics.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from metallm_stream.errors import InvalidEvent

SCHEMA_VERSION: Final = 1

FailureKind = Literal[
    "no_arm",  # no arm is left for this query: the message says what excluded each
    "deadline",  # the query's own deadline passed
    "timeout",  # the provider did not answer in time
    "connection",  # the provider could not be reached or broke off
    "rate_limited",  # the provider asked to slow down
    "server_error",  # the provider failed
    "authentication",  # the provider refused our credentials
    "bad_request",  # the provider refused the request itself: so would every other
    "unsupported",  # the provider lacks the model, or the model something that was asked of it
    "context_too_long",  # the prompt does not fit the arm's context window
    "refused",  # the model or a content filter declined to answer
    "malformed_answer",  # the provider's answer could not be read
    "circuit_open",  # too many of the arm's recent tries failed: it was not asked
    "spend_cap",  # the worker has spent what it may: the arm was not asked
    "superseded",  # another arm answered first; this try was broken off
    "worker_error",  # our own worker could not cope; its log has the traceback
]


# The last moment that a record may name.
LATEST = datetime(2200, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
# Patterns and bounds, since a function of Python's would take longer than all the rest.
_NO_NUL = r"^[^\x00]*$"
Id = Annotated[str, Field(min_length=1, max_length=256, pattern=_NO_NUL)]
Name = Annotated[str, Field(min_length=1, max_length=128, pattern=_NO_NUL)]
Label = Annotated[str, Field(min_length=1, max_length=256, pattern=_NO_NUL)]
Text = Annotated[str, Field(min_length=1, max_length=200_000, pattern=_NO_NUL)]
# What vendors say is taken as it comes, but for NUL.
Said = Annotated[str, AfterValidator(lambda value: value.replace("\x00", ""))]
Note = Annotated[Said, Field(max_length=2_000)]
MAX_WEIGHT = 1_000_000
Weight = Annotated[float, Field(ge=0, le=MAX_WEIGHT)]
Probability = Annotated[float, Field(ge=0, le=1)]
Usd = Annotated[float, Field(ge=0, le=1e12)]
PriceUsd = Annotated[float, Field(ge=0, le=1e6)]
Seconds = Annotated[float, Field(ge=0, le=1e10)]
Tokens = Annotated[int, Field(ge=0, le=10**12)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), le=LATEST)]
MetadataValue = Annotated[str, Field(max_length=1_024, pattern=_NO_NUL)]
Metadata = Annotated[dict[Name, MetadataValue], Field(max_length=64)]
# BCP 47, as in `pt-BR`; and a place of processing, matched as it is written.
Language = Annotated[str, Field(pattern=r"^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$", max_length=35)]
Region = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Labels = Annotated[tuple[Label, ...], Field(min_length=1, max_length=1_000)]
Option = Annotated[str, Field(min_length=1, max_length=1_000, pattern=_NO_NUL)]
Tolerance = Annotated[float, Field(ge=0, le=1e12)]


class Event(BaseModel):
    """Base of all records: immutable, finite numbers, versioned."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )
    _extra: ClassVar[Literal["ignore", "forbid"]] = "ignore"
    schema_version: Literal[1] = SCHEMA_VERSION

    @classmethod
    def parse(cls, value: bytes | None) -> Self:
        """Read one record's value; raises `InvalidEvent` that names field, value and reason."""
        if value is None:
            raise InvalidEvent(f"empty value (tombstone) where a {cls.__name__} was expected")
        try:
            return cls.model_validate_json(value, strict=True, extra=cls._extra)
        except ValidationError as exc:
            raise InvalidEvent(explain(exc)) from exc

    def encode(self) -> bytes:
        """The record's value as UTF-8 JSON, unset optional fields left out."""
        return self.model_dump_json(exclude_none=True).encode()


class UserEvent(Event):
    """Base of the records that users write: unknown fields are refused when one is read.

    Inside a call, which a newer router may have written, they are ignored like all others.
    """

    model_config = ConfigDict(json_schema_extra={"additionalProperties": False})
    _extra = "forbid"


class Message(UserEvent):
    """One earlier turn of a conversation."""

    role: Literal["user", "assistant"]
    content: Text


class Generation(UserEvent):
    """Generation parameters, passed to the provider where it has them."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    stop: Annotated[tuple[Name, ...], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class Choice(UserEvent):
    """The answer is one of these options, lettered A, B, C ... in their order."""

    kind: Literal["choice"]
    options: Annotated[tuple[Option, ...], Field(min_length=2, max_length=26)]

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
    messages: Annotated[tuple[Message, ...], Field(max_length=1_000)] | None = None
    generation: Generation | None = None
    metadata: Metadata = Field(default_factory=dict)
    cost_weight: Weight | None = None
    latency_weight: Weight | None = None
    max_cost_usd: Annotated[float, Field(gt=0)] | None = None
    min_quality: Probability | None = None
    models: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1_000)] | None = None
    needs: Annotated[tuple[Name, ...], Field(max_length=64)] | None = None
    language: Language | None = None
    regions: Annotated[tuple[Region, ...], Field(min_length=1, max_length=64)] | None = None
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


class Price(UserEvent):
    """An arm's price list, in USD.

    With `table`, the name of a vendor in the price table of `genai-prices`, tries are booked as
    that table has it at their time: tiers by length, cache writes and changes of price included.
    """

    input_usd_per_mtok: PriceUsd
    output_usd_per_mtok: PriceUsd
    cached_input_usd_per_mtok: PriceUsd | None = None
    call_usd: PriceUsd = 0.0
    table: Name | None = None


class Model(UserEvent):
    """One arm of the catalogue: a model at a provider. A tombstone under its key removes it."""

    arm: Name
    provider: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    model: Name
    price: Price | None = None
    context_window_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    tags: Annotated[tuple[Name, ...], Field(max_length=64)] = ()
    languages: Annotated[tuple[Language, ...], Field(max_length=256)] | None = None
    regions: Annotated[tuple[Region, ...], Field(max_length=64)] | None = None


class Failure(Event):
    """Why there is no prediction."""

    kind: FailureKind
    message: Note


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
    candidates: tuple[Candidate, ...] = ()
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


class Attempt(Event):
    """One try at one arm, as it ended."""

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
    provider_request_id: Note | None = None


class Skip(Event):
    """An arm that was not asked although its turn had come, and why: no vendor heard of it."""

    arm: Name
    at: Moment
    reason: Failure


class Call(Event):
    """Work for one provider's worker: try `ranking` in order, beginning with the chosen arm."""

    call_id: Id
    query: Query
    ranking: Annotated[tuple[Model, ...], Field(min_length=1)]
    attempts: tuple[Attempt, ...] = ()
    skipped: tuple[Skip, ...] = ()
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
    attempts: tuple[Attempt, ...] = ()
    skipped: tuple[Skip, ...] = ()
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
    arms: tuple[Name, ...]
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
    exploration: dict[Name, float] = Field(default_factory=dict)
    river: RiverState | None = None


class BudgetAccount(Event):
    """What a budget has spent and reserved for one value of its metadata key; see `route.account`.

    `next_offsets` tells, by partition of `queries`, the first offset whose decision is not counted.
    `per` is the unit that `over_usd`, `ahead_usd` and `period_usd` are measured in.
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


class ArmHealth(Event):
    """What one worker sees of an arm, or of its whole provider where `arm` is absent.

    An open circuit is tried again after `retry_at`. After `valid_until` the record says nothing:
    its worker is gone.
    """

    kind: Literal["arm"] = "arm"
    provider: Name
    arm: Name | None = None
    slot: Name
    state: Literal["open", "closed"]
    reason: Note | None = None
    since: Moment
    retry_at: Moment | None = None
    valid_until: Moment

    @property
    def key(self) -> str:
        """The record's key; `provider//slot` for a whole provider."""
        return f"{self.provider}/{self.arm or ''}/{self.slot}"


class WorkerSpend(Event):
    """What one worker has spent since the start of an hour or day, under its cap on spending."""

    kind: Literal["spend"] = "spend"
    provider: Name
    slot: Name
    per: Literal["hour", "day"]
    since: Moment
    spent_usd: Usd

    @property
    def key(self) -> str:
        """The record's key, which no arm's record can have."""
        return f"spend {self.provider} {self.slot}"


def call_id(query_id: str, fingerprint: str, query_partition: int, query_offset: int) -> str:
    """Identity of the call of a query's decision: the same whenever that is written anew."""
    parts = f"{query_id}\n{fingerprint}\n{query_partition}\n{query_offset}"
    return hashlib.sha256(parts.encode()).hexdigest()[:32]


def explain(error: ValidationError, *, limit: int = 3) -> str:
    """A validation error in one line: field, reason and the start of the value.

    The value of an unknown field is not shown: it may be a secret under a misspelt name.

    >>> try:
    ...     Query.parse(b'{"query_id": "q", "text": "t", "cost_weight": -1}')
    ... except InvalidEvent as exc:
    ...     print(exc.reason)
    cost_weight: Input should be greater than or equal to 0 (got -1)
    """
    parts = []
    for item in error.errors(include_url=False)[:limit]:
        where = ".".join(str(step) for step in item["loc"]) or error.title
        is_shown = item["type"] != "extra_forbidden" and not isinstance(item["input"], dict | list)
        got = repr(item["input"]) if is_shown else ""
        shown = f" (got {got[:80]})" if got else ""
        parts.append(f"{where}: {_reason(item)}{shown}")
    hidden = error.error_count() - limit
    return "; ".join(parts) + (f"; and {hidden} more" if hidden > 0 else "")


def _reason(error: ErrorDetails) -> str:
    if error.get("ctx", {}).get("pattern") == _NO_NUL:
        return "contains a NUL character, which PostgreSQL cannot store; remove it"
    return error["msg"].removeprefix("Value error, ")
