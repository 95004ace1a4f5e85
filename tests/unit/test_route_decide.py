"""Queries become decisions: choice, propensity, candidates, ranking, refusals."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from metallm_stream.arms import Catalogue
from metallm_stream.encode import context_from_bytes
from metallm_stream.errors import ConfigurationError
from metallm_stream.events import Decision, Model, PolicyArm, PolicyManifest, Price, Query
from metallm_stream.policy import Chooser, Published, chooser
from metallm_stream.route import Arrival, Decided, TradeOff, decide, fingerprint

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ENCODER = "letters-2"
ARMS = ("big", "mid", "mini")
QUALITY = {"big": 0.9, "mid": 0.6, "mini": 0.5}
COST = {"big": 0.010, "mid": 0.004, "mini": 0.001}
LATENCY = {"big": 8.0, "mid": 2.0, "mini": 1.0}


def catalogue(arms: Sequence[str] = ARMS, **models: dict[str, Any]) -> Catalogue:
    """Arms at one provider; keyword arguments are further fields of single arms."""
    made = Catalogue()
    for arm in arms:
        fields = {"arm": arm, "provider": "recorded", "model": arm, **models.get(arm, {})}
        made.apply(arm, Model(**fields))
    return made


def policy(
    head: dict[str, Any] | None = None, arms: Sequence[str] = ARMS, **records: dict[str, Any]
) -> Published:
    """A policy of exact expectations: qualities do not depend on the context.

    `head` and keyword arguments are further fields of the manifest and of single arms.
    """
    zero = np.zeros(2, "<f4").tobytes()
    manifest = PolicyManifest(
        policy="ridge-elimination",
        version=7,
        published_at=NOW,
        encoder=ENCODER,
        dimensions=2,
        arms=tuple(arms),
        observations=300.0,
        mean_quality=0.65,
        shared_weights=zero,
        **{"noise_variance": 0.1, "shared_precision": 1.0, "arm_precision": 1.0, **(head or {})},
    )
    known = [
        PolicyArm(
            **{
                "policy": "ridge-elimination",
                "version": 7,
                "arm": arm,
                "observations": 100.0,
                "mean_quality": QUALITY[arm],
                "weights": zero,
                "mean_context": zero,
                "calls": 100.0,
                "cost_usd": COST[arm],
                "latency_s": LATENCY[arm],
                **records.get(arm, {}),
            }
        )
        for arm in arms
    ]
    return Published.from_records(manifest, known)


def decided(
    *queries: Query,
    arms: Catalogue | None = None,
    published: Published | None = None,
    rule: Chooser | None = None,
    seed: int = 1,
    contexts: np.ndarray | None = None,
    defaults: TradeOff | None = None,
    encoder: str = ENCODER,
) -> list[Decided]:
    arrivals = [
        Arrival(query, partition=3, offset=40 + row, recorded_at=NOW - timedelta(seconds=1))
        for row, query in enumerate(queries)
    ]
    return decide(
        arrivals,
        np.zeros((len(queries), 2), np.float32) if contexts is None else contexts,
        catalogue=catalogue() if arms is None else arms,
        published=published,
        chooser=chooser() if rule is None else rule,
        defaults=TradeOff(0.0, 0.0, 10.0) if defaults is None else defaults,
        rng=np.random.default_rng(seed),
        now=NOW,
        encoder=encoder,
    )


def ask(**fields: Any) -> Query:
    return Query(**{"query_id": "q", "text": "Why?", **fields})


def one(**arguments: Any) -> Decision:
    """The decision on one query; `query` gives its fields."""
    return decided(ask(**arguments.pop("query", {})), **arguments)[0].decision


def best(decision: Decision) -> str:
    """The candidate of highest probability."""
    return max(decision.candidates, key=lambda candidate: candidate.probability).arm


def test_an_arm_that_cannot_be_drawn_has_no_probability() -> None:
    """A rule without a floor gives hopeless arms as little as 1e-300, which SQL cannot square."""
    rule = chooser("ridge-elimination", floor=0.0)
    found = {
        candidate.probability
        for noise in np.geomspace(1e-6, 0.1, 60)
        for (one,) in [decided(ask(), published=policy({"noise_variance": noise}), rule=rule)]
        for candidate in one.decision.candidates
    }
    assert 0.0 in found
    assert min(found - {0.0}) >= 2**-53


def test_a_decision_holds_what_is_needed_to_learn_from_it() -> None:
    """Identity, position, times, context, weights and policy version are all in the record."""
    context = np.array([[0.6, 0.8]], np.float32)
    query = ask(task="why", labels=("a", "b"), metadata={"tier": "gold"}, cost_weight=0.25)
    (item,) = decided(query, published=policy(), contexts=context)
    decision = item.decision
    assert (decision.query_id, decision.fingerprint) == ("q", fingerprint(query))
    assert (decision.query_partition, decision.query_offset) == (3, 40)
    assert (decision.asked_at, decision.decided_at) == (NOW - timedelta(seconds=1), NOW)
    assert (decision.task, decision.labels) == ("why", ("a", "b"))
    assert decision.metadata == {"tier": "gold"}
    assert (decision.encoder, decision.policy, decision.policy_version) == (
        ENCODER,
        "ridge-elimination",
        7,
    )
    assert context_from_bytes(decision.context, 2).tolist() == context[0].tolist()
    assert (decision.cost_weight, decision.latency_weight) == (0.25, 0.0)
    assert decision.cost_scale_usd == pytest.approx(COST["big"])
    assert Decision.parse(decision.encode()) == decision


def test_the_cost_scale_is_1_while_no_cost_is_known() -> None:
    """Without a policy, and with one that knows no cost; then nothing is divided by 0."""
    free = {arm: {"cost_usd": None} for arm in ARMS}
    assert one().cost_scale_usd == one(published=policy(**free)).cost_scale_usd == 1.0


def test_the_querys_own_time_counts_as_asked() -> None:
    """`asked_at` of the query takes the place of the record's time."""
    earlier = NOW - timedelta(days=2)
    assert one(query={"asked_at": earlier}).asked_at == earlier


