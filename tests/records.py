"""Small decisions, results and feedback in contexts of two dimensions, for tests of the join."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from metallm_stream.encode import context_to_bytes
from metallm_stream.events import Attempt, Decision, Failure, Feedback, Result, Verdict
from metallm_stream.join import Interaction

ENCODER = "test-2"
DIMENSIONS = 2
START = datetime(2026, 3, 1, 8, tzinfo=UTC)
LABELS = ("yes", "no")
FAILED = Failure(kind="timeout", message="no answer within 60 s")
REFUSED = Failure(kind="no_arm", message="the catalogue of arms is empty")


def at(seconds: float) -> datetime:
    """So many seconds after the start."""
    return START + timedelta(seconds=seconds)


def decision(query_id: str = "q", **fields: Any) -> Decision:
    """A decision for `mini` at second 0."""
    known: dict[str, Any] = {
        "query_id": query_id,
        "fingerprint": "f",
        "query_partition": 0,
        "query_offset": 0,
        "asked_at": START,
        "decided_at": START,
        "labels": LABELS,
        "encoder": ENCODER,
        "context": context_to_bytes([0.6, 0.8]),
        "policy": "ridge-igw",
        "policy_version": 1,
        "arm": "mini",
        "propensity": 0.5,
        "cost_weight": 0.1,
        "latency_weight": 0.0,
        "cost_scale_usd": 1.0,
    }
    return Decision(**(known | fields))


def attempt(arm: str = "mini", **fields: Any) -> Attempt:
    """One try that took a second and cost a tenth of a cent."""
    known: dict[str, Any] = {
        "arm": arm,
        "started_at": START,
        "latency_s": 1.0,
        "input_tokens": 10,
        "output_tokens": 2,
        "cost_usd": 0.001,
    }
    return Attempt(**(known | fields))


def result(query_id: str = "q", arm: str | None = "mini", **fields: Any) -> Result:
    """The answer "yes" by `arm` at second 1, or a failure where there is no arm."""
    known: dict[str, Any] = {
        "query_id": query_id,
        "arm": arm,
        "text": "Yes." if arm else None,
        "prediction": "yes" if arm else None,
        "failure": None if arm else FAILED,
        "attempts": (attempt(arm or "mini", failure=None if arm else FAILED),),
        "finished_at": at(1),
    }
    return Result(**(known | fields))


def feedback(
    query_id: str = "q", label: str | None = "yes", *, given: float = 10, **fields: Any
) -> Feedback:
    """A label at second 10."""
    return Feedback(**({"query_id": query_id, "label": label, "given_at": at(given)} | fields))


def joined(*events: Decision | Result | Feedback | Verdict) -> Interaction:
    """One query's records as an interaction."""
    interaction = Interaction(events[0].query_id)
    for event in events:
        interaction = interaction.merged(event)
    return interaction


def verdict(query_id: str = "q", score: float | None = 0.5, **fields: Any) -> Verdict:
    """A score for the answer of `mini` to `decision` at second 5, counting a quarter."""
    known: dict[str, Any] = {
        "query_id": query_id,
        "call_id": decision(query_id).call_id,
        "arm": "mini",
        "judge": "somebody/strict",
        "template": "verdict@1",
        "score": score,
        "failure": FAILED if score is None else None,
        "weight": 0.25,
        "cost_usd": 0.01,
        "finished_at": at(5),
    }
    return Verdict(**(known | fields))
