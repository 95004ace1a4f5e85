"""River policies that learn nothing: whatever they are told, they go on as before."""

from __future__ import annotations

import math
from typing import Any

from metallm_stream.policy import Beliefs, Chooser, Fixed, Uniform
from metallm_stream.policy.batch_policy import BatchPolicy


class Indifferent(BatchPolicy):
    """Base of both: the same is expected of every arm."""

    def until_refresh(self) -> float:
        """Never."""
        return math.inf

    def _beliefs(self, contexts: Any, arms: Any) -> Beliefs:
        return Beliefs.nothing(tuple(arms), len(contexts))

    def _learn(self, arms: Any, contexts: Any, rewards: Any) -> None:
        """Ignore them."""


class UniformPolicy(Indifferent):
    """Choose evenly."""

    def _rule(self) -> Chooser:
        return Uniform()


class FixedPolicy(Indifferent):
    """Always the same arm."""

    def __init__(self, arm: str, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.arm = arm

    def _rule(self) -> Chooser:
        return Fixed(self.arm)