def test_without_a_policy_every_allowed_arm_is_explored_evenly() -> None:
    """Version 0, even probabilities, and no expectation is made up."""
    decision = one()
    assert decision.policy_version == 0
    assert [item.arm for item in decision.candidates] == list(ARMS)
    for item in decision.candidates:
        assert item.probability == pytest.approx(1 / 3)
        assert (item.quality, item.cost_usd, item.latency_s, item.utility) == (None,) * 4
    drawn = {item.decision.arm for item in decided(*[ask()] * 60)}
    assert drawn == set(ARMS)


def test_an_arm_that_is_never_judged_is_chosen_the_less_the_more_calls_it_had() -> None:
    """However good it may be: labels of the other arms have come, and its own have not."""
    shares = []
    for calls in (10.0, 1_000.0, 100_000.0):
        mute = {"observations": 0.0, "calls": calls, "mean_quality": 0.95}
        candidates = one(published=policy(mini=mute)).candidates
        shares.append({each.arm: each.probability for each in candidates}["mini"])
    assert shares[0] > 0.4
    assert shares[1] < 0.2
    assert 0.0 < shares[2] < shares[1]


def test_candidates_explain_the_choice() -> None:
    """Quality, cost, latency and utility of each arm, in the catalogue's order."""
    decision = one(published=policy(), query={"cost_weight": 0.5, "latency_weight": 0.1})
    for item in decision.candidates:
        assert item.quality == pytest.approx(QUALITY[item.arm])
        assert item.cost_usd == pytest.approx(COST[item.arm])
        assert item.latency_s == pytest.approx(LATENCY[item.arm])
        assert item.utility == pytest.approx(
            QUALITY[item.arm] - 0.5 * COST[item.arm] / COST["big"] - 0.1 * LATENCY[item.arm] / 10
        )


def test_the_context_matters() -> None:
    """Each query is scored on its own context."""
    toward = np.array([1.0, 0.0], "<f4")
    published = policy(mini={"weights": toward.tobytes()})
    contexts = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    here, there = decided(ask(), ask(), published=published, contexts=contexts)
    assert best(here.decision) == "mini"
    assert best(there.decision) == "big"
    assert here.decision.candidates[2].quality == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("fields", "arm"),
    [
        ({}, "big"),
        ({"cost_weight": 0.5}, "mini"),
        ({"latency_weight": 0.6}, "mid"),
        ({"cost_weight": 0.0, "latency_weight": 0.0}, "big"),
    ],
)
def test_every_query_carries_its_own_trade_off(fields: dict[str, Any], arm: str) -> None:
    """One learned policy serves every trade-off."""
    assert best(one(published=policy(), query=fields)) == arm


