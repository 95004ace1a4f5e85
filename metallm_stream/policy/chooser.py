"""From beliefs to probabilities: what every rule of choice promises, and how one is drawn from.

Invariant: probabilities are those with which arms are really drawn, so that the logged
propensities can be trusted by any later estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import RiverPart, RiverState
from metallm_stream.policy.beliefs import Beliefs


class Chooser(Protocol):
    """A rule of choice: pure, and the same for one query as for a batch."""

    @property
    def name(self) -> str:
        """The name under which the registry knows it."""

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Probability of each arm for each query, `(n, K)`; rows sum to 1 over the allowed arms.

        Parameters
        ----------
        beliefs
            About n queries and K arms; finite where allowed.
        allowed
            Which arms each query may use, `(n, K)`, at least one a row; None stands for all.

        """


@runtime_checkable
class Stateful(Protocol):
    """A rule of choice that follows a state of its own, published with the policy."""

    def adopt(self, state: RiverState, parts: Mapping[int, RiverPart]) -> None:
        """Choose by this state from now on. Raises `InvalidEvent` if it is not whole."""


def sample(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one arm a row, `(n,)`, from probabilities `(n, K)`; one uniform number a row.

    >>> sample(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), np.random.default_rng(7))
    array([1, 0])
    """
    cumulated = probabilities.cumsum(axis=1)
    drawn = rng.random((len(cumulated), 1)) * cumulated[:, -1:]
    chosen: NDArray[np.int64] = (cumulated > drawn).argmax(axis=1)
    return chosen


def even(allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The same share for each allowed arm, `(n, K)`."""
    shares: NDArray[np.float64] = allowed / allowed.sum(axis=1, keepdims=True)
    return shares


def best(values: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """All of each row's probability on the allowed arm of the largest value; ties share it evenly.

    >>> best(np.array([[1.0, 1.0, 2.0]]), np.array([[True, True, False]]))
    array([[0.5, 0.5, 0. ]])
    """
    masked = np.where(allowed, values, -np.inf)
    return even(masked == masked.max(axis=1, keepdims=True))


def floored(
    shares: NDArray[np.float64], allowed: NDArray[np.bool_] | None, floor: float
) -> NDArray[np.float64]:
    """Shares `(n, K)` of which a part `floor` is spread evenly over the allowed arms."""
    evenly = 1.0 / shares.shape[1] if allowed is None else even(allowed)
    mixed: NDArray[np.float64] = (1.0 - floor) * shares + floor * evenly
    return mixed


def check_share(name: str, value: float) -> None:
    """Raise `ValueError` unless a parameter is a share of probability."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value!r}")
