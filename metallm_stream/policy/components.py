"""The directions in which contexts differ most, found from the sums of all arms together.

Invariant: components are a function of the sums alone, finite for any sums, also for none, for one
event or for equal contexts; on average over the labelled events a feature vector has length 1.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.usage import NOTHING

# More than these gained nothing measurable on streams of some thousand queries, and a fit's time
# grows with their cube.
RANK = 32
# Half way between features as they are and whitened ones' opposite: the prior's variance of a
# direction grows with the square root of the contexts' variance in it, so that what separates
# kinds of queries is learned first.
_EMPHASIS = 0.5


@dataclass(frozen=True, eq=False)
class Components:
    """Features `(x − centre)·projection` of a context x.

    Attributes
    ----------
    centre
        The mean context of all labelled events, `(d,)`.
    projection
        `(d, r)`: principal components, each scaled by the root of its prior variance.

    """

    centre: NDArray[np.float64]
    projection: NDArray[np.float64]

    def features(self, contexts: NDArray[np.floating]) -> NDArray[np.floating]:
        """Features `(n, r)` of contexts `(n, d)`."""
        projected: NDArray[np.floating] = contexts @ self.projection - self.centre @ self.projection
        return projected


def components(grams: Sequence[NDArray[np.float64]]) -> Components:
    """The leading principal components of the contexts in the arms' sums `G`, `(d + 2, d + 2)`.

    >>> found = components([np.array([[2.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])])
    >>> np.abs(found.features(np.array([[0.0], [2.0]]))).round(6)  # of the contexts 0 and 2
    array([[1.],
           [1.]])

    References
    ----------
    Hotelling (1933), Analysis of a complex of statistical variables into principal components.

    """
    total = functools.reduce(np.add, grams)  # one after the other: there may be many
    d, n = len(total) - 2, float(total[0, 0])
    projection = np.zeros((d, min(RANK, d)))
    if n < NOTHING:
        return Components(np.zeros(d), projection)
    centre = total[0, 1 : d + 1] / n
    moments = total[1 : d + 1, 1 : d + 1] / n
    variances, directions = np.linalg.eigh(moments - np.outer(centre, centre))
    # Round-off, which grows with the sums, is all that is left in directions without spread.
    largest = float(np.abs(moments).max(initial=0.0))
    round_off = np.finfo(float).eps * (d + 2) * max(1.0, n) * largest
    kept = np.flatnonzero(variances > round_off)[::-1][:RANK]
    prior = variances[kept] ** _EMPHASIS
    prior /= max(float(prior @ variances[kept]), np.finfo(float).tiny)
    projection[:, : len(kept)] = directions[:, kept] * np.sqrt(prior)
    return Components(centre, projection)