def test_defaults_hold_where_a_query_says_nothing() -> None:
    """The settings' trade-off is recorded with the decision."""
    decision = one(published=policy(), defaults=TradeOff(0.5, 0.0, 10.0))
    assert (best(decision), decision.cost_weight) == ("mini", 0.5)


def test_the_ranking_starts_with_the_choice_and_goes_on_by_utility() -> None:
    """All allowed arms are there once, best fallback first."""
    for seed in range(30):
        (item,) = decided(
            ask(cost_weight=0.5), published=policy(), rule=chooser("uniform"), seed=seed
        )
        ranked = [model.arm for model in item.ranking]
        assert ranked[0] == item.decision.arm
        rest = [arm for arm in ("mini", "big", "mid") if arm != item.decision.arm]
        assert ranked[1:] == rest


def test_exploration_is_what_other_arms_than_the_likeliest_had() -> None:
    """Of three arms alike two thirds; of a single one, and of a refusal, nothing."""
    queries = (ask(), ask(models=("mini",)), ask(models=("gone",)))
    assert [choice.exploration for choice in decided(*queries)] == pytest.approx([2 / 3, 0, 0])
    sure = decided(ask(), published=policy(), rule=chooser("fixed:big"))
    assert sure[0].exploration == pytest.approx(0)
    assert decided(ask(), arms=Catalogue())[0].exploration == 0


def test_only_named_models_are_used() -> None:
    """`models` limits candidates and ranking; unknown names beside known ones are passed over."""
    (item,) = decided(ask(models=("mid", "gone", "mini")), published=policy())
    assert [candidate.arm for candidate in item.decision.candidates] == ["mid", "mini"]
    assert {model.arm for model in item.ranking} == {"mid", "mini"}
    assert sum(c.probability for c in item.decision.candidates) == pytest.approx(1.0)


def test_unknown_models_alone_are_refused_by_name() -> None:
    """The refusal names the field, what was asked for, and what there is."""
    (item,) = decided(ask(models=("gone", "lost")))
    assert (item.ranking, item.decision.arm, item.decision.propensity) == ((), None, None)
    assert item.decision.candidates == ()
    assert item.decision.refusal is not None
    assert item.decision.refusal.kind == "no_arm"
    assert item.decision.refusal.message == (
        "models: the catalogue has none of 'gone', 'lost'; name some of 'big', 'mid', 'mini',"
        " or leave `models` out"
    )


def test_an_empty_catalogue_refuses_everything() -> None:
    """The way out is to add an arm."""
    items = decided(ask(), ask(models=("mini",)), arms=catalogue(()))
    for item in items:
        assert item.decision.refusal is not None
        assert "catalogue of arms is empty" in item.decision.refusal.message


def test_refusals_do_not_disturb_the_rest_of_the_batch() -> None:
    """The others are decided as they would be without the refused query."""
    fine = [ask(query_id=str(number)) for number in range(5)]
    mixed = decided(*fine[:2], ask(models=("gone",)), *fine[2:], published=policy())
    alone = decided(*fine, published=policy())
    answered = [item.decision.arm for item in mixed if item.decision.arm is not None]
    assert answered == [item.decision.arm for item in alone]
    assert [item.decision.query_offset for item in mixed] == [40, 41, 42, 43, 44, 45]


def test_an_arm_above_max_cost_is_excluded() -> None:
    """`max_cost_usd` is compared with the expected cost; equal is allowed."""
    decision = one(published=policy(), query={"max_cost_usd": COST["mid"]})
    assert [item.arm for item in decision.candidates] == ["mid", "mini"]


def test_max_cost_below_every_arm_is_refused_with_the_cheapest() -> None:
    """The refusal names the limit, the arms and what the cheapest costs."""
    decision = one(published=policy(), query={"max_cost_usd": 0.0001})
    assert decision.refusal is not None
    assert decision.refusal.message == (
        "max_cost_usd: 0.0001 is below the expected cost of 'big', 'mid', 'mini' (cheapest:"
        " 'mini' at 0.001 USD); raise it or leave it out"
    )


def test_an_arm_of_unknown_cost_is_not_excluded_by_cost() -> None:
    """What was never observed cannot be held against an arm, and is not reported either."""
    published = policy(None, ("mid", "mini"))
    decision = one(published=published, query={"max_cost_usd": 0.0001})
    assert [item.arm for item in decision.candidates] == ["big"]
    assert decision.candidates[0].cost_usd is None
    assert decision.candidates[0].latency_s is None


