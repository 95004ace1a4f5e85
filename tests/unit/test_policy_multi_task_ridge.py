"""The schedule of refreshes, features that come later, and arms that come later."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from river import preprocessing

from metallm_stream.errors import ConfigurationError
from metallm_stream.policy import SoftElimination, Sums, fit
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge
from tests.indifferent import UniformPolicy
from tests.readme import REPOSITORY, blocks

ARMS = ["a", "b", "c"]


def refreshes(policy: MultiTaskRidge, n: int, batch: int) -> list[int]:
    """Event counts at which the fit changed, when n events come in batches."""
    rng = np.random.default_rng(2)
    contexts, rewards = rng.normal(size=(n, 3)), rng.random(n)
    changed, before = [], policy._fit
    for start in range(0, n, batch):
        stop = min(n, start + batch)
        policy.update_many(["a"] * (stop - start), contexts[start:stop], rewards[start:stop])
        if policy._fit is not before:
            before = policy._fit
            changed.append(round(policy._fit.observations.sum()))
    return changed


def test_refreshes_come_when_events_grew_by_a_share() -> None:
    """After each of the first events, then whenever there are 5 % more, or what is asked for."""
    counts = refreshes(MultiTaskRidge(), 60, batch=1)
    assert counts[:21] == list(range(1, 22))
    assert counts[21:] == [23, 25, 27, 29, 31, 33, 35, 37, 39, 41, 44, 47, 50, 53, 56, 59]
    counts = refreshes(MultiTaskRidge(refresh_growth=0.1), 60, batch=1)
    assert counts[:11] == list(range(1, 12))
    assert counts[11:] == [13, 15, 17, 19, 21, 24, 27, 30, 33, 37, 41, 46, 51, 57]


def test_a_fit_lives_for_a_share_of_the_half_life_at_most() -> None:
    """However long the stream: 5 % of all its events would be many half-lives."""
    policy = MultiTaskRidge(half_life=50.0)
    policy.update_many(["a"] * 10_000, np.ones((10_000, 2)), np.ones(10_000))
    assert policy.until_refresh() <= 3  # of 50 events 5 %, made whole
    endless = MultiTaskRidge()
    endless.update_many(["a"] * 10_000, np.ones((10_000, 2)), np.ones(10_000))
    assert endless.until_refresh() > 100
    assert refreshes(MultiTaskRidge(half_life=1e6), 60, 1) == refreshes(MultiTaskRidge(), 60, 1)


def test_a_half_life_is_as_short_after_a_long_stream() -> None:
    """Arms change places after forty half-lives: two later they are told apart anew."""
    policy, rng = MultiTaskRidge(half_life=200.0, seed=9), np.random.default_rng(9)
    for good, n in (("a", 8_000), ("b", 400)):
        arms = rng.choice(["a", "b"], size=n)
        rewards = np.where(arms == good, 0.9, 0.1)
        policy.update_many(list(arms), rng.normal(size=(n, 2)), rewards)
    assert policy.pull_many(np.zeros((1, 2)), ["a", "b"]).probabilities[0, 1] > 0.5


@pytest.mark.parametrize("batch", [7, 25, 60])
def test_refresh_counts_do_not_depend_on_batches(batch: int) -> None:
    """A batch refreshes at the last count due within it, not at its end."""
    policy = MultiTaskRidge()
    assert set(refreshes(policy, 60, batch)) <= set(refreshes(MultiTaskRidge(), 60, 1))
    assert policy._fit is not None
    assert policy._fit.observations.sum() == 59
    assert policy.until_refresh() == 2


def test_priors_are_chosen_less_often_than_weights() -> None:
    """Between two choices of the priors the weights are refreshed under the same ones."""
    policy, chosen = MultiTaskRidge(evidence_growth=1e9), set()
    rng = np.random.default_rng(3)
    for _ in range(50):
        policy.update_many(["a"], rng.normal(size=(1, 3)), rng.random(1))
        assert policy._fit is not None
        chosen.add(policy._fit.precisions)
    assert len(chosen) == 1


def test_features_may_come_later() -> None:
    """A feature that appears later counts as 0 before; at a pull, unknown ones are left out."""
    late, early = MultiTaskRidge(seed=1), MultiTaskRidge(seed=1)
    rng = np.random.default_rng(4)
    for step in range(80):
        arm, x, y = "ab"[step % 2], float(rng.normal()), float(rng.random())
        extra = {"late": 1.0} if step >= 40 and step % 3 else {}
        late.update(arm, {"x": x, **extra}, y)
        early.update(arm, {"x": x, "late": 0.0, **extra}, y)
    assert late.sums.difference(early.sums) == 0
    for context in ({"x": 1.0}, {"late": 1.0, "unheard": 3.0}, {}, None):
        assert late.pull(["a", "b"], context) == early.pull(["a", "b"], context)


def test_arms_may_come_later() -> None:
    """A new arm is as good as the mean of the others, and unsure, so it is tried at once."""
    rng = np.random.default_rng(5)
    contexts = rng.normal(size=(200, 3))
    rewards = np.array([0.9, 0.1] * 100) + 0.1 * rng.normal(size=200)
    policy, even = MultiTaskRidge(seed=5), MultiTaskRidge("ridge-igw", seed=5)
    for each in (policy, even):
        each.update_many(["a", "b"] * 100, contexts, rewards)
    probabilities = policy.pull_many(contexts, ["a", "b", "new"]).probabilities
    assert (probabilities[:, 2] > 0.1).all()
    assert (probabilities[:, 0] > 0.5).all()
    assert np.allclose(probabilities[:, 1], 0.005 / 3)
    probabilities = even.pull_many(contexts, ["a", "b", "new"]).probabilities
    assert np.allclose(probabilities[:, 2], 1 / 3)
    assert (probabilities[:, 0] > 0.6).all()


def test_penalties_are_weighed_against_rewards() -> None:
    """What costs more than it is worth is not chosen, without having to learn that."""
    policy = MultiTaskRidge(seed=6)
    contexts = np.random.default_rng(6).normal(size=(200, 3))
    policy.update_many(["good", "fair"] * 100, contexts, [0.9, 0.7] * 100)
    free = policy.pull_many(contexts, ["good", "fair"]).probabilities
    dear = policy.pull_many(contexts, ["good", "fair"], penalties=[0.5, 0.0]).probabilities
    assert (free[:, 0] > 0.9).all()
    assert (dear[:, 1] > 0.9).all()


def test_before_any_event_expects_what_a_fit_of_none_does() -> None:
    """As services do, which publish such a fit before the first label has come."""
    contexts, costs = np.random.default_rng(8).normal(size=(5, 3)), np.array([0.0, 0.1, 0.3])
    nothing = fit(Sums(3), ARMS).scorer().beliefs(contexts, ARMS, label_share=1 / 1_000)
    nothing = replace(nothing, utility=nothing.utility - costs, headroom=1.0 - nothing.utility)
    expected = SoftElimination().probabilities(nothing, None)
    found = MultiTaskRidge(seed=8).pull_many(contexts, ARMS, penalties=costs).probabilities
    assert np.allclose(found, expected)
    assert (found[:, 2] < 0.1).all()


@pytest.mark.parametrize("rule", ["ridge-elimination", "ridge-linucb"])
def test_where_rewards_are_below_0_an_arm_is_waited_for_as_anywhere(rule: str) -> None:
    """No worthless answer is known to bring 0 then, penalties or not."""
    policy, contexts = MultiTaskRidge(rule, seed=4), np.ones((1_000, 2))
    policy.update_many(["judged"] * 995 + ["late"] * 5, contexts, [-1.0] * 1_000)
    policy.pull_many(np.ones((60_000, 2)), ["judged", "late"])
    policy.update_many(["judged"] * 1_000, contexts, [-1.0] * 1_000)
    shares = [
        policy.pull_many(contexts[:1], ["judged", "late"], penalties=taken).probabilities[0]
        for taken in (None, 0.0)
    ]
    assert shares[0][1] < 0.5
    assert shares[1] == pytest.approx(shares[0])


@pytest.mark.parametrize("half_life", [None, 2_000.0])
def test_an_arm_that_is_never_judged_does_not_keep_the_traffic(half_life: float | None) -> None:
    """Cheap and unknown, it looks best; once labels of its calls are overdue, the judged one is."""
    rng = np.random.default_rng(9)
    policy = MultiTaskRidge(seed=9, half_life=half_life)
    contexts, unjudged = rng.normal(size=(40, 100, 3)), []
    for some in contexts:
        columns = policy.pull_many(some, ["good", "mute"], penalties=[0.1, 0.0]).columns
        judged = columns == 0
        rewards = (rng.random(judged.sum()) < 0.9).astype(float)
        policy.update_many(["good"] * len(rewards), some[judged], rewards)
        unjudged.append((~judged).mean())
    assert np.mean(unjudged[20:]) < 0.1
    assert min(unjudged) > 0.0


def mute_share(policy: MultiTaskRidge, rng: np.random.Generator) -> float:
    """What a cheap arm that is not judged gets beside a good one, whose answers are."""
    some = rng.normal(size=(100, 3))
    pulls = policy.pull_many(some, ["good", "mute"], penalties=[0.1, 0.0])
    judged = pulls.columns == 0
    policy.update_many(["good"] * judged.sum(), some[judged], rng.random(judged.sum()) < 0.9)
    return float(pulls.probabilities[:, 1].mean())


def test_an_arm_that_is_no_longer_judged_is_waited_for_like_one_that_never_was() -> None:
    """Its calls go on counting where its labels are forgotten."""
    rng = np.random.default_rng(11)
    policy = MultiTaskRidge(seed=11, half_life=200)
    arms = ["mute"] * 40 + ["good"] * 4_000
    policy.update_many(arms, rng.normal(size=(4_040, 3)), rng.random(4_040) < 0.9)
    shares = [mute_share(policy, rng) for _ in range(40)]
    assert np.mean(shares[20:]) < 0.4


def test_with_a_half_life_calls_are_forgotten_as_labels_are() -> None:
    """Who was not judged and then not asked for long is as unknown as new, and is tried again."""
    rng = np.random.default_rng(12)
    policy = MultiTaskRidge(seed=12, half_life=200)
    shares = [mute_share(policy, rng) for _ in range(40)]
    assert np.mean(shares[20:]) < 0.4
    policy.update_many(["good"] * 4_000, rng.normal(size=(4_000, 3)), rng.random(4_000) < 0.9)
    assert mute_share(policy, rng) > 0.8


def test_with_a_half_life_priors_are_chosen_of_what_is_remembered() -> None:
    """Contexts say nothing for long; when they begin to, they count after a few half-lives."""
    rng = np.random.default_rng(10)
    policy = MultiTaskRidge(seed=10, half_life=200)
    for says in (False,) * 250 + (True,) * 10:
        contexts = rng.choice([-1.0, 1.0], size=(100, 1))
        wins = np.where(says, contexts[:, 0] > 0, rng.random(100) < 0.5)
        policy.update_many(["a"] * 100, contexts, wins.astype(float))
    expected = policy._beliefs(np.array([[-1.0], [1.0]]), ["a"]).utility[:, 0]
    assert expected == pytest.approx([0.0, 1.0], abs=0.1)


def test_no_events_are_no_change() -> None:
    """An empty batch is accepted and teaches nothing."""
    policy = MultiTaskRidge()
    policy.update_many([], np.zeros((0, 3)), [])
    assert policy._n == 0
    assert policy.until_refresh() == 1


def test_burn_in_is_rivers() -> None:
    """With a burn-in, `pull` gives each arm its turns first."""
    policy = MultiTaskRidge(burn_in=2, seed=7)
    seen = []
    for _ in range(4):
        arm = policy.pull(["a", "b"], {"x": 1.0})
        policy.update(arm, {"x": 1.0}, 0.5)
        seen.append(arm)
    assert seen == ["a", "a", "b", "b"]


def test_refuses_contexts_of_another_form() -> None:
    """Contexts are a matrix of finite numbers, one row an event."""
    policy = MultiTaskRidge()
    with pytest.raises(ValueError, match=r"shape \(n, d\)"):
        policy.pull_many(np.zeros(3), ["a"])
    with pytest.raises(ValueError, match="finite"):
        policy.update_many(["a"], [[np.nan, 0.0]], [1.0])


def test_sums_of_shards_are_as_good_as_their_events() -> None:
    """Merged, and learning on: the sums, counts and choices of one that learned all of them."""
    rng = np.random.default_rng(8)
    arms, contexts = ["a", "b", "c"] * 80, rng.normal(size=(240, 3))
    rewards = np.array([0.9, 0.5, 0.1] * 80) + 0.05 * contexts[:, 0]
    # Refreshed with new priors at each event, as a merge does it.
    shards = [MultiTaskRidge(refresh_growth=0, evidence_growth=0) for _ in range(3)]
    for shard, part in zip(shards, np.split(np.arange(180), 3), strict=True):
        shard.update_many([arms[row] for row in part], contexts[part], rewards[part])
    policy, whole = shards[0], MultiTaskRidge(refresh_growth=0, evidence_growth=0)
    policy.merge(shards[1].sums)
    policy.merge(shards[2].sums)
    whole.update_many(arms[:180], contexts[:180], rewards[:180])
    assert np.allclose(*(each.pull_many(contexts, ARMS).probabilities for each in (policy, whole)))
    for each in (policy, whole):
        each.update_many(arms[180:], contexts[180:], rewards[180:])
    assert policy.sums.difference(whole.sums) < 1e-12
    assert np.allclose(*(each.pull_many(contexts, ARMS).probabilities for each in (policy, whole)))
    assert (policy._n, policy._counts) == (whole._n, whole._counts)
    assert shards[1].sums.observations("a") == 20


def test_a_merge_moves_the_schedule_on() -> None:
    """The next refresh comes when it would have come after these events."""
    for n in (1, 19, 60):
        shard, policy = MultiTaskRidge(), MultiTaskRidge()
        shard.update_many(["a"] * n, np.ones((n, 2)), np.ones(n))
        policy.merge(shard.sums)
        assert policy.until_refresh() == shard.until_refresh()


def test_sums_of_nothing_are_merged_as_nothing() -> None:
    """Before any event, and of a shard without any."""
    policy = MultiTaskRidge()
    policy.merge(MultiTaskRidge().sums)
    assert (policy.sums.arms, policy.until_refresh()) == ((), 1)
    policy = MultiTaskRidge()
    policy.merge(Sums(2))
    policy.update_many(["a"], [[1.0, 2.0]], [1.0])
    assert policy.sums.observations("a") == 1


def test_what_weighs_little_is_merged_as_well() -> None:
    """A judge model's scores do, and half of one is still there after the next merge."""
    light, whole = Sums(2), MultiTaskRidge()
    light.add_quality("a", np.ones((1, 2)), np.ones(1), np.full(1, 0.25))
    whole.update_many(["b"], [[1.0, 2.0]], [1.0])
    policy = MultiTaskRidge()
    policy.merge(light)
    policy.merge(whole.sums)
    assert policy.sums.observations("a") == 0.25
    assert policy.sums.observations("b") == 1


