"""The limits of one call: tries, deadlines, timeouts; and its books, whatever happens."""

from __future__ import annotations

import asyncio
import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Result
from metallm_stream.judge.dispatch import parse, prompt
from metallm_stream.providers import (
    AnswerSettings,
    Forward,
    answer_call,
)
from tests.tap import tapped
from tests.vendor_stage import (
    NAMES,
    SkippingClock,
    Stage,
    arm,
    call_of,
    kinds,
    open_guard,
)

FINAL = {Fault.UNAUTHORIZED, Fault.CONTEXT_TOO_LONG, Fault.REFUSAL, Fault.OUT_OF_QUOTA}
AGAIN = {Fault.SERVER_ERROR, Fault.RATE_LIMITED, Fault.ERROR_IN_200, Fault.EMPTY_CHOICES}


def test_a_call_that_nobody_answers_fails_with_the_last_reason(stage: Stage) -> None:
    """The failure has the last attempt's kind and says how much was tried."""
    result = stage.answer(call_of(arm("a"), arm("b")), *[Fault.SERVER_ERROR] * 9, tries_per_arm=2)
    assert isinstance(result, Result)
    assert result.arm is None
    assert result.failure is not None
    assert result.failure.kind == "server_error"
    assert result.failure.message.startswith("no answer in 4 attempts at 2 arms; the last said")


def test_tries_end_with_their_budget(stage: Stage) -> None:
    """However long the ranking, no more than `max_tries` requests are made."""
    ranking = [arm(name) for name in NAMES]
    result = stage.answer(call_of(*ranking), *[Fault.SERVER_ERROR] * 20, max_tries=5)
    assert isinstance(result, Result)
    assert len(result.attempts) == len(stage.seen) == 5


def test_a_passed_deadline_asks_nobody(stage: Stage) -> None:
    """A call whose deadline has passed fails without a request."""
    deadline_at = datetime.now(UTC) - timedelta(seconds=1)
    result = stage.answer(call_of(arm("a"), deadline_at=deadline_at))
    assert isinstance(result, Result)
    assert (result.failure and result.failure.kind, stage.seen) == ("deadline", [])


def test_a_deadline_ends_an_attempt_and_the_call(stage: Stage) -> None:
    """A hanging vendor is cut off at the deadline, not at the longer timeout of an attempt."""
    deadline_at = datetime.now(UTC) + timedelta(seconds=0.3)
    began_s = time.monotonic()
    call = call_of(arm("a"), arm("b"), deadline_at=deadline_at)
    result = stage.answer(call, *[Fault.HANG] * 9, attempt_timeout_s=30.0)
    assert isinstance(result, Result)
    assert result.failure is not None
    assert result.failure.kind == "deadline"
    assert kinds(result.attempts)[0] == ("here/a", "deadline")
    assert time.monotonic() - began_s < 3.0


def test_no_wait_reaches_beyond_the_deadline(stage: Stage) -> None:
    """A Retry-After past the deadline goes to the next arm instead."""
    deadline_at = datetime.now(UTC) + timedelta(seconds=2)
    clock = SkippingClock()
    call = call_of(arm("a"), arm("b"), deadline_at=deadline_at)
    result = stage.answer(call, Fault.RATE_LIMITED, clock=clock)
    assert isinstance(result, Result)
    assert (result.arm, clock.waits_s) == ("here/b", [])


def test_a_timeout_is_retried(stage: Stage) -> None:
    """An attempt that hangs ends after its timeout and is made again."""
    result = stage.answer(call_of(arm("a")), Fault.HANG, attempt_timeout_s=0.2)
    assert kinds(result.attempts) == [("here/a", "timeout"), ("here/a", None)]
    assert result.attempts[0].latency_s >= 0.2


def test_many_calls_at_a_time_keep_apart(stage: Stage) -> None:
    """Concurrent calls through one provider each end in their own result."""
    stage.script = itertools.cycle([None, Fault.SERVER_ERROR, None, Fault.REFUSAL])

    async def run() -> list[Result | Forward]:
        assert stage.provider is not None
        return await asyncio.gather(
            *(
                answer_call(
                    call_of(arm("a"), arm("b"), call_id=f"call-{n}"),
                    stage.provider,
                    prompt=prompt,
                    parse=parse,
                    settings=AnswerSettings(),
                    clock=SkippingClock(),
                    rng=np.random.default_rng(n),
                    guard=open_guard(SkippingClock()),
                )
                for n in range(60)
            )
        )

    results = stage.runner.run(run())
    assert [one.call_id for one in results] == [f"call-{n}" for n in range(60)]


