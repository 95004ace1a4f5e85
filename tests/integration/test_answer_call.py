"""From a call to its one result: the real loop and SDK against a vendor with set faults."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metallm_stream.embedded.recorded_llm import ChatRequest, Fault, Outcome, RecordedLLM, Recording
from metallm_stream.events import Attempt, Call, Failure, Generation, Model, Query, Result
from metallm_stream.judge.dispatch import parse, prompt
from metallm_stream.providers import (
    AnswerSettings,
    Forward,
    Provider,
    ProviderSettings,
    SystemClock,
    answer_call,
    idempotency_key,
    open_provider,
)

TEXT = "What is 2 + 2?"
NAMES = ("a", "b", "c", "d")
COST_USD = {"a": 0.001, "b": 0.02, "c": 0.3, "d": 0.0004}
LONG = "long"
NUL = "nul"
FINAL = {Fault.UNAUTHORIZED, Fault.CONTEXT_TOO_LONG, Fault.REFUSAL, Fault.OUT_OF_QUOTA}
AGAIN = {
    Fault.SERVER_ERROR,
    Fault.RATE_LIMITED,
    Fault.ERROR_IN_200,
    Fault.EMPTY_CHOICES,
    Fault.RESET,
}


class SkippingClock:
    """The machine's clock, but waiting costs no time: it is skipped and noted."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    def now(self) -> datetime:
        """Real time and what was skipped."""
        return datetime.now(UTC) + timedelta(seconds=sum(self.waits_s))

    def monotonic(self) -> float:
        """Real time and what was skipped."""
        return time.monotonic() + sum(self.waits_s)

    async def sleep(self, seconds: float) -> None:
        """Skip the wait."""
        self.waits_s.append(seconds)


@dataclass
class Stage:
    """A vendor with a script of faults, a provider that talks to it, and the loop they run on."""

    runner: asyncio.Runner
    server: RecordedLLM | None = None
    provider: Provider | None = None
    script: Iterator[Fault | None] = field(default_factory=lambda: itertools.repeat(None))
    seen: list[ChatRequest] = field(default_factory=list)

    def strike(self, request: ChatRequest) -> Fault | None:
        """Note the request and take the next fault of the script."""
        self.seen.append(request)
        return next(self.script)

    def answer(
        self, call: Call, *faults: Fault | None, clock: Any = None, **changed: Any
    ) -> Result | Forward:
        """Run `answer_call` with these faults first and answers afterwards."""
        assert self.provider is not None
        self.seen.clear()
        self.script = itertools.chain(faults, itertools.repeat(None))
        return self.runner.run(
            answer_call(
                call,
                self.provider,
                prompt=prompt,
                parse=parse,
                settings=AnswerSettings(**changed),
                clock=clock if clock is not None else SkippingClock(),
                rng=np.random.default_rng(5),
            )
        )


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """One vendor and one provider for all scenes of this file."""
    outcomes = {
        name: Outcome(answer="4", cost_usd=cost, input_tokens=10, output_tokens=2)
        for name, cost in COST_USD.items()
    }
    outcomes[LONG] = Outcome(answer="\u0001" * 1_000, cost_usd=0.5)
    outcomes[NUL] = Outcome(answer="fo\x00ur", cost_usd=0.5)
    with asyncio.Runner() as runner:
        stage = Stage(runner)
        server = RecordedLLM(Recording({TEXT: outcomes}), faults=stage.strike, retry_after_s=2.5)
        stage.server = runner.run(server.__aenter__())
        stage.provider = open_provider(
            ProviderSettings(name="here", base_url=server.base_url, api_key="key")
        )
        yield stage
        runner.run(stage.provider.close())
        runner.run(server.__aexit__(None, None, None))


def arm(name: str, provider: str = "here") -> Model:
    return Model(arm=f"{provider}/{name}", provider=provider, model=name)


def call_of(*ranking: Model, **changed: Any) -> Call:
    return Call.model_validate(
        {
            "call_id": "call-1",
            "query": Query(query_id="q-1", text=TEXT, generation=Generation(temperature=0)),
            "ranking": ranking,
            "decided_at": datetime.now(UTC),
        }
        | changed
    )


def kinds(attempts: Sequence[Attempt]) -> list[tuple[str, str | None]]:
    return [(one.arm, one.failure.kind if one.failure else None) for one in attempts]


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
                )
                for n in range(60)
            )
        )

    results = stage.runner.run(run())
    assert [one.call_id for one in results] == [f"call-{n}" for n in range(60)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    ranking=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(["here", "here", "elsewhere"])),
        min_size=1,
        max_size=4,
        unique_by=lambda pair: pair[0],
    ),
    faults=st.lists(st.none() | st.sampled_from(sorted(FINAL | AGAIN)), max_size=10),
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
