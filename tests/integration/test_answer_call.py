"""From a call to its one result: answers, retries, falls to the next arm, forwards."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Attempt, Call, Failure, Result
from metallm_stream.providers import (
    Forward,
    SystemClock,
    idempotency_key,
)
from tests.vendor_stage import (
    LONG,
    NUL,
    SkippingClock,
    Stage,
    arm,
    call_of,
    kinds,
)

FINAL = {Fault.UNAUTHORIZED, Fault.CONTEXT_TOO_LONG, Fault.REFUSAL, Fault.OUT_OF_QUOTA}


def test_an_answer_becomes_a_result(stage: Stage) -> None:
    """Text, prediction, tokens, cost and identities of a call that is answered at once."""
    call = call_of(arm("a"), arm("b"))
    result = stage.answer(call)
    assert isinstance(result, Result)
    assert (result.query_id, result.call_id, result.arm) == ("q-1", "call-1", "here/a")
    assert (result.text, result.prediction, result.failure) == ("4", "4", None)
    assert (result.input_tokens, result.output_tokens, result.cost_usd) == (10, 2, 0.001)
    assert kinds(result.attempts) == [("here/a", None)]
    assert result.attempts[0].provider_request_id
    assert 0 < result.attempts[0].latency_s <= result.latency_s < 5
    assert Result.parse(result.encode()) == result


def test_passing_trouble_is_retried_on_the_same_arm(stage: Stage) -> None:
    """Two server errors and then an answer: three attempts at one arm, all with one key."""
    clock = SkippingClock()
    result = stage.answer(
        call_of(arm("a"), arm("b")), Fault.SERVER_ERROR, Fault.RESET, clock=clock, backoff_s=0.5
    )
    assert isinstance(result, Result)
    expected = [("here/a", "server_error"), ("here/a", "connection"), ("here/a", None)]
    assert kinds(result.attempts) == expected
    assert {r.idempotency_key for r in stage.seen} == {idempotency_key("call-1", "here/a")}
    assert len(clock.waits_s) == 2
    assert 0 <= clock.waits_s[0] <= 0.5
    assert 0 <= clock.waits_s[1] <= 1.0
    assert result.latency_s >= sum(clock.waits_s)


def test_the_same_call_has_the_same_keys_when_replayed(stage: Stage) -> None:
    """After a crash, the vendor sees the keys that it has seen before."""
    keys = []
    for _ in range(2):
        stage.answer(call_of(arm("a"), arm("b")), Fault.REFUSAL)
        keys.append([request.idempotency_key for request in stage.seen])
    assert keys[0] == keys[1]
    assert len(set(keys[0])) == 2


def test_a_key_is_the_digest_of_call_and_arm() -> None:
    """The key depends on nothing but these two, so any process makes the same one."""
    digest = hashlib.sha256(b"call-1\x00here/a").hexdigest()
    assert idempotency_key("call-1", "here/a") == digest
    assert idempotency_key("call-1h", "ere/a") != digest


def test_the_machines_own_clock_waits(stage: Stage) -> None:
    """With the clock of production, a retry comes after a real wait."""
    result = stage.answer(
        call_of(arm("a")), Fault.SERVER_ERROR, clock=SystemClock(), backoff_s=0.02
    )
    assert kinds(result.attempts) == [("here/a", "server_error"), ("here/a", None)]
    assert result.attempts[0].started_at < result.attempts[1].started_at <= result.finished_at


def test_retry_after_is_obeyed(stage: Stage) -> None:
    """No retry comes earlier than the vendor asked, and jitter comes on top."""
    clock = SkippingClock()
    result = stage.answer(call_of(arm("a")), Fault.RATE_LIMITED, clock=clock)
    assert kinds(result.attempts) == [("here/a", "rate_limited"), ("here/a", None)]
    assert 2.5 <= clock.waits_s[0] <= 3.0


def test_a_wait_beyond_the_budget_goes_to_the_next_arm_at_once(stage: Stage) -> None:
    """Where Retry-After does not fit into the budget, nobody waits."""
    clock = SkippingClock()
    result = stage.answer(
        call_of(arm("a"), arm("b")), Fault.RATE_LIMITED, clock=clock, retry_budget_s=1.0
    )
    assert kinds(result.attempts) == [("here/a", "rate_limited"), ("here/b", None)]
    assert clock.waits_s == []


@pytest.mark.parametrize("fault", sorted(FINAL))
def test_final_trouble_goes_to_the_next_arm_at_once(stage: Stage, fault: Fault) -> None:
    """Credentials, quotas, refusals and prompts that are too long are not tried twice."""
    clock = SkippingClock()
    result = stage.answer(call_of(arm("a"), arm("b")), fault, clock=clock)
    assert isinstance(result, Result)
    assert [one.arm for one in result.attempts] == ["here/a", "here/b"]
    assert (result.arm, clock.waits_s) == ("here/b", [])


def test_what_failed_attempts_cost_is_in_the_result(stage: Stage) -> None:
    """A charged refusal and the answer add up."""
    result = stage.answer(call_of(arm("a"), arm("b")), Fault.REFUSAL)
    assert isinstance(result, Result)
    assert result.cost_usd == pytest.approx(0.021)
    assert (result.input_tokens, result.output_tokens) == (20, 4)


def test_an_arm_elsewhere_is_forwarded_with_what_happened(stage: Stage) -> None:
    """The forward has the rest of the ranking, the attempts so far, and the same identity."""
    call = call_of(arm("a"), arm("b", "elsewhere"), arm("c"))
    forward = stage.answer(call, Fault.REFUSAL)
    assert isinstance(forward, Forward)
    assert forward.provider == "elsewhere"
    assert [one.arm for one in forward.call.ranking] == ["elsewhere/b", "here/c"]
    assert kinds(forward.call.attempts) == [("here/a", "refused")]
    assert forward.call.call_id == call.call_id
    assert Call.parse(forward.call.encode()) == forward.call


def test_a_forwarded_call_goes_on_where_it_was(stage: Stage) -> None:
    """Attempts made elsewhere count in cost, tokens, latency and the budget of tries."""
    earlier = Attempt(
        arm="elsewhere/b",
        started_at=datetime.now(UTC) - timedelta(seconds=60),
        latency_s=1.0,
        failure=Failure(kind="server_error", message="down"),
        input_tokens=7,
        cost_usd=0.5,
    )
    call = call_of(arm("a"), attempts=(earlier,))
    result = stage.answer(call)
    assert isinstance(result, Result)
    assert kinds(result.attempts) == [("elsewhere/b", "server_error"), ("here/a", None)]
    assert (result.input_tokens, result.cost_usd) == (17, pytest.approx(0.501))
    assert 60 <= result.latency_s < 70
    spent = stage.answer(call, max_tries=1)
    assert isinstance(spent, Result)
    assert (spent.failure and spent.failure.kind, stage.seen) == ("server_error", [])


def test_nul_characters_are_removed(stage: Stage) -> None:
    """Text and prediction of an answer can be stored in PostgreSQL."""
    result = stage.answer(call_of(arm(NUL)))
    assert isinstance(result, Result)
    assert (result.text, result.prediction) == ("four", "four")


def test_an_answer_that_fits_no_record_is_malformed_but_paid(stage: Stage) -> None:
    """Length is counted as in the record, escapes included; the next arm answers."""
    result = stage.answer(call_of(arm(LONG), arm("a")), max_text_bytes=5_000)
    assert isinstance(result, Result)
    assert kinds(result.attempts) == [("here/long", "malformed_answer"), ("here/a", None)]
    assert result.cost_usd == pytest.approx(0.501)
    assert isinstance(stage.answer(call_of(arm(LONG)), max_text_bytes=6_002), Result)
