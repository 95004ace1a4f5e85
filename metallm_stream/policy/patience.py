"""How long arms are waited for whose answers nobody judges while those of others are.

Invariant: an arm whose labels have come, or are not overdue, is left alone, and whoever is waited
for keeps some probability: what others are worth can only be told beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs

# Where others' labels have come, an arm without is waited for while its calls would have brought no
# more than these.
LABELS_AN_ARM = 10.0


def patience(beliefs: Beliefs) -> NDArray[np.float64]:
    """What each arm keeps of its weight, `(K,)`: 1 but where labels due are missing.

    The longer it is waited for m arms, the nearer they come to sharing what one would keep.
    """
    waited = LABELS_AN_ARM * np.square(beliefs.observations + 1.0)
    due = beliefs.label_share * (beliefs.calls + 1.0)
    few = beliefs.observations < LABELS_AN_ARM
    kept: NDArray[np.float64] = np.where(few, waited / np.maximum(due, waited), 1.0)
    lost = 1.0 - kept
    shared: NDArray[np.float64] = kept / (1.0 + lost * (lost.sum() - lost))
    return shared


def at_least(
    utility: NDArray[np.float64], headroom: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """What each arm brings even if its answers are worthless, `(n, K)`; -inf if that is not known.

    A perfect answer is worth 1 more than a worthless one; of an arm that lacks more than 1 to be
    perfect, rewards are below 0 as well.
    """
    if headroom is None:
        return np.full(utility.shape, -np.inf)
    return np.where(headroom <= 1.0, utility + (headroom - 1.0), -np.inf)


def patiently(
    beliefs: Beliefs,
    allowed: NDArray[np.bool_],
    rule: Callable[[NDArray[np.bool_]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    """What a rule gives to each arm, `(n, K)`, where it thinks of one as often as patience says.

    The rule is asked with the arms `(n, K)` that it may think of; those that keep about as much,
    up to twice, are thought of together, so that it is not asked for each. An arm that is expected
    to bring more, even if its answers are worthless, than the best of those whose labels come is
    always thought of.
    """
    kept = patience(beliefs)
    if (kept == 1.0).all():
        return rule(allowed)
    _, alike = np.unique(np.frexp(kept)[1], return_inverse=True)
    kept = (np.bincount(alike, kept) / np.bincount(alike))[alike]
    known = np.where(allowed & (kept == 1.0), beliefs.utility, -np.inf)
    least = at_least(beliefs.utility, beliefs.headroom)
    thought = np.where(least >= known.max(axis=1, keepdims=True), 1.0, kept)
    shares, done = np.zeros(allowed.shape), 0.0
    for part in np.unique(np.append(kept, 1.0)).tolist():
        shares += (part - done) * rule(allowed & (thought >= part))
        done = part
    return shares