def test_a_price_makes_the_cost_of_a_new_arm_known() -> None:
    """With a price, a never-called arm costs what the others' tokens would cost there."""
    dear = Price(input_usd_per_mtok=100.0, output_usd_per_mtok=100.0)
    published = policy(None, ("mid", "mini"), mini={"input_tokens": 600.0, "output_tokens": 400.0})
    arms = catalogue(big={"price": dear})
    assert best(one(published=published, arms=arms, query={"cost_weight": 5.0})) == "mini"
    limited = one(published=published, arms=arms, query={"max_cost_usd": 0.05})
    assert [item.arm for item in limited.candidates] == ["mid", "mini"]


def test_without_a_policy_cost_limits_exclude_nothing() -> None:
    """No cost is known yet."""
    assert len(one(query={"max_cost_usd": 1e-9}).candidates) == 3


def test_arms_below_min_quality_are_excluded() -> None:
    """Predicted quality, less its standard deviation, must reach `min_quality`."""
    decision = one(published=policy(), query={"min_quality": 0.55})
    assert [item.arm for item in decision.candidates] == ["big", "mid"]
    less = (0.1 / 101) ** 0.5
    for wanted, arms in ((0.6 - less - 1e-6, ["big", "mid"]), (0.6 - less + 1e-6, ["big"])):
        decision = one(published=policy(), query={"min_quality": wanted})
        assert [item.arm for item in decision.candidates] == arms


def test_min_quality_trusts_an_arm_less_far_from_what_it_was_judged_on() -> None:
    """The leverage of the query's context counts, and is logged with each candidate."""
    axes = {"covariance_root": np.full((1, 1), 0.4, "<f4").tobytes()}
    published = policy(
        {"projection": np.array([[1.0], [0.0]], "<f4").tobytes(), "mean_strength": 1.0},
        **dict.fromkeys(ARMS, axes),
    )
    contexts = np.array([[0.0, 9.0], [1.0, 9.0]], np.float32)
    near, far = decided(*[ask(min_quality=0.55)] * 2, published=published, contexts=contexts)
    assert [item.arm for item in near.decision.candidates] == ["big", "mid"]
    assert [item.arm for item in far.decision.candidates] == ["big"]
    assert near.decision.candidates[0].leverage == pytest.approx(0.0)
    assert far.decision.candidates[0].leverage == pytest.approx(0.16)


def test_failures_are_worth_nothing() -> None:
    """Utility counts the quality of the calls that succeed, as if ten more had gone well."""
    published = policy(big={"failure_rate": 0.55}, mid={"failure_rate": 1.0, "calls": 1.0})
    big, mid, mini = one(published=published).candidates
    assert big.quality == pytest.approx(0.9)
    assert big.utility == pytest.approx(0.9 * (1 - 0.55 * 100 / 110))
    assert mid.utility == pytest.approx(0.6 * (1 - 1 / 11))
    assert mini.utility == pytest.approx(0.5)


def test_an_arm_of_unknown_cost_is_weighed_as_the_cheapest() -> None:
    """So that it is tried once, and known."""
    big, mid, mini = one(
        published=policy(None, ("mid", "mini")), query={"cost_weight": 1.0, "latency_weight": 1.0}
    ).candidates
    assert big.utility == pytest.approx(0.65 - COST["mini"] / COST["mid"] - 0.1)
    assert mid.utility == pytest.approx(0.6 - 1.0 - 0.2)
    assert mini.utility == pytest.approx(0.5 - COST["mini"] / COST["mid"] - 0.1)


def test_where_no_arm_reaches_min_quality_the_best_predicted_ones_stay() -> None:
    """A query is better answered than refused, within its other constraints."""
    assert [c.arm for c in one(published=policy(), query={"min_quality": 1.0}).candidates] == [
        "big"
    ]
    limited = one(published=policy(), query={"min_quality": 1.0, "max_cost_usd": 0.005})
    assert [c.arm for c in limited.candidates] == ["mid"]


def test_without_a_policy_min_quality_excludes_nothing() -> None:
    """No quality is predicted yet."""
    assert len(one(query={"min_quality": 1.0}).candidates) == 3


def test_one_querys_min_quality_does_not_touch_another() -> None:
    """Constraints are per query."""
    strict, free = decided(ask(min_quality=1.0), ask(), published=policy())
    assert len(strict.decision.candidates) == 1
    assert len(free.decision.candidates) == 3


