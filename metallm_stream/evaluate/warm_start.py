"""Warm starts: logged outcomes as evidence from before the first query.

Invariant: a prior is sums like any other, of events that each count less than a live label, so it
is merged by addition, forgotten by the same clocks, and outgrown by live evidence if it is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from metallm_stream.evaluate.outcomes import LoggedQuery
from metallm_stream.policy import Sums, Usage, usage_of_call

DEFAULT_WEIGHT = 0.1
DEFAULT_LIMIT = 50.0


def prior_weight(logged: Sequence[LoggedQuery], weight: float, limit: float) -> float:
    """What each outcome counts, of a live label's 1: `weight`, or less, to keep to the limit.

    No arm's outcomes count more than `limit` live labels together. Raises `ValueError` unless
    `weight` is in (0, 1] and `limit` positive and finite.
    """
    if not 0 < weight <= 1:
        raise ValueError(f"a logged outcome counts more than 0 and at most 1, got {weight!r}")
    if not 0 < limit < math.inf:
        raise ValueError(f"the limit must be positive and finite, got {limit!r}")
    judged: dict[str, int] = {}
    for line in logged:
        for arm, outcome in line.outcomes.items():
            judged[arm] = judged.get(arm, 0) + (outcome.quality is not None)
    return min(weight, limit / max(1, max(judged.values(), default=1)))


def prior(
    logged: Sequence[LoggedQuery],
    contexts: NDArray[np.floating],
    weight: float,
    clocks: Mapping[str, float] | None = None,
) -> Sums:
    """Sums in which each logged outcome counts `weight`.

    Qualities teach quality, costs teach costs; nothing is said of failures and latencies.

    Parameters
    ----------
    logged
        n queries with the outcomes of some or all arms.
    contexts
        Their encodings, `(n, d)`.
    weight
        What one outcome counts, of a live label's 1.
    clocks
        Where the arms' clocks stand (`Forgetting`); 0 by default.

    """
    now = clocks or {}
    sums = Sums(contexts.shape[1])
    for arm in sorted({arm for line in logged for arm in line.outcomes}):
        scale = now.get(arm, 0.0)
        rows, qualities = [], []
        usage = np.zeros(len(Usage))
        for row, line in enumerate(logged):
            outcome = line.outcomes.get(arm)
            if outcome is not None and outcome.quality is not None:
                rows.append(row)
                qualities.append(outcome.quality)
            if outcome is not None and outcome.cost is not None:
                usage += usage_of_call(cost_usd=outcome.cost, prompt_characters=len(line.text))
        usage[Usage.CALLS] = 0.0  # these are not calls of ours, of which some fail
        sums.add_usage(arm, weight * usage, scale)
        if rows:
            weights = np.full(len(rows), weight)
            sums.add_quality(arm, contexts[rows], qualities, weights, scale)
    return sums
