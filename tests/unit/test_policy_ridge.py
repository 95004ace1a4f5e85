"""The multi-task ridge against dense formulas that share no code with it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metallm_stream.policy import Precisions, Sums, fit

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
) -> tuple[NDArray[np.float64], float]:
    """Posterior means (θ_0, θ_k …) and log evidence, by one Gaussian over all centred events."""
    blocks, targets = [], []
    for k, (contexts, qualities) in enumerate(stream.values()):
        # An orthonormal basis of what is left of n events once their mean is taken out.
        n = len(qualities)
        basis = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]
        x = basis.T @ contexts
        block = np.zeros((n - 1, D * (len(stream) + 1)))
        block[:, :D] = x
        block[:, D * (k + 1) : D * (k + 2)] = x
        blocks.append(block)
        targets.append(basis.T @ qualities)
    design, y = np.vstack(blocks), np.concatenate(targets)
    prior = np.repeat([1 / at.shared] + [1 / at.arm] * len(stream), D)
    covariance = np.eye(len(y)) + (design * prior) @ design.T
    solved = np.linalg.solve(covariance, y)
    parts = (prior * (design.T @ solved)).reshape(-1, D)
    freedom = len(y) + 1
    evidence = freedom * np.log((y @ solved + 0.1) / freedom) + np.linalg.slogdet(covariance)[1]
    return np.vstack((parts[:1], parts[:1] + parts[1:])), -0.5 * float(evidence)


@pytest.mark.parametrize("at", [Precisions(0.3, 4.0), Precisions(20.0, 0.5), Precisions(1e5, 1e5)])
def test_weights_and_evidence_are_those_of_the_model(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], at: Precisions
) -> None:
    """The eigenvalue formulas give the posterior mean and evidence of the hierarchical model."""
    found = fit(summed(stream), list(stream), precisions=at)
    weights, evidence = dense(stream, at)
    assert np.allclose(found.shared_weights, weights[0], atol=1e-8)
    assert np.allclose(found.weights, weights[1:], atol=1e-8)
    assert found.log_evidence == pytest.approx(evidence, abs=1e-7)
    assert found.precisions == at


def test_priors_are_those_of_highest_evidence(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """No pair of the grid has a higher evidence than the pair chosen."""
    sums = summed(stream)
    best = fit(sums, list(stream))
    grid = [10.0**step for step in range(-1, 6)]
    others = [
        fit(sums, list(stream), precisions=Precisions(shared, arm)).log_evidence
        for shared in grid
        for arm in grid
    ]
    assert best.log_evidence == pytest.approx(max(others), abs=1e-9)


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


def test_taking_over_the_last_fit_changes_nothing(
    stream: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Arms whose sums stayed the same are not diagonalised again; the fit is the same."""
    sums = summed(stream)
    before = fit(sums, list(stream))
    sums.add_quality("large", *(item[:3] for item in stream["small"]), np.ones(3))
    fresh, resumed = fit(sums, list(stream)), fit(sums, list(stream), previous=before)
    assert resumed.spectra[1] is before.spectra[1]
    assert resumed.spectra[0] is not before.spectra[0]
    assert np.array_equal(fresh.weights, resumed.weights)
    assert fresh.log_evidence == resumed.log_evidence


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_equal_events_are_no_signal(n: int) -> None:
    """None, one or many events of one context and quality: the arm's mean, finite and sure."""
    sums = Sums(D)
    sums.add_quality("a", np.full((n, D), 0.4), np.ones(n), np.ones(n))
    found = fit(sums, ["a", "b"])
    assert np.array_equal(found.weights, np.zeros((2, D)))
    assert np.isfinite(found.log_evidence)
    expected = 0.5 if n == 0 else 1.0
    assert found.scorer().quality(np.eye(D), ["a", "b"]) == pytest.approx(expected)


def test_one_event_says_nothing_about_directions() -> None:
    """The mean of an arm with one event lies between that event and the global mean."""
    sums = Sums(D)
    sums.add_quality("a", np.eye(D)[:1], [1.0], [1.0])
    sums.add_quality("b", np.eye(D)[1:4], [0.0, 0.2, 0.1], np.ones(3))
    found = fit(sums, ["a", "b"])
    assert found.global_quality == pytest.approx(0.325)
    assert found.mean_quality[0] == pytest.approx((1.0 + 0.325) / 2)


def test_contexts_without_dimensions_are_a_plain_bandit() -> None:
    """With d = 0 only the means are left."""
    sums = Sums(0)
    sums.add_quality("a", np.zeros((3, 0)), [1.0, 1.0, 0.0], np.ones(3))
    found = fit(sums, ["a"])
    assert found.scorer().quality(np.zeros((1, 0)), ["a"])[0, 0] == pytest.approx(2 / 3)


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
