"""From sums to weights: ridge regressions that share a direction, with priors chosen by evidence.

Invariant: a fit is a function of the sums alone, whatever the order, batches or shards in which
the events came; without events it predicts the same of every arm.

Hard queries are hard for every arm, so the arms' coefficients are `θ_k = θ_0 + δ_k` with the
priors `θ_0 ~ N(0, σ²/λ0)` and `δ_k ~ N(0, σ²/λ1)` on features (`Components`) of average length 1.
Both precisions are those of highest posterior probability. Strong ones turn the fit into the mean
of each arm, and the prior on λ1 leans that way: what contexts seem to say of an arm must be told by
the events before it counts.

References
----------
Evgeniou & Pontil (2004), Regularized multi-task learning, section 3.
MacKay (1992), Bayesian interpolation, section 4.
Simpson et al. (2017), Penalising model component complexity, section 3.

"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.arm_means import arm_means
from metallm_stream.policy.beliefs import check_named_once
from metallm_stream.policy.components import Components, components
from metallm_stream.policy.scorer import Scorer
from metallm_stream.policy.spectra import Spectrum, spectrum
from metallm_stream.policy.sums import Sums

# Half decades. Features have length 1, so σ²/λ is the prior variance of a prediction.
PRECISIONS = tuple(float(10.0 ** (step / 2)) for step in range(-2, 10))
# What is believed of the noise before any event: this variance, seen so many times. Where the first
# qualities happen to be equal, arms would else seem known for sure, and one be given up for good.
_NOISE, _WORTH = 0.15, 10.0
# Scale of the exponential prior on an arm's own deviation in quality, σ/√λ1.
_DEVIATION = 0.03


@dataclass(frozen=True)
class Precisions:
    """Strengths of the priors, in units of the noise: `shared` is λ0, `arm` is λ1."""

    shared: float
    arm: float


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """What the sums say about quality: `mean_k + (x − x̄_k)·w_k` for K arms.

    Attributes
    ----------
    arms
        Names of the K arms, in the order of the rows below.
    weights, shared_weights
        w, `(K, d)`, and that of an arm without events, `(d,)`.
    mean_quality
        `(K,)`, drawn to `global_quality` by `mean_strength` pseudo-observations.
    mean_context
        `(K, d)`, drawn to `global_context` by one.
    observations
        Labelled events, `(K,)`.
    global_quality, global_context
        Mean quality of an arm without events, and the mean context, `(d,)`.
    mean_strength
        κ: the events that the global mean counts for in an arm's mean.
    noise_variance
        σ² of a quality around its prediction.
    axes, roots
        The components, and R of each arm in their coordinates, `(K, r, r)`, with
        `R·Rᵀ = (A_k + λ1)⁻¹`.
    precisions, log_evidence
        The priors in force, and the log posterior up to a constant.

    """

    arms: tuple[str, ...]
    weights: NDArray[np.float64]
    shared_weights: NDArray[np.float64]
    mean_quality: NDArray[np.float64]
    mean_context: NDArray[np.float64]
    observations: NDArray[np.float64]
    global_quality: float
    global_context: NDArray[np.float64]
    mean_strength: float
    noise_variance: float
    axes: Components
    roots: NDArray[np.float64]
    precisions: Precisions
    log_evidence: float

    def scorer(self) -> Scorer:
        """The fit in the form that scores batches; θ_0 and the global means for other arms."""
        rank = self.axes.projection.shape[1]
        return Scorer(
            arms=self.arms,
            weights=np.vstack((self.weights, self.shared_weights)),
            mean_context=np.vstack((self.mean_context, self.global_context)),
            mean_quality=np.append(self.mean_quality, self.global_quality),
            observations=np.append(self.observations, 0.0),
            projection=self.axes.projection,
            roots=np.concatenate((self.roots, [np.eye(rank) / math.sqrt(self.precisions.arm)])),
            mean_strength=self.mean_strength,
            noise_variance=self.noise_variance,
        )


def fit(sums: Sums, arms: Sequence[str], *, precisions: Precisions | None = None) -> RidgeFit:
    """Fit `arms` to their sums.

    Parameters
    ----------
    sums
        Sums of labelled events; arms without any are fitted by the priors alone.
    arms
        At least one name, each once; the rows of the fit are in this order.
    precisions
        Keep these prior strengths; default: those of highest posterior among `PRECISIONS`.

    """
    if not arms:
        raise ValueError("cannot fit without arms: name at least one")
    check_named_once(arms)
    grams = [sums.gram(arm) for arm in arms]
    axes = components(grams)
    spectra = [spectrum(gram, axes) for gram in grams]
    candidates = [
        _given_arm_precision(spectra, arm_precision, shared)
        for arm_precision, shared in _grid(precisions)
    ]
    best = max(candidates, key=lambda candidate: candidate.log_evidence)
    return _assembled(tuple(arms), axes, spectra, best)


@dataclass(frozen=True, eq=False)
class _Candidate:
    precisions: Precisions
    log_evidence: float
    noise_variance: float
    shared: NDArray[np.float64]


def _grid(precisions: Precisions | None) -> list[tuple[float, NDArray[np.float64]]]:
    if precisions is not None:
        return [(precisions.arm, np.array([precisions.shared]))]
    return [(arm_precision, np.array(PRECISIONS)) for arm_precision in PRECISIONS]


def _given_arm_precision(
    spectra: Sequence[Spectrum], arm_precision: float, shared: NDArray[np.float64]
) -> _Candidate:
    """The best of the shared precisions `(L,)` under one arm precision.

    With `S_k = A_k(A_k + λ1)⁻¹`, integrating the arms' own parts out leaves one ridge for θ_0
    with the matrix `M = λ1·ΣS_k` and the right-hand side `c = λ1·Σ(A_k + λ1)⁻¹b_k`.
    """
    values = np.stack([s.eigenvalues for s in spectra])  # (K, r)
    projected = np.stack([s.projected for s in spectra])
    shrunk = projected / (values + arm_precision)
    scale = np.sqrt(arm_precision * values / (values + arm_precision))
    stacked = np.concatenate([s.eigenvectors * f for s, f in zip(spectra, scale, strict=True)], 1)
    c = arm_precision * sum(s.eigenvectors @ f for s, f in zip(spectra, shrunk, strict=True))
    m, U = np.linalg.eigh(stacked @ stacked.T)
    m, uc = np.maximum(m, 0.0), U.T @ c
    rss = (
        sum(s.spread for s in spectra)
        - np.sum(projected * shrunk)
        - np.sum(uc**2 / (shared[:, None] + m), axis=1)
    )
    # Centring took one degree of freedom an arm.
    freedom = _WORTH + sum(max(0.0, s.observations - 1.0) for s in spectra)
    noise = (np.maximum(rss, 0.0) + _WORTH * _NOISE) / freedom
    log_determinants = np.sum(np.log1p(values / arm_precision)) + np.sum(
        np.log1p(m / shared[:, None]), axis=1
    )
    evidence = -0.5 * (freedom * np.log(noise) + log_determinants)
    evidence -= np.sqrt(noise / arm_precision) / _DEVIATION
    best = int(np.argmax(evidence))
    return _Candidate(
        precisions=Precisions(shared=float(shared[best]), arm=arm_precision),
        log_evidence=float(evidence[best]),
        noise_variance=float(noise[best]),
        shared=U @ (uc / (shared[best] + m)),
    )


def _assembled(
    arms: tuple[str, ...], axes: Components, spectra: Sequence[Spectrum], best: _Candidate
) -> RidgeFit:
    n = np.array([s.observations for s in spectra])
    means = arm_means(n, np.array([s.quality_sum for s in spectra]), best.noise_variance)
    context_sums = np.stack([s.context_sum for s in spectra])
    return RidgeFit(
        arms=arms,
        weights=np.stack([_coefficients(s, best) for s in spectra]) @ axes.projection.T,
        shared_weights=axes.projection @ best.shared,
        mean_quality=means.means,
        mean_context=(context_sums + axes.centre) / (n[:, None] + 1.0),
        observations=n,
        global_quality=means.common,
        global_context=axes.centre,
        mean_strength=means.strength,
        noise_variance=best.noise_variance,
        axes=axes,
        roots=np.stack(
            [s.eigenvectors / np.sqrt(s.eigenvalues + best.precisions.arm) for s in spectra]
        ),
        precisions=best.precisions,
        log_evidence=best.log_evidence,
    )


def _coefficients(arm: Spectrum, best: _Candidate) -> NDArray[np.float64]:
    """`θ_k = (A_k + λ1)⁻¹(b_k + λ1·θ_0)`, `(r,)`."""
    strength = best.precisions.arm
    pulled = arm.projected + strength * (arm.eigenvectors.T @ best.shared)
    coefficients: NDArray[np.float64] = arm.eigenvectors @ (pulled / (arm.eigenvalues + strength))
    return coefficients
