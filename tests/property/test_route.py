"""Whatever queries ask for, decisions keep their promises."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.arms import Catalogue
from metallm_stream.events import Decision, Model, Query
from metallm_stream.policy import Published, Sums, chooser, fit, to_records, usage_of_call
from metallm_stream.route import Arrival, Decided, RecentIds, TradeOff, decide

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = tuple("abcde")
D = 3

QUERIES = st.fixed_dictionaries(
    {"query_id": st.just("q"), "text": st.sampled_from(["t", "t" * 90, "t" * 900])},
    optional={
        "cost_weight": st.floats(0, 1e6),
        "latency_weight": st.floats(0, 1e6),
        "max_cost_usd": st.floats(1e-6, 1.0),
        "min_quality": st.floats(0, 1),
        "models": st.lists(st.sampled_from((*NAMES, "gone")), min_size=1).map(tuple),
    },
).map(lambda fields: Query(**fields))
BATCHES = st.lists(QUERIES, max_size=8)
ARMS = st.dictionaries(
    st.sampled_from(NAMES), st.sampled_from([None, 20, 200]), max_size=len(NAMES)
)
RULES = st.sampled_from(["ridge-igw", "uniform"])
SEEDS = st.integers(0, 2**32 - 1)


def catalogue(windows: dict[str, int | None]) -> Catalogue:
    made = Catalogue()
    for arm, window in windows.items():
        made.apply(arm, Model(arm=arm, provider="p", model=arm, context_window_tokens=window))
    return made


def policy(seed: int) -> Published | None:
    """A policy learned from a few random events of some of the arms, or none."""
    rng = np.random.default_rng(seed)
    arms = [arm for arm in NAMES if rng.random() < 0.6]
    if not arms:
        return None
    sums = Sums(D)
    for arm in arms:
        n = int(rng.integers(0, 30))
        sums.add_quality(arm, rng.normal(size=(n, D)), rng.random(n), np.ones(n))
        cost = float(rng.random() * 0.1) if rng.random() < 0.7 else None
        sums.add_usage(arm, usage_of_call(cost_usd=cost, latency_s=float(rng.random() * 9)))
    records = to_records(
        fit(sums, arms), sums, policy="ridge-igw", version=1, published_at=NOW, encoder="e"
    )
    return Published.from_records(*records)


def decisions(
    queries: list[Query], windows: dict[str, int | None] | Catalogue, rule: str, seed: int
) -> list[Decided]:
    contexts = np.random.default_rng(seed).normal(size=(len(queries), D)).astype(np.float32)
    arguments: dict[str, Any] = {
        "catalogue": windows if isinstance(windows, Catalogue) else catalogue(windows),
        "published": policy(seed),
        "chooser": chooser(rule),
        "defaults": TradeOff(0.1, 0.1, 5.0),
        "rng": np.random.default_rng(seed),
        "now": NOW,
        "encoder": "e",
    }
    arrivals = [Arrival(query, 0, row, NOW) for row, query in enumerate(queries)]
    return decide(arrivals, contexts, **arguments)


@given(queries=BATCHES, windows=ARMS, rule=RULES, seed=SEEDS)
def test_propensities_are_those_of_the_candidates(
    queries: list[Query], windows: dict[str, int | None], rule: str, seed: int
) -> None:
    """The chosen arm is a candidate with its propensity; probabilities sum to 1 and none is 0."""
    for item in decisions(queries, windows, rule, seed):
        decision = item.decision
        if decision.refusal is not None:
            assert decision.candidates == ()
            continue
        probabilities = {c.arm: c.probability for c in decision.candidates}
        assert decision.arm is not None
        assert probabilities[decision.arm] == decision.propensity
        assert sum(probabilities.values()) == pytest.approx(1.0)
        assert min(probabilities.values()) > 0


@given(queries=BATCHES, windows=ARMS, rule=RULES, seed=SEEDS)
def test_only_allowed_arms_are_used(
    queries: list[Query], windows: dict[str, int | None], rule: str, seed: int
) -> None:
    """Never an arm outside `models`, beyond its window, above the limit or unknown."""
    for query, item in zip(queries, decisions(queries, windows, rule, seed), strict=True):
        for candidate in item.decision.candidates:
            assert candidate.arm in windows
            assert query.models is None or candidate.arm in query.models
            assert len(query.text) <= 3 * (windows[candidate.arm] or 1_000)
            assert (candidate.cost_usd or 0.0) <= (query.max_cost_usd or np.inf)
        arms = [candidate.arm for candidate in item.decision.candidates]
        assert arms == sorted(arms)
        assert sorted(model.arm for model in item.ranking) == arms
        assert [model.arm for model in item.ranking][:1] == [item.decision.arm][: len(arms)]


def _capable(query: Query, model: Model) -> bool:
    """What the documents promise, said anew."""
    wanted = (query.language or "").split("-")
    spoken = [item.split("-") for item in model.languages]
    return (
        set(query.needs or ()) <= set(model.tags)
        and (query.language is None or not spoken or any(wanted[: len(s)] == s for s in spoken))
        and (
            query.regions is None
            or (model.regions != () and set(model.regions) <= set(query.regions))
        )
    )


CAPABILITIES = st.fixed_dictionaries(
    {
        "tags": st.sets(st.sampled_from("tu")).map(tuple),
        "languages": st.sets(st.sampled_from(["de", "de-AT", "fr"])).map(tuple),
        "regions": st.sets(st.sampled_from(["eu", "us"])).map(tuple),
    }
)
NEEDS = st.fixed_dictionaries(
    {"query_id": st.just("q"), "text": st.just("t")},
    optional={
        "needs": st.sets(st.sampled_from("tu")).map(tuple),
        "language": st.sampled_from(["de", "de-AT", "de-CH", "en"]),
        "regions": st.sets(st.sampled_from(["eu", "us"]), min_size=1).map(tuple),
    },
).map(lambda fields: Query(**fields))


@given(
    queries=st.lists(NEEDS, max_size=6),
    arms=st.dictionaries(st.sampled_from(NAMES), CAPABILITIES, max_size=5),
    seed=SEEDS,
)
def test_candidates_are_exactly_the_capable_arms(
    queries: list[Query], arms: dict[str, dict[str, Any]], seed: int
) -> None:
    """Nobody else is drawn or fallen back to, and where nobody is left the query is refused."""
    models = {arm: Model(arm=arm, provider="p", model=arm, **can) for arm, can in arms.items()}
    made = Catalogue()
    for arm, model in models.items():
        made.apply(arm, model)
    for query, item in zip(queries, decisions(queries, made, "ridge-igw", seed), strict=True):
        wanted = {arm for arm, model in models.items() if _capable(query, model)}
        assert {candidate.arm for candidate in item.decision.candidates} == wanted
        assert {model.arm for model in item.ranking} == wanted
        assert (item.decision.refusal is None) == bool(wanted)


@given(queries=BATCHES, windows=ARMS, rule=RULES, seed=SEEDS)
def test_refused_exactly_where_nothing_known_is_left(
    queries: list[Query], windows: dict[str, int | None], rule: str, seed: int
) -> None:
    """A refusal names a reason; a query with an arm left to it is answered."""
    for query, item in zip(queries, decisions(queries, windows, rule, seed), strict=True):
        usable = [
            arm
            for arm, window in windows.items()
            if (query.models is None or arm in query.models)
            and len(query.text) <= 3 * (window or 1_000)
        ]
        if query.max_cost_usd is None:
            assert (item.decision.refusal is None) == bool(usable)
        if item.decision.refusal is not None:
            assert item.decision.refusal.message


@given(queries=BATCHES, windows=ARMS, rule=RULES, seed=SEEDS)
def test_the_same_generator_state_gives_the_same_decisions(
    queries: list[Query], windows: dict[str, int | None], rule: str, seed: int
) -> None:
    """Nothing but the arguments decides, and the record survives the wire."""
    first = decisions(queries, windows, rule, seed)
    assert first == decisions(queries, windows, rule, seed)
    for item in first:
        assert Decision.parse(item.decision.encode()) == item.decision


@given(queries=BATCHES, windows=ARMS, seed=SEEDS, cut=st.integers(0, 8))
def test_a_batch_is_its_parts(
    queries: list[Query], windows: dict[str, int | None], seed: int, cut: int
) -> None:
    """Probabilities of a query do not depend on the queries beside it."""
    whole = decisions(queries, windows, "ridge-igw", seed)
    part = decisions(queries[:cut], windows, "ridge-igw", seed)
    for alone, beside in zip(part, whole, strict=False):
        seen = {c.arm: c.probability for c in alone.decision.candidates}
        assert seen == pytest.approx({c.arm: c.probability for c in beside.decision.candidates})


@given(
    added=st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("12")), max_size=40),
    limit=st.integers(1, 4),
)
def test_the_window_remembers_the_newest_ids(added: list[tuple[str, str]], limit: int) -> None:
    """The window agrees with a plain list of first additions, cut at its front."""
    recent = RecentIds(limit)
    kept: list[tuple[str, str]] = []
    for query_id, mark in added:
        recent.add(query_id, mark)
        if query_id not in dict(kept):
            kept = [*kept, (query_id, mark)][-limit:]
        assert len(recent) == len(kept)
        assert {i: recent.seen(i) for i in "abcdef"} == {i: dict(kept).get(i) for i in "abcdef"}