def test_prompts_that_do_not_fit_exclude_the_arm() -> None:
    """System, earlier turns, labels and text count, three characters a token."""
    arms = catalogue(mini={"context_window_tokens": 10}, mid={"context_window_tokens": 11})
    fields = {
        "system": "s" * 10,
        "text": "t" * 10,
        "messages": ({"role": "user", "content": "m" * 10},),
    }
    exact, longer, longest = decided(
        ask(**fields), ask(**fields, labels=("l",)), ask(**fields, labels=("l" * 4,)), arms=arms
    )
    assert [c.arm for c in exact.decision.candidates] == ["big", "mid", "mini"]
    assert [c.arm for c in longer.decision.candidates] == ["big", "mid"]
    assert [c.arm for c in longest.decision.candidates] == ["big"]


def test_a_prompt_that_fits_no_arm_is_refused() -> None:
    """The refusal names the estimated length and the largest window."""
    arms = catalogue(
        ("mid", "mini"), mid={"context_window_tokens": 8}, mini={"context_window_tokens": 4}
    )
    decision = one(arms=arms, query={"text": "t" * 100})
    assert decision.refusal is not None
    assert decision.refusal.message == (
        "text: the prompt of about 34 tokens exceeds the context window of 'mid', 'mini'"
        " (at most 8 tokens); shorten it or allow an arm with a larger window"
    )


def test_a_refusal_names_every_reason() -> None:
    """Of the named arms one is too small and the other too dear."""
    arms = catalogue(mini={"context_window_tokens": 4})
    query = {"text": "t" * 100, "models": ("mid", "mini"), "max_cost_usd": 0.002}
    decision = one(arms=arms, published=policy(), query=query)
    assert decision.refusal is not None
    message = decision.refusal.message
    assert message.startswith("text: the prompt of about 34 tokens")
    assert "; and max_cost_usd: 0.002 is below the expected cost of 'mid' (cheapest" in message


def test_a_refusal_stays_short_however_many_arms_there_are() -> None:
    """Long lists are cut and counted."""
    arms = catalogue([f"{number:03}" + "x" * 100 for number in range(300)])
    asked = tuple(f"gone{number}" + "y" * 100 for number in range(300))
    decision = one(arms=arms, query={"models": asked})
    assert decision.refusal is not None
    assert len(decision.refusal.message) <= 2_000
    assert "and 295 more; name some of" in decision.refusal.message


def test_another_encoders_policy_is_refused() -> None:
    """Weights mean nothing on another encoder's contexts; the error names both."""
    with pytest.raises(ConfigurationError, match=r"'letters-2' \(2 dimensions\).*'digits-2' \(2\)"):
        decided(ask(), published=policy(), encoder="digits-2")
    with pytest.raises(ConfigurationError, match="3"):
        decided(ask(), published=policy(), contexts=np.zeros((1, 3), np.float32))


def test_each_query_needs_its_context() -> None:
    """A mix-up of rows fails at once."""
    with pytest.raises(ValueError, match="expected 2 contexts"):
        decided(ask(), ask(), contexts=np.zeros((1, 2), np.float32))


def test_an_empty_batch_decides_nothing() -> None:
    """No queries, no decisions, no error."""
    assert decided() == []
    assert decided(published=policy(), arms=catalogue(())) == []


def test_a_fixed_policy_needs_no_learned_one() -> None:
    """The rule of choice works before anything is learned."""
    decision = one(rule=chooser("fixed:mid"))
    assert (decision.arm, decision.propensity, decision.policy) == ("mid", 1.0, "fixed:mid")


def test_draws_follow_the_probabilities() -> None:
    """Over many queries each arm is chosen as often as its probability says."""
    items = decided(*[ask()] * 4_000, published=policy(big={"observations": 1.0}))
    expected = {c.arm: c.probability for c in items[0].decision.candidates}
    for arm, probability in expected.items():
        share = sum(item.decision.arm == arm for item in items) / len(items)
        assert share == pytest.approx(probability, abs=0.03)


def test_no_arm_counts_as_worse_than_one_that_brings_nothing() -> None:
    """Predictions below 0 are logged as they are, and weighed as 0."""
    known = policy(mid={"mean_quality": 0.0}, mini={"mean_quality": -0.6})
    [found] = decided(ask(models=["mid", "mini"]), published=known)
    assert [item.quality for item in found.decision.candidates] == pytest.approx([0.0, -0.6])
    assert [item.utility for item in found.decision.candidates] == pytest.approx([0.0, 0.0])
