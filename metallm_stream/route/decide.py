"""A batch of queries becomes decisions, each with a propensity and a ranking to fall back on.

Invariant: the logged propensity is the probability with which the arm was really drawn, after all
of the query's constraints, and the candidates' probabilities add up to 1. Nothing but the
arguments decides: the same generator state gives the same decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import numpy as np
from numpy.typing import NDArray

from metallm_stream.arms import Catalogue
from metallm_stream.errors import ConfigurationError
from metallm_stream.policy import Beliefs, Chooser, Published, sample
from metallm_stream.route.arrival import Arrival
from metallm_stream.route.constraints import constrain
from metallm_stream.route.outages import NO_PROBE, Down, Outages
from metallm_stream.route.outlook import Outlook
from metallm_stream.route.paced import at_once, paced
from metallm_stream.route.pacer import Pacer
from metallm_stream.route.records import REFUSED, Decided, Drawn, records
from metallm_stream.route.trade_off import TradeOff

PROBE_SHARE = 0.5  # the probability that a query's probe is drawn
LEAST_SHARE = 2.0**-53  # no smaller one is ever drawn


def decide(
    arrivals: Sequence[Arrival],
    contexts: NDArray[np.float32],
    *,
    catalogue: Catalogue,
    published: Published | None,
    chooser: Chooser,
    defaults: TradeOff,
    rng: np.random.Generator,
    now: datetime,
    encoder: str,
    pacer: Pacer | None = None,
    outages: Outages | None = None,
) -> list[Decided]:
    """Decide n queries with contexts `(n, d)`, in order.

    A query that no arm is left for is refused with the reasons. While there is no policy, every
    allowed arm has the same utility and no observations. One number is drawn from `rng` for each
    query that is not refused. With a `pacer` its budgets hold, and it notes what was decided.

    Arms that `outages` finds down are left out where a query has others. The query that probes such
    an arm takes it with probability `PROBE_SHARE`, and else chooses among the others as usual; its
    propensities say so.

    Raises `ConfigurationError` if the policy was learned with another encoder, and `ValueError`
    if there is not one context a query.
    """
    _check(published, encoder, contexts, len(arrivals))
    queries = [arrival.query for arrival in arrivals]
    lengths = np.array([arrival.characters for arrival in arrivals], dtype=np.float64)
    outlook = Outlook.of(published, catalogue.arms, contexts, lengths)
    models = list(catalogue.arms.values())
    constraints = constrain(queries, lengths, models, outlook)
    down = Down.none(len(models)) if outages is None else outages.down(models, now)
    allowed, probes = down.avoid(constraints)
    cost_weight, latency_weight = defaults.weights(queries)
    utility = outlook.utility(cost_weight, latency_weight, defaults.latency_scale_s)
    beliefs = outlook.beliefs(utility, cost_weight, list(catalogue))
    beliefs = replace(beliefs, contexts=contexts)
    choose = partial(_choose, beliefs, chooser, probes, rng)
    if pacer is None:
        choices = at_once(constraints, allowed, utility, choose)
    else:
        choices = paced(pacer, arrivals, constraints, allowed, utility, outlook, choose, now)
    if outages is not None:
        for k in probes[(probes != NO_PROBE) & (choices.chosen == probes)]:
            outages.probe(models[k].arm, now)
    weights = (cost_weight, latency_weight)
    return records(
        arrivals, Drawn(outlook, choices, *weights, contexts, now, encoder, chooser.name)
    )


def _choose(
    beliefs: Beliefs,
    chooser: Chooser,
    probes: NDArray[np.int64],
    rng: np.random.Generator,
    rows: slice,
    utility: NDArray[np.float64],
    allowed: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The probabilities `(m, K)` of the queries at `rows`, and the arms drawn from them, `(m,)`."""
    probed = _probed(probes[rows], allowed)
    probabilities = _probabilities(
        replace(beliefs[rows], utility=utility), allowed & ~probed, chooser
    )
    mixed = probed.any(axis=1)
    probabilities[mixed] *= 1 - PROBE_SHARE
    probabilities[probed] = PROBE_SHARE
    return probabilities, _draw(probabilities, rng)


def _probed(probes: NDArray[np.int64], allowed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where an arm is probed, `(m, K)`: it is allowed still, and so is another."""
    probed = np.zeros_like(allowed)
    rows = np.flatnonzero((probes != NO_PROBE) & (allowed.sum(axis=1) > 1))
    probed[rows, probes[rows]] = True
    return probed & allowed


def _probabilities(
    beliefs: Beliefs, allowed: NDArray[np.bool_], chooser: Chooser
) -> NDArray[np.float64]:
    """The chooser's probabilities, `(n, K)`; rows without an allowed arm are 0 throughout."""
    if allowed.size and allowed.all():
        return _drawable(chooser.probabilities(beliefs, None))
    answered = np.asarray(allowed.any(axis=1))
    probabilities = np.zeros(allowed.shape)
    if answered.any():
        chosen = chooser.probabilities(beliefs[answered], allowed[answered])
        probabilities[answered] = _drawable(chosen)
    return probabilities


def _drawable(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shares in [0, 1]; what cannot be drawn has 0, since SQL can divide by no number so small."""
    return np.where(shares < LEAST_SHARE, 0.0, np.minimum(shares, 1.0))


def _draw(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """The arm drawn for each query, `(n,)`, `REFUSED` where none has a probability."""
    chosen = np.full(len(probabilities), REFUSED, dtype=np.int64)
    answered = probabilities.any(axis=1)
    if answered.any():
        chosen[answered] = sample(probabilities[answered], rng)
    return chosen


def _check(
    published: Published | None, encoder: str, contexts: NDArray[np.float32], n: int
) -> None:
    if contexts.ndim != 2 or len(contexts) != n:
        raise ValueError(f"expected {n} contexts, one a query, got an array {contexts.shape}")
    if published is None:
        return
    here = (encoder, contexts.shape[1])
    there = (published.encoder, published.manifest.dimensions)
    if here != there:
        raise ConfigurationError(
            f"encoder: policy version {published.version} was learned on {there[0]!r}"
            f" ({there[1]} dimensions), but this router encodes with {here[0]!r} ({here[1]});"
            " set the learner's encoder here, or start a new policy"
        )
