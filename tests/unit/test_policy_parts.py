"""The parts of a fit: components of contexts, spectra of arms, and the arms' means."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metallm_stream.policy import Sums
from metallm_stream.policy.arm_means import arm_means
from metallm_stream.policy.components import RANK, Components, components
from metallm_stream.policy.spectra import spectrum


def gram(contexts: NDArray[np.float64], qualities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sums of one arm's events, each of weight 1."""
    sums = Sums(contexts.shape[1])
    sums.add_quality("a", contexts, qualities, np.ones(len(qualities)))
    return sums.gram("a")


def drawn(n: int, d: int, seed: int = 3) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Contexts with a spread that falls from feature to feature, and qualities."""
    rng = np.random.default_rng(seed)
    return 1.0 + rng.normal(size=(n, d)) / np.sqrt(1 + np.arange(d)), rng.random(n)


@pytest.mark.parametrize("d", [1, 5, 32, 60])
def test_components_are_the_principal_ones_scaled_by_their_prior(d: int) -> None:
    """Those of a singular value decomposition, times the fourth root of the variance."""
    contexts, qualities = drawn(200, d)
    found = components(
        [gram(contexts[:150], qualities[:150]), gram(contexts[150:], qualities[150:])]
    )
    centred = contexts - contexts.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    variances = lengths[:RANK] ** 2 / 200
    prior = np.sqrt(variances) / np.sum(variances**1.5)
    assert np.allclose(found.centre, contexts.mean(axis=0))
    assert found.projection.shape == (d, min(d, RANK))
    expected = directions[:RANK].T * np.sqrt(prior)
    same = np.sign(np.sum(found.projection * expected, axis=0))  # eigenvectors have no sign
    assert np.allclose(found.projection, expected * same, atol=1e-8)


@pytest.mark.parametrize("d", [1, 5, 60])
def test_features_have_length_one_on_average(d: int) -> None:
    """Over the labelled events, so that precisions mean the same with every encoder."""
    contexts, qualities = drawn(300, d)
    for scale in (1e-3, 1.0, 1e3):
        found = components([gram(scale * contexts, qualities)])
        squares = np.sum(found.features(scale * contexts) ** 2, axis=1)
        assert np.mean(squares) == pytest.approx(1.0, rel=1e-6)


def test_the_order_of_arms_does_not_matter() -> None:
    """Components and what they span depend on the sum of all events."""
    contexts, qualities = drawn(90, 6)
    parts = [gram(contexts[i::3], qualities[i::3]) for i in range(3)]
    forth, back = components(parts), components(parts[::-1])
    assert np.allclose(forth.centre, back.centre, atol=1e-12)
    products = [each.projection @ each.projection.T for each in (forth, back)]
    assert np.allclose(*products, atol=1e-10)


@pytest.mark.parametrize("n", [0, 1, 2, 500])
def test_equal_contexts_have_no_components(n: int) -> None:
    """None, one or many events of one context: finite, and no feature differs from 0."""
    sums = gram(np.full((n, 4), 0.3), np.linspace(0, 1, n))
    found = components([sums, np.zeros((6, 6))])
    assert np.array_equal(found.projection, np.zeros((4, 4)))
    assert np.allclose(found.centre, 0.3 if n else 0.0)
    arm = spectrum(sums, found)
    assert arm.observations == n
    assert np.array_equal(arm.eigenvalues, np.zeros(4))
    assert np.array_equal(arm.projected, np.zeros(4))
    assert np.isfinite(arm.eigenvectors).all()


def test_events_taken_out_again_leave_nothing() -> None:
    """What round-off leaves of them has no components and counts no event."""
    contexts, qualities = drawn(100, 5)
    sums = Sums(5)
    for weight in (1 / 3, -1 / 3):
        sums.add_quality("a", 1e3 * contexts, qualities, np.full(100, weight))
    left = sums.gram("a") + 1e-9 * np.eye(7)
    for each in (sums.gram("a"), left, -left):
        found = components([each])
        arm = spectrum(each, found)
        assert np.array_equal(found.projection, np.zeros((5, 5)))
        assert np.array_equal(found.centre, np.zeros(5))
        assert (arm.observations, arm.quality_sum, arm.spread) == (0.0, 0.0, 0.0)
        assert not arm.eigenvalues.any()


def test_contexts_without_dimensions_have_features_without_any() -> None:
    """A plain bandit: nothing to project, only counts and qualities."""
    sums = gram(np.zeros((4, 0)), np.array([0.0, 1.0, 1.0, 1.0]))
    found = components([sums])
    assert found.projection.shape == (0, 0)
    arm = spectrum(sums, found)
    assert (arm.observations, arm.quality_sum, arm.spread) == (4.0, 3.0, 0.75)
    assert arm.eigenvectors.shape == (0, 0)


def test_a_spectrum_holds_the_centred_moments_of_its_arm() -> None:
    """`A`, `b` and `s` of the features, centred within the arm, as computed from the events."""
    contexts, qualities = drawn(50, 6)
    axes = components([gram(*drawn(300, 6, seed=9))])
    arm = spectrum(gram(contexts, qualities), axes)
    features = axes.features(contexts)
    features = features - features.mean(axis=0)
    targets = qualities - qualities.mean()
    rebuilt = (arm.eigenvectors * arm.eigenvalues) @ arm.eigenvectors.T
    assert np.allclose(rebuilt, features.T @ features, atol=1e-10)
    assert np.allclose(arm.eigenvectors @ arm.projected, features.T @ targets, atol=1e-10)
    assert arm.spread == pytest.approx(targets @ targets)
    assert (arm.observations, arm.quality_sum) == (50.0, pytest.approx(qualities.sum()))
    assert np.allclose(arm.context_sum, contexts.sum(axis=0))


def test_fewer_events_than_dimensions_leave_eigenvalues_of_zero() -> None:
    """Round-off does not pass for knowledge: rank n − 1 and no negative eigenvalue."""
    contexts, qualities = drawn(4, 12)
    axes = components([gram(*drawn(300, 12, seed=9))])
    arm = spectrum(gram(contexts, qualities), axes)
    assert np.count_nonzero(arm.eigenvalues) == 3
    assert (arm.eigenvalues >= 0).all()


def test_one_event_has_no_spread() -> None:
    """An arm's first event tells its mean and no direction."""
    axes = Components(np.zeros(2), np.eye(2))
    arm = spectrum(gram(np.array([[0.3, -0.7]]), np.array([0.9])), axes)
    assert (arm.observations, arm.quality_sum, arm.spread) == (1.0, 0.9, 0.0)
    assert not arm.eigenvalues.any()


