"""Who is asked again, who is labelled, how late, and what the labels' ways are: drawn beforehand.

Invariant: the schedule is a function of its arguments alone, so that a seed repeats a demo's users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MEAN_DELAY_S = 1.0
LONGEST_DELAY_S = 6.0
ASKED_AGAIN = 0.01
TWICE = 0.05
CORRECTED = 0.03


@dataclass(frozen=True, eq=False)
class Schedule:
    """What users do with n queries; all arrays are `(n,)`.

    Attributes
    ----------
    asked_again
        The very same query is sent a second time.
    labelled
        Feedback is given.
    delay_s
        From the result to its first feedback.
    twice
        The very same feedback is sent a second time.
    corrected
        The first feedback is wrong, and the right one follows.
    second_delay_s
        From the first feedback to the second, and from a query to its repetition.
    """

    asked_again: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    delay_s: NDArray[np.float64]
    twice: NDArray[np.bool_]
    corrected: NDArray[np.bool_]
    second_delay_s: NDArray[np.float64]


def schedule(queries: int, label_fraction: float, seed: int) -> Schedule:
    """Draw what users do.

    >>> users = schedule(1_000, label_fraction=0.5, seed=0)
    >>> 400 < users.labelled.sum() < 600 and not (users.twice & users.corrected).any()
    True
    """
    rng = np.random.default_rng([seed, 1])
    labelled = rng.random(queries) < label_fraction
    way = rng.random(queries)
    return Schedule(
        asked_again=rng.random(queries) < ASKED_AGAIN,
        labelled=labelled,
        delay_s=_delays(rng, queries),
        twice=labelled & (way < TWICE),
        corrected=labelled & (way >= 1 - CORRECTED),
        second_delay_s=_delays(rng, queries),
    )


def _delays(rng: np.random.Generator, queries: int) -> NDArray[np.float64]:
    return np.minimum(rng.exponential(MEAN_DELAY_S, queries), LONGEST_DELAY_S)
