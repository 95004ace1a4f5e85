"""From sums to weights: ridge regressions that share a direction, with priors chosen by evidence.

Invariant: a fit is a function of the sums alone, whatever the order, batches or shards in which
the events came; without events, or with one, it predicts the global mean.

Hard queries are hard for every arm, so the arms' weights are `θ_k = θ_0 + δ_k` with the priors
`θ_0 ~ N(0, σ²/λ0)` and `δ_k ~ N(0, σ²/λ1)`. Both precisions are those of highest marginal
likelihood; strong ones turn the fit into the mean of each arm.

References
----------
Evgeniou & Pontil (2004), Regularized multi-task learning, section 3.
MacKay (1992), Bayesian interpolation, section 4.

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.scorer import Scorer
from metallm_stream.policy.spectra import Spectrum, spectrum
from metallm_stream.policy.sums import Sums

# Decades: a finer grid gained nothing measurable. Contexts have unit norm, so that the strongest
# leaves nothing but the arms' means of any real stream.
PRECISIONS = tuple(float(10.0**step) for step in range(-1, 6))
# What is believed of the noise before any event: one observation with this variance. It makes
# the evidence a proper one, where with few or with equal qualities `ln(rss)` would run away.
_PRIOR_NOISE = 0.1
_PRIOR_MEAN = 0.5


@dataclass(frozen=True)
class Precisions:
    """Strengths of the priors, in units of the noise: `shared` is λ0, `arm` is λ1."""

    shared: float
    arm: float


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """What the sums say about quality: `mean_k + (x − x̄_k)·θ_k` for K arms.

    Attributes
    ----------
    arms
        Names of the K arms, in the order of the rows below.
    weights, shared_weights
        θ, `(K, d)`, and θ_0, `(d,)`.
    mean_quality, mean_context
        `(K,)` and `(K, d)`, drawn to the global means by one pseudo-observation.
    observations
        Labelled events, `(K,)`.
    global_quality, global_context
        Means over all labelled events, a number and `(d,)`.
    noise_variance
        σ² of a quality around its prediction.
    precisions, log_evidence
        The priors in force, and the log marginal likelihood up to a constant.
    spectra
        What the next fit may take over for arms that did not change.

    """

    arms: tuple[str, ...]
    weights: NDArray[np.float64]
    shared_weights: NDArray[np.float64]
    mean_quality: NDArray[np.float64]
    mean_context: NDArray[np.float64]
    observations: NDArray[np.float64]
    global_quality: float
    global_context: NDArray[np.float64]
    noise_variance: float
    precisions: Precisions
    log_evidence: float
    spectra: tuple[Spectrum, ...]

    def scorer(self) -> Scorer:
        """The fit in the form that scores batches; θ_0 and the global means for other arms."""
        return Scorer(
            arms=self.arms,
            weights=np.vstack((self.weights, self.shared_weights)),
            mean_context=np.vstack((self.mean_context, self.global_context)),
            mean_quality=np.append(self.mean_quality, self.global_quality),
            observations=np.append(self.observations, 0.0),
        )


def fit(
    sums: Sums,
    arms: Sequence[str],
    *,
    precisions: Precisions | None = None,
    previous: RidgeFit | None = None,
) -> RidgeFit:
    """Fit `arms` to their sums.

    Parameters
    ----------
    sums
        Sums of labelled events; arms without any are fitted by the priors alone.
    arms
        At least one name; the rows of the fit are in this order.
    precisions
        Keep these prior strengths; default: those of highest evidence among `PRECISIONS`.
    previous
        An earlier fit: arms whose sums are still the same are not diagonalised again. It saves
        time and changes nothing else.

    """
    if not arms:
        raise ValueError("cannot fit without arms: name at least one")
    known = dict(zip(previous.arms, previous.spectra, strict=True)) if previous else {}
    spectra = tuple(_spectrum(sums.gram(arm), known.get(arm)) for arm in arms)
    candidates = [
        _given_arm_precision(spectra, arm_precision, shared)
        for arm_precision, shared in _grid(precisions)
    ]
    best = max(candidates, key=lambda candidate: candidate.log_evidence)
    return _assembled(tuple(arms), spectra, best)


@dataclass(frozen=True, eq=False)
class _Candidate:
    precisions: Precisions
    log_evidence: float
    noise_variance: float
    shared_weights: NDArray[np.float64]


def _spectrum(gram: NDArray[np.float64], known: Spectrum | None) -> Spectrum:
    if known is not None and np.array_equal(known.gram, gram):
        return known
    return spectrum(gram)


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
    values = np.stack([s.eigenvalues for s in spectra])  # (K, d)
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
    # Centring took one degree of freedom an arm; the prior on the noise adds one to all.
    freedom = 1.0 + sum(max(0.0, s.observations - 1.0) for s in spectra)
    noise = (np.maximum(rss, 0.0) + _PRIOR_NOISE) / freedom
    log_determinants = np.sum(np.log1p(values / arm_precision)) + np.sum(
        np.log1p(m / shared[:, None]), axis=1
    )
    evidence = -0.5 * (freedom * np.log(noise) + log_determinants)
    best = int(np.argmax(evidence))
    return _Candidate(
        precisions=Precisions(shared=float(shared[best]), arm=arm_precision),
        log_evidence=float(evidence[best]),
        noise_variance=float(noise[best]),
        shared_weights=U @ (uc / (shared[best] + m)),
    )


def _assembled(arms: tuple[str, ...], spectra: tuple[Spectrum, ...], best: _Candidate) -> RidgeFit:
    n = np.array([s.observations for s in spectra])
    context_sums = np.stack([s.context_sum for s in spectra])
    quality_sums = np.array([s.quality_sum for s in spectra])
    total = float(n.sum())
    global_quality = float(quality_sums.sum()) / total if total else _PRIOR_MEAN
    global_context = context_sums.sum(axis=0) / (total or 1.0)
    return RidgeFit(
        arms=arms,
        weights=np.stack([_arm_weights(s, best) for s in spectra]),
        shared_weights=best.shared_weights,
        mean_quality=(quality_sums + global_quality) / (n + 1.0),
        mean_context=(context_sums + global_context) / (n[:, None] + 1.0),
        observations=n,
        global_quality=global_quality,
        global_context=global_context,
        noise_variance=best.noise_variance,
        precisions=best.precisions,
        log_evidence=best.log_evidence,
        spectra=spectra,
    )


def _arm_weights(arm: Spectrum, best: _Candidate) -> NDArray[np.float64]:
    """`θ_k = (A_k + λ1)⁻¹(b_k + λ1·θ_0)`, `(d,)`."""
    strength = best.precisions.arm
    pulled = arm.projected + strength * (arm.eigenvectors.T @ best.shared_weights)
    weights: NDArray[np.float64] = arm.eigenvectors @ (pulled / (arm.eigenvalues + strength))
    return weights
