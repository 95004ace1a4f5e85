"""How the cost of a call grows with the length of its prompt, and how sure a mean cost is.

Invariant: estimates are a function of the sums of usage alone; without any, cost does not depend on
length. What is expected is positive for any length, and at the mean length it is the mean.

Lengths of real prompts differ by factors, and costs with them. An arm that was asked a few long
questions looks dear, and one that is asked the short ones only looks cheap, unless both are told
apart from the arm's own price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.usage import NOTHING, Usage

Floats = NDArray[np.float64]
# What speaks for costs that do not depend on length, in calls of prompts of very different length.
_WORTH_OF_NONE = 5.0
# What is believed of the squared coefficient of variation of a cost, and for how many calls.
_VARIATION, _WORTH = 0.3, 10.0
# Of what length says of a query's cost, so much counts when arms are weighed. A mean cost guards
# against arms whose quality is overrated, in all queries alike; cheap short ones would go to them.
_WEIGHED = 0.5
# Costs of the shortest prompts stay above this part of the mean's.
_LEAST = 0.01
# A variation that says that nothing is known of a cost.
_MOST = 1_000.0
_OF_LENGTH = [Usage.COST_CALLS, Usage.LENGTH_CALLS, Usage.LENGTH]


@dataclass(frozen=True)
class CostCurve:
    """Costs `c_k · f(L)/f(L_k)` of arms k for prompts of length L, with `f(L) = 1 + e·(L/L̄ − 1)`.

    c_k and L_k are the means of the arm's own calls, and L̄ is that of all arms' calls. The
    elasticity e at L̄ is the same for all arms: near 1 where cost is proportional to the prompt, and
    0 where it does not depend on it.

    Attributes
    ----------
    elasticity
        e.
    variation
        Squared coefficient of variation of a cost around what its length says.
    length
        Mean length of the prompts of all arms, in thousands of characters; None if not known.

    """

    elasticity: float = 0.0
    variation: float = _VARIATION
    length: float | None = None

    @classmethod
    def of(cls, usage: Floats) -> CostCurve:
        """The curve of K arms from their sums of usage, `(K, len(Usage))`.

        >>> calls = np.zeros((1, len(Usage)))
        >>> for length in (1.0, 2.0, 3.0) * 20:  # at 0.5 USD for a thousand characters
        ...     cost = 0.5 * length
        ...     calls[0, Usage.COST_CALLS : Usage.TOKEN_CALLS] += 1, cost, cost**2
        ...     calls[0, Usage.LENGTH_CALLS :] += 1, length, length**2, cost, length * cost
        >>> curve = CostCurve.of(calls)
        >>> round(curve.elasticity, 2), curve.length
        (0.67, 2.0)
        """
        columns = np.maximum(usage, 0.0).T
        n, length, squared, cost, product = columns[Usage.LENGTH_CALLS :]
        known = (n > NOTHING) & (length * cost > 0)
        if not known.any():
            return cls()
        n, length, squared, cost, product = (
            column[known] for column in (n, length, squared, cost, product)
        )
        # Of lengths and costs in units of the arm's means, less 1.
        spread = np.maximum(squared * n**2 / length**2 - n, 0.0)
        together = product * n**2 / (length * cost) - n
        slope = together.sum() / (spread.sum() + _WORTH_OF_NONE)
        elasticity = float(np.clip(slope, 0.0, 1.0 - _LEAST))
        calls, total, squares = columns[Usage.COST_CALLS : Usage.TOKEN_CALLS, known]
        apart = np.maximum(squares * calls**2 / np.maximum(total, NOTHING * cost) ** 2 - calls, 0)
        left = float(np.sum(apart - 2 * elasticity * together + elasticity**2 * spread))
        freedom = float(np.maximum(calls - 1.0, 0.0).sum())
        variation = (max(0.0, left) + _WORTH * _VARIATION) / (freedom + _WORTH)
        return cls(elasticity, min(variation, _MOST), float(length.sum() / n.sum()))

    def at_mean_length(self, lengths: Floats) -> Floats:
        """What mean costs of arms with mean lengths `(K,)` are multiplied by, `(K,)`.

        That makes them means over the same prompts; lengths that are not known are NaN.
        """
        known = self.of_queries(np.nan_to_num(lengths, nan=self.length or 0.0))
        return np.reciprocal(known)

    def own_lengths(self, usage: Floats) -> Floats:
        """Mean length of the prompts behind each arm's mean cost, `(K,)`, given its sums.

        Calls of unknown length, and one more, count as of the mean length. NaN where that is not
        known either.
        """
        calls, n, length = np.maximum(usage.T[_OF_LENGTH], 0.0)
        others = np.maximum(calls - n, 0.0) + 1.0
        mean = np.nan if self.length is None else self.length
        lengths: Floats = (length + others * mean) / (n + others)
        return lengths

    def of_queries(self, lengths: Floats) -> Floats:
        """What costs at the mean length are multiplied by for prompts of these lengths, `(n,)`."""
        if not self.length:
            return np.ones_like(lengths)
        return 1.0 + self.elasticity * (lengths / self.length - 1.0)

    def weighed(self, of_queries: Floats) -> Floats:
        """The part of `of_queries` that counts when arms are weighed against each other."""
        return 1.0 + _WEIGHED * (of_queries - 1.0)

    def variance(self, weighed_cost: Floats, calls: Floats) -> Floats:
        """Variance of a mean over so many calls, where the mean is weighed like this, `(n, K)`.

        The variance of the mean cost in units of utility: with few calls one dear one misleads.
        """
        return np.square(weighed_cost) * (self.variation / (calls + 0.5))
