"""A published policy: what routers need to predict quality, cost and latency, and its wire form.

Invariant: `from_records(to_records(…))` predicts what was published, up to the float32 of the
wire, and every arm of a catalogue gets a prediction, whether the policy has seen it or not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metallm_stream.errors import InvalidEvent
from metallm_stream.events import Model, PolicyArm, PolicyManifest, Price
from metallm_stream.policy.costs import CostCurve
from metallm_stream.policy.ridge import RidgeFit
from metallm_stream.policy.scorer import Scorer, Scores
from metallm_stream.policy.sums import Sums
from metallm_stream.policy.usage import CHARACTERS, Usage, mean_of

# Choosers divide by the noise, and a policy of equal qualities has none.
_LEAST_NOISE = 1e-6
# Qualities are about 0 to 1, and as float32 contexts differ by 1e-7 at least, an ordinary one lies
# no more than so many times their spread away.
_LARGEST = 1e8


@dataclass(frozen=True, eq=False)
class Published:
    """One version of a learned policy, ready to score batches of queries.

    Arms of the catalogue that the policy has never seen are scored by what all arms share (θ_0
    and the global means) and count 0 observations; arms that left the catalogue are not asked.

    Attributes
    ----------
    manifest
        The head: name, version, encoder, priors, θ_0.
    records
        The arms' records by name: means of tokens, cost and latency, calls, failures.
    scorer
        Predicts quality from contexts, and its uncertainty; float32 weights.

    """

    manifest: PolicyManifest
    records: Mapping[str, PolicyArm]
    scorer: Scorer

    @classmethod
    def from_records(cls, manifest: PolicyManifest, arms: Iterable[PolicyArm]) -> Self:
        """Read a policy off the wire: the head and the record of each arm that it lists.

        Raises `InvalidEvent` if an arm is missing, of another version or of another dimension.
        """
        records = {record.arm: record for record in arms}
        for arm in manifest.arms:
            if arm not in records or records[arm].version != manifest.version:
                raise InvalidEvent(f"policy version {manifest.version} lacks its arm {arm!r}")
        if len(set(manifest.arms)) < len(manifest.arms):
            raise InvalidEvent(f"policy version {manifest.version} lists an arm twice")
        rows = [records[arm] for arm in manifest.arms]
        with np.errstate(all="ignore"):  # what comes of absurd numbers is refused below
            scorer = _scorer(manifest, rows)
        _check(scorer, manifest)
        return cls(manifest, {record.arm: record for record in rows}, scorer)

    @property
    def version(self) -> int:
        """Version of the policy; grows with every publication."""
        return self.manifest.version

    @property
    def encoder(self) -> str:
        """Identity of the encoder whose contexts this policy understands."""
        return self.manifest.encoder

    @property
    def label_share(self) -> float:
        """Labelled events a call so far, in (0, 1]; 1 before any call."""
        calls = sum(record.calls for record in self.records.values())
        labels = sum(record.observations for record in self.records.values())
        return min(1.0, (labels + 1.0) / (calls + 1.0))

    def scores(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Scores:
        """Predicted quality and how sure it is, of contexts `(n, d)` by the named arms."""
        return self.scorer.scores(contexts, arms)

    def observed(self, arms: Sequence[str]) -> NDArray[np.float64]:
        """Labelled events of the named arms, `(K,)`."""
        return self.scorer.observed(arms)

    def cost_usd(self, catalogue: Mapping[str, Model]) -> NDArray[np.float64]:
        """Expected cost of a prompt of mean length, USD, `(K,)`, in the catalogue's order.

        The first of these that is known: the arm's price × its mean tokens; its mean booked cost;
        its price × the other arms' mean tokens; the least cost known of any arm, so that it is
        called once and known; 0.
        """
        others = self._mean_tokens()
        costs: list[float | None] = []
        for arm, model in catalogue.items():
            record = self.records.get(arm)
            tokens = _tokens(record)
            booked = record.cost_usd if record is not None else None
            if model.price is not None and tokens is not None:
                costs.append(_priced(model.price, tokens))
            elif booked is not None:
                costs.append(booked)
            elif model.price is not None and others is not None:
                costs.append(_priced(model.price, others))
            else:
                costs.append(None)
        factors = self.cost_curve.at_mean_length(self._lengths(catalogue)).tolist()
        pairs = zip(costs, factors, strict=True)
        return _with_least([None if cost is None else cost * factor for cost, factor in pairs])

    @property
    def cost_curve(self) -> CostCurve:
        """How costs depend on the prompt's length; not at all in policies of older learners."""
        head = self.manifest
        if head.cost_elasticity is None or head.cost_variation is None:
            return CostCurve()
        length = None if head.prompt_characters is None else head.prompt_characters / CHARACTERS
        return CostCurve(head.cost_elasticity, head.cost_variation, length)

    def calls(self, catalogue: Mapping[str, Model]) -> NDArray[np.float64]:
        """Calls of each arm so far, `(K,)`."""
        records = [self.records.get(arm) for arm in catalogue]
        return np.array([r.calls if r is not None else 0.0 for r in records], dtype=np.float64)

    def latency_s(self, catalogue: Mapping[str, Model]) -> NDArray[np.float64]:
        """Expected latency of one call, seconds, `(K,)`: the mean, else the least, else 0."""
        known = [self.records.get(arm) for arm in catalogue]
        return _with_least([r.latency_s if r is not None else None for r in known])

    def _lengths(self, catalogue: Mapping[str, Model]) -> NDArray[np.float64]:
        """Mean length of each arm's prompts in thousands of characters, `(K,)`, NaN if unknown."""
        records = [self.records.get(arm) for arm in catalogue]
        known = [r.prompt_characters if r is not None else None for r in records]
        return np.array([np.nan if n is None else n / CHARACTERS for n in known], dtype=np.float64)

    def _mean_tokens(self) -> tuple[float, float] | None:
        known = [t for t in map(_tokens, self.records.values()) if t is not None]
        if not known:
            return None
        return sum(t[0] for t in known) / len(known), sum(t[1] for t in known) / len(known)


