"""The cap on spending where nobody tells what a try has cost."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from metallm_stream.embedded.recorded_llm import Fault
from metallm_stream.events import Call, Generation, Price, Query, Result
from metallm_stream.judge.dispatch import parse, prompt
from metallm_stream.providers import (
    AnswerSettings,
    Circuits,
    Guard,
    Shares,
    Spending,
    answer_call,
)
from tests.tap import tapped
from tests.vendor_stage import NAMES, FrozenClock, Stage, arm, call_of, kinds

PRICE = Price(input_usd_per_mtok=1_000, output_usd_per_mtok=10_000)
PRICED = arm("a").model_copy(update={"price": PRICE})
REPLY = {"choices": [{"message": {"content": "four"}, "finish_reason": "stop"}]}
SHORT = "What is 2 + 2?"
TEXT = "zweimal zwei, für ein Übungsblatt"


def account(clock: FrozenClock, cap_usd: float) -> tuple[Spending, Guard]:
    spending = Spending("here", "0", cap_usd, "day", clock)
    return spending, Guard(Circuits("here", "0", 2.0, clock), Shares(), 64, clock, spending)


def asked(reply: Any, cap_usd: float, calls: int) -> tuple[list[Result], float]:
    """What so many calls came to at a host with this reply, and what they count."""
    clock = FrozenClock()
    spending, guard = account(clock, cap_usd)

    async def run() -> list[Any]:
        async with tapped("openai", reply, name="here") as (_, provider):
            return [
                await answer_call(
                    call_of(PRICED, query=Query(query_id=f"q-{n}", text=TEXT)),
                    provider,
                    prompt=prompt,
                    parse=parse,
                    settings=AnswerSettings(),
                    clock=clock,
                    rng=np.random.default_rng(0),
                    guard=guard,
                )
                for n in range(calls)
            ]

    return asyncio.run(run()), spending.tell().spent_usd


def test_a_host_that_tells_no_usage_is_capped_by_the_sizes() -> None:
    """Each byte counts as a token towards cap and budgets; the result's own cost stays unknown."""
    each_usd = (len(TEXT.encode()) * 1_000 + len("four") * 10_000) / 1e6
    results, spent_usd = asked(REPLY, cap_usd=2.5 * each_usd, calls=5)
    assert [one.failure and one.failure.kind for one in results] == [None] * 3 + ["spend_cap"] * 2
    assert spent_usd == pytest.approx(3 * each_usd)
    tries = [(try_.cost_usd, try_.at_most_usd) for one in results for try_ in one.attempts]
    assert tries == [(None, pytest.approx(each_usd))] * 3
    assert [one.cost_usd for one in results] == [0.0] * 5


def test_tokens_that_are_told_count_as_such() -> None:
    """Half a usage is better than the size."""
    _, spent_usd = asked(REPLY | {"usage": {"prompt_tokens": 7}}, cap_usd=1e6, calls=1)
    assert spent_usd == pytest.approx((7 * 1_000 + len("four") * 10_000) / 1e6)


def test_without_a_price_the_mean_of_what_was_told_counts(stage: Stage) -> None:
    """Nothing, while nothing was told."""
    clock = FrozenClock()
    spending, guard = account(clock, 1e6)
    for _ in range(2):
        call, told_usd = call_of(arm("b")), spending.tell().spent_usd
        stage.answer(call, Fault.HANG, clock=clock, guard=guard, attempt_timeout_s=0.1)
        hung_usd = spending.tell().spent_usd - told_usd - 0.02
        assert hung_usd == pytest.approx(told_usd)


def longest(model_limit: int | None = None) -> Call:
    """A call whose answer may have 100 tokens."""
    query = Query(query_id="q-1", text=SHORT, generation=Generation(max_output_tokens=100))
    model = PRICED.model_copy(update={"max_output_tokens": model_limit})
    return call_of(model, query=query)


@pytest.mark.parametrize(("model_limit", "tokens"), [(None, 100), (40, 40)])
def test_a_timeout_counts_as_the_longest_answer(
    stage: Stage, model_limit: int | None, tokens: int
) -> None:
    """While no answer of the arm has been paid."""
    clock = FrozenClock()
    spending, guard = account(clock, 1e6)
    result = stage.answer(
        longest(model_limit),
        *[Fault.HANG] * 2,
        clock=clock,
        guard=guard,
        attempt_timeout_s=0.1,
        tries_per_arm=2,
    )
    assert [kind for _, kind in kinds(result.attempts)] == ["timeout"] * 2
    each_usd = (len(SHORT) * 1_000 + tokens * 10_000) / 1e6
    assert spending.tell().spent_usd == pytest.approx(2 * each_usd)
    assert [one.at_most_usd for one in result.attempts] == [pytest.approx(each_usd)] * 2


def test_a_timeout_counts_as_a_paid_answer_of_the_arm(stage: Stage) -> None:
    """Once there is one; a refused try counts nothing."""
    clock = FrozenClock()
    spending, guard = account(clock, 1e6)
    stage.answer(call_of(PRICED), clock=clock, guard=guard)
    answer_usd = spending.tell().spent_usd
    assert answer_usd > 0
    faults = [Fault.HANG, Fault.RATE_LIMITED, Fault.SERVER_ERROR]
    result = stage.answer(longest(), *faults, clock=clock, guard=guard, attempt_timeout_s=0.1)
    assert [one.at_most_usd is None for one in result.attempts] == [False, True, True]
    assert spending.tell().spent_usd == pytest.approx(2 * answer_usd)


def test_a_hedged_try_that_is_broken_off_counts_too(stage: Stage) -> None:
    """As much as an answer."""
    clock = FrozenClock()
    spending, guard = account(clock, 1e6)
    ranking = [arm(name).model_copy(update={"price": PRICE}) for name in NAMES[:2]]
    result = stage.answer(
        call_of(*ranking),
        scripts={"a": [Fault.HANG]},
        clock=clock,
        guard=guard,
        hedge_after_s=0.05,
    )
    assert kinds(result.attempts) == [("here/b", None), ("here/a", "superseded")]
    told_usd = sum(one.cost_usd or 0.0 for one in result.attempts)
    assert [one.at_most_usd for one in result.attempts] == [None, len(SHORT) / 1e3]
    assert spending.tell().spent_usd == pytest.approx(told_usd + len(SHORT) / 1e3)
