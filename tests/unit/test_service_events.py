"""What the records are that services write to each other."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import (
    Attempt,
    Call,
    Decision,
    Event,
    PolicyArm,
    PolicyManifest,
    Result,
)

QUERY = {"query_id": "q", "text": "Is it so?"}
MODEL = {"arm": "mini", "provider": "openai", "model": "gpt-4o-mini"}
WHEN = "2026-03-01T08:00:00Z"
DECISION = {
    "query_id": "q",
    "fingerprint": "f",
    "query_partition": 0,
    "query_offset": 0,
    "asked_at": WHEN,
    "decided_at": WHEN,
    "encoder": "wordllama-2",
    "context": "AACAPwAAAAA=",
    "policy": "ridge-igw",
    "policy_version": 0,
    "arm": "mini",
    "propensity": 1.0,
    "cost_weight": 0.1,
    "latency_weight": 0.0,
    "cost_scale_usd": 1.0,
}
RESULT = {"query_id": "q", "arm": "mini", "text": "Yes.", "finished_at": WHEN}
CALL = {"call_id": "c", "query": QUERY, "ranking": [MODEL], "decided_at": WHEN}
REFUSAL = {"kind": "no_arm", "message": "the catalogue is empty"}


def parse(record: type[Event], fields: dict[str, Any]) -> Event:
    return record.parse(orjson.dumps(fields))


def reason(record: type[Event], raw: bytes | None) -> str:
    with pytest.raises(InvalidEvent) as refused:
        record.parse(raw)
    return refused.value.reason


@pytest.mark.parametrize(
    ("record", "fields"), [(Decision, DECISION), (Result, RESULT), (Call, CALL)]
)
def test_services_records_ignore_fields_that_nobody_knows(
    record: type[Event], fields: dict[str, Any]
) -> None:
    """An older release reads what a newer one writes."""
    assert parse(record, fields | {"since_next_release": 1}) == parse(record, fields)


@pytest.mark.parametrize(
    "fields",
    [
        DECISION | {"refusal": REFUSAL},
        DECISION | {"arm": None},
        DECISION | {"propensity": None},
        DECISION | {"arm": None, "propensity": None},
        DECISION | {"propensity": 0},
        DECISION | {"propensity": 1.1},
        DECISION | {"cost_scale_usd": 0},
    ],
)
def test_a_decision_has_an_arm_with_its_propensity_or_a_refusal(fields: dict[str, Any]) -> None:
    """Nothing in between can be learned from."""
    assert reason(Decision, orjson.dumps(fields))


def test_a_refused_decision_is_a_decision() -> None:
    """It has no arm and no propensity, and says why."""
    fields = {k: v for k, v in DECISION.items() if k not in ("arm", "propensity")}
    refused = Decision.parse(orjson.dumps(fields | {"refusal": REFUSAL}))
    assert (refused.arm, refused.propensity) == (None, None)


@pytest.mark.parametrize(
    "change",
    [{"arm": None}, {"failure": {"kind": "timeout", "message": "no answer"}}],
)
def test_a_result_is_an_answer_or_a_failure(change: dict[str, Any]) -> None:
    """Never both, never neither."""
    assert "either an arm that answered, or a failure" in reason(
        Result, orjson.dumps(RESULT | change)
    )


def test_a_failure_names_a_known_kind() -> None:
    """The kinds are a closed list that SQL and users can count on."""
    failed = {"query_id": "q", "finished_at": WHEN}
    for kind, known in (("timeout", True), ("gremlins", False)):
        raw = orjson.dumps(failed | {"failure": {"kind": kind, "message": "m"}})
        if known:
            assert Result.parse(raw)
        else:
            assert "failure.kind" in reason(Result, raw)


def test_a_call_has_an_arm_to_try() -> None:
    """An empty ranking would be a call that nobody can answer."""
    assert "ranking" in reason(Call, orjson.dumps(CALL | {"ranking": []}))


def test_contexts_and_weights_are_base64_of_either_alphabet() -> None:
    """Bytes come back as they were, whoever wrote them."""
    raw = bytes(range(256))
    arm = {"policy": "p", "version": 1, "arm": "a", "observations": 0, "mean_quality": 0}
    record = PolicyArm(**arm, weights=raw, mean_context=b"", calls=0)
    assert b"-" in record.encode()
    assert PolicyArm.parse(record.encode()) == record
    fields = orjson.loads(record.encode())
    fields["weights"] = fields["weights"].replace("-", "+").replace("_", "/")
    assert parse(PolicyArm, fields) == record


def test_a_manifest_needs_priors_above_zero() -> None:
    """A precision of 0 would make the ridge no ridge."""
    manifest = {
        "policy": "ridge",
        "version": 1,
        "published_at": WHEN,
        "encoder": "e",
        "dimensions": 2,
        "arms": [],
        "observations": 0,
        "mean_quality": 0.5,
        "shared_weights": "",
        "noise_variance": 0.1,
        "shared_precision": 1.0,
        "arm_precision": 1.0,
    }
    assert parse(PolicyManifest, manifest)
    assert "arm_precision" in reason(PolicyManifest, orjson.dumps(manifest | {"arm_precision": 0}))


def test_an_attempt_may_know_nothing_but_its_arm_and_time() -> None:
    """Unknown tokens and costs are unknown, not zero."""
    attempt = Attempt.parse(orjson.dumps({"arm": "a", "started_at": WHEN, "latency_s": 0}))
    assert (attempt.cost_usd, attempt.input_tokens, attempt.output_tokens) == (None, None, None)
