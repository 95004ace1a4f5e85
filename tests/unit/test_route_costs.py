"""Where a prompt's length tells what it costs, that counts in decisions, limits and reserves."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

from metallm_stream.arms import Catalogue
from metallm_stream.events import Decision, Model, Query
from metallm_stream.policy import Published, Sums, chooser, fit, to_records, usage_of_call
from metallm_stream.route import Arrival, Budget, Pacer, TradeOff, decide

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
USD_PER_CHARACTER = {"big": 1e-5, "mini": 1e-6}


def learned() -> Published:
    """Two arms whose cost is proportional to the prompt; `big` is better and costs tenfold."""
    rng, sums = np.random.default_rng(1), Sums(2)
    for arm, quality in (("big", 0.9), ("mini", 0.7)):
        sums.add_quality(arm, rng.normal(size=(400, 2)), np.full(400, quality), np.ones(400))
        for characters in rng.lognormal(7.0, 0.8, 400).round().tolist():
            cost = USD_PER_CHARACTER[arm] * characters
            sums.add_usage(arm, usage_of_call(cost_usd=cost, prompt_characters=int(characters)))
    head, records = to_records(
        fit(sums, sums.arms), sums, policy="p", version=1, published_at=NOW, encoder="e"
    )
    return Published.from_records(head, records)


def decided(characters: int, pacer: Pacer | None = None, **fields: Any) -> Decision:
    """One decision on a prompt of so many characters."""
    arms = Catalogue()
    for arm in USD_PER_CHARACTER:
        arms.apply(arm, Model(arm=arm, provider="recorded", model=arm))
    query = Query(query_id="q", text="x" * characters, **fields)
    [found] = decide(
        [Arrival(query, 0, 0, NOW)],
        np.zeros((1, 2), np.float32),
        catalogue=arms,
        published=learned(),
        chooser=chooser(),
        defaults=TradeOff(0.0, 0.0, 10.0),
        rng=np.random.default_rng(1),
        now=NOW,
        encoder="e",
        pacer=pacer,
    )
    return found.decision


def probability(decision: Decision, arm: str) -> float:
    """Of one of the candidates."""
    return {item.arm: item.probability for item in decision.candidates}[arm]


def test_a_decision_says_how_long_its_prompt_was_and_what_it_would_cost() -> None:
    """Expected costs follow the prompt: they are those of its length, not of the mean's."""
    for characters in (300, 9_000):
        decision = decided(characters)
        assert decision.prompt_characters == characters
        for item in decision.candidates:
            assert item.cost_usd is not None
            assert abs(item.cost_usd / (USD_PER_CHARACTER[item.arm] * characters) - 1) < 0.25


def test_the_dear_arm_answers_the_short_prompts() -> None:
    """Where quality is worth a mean prompt's cost by a little, a long one is not worth it."""
    weight = 0.2
    assert probability(decided(100, cost_weight=weight), "big") > 0.9
    assert probability(decided(20_000, cost_weight=weight), "mini") > 0.9


def test_a_limit_per_query_is_held_against_the_prompt_it_is_for() -> None:
    """What a short prompt may cost excludes the dear arm for a long one, and says at what cost."""
    short, long = (decided(n, max_cost_usd=0.01) for n in (300, 6_000))
    assert [item.arm for item in short.candidates] == ["big", "mini"]
    assert [item.arm for item in long.candidates] == ["mini"]
    refused = decided(60_000, max_cost_usd=0.01)
    assert refused.refusal is not None
    assert "max_cost_usd: 0.01" in refused.refusal.message
    assert "'mini' at 0.0" in refused.refusal.message


def test_budgets_reserve_what_this_prompt_is_expected_to_cost() -> None:
    """A long prompt takes more of what is left than a short one."""
    budget = [Budget("all", amount_usd=1.0, per="hour")]
    short, long = (decided(n, Pacer(budget), models=["big"]) for n in (300, 9_000))
    assert short.reserved_usd is not None
    assert long.reserved_usd is not None
    assert long.reserved_usd > 10 * short.reserved_usd