def test_what_cannot_be_merged_is_refused_and_changes_nothing() -> None:
    """Sums of other dimensions; names of features and clocks, which sums do not carry."""
    policy, shard = MultiTaskRidge(), Sums(3)
    shard.add_quality("a", np.ones((1, 3)), [1.0], [1.0])
    policy.update_many(["a"], [[1.0, 2.0]], [1.0])
    with pytest.raises(ConfigurationError, match="3 dimensions where 2 are expected"):
        policy.merge(shard)
    assert (policy.sums.dimensions, policy._n) == (2, 1)
    named = MultiTaskRidge()
    named.update("a", {"x": 1.0, "y": 1.0, "z": 1.0}, 1.0)
    for other in (named, MultiTaskRidge(half_life=10.0), MultiTaskRidge(drift="adwin")):
        before = other.sums.copy()
        with pytest.raises(ValueError, match="without half_life and drift, and of arrays or dicts"):
            other.merge(shard)
        assert other.sums.difference(before) == 0


def test_policies_that_learn_nothing_never_refresh() -> None:
    """Feedback makes no difference to the indifferent."""
    policy = UniformPolicy()
    policy.update_many(["a"] * 50, np.zeros((50, 2)), np.ones(50))
    assert policy.until_refresh() == math.inf
    assert policy.ranking == ["a"]