def test_means_without_events_are_the_prior() -> None:
    """One half, and the strength of the believed variance between arms."""
    found = arm_means(np.zeros(3), np.zeros(3), 0.2)
    assert found.means.tolist() == [0.5] * 3
    assert (found.common, found.strength) == (0.5, pytest.approx(0.2 / 0.02))


def test_an_arm_is_drawn_to_the_common_mean_by_the_strength() -> None:
    """`(Σq + κ·m) / (n + κ)`; without events it is the common mean, with many its own."""
    n, q = np.array([0.0, 2.0, 1e9]), np.array([0.0, 1.8, 0.3e9])
    found = arm_means(n, q, 0.2)
    expected = (q + found.strength * found.common) / (n + found.strength)
    assert np.allclose(found.means, expected)
    assert found.means[0] == pytest.approx(found.common)
    assert found.means[2] == pytest.approx(0.3, abs=1e-6)
    assert found.common < found.means[1] < 0.9


def test_arms_alike_are_drawn_together_and_arms_unlike_are_left_apart() -> None:
    """The strength follows from the spread of the means."""
    n = np.full(8, 50.0)
    alike = arm_means(n, n * np.linspace(0.69, 0.71, 8), 0.2)
    unlike = arm_means(n, n * np.linspace(0.1, 0.9, 8), 0.2)
    assert alike.strength > 3 * unlike.strength
    assert np.ptp(alike.means) < 0.02
    assert np.ptp(unlike.means) > 0.7


def test_the_order_of_arms_does_not_change_their_means() -> None:
    """A permutation of the arms permutes the means."""
    n, q = np.array([5.0, 0.0, 80.0, 1.0]), np.array([4.0, 0.0, 20.0, 1.0])
    order = np.array([2, 0, 3, 1])
    forth, back = arm_means(n, q, 0.1), arm_means(n[order], q[order], 0.1)
    assert np.allclose(forth.means[order], back.means)
    assert forth.strength == pytest.approx(back.strength)


@pytest.mark.parametrize("noise", [1e-9, 1e-3, 10.0])
@pytest.mark.parametrize("n", [1e-5, 1.0, 1e9])
def test_means_are_finite_for_any_counts(noise: float, n: float) -> None:
    """Hardly an event, equal qualities or hardly any noise: positive strength, finite means."""
    for qualities in ([0.0, 0.0], [1.0, 1.0], [0.0, 1.0]):
        found = arm_means(np.full(2, n), n * np.array(qualities), noise)
        assert np.isfinite(found.means).all()
        assert 0 < found.strength < np.inf
        assert (found.means >= -1e-9).all()
        assert (found.means <= 1 + 1e-9).all()
