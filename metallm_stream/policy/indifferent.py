"""River policies that learn nothing: the baselines of every comparison.

Invariant: feedback never changes their choices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from river.bandit.base import RewardObj

from metallm_stream.policy.batch_policy import BatchPolicy
from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import Chooser
from metallm_stream.policy.fixed import Fixed
from metallm_stream.policy.uniform import Uniform


class Indifferent(BatchPolicy):
    """Base of the policies that expect the same of every arm, whatever they are told."""

    def until_refresh(self) -> float:
        """Never."""
        return math.inf

    def _beliefs(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Beliefs:
        return Beliefs.nothing(tuple(arms), len(contexts))

    def _learn(
        self, arms: Sequence[str], contexts: NDArray[np.floating], rewards: NDArray[np.float64]
    ) -> None:
        """Ignore them."""


class UniformPolicy(Indifferent):
    """Choose evenly; the way to log unbiased outcomes, at the price of never getting better.

    Parameters
    ----------
    reward_obj, burn_in, seed
        See `BatchPolicy`.

    Examples
    --------
    >>> UniformPolicy(seed=3).pull_many(np.zeros((1, 2)), ["a", "b"]).probabilities
    array([[0.5, 0.5]])

    """

    def _rule(self) -> Chooser:
        return Uniform()


class FixedPolicy(Indifferent):
    """Always the same arm; predictable, and as good as the arm.

    Parameters
    ----------
    arm
        The arm's name.
    reward_obj, burn_in, seed
        See `BatchPolicy`.

    Examples
    --------
    >>> FixedPolicy("b").pull(["a", "b"], {"length": 3.0})
    'b'

    """

    def __init__(
        self,
        arm: str,
        reward_obj: RewardObj | None = None,
        burn_in: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(reward_obj=reward_obj, burn_in=burn_in, seed=seed)
        self.arm = arm

    def _rule(self) -> Chooser:
        return Fixed(self.arm)