def test_specialists_are_found_however_the_first_pulls_fall() -> None:
    """Two arms, each always right where the other is wrong: none is given up unseen.

    What an arm was never tried on is predicted from what all arms share, and may come out far below
    0; taken at its word, it would look worse than an arm that is known to fail there.
    """
    for seed in range(100, 120):
        policy, rng, rewards = MultiTaskRidge(seed=seed), np.random.default_rng(seed), []
        for _ in range(200):
            code = float(rng.integers(2))
            arm = policy.pull(["coder", "poet"], {"code": code})
            rewards.append(float((arm == "coder") == (code == 1.0)))
            policy.update(arm, {"code": code}, rewards[-1])
        assert np.mean(rewards[100:]) > 0.9


def test_features_of_different_scales_are_told_apart_once_they_are_scaled() -> None:
    """As the docstring asks for: beside a length in the thousands a flag is not seen else."""
    policy, scaler = MultiTaskRidge(seed=4), preprocessing.StandardScaler()
    rng, rewards = np.random.default_rng(4), []
    for _ in range(400):
        code = float(rng.integers(2))
        context = {"code": code, "length": float(rng.random() * 10_000)}
        scaler.learn_one(context)
        scaled = scaler.transform_one(context)
        arm = policy.pull(["coder", "poet"], scaled)
        rewards.append(float((arm == "coder") == (code == 1.0)))
        policy.update(arm, scaled, rewards[-1])
    assert np.mean(rewards[200:]) > 0.9


def test_the_document_shows_how_features_are_scaled() -> None:
    """As it is shown, and what it asserts."""
    (shown,) = [each for each in blocks(REPOSITORY / "docs/river.md") if each.language == "python"]
    exec(shown.text, {})  # noqa: S102 - our own document


def test_rewards_below_zero_still_tell_arms_apart() -> None:
    """Rewards may be losses, as River's users have them: nothing is cut off that was seen."""
    policy, contexts = MultiTaskRidge(seed=3), np.random.default_rng(3).normal(size=(200, 2))
    policy.update_many(["bad", "worse"] * 100, contexts, [-0.2, -0.9] * 100)
    assert (policy.pull_many(contexts, ["bad", "worse"]).probabilities[:, 0] > 0.9).all()
