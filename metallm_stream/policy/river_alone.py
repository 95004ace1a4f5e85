"""A policy of River's that is pulled and taught in one place, on arrays, as replays want it.

Invariant: it is tried, pulled and mixed with an even draw as in the service, and a lesson is known
to the next pull.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metallm_stream.policy.batch_policy import Pulls
from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import sample
from metallm_stream.policy.river_policy import RiverPolicy
from metallm_stream.policy.river_rule import RiverRule
from metallm_stream.policy.river_state import Taught, nothing_learned

_LEAST, _MOST = -1.0, 1.0  # rewards are cut to these, as those of the learner


class RiverAlone:
    """Pulls and teaches a River policy; expectations of ours do not move it.

    Parameters
    ----------
    policy
        As the settings name it. Raises `ConfigurationError` for one that the service would refuse.
    floor
        Share of an even draw, as in `RiverRule`.
    dimensions
        Of the contexts.
    seed
        Of all draws, the policy's own among them.

    Examples
    --------
    >>> from metallm_stream.policy.river_policy import river_policy
    >>> alone = RiverAlone(river_policy("river:LinUCBDisjoint"), 0.1, dimensions=2, seed=1)
    >>> alone.update_many(["a", "b"] * 20, np.ones((40, 2)), [0.9, 0.1] * 20)
    >>> alone.pull_many(np.ones((1, 2)), ["a", "b"]).probabilities
    array([[0.95, 0.05]])

    """

    learns_costs: ClassVar[bool] = True

    def __init__(
        self, policy: RiverPolicy, floor: float, *, dimensions: int, seed: int | None = None
    ) -> None:
        nothing_learned(policy, dimensions)
        self._dimensions = dimensions
        self._rng = np.random.default_rng(seed)
        self._rule = RiverRule(policy, floor, self._rng)

    def until_refresh(self) -> float:
        """Each lesson changes it."""
        return 1.0

    def pull_many(
        self,
        contexts: NDArray[np.floating],
        arm_ids: Sequence[str],
        *,
        penalties: ArrayLike | None = None,
        variances: ArrayLike | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Pulls:
        """Choose an arm for each of n queries; see `BatchPolicy`. Costs do not count here."""
        del penalties, variances  # it was taught what costs take from the reward
        self._require(contexts)
        beliefs = replace(Beliefs.nothing(tuple(arm_ids), len(contexts)), contexts=contexts)
        probabilities = self._rule.probabilities(beliefs, allowed)
        return Pulls(sample(probabilities, self._rng), probabilities)

    def update_many(
        self, arm_ids: Sequence[str], contexts: NDArray[np.floating], rewards: ArrayLike
    ) -> None:
        """Learn from n events in their order: arms `(n,)`, contexts `(n, d)`, utilities `(n,)`."""
        self._require(contexts)
        cut = np.clip(np.asarray(rewards, dtype=np.float64), _LEAST, _MOST).tolist()
        self._rule.teach(map(Taught, arm_ids, contexts, cut))

    def _require(self, contexts: NDArray[np.floating]) -> None:
        if contexts.ndim != 2 or contexts.shape[1] != self._dimensions:
            raise ValueError(
                f"contexts must be of shape (n, {self._dimensions}), got {contexts.shape}"
            )