def to_records(
    fit: RidgeFit,
    sums: Sums,
    *,
    policy: str,
    version: int,
    published_at: datetime,
    encoder: str,
) -> tuple[PolicyManifest, tuple[PolicyArm, ...]]:
    """A fit, and the usage in the sums, as the records to publish: the head and one an arm."""
    usages = np.stack([sums.usage(arm) for arm in fit.arms])
    curve = CostCurve.of(usages)
    lengths = (curve.own_lengths(usages) * CHARACTERS).tolist()
    manifest = PolicyManifest(
        policy=policy,
        version=version,
        published_at=published_at,
        encoder=encoder,
        dimensions=sums.dimensions,
        arms=fit.arms,
        observations=float(fit.observations.sum()),
        mean_quality=fit.global_quality,
        shared_weights=_raw(fit.shared_weights),
        projection=_raw(fit.axes.projection),
        mean_strength=fit.mean_strength,
        noise_variance=fit.noise_variance,
        shared_precision=fit.precisions.shared,
        arm_precision=fit.precisions.arm,
        log_evidence=fit.log_evidence,
        cost_elasticity=curve.elasticity,
        cost_variation=curve.variation,
        prompt_characters=None if curve.length is None else curve.length * CHARACTERS,
    )
    return manifest, tuple(
        _arm_record(fit, row, usages[row], length, policy=policy, version=version)
        for row, length in enumerate(lengths)
    )


def _arm_record(
    fit: RidgeFit, row: int, usage: NDArray[np.float64], length: float, *, policy: str, version: int
) -> PolicyArm:
    failures = mean_of(usage, Usage.FAILURES, Usage.CALLS)
    return PolicyArm(
        policy=policy,
        version=version,
        arm=fit.arms[row],
        observations=float(fit.observations[row]),
        mean_quality=float(fit.mean_quality[row]),
        weights=_raw(fit.weights[row]),
        mean_context=_raw(fit.mean_context[row]),
        covariance_root=_raw(fit.roots[row]),
        calls=max(0.0, float(usage[Usage.CALLS])),
        cost_usd=mean_of(usage, Usage.COST_USD, Usage.COST_CALLS),
        input_tokens=mean_of(usage, Usage.INPUT_TOKENS, Usage.TOKEN_CALLS),
        output_tokens=mean_of(usage, Usage.OUTPUT_TOKENS, Usage.TOKEN_CALLS),
        latency_s=mean_of(usage, Usage.LATENCY_S, Usage.LATENCY_CALLS),
        failure_rate=None if failures is None else min(1.0, failures),
        prompt_characters=None if math.isnan(length) else length,
    )


