"""A published policy: over the wire and back, and what it expects of arms it knows little of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Model, PolicyArm, PolicyManifest, Price
from metallm_stream.policy import Published, RidgeFit, Sums, fit, to_records, usage_of_call

D = 4
WHEN = datetime(2024, 5, 1, tzinfo=UTC)


def learned() -> tuple[Sums, RidgeFit]:
    """`dear` has labels, tokens and cost; `cheap` labels and cost; `mute` calls that failed."""
    rng = np.random.default_rng(4)
    sums = Sums(D)
    for arm, mean in (("dear", 0.9), ("cheap", 0.6)):
        contexts = rng.normal(size=(50, D))
        sums.add_quality(arm, contexts, mean + 0.1 * contexts[:, 0], np.ones(50))
    for _ in range(4):
        sums.add_usage(
            "dear",
            usage_of_call(cost_usd=0.03, input_tokens=1_000, output_tokens=500, latency_s=2.0),
        )
        sums.add_usage("cheap", usage_of_call(cost_usd=0.001, latency_s=0.5))
        sums.add_usage("mute", usage_of_call(failed=True))
    return sums, fit(sums, sums.arms)


def published(sums: Sums, found: RidgeFit) -> Published:
    """What routers read: each record through its JSON."""
    manifest, arms = to_records(
        found,
        sums,
        policy="ridge-elimination",
        version=7,
        published_at=WHEN,
        encoder="wordllama-4",
    )
    return Published.from_records(
        PolicyManifest.parse(manifest.encode()), [PolicyArm.parse(arm.encode()) for arm in arms]
    )


def model(arm: str, price: Price | None = None) -> Model:
    """An arm of the catalogue."""
    return Model(arm=arm, provider="openai", model=arm, price=price)


def test_predicts_after_the_wire_what_was_fitted() -> None:
    """Quality survives JSON and float32, for arms known and unknown."""
    sums, found = learned()
    policy = published(sums, found)
    contexts = np.random.default_rng(1).normal(size=(9, D)).astype(np.float32)
    arms = ["cheap", "never heard of", "dear"]
    expected = found.scorer().quality(contexts, arms)
    assert np.allclose(policy.scorer.quality(contexts, arms), expected, atol=1e-5)
    assert policy.observed(arms).tolist() == [50.0, 0.0, 50.0]
    assert (policy.manifest.policy, policy.version, policy.encoder) == (
        "ridge-elimination",
        7,
        "wordllama-4",
    )
    assert policy.manifest.observations == 100.0


def test_the_wire_keeps_how_sure_a_prediction_is() -> None:
    """Leverage, uncertainty, noise and the strength of means survive JSON and float32."""
    sums, found = learned()
    policy = published(sums, found)
    contexts = np.random.default_rng(2).normal(size=(9, D)).astype(np.float32)
    arms = ["cheap", "never heard of", "dear", "mute"]
    expected, read = found.scorer().scores(contexts, arms), policy.scores(contexts, arms)
    assert np.allclose(read.quality, expected.quality, atol=1e-5)
    assert np.allclose(read.leverage, expected.leverage, rtol=1e-4, atol=1e-7)
    assert np.allclose(read.uncertainty, expected.uncertainty, rtol=1e-4, atol=1e-7)
    assert read.leverage.max() > 0
    assert policy.scorer.noise_variance == pytest.approx(max(found.noise_variance, 1e-6))
    assert policy.scorer.mean_strength == found.mean_strength


def test_records_of_an_older_learner_still_give_scores() -> None:
    """Without projection and roots, only the number of events tells how sure a prediction is."""
    sums, found = learned()
    manifest, arms = to_records(
        found, sums, policy="p", version=2, published_at=WHEN, encoder="wordllama-4"
    )
    head = manifest.model_copy(update={"projection": None, "mean_strength": None})
    bare = [arm.model_copy(update={"covariance_root": None}) for arm in arms]
    contexts, names = np.eye(D, dtype=np.float32), ["cheap", "dear", "new"]
    expected = found.scorer().quality(contexts, names)
    for older in (
        Published.from_records(head, bare),
        Published.from_records(head, arms),
        Published.from_records(manifest.model_copy(update={"mean_strength": None}), bare),
    ):
        scores = older.scores(contexts, names)
        assert np.allclose(scores.quality, expected, atol=1e-5)
        assert np.array_equal(scores.leverage, np.zeros((D, 3)))
        assert np.allclose(scores.uncertainty, [1 / 51, 1 / 51, 1.0])


def test_records_carry_usage() -> None:
    """Means of what is known, the share of failures, and nothing where nothing is known."""
    records = published(*learned()).records
    dear, mute = records["dear"], records["mute"]
    assert (dear.calls, dear.cost_usd, dear.input_tokens, dear.latency_s) == (4, 0.03, 1_000, 2)
    assert (dear.failure_rate, mute.failure_rate) == (0.0, 1.0)
    assert (mute.cost_usd, mute.input_tokens, mute.latency_s) == (None, None, None)


def test_a_price_change_counts_at_once() -> None:
    """Where price and own tokens are known, cost is price × tokens, whatever was booked."""
    policy = published(*learned())
    price = Price(input_usd_per_mtok=10, output_usd_per_mtok=20, call_usd=0.001)
    assert policy.cost_usd({"dear": model("dear", price)}).tolist() == pytest.approx([0.021])


def test_expected_costs_of_arms_little_known() -> None:
    """Booked cost before others' tokens; others' tokens before the least cost known."""
    policy = published(*learned())
    price = Price(input_usd_per_mtok=1, output_usd_per_mtok=2)
    catalogue = {
        "cheap": model("cheap", price),  # no own tokens: its booked mean
        "dear": model("dear"),  # no price: its booked mean
        "mute": model("mute"),  # nothing at all: the least
        "priced": model("priced", price),  # never called: the others' tokens
    }
    expected = [0.001, 0.03, 0.001, 0.002]
    assert policy.cost_usd(catalogue).tolist() == pytest.approx(expected)


def test_expected_latency_of_arms_little_known() -> None:
    """The mean, or the least mean known, so that an arm is tried once and known."""
    catalogue = {arm: model(arm) for arm in ("cheap", "dear", "mute", "new")}
    assert published(*learned()).latency_s(catalogue).tolist() == [0.5, 2.0, 0.5, 0.5]


def test_nothing_known_costs_nothing() -> None:
    """With no cost at all, expected costs are 0."""
    empty = Sums(D)
    policy = published(empty, fit(empty, ["a"]))
    catalogue = {
        "a": model("a"),
        "b": model("b", Price(input_usd_per_mtok=1, output_usd_per_mtok=1)),
    }
    assert policy.cost_usd(catalogue).tolist() == [0.0, 0.0]
    assert policy.latency_s(catalogue).tolist() == [0.0, 0.0]
    assert policy.scorer.quality(np.eye(D), ["a", "b"]) == pytest.approx(0.5)


def test_incomplete_or_damaged_policies_are_refused() -> None:
    """A missing arm, another version, another dimension or NaN is not a policy."""
    sums, found = learned()
    manifest, arms = to_records(
        found, sums, policy="p", version=2, published_at=WHEN, encoder="wordllama-4"
    )
    older = arms[0].model_copy(update={"version": 1})
    short = arms[0].model_copy(update={"weights": arms[0].weights[:-4]})
    nan = np.full(D, np.nan, dtype="<f4").tobytes()
    broken = arms[0].model_copy(update={"mean_context": nan})
    root = arms[0].covariance_root or b""
    cut = arms[0].model_copy(update={"covariance_root": root[:-4]})
    spoilt = arms[0].model_copy(update={"covariance_root": nan[:4] + root[4:]})
    for first, message in (
        ([], "lacks its arm 'cheap'"),
        ([older], "lacks its arm 'cheap'"),
        ([short], "12 bytes instead of 16"),
        ([broken], "not finite"),
        ([cut], "60 bytes instead of 64"),
        ([spoilt], "not finite"),
    ):
        with pytest.raises(InvalidEvent, match=message):
            Published.from_records(manifest, [*first, *arms[1:]])
    ragged = manifest.model_copy(update={"projection": (manifest.projection or b"") + bytes(4)})
    with pytest.raises(InvalidEvent, match="68 bytes instead of 64"):
        Published.from_records(ragged, arms)
    assert Published.from_records(manifest, arms).version == 2


@pytest.mark.parametrize(
    ("arm", "head"),
    [
        ({"mean_quality": 1.7e308}, {}),
        ({"observations": 1.7e308}, {}),
        ({"weights": np.full(D, 3e38, "<f4").tobytes()}, {}),
        ({"covariance_root": np.full((D, D), 3e38, "<f4").tobytes()}, {}),
        ({}, {"mean_strength": 1e-320, "observations": 0.0}),
        ({}, {"arm_precision": 1e-80}),
        ({}, {"projection": np.full((D, D), 3e38, "<f4").tobytes()}),
        ({}, {"arms": (), "dimensions": 10**13}),
        ({}, {"arms": ("dear", "dear")}),
    ],
)
def test_a_policy_that_predicts_what_cannot_be_is_refused(
    arm: dict[str, Any], head: dict[str, Any]
) -> None:
    """The router keeps the one that it has, and no record on the topic can stop it."""
    sums, found = learned()
    manifest, records = to_records(
        found, sums, policy="ridge", version=1, published_at=WHEN, encoder="e"
    )
    changed = [record.model_copy(update=arm) for record in records]
    if "mean_strength" in head:
        changed = [record.model_copy(update={"observations": 0.0}) for record in changed]
    with pytest.raises(InvalidEvent):
        Published.from_records(manifest.model_copy(update=head), changed)


def test_contexts_that_hardly_differ_may_decide() -> None:
    """Other ones lie very far away then, and a policy that says so is taken nevertheless."""
    rng = np.random.default_rng(6)
    side = np.repeat([-1.0, 1.0], 300)
    spread = np.outer(side, np.eye(1, D)[0]) + 0.1 * rng.normal(size=(600, D))
    contexts = (0.5 + 1e-6 * spread).astype(np.float32)
    sums = Sums(D)
    for arm, likes in (("left", -1.0), ("right", 1.0)):
        sums.add_quality(arm, contexts, np.where(side == likes, 0.9, 0.3), np.ones(600))
    policy = published(sums, fit(sums, sums.arms))
    assert (policy.scorer.quality(contexts, ["left", "right"]).argmax(axis=1) == (side > 0)).all()
