"""How many tries of a call begin, whatever is under way at the same time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from metallm_stream.events import Call, Model, Query, Result
from metallm_stream.judge.dispatch import parse, prompt
from metallm_stream.providers import (
    Answer,
    AnswerSettings,
    Provider,
    ProviderFailure,
    SystemClock,
    answer_call,
)
from tests.unit.test_circuit import WELL
from tests.vendor_stage import open_guard

ARMS = tuple(Model(arm=name, provider="here", model=name) for name in ("a", "b", "c"))

SOON_S = 0.01


@dataclass
class Patient:
    """A provider in memory that answers when as many requests have come as the test waits for."""

    enough: int
    name: str = "here"
    asked: list[str] = field(default_factory=list)

    async def complete(self, model: Model, *_: object, **__: object) -> Answer:
        """The answer of the request that came last."""
        self.asked.append(model.model)
        if len(self.asked) < self.enough:
            await asyncio.sleep(10 * SOON_S)
        return WELL

    async def close(self) -> None:
        """Nothing is open."""


class Strict(Patient):
    """One that calls requests malformed until that many have come."""

    async def complete(self, model: Model, *_: object, **__: object) -> Answer:
        """The answer of the request that came last."""
        self.asked.append(model.model)
        if len(self.asked) < self.enough:
            raise ProviderFailure("bad_request", "Error code: 400", retriable=False)
        return WELL


def answered(provider: Provider, **settings: float) -> Result:
    call = Call(
        call_id="c",
        query=Query(query_id="q", text="2+2?"),
        ranking=ARMS,
        decided_at=datetime(2026, 3, 1, tzinfo=UTC),
    )
    result = asyncio.run(
        answer_call(
            call,
            provider,
            prompt=prompt,
            parse=parse,
            settings=AnswerSettings(**settings),  # type: ignore[arg-type]
            clock=SystemClock(),
            rng=np.random.default_rng(0),
            guard=open_guard(SystemClock()),
        )
    )
    assert isinstance(result, Result)
    return result


def test_a_hedge_is_a_try() -> None:
    """No second arm is asked where one try is allowed; the one under way is waited for."""
    provider = Patient(enough=2)
    result = answered(provider, hedge_after_s=SOON_S, max_tries=1)
    assert (provider.asked, result.arm) == (["a"], "a")


def test_the_last_two_tries_may_run_side_by_side() -> None:
    """The budget is used up by then, and the first answer still counts."""
    provider = Patient(enough=2)
    result = answered(provider, hedge_after_s=SOON_S, max_tries=2)
    assert (provider.asked, result.arm) == (["a", "b"], "b")


def test_the_last_arm_is_asked_what_all_others_call_malformed() -> None:
    """Who fails where nobody answers is not blamed, so only an answer tells arms set up wrongly."""
    provider = Strict(enough=3)
    result = answered(provider)
    assert (provider.asked, result.arm) == (["a", "b", "c"], "c")