def _raw(vector: NDArray[np.float64]) -> bytes:
    return vector.astype("<f4").tobytes()


def _scorer(manifest: PolicyManifest, rows: Sequence[PolicyArm]) -> Scorer:
    d = manifest.dimensions
    shared = _vector(manifest.shared_weights, d)  # of the right length before anything is made
    contexts = np.stack([*(_vector(r.mean_context, d) for r in rows), np.zeros(d, np.float32)])
    n = np.array([*(r.observations for r in rows), 0.0])
    contexts[-1] = n @ contexts / (n.sum() or 1.0)
    projection, roots = _axes(manifest, rows)
    return Scorer(
        arms=manifest.arms,
        weights=np.stack([*(_vector(r.weights, d) for r in rows), shared]),
        mean_context=contexts,
        mean_quality=np.array([*(r.mean_quality for r in rows), manifest.mean_quality]),
        observations=n,
        projection=projection,
        roots=roots,
        mean_strength=manifest.mean_strength or 1.0,
        noise_variance=max(manifest.noise_variance, _LEAST_NOISE),
    )


def _check(scorer: Scorer, manifest: PolicyManifest) -> None:
    """Raise `InvalidEvent` where scores of ordinary contexts would be out of all proportion."""
    d = manifest.dimensions
    probes = np.stack((np.zeros(d), np.full(d, d**-0.5), np.eye(1, d)[0])).astype(np.float32)
    with np.errstate(all="ignore"):
        scores = scorer.scores(probes, [*manifest.arms, ""])
        events = scorer.observations.sum()
    sane = np.abs(scores.quality) < _LARGEST
    sane &= (scores.uncertainty > 1 / _LARGEST**2) & (scores.uncertainty < _LARGEST**2)
    if not (sane.all() and events < _LARGEST**2):
        raise InvalidEvent(f"policy version {manifest.version} predicts what cannot be")


def _axes(
    manifest: PolicyManifest, rows: Sequence[PolicyArm]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The projection `(d, r)` and the roots `(K + 1, r, r)`; of rank 0 where there are none."""
    d = manifest.dimensions
    if manifest.projection is None or any(row.covariance_root is None for row in rows):
        return np.zeros((d, 0), np.float32), np.zeros((len(rows) + 1, 0, 0), np.float32)
    rank = len(manifest.projection) // (4 * d)
    projection = _vector(manifest.projection, d * rank).reshape(d, rank)
    other = np.eye(rank, dtype=np.float32) / np.float32(np.sqrt(manifest.arm_precision))
    known = [_vector(row.covariance_root or b"", rank * rank) for row in rows]
    return projection, np.stack([*(root.reshape(rank, rank) for root in known), other])


def _vector(raw: bytes, dimensions: int) -> NDArray[np.float32]:
    if len(raw) != 4 * dimensions:
        raise InvalidEvent(f"a policy vector has {len(raw)} bytes instead of {4 * dimensions}")
    vector = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if not np.isfinite(vector).all():
        raise InvalidEvent("a policy vector is not finite")
    return vector


def _tokens(record: PolicyArm | None) -> tuple[float, float] | None:
    if record is None or record.input_tokens is None or record.output_tokens is None:
        return None
    return record.input_tokens, record.output_tokens


def _priced(price: Price, tokens: tuple[float, float]) -> float:
    per_token = price.input_usd_per_mtok * tokens[0] + price.output_usd_per_mtok * tokens[1]
    return per_token / 1_000_000 + price.call_usd


def _with_least(known: Sequence[float | None]) -> NDArray[np.float64]:
    """The known values, and the least of them (0 if there is none) where there is none."""
    least = min((value for value in known if value is not None), default=0.0)
    return np.array([least if value is None else value for value in known], dtype=np.float64)
