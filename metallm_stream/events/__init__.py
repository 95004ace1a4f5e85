"""The records on the wire, one pydantic model a record, and nothing else.

What users write (`Query`, `Feedback`, `Model`) refuses unknown fields, since a misspelt
`max_cost_usd` would cost money; what services write ignores them, so that an older and a newer
release can share the topics.
"""

from metallm_stream.events.base import SCHEMA_VERSION, Event, UserEvent, explain
from metallm_stream.events.bounds import LATEST, MAX_WEIGHT, Id, Name, Probability, Usd, Weight
from metallm_stream.events.decision import Candidate, Decision, call_id
from metallm_stream.events.failure import Failure, FailureKind
from metallm_stream.events.health import ArmHealth, WorkerSpend
from metallm_stream.events.judgement import Case, Feedback, Verdict
from metallm_stream.events.model import Model, Price
from metallm_stream.events.policy import (
    BudgetAccount,
    PolicyArm,
    PolicyManifest,
    RiverPart,
    RiverState,
)
from metallm_stream.events.query import (
    AnswerForm,
    Choice,
    Extraction,
    Generation,
    Message,
    Number,
    Query,
    call_ids_in,
    query_id_in,
)
from metallm_stream.events.result import Attempt, Call, Result, Skip

__all__ = [
    "LATEST",
    "MAX_WEIGHT",
    "SCHEMA_VERSION",
    "AnswerForm",
    "ArmHealth",
    "Attempt",
    "BudgetAccount",
    "Call",
    "Candidate",
    "Case",
    "Choice",
    "Decision",
    "Event",
    "Extraction",
    "Failure",
    "FailureKind",
    "Feedback",
    "Generation",
    "Id",
    "Message",
    "Model",
    "Name",
    "Number",
    "PolicyArm",
    "PolicyManifest",
    "Price",
    "Probability",
    "Query",
    "Result",
    "RiverPart",
    "RiverState",
    "Skip",
    "Usd",
    "UserEvent",
    "Verdict",
    "Weight",
    "WorkerSpend",
    "call_id",
    "call_ids_in",
    "explain",
    "query_id_in",
]