OVER_A_MINUTE = {
    "message": "Request too large for gpt-4o in organization o on tokens per min (TPM): Limit "
    "30000, Requested 31538. The input or output tokens must be reduced in order to run.",
    "type": "tokens",
    "code": "rate_limit_exceeded",
}
OVER_THE_OUTPUT = {
    "message": "max_tokens is too large: 100000. This model supports at most 16384 completion "
    "tokens, whereas you provided 100000.",
    "type": "invalid_request_error",
    "param": "max_tokens",
    "code": "invalid_value",
}
OF_CLAUDE = {
    "type": "invalid_request_error",
    "message": "max_tokens: 8192 > 4096, which is the maximum allowed number of output tokens",
}
OF_BEDROCK = "The maximum tokens you requested exceeds the model limit of 4096. Try again with"


@pytest.mark.parametrize(
    ("wire", "status", "said"),
    [
        ("openai", 429, {"error": OVER_A_MINUTE}),
        ("openai", 400, {"error": OVER_THE_OUTPUT}),
        ("anthropic", 400, {"type": "error", "error": OF_CLAUDE}),
        ("bedrock", 400, {"__type": "ValidationException", "message": OF_BEDROCK}),
    ],
)
def test_what_is_too_large_for_one_arm_is_for_the_next(wire: str, status: int, said: Any) -> None:
    """Each is asked once, and neither waits for the other's words nor shuts out later calls."""
    clock = SkippingClock()
    guard = open_guard(clock)

    async def run() -> list[Result | Forward]:
        headers = {"retry-after": "20"}
        async with tapped(wire, said, status=status, headers=headers, name="here") as (_, provider):
            return [
                await answer_call(
                    call_of(arm("a"), arm("b"), call_id=f"call-{n}"),
                    provider,
                    prompt=prompt,
                    parse=parse,
                    settings=AnswerSettings(),
                    clock=clock,
                    rng=np.random.default_rng(n),
                    guard=guard,
                )
                for n in range(12)
            ]

    for result in asyncio.run(run()):
        assert isinstance(result, Result)
        assert kinds(result.attempts) == [("here/a", "unsupported"), ("here/b", "unsupported")]
    assert clock.waits_s == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    ranking=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["here", "here", "elsewhere"])),
        min_size=1,
        max_size=4,
        unique_by=lambda pair: pair[0],
    ),
    faults=st.lists(
        st.none() | st.sampled_from(sorted(FINAL | AGAIN | {Fault.RESET})), max_size=10
    ),
    tries_per_arm=st.integers(1, 3),
    max_tries=st.integers(1, 6),
)
def test_whatever_happens_a_call_ends_once_and_its_books_are_right(
    stage: Stage,
    ranking: list[tuple[str, str]],
    faults: list[Fault | None],
    tries_per_arm: int,
    max_tries: int,
) -> None:
    """For any ranking, faults and budget: order, limits, and spend equal to the vendor's ledger."""
    assert stage.server is not None
    models = [arm(name, provider) for name, provider in ranking]
    before_usd = stage.server.ledger.summary()["spend_usd"]
    ended = stage.answer(
        call_of(*models), *faults, tries_per_arm=tries_per_arm, max_tries=max_tries
    )
    spent_usd = stage.server.ledger.summary()["spend_usd"] - before_usd
    attempts = ended.attempts if isinstance(ended, Result) else ended.call.attempts
    assert len(attempts) == len(stage.seen) <= max_tries
    assert sum(one.cost_usd or 0.0 for one in attempts) == pytest.approx(spent_usd, abs=1e-9)
    asked = [name for name, _ in itertools.groupby(one.arm for one in attempts)]
    assert asked == [model.arm for model in models[: len(asked)]]
    for _, group in itertools.groupby(zip(attempts, faults, strict=False), lambda p: p[0].arm):
        struck = [fault for _, fault in group]
        assert len(struck) <= tries_per_arm
        assert not [fault for fault in struck[:-1] if fault is None or fault in FINAL]
    if isinstance(ended, Forward):
        assert ended.provider == "elsewhere"
        assert ended.call.ranking == tuple(models[len(asked) :])
    else:
        assert Result.parse(ended.encode()) == ended
        assert ended.cost_usd == pytest.approx(spent_usd, abs=1e-9)
        last = attempts[-1].failure
        assert (ended.failure and ended.failure.kind) == (last and last.kind)
