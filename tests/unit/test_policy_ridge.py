"""The multi-task ridge against dense formulas that share no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metallm_stream.policy import Precisions, Sums, fit
from metallm_stream.policy.ridge import _DEVIATION, _NOISE, _WORTH, PRECISIONS
from metallm_stream.policy.scorer import _CONTEXT_SHARE

D = 6


def events(
    rng: np.random.Generator, n: int, weights: NDArray[np.float64], mean: float, noise: float = 0.1
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contexts of unit norm and linear qualities with noise."""
    contexts = rng.normal(size=(n, D))
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    return contexts, mean + contexts @ weights + noise * rng.normal(size=n)


def summed(stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Sums:
    """Sums of each arm's events."""
    sums = Sums(D)
    for arm, (contexts, qualities) in stream.items():
        sums.add_quality(arm, contexts, qualities, np.ones(len(qualities)))
    return sums


@pytest.fixture
def stream() -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Three arms that share most of their direction; the third has few events."""
    rng = np.random.default_rng(5)
    shared = rng.normal(size=D)
    return {
        arm: events(rng, n, shared + 0.2 * rng.normal(size=D), mean)
        for arm, n, mean in (("large", 60, 0.9), ("small", 40, 0.5), ("tiny", 4, 0.3))
    }


def dense(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], at: Precisions
) -> tuple[NDArray[np.float64], float, list[NDArray[np.float64]]]:
    """Posterior means (θ_0, θ_k …) of contexts, log posterior and the arms' `(A_k + λ1)⁻¹`.

    By one Gaussian over all centred events, with the covariance that the priors on features imply.
    """
    everything = np.vstack([contexts for contexts, _ in stream.values()])
    variances, directions = np.linalg.eigh(np.cov(everything.T, bias=True))
    axes = directions * np.sqrt(np.sqrt(variances) / np.sum(variances**1.5))
    blocks, targets, inverses = [], [], []
    for k, (contexts, qualities) in enumerate(stream.values()):
        # An orthonormal basis of what is left of n events once their mean is taken out.
        n = len(qualities)
        basis = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]
        x = basis.T @ contexts @ axes
        block = np.zeros((n - 1, D * (len(stream) + 1)))
        block[:, :D] = x
        block[:, D * (k + 1) : D * (k + 2)] = x
        blocks.append(block)
        targets.append(basis.T @ qualities)
        inverses.append(axes @ np.linalg.inv(x.T @ x + at.arm * np.eye(D)) @ axes.T)
    design, y = np.vstack(blocks), np.concatenate(targets)
    prior = np.repeat([1 / at.shared] + [1 / at.arm] * len(stream), D)
    covariance = np.eye(len(y)) + (design * prior) @ design.T
    solved = np.linalg.solve(covariance, y)
    parts = (prior * (design.T @ solved)).reshape(-1, D)
    freedom = len(y) + _WORTH
    noise = (y @ solved + _WORTH * _NOISE) / freedom
    evidence = -0.5 * (freedom * np.log(noise) + np.linalg.slogdet(covariance)[1])
    evidence -= np.sqrt(noise / at.arm) / _DEVIATION  # the deviation of an arm is exponential
    return np.vstack((parts[:1], parts[:1] + parts[1:])) @ axes.T, float(evidence), inverses


PRIORS = [Precisions(0.3, 4.0), Precisions(20.0, 0.5), Precisions(1e5, 1e5)]


@pytest.mark.parametrize("at", PRIORS)
def test_weights_and_evidence_are_those_of_the_model(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], at: Precisions
) -> None:
    """The eigenvalue formulas give posterior means and evidence of the hierarchical model."""
    found = fit(summed(stream), list(stream), precisions=at)
    weights, evidence, _ = dense(stream, at)
    assert np.allclose(found.shared_weights, weights[0], atol=1e-8)
    assert np.allclose(found.weights, weights[1:], atol=1e-8)
    assert found.log_evidence == pytest.approx(evidence, abs=1e-7)
    assert found.precisions == at


def test_differences_of_evidence_are_those_of_the_model(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """What decides between two priors is their marginal likelihoods and the prior on λ1."""
    sums = summed(stream)
    found = [fit(sums, list(stream), precisions=at).log_evidence for at in PRIORS]
    expected = [dense(stream, at)[1] for at in PRIORS]
    assert np.diff(found) == pytest.approx(np.diff(expected), abs=1e-7)
    assert np.ptp(expected) > 1


@pytest.mark.parametrize("at", PRIORS)
def test_leverage_is_that_of_the_model(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], at: Precisions
) -> None:
    """`(φ − φ̄_k)ᵀ(A_k + λ1)⁻¹(φ − φ̄_k)`, with φ̄ drawn to the mean of all by one event."""
    arms = [*stream, "never heard of"]
    found = fit(summed(stream), list(stream), precisions=at)
    queries = np.random.default_rng(6).normal(size=(7, D))
    scores = found.scorer().scores(queries, arms)
    everything = np.vstack([contexts for contexts, _ in stream.values()])
    centre, counts = everything.mean(axis=0), [len(quality) for _, quality in stream.values()]
    means = [(x.sum(axis=0) + centre) / (len(x) + 1) for x, _ in stream.values()]
    variances, directions = np.linalg.eigh(np.cov(everything.T, bias=True))
    prior = (directions * np.sqrt(variances) / np.sum(variances**1.5)) @ directions.T / at.arm
    inverses = [*dense(stream, at)[2], prior]
    for k, (mean, inverse) in enumerate(zip([*means, centre], inverses, strict=True)):
        leverage = np.einsum("nd,de,ne->n", queries - mean, inverse, queries - mean)
        assert np.allclose(scores.leverage[:, k], leverage, rtol=1e-7)
    uncertainty = (
        1 / (np.array([*counts, 0.0]) + found.mean_strength) + _CONTEXT_SHARE * scores.leverage
    )
    assert np.allclose(scores.uncertainty, uncertainty)
    assert np.array_equal(scores.quality, found.scorer().quality(queries, arms))


def test_a_direction_that_was_learned_is_less_uncertain() -> None:
    """Leverage falls with the events in a direction, and not in the directions without."""
    rng = np.random.default_rng(11)
    contexts = rng.normal(size=(400, D)) * np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    other = rng.normal(size=(400, D))
    sums = summed({"narrow": (contexts, rng.random(400)), "broad": (other, rng.random(400))})
    found = fit(sums, ["narrow", "broad"], precisions=Precisions(1.0, 1.0))
    leverage = found.scorer().scores(np.eye(D), ["narrow", "broad"]).leverage
    assert leverage[3:, 0].min() > 20 * leverage[:3, 0].max()
    assert leverage[3:, 0].min() > 20 * leverage[:, 1].max()


def test_priors_are_those_of_highest_evidence(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """No pair of the grid has a higher evidence than the pair chosen."""
    sums = summed(stream)
    best = fit(sums, list(stream))
    others = [
        fit(sums, list(stream), precisions=Precisions(shared, arm)).log_evidence
        for shared in PRECISIONS
        for arm in PRECISIONS
    ]
    assert len(set(PRECISIONS)) == len(PRECISIONS) > 10
    assert best.log_evidence == pytest.approx(max(others), abs=1e-9)


def test_the_order_of_arms_does_not_matter(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Rows are in the order asked for; what is believed of an arm is the same."""
    sums, arms = summed(stream), list(stream)
    forth, back = fit(sums, arms), fit(sums, arms[::-1])
    assert forth.precisions == back.precisions
    assert np.allclose(forth.weights, back.weights[::-1], atol=1e-9)
    assert np.allclose(forth.mean_quality, back.mean_quality[::-1], atol=1e-12)
    queries = np.eye(D)
    ours, theirs = (each.scorer().scores(queries, arms) for each in (forth, back))
    assert np.allclose(ours.leverage, theirs.leverage, atol=1e-9)


def test_recovers_what_was_there() -> None:
    """With many events the weights, means and noise are the true ones."""
    rng = np.random.default_rng(8)
    truth = 0.5 * rng.normal(size=D)
    found = fit(summed({"a": events(rng, 20_000, truth, 0.6)}), ["a"])
    assert np.allclose(found.weights[0], truth, atol=0.02)
    assert found.noise_variance == pytest.approx(0.01, rel=0.05)
    assert found.scorer().quality(np.zeros((1, D)), ["a"])[0, 0] == pytest.approx(0.6, abs=0.01)


def test_without_signal_it_learns_the_best_fixed_arm() -> None:
    """Where contexts say nothing, predictions hardly depend on them."""
    rng = np.random.default_rng(9)
    nothing = np.zeros(D)
    found = fit(
        summed({a: events(rng, 500, nothing, m, 0.4) for a, m in (("a", 0.6), ("b", 0.4))}),
        ["a", "b"],
    )
    contexts, _ = events(rng, 200, nothing, 0.0)
    predicted = found.scorer().quality(contexts, ["a", "b"])
    assert predicted.std(axis=0).max() < 0.02
    assert (predicted[:, 0] > predicted[:, 1]).all()


def test_a_new_arm_starts_with_what_all_share(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """An arm without events has θ_0 and the global mean, whether it is fitted or only asked for."""
    found = fit(summed(stream), [*stream, "new"])
    assert np.allclose(found.weights[3], found.shared_weights)
    assert found.mean_quality[3] == pytest.approx(found.global_quality)
    contexts = stream["large"][0]
    fitted, unknown = found.scorer().quality(contexts, ["new", "never heard of"]).T
    assert np.allclose(fitted, unknown)
    hard_for_all = np.corrcoef(unknown, found.scorer().quality(contexts, ["large"])[:, 0])
    assert hard_for_all[0, 1] > 0.9


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_equal_events_are_no_signal(n: int) -> None:
    """None, one or many events of one context and quality: a mean, finite, for all contexts."""
    sums = Sums(D)
    sums.add_quality("a", np.full((n, D), 0.4), np.ones(n), np.ones(n))
    found = fit(sums, ["a", "b"])
    assert np.array_equal(found.weights, np.zeros((2, D)))
    assert np.isfinite(found.log_evidence)
    strength, common = found.mean_strength, found.global_quality
    quality = found.scorer().quality(np.eye(D), ["a", "b"])
    assert quality[:, 0] == pytest.approx((n + strength * common) / (n + strength))
    assert quality[:, 1] == pytest.approx(common)
    assert common == pytest.approx(0.5) if n == 0 else 0.5 < common < quality[0, 0] < 1
    assert n < 50 or quality[0, 0] > 0.98


def test_one_event_says_nothing_about_directions() -> None:
    """The mean of an arm with one event lies between that event and the common mean."""
    sums = Sums(D)
    sums.add_quality("a", np.eye(D)[:1], [1.0], [1.0])
    sums.add_quality("b", np.eye(D)[1:4], [0.0, 0.2, 0.1], np.ones(3))
    found = fit(sums, ["a", "b"])
    strength, common = found.mean_strength, found.global_quality
    assert np.allclose(found.weights[0], found.shared_weights)
    assert found.mean_quality == pytest.approx(
        [(1.0 + strength * common) / (1 + strength), (0.3 + strength * common) / (3 + strength)]
    )
    assert 0.1 < found.mean_quality[1] < common < found.mean_quality[0] < 1.0


def test_contexts_without_dimensions_are_a_plain_bandit() -> None:
    """With d = 0 only the means are left, and they are all that is uncertain."""
    sums = Sums(0)
    sums.add_quality("a", np.zeros((300, 0)), [1.0, 1.0, 0.0] * 100, np.ones(300))
    found = fit(sums, ["a"])
    scores = found.scorer().scores(np.zeros((1, 0)), ["a", "new"])
    assert scores.quality[0, 0] == pytest.approx(2 / 3, abs=0.01)
    assert np.array_equal(scores.leverage, np.zeros((1, 2)))
    strength = found.mean_strength
    assert scores.uncertainty[0] == pytest.approx([1 / (300 + strength), 1 / strength])


def test_events_taken_out_again_leave_the_fit_of_the_others(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """An arm whose events were all withdrawn is believed to be what a new one is."""
    sums, arms = summed(stream), [*stream, "gone"]
    expected = fit(sums, arms)
    contexts, qualities = stream["large"]
    for weight in (0.3, -0.3):
        sums.add_quality("gone", contexts, qualities, np.full(len(qualities), weight))
    found = fit(sums, arms)
    assert found.observations[3] == 0.0
    assert np.allclose(found.weights, expected.weights, atol=1e-8)
    assert np.allclose(found.mean_quality, expected.mean_quality, atol=1e-10)
    ours, theirs = (each.scorer().scores(np.eye(D), arms) for each in (found, expected))
    assert np.allclose(ours.leverage, theirs.leverage, atol=1e-8)


def test_millions_of_events_lose_no_digits() -> None:
    """Centring a long sum does not drown a small signal in round-off."""
    rng = np.random.default_rng(2)
    truth = 0.1 * rng.normal(size=D)
    contexts, qualities = events(rng, 1_000, truth, 0.9, noise=0.0)
    sums = Sums(D)
    sums.add_quality("a", contexts, qualities, np.full(1_000, 10_000.0))
    assert np.allclose(fit(sums, ["a"]).weights[0], truth, atol=1e-6)


def test_needs_an_arm() -> None:
    """Fitting nothing is a mistake of the caller."""
    with pytest.raises(ValueError, match="name at least one"):
        fit(Sums(2), [])
